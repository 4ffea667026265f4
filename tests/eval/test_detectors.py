import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file

from ffaa.data.crops import plain_face, read_photo
from ffaa.errors import UsageError, WeightsError
from ffaa.eval import detectors as module
from ffaa.eval.detectors import Baseline, Ffaa, Says, load_detectors, majority_says, stated
from ffaa.mids.decide import Decision
from ffaa.mllm.train_tower import load_tower, tower_scores
from ffaa.types import Answer, Box, Crop, Difficulty, Face, ForgeryType, Label, Role, UnparsedAnswer
from ffaa.weights import sha256

REAL, FAKE = Label.REAL, Label.FAKE
KINDS = {REAL: ForgeryType.REAL, FAKE: ForgeryType.ENTIRE_FACE_SYNTHESIS}


def face(value=100, size=64):
    box = Box(left=0, top=0, right=size, bottom=size)
    return Face(np.full((size, size, 3), value, np.uint8), box, Crop(region=box, padding=0, size=size))


def answer(label, probability=0.8):
    if label is None:
        return UnparsedAnswer(role=Role.ANCHOR, prompt="", raw="?", reason="no result")
    return Answer(
        role=Role.ANCHOR, prompt="", raw="", description="d", reasoning="r", result=label, probability=probability,
        forgery_type=KINDS[label],
    )  # fmt: skip


class Assistant:
    """Says what it is told to; remembers the faces."""

    def __init__(self, results, chosen, name="made", match=0.7, hardness=Difficulty.HARD, lacking=False):
        self.results, self.chosen, self.faces = results, chosen, []
        self.match, self.hardness = match, hardness
        none, weight = SimpleNamespace(parameters=lambda: []), SimpleNamespace(numel=lambda: 7)
        self.engine = SimpleNamespace(
            name=name, hashes={"f": "0"}, image_size=32, device="cpu", heads=None, own_heads=[], mids=none,
            lacks_detail=lambda image: lacking,
            mllm=SimpleNamespace(model=SimpleNamespace(parameters=lambda: [weight, weight])),
        )  # fmt: skip

    def judge(self, faces):
        self.faces += faces
        said = None if self.chosen is None else self.results[self.chosen]
        decision = None if said is None else Decision(self.chosen, said, [], self.match, self.match)
        judged = SimpleNamespace(answers=[answer(r) for r in self.results], decision=decision, difficulty=self.hardness)
        return [judged] * len(faces)


def make(results, chosen):
    return Ffaa(Assistant(results, chosen))


def test_rows_of_the_assistant():
    one = make([REAL, FAKE, FAKE], 1)
    assert one.rows == ("made", "made/anchor", "made/majority")
    assert one.about.parameters == 7  # a shared one counts once
    found = one.judge([face(), face()])
    assert len(found) == 2
    says = found[0].says
    assert (says["made"].label, says["made"].score) == (FAKE, 0.7)
    assert says["made/anchor"].label is REAL
    assert says["made/anchor"].score == pytest.approx(0.2)
    assert says["made/majority"].label is FAKE
    assert says["made/majority"].score == pytest.approx(2 / 3)
    assert found[0].said_type is ForgeryType.ENTIRE_FACE_SYNTHESIS
    assert found[0].results == [REAL, FAKE, FAKE]
    assert [f.image.shape for f in one._assistant.faces] == [(32, 32, 3)] * 2
    assert [f.crop.size for f in one._assistant.faces] == [32, 32]


@pytest.mark.parametrize(
    ("about", "finding"),
    [
        ({"match": 0.95}, True),
        ({"match": 0.6}, False),
        ({"match": 0.95, "lacking": True}, False),
        ({"match": 0.95, "hardness": Difficulty.HARD}, False),
    ],
)
def test_a_finding_is_what_is_not_worded_as_uncertain(about, finding):
    one = Ffaa(Assistant([FAKE, FAKE, FAKE], 0, **{"hardness": Difficulty.EASY} | about))
    assert [found.finding for found in one.judge([face(), face()])] == [finding, finding]


def test_what_cannot_be_read_is_nobodys_determination():
    unread = make([None, None, None], None).judge([face()])[0]
    says = unread.says
    assert unread.finding is False
    assert {(s.label, s.score) for s in says.values()} == {(None, 0.5)}
    found = make([None, FAKE, REAL], 1).judge([face()])[0]
    assert found.says["made/majority"].label is None  # level votes: what the anchor says, which was not read
    assert found.says["made/majority"].score == 0.5
    assert found.results == [None, FAKE, REAL]
    assert make([REAL, None, FAKE], 2).judge([face()])[0].says["made/majority"].label is REAL


def test_an_unread_answer_is_half_a_vote_of_the_majoritys_score():
    assert majority_says([None, FAKE, FAKE]) == Says(label=FAKE, score=2.5 / 3)
    assert majority_says([REAL, None, REAL]) == Says(label=REAL, score=0.5 / 3)


def test_the_stated_probability_is_of_the_determination():
    assert stated(answer(FAKE, 0.9)).score == 0.9
    assert stated(answer(REAL, 0.9)).score == pytest.approx(0.1)
    assert stated(answer(REAL, None)).score == 0
    assert stated(answer(FAKE, None)).score == 1


def test_a_trained_baseline(bright):
    found = bright.judge([face(200), face(20)])
    assert [j.says["bright"].label for j in found] == [FAKE, REAL]
    assert found[0].says["bright"].score == pytest.approx(200 / 255)
    assert found[0].seconds == found[1].seconds > 0
    assert (found[0].results, found[0].difficulty) == ([], None)
    assert bright.about.kind == "baseline"
    assert bright.about.threshold == 0.4


@pytest.fixture
def loaders(monkeypatch, bright, tmp_path):
    """Model folders hold model.json, others are baselines; nothing real is loaded."""
    trained = SimpleNamespace(load_trained=lambda folder, device: bright._trained)
    monkeypatch.setitem(sys.modules, "ffaa.baselines.trained", trained)
    monkeypatch.setattr(module, "Assistant", lambda which, device: which)
    monkeypatch.setattr(module, "Ffaa", lambda which, name: SimpleNamespace(name=name or f"ffaa {which}"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / module.MODEL_FILE).write_text("{}")
    (tmp_path / "trained").mkdir()
    return tmp_path


def test_names_and_folders(loaders):
    model, trained = str(loaders / "model"), str(loaders / "trained")
    found = load_detectors(["nano", f"mine={model}", trained, f"other={trained}"], "cpu")
    assert [one.name for one in found] == ["ffaa nano", "mine", "bright", "other"]
    assert [isinstance(one, Baseline) for one in found] == [False, False, True, True]
    with pytest.raises(UsageError, match="two detectors are called 'bright'.*--detector NAME="):
        load_detectors([trained, trained], "cpu")
    with pytest.raises(UsageError, match="the name before '='"):
        load_detectors([f"a/b={model}"], "cpu")


def test_what_is_no_detector():
    with pytest.raises(UsageError, match="unknown model 'nothing-here'"):
        load_detectors(["nothing-here"], "cpu")


def test_a_tower_of_a_run_is_judged_alone(tiny_run, tiny_manifest):
    path = tiny_run.folder / "tower.safetensors"
    named, one = load_detectors([f"eyes={path}", str(path)], "cpu")
    assert (named.name, one.name) == ("eyes", tiny_run.folder.name)
    assert one.about.files == {"tower.safetensors": sha256(path)}
    assert one.about.parameters == sum(t.numel() for k, t in load_file(path).items() if not _counter(k))
    rows = [r for r in tiny_run.stages.rows if r.split == "test"]
    faces = [plain_face(read_photo(tiny_manifest, r), r, 224) for r in rows]
    tower, heads = load_tower(path)
    wanted, _ = tower_scores(tower, heads, tiny_manifest, rows)
    found = [j.says["eyes"] for j in named.judge(faces)]
    assert [s.score for s in found] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert [s.label for s in found] == [FAKE if s >= 0.5 else REAL for s in wanted]


def _counter(name):
    return name.rsplit(".", 1)[-1] in ("num_batches_tracked", "running_mean", "running_var")


def test_another_file_is_no_tower(tiny_run, tmp_path):
    for path in (tiny_run.folder / "mids.safetensors", tmp_path / "text.safetensors"):
        if not path.exists():
            path.write_text("no weights")
        with pytest.raises(WeightsError, match=f"{path.name}: holds no tower; give the tower.safetensors"):
            load_detectors([str(path)], "cpu")
