import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from tests.vqa.rows import row, told

from ffaa.errors import InputError
from ffaa.types import Label
from ffaa.vqa.cloud import draw_cloud
from ffaa.vqa.stats import describe, sample, tables, tally, write_report

ROWS = [
    row(0, sentences=told(("The dark eyes appear.",), ("A clear seam runs here.",)), hypothesis=Label.FAKE),
    row(1, sentences=told(("The dark eyes appear.",), ("The seam is long.",)), dataset="", teacher="u"),
    row(2, label=Label.REAL, sentences=[], result=None, split=""),
]


def test_the_numbers():
    stats = describe(tally(iter(ROWS), len))
    assert (stats.rows, stats.answers, stats.results_wrong) == (3, 2, 1)
    assert stats.by_type == {"Identity exchange": 2, "Real": 1}
    assert stats.by_source == {"tiny": 2, "unnamed": 1}
    assert stats.by_teacher == {"t-1": 2, "u": 1}
    assert stats.by_split == {"train": 2, "none": 1}
    assert stats.by_hypothesis == {"none": 2, "fake": 1}
    assert [of.mean for of in stats.lengths] == [8.5, 42]
    assert stats.lengths[0].quantiles.max == 9
    assert stats.vocabulary == 11
    assert stats.distinct == {"1": round(11 / 17, 4), "2": round(12 / 15, 4), "3": round(11 / 13, 4)}
    assert stats.distinct_sentences == 0.75
    assert stats.repeated_sentences[0] == ("The dark eyes appear.", 2)
    assert stats.repeated_trigrams[:2] == [("dark eyes appear", 2), ("the dark eyes", 2)]


def test_the_cloud_holds_words_of_pairs():
    stats = describe(tally(ROWS))
    assert {(p.kind, p.first, p.second): p.count for p in stats.pairs} == {
        ("noun-verb", "eye", "appear"): 2, ("noun-verb", "seam", "runs"): 1, ("noun-verb", "seam", "is"): 1,
        ("adjective-noun", "dark", "eye"): 2, ("adjective-noun", "clear", "seam"): 1,
    }  # fmt: skip
    assert {(w.word, w.kind): w.count for w in stats.cloud} == {
        ("eye", "noun"): 4, ("seam", "noun"): 3, ("dark", "adjective"): 2, ("clear", "adjective"): 1
    }  # fmt: skip


def test_nothing_at_all():
    stats = describe(tally([]))
    assert (stats.rows, stats.vocabulary, stats.lengths[0].mean) == (0, 0, None)
    assert stats.distinct == {"1": None, "2": None, "3": None}
    assert next(t for t in tables(stats) if t.title == "Variety").rows[1] == ["distinct-1", "-"]


def test_the_report_is_the_same_again(tmp_path):
    stats = describe(tally(ROWS))
    for name in "ab":
        write_report(tmp_path / name, stats)
        assert {p.name for p in (tmp_path / name).iterdir()} == {"stats.md", "stats.json", "cloud.png"}
    for name in ("stats.md", "stats.json", "cloud.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a" / "stats.md").read_text(encoding="utf-8")
    assert "| Identity exchange | 2 |" in text
    assert "| The dark eyes appear. | 2 |" in text
    assert json.loads((tmp_path / "a" / "stats.json").read_text(encoding="utf-8"))["vocabulary"] == 11
    with Image.open(tmp_path / "a" / "cloud.png") as image:
        assert image.size == (1200, 700)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "file", stats)


def test_frequent_words_are_larger_and_do_not_overlap():
    blue, red = (27, 108, 168), (209, 73, 91)
    pixels = np.asarray(draw_cloud({("seam", "noun"): 100, ("dark", "adjective"): 25}))
    areas = {colour: (pixels == colour).all(2) for colour in (blue, red)}
    heights = {colour: np.ptp(np.nonzero(area)[0]) for colour, area in areas.items()}
    assert heights[blue] > 1.2 * heights[red] > 0
    assert (np.asarray(draw_cloud({})) == 255).all()
    many = {(f"word{i}", "noun"): 200 - i for i in range(120)}
    assert ((np.asarray(draw_cloud(many)) == blue).all(2)).sum() > 20_000


def test_a_sample_is_drawn_from_all_rows_alike():
    rows = [row(i) for i in range(30)]
    seen = Counter[str]()
    for seed in range(200):
        text = sample(rows, 5, seed)
        numbers = re.findall(r"^## Row (\d+) \(tiny, fake: Identity exchange\)", text, re.MULTILINE)
        assert len(numbers) == 5
        assert numbers == sorted(numbers, key=int)
        seen.update(numbers)
    assert len(seen) == 30
    assert 15 <= min(seen.values()) <= max(seen.values()) <= 60  # 33 expected
    assert sample(rows, 5, 1) == sample(rows, 5, 1)
    assert sample(rows[:3], 5).count("## Row") == 3
