import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ffaa.eval.benchmark import BenchRecipe
from ffaa.eval.detectors import Says
from ffaa.eval.figures import photos, resampled, summarise
from ffaa.types import ForgeryType, Label

REAL, FAKE = Label.REAL, Label.FAKE
RECIPE = BenchRecipe(name="x", validation="val")
NONE = {"m": None, "m/anchor": None, "m/majority": None}


@pytest.fixture(scope="module")
def by_hand(make_outcome):
    """(split, set, label, MIDS, its score, anchor, easy, unread answers); photos 2 and 3 alone are findings."""
    table = [
        ("test", "own", REAL, REAL, 0.2, REAL, True, 0),
        ("test", "own", FAKE, FAKE, 0.9, REAL, False, 0),
        ("bench", "A", REAL, FAKE, 0.6, REAL, False, 0),
        ("bench", "A", FAKE, FAKE, 0.8, FAKE, True, 0),
        ("bench", "B", REAL, REAL, 0.3, FAKE, False, 0),
        ("bench", "B", FAKE, FAKE, 0.7, None, False, 1),
        ("val", "own", REAL, REAL, 0.1, REAL, True, 0),
        ("val", "own", FAKE, FAKE, 0.3, FAKE, True, 0),
    ]
    outcomes = []
    for i, (split, name, label, said, score, anchor, easy, unread) in enumerate(table):
        says = {"m": Says(label=said, score=score), "m/anchor": Says(label=anchor, score=0.5),
                "m/majority": Says(label=FAKE, score=2 / 3)}  # fmt: skip
        results = [None if unread else anchor, FAKE, FAKE]
        outcomes.append(make_outcome(i, split, name, label, says, easy, results, finding=i in (2, 3)))
        kind = {REAL: ForgeryType.REAL, FAKE: ForgeryType.ENTIRE_FACE_SYNTHESIS}[said] if i != 3 else None
        outcomes[-1] = outcomes[-1].model_copy(update={"said_type": kind})
    return outcomes


@pytest.fixture(scope="module")
def found(by_hand):
    return summarise(photos(RECIPE, {"m": by_hand}), NONE | {"m": 0.65}, 50)


def test_sets_and_pools_by_hand(found):
    assert list(found.sets) == ["in domain/own", "A", "B"]
    assert list(found.pools) == ["in domain", "ALL"]
    assert [found.sets[name].rows["m"].acc for name in found.sets] == [1, 0.5, 1]
    pool = found.pools["ALL"]
    assert (pool.real, pool.fake, pool.rows["m"].acc, pool.rows["m"].auc) == (2, 2, 0.75, 1.0)
    anchor = pool.rows["m/anchor"]
    assert (anchor.acc, anchor.unread) == (0.5, 1)  # what could not be read is wrong, and counted
    assert pool.whole_image == 0
    assert found.pools["in domain"].whole_image == 1
    assert pool.rows["m"].video is None


def test_sacc_is_over_the_sets_and_the_in_domain_pool(found):
    assert found.sacc["m"].value == pytest.approx(np.std([0.5, 1, 1]))
    assert found.sacc["m/anchor"].value == pytest.approx(np.std([1, 0, 0.5]))


def test_easy_and_hard_by_hand(found):
    easy, hard = found.pools["ALL"].answers["m"].easy, found.pools["ALL"].answers["m"].hard
    assert (easy.count, easy.share.value, easy.anchor.value, easy.mids.value) == (1, 0.25, 1, 1)
    assert (hard.count, hard.anchor.value, hard.mids.value, hard.majority.value) == (
        3, pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(1 / 3)
    )  # fmt: skip
    assert hard.gain_over_anchor.value == pytest.approx(1 / 3)
    assert hard.gain_over_majority.value == pytest.approx(1 / 3)
    assert found.sets["A"].answers["m"].hard.count == 1
    none = found.sets["B"].answers["m"].easy
    assert (none.count, none.mids.value, none.gain_over_anchor.value) == (0, None, None)


def test_findings_by_hand(found):
    """Photo 2, a real one, was called fake; photo 3 is right."""
    of = found.pools["ALL"].answers["m"].findings
    assert (of.count, of.share.value, of.acc.value, of.accused, of.missed) == (2, 0.5, 0.5, 0.5, 0)
    none = found.sets["B"].answers["m"].findings
    assert (none.count, none.acc.value, none.accused, none.missed) == (0, None, 0, 0)


def test_of_records_that_do_not_say_so_no_findings_are_counted(by_hand):
    old = [by_hand[0].model_copy(update={"finding": None}), *by_hand[1:]]
    found = summarise(photos(RECIPE, {"m": old}), NONE, 20)
    assert found.pools["ALL"].answers["m"].findings is None
    assert found.pools["ALL"].answers["m"].easy.count == 1


def test_forgery_types_by_hand(found):
    """Photo 2 (real) was called synthesis, photo 3 named no type."""
    of = found.pools["ALL"].answers["m"]
    assert (of.type_acc, of.type_acc_of_fakes, of.type_acc_of_caught) == (0.5, 0.5, 0.5)
    synthesis = "Entire face synthesis"
    assert of.confusion == {synthesis: {synthesis: 1, "none": 1}, "Real": {synthesis: 1, "Real": 1}}
    assert of.unparsed_answers == 1


def test_thresholds(found):
    """validation: what the detector brings; pooled: the best on the validation photos, which no figure counts; oracle:
    the best on ALL."""
    limits = found.thresholds["m"]
    assert list(limits) == ["0.5", "validation", "pooled", "oracle"]
    assert limits["validation"] == 0.65
    assert limits["pooled"] == pytest.approx(0.2)
    assert limits["oracle"] == pytest.approx(0.65)
    assert found.pools["ALL"].rows["m"].acc_at == {"0.5": 0.75, "validation": 1, "pooled": 0.5, "oracle": 1}
    assert list(found.thresholds["m/anchor"]) == ["0.5", "pooled", "oracle"]
    assert sum(group.real + group.fake for group in found.pools.values()) == 6


def test_without_open_world_or_answers(by_hand):
    bare = [o.model_copy(update={"results": [], "says": {"m": o.says["m"]}}) for o in by_hand[:2]]
    found = summarise(photos(RECIPE, {"m": bare}), {"m": None}, 20)
    assert list(found.pools) == ["in domain"]
    assert found.pools["in domain"].answers == {}
    assert found.sacc["m"].value == 0
    assert list(found.thresholds["m"]) == ["0.5"]


def test_a_set_of_one_class_says_what_is_not_defined(by_hand):
    found = summarise(photos(RECIPE, {"m": [o for o in by_hand if o.label is REAL]}), NONE, 20)
    of = found.sets["A"].rows["m"]
    assert (of.auc, of.auc_interval) == (None, None)
    assert of.undefined.startswith("only real photos: AUC")
    assert found.sets["A"].answers["m"].type_acc_of_fakes is None


def test_intervals_hold_their_figures_and_shrink_with_the_photos(result):
    for group in result.groups.values():
        for of in group.rows.values():
            assert of.acc_interval[0] <= of.acc <= of.acc_interval[1]
            assert of.auc_interval[0] <= of.auc <= of.auc_interval[1]
    of_set, of_pool = result.sets["A"].rows["nano"].acc_interval, result.pools["ALL"].rows["nano"].acc_interval
    assert of_pool[1] - of_pool[0] < of_set[1] - of_set[0]
    assert result.pools["ALL"].rows["nano"].acc_interval[0] > result.pools["ALL"].rows["weak"].acc_interval[1]


def test_figures_can_be_computed_again_from_the_columns(result):
    own = {row: 0.6 if row == "weak" else None for row in result.row_names}
    again = summarise(result.photos, own, 200, 3)
    assert again.pools == result.pools
    assert again.sacc == result.sacc
    assert summarise(result.photos, own, 200, 4).pools != result.pools


def test_frames_and_videos(make_outcome):
    """Two videos of three frames and two photos; frames of one video are drawn together."""
    table = [("a", REAL, 0.1), ("a", REAL, 0.2), ("a", REAL, 0.9), ("b", FAKE, 0.6), ("b", FAKE, 0.7), ("b", FAKE, 0.4),
             ("", REAL, 0.65), ("c", FAKE, 0.8)]  # fmt: skip
    outcomes = [
        make_outcome(i, "bench", "A", label, {"m": Says(label=FAKE if s > 0.5 else REAL, score=s)}, None, [], video)
        for i, (video, label, s) in enumerate(table)
    ]
    columns = photos(BenchRecipe(name="x"), {"m": outcomes})
    of = summarise(columns, {"m": None}, 50).sets["A"].rows["m"]
    assert of.acc == pytest.approx(5 / 8)
    # means .4 (real), 1.7 / 3 (fake), .65 (real), .8 (fake)
    assert (of.video.videos, of.video.acc) == (4, 0.75)
    assert of.video.auc == roc_auc_score([False, True, False, True], [0.4, 1.7 / 3, 0.65, 0.8])
    drawn = resampled(columns, 50)
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, 3] == drawn[:, 5]).all()
    assert (drawn[:, 0] != drawn[:, 6]).any()
