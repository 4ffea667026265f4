import json

import pytest
from tests.vqa.rows import told

from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.mllm.answer import format_answer
from ffaa.types import ForgeryType, Label
from ffaa.vqa import ddvqa
from ffaa.vqa.export import answer, unfit
from ffaa.vqa.filter import Filter, FilterArgs

IMAGE, SKIN = "Does the image looks real/fake?", "Does the person's skin look real/fake?"
FAKE = ["The image looks fake. the nose  is curved. . The nose is curved.", "The image looks real. All is well."]
TEXTS = {
    "6_154_386": [(IMAGE, FAKE), (SKIN, ["The person's skin looks a bit fake because it is smooth."])],
    "5_044": [(IMAGE, ["The image looks real. The person has straight nose."]), (SKIN, ["Hm."])],
}


def one_file(root):
    lines = [
        {"path": f"{prefix}_{key}.jpg", "qa": [{"question": q, "answers": a} for q, a in TEXTS[key]]}
        for prefix, key in (("NeuralTextures", "6_154_386"), ("real", "5_044"))
    ]
    (root / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def published(root):
    for part, method, key in (("train_set", "Neuraltexture", "6_154_386"), ("test_set", "Original", "5_044")):
        path = root / "DQ_FF++" / part / method / f"{method}.json"
        path.parent.mkdir(parents=True)
        asked = {str(i): {"question": q, "answer": a} for i, (q, a) in enumerate(TEXTS[key])}
        path.write_text(json.dumps({key: asked}), encoding="utf-8")
    (root / "DQ_FF++" / "split").mkdir()
    for name, pairs in (("train", [["154", "386"]]), ("val", []), ("test", [["044", "945"]])):
        (root / "DQ_FF++" / "split" / f"{name}.json").write_text(json.dumps(pairs), encoding="utf-8")


def by_label(root, write):
    write(root)
    return {r.label: r for r in ddvqa.read(root)}


@pytest.mark.parametrize("write", [one_file, published])
def test_both_layouts_give_the_same_words(tmp_path, write):
    found = by_label(tmp_path, write)
    forged, real = found[Label.FAKE], found[Label.REAL]
    assert (forged.method, forged.forgery_type) == ("NeuralTextures", ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION)
    assert forged.groups == ("faceforensics/154", "faceforensics/386")
    assert [(s.text, s.says) for s in forged.said["image"]] == [
        ("The image looks fake. The nose is curved.", Label.FAKE),
        ("The image looks real. All is well.", Label.REAL),
    ]
    assert [s.says for s in forged.said["skin"]] == [Label.FAKE]
    assert [s.says for s in real.said["skin"]] == [None]
    assert forged.votes == [Label.FAKE, Label.REAL, Label.FAKE]
    assert forged.split == ("train" if write is published else "")


def test_how_sure_people_are(tmp_path):
    forged = by_label(tmp_path, one_file)[Label.FAKE]
    assert ddvqa.probability(forged, Label.FAKE) == 0.6
    assert ddvqa.probability(forged, Label.REAL) == 0.4


def face(record, i, **more):
    return Row(
        path=f"crops/{i}.jpg", sha256=f"{i:064x}", label=record.label, forgery_type=record.forgery_type,
        method=record.method, dataset="ddvqa", split="train", group="faceforensics/154",
        photo=f"ddvqa/{record.image}", size=224, **more,
    )  # fmt: skip


def test_conversations(tmp_path):
    found = by_label(tmp_path, one_file)
    faces = [face(found[Label.FAKE], 0), face(found[Label.FAKE], 1, track=1), face(found[Label.REAL], 2)]
    rows = list(ddvqa.rows(found.values(), faces, ["Real?"], "7", 3))
    assert [(r.image, r.result, r.probability) for r in rows] == [
        ("crops/0.jpg", Label.FAKE, 0.6), ("crops/0.jpg", Label.REAL, 0.4), ("crops/2.jpg", Label.REAL, 0.67)
    ]  # fmt: skip
    right, wrong, _ = rows
    assert (right.teacher, right.question, right.prompt_version, right.seed) == (ddvqa.TEACHER, "Real?", "7", 3)
    assert (right.group, right.method, right.split) == ("faceforensics/154", "NeuralTextures", "train")
    assert right.description == ""
    assert right.reasoning == "The image looks fake. The nose is curved."
    assert answer(right, "FR", format_answer).split("\n")[1:] == [
        "Analysis result: fake", "Probability: 0.60", "Forgery type: Facial attribute manipulation"
    ]  # fmt: skip
    args = FilterArgs(parts=("reasoning",), min_words=5)
    assert Filter(args).judge(right) == {}
    assert "result" in Filter(args).judge(wrong)


def test_a_description_from_elsewhere(tmp_path):
    found = by_label(tmp_path, one_file)
    described = {"crops/0.jpg": told(reasoning=())}
    rows = list(ddvqa.rows(found.values(), [face(found[Label.FAKE], 0)], ["Real?"], "7", 3, described))
    assert rows[0].description.startswith("The picture shows")
    assert unfit(rows[0], "All") == ""


def test_photos_are_matched_by_their_whole_name(tmp_path):
    found = by_label(tmp_path, published)
    other = face(found[Label.FAKE], 0).model_copy(update={"photo": "other/6_154_386.jpg"})
    assert list(ddvqa.rows(found.values(), [other], ["?"], "1", 0)) == []
    wrong = face(found[Label.FAKE], 0).model_copy(update={"label": Label.REAL})
    with pytest.raises(InputError, match="the manifest says real, DD-VQA fake"):
        list(ddvqa.rows(found.values(), [wrong], ["?"], "1", 0))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "line 1: expected a path and qa"),
        ('{"path": "real_5_044.jpg"}', "line 1: expected a path and qa"),
        ('{"path": "real_5_044.jpg", "qa": [{"question": "Why?", "answers": []}]}', "line 1: expected a question"),
        ('{"path": "real_5_044.jpg", "qa": [{"question": "the image", "answers": "no"}]}', "line 1: expected"),
    ],
)
def test_a_bad_line(tmp_path, line, match):
    (tmp_path / "answers.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=match):
        list(ddvqa.read(tmp_path))


def test_tidy_keeps_the_words():
    assert ddvqa.tidy(" the a. . B is it.. b 0.5 wide ") == ["The a.", "B is it.", "B 0.5 wide."]
    assert ddvqa.tidy(" . ") == []
