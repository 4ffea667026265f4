"""The folder that `ffaa data stats --out` writes: tables, plots and sheets of examples (as the paper's Fig. 9)."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ffaa.data import manifest
from ffaa.data.clean import draw
from ffaa.data.crops import plain_face, read_photo
from ffaa.data.manifest import Row
from ffaa.data.stats import MEASURES, Kind, Table, Tally, markdown
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label

COLUMNS, TILE, GAP, CAPTION = 10, 112, 4, 220  # pixels
SHEET_ROWS = 40
COLOURS = {Label.REAL: "#1b6ca8", Label.FAKE: "#d1495b"}
DPI = 100
BINS = 30
_PNG: dict[str, Any] = {"dpi": DPI, "metadata": {"Software": None}}  # no version inside: the same bytes again


def write_report(
    out: Path,
    folder: Path,
    found: Tally,
    tables: Sequence[Table],
    numbers: dict[str, Any],
    data: Path | None = None,
    seed: int = 0,
) -> list[str]:
    """Write stats.md, stats.json, plots and sheets into `out`; returns what is to be said about them, a line each.

    tables, numbers: what the two text files hold. data: where the photos lie, for rows without crops. Raises InputError
    when a crop cannot be read or `out` not be written.
    """
    notes, images = list[str](), list[str]()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if found.kinds:
            images.append("composition.png")
            composition(found).savefig(out / images[-1], **_PNG)
            if any(len(values) for of in found.values.values() for values in of.values()):
                images.append("measures.png")
                measures(found).savefig(out / images[-1], **_PNG)
            drawn = examples(folder, data, seed)
            if drawn.no_crops:
                notes.append(
                    f"{drawn.no_crops} faces have no crop and are on no sheet"
                    + ("; give --data, the photos' folder" if data is None else ": they are frames of videos")
                )
            root = folder if folder.is_dir() else folder.parent
            for name, lines in (("training", drawn.lines(False)), ("bench", drawn.lines(True))):
                for page, start in enumerate(range(0, len(lines), SHEET_ROWS)):
                    images.append(f"sheet-{name}{f'-{page + 1}' if page else ''}.png")
                    sheet(lines[start : start + SHEET_ROWS], root, data).save(out / images[-1])
        pictures = Table("Pictures", notes=[f"![{name}]({name})" for name in images] + notes)
        text = markdown([*tables, pictures] if images else tables)
        (out / "stats.md").write_text(text, encoding="utf-8")
        (out / "stats.json").write_text(json.dumps({"seed": seed, **numbers}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{out}: cannot be written ({reason}); make room, or choose another --out") from error
    return notes


def composition(found: Tally) -> Figure:
    """Faces per forgery type, a colour per collection."""
    sums, datasets = Counter[tuple[ForgeryType, str]](), found.datasets()
    for kind, count in found.kinds.items():
        sums[kind.forgery_type, kind.dataset] += count
    kinds = [kind for kind in ForgeryType if any(kind is of for of, _ in sums)]
    figure = Figure(figsize=(9, 1.5 + 0.5 * len(kinds) + 0.12 * len(datasets)), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab20"]
    left: np.ndarray = np.zeros(len(kinds))
    for n, name in enumerate(datasets):
        faces = np.array([sums[kind, name] for kind in kinds], float)
        axes.barh([kind.value for kind in kinds], faces, left=left, color=colours(n % 20), label=_plain(name))
        left += faces
    axes.invert_yaxis()
    axes.set_xlabel("faces")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8)
    return figure


def measures(found: Tally) -> Figure:
    """Histograms, a line per collection and a column per measure taken, real and fake; without the outer 1 %."""
    datasets = found.datasets()
    every = {name: np.concatenate([found.of(dataset, name) for dataset in datasets]) for name in MEASURES}
    names = [name for name in MEASURES if len(every[name])]
    figure = Figure(figsize=(2.2 * len(names), 1.1 + 1.3 * len(datasets)), layout="constrained")
    grid = figure.subplots(len(datasets), len(names), squeeze=False, sharex="col")
    for column, name in enumerate(names):
        low, high = np.quantile(every[name], (0.01, 0.99)).tolist()
        grid[0, column].set_title(name.replace("_", " "), fontsize=9)
        for line, dataset in enumerate(datasets):
            axes = grid[line, column]
            for label, colour in COLOURS.items():
                values = np.array(found.values.get((dataset, label), {}).get(name, ()), float)
                values = values[(values >= low) & (values <= high)]
                if len(values):
                    axes.hist(
                        values, BINS, (low, high), weights=np.full(len(values), 1 / len(values)), histtype="step",
                        color=colour, label=label.value,
                    )  # fmt: skip
            axes.tick_params(labelsize=7)
            axes.set_yticks([])
            if not column:
                axes.set_ylabel(_plain(dataset), fontsize=8)
    handles = [matplotlib.lines.Line2D([], [], color=c, label=label.value) for label, c in COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, fontsize=8)
    return figure


def _plain(text: str) -> str:
    """matplotlib reads formulas between dollars, and hides labels that begin with an underscore."""
    return "\u200b" * text.startswith("_") + text.replace("$", r"\$")


_Key = tuple[str, str, bool, str]


@dataclass
class Examples:
    """Drawn rows of every (benchmark set, collection, fake, method). no_crops: faces that cannot be shown."""

    rows: dict[_Key, list[tuple[int, int, Row]]] = field(default_factory=dict)
    faces: Counter[_Key] = field(default_factory=Counter)
    no_crops: int = 0

    def lines(self, bench: bool) -> list[tuple[str, list[Row]]]:
        """Caption and rows, of the training collections or of the benchmark sets: by name, real first."""
        return [
            (
                "\n".join([*filter(None, (key[0], key[1], key[3])), f"{self.faces[key]:,} faces"]),
                [row for *_, row in sorted(self.rows[key], key=lambda entry: entry[:2], reverse=True)],
            )
            for key in sorted(self.rows)
            if bool(key[0]) is bench
        ]


def examples(folder: Path, data: Path | None, seed: int, columns: int = COLUMNS) -> Examples:
    """A seeded draw of faces that does not depend on their order. One pass, `columns` rows of each kind in memory."""
    found = Examples()
    for number, row in enumerate(manifest.scan(folder)):
        if not row.size and (data is None or row.time is not None):
            found.no_crops += 1
            continue
        kind = Kind.of(row)
        key = (kind.bench, kind.dataset, kind.label is Label.FAKE, kind.method)
        found.faces[key] += 1
        heap = found.rows.setdefault(key, [])
        heapq.heappush(heap, (-draw(seed, f"{row.path}|{row.time}|{row.track}"), -number, row))
        if len(heap) > columns:
            heapq.heappop(heap)
    return found


def sheet(lines: Iterable[tuple[str, list[Row]]], root: Path, data: Path | None) -> Image.Image:
    """A line of face images per caption. Raises InputError when a file cannot be read."""
    lines = list(lines)
    step = TILE + GAP
    image = Image.new("RGB", (CAPTION + COLUMNS * step + GAP, len(lines) * step + GAP), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 13)
    for place, (caption, rows) in enumerate(lines):
        top = GAP + place * step
        pen.multiline_text((8, top + 8), "\n".join(_fit(t, font) for t in caption.split("\n")), "black", font)
        for column, row in enumerate(rows):
            photo = read_photo(root if row.size or data is None else data, row)
            image.paste(Image.fromarray(plain_face(photo, row, TILE).image), (CAPTION + column * step, top))
    return image


def _fit(text: str, font: ImageFont.FreeTypeFont) -> str:
    while font.getlength(text) > CAPTION - 12:
        text = text[: -2 if text.endswith("…") else -1] + "…"
    return text
