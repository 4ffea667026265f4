"""A result as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

from ffaa.data.stats import Table
from ffaa.eval import fairness
from ffaa.eval.plots import figures, provenance, write_png
from ffaa.eval.result import Result
from ffaa.eval.tables import as_html, tables

PAGE_STYLE = """body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#111}
table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #bbb;padding:.2em .5em;text-align:left}
.wide{overflow-x:auto}img{max-width:100%}pre{background:#f3f3f3;padding:.6em;white-space:pre-wrap}"""


def report(found: Result) -> str:
    """Tables, plots (PNG inside), the command, and hashes of the sample and of all weights."""
    images = []
    for name, figure in figures(found).items():
        file = io.BytesIO()
        write_png(figure, file, provenance(found))
        data = base64.b64encode(file.getvalue()).decode()
        images.append(f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{data}"></p>\n')
    title = html.escape(f"Benchmark {found.recipe.name}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{PAGE_STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{html.escape(found.recipe.about)}</p>\n"
        f"<pre>{html.escape(found.command)}</pre>\n"
        + as_html([*tables(found), *(fairness.table(found, name) for name in found.photos.attributes)])
        + "<h2>Plots</h2>\n"
        + "".join(images)
        + as_html(_provenance(found))
        + "</body></html>\n"
    )


def _provenance(found: Result) -> list[Table]:
    def rows(values: Mapping[str, object]) -> list[list[str]]:
        return [[name, str(value)] for name, value in values.items()]

    seeds = {
        "photos": len(found.photos.fake), "sample sha256": found.sample_sha256, "seed": found.recipe.seed,
        "bootstrap": f"{found.bootstrap.resamples} resamples, seed {found.bootstrap.seed}",
    }  # fmt: skip
    files = [[name, file, sha] for name, of in found.detectors.items() for file, sha in of.files.items()]
    return [
        Table("Run", ["", ""], rows(seeds | found.versions)),
        Table("Weights", ["detector", "file", "sha256"], files),
        Table("Recipe", ["", ""], rows(found.recipe.model_dump(mode="json"))),
    ]
