import numpy as np
import pytest

from ffaa.data.landmarks import landmarks, region_mask
from ffaa.types import Box, ForgeryType, Label
from ffaa.vqa.areas import AREAS, area_of, changed_areas, doubted_areas, named_areas, regions_mask
from ffaa.vqa.ddvqa import HumanRecord, Said


@pytest.mark.parametrize(
    ("text", "areas"),
    [
        ("The lips are blurred and the left eyebrow is too dark.", {"mouth", "brows"}),
        ("There is no seam around the mouth. The nose is crooked.", {"nose"}),
        ("The cheeks show strong fine residue that skin does not explain.", set()),
        ("The cheeks show strong fine residue.", {"skin"}),
        ("His eyes do not match.", set()),
        ("The irises differ, and the teeth run together.", {"eyes", "mouth"}),
        ("The face is sharp.", set()),
        ("Nosey, browser, skinny.", set()),
    ],
)
def test_named_areas(text, areas):
    assert named_areas(text) == areas


def test_regions_of_manifests():
    assert area_of("left_eye") == area_of("right_eye") == {"eyes"}
    assert area_of("right_brow") == {"brows"}
    assert area_of("face_oval") == set(AREAS)
    assert changed_areas(("left_eye", "mouth"), None, None) == {"eyes", "mouth"}
    assert changed_areas((), None, None) is None


def test_changed_areas_of_a_mask(hopper):
    box = Box(left=160, top=120, right=380, bottom=340)
    points = landmarks(hopper, box)
    mask = np.maximum(region_mask(points, "mouth", hopper.shape), region_mask(points, "left_eye", hopper.shape))
    assert changed_areas((), mask, points) == {"eyes", "mouth"}
    assert changed_areas((), np.ones(hopper.shape[:2], np.float32), points) == set(AREAS)
    assert changed_areas((), np.zeros(hopper.shape[:2], np.float32), points) == set()
    assert changed_areas((), mask, None) is None


@pytest.fixture(scope="module")
def points(hopper):
    return landmarks(hopper, Box(left=160, top=120, right=380, bottom=340))


def test_the_mask_of_named_regions(hopper, points):
    shape = hopper.shape[:2]
    parts = {name: region_mask(points, name, shape) > 0 for name in ("left_eye", "right_eye", "nose", "mouth", "skin")}
    eyes = regions_mask(("left_eye", "right_eye"), points, shape) > 0
    assert eyes.shape == shape
    assert eyes[parts["left_eye"] | parts["right_eye"]].all()
    assert not eyes[parts["mouth"]].any()
    assert 2 < eyes.sum() / (parts["left_eye"] | parts["right_eye"]).sum() < 8
    np.testing.assert_array_equal(
        regions_mask(["eyes"], points, shape), regions_mask(["left eye", "right eye"], points, shape)
    )
    both = regions_mask(("nose", "mouth"), points, shape) > 0
    assert both[parts["nose"] | parts["mouth"]].all()
    assert regions_mask(("skin",), points, shape)[parts["skin"]].all()
    assert not regions_mask(("skin",), points, shape)[parts["mouth"]].any()


@pytest.mark.parametrize(
    "regions",
    [(), ("face_oval",), ("eyes", "brows", "nose", "mouth", "skin"), ("left_eye", "mouth"), ("right_brow", "mouth")],
)
def test_no_mask_where_the_place_is_all_or_not_sure(hopper, points, regions):
    assert regions_mask(regions, points, hopper.shape) is None


def test_doubted_areas():
    def said(*labels):
        return [Said(text="x", says=label) for label in labels]

    record = HumanRecord(
        image="a.jpg", label=Label.FAKE, forgery_type=ForgeryType.IDENTITY_EXCHANGE, method="", groups=(), split="",
        said={
            "image": said(Label.FAKE), "eyes": said(Label.FAKE, Label.FAKE, Label.REAL), "nose": said(Label.REAL),
            "mouth": said(Label.FAKE, Label.REAL), "eyebrows": said(None, Label.FAKE), "skin": said(None),
        },
    )  # fmt: skip
    assert doubted_areas(record) == {"eyes", "brows"}
