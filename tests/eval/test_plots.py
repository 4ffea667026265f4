import json
import re

import numpy as np
import pytest
from PIL import Image

from ffaa.errors import InputError
from ffaa.eval.plots import COLOURS, figures, levels, line_style, roc, save
from ffaa.eval.report import report


def test_the_files_and_that_they_are_pictures(result, tmp_path):
    paths = save(figures(result), result, tmp_path / "deep" / "plots")
    assert [path.name for path in paths] == ["roc.png", "reliability.png", "radar.png", "easy-hard-nano.png"]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 300
        assert pixels.std() > 10
        told = json.loads(Image.open(path).text["Description"])
        assert told["command"] == result.command
        assert (told["seed"], told["sample_sha256"]) == (3, result.sample_sha256)
        assert told["weights_sha256"] == {"nano": {"w": "00"}, "weak": {"w": "00"}}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save(figures(result), result, tmp_path / "file" / "x")


def test_the_roc_legend_holds_the_auc(result):
    axes = roc(result).axes
    assert [one.get_title() for one in axes] == ["in domain", "ALL"]
    texts = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert texts[0] == f"nano ({result.pools['ALL'].rows['nano'].auc:.3f})"
    assert len(texts) == 4


def test_bars_are_the_shares_and_accuracies(result):
    share, acc = levels(result, "nano").axes
    easy = [bar.get_height() for bar in share.containers[0]]
    assert easy == pytest.approx([of.answers["nano"].easy.share.value for of in result.groups.values()])
    after = [bar for container in acc.containers if "hard, after" in container.get_label() for bar in container]
    assert [b.get_height() for b in after] == pytest.approx(
        [of.answers["nano"].hard.mids.value for of in result.groups.values()]
    )
    assert {bar.get_hatch() for bar in share.containers[1]} == {"///"}  # told apart without colour


def test_no_two_lines_look_alike_even_in_greyscale():
    styles = [line_style(n) for n in range(14)]
    assert len({(s["color"], str(s["linestyle"])) for s in styles}) == 14
    assert len({str(s["linestyle"]) for s in styles[:7]}) == 7
    light = [0.2126 * int(c[1:3], 16) + 0.7152 * int(c[3:5], 16) + 0.0722 * int(c[5:], 16) for c in COLOURS]
    assert max(light) < 190  # dark enough on white


def test_without_both_classes_there_is_no_roc(result):
    pools = {name: group.model_copy(update={"real": 0}) for name, group in result.pools.items()}
    assert "roc.png" not in figures(result.model_copy(update={"pools": pools}))


def test_the_report_needs_nothing_beside_it(result):
    page = report(result)
    assert page.count("data:image/png;base64,") == 4
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "ffaa bench run &lt;x&gt;" in page
    assert result.sample_sha256 in page
    assert "<td>w</td><td>00</td>" in page
    assert "Easy and Hard" in page
    assert report(result) == page
