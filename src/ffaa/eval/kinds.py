"""The kinds of result files: how each is read, tabulated and drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ffaa.data.stats import Table
from ffaa.errors import UsageError
from ffaa.eval import curves, plots, reasons, robustness, tables
from ffaa.eval.result import format_of, read_as, read_result


class Kind(NamedTuple):
    """What can be done with a result of one format."""

    read: Callable[[Path], Any]
    tables: Callable[[Any], list[Table]]
    as_csv: Callable[[Any], str]
    figures: Callable[[Any], dict[str, Figure]]


def _read_robustness(path: Path) -> robustness.RobustnessResult:
    return read_as(path, robustness.RobustnessResult, robustness.FORMAT, "ffaa bench robustness")


def _read_explain(path: Path) -> reasons.ExplainResult:
    return read_as(path, reasons.ExplainResult, reasons.FORMAT, "ffaa bench explain")


def _no_figures(found: Any) -> dict[str, Figure]:
    raise UsageError("a result of `ffaa bench explain` has tables alone; see `ffaa bench table`")


PLAIN = Kind(read_result, tables.tables, tables.as_csv, plots.figures)
KINDS: dict[str, Kind] = {
    robustness.FORMAT: Kind(_read_robustness, curves.tables, curves.as_csv, curves.figures),
    reasons.FORMAT: Kind(_read_explain, reasons.tables, reasons.as_csv, _no_figures),
}


def read_any(path: Path) -> tuple[Kind, Any]:
    """A result of any kind; what does not say its kind is read as one of `ffaa bench run`. Raises InputError."""
    kind = KINDS.get(format_of(path), PLAIN)
    return kind, kind.read(path)
