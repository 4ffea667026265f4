"""The geometry and colour below the forgeries, on cases with known answers."""

import cv2
import numpy as np
import pytest

from ffaa.data.forge.base import feather, grow
from ffaa.data.forge.hull_blend import HULLS, hull_mask
from ffaa.data.forge.retouch import iris_mask, smooth
from ffaa.data.forge.warp import elastic, match_colour, mesh_map, poisson, similarity, triangles
from ffaa.data.landmarks import face_size, region_mask

TURN = np.array([[0.9, -0.3], [0.2, 1.1]])


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(10, 90, (60, 2)).astype(np.float32)


def test_triangles_tile_the_hull_without_overlap(points):
    found = triangles(points)
    areas = [cv2.contourArea(points[corner]) for corner in found]
    assert sum(areas) == pytest.approx(cv2.contourArea(cv2.convexHull(points)), rel=0.02)
    assert set(found.flatten()) == set(range(60))


def test_mesh_map_of_an_affine_move_is_that_move(points):
    place, inside = mesh_map(points, points @ TURN.T + 5, (100, 100))
    y, x = np.nonzero(inside)
    assert len(y) > 3000
    assert np.abs(place[y, x] - (np.stack([x, y], 1) @ TURN.T + 5)).max() < 0.01


def test_mesh_map_hits_every_point(points):
    there = points + np.random.default_rng(1).uniform(-3, 3, points.shape)
    place, inside = mesh_map(points, there, (100, 100))
    x, y = points.round().astype(int).T
    good = inside[y, x] > 0
    assert np.abs(place[y, x] - there)[good].mean() < 1.0  # points lie up to half a pixel off the grid


def test_similarity_is_found_again():
    here = np.random.default_rng(2).normal(size=(20, 2))
    cos, sin = 1.3 * np.cos(0.4), 1.3 * np.sin(0.4)
    move = np.array([[cos, -sin, 7], [sin, cos, -2]])
    assert np.allclose(similarity(here, here @ move[:, :2].T + move[:, 2]), move)


def test_colours_are_matched_by_a_share(hopper, astronaut):
    image, like = hopper[150:250, 200:300].astype(np.float32), astronaut[80:180, 180:280].astype(np.float32)
    weight = np.ones(image.shape[:2], np.float32)
    assert np.abs(match_colour(image, like, weight, 0.0) - image).max() < 1  # the way to Lab and back
    apart = [np.abs(match_colour(image, like, weight, a).mean((0, 1)) - like.mean((0, 1))).mean() for a in (0, 0.5, 1)]
    assert apart[2] < 0.2 * apart[0]
    assert apart[2] < apart[1] < apart[0]


def test_poisson_changes_the_inside_only_and_takes_on_its_border():
    onto = np.full((60, 80, 3), 100, np.float32)
    new = np.full((60, 80, 3), 200, np.float32)
    new[20:40, 30:50] += 30
    mask = np.zeros((60, 80), np.float32)
    mask[0:50, 10:80] = 1  # reaches the border of the image
    blended = poisson(new, onto, mask)
    assert np.abs(blended - onto)[mask == 0].max() == 0
    assert np.abs(blended[5:15, 15:25] - 100).mean() < 5  # the level is the surroundings', the step is the patch's
    assert 20 < (blended[22:38, 32:48] - 100).mean() < 32


def test_masks_grow_fade_and_bend():
    mask = np.zeros((60, 60), np.float32)
    mask[20:40, 20:40] = 1
    assert grow(mask, 5)[30, 14:47].tolist() == [0.0] + [1.0] * 30 + [0.0] * 2
    soft = feather(mask, 6)
    assert soft[mask == 0].max() == 0
    assert soft[30, 30] == 1
    assert (np.diff(soft[30, 19:27]) >= 0).all()
    assert 0 < soft[30, 21] < 0.5
    grid = np.zeros((5, 5, 2))
    assert np.allclose(elastic(mask, grid, 8), mask)
    grid[..., 0] = 1
    assert np.allclose(elastic(mask, grid, 8)[:, :-8], mask[:, 8:])


def test_hulls_lie_in_the_face(faces):
    for face in faces:
        oval = grow(region_mask(face.points, "face_oval", face.photo.shape), 0.02 * face_size(face.points))
        masks = {kind: hull_mask(face.points, kind, face.photo.shape) for kind in HULLS}
        for kind, mask in masks.items():
            assert mask.sum() > 0.2 * oval.sum(), kind
            assert (mask * oval).sum() > 0.97 * mask.sum(), kind
        assert masks["oval"].sum() > masks["jaw"].sum() > masks["centre"].sum()


def test_the_iris_is_a_dark_disc_in_the_eye(faces):
    for face in faces:
        for eye in ("left_eye", "right_eye"):
            iris, opening = iris_mask(face.points, eye, face.photo), region_mask(face.points, eye, face.photo.shape)
            assert (iris * opening).sum() == iris.sum()
            assert 0.1 < iris.sum() / opening.sum() < 0.6
            light = face.photo.mean(2)
            assert light[iris > 0].mean() < light[(opening > 0) & (iris == 0)].mean() - 10


def test_smooth_flattens_grain_and_keeps_edges():
    rng = np.random.default_rng(3)
    image = np.full((80, 80, 3), 90, np.float32)
    image[:, 40:] = 190
    grainy = image + rng.normal(0, 5, image.shape).astype(np.float32)
    found = smooth(grainy, 4, 20)
    assert found[10:70, 5:30].std() < 2
    assert found[10:70, 42].mean() - found[10:70, 37].mean() > 85
