"""DD-VQA (Zhang et al. 2024): cropped FaceForensics++ frames with people's answers about them (texts: not read here).

As published, DQ_FF++/{train_set,test_set}/METHOD/METHOD.json maps 6_154_386 (method number, TARGET_SOURCE) to questions
and answers, and DQ_FF++/split/*.json are FaceForensics++'s lists. The frames come apart, named 6_154_386.jpg as public
users of the set have them (not confirmed from an official page); put them into frames/. Also read: one answers.jsonl
beside the frames, with a "path" such as NeuralTextures_6_154_386.jpg a line. Groups are FaceForensics++'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ffaa.data.sources import faceforensics
from ffaa.data.sources.base import (
    Item,
    Source,
    SourceArgs,
    expect,
    fake,
    folders,
    inside,
    read_json,
    read_text,
    real,
    relative,
    some,
)
from ffaa.errors import InputError

NAME = "ddvqa"
OBTAIN = "DD-VQA is given at https://github.com/Reality-Defender/Research-DD-VQA, its frames by the authors"
METHODS = {"0": "Deepfakes", "1": "Face2Face", "2": "FaceShifter", "3": "FaceSwap", "5": "", "6": "NeuralTextures"}


def _item(path: str, where: str, splits: dict[str, str]) -> Item:
    """The frame's item, from its name."""
    match = re.search(r"(?:^|_)([0-356])_(\d{3})(?:_(\d{3}))?$", Path(path).stem)
    if match is None or (match[1] == "5") != (match[3] is None):
        raise InputError(
            f"{where}: {path!r} does not end in METHOD_TARGET_SOURCE such as 6_154_386 (or 5_000); {OBTAIN}"
        )
    method, split = METHODS[match[1]], splits.get(match[2], "")
    if not method:
        return real(path, groups=(faceforensics.group(match[2]),), split=split)
    groups = (faceforensics.group(match[2]), faceforensics.group(match[3]))
    return fake(path, faceforensics.METHODS[method], method, groups=groups, split=split)


def _lines(path: Path) -> Iterator[Item]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}: line {number}"
        try:
            record = json.loads(line)
            name, label = str(record["path"]), record.get("label")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: expected a JSON object with a path; {error!r}") from error
        item = _item(inside(name, where), where, {})
        if label not in (None, item.label.value):
            raise InputError(f"{where}: label {label!r} contradicts the name {name!r}")
        yield item


def _published(root: Path, args: SourceArgs) -> Iterator[Item]:
    data = expect(root / "DQ_FF++", NAME, OBTAIN)
    splits = faceforensics.official(data / "split", NAME, f"{OBTAIN} (or set official: false)") if args.official else {}
    for part in ("train_set", "test_set"):
        for path in sorted((data / part).glob("*/*.json")):
            entries = read_json(path)
            if not isinstance(entries, dict):
                raise InputError(f"{path}: expected an object with one entry per frame; copy the file again")
            for key in sorted(entries):
                yield _item(f"frames/{inside(key, str(path))}.jpg", relative(path, root), splits)


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    folders(NAME, OBTAIN, args, [(method, root) for method in METHODS.values()])
    lines = root / "answers.jsonl"
    for item in _lines(lines) if lines.is_file() else _published(root, args):
        if args.wants(item.method):
            yield item


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """The frames that the answers name, by file and name, whether the frame is there or not."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="DD-VQA: FaceForensics++ frames with people's reasons why they look real or fake",
    obtain=OBTAIN,
    layout="DQ_FF++/{train_set,test_set}/METHOD/METHOD.json, DQ_FF++/split/{train,val,test}.json, frames/6_154_386.jpg"
    "; or answers.jsonl beside its frames",
)
