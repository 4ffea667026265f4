import csv
import io
import re

import pytest

from ffaa.eval.tables import COLUMNS, as_csv, as_html, as_markdown, tables, too_few


def test_every_table_and_its_size(result):
    found = {table.title: table for table in tables(result)}
    assert list(found) == ["Sets", "Pools", "ACC by threshold", "Easy and Hard", "Findings", "Forgery types",
                           "Detectors"]  # fmt: skip
    for table in found.values():
        assert {len(row) for row in table.rows} == {len(table.header)}
    assert [row[0] for row in found["Sets"].rows] == ["nano", "nano/anchor", "nano/majority", "weak"]
    assert len(found["Pools"].rows) == 2 * 4
    assert len(found["Easy and Hard"].rows) == 5 * 2
    assert len(found["Findings"].rows) == 5


def test_cells_are_the_figures(result):
    found = {table.title: table for table in tables(result)}
    of, sacc = result.sets["A"].rows["weak"], result.sacc["weak"]
    row = found["Sets"].rows[3]
    assert found["Sets"].header[2] == "A (20:20)"
    assert row[2] == f"{of.acc:.3f} / {of.auc:.3f} / {of.ap:.3f}"
    assert row[-1] == f"{sacc.value:.3f} [{sacc.low:.3f}, {sacc.high:.3f}]"
    limits = found["ACC by threshold"]
    assert limits.header[2:] == ["0.5", "pooled", "oracle", "validation"]
    assert limits.rows[0][-1] == "-"  # the assistant brings no threshold
    assert limits.rows[3][-1].endswith("(0.600)")
    hard = found["Easy and Hard"].rows[-1]
    assert hard[:3] == ["ALL", "nano", "hard"]
    assert hard[3] == str(result.pools["ALL"].answers["nano"].hard.count)
    of = result.pools["ALL"].answers["nano"].findings
    line = found["Findings"].rows[-1]
    assert (line[:3], line[5:]) == (["ALL", "nano", str(of.count)], [f"{of.accused:.3f}", f"{of.missed:.3f}"])
    assert found["Detectors"].rows[0][1:] == ["ffaa", "5.0 M", "224", "cpu", "4.00"]


def test_csv_has_a_line_per_set_and_row(result):
    lines = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == 5 * 4
    one = next(line for line in lines if line["set"] == "B" and line["row"] == "nano")
    assert float(one["acc"]) == pytest.approx(result.sets["B"].rows["nano"].acc, abs=1e-4)
    assert float(one["auc_low"]) == pytest.approx(result.sets["B"].rows["nano"].auc_interval[0], abs=1e-4)


def test_markdown_and_html(result):
    text = as_markdown(result)
    assert "| nano/anchor |" in text
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == 7
    page = as_html(tables(result))
    assert page.count("<table>") == 7
    assert "<script" not in page


def test_names_are_escaped(result):
    group = result.sets["A"]
    odd = result.model_copy(update={"sets": {"<b>|$": group}})
    assert "<b>" not in as_html(tables(odd))
    assert "&lt;b&gt;|$ (20:20)" in as_html(tables(odd))
    assert "<b>\\|$" in as_markdown(odd)


def test_what_is_not_defined_is_a_dash_with_its_reason(result):
    row = result.sets["A"].rows["nano"].model_copy(
        update={"auc": None, "auc_interval": None, "undefined": "only real photos: AUC not defined"}
    )  # fmt: skip
    group = result.sets["A"].model_copy(update={"rows": dict.fromkeys(result.row_names, row)})
    odd = result.model_copy(update={"sets": {"A": group}})
    shown = tables(odd)[0]
    assert " / - / " in shown.rows[0][1]
    assert "-: only real photos: AUC not defined." in shown.notes
    assert ",only real photos: AUC not defined" in as_csv(odd)


def test_few_photos_are_warned_of(result):
    assert too_few(10) == []
    assert "The smallest set and label has 2 photos" in too_few(2)[0]
    found = {table.title: table for table in tables(result)}
    assert len(found["Pools"].notes) == 1
    sets = {name: group.model_copy(update={"real": 3}) for name, group in result.sets.items()}
    found = {table.title: table for table in tables(result.model_copy(update={"sets": sets}))}
    assert "has 3 photos" in found["Pools"].notes[1]
