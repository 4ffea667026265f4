"""The face mesh on two public-domain portraits, and what is read off its points."""

import threading

import cv2
import numpy as np
import pytest

from ffaa.data import landmarks as module
from ffaa.data.landmarks import PARTS, REGIONS, face_size, landmarks, pose, region_mask
from ffaa.errors import InputError
from ffaa.types import Box

HOPPER = Box(left=161, top=137, right=377, bottom=353)
ASTRONAUT = Box(left=179, top=83, right=267, bottom=171)


@pytest.fixture(scope="module")
def points(astronaut):
    return landmarks(astronaut, ASTRONAUT)


def middle(points, name):
    return points[list(REGIONS[name]), :2].mean(0)


# Pupils, mouth corners and the point below the nose, read off the photos by eye: (x, y), the person's right one first.
SEEN = {
    "hopper": (HOPPER, [(220, 191), (306, 188), (227, 281), (309, 279), (266, 253)]),
    "astronaut": (ASTRONAUT, [(203, 101), (246, 103), (201, 139), (249, 139), (224, 133)]),
}


@pytest.mark.parametrize("name", SEEN)
def test_the_portraits(request, name):
    box, places = SEEN[name]
    found = landmarks(request.getfixturevalue(name), box)
    assert found.shape == (468, 3)
    assert found.dtype == np.float32
    points = [middle(found, "right_eye"), middle(found, "left_eye"), *found[[61, 291, 2], :2]]
    assert np.linalg.norm(np.array(points) - places, axis=1).max() < 0.05 * face_size(found)
    assert all(abs(angle) < 15 for angle in pose(found))


@pytest.mark.parametrize("factor", [0.5, 2.0, 5.0])
def test_points_are_in_photo_pixels_at_any_size(astronaut, points, factor):
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    photo = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=way)
    box = Box(**{side: round(value * factor) for side, value in ASTRONAUT.model_dump().items()})
    found = (landmarks(photo, box)[:, :2] + 0.5) / factor - 0.5
    assert np.abs(found - points[:, :2]).mean() < 0.5


@pytest.mark.parametrize("angle", [-25, 25])
def test_a_tilted_face(astronaut, points, angle):
    move = cv2.getRotationMatrix2D((223, 127), angle, 1)
    found = landmarks(cv2.warpAffine(astronaut, move, (512, 512)), ASTRONAUT)
    assert np.abs(found[:, :2] - (points[:, :2] @ move[:, :2].T + move[:, 2])).mean() < 1.2
    assert pose(found)[2] == pytest.approx(pose(points)[2] - angle, abs=3)  # OpenCV turns counter-clockwise


def test_no_face_is_none(astronaut):
    for left, top in ((350, 0), (0, 0), (400, 380)):
        assert landmarks(astronaut, Box(left=left, top=top, right=left + 80, bottom=top + 80)) is None


@pytest.mark.parametrize("photo", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32)])
def test_what_is_no_photo_is_refused(photo):
    with pytest.raises(InputError, match="uint8 RGB"):
        landmarks(photo, Box(left=0, top=0, right=60, bottom=60))


def test_threads_share_one_interpreter(astronaut, points, monkeypatch):
    made = []
    real = module._Mesh
    monkeypatch.setattr(module, "_Mesh", lambda: made.append(1) or real())
    module._made.cache_clear()
    found = []
    threads = [threading.Thread(target=lambda: found.append(landmarks(astronaut, ASTRONAUT))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(found) == 6
    assert all(np.array_equal(one, points) for one in found)


def turned(yaw=0.0, pitch=0.0, roll=0.0):
    """A stick head (x right, y down, z away) that looks at the camera, turned by angles in degrees."""
    head = np.zeros((468, 3))
    for name, place in {33: (-1, -1, 0), 263: (1, -1, 0), 234: (-2, 0, 1), 454: (2, 0, 1), 10: (0, -3, 0)}.items():
        head[name] = place
    head[152] = (0, 3, 0)
    head[1] = (0, 0, -1)
    cos, sin = np.cos(np.radians((yaw, pitch, roll))), np.sin(np.radians((yaw, pitch, roll)))
    about_y = np.array([[cos[0], 0, -sin[0]], [0, 1, 0], [sin[0], 0, cos[0]]])
    about_x = np.array([[1, 0, 0], [0, cos[1], sin[1]], [0, -sin[1], cos[1]]])
    about_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    return head @ (about_z @ about_y @ about_x).T


@pytest.mark.parametrize("angle", [-35, 0, 20, 60])
@pytest.mark.parametrize("name", ["yaw", "pitch", "roll"])
def test_pose_of_a_turned_head(name, angle):
    found = dict(zip(("yaw", "pitch", "roll"), pose(turned(**{name: angle})), strict=True))
    assert found.pop(name) == pytest.approx(angle, abs=1e-3)
    assert list(found.values()) == pytest.approx([0, 0], abs=1e-3)


def test_signs_of_the_pose():
    assert turned(yaw=20)[1, 0] > 0  # the nose moves to the right of the photo
    assert turned(pitch=20)[1, 1] < 0  # up
    assert turned(roll=20)[263, 1] > turned(roll=20)[33, 1]  # the person's left eye is lower


def test_a_mirrored_photo_mirrors_the_pose(astronaut):
    points = landmarks(astronaut, ASTRONAUT)
    mirrored = Box(left=512 - ASTRONAUT.right, top=ASTRONAUT.top, right=512 - ASTRONAUT.left, bottom=ASTRONAUT.bottom)
    yaw, pitch, roll = pose(landmarks(np.ascontiguousarray(astronaut[:, ::-1]), mirrored))
    assert (-yaw, pitch, -roll) == pytest.approx(pose(points), abs=2.5)


def test_regions_lie_where_they_should(points, astronaut):
    masks = {name: region_mask(points, name, astronaut.shape) for name in (*REGIONS, "skin")}
    assert all(set(np.unique(mask)) == {0, 1} for mask in masks.values())
    oval = masks["face_oval"]
    for part in PARTS:
        assert (masks[part] * oval).sum() > 0.98 * masks[part].sum(), part
        assert 0.005 < masks[part].sum() / oval.sum() < 0.15
    assert (sum(masks[part] for part in PARTS) > 1).mean() < 1e-4
    assert middle(points, "right_eye")[0] < middle(points, "nose")[0] < middle(points, "left_eye")[0]
    for side in ("right", "left"):
        assert middle(points, f"{side}_brow")[1] < middle(points, f"{side}_eye")[1] < middle(points, "nose")[1]
    assert middle(points, "nose")[1] < middle(points, "mouth")[1]
    assert (masks["skin"] * masks["nose"]).sum() > 0.9 * masks["nose"].sum()
    assert (masks["skin"] * masks["mouth"]).sum() == 0
    with pytest.raises(KeyError):
        region_mask(points, "ear", astronaut.shape)
