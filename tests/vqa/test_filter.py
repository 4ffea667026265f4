import cv2
import numpy as np
import pytest
from tests.vqa.rows import DESCRIPTION, REASONING, row, told

from ffaa.errors import InputError, UsageError
from ffaa.settings import load_yaml
from ffaa.types import ForgeryType, Label
from ffaa.vqa.claims import mask_regions, stance
from ffaa.vqa.conversation import read_jsonl, write_jsonl
from ffaa.vqa.duplicates import NearDuplicates
from ffaa.vqa.filter import Filter, FilterArgs, Rejected, filter_file, filter_rows
from ffaa.vqa.row import VqaRow


def judge(of, pieces=None, changed=None, **args):
    return Filter(FilterArgs(**args), pieces, changed).judge(of)


def reasoned(*texts, **changes):
    """A row whose reasoning is `texts` and long enough."""
    return row(sentences=told((*DESCRIPTION, "The hair is dark and the wall is plain. " * 5), texts), **changes)


@pytest.mark.parametrize("label", Label)
def test_a_good_row_is_kept(label):
    assert judge(row(label=label)) == {}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"sentences": [], "result": None, "probability": None, "stated_type": None, "raw": "?"}, {"format", "length"}),
        ({"probability": None}, {"format"}),
        ({"stated_type": None}, {"format"}),
        ({"sentences": told((), REASONING[Label.FAKE] * 3)}, {"format"}),
        ({"result": Label.REAL}, {"result", "contradiction"}),
        ({"stated_type": ForgeryType.ENTIRE_FACE_SYNTHESIS}, {"type"}),
        ({"probability": 0.54}, {"probability"}),
        ({"raw": "I'm sorry, but I can't help with that."}, {"refusal"}),
        ({"raw": "I cannot identify the person."}, {"refusal"}),
        ({"sentences": told(DESCRIPTION, REASONING[Label.REAL] * 2)}, {"contradiction"}),
    ],
)
def test_each_reason(changes, reasons):
    assert set(judge(row(**changes))) == reasons


def test_thresholds_are_the_settings():
    assert judge(row(probability=0.55)) == {}
    assert judge(row(probability=0.89), min_probability=0.9) == {"probability": "0.89 is below 0.9"}
    count = len(f"{row().description} {row().reasoning}".split())
    assert judge(row(), min_words=count, max_words=count) == {}
    assert set(judge(row(), min_words=count + 1)) == set(judge(row(), max_words=count - 1)) == {"length"}
    assert judge(row(), pieces=lambda text: 513) == {"length": "513 tokens, more than 512"}
    assert judge(row(), pieces=lambda text: 512) == {}
    only = row(sentences=told((), REASONING[Label.FAKE] * 2))
    assert judge(only, parts=("reasoning",)) == {}


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("The face looks fake.", "fake"),
        ("There is no sign of manipulation.", "real"),
        ("The face was not manipulated. It is a genuine photo.", "real"),
        ("Although it looks real, the jaw shows a seam. The traits fit a forged face.", "fake"),
        ("The noise speaks for a real photo. The seam points to a swapped face. It is forged.", "fake"),
        ("The noise speaks for a real photo. The seam speaks for a forgery.", "fake"),
        ("The face is close to the camera.", None),
        ("The cheeks show fine grain.", None),
        ("The pixels of the skin hardly differ, which fits a camera picture.", "real"),
        ("The measurements do not prove a forgery.", None),
        ("Little of what was measured supports a real photo, so this reading is a weak one.", None),
        ("There is nothing that points to a forgery.", "real"),
    ],
)  # fmt: skip
def test_stance(text, side):
    assert stance(text)[0] == side


def test_evidence_of_every_sentence_once_there_is_any():
    whole = told((*DESCRIPTION, "The hair is dark and the wall is plain. " * 5), evidence=["sharpness"])
    assert judge(row(sentences=whole)) == {}
    torn = [*whole[:-1], whole[-1].model_copy(update={"evidence": []})]
    assert judge(row(sentences=torn)) == {"evidence": f"rests on nothing: {whole[-1].text!r}"}
    assert judge(row(sentences=torn, reviewed_by=["ann"])) == {}


SWAP, EDIT = ForgeryType.IDENTITY_EXCHANGE, ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION


@pytest.mark.parametrize(
    ("text", "changes", "why"),
    [
        ("The mouth was manipulated.", {"regions": ("left_eye",)}, "names the mouth"),
        ("The left eyebrow was edited.", {"regions": ("right_brow",)}, "names the eyebrow"),
        ("The eye was edited.", {"regions": ("right_eye",)}, ""),
        ("The mouth was manipulated.", {"regions": ("face_oval",)}, ""),
        ("The mouth was manipulated.", {"regions": ()}, ""),
        ("The mouth is closed.", {"regions": ("left_eye",)}, ""),
        ("The mouth was not manipulated.", {"regions": ("left_eye",)}, ""),
        ("The seams are those of FaceShifter.", {"method": "FaceSwap"}, "names 'FaceShifter'"),
        ("The seams are those of Face Swap tools.", {"method": "FaceSwap"}, ""),
        ("Stable Diffusion made this.", {"label": Label.REAL}, "the method is 'none'"),
        ("It shows another person's face.", {"forgery_type": EDIT}, "is: Facial attribute"),
        ("The portrait is GAN-generated.", {"forgery_type": SWAP}, "is: Identity exchange"),
        ("It looks like a computer-generated image.", {"forgery_type": SWAP}, ""),
    ],
)
def test_claims_that_the_manifest_denies(text, changes, why):
    found = judge(reasoned(text, **changes)).get("evidence", "")
    assert (why in found) if why else found == ""


def test_changed_parts_from_a_mask(tmp_path, hopper):
    photo = np.ascontiguousarray(hopper[60:420, 90:450])
    cv2.imwrite(str(tmp_path / "a.png"), photo[:, :, ::-1])
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[215:260, 120:240] = 255  # about the mouth
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    changed = mask_regions(tmp_path)
    of = reasoned("The nose was replaced.", image="a.png", mask="m.png")
    assert changed(of) is not None
    assert "mouth" in changed(of)
    assert not changed(of) & {"left_eye", "right_eye"}
    assert (
        "names the eye"
        in judge(reasoned("The eyes were edited.", image="a.png", mask="m.png"), None, changed)["evidence"]
    )
    assert changed(of.model_copy(update={"regions": ("nose",)})) == {"nose"}
    assert changed(of.model_copy(update={"mask": ""})) is None
    assert changed(of.model_copy(update={"image": "gone.png"})) is None


@pytest.mark.parametrize(
    "text",
    [
        "Das Gesicht wirkt echt, weil die Haut natürlich aussieht und das Licht von links kommt. ",
        "Le visage semble authentique parce que la peau reste naturelle et la lumière vient de gauche. ",
        "El rostro parece auténtico porque la piel se ve natural y la luz viene de la izquierda. ",
        "Лицо выглядит настоящим, потому что кожа естественная. ",
    ],
)
def test_other_languages(text):
    assert set(judge(row(sentences=told((text * 5,), (text,))))) >= {"language"}


def test_near_duplicates_are_found_and_others_not():
    seen = NearDuplicates(0.9)
    rng = np.random.default_rng(0)
    pool = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]
    texts = [list(rng.choice(pool, 120)) for _ in range(200)]
    for i, text in enumerate(texts):
        assert seen.find(str(i), " ".join(text)) == ""
        seen.keep()
    for i, text in enumerate(texts):  # the last word differs: a Jaccard index of 117 / 119
        text[-1] = "other"
        assert seen.find("new", " ".join(text)).endswith(f" like {i}")
    half = [*texts[0][:60], *texts[1][:60]]
    assert seen.find("half", " ".join(half)) == ""


def test_a_rejected_row_is_no_original():
    judging = Filter(FilterArgs())
    assert set(judging.judge(row(0, probability=0.1))) == {"probability"}
    assert judging.judge(row(0)) == {}
    assert judging.judge(row(0, image="b.jpg")) == {"duplicate": "100% like crops/0.jpg"}
    assert judging.judge(row(1)) == {}


def test_a_file_is_filtered_and_nothing_is_lost(tmp_path):
    told = [row(i, probability=0.1 if i % 3 == 0 else 0.9, result=Label(["fake", "real"][i == 9])) for i in range(10)]
    write_jsonl(tmp_path / "all.jsonl", told)
    counts = filter_file(tmp_path / "all.jsonl", tmp_path / "kept.jsonl", tmp_path / "bad.jsonl", Filter(FilterArgs()))
    assert (counts.read, counts.kept, counts.rejected) == (10, 6, 4)
    assert counts.reasons == {"probability": 4, "result": 1, "contradiction": 1}
    kept = list(read_jsonl(tmp_path / "kept.jsonl", VqaRow))
    bad = list(read_jsonl(tmp_path / "bad.jsonl", Rejected))
    assert sorted([*kept, *(b.row for b in bad)], key=lambda r: r.sha256) == told
    assert bad[-1].reasons["result"] == "says real, is fake"
    assert not list(tmp_path.glob("*.part"))
    assert [*filter_rows(iter(told), Filter(FilterArgs()))][1] == told[1]
    with pytest.raises(InputError, match="three files"):
        filter_file(tmp_path / "all.jsonl", tmp_path / "all.jsonl", tmp_path / "bad.jsonl", Filter(FilterArgs()))


def test_settings_from_yaml(tmp_path):
    (tmp_path / "f.yaml").write_text("min_probability: 0.7\nparts: [reasoning]\n")
    assert load_yaml(tmp_path / "f.yaml", FilterArgs) == FilterArgs(min_probability=0.7, parts=("reasoning",))
    (tmp_path / "f.yaml").write_text("min_probabilty: 0.7\n")
    with pytest.raises(UsageError, match="did you mean 'min_probability'"):
        load_yaml(tmp_path / "f.yaml", FilterArgs)
