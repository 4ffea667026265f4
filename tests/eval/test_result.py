import json

import pytest

from ffaa.errors import InputError
from ffaa.eval.result import read_result, write_result


@pytest.fixture
def file(result, tmp_path):
    write_result(tmp_path / "r.json", result)
    return tmp_path / "r.json"


def change(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_what_is_written_is_read(file, result):
    again = read_result(file)
    assert again.photos == result.photos
    assert again.recipe == result.recipe
    assert again.detectors["nano"].rows == ["nano", "nano/anchor", "nano/majority"]
    for name, group in result.groups.items():
        for row, of in group.rows.items():
            read = again.groups[name].rows[row]
            assert (read.acc, read.auc, read.eer) == pytest.approx((of.acc, of.auc, of.eer), abs=1e-6)
            assert read.acc_interval == pytest.approx(of.acc_interval, abs=1e-6)
    assert not file.with_name("r.json.part").exists()


def test_all_that_it_takes_to_repeat_the_run_is_in_the_file(file):
    content = json.loads(file.read_text())
    assert content["command"] == "ffaa bench run <x>"
    assert content["recipe"]["seed"] == content["bootstrap"]["seed"] == 3
    assert content["bootstrap"]["resamples"] == 200
    assert len(content["sample_sha256"]) == 64
    assert {"ffaa", "torch", "numpy"} <= content["versions"].keys()
    assert content["detectors"]["weak"]["files"] == {"w": "00"}
    assert content["detectors"]["nano"]["images_per_second"] == 4
    assert content["batch"] == 8


def test_one_line_per_key(file):
    lines = file.read_text().splitlines()
    assert len(lines) == 2 + len(json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda c: c.pop("sacc"), "sacc: Field required"),
        (lambda c: c.update(more=1), "more: Extra"),
        (lambda c: c["photos"]["says"]["weak"]["score"].__setitem__(0, 1.5), "photos.says.weak.score.0"),
    ],
)
def test_a_damaged_result_is_refused_with_the_place(file, edit, told):
    change(file, edit)
    with pytest.raises(InputError, match=told) as caught:
        read_result(file)
    assert "\n" not in str(caught.value)


def test_an_older_result_is_told_apart(file):
    change(file, lambda c: c.pop("format"))
    with pytest.raises(InputError, match="another version of ffaa; run its `ffaa bench run` again"):
        read_result(file)


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", ""])
def test_other_files(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="not a result"):
        read_result(tmp_path / "x.json")
    with pytest.raises(InputError, match="not a result"):
        read_result(tmp_path / "missing.json")
