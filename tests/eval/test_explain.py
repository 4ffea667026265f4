import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ffaa.data.build import build
from ffaa.data.crops import plain_face, read_photo
from ffaa.data.forge.folder import forge_folder
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError, UsageError
from ffaa.eval import explain as module
from ffaa.eval.benchmark import BenchRecipe, read_rows, sample
from ffaa.eval.detectors import About, Explanation, Ffaa
from ffaa.eval.explain import Explained, explained, explainers, jobs, recipe_of, run, settings_of
from ffaa.eval.kinds import read_any
from ffaa.eval.localise import HeatScore, Overlap
from ffaa.eval.reasons import ExplainResult, as_csv, make_result, summarise, tables
from ffaa.eval.result import write_result
from ffaa.types import Answer, ForgeryType, JudgedSentence, Label, Role, Support, UnparsedAnswer
from ffaa.vqa.areas import changed_areas

REAL, FAKE = Label.REAL, Label.FAKE
REASONING = "The mouth is blurred. The skin is too smooth."


def answer(label=FAKE, flags=()):
    kind = ForgeryType.REAL if label is REAL else ForgeryType.IDENTITY_EXCHANGE
    return Answer(
        role=Role.ANCHOR, prompt="", raw="", description="A face.", reasoning=REASONING, result=label, probability=0.8,
        forgery_type=kind, flags=list(flags),
    )  # fmt: skip


class Talker:
    """Always says the same, and looks at the top of the crop."""

    name, rows = "talker", ("talker",)
    about = About(kind="ffaa", files={"f": "0"}, image_size=224, parameters=1, device="cpu")

    def __init__(self):
        self.faces = []

    def judge(self, faces):
        raise AssertionError

    def explain(self, face):
        self.faces.append(face)
        heat = np.zeros((56, 56), np.float32)
        heat[:14] = 1
        unread = UnparsedAnswer(role=Role.NEGATIVE, prompt="", raw="?", reason="no result")
        chosen = answer(flags=["x contradicts y"])
        told = [
            JudgedSentence(part="description", text="A face.", support=Support.NOT_MEASURABLE),
            JudgedSentence(part="reasoning", text="The mouth is blurred.", support=Support.CONTRADICTED),
            JudgedSentence(part="reasoning", text="The skin is too smooth.", support=Support.SUPPORTED),
        ]
        return Explanation(FAKE, [chosen, answer(), unread], chosen, told, heat)


@pytest.fixture(scope="module")
def forged(tmp_path_factory, hopper, astronaut):
    """A set of `ffaa data build` with forged mouths, eyes ... and their masks; also the CSV it was made from."""
    root = tmp_path_factory.mktemp("forged")
    for name, photo in (("hopper", hopper), ("astronaut", astronaut)):
        Image.fromarray(photo).save(root / f"{name}.png")
    photos = [root / "hopper.png", root / "astronaut.png"]
    forge_folder(photos, root / "made", ["replace", "swap", "synthesis"], split="test")
    settings = DataRecipe(
        name="m", sources=[SourceArgs(kind="csv", root="made")], pose=False, duplicates=False, val=0, test=0
    )
    build(settings, root, root / "set", workers=0)
    return root


@pytest.fixture
def talker():
    return Talker()


def _run(recipe, data, talker, records, people=None, limit=None):
    todo = jobs(recipe, data, people, limit)
    return run(settings_of(recipe, people, limit), todo, 224, [talker], records)["talker"]


@pytest.fixture(scope="module")
def records(forged, tmp_path_factory):
    recipe, data = recipe_of(forged / "set", None)
    return _run(recipe, data, Talker(), tmp_path_factory.mktemp("records"))


def test_what_is_scored_of_which_photo(records, forged):
    recipe, data = recipe_of(forged / "set", None)
    rows = {row.path: row for row in sample(recipe, read_rows(recipe, data))}
    assert len(records) == len(rows) >= 6
    for one in records:
        row = rows[one.path]
        assert one.label is row.label
        assert one.heat_truth == ("mask" if one.heat else None)
        assert (one.heat is not None) == (row.method in ("replace", "swap"))  # of synthesis everything was changed
        assert (one.areas is not None) <= (row.method in ("replace", "swap"))
        assert (one.answers, one.unread, one.contradicting, len(one.flags)) == (3, 1, 1, 1)
        assert one.sentences == {"description": {"not measurable": 1}, "reasoning": {"contradicted": 1, "supported": 1}}
        assert one.people is None
    replaced = [one for one in records if rows[one.path].method == "replace"]
    assert replaced
    for one in replaced:
        assert one.areas.named == ["mouth", "skin"]
        assert set(one.areas.true) <= {"eyes", "brows", "nose", "mouth"}


def test_the_mask_lies_where_the_photo_was_changed(forged):
    """In a built set, and where the face is cut from the photo of a CSV: what differs from the original is inside."""
    for recipe, data in (
        recipe_of(forged / "set", None),
        (BenchRecipe(name="c", manifest="made/manifest.csv"), forged),
    ):
        found = 0
        for job in jobs(recipe, data, None, None):
            if job.row.method != "replace":
                continue
            photo, face, _ = module.photo_and_face(data, job.row, 224)
            truth = module.Truth(job, photo, face)
            reference = _reference(job, data, face, forged)
            gap = np.abs(face.image.astype(int) - reference).sum(2)
            inside, outside = gap[truth.mask > 0.5].mean(), gap[truth.mask < 0.01].mean()
            assert inside > 4 * outside
            found += 1
        assert found


def test_named_regions_stand_for_a_mask(forged, tmp_path):
    """Drawn on the mesh, they cover much of what was changed and little else; the true mask comes first."""
    data = tmp_path / "data"
    shutil.copytree(forged / "made", data / "made")
    file = data / "made" / "manifest.csv"
    lines = list(csv.DictReader(file.open(encoding="utf-8")))
    kept = [dict(line, mask="") for line in lines if line["method"] == "replace"]
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(lines[0]))
        writer.writeheader()
        writer.writerows(kept)
    recipe, scored = BenchRecipe(name="c", manifest="made/manifest.csv"), 0
    masked = {job.row.path: job for job in jobs(recipe, forged, None, None)}
    for job in jobs(recipe, data, None, None):
        photo, face, _ = module.photo_and_face(data, job.row, 224)
        true = module.Truth(masked[job.row.path], photo, face)
        assert true.source == "mask"
        found = module.Truth(job, photo, face)
        assert found.areas == changed_areas(job.row.regions, None, None)
        record = explained(job, "0" * 64, Talker().explain(face), found, None)
        assert (record.heat is None) == (found.mask is None)
        if found.mask is None:
            continue
        inside, changed = found.mask > 0.5, true.mask > 0.5
        assert (inside & changed).sum() > 0.6 * min(inside.sum(), changed.sum())
        assert record.heat_truth == "regions"
        assert record.heat.area == pytest.approx(inside.mean())
        scored += 1
    assert scored


def _reference(job, data, face, forged):
    """The original's same cut."""
    if job.row.size:
        row = job.row.model_copy(update={"path": job.row.reference})
        return plain_face(read_photo(data, row), row, 224).image
    photo = np.array(Image.open(forged / "made" / "real" / job.row.path.rsplit("/", 1)[1]).convert("RGB"))
    region = face.crop.region
    return module.resize_square(photo[region.top : region.bottom, region.left : region.right], 224)


def test_a_mask_of_another_size_is_told(forged, tmp_path, talker):
    recipe, data = BenchRecipe(name="c", manifest="made/manifest.csv"), forged
    job = next(job for job in jobs(recipe, data, None, None) if job.row.method == "replace")
    Image.new("L", (9, 9)).save(tmp_path / "m.png")
    photo, face, _ = module.photo_and_face(data, job.row, 224)
    with pytest.raises(InputError, match="of another size than its photo"):
        module._mask(tmp_path / "m.png", job.row, photo, face, 224)


def test_a_killed_run_goes_on_with_the_photo(forged, talker, tmp_path, records, monkeypatch):
    recipe, data = recipe_of(forged / "set", None)
    real, calls = talker.explain, []

    def dying(face):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(face)

    monkeypatch.setattr(talker, "explain", dying)
    with pytest.raises(KeyboardInterrupt):
        _run(recipe, data, talker, tmp_path)
    with (tmp_path / "talker.jsonl").open("a") as file:
        file.write('{"path": "torn')
    assert _run(recipe, data, talker, tmp_path) == records
    assert len(calls) == len(records) + 1
    with pytest.raises(InputError, match="another run"):
        _run(recipe, data, talker, tmp_path, limit=1)


# --- people ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path, hopper, astronaut):
    """Two forged frames and a real one of which people said something."""
    root, lines = tmp_path / "dd", []
    root.mkdir()
    for name, photo, label, said in (
        (
            "Deepfakes_0_001_002",
            hopper,
            "fake",
            ["The image looks fake. The mouth is blurred.", "The image looks fake."],
        ),
        ("Deepfakes_0_003_004", astronaut, "fake", ["The image looks fake. The nose is bent and the skin is dull."]),
        ("real_5_001", hopper, "real", ["The image looks real."]),
        ("real_5_003", astronaut, "real", ["The image looks real. All is fine."]),
    ):
        Image.fromarray(photo).save(root / f"{name}.jpg")
        doubt = "fake" if label == "fake" else "real"
        qa = [{"question": "Does the image looks real/fake?", "answers": said},
              {"question": "Does the person's mouth look real/fake?", "answers": [f"The mouth looks {doubt}."]},
              {"question": "Does the person's nose look real/fake?", "answers": ["The nose looks real."]}]  # fmt: skip
        lines.append(json.dumps({"path": f"{name}.jpg", "label": label, "qa": qa}))
    (root / "answers.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_against_people(people, talker, tmp_path, use_tiny_parts):
    found = {one.path: one for one in _run(None, tmp_path, talker, tmp_path / "r", people)}
    assert len(found) == 4
    of = found["Deepfakes_0_001_002.jpg"].people
    assert (of.areas.named, of.areas.true) == (["mouth", "skin"], ["mouth"])
    # 'the mouth is blurred the skin is too smooth' against 'the image looks fake the mouth is blurred'
    assert of.rouge.found == pytest.approx(2 * 4 / (9 + 8))
    assert of.rouge.found > of.rouge.control
    assert of.rouge.people == pytest.approx(2 * 4 / (8 + 4))
    assert of.cosine.found <= 1
    assert found["real_5_001.jpg"].people.areas is None  # nothing was changed there
    figures = summarise(list(found.values()), 50).people
    assert figures.photos == 4
    assert figures.areas.photos == 2
    assert figures.areas.precision.value == 0.5
    assert figures.areas.recall.value == 1


def test_too_few_frames(people, tmp_path):
    with pytest.raises(InputError, match="one real frame alone"):
        jobs(None, tmp_path, people, 1)


# --- figures ---------------------------------------------------------------------------------------------------------


def record(n, says=FAKE, hit=True, named=("mouth",), true=("mouth", "eyes"), truth="mask"):
    part = Overlap(hit=hit, iou=0.5, energy=0.25)
    return Explained(
        path=f"{n}.png", sha256=f"{n:064d}", test_set="s", label=FAKE, forgery_type=ForgeryType.IDENTITY_EXCHANGE,
        says=says, answers=3, unread=1, contradicting=1, flags=["x"] * (n % 2), description="d", reasoning="r",
        sentences={"reasoning": {"supported": 3, "contradicted": 1, "not measurable": 4}},
        heat=HeatScore(found=part, middle=part, area=0.2, chance_iou=0.1, flat=not hit), heat_truth=truth,
        areas={"named": list(named), "true": list(true)} if says is FAKE else None, people=None,
    )  # fmt: skip


def test_figures_by_hand():
    found = [record(0), record(1, hit=False, named=("nose", "mouth")), record(2, says=REAL), record(3, named=())]
    of = summarise(found, 200)
    assert of.unread.value == pytest.approx(1 / 3)
    assert of.contradicting.value == pytest.approx(1 / 2)
    assert of.chosen_contradicting.value == 0.5
    assert of.supported.value == 0.75
    assert of.not_measurable.value == 0.5
    assert of.sentences == {"reasoning": {"supported": 12, "contradicted": 4, "not measurable": 16}}
    caught, every = of.heat["forged, called fake"], of.heat["all forged"]
    assert (caught.photos, every.photos, every.flat) == (3, 4, 1)
    assert caught.figures["hit"].value == pytest.approx(2 / 3)
    assert every.figures["hit"].value == 0.75
    assert every.figures["hit"].low < 0.75 < every.figures["hit"].high
    assert every.figures["chance_area"].value == pytest.approx(0.2)
    assert (of.areas.photos, of.areas.silent) == (3, 1)
    assert of.areas.precision.value == pytest.approx(2 / 3)
    assert of.areas.recall.value == pytest.approx(2 / 6)
    assert of.areas.chance.value == pytest.approx(2 / 5)
    assert of.people.photos == 0
    assert of.people.rouge["found"].value is None


def test_masks_and_regions_are_told_apart(talker):
    found = [
        record(0),
        record(1, hit=False, truth="regions"),
        record(2, truth="regions"),
        record(3, REAL, truth="regions"),
    ]
    of = summarise(found, 50)
    assert {name: (heat.photos, heat.figures["hit"].value) for name, heat in of.heat.items()} == {
        "forged, called fake": (1, 1.0), "all forged": (1, 1.0),
    }  # fmt: skip
    assert of.region_heat["forged, called fake"].photos == 2
    assert of.region_heat["forged, called fake"].figures["hit"].value == 0.5
    assert of.region_heat["all forged"].figures["hit"].value == pytest.approx(2 / 3)
    made = make_result(BenchRecipe(name="b"), {"talker": found}, [talker], "ffaa bench explain <x>", 50)
    titles = {table.title: table for table in tables(made)}
    masks, regions = titles["Heatmaps against masks"], titles["Heatmaps against named regions"]
    assert {(row[1], row[3]) for row in masks.rows} == {("forged, called fake", "1 (!)"), ("all forged", "1 (!)")}
    assert {(row[1], row[3]) for row in regions.rows} == {("forged, called fake", "2 (!)"), ("all forged", "3 (!)")}
    assert 'talker,"heatmap by regions, all forged",hit,3,0.6667' in as_csv(made)
    older = made.model_dump(mode="json")
    del older["figures"]["talker"]["region_heat"]  # as results were written before
    assert ExplainResult.model_validate(older).figures["talker"].region_heat == {}


def test_the_result_its_tables_and_csv(records, talker, tmp_path):
    found = make_result(BenchRecipe(name="b"), {"talker": records}, [talker], "ffaa bench explain <x>", 50)
    assert (found.photos, found.frames) == (len(records), 0)
    assert [table.title for table in tables(found)] == [
        "Answers and sentences",
        "Heatmaps against masks",
        "Areas named",
    ]
    assert all(len(row) == len(table.header) for table in tables(found) for row in table.rows)
    assert all(row[3].endswith("(!)") for row in tables(found)[1].rows)
    assert "read nothing into such a line" in tables(found)[1].notes[-1]
    lines = as_csv(found).splitlines()
    assert lines[0] == "detector,table,figure,photos,value,low,high"
    assert any(line.startswith("talker,answers,unread,") and ",0.3333," in line for line in lines)
    write_result(tmp_path / "r.json", found)
    kind, again = read_any(tmp_path / "r.json")
    assert kind.as_csv(again) == as_csv(found)
    with pytest.raises(UsageError, match="has tables alone"):
        kind.figures(again)


# --- detectors -------------------------------------------------------------------------------------------------------


def test_the_assistant_explains_as_it_analyzes(tiny_assistant, hopper, forged):
    recipe, data = recipe_of(forged / "set", None)
    row = sample(recipe, read_rows(recipe, data))[0]
    face = module.photo_and_face(data, row, 224)[1]
    found = Ffaa(tiny_assistant).explain(face)
    verdict = tiny_assistant.analyze(read_photo(data, row), whole_image=True, evidence=True)[0]
    assert found.label is verdict.label
    assert found.chosen.reasoning == verdict.reasoning
    assert [s.text for s in found.sentences] == [s.text for s in verdict.sentences]
    assert found.heat.shape == (224, 224)
    assert found.heat.min() >= 0
    drawn = tiny_assistant.heatmap(face, verdict)
    assert drawn.shape == (224, 224, 3)
    assert explainers([Ffaa(tiny_assistant)])


def test_a_score_alone_is_no_explanation(bright):
    with pytest.raises(UsageError, match="bright gives no explanation"):
        explainers([bright])


def test_what_cannot_be_explained(tmp_path):
    with pytest.raises(InputError, match=r"no manifest.parquet in it"):
        recipe_of(tmp_path, None)
    (tmp_path / "b.yaml").write_text("name: b\n")
    with pytest.raises(UsageError, match="a recipe needs --data"):
        recipe_of(tmp_path / "b.yaml", None)
