"""Sheets for people to look at: Easy and Hard faces per set (Fig. 8), and what detectors say of one photo (Fig. 5).

They hold photos of people: they are for those who may see the collection, and nothing to publish.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from ffaa import weights
from ffaa.data.manifest import Row
from ffaa.errors import InputError, UsageError
from ffaa.eval.benchmark import ALL, VALIDATION, read_rows, sample, sample_hash
from ffaa.eval.plots import plain, provenance, write_png
from ffaa.eval.report import PAGE_STYLE
from ffaa.eval.result import Result
from ffaa.eval.run import Outcome, face_of
from ffaa.types import Label
from ffaa.vqa.conversation import read_jsonl

RIGHT, WRONG = "#0072B2", "#D55E00"
_STYLE = """figure{display:inline-block;width:150px;margin:4px;vertical-align:top;font-size:12px}
figure img{width:100%}.right{border:4px solid #0072B2}.wrong{border:4px dashed #D55E00}
.one{display:flex;gap:1em;border-top:1px solid #bbb;padding:1em 0}.one img{width:200px;height:200px}
.said{display:grid;gap:1em;grid-template-columns:repeat(auto-fit,minmax(16em,1fr));flex:1}
.said pre{font:13px/1.4 sans-serif;background:none;padding:0}"""


@dataclass(frozen=True)
class Cell:
    """A face to show. image: uint8 RGB (S, S, 3). said: 'fake, 0.93' or 'unread'; right: whether that is true."""

    image: np.ndarray
    truth: Label
    said: str
    right: bool

    @property
    def caption(self) -> str:
        return f"{self.truth.value}, called {self.said}" + ("" if self.right else " (wrong)")


def rows_of(found: Result, data: Path) -> list[Row]:
    """The rows of the result's photos, in its order. Raises InputError where `data` holds other photos."""
    rows = sample(found.recipe, read_rows(found.recipe, data))
    truth = [row.label is Label.FAKE for row in rows]
    other = f"{data}: not the photos of this result; give the folder that `ffaa bench run` had"
    if truth != found.photos.fake:
        raise InputError(other)
    # As the run named them: a crop's hash is its manifest's.
    hashes = [row.sha256 if row.size or row.box is not None else _sha256(data / row.path) for row in rows]
    if sample_hash(hashes) != found.sample_sha256:
        raise InputError(other)
    return rows


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such photo; give the folder that `ffaa bench run` had")
    return weights.sha256(path)


def drawn(found: Result, detector: str, per: int) -> dict[tuple[str, str], list[int]]:
    """(set, 'easy' or 'hard') -> at most `per` photos, a draw by the recipe's seed. Raises UsageError for a detector
    that gives no three answers."""
    if detector not in found.photos.answers:
        known = ", ".join(found.photos.answers) or "none"
        raise UsageError(
            f"'{detector}' gives no three answers, so nothing of it is easy or hard; those that do: {known}"
        )
    easy, sets, chosen = np.array(found.photos.answers[detector].easy), np.array(found.photos.set), {}
    for name in found.sets:
        for level in ("easy", "hard"):
            places = np.flatnonzero((sets == name) & (easy == (level == "easy")))
            rng = np.random.default_rng((found.recipe.seed, 11, *f"{name}/{level}".encode()))
            if len(places):
                chosen[name, level] = sorted(rng.permutation(places)[:per].tolist())
    return chosen


def compared(found: Result, count: int) -> list[int]:
    """Photos whose answers are shown beside each other: a draw by the recipe's seed over ALL (else all), real and
    forged in turn."""
    pool, fake = np.array(found.photos.pool), np.array(found.photos.fake)
    inside = pool == ALL if (pool == ALL).any() else pool != VALIDATION
    rng = np.random.default_rng((found.recipe.seed, 12))
    sides = [rng.permutation(np.flatnonzero(inside & (fake == side))).tolist() for side in (False, True)]
    turns = [place for pair in zip(*sides) for place in pair]
    rest = sides[0][len(turns) // 2 :] + sides[1][len(turns) // 2 :]
    return (turns + rest)[:count]


class Faces:
    """The cells of a result's photos."""

    def __init__(self, found: Result, data: Path):
        self._found, self._data, self._rows = found, data, rows_of(found, data)

    def image(self, place: int) -> np.ndarray:
        """The face crop that the detectors saw."""
        return face_of(self._data, self._rows[place], self._found.recipe.size)[0].image

    def cell(self, place: int, row: str) -> Cell:
        """row: of the result."""
        photos, says = self._found.photos, self._found.photos.says[row]
        said, fake = says.fake[place], photos.fake[place]
        told = f"{'fake' if said else 'real'}, {says.score[place]:.2f}"
        if said is None:
            told = "refused" if says.refused and says.refused[place] else "unread"
        return Cell(self.image(place), Label.FAKE if fake else Label.REAL, told, said is not None and said == fake)


def levels_figure(found: Result, faces: Faces, detector: str, per: int) -> Figure:
    """Easy and Hard faces, a line per set and level."""
    chosen = drawn(found, detector, per)
    figure = Figure(figsize=(2.2 + 1.7 * per, 0.8 + 1.9 * len(chosen)), layout="constrained")
    grid = figure.subplots(len(chosen), per, squeeze=False)
    for line, ((name, level), places) in zip(grid, chosen.items(), strict=True):
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(f"{plain(name)}\n{level}", fontsize=9)
        for axes, place in zip(line, places):
            cell = faces.cell(place, detector)
            axes.imshow(cell.image)
            axes.spines[:].set(visible=True, color=RIGHT if cell.right else WRONG, linewidth=3)
            axes.spines[:].set_linestyle("-" if cell.right else "--")
            axes.set_title(cell.caption, fontsize=7)
    figure.suptitle(f"{plain(detector)}: easy and hard, truth and verdict with forgery score", fontsize=10)
    return figure


def page(found: Result, faces: Faces, detector: str, per: int, photos: int, records: Path) -> str:
    """Both sheets as one HTML file that needs nothing beside it. records: folder of what was said of each photo."""
    parts = [f"<h2>Easy and hard: {html.escape(detector)}</h2>"]
    for (name, level), places in drawn(found, detector, per).items():
        parts.append(f"<h3>{html.escape(name)}, {level}</h3>")
        parts += [_figure(faces.cell(place, detector)) for place in places]
    words = _words(found, records)
    parts.append("<h2>What they say of the same photo</h2>")
    for place in compared(found, photos):
        cells = {row: faces.cell(place, row) for row in found.row_names}
        parts.append(_side_by_side(cells, {row: of[place] for row, of in words.items()}))
    title = html.escape(f"Benchmark {found.recipe.name}: faces")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{PAGE_STYLE}{_STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        "<p>Photos of people from collections with their own terms: for those who may see them, not to be passed on. "
        "A seeded draw, not the best or worst cases. Blue: right; dashed orange: wrong. Behind the verdict the forgery "
        f"score.</p>\n{''.join(parts)}\n<h2>Origin</h2><pre>{html.escape(found.command)}\nseed {found.recipe.seed}\n"
        f"sample sha256 {found.sample_sha256}</pre></body></html>\n"
    )


def _words(found: Result, records: Path) -> dict[str, list[str]]:
    """Row -> its words about every photo, '' where none were kept."""
    out: dict[str, list[str]] = {}
    for name, of in found.detectors.items():
        path = records / f"{name}.jsonl"
        kept = list(read_jsonl(path, Outcome)) if path.is_file() else []
        if kept and [one.label is Label.FAKE for one in kept] != found.photos.fake:
            raise InputError(f"{path}: of other photos than the result; run `ffaa bench run` again")
        for row in of.rows:
            out[row] = [one.words.get(row, "") for one in kept] or [""] * len(found.photos.fake)
    return out


def _side_by_side(cells: Mapping[str, Cell], words: Mapping[str, str]) -> str:
    first = next(iter(cells.values()))
    said = []
    for row, cell in cells.items():
        text = html.escape(words[row]) or "(a score alone, or no words kept)"
        verdict = html.escape(cell.said) + ("" if cell.right else " (wrong)")
        colour = "right" if cell.right else "wrong"
        said.append(f'<div class="{colour}"><b>{html.escape(row)}: {verdict}</b><pre>{text}</pre></div>')
    return (
        f'<div class="one"><div>{_img(first.image)}<p>in truth <b>{first.truth.value}</b></p></div>'
        f'<div class="said">{"".join(said)}</div></div>\n'
    )


def _figure(cell: Cell) -> str:
    colour = "right" if cell.right else "wrong"
    return f'<figure><div class="{colour}">{_img(cell.image)}</div><figcaption>{cell.caption}</figcaption></figure>\n'


def _img(image: np.ndarray) -> str:
    data = base64.b64encode(cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'


def write(found: Result, data: Path, out: Path, records: Path, detector: str, per: int, photos: int) -> None:
    """Write a sheet: HTML with both parts, or PNG with Easy and Hard alone, by the suffix of `out`.

    Raises UsageError for another suffix, InputError where it cannot be written.
    """
    if out.suffix not in (".html", ".png"):
        raise UsageError(f"{out}: a sheet is .html or .png; name it so")
    faces = Faces(found, data)
    try:
        if out.suffix == ".html":
            out.write_text(page(found, faces, detector, per, photos, records), encoding="utf-8")
        else:
            image = io.BytesIO()
            write_png(levels_figure(found, faces, detector, per), image, provenance(found))
            out.write_bytes(image.getvalue())
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error


def answering(found: Result, given: str | None) -> str:
    """The detector whose Easy and Hard are shown: the given one, else the first that answers. Raises UsageError."""
    names: Sequence[str] = list(found.photos.answers)
    if given is None and not names:
        raise UsageError("no detector of this result gives three answers, so nothing is easy or hard")
    return given if given is not None else names[0]
