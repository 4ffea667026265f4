"""The evidence room on the two public-domain portraits and on changes made to them."""

import warnings

import cv2
import numpy as np
import pytest

from ffaa.data.faces import cut, detector, face_rect
from ffaa.data.landmarks import REGIONS, landmarks, polygon_mask
from ffaa.errors import InputError
from ffaa.evidence.examine import BLURRED, FAMILIES, MEASURES, examine, examine_face, of_values, strength
from ffaa.evidence.look import Look
from ffaa.evidence.norms import LEVELS, QUANTILES
from ffaa.types import Box, EvidenceRecord


@pytest.fixture(scope="module")
def crops(hopper, astronaut):
    """(image (224, 224, 3), points, scale) of both."""
    found = []
    for photo in (hopper, astronaut):
        face = cut(photo, max(detector()(photo), key=lambda d: d.score), 224, "")
        left, top, right, bottom = face_rect(face.crop, face.box)
        points = landmarks(face.image, Box(left=left, top=top, right=right, bottom=bottom))
        found.append((face.image, points, 224 / face.crop.region.width))
    return found


@pytest.fixture(params=[0, 1], ids=["hopper", "astronaut"])
def crop(request, crops):
    return crops[request.param]


def value(image, points, name, scale=None):
    found = examine(image, points, scale).items[name].value
    assert found is not None, name
    return found


def changed(crop, change, factor=0.95):
    """The crop with `change` applied inside the face's outline alone."""
    image, points, _ = crop
    oval = points[list(REGIONS["face_oval"]), :2]
    middle = oval.mean(0)
    mask = polygon_mask(middle + factor * (oval - middle), image.shape)[..., None] > 0
    return np.where(mask, change(image), image)


def blurred(image):
    return cv2.GaussianBlur(image, (0, 0), 2)


def noisy(image):
    return np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def redder(image):
    return np.clip(image.astype(int) + np.array([30, -10, -10]), 0, 255).astype(np.uint8)


def test_every_measure_has_a_word_for_every_value_and_a_family():
    assert sum(len(family) for family in FAMILIES.values()) == len(MEASURES) == len(QUANTILES)
    for name, measure in MEASURES.items():
        assert len(measure.words) == len(measure.cuts) + 1 == len(set(measure.words)), name
        assert list(measure.cuts) == sorted(measure.cuts), name
        assert len(QUANTILES[name]) == len(LEVELS), name
        assert list(QUANTILES[name]) == sorted(QUANTILES[name]), name


def test_the_record_is_whole_and_comes_back_from_json(crop):
    record = examine(*crop)
    assert list(record.items) == list(MEASURES)
    for name, item in record.items.items():
        assert (item.value is None) == (item.word == "") == bool(item.reason), name
        assert item.value is not None or item.strength == 0
    assert EvidenceRecord.model_validate_json(record.model_dump_json()) == record
    assert record.words["yaw"] == record.word("yaw") != ""
    assert sum(item.value is not None for item in record.items.values()) > 0.7 * len(MEASURES)


def test_a_record_comes_back_from_its_values(crop):
    record = examine(*crop)
    values = {name: value for name, value in record.values.items() if name != "yaw"}
    again = of_values(values)
    assert list(again.items) == list(MEASURES)
    assert again.words == {name: word for name, word in record.words.items() if name != "yaw"}
    assert again.items["smile"] == record.items["smile"]
    assert again.items["yaw"].reason


def test_the_same_image_gives_the_same_record(crop):
    image, points, scale = crop
    assert examine(image, points, scale) == examine(image.copy(), points.copy(), scale)


def test_without_a_mesh_only_what_needs_none_is_measured(crop):
    record = examine(crop[0], None, crop[2])
    assert record.items["yaw"].reason == "no face mesh was found"
    assert record.items["warmth"].value is not None
    assert record.items["rolloff"].value is not None


def test_a_face_image_is_examined_with_its_own_mesh(astronaut):
    face = cut(astronaut, max(detector()(astronaut), key=lambda d: d.score), 224, "")
    assert examine_face(face).word("smile") in ("lifted", "smile")


def test_what_anyone_can_see(crops):
    astronaut = examine(*crops[1]).words
    assert astronaut["smile"] in ("lifted", "smile")
    assert astronaut["teeth"] in ("some", "row")
    for crop in crops:
        words = examine(*crop).words
        assert "left" not in words["yaw"].split() or "slightly" in words["yaw"]
        assert words.get("glasses") != "likely"


def test_strength_grows_from_the_median():
    middle = QUANTILES["brightness"][LEVELS.index(0.5)]
    assert strength("brightness", middle) == pytest.approx(0)
    assert strength("brightness", middle + 5) < strength("brightness", middle + 15) <= 1
    assert strength("brightness", -1e3) == strength("brightness", 1e3) == 1


def test_mirroring_swaps_the_sides(crop):
    image, points, _ = crop
    turned = np.ascontiguousarray(image[:, ::-1])
    left, top, right, bottom = points[:, 0].min(), points[:, 1].min(), points[:, 0].max(), points[:, 1].max()
    box = Box(left=int(223 - right), top=int(top), right=int(223 - left), bottom=int(bottom))
    mirrored = landmarks(turned, box)
    assert value(turned, mirrored, "yaw") == pytest.approx(-value(image, points, "yaw"), abs=4)
    assert value(turned, mirrored, "light_side") == pytest.approx(-value(image, points, "light_side"), abs=3)


def test_blur_and_noise_inside_the_face_show_in_the_gaps(crop):
    image, points, _ = crop
    soft, rough = changed(crop, blurred), changed(crop, noisy)
    for name in ("sharpness_gap", "noise_gap"):
        assert value(soft, points, name) < value(image, points, name) - 0.3, name
        assert value(rough, points, name) > value(image, points, name) + 0.3, name
    assert value(soft, points, "crispness") < value(image, points, "crispness") < value(rough, points, "crispness")
    assert value(soft, points, "skin") < value(image, points, "skin") < value(rough, points, "skin")


def test_a_pasted_colour_shows_at_the_rim(crop):
    image, points, _ = crop
    pasted = changed(crop, redder, factor=0.83)
    assert value(pasted, points, "boundary_colour") > value(image, points, "boundary_colour") + 3


def test_light_from_one_side(crop):
    image, points, _ = crop
    ramp = np.linspace(1.25, 0.55, 224)[None, :, None]
    lit = np.clip(image * ramp, 0, 255).astype(np.uint8)
    assert value(lit, points, "light_side") > value(image, points, "light_side") + 6
    assert value((image * 0.5).astype(np.uint8), points, "brightness") < value(image, points, "brightness") - 10


def test_a_grid_leaves_a_peak_at_its_period(crop):
    image, points, _ = crop
    grid = image.astype(int)
    grid[::4] += 5
    grid[:, ::4] += 5
    grid = np.clip(grid, 0, 255).astype(np.uint8)
    assert value(grid, points, "grid_4", 1.0) > value(image, points, "grid_4", 1.0) + 1


def test_block_edges_need_the_scale_of_the_crop(crop):
    image, points, _ = crop
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 15])[1]
    packed = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert value(packed, points, "jpeg_blocks", 1.0) > value(image, points, "jpeg_blocks", 1.0) + 0.3
    assert "unknown factor" in examine(packed, points, None).items["jpeg_blocks"].reason
    assert "reduced" in examine(packed, points, 0.5).items["jpeg_blocks"].reason
    assert "resized" in examine(packed, points, 1.2).items["jpeg_ghost"].reason
    assert examine(packed, points, 1.0).items["jpeg_ghost"].value is not None


def test_an_earlier_compression_leaves_its_ghost(crop):
    image, points, _ = crop

    def pressed(pixels, quality):
        return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)

    once, twice = pressed(image, 95), pressed(pressed(image, 60), 95)
    assert examine(once, points, 1.0).word("jpeg_ghost") != "marked"
    assert examine(twice, points, 1.0).word("jpeg_ghost") == "marked"
    assert examine(np.ascontiguousarray(twice[3:, 3:]), points - 3, 1.0).word("jpeg_ghost") == "marked"


def test_painted_highlights_are_found_and_compared(crop):
    image, points, _ = crop
    agree, apart = image.copy(), image.copy()
    for pupil, side in (((points[33] + points[133]) / 2, 1), ((points[362] + points[263]) / 2, -1)):
        x, y = int(pupil[0]), int(pupil[1])
        for target, shift in ((agree, 2), (apart, 3 * side)):
            cv2.circle(target, (x, y), 6, (25, 20, 20), -1)
            cv2.circle(target, (x + shift, y - 1), 1, (255, 255, 255), -1)
    assert examine(agree, points).word("highlights") == "both"
    assert value(agree, points, "highlight_offset") < value(apart, points, "highlight_offset")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((224, 224, 3), np.float32), "no face image"),
        (np.zeros((224, 224), np.uint8), "no face image"),
        (np.zeros((224, 200, 3), np.uint8), "square"),
        (np.zeros((32, 32, 3), np.uint8), "64"),
    ],
)
def test_what_is_no_face_image_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        examine(image, None)


def test_points_of_another_mesh_are_refused():
    with pytest.raises(InputError, match="468"):
        examine(np.zeros((224, 224, 3), np.uint8), np.zeros((68, 2), np.float32))


def test_a_flat_image_raises_nothing(crop):
    record = examine(np.full((224, 224, 3), 128, np.uint8), crop[1], 1.0)
    assert all(item.value is None or np.isfinite(item.value) for item in record.items.values())
    assert Look(np.zeros((224, 224, 3), np.uint8), None).mesh is None


def test_of_a_smeared_face_no_feature_is_measured(crop):
    image, points, scale = crop
    smeared = cv2.resize(cv2.resize(image, (14, 14), interpolation=cv2.INTER_AREA), (224, 224))
    items = examine(smeared, points, scale).items
    assert items["sharpness"].value < BLURRED
    assert {items[name].reason for name in ("smile", "glasses", "iris_match", "teeth", "nose_grain")} == {
        "the face is too blurred"
    }
    assert items["warmth"].word
    assert items["yaw"].word
    assert examine(image, points, scale).items["smile"].word


def test_painted_lips_at_the_chin_are_no_beard(crop):
    image, points, scale = crop
    painted = image.copy()
    cv2.circle(painted, tuple(int(v) for v in points[[18, 200], :2].mean(0)), 30, (120, 20, 60), -1)
    assert "redder" in examine(painted, points, scale).items["jaw"].reason
    dark = image.copy()
    cv2.circle(dark, tuple(int(v) for v in points[[18, 200], :2].mean(0)), 30, (40, 34, 30), -1)
    assert examine(dark, points, scale).items["jaw"].word == "dark"


def test_of_a_few_enlarged_pixels_the_spectrum_is_not_measured(crop):
    image, points, _ = crop
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = examine(image, points, 20.0).items
    assert "enlarged too much" in items["slope"].reason
    assert "enlarged too much" in items["tail"].reason
    assert items["rolloff"].value is not None
