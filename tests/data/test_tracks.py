"""Two public-domain portraits pasted side by side, moved, exchanged and cut away."""

import cv2
import numpy as np
import pytest

from ffaa.data.faces import Detection
from ffaa.data.tracks import Tracker, largest
from ffaa.errors import UsageError
from ffaa.types import Box

ROOM, STUDIO = (70, 90, 120), (200, 180, 60)


@pytest.fixture(scope="module")
def heads(hopper, astronaut):
    """name -> the middle of a portrait, and the face's share of it (left, top, right, bottom)."""
    third = cv2.cvtColor(astronaut[20:220, 130:330], cv2.COLOR_RGB2HSV)
    third[:, :, 0] = (third[:, :, 0].astype(int) + 60) % 180  # somebody green
    return {
        "hopper": hopper[60:420, 90:450],
        "astronaut": astronaut[20:220, 130:330],
        "hopper in the shade": (hopper[60:420, 90:450] * 0.8).astype(np.uint8),
        "green": cv2.cvtColor(third, cv2.COLOR_HSV2RGB)[:, ::-1],
    }


@pytest.fixture(scope="module")
def frame(heads):
    """[(name, x, y, side), ...] -> the frame's pixels and the detections, in this order."""

    def make(*people, wall=ROOM):
        pixels = np.empty((360, 640, 3), np.uint8)
        pixels[:] = wall
        pixels[240:] = np.array(wall) // 2
        found = []
        for name, x, y, side in people:
            pixels[y : y + side, x : x + side] = cv2.resize(heads[name], (side, side), interpolation=cv2.INTER_AREA)
            edge = side // 4
            box = Box(left=x + edge, top=y + edge, right=x + side - edge, bottom=y + side - edge)
            found.append(Detection(box, 1.0))
        return found, pixels

    return make


def follow(frames):
    tracker = Tracker()
    return [tracker.add(number, *picture) for number, picture in enumerate(frames)], tracker


def test_two_people_who_move_and_change_size_keep_their_tracks(frame):
    frames = [
        frame(("hopper", 20 + 12 * i, 40, 160 - 8 * i), ("astronaut", 400 - 10 * i, 60 + 5 * i, 100 + 10 * i))
        for i in range(8)
    ]
    ids, tracker = follow(frames)
    assert ids == [[0, 1]] * 8
    assert tracker.areas[0] == sum(found[0].box.width * found[0].box.height for found, _ in frames)


def test_the_order_of_detections_does_not_matter(frame):
    def picture(i):
        found, pixels = frame(("hopper", 30 + 5 * i, 40, 150), ("astronaut", 380, 40, 150))
        return (found[::-1], pixels) if i % 2 else (found, pixels)

    assert follow([picture(i) for i in range(6)])[0] == [[0, 1], [1, 0]] * 3


def test_people_who_trade_places_are_known_by_their_looks(frame):
    frames = [
        frame(("hopper", 40, 40, 150), ("astronaut", 230, 40, 150)),
        frame(("astronaut", 40, 40, 150), ("hopper", 230, 40, 150)),
    ]
    assert follow(frames)[0] == [[0, 1], [1, 0]]


def test_one_leaves_and_another_comes(frame):
    frames = [
        frame(("hopper", 40, 40, 150), ("astronaut", 380, 40, 150)),
        frame(("astronaut", 370, 40, 150)),
        frame(("green", 40, 40, 150), ("astronaut", 380, 40, 150)),
        frame(),
        frame(("astronaut", 385, 45, 150), ("green", 60, 40, 150)),
        frame(("hopper", 50, 40, 150)),
    ]
    assert follow(frames)[0] == [[0, 1], [1], [2, 1], [], [1, 2], [0]]


def test_after_a_cut_the_place_counts_for_nothing(frame):
    frames = [
        frame(("hopper", 40, 40, 150)),
        frame(("astronaut", 40, 40, 150), wall=STUDIO),  # somebody else in the same place
        frame(("hopper", 420, 100, 220)),  # back, elsewhere and larger
        frame(("astronaut", 300, 30, 110), wall=STUDIO),
    ]
    assert follow(frames)[0] == [[0], [1], [0], [1]]


def test_after_a_cut_the_gate_is_tight(frame):
    """What passes as one face that changed within a shot is another face after a cut."""
    before, after = ("hopper", 40, 40, 150), ("hopper in the shade", 40, 40, 150)
    assert follow([frame(before), frame(after)])[0] == [[0], [0]]
    assert follow([frame(before), frame(after, wall=STUDIO)])[0] == [[0], [1]]
    assert follow([frame(before), frame(before, wall=STUDIO)])[0] == [[0], [0]]


def test_far_away_the_gate_is_as_tight(frame):
    assert follow([frame(("hopper", 10, 40, 60)), frame(("hopper", 560, 40, 60))])[0] == [[0], [0]]
    assert follow([frame(("hopper", 10, 40, 60)), frame(("hopper in the shade", 12, 40, 60))])[0] == [[0], [0]]
    assert follow([frame(("hopper", 10, 40, 60)), frame(("hopper in the shade", 560, 40, 60))])[0] == [[0], [1]]


def test_ids_of_one_frame_differ_even_for_twins(frame):
    ids, _ = follow([frame(("hopper", 20 + 200 * k, 40, 120), ("hopper", 150 + 200 * k, 40, 120)) for k in range(2)])
    assert all(len(set(found)) == 2 for found in ids)


def test_no_faces_at_all(frame):
    ids, tracker = follow([frame(), frame()])
    assert ids == [[], []]
    assert tracker.areas == {}
    assert largest(tracker.areas) is None


def test_boxes_at_the_border(frame):
    _, pixels = frame(("hopper", 0, 0, 100), ("astronaut", 540, 260, 100))
    boxes = Box(left=0, top=0, right=70, bottom=70), Box(left=580, top=300, right=640, bottom=360)
    found = [Detection(box, 1.0) for box in boxes]
    assert follow([(found, pixels)] * 2)[0] == [[0, 1], [0, 1]]
    dot = Detection(Box(left=639, top=0, right=640, bottom=1), 1.0)
    assert follow([([dot], pixels)])[0] == [[0]]


def test_largest_is_by_summed_area_and_the_earlier_of_two():
    assert largest({0: 10.0, 1: 30.0, 2: 20.0}) == 1
    assert largest({3: 5.0, 1: 5.0, 2: 1.0}) == 1


def test_a_face_seen_often_beats_one_seen_large_once(frame):
    frames = [frame(("hopper", 30, 40, 120)) for _ in range(5)]
    frames.insert(2, frame(("hopper", 30, 40, 120), ("astronaut", 350, 40, 200)))
    _, tracker = follow(frames)
    assert largest(tracker.areas) == 0


def test_frames_come_in_order(frame):
    tracker = Tracker()
    tracker.add(4, *frame())
    with pytest.raises(UsageError, match="in order"):
        tracker.add(4, *frame())


def test_a_jump_of_the_detectors_box_is_no_other_person(hopper):
    """Two boxes that dlib gave for one face in two frames of one shot, a fifth apart in size."""
    tracker = Tracker()
    photo = cv2.resize(hopper[60:420, 90:450], (192, 192), interpolation=cv2.INTER_AREA)
    first, second = Box(left=51, top=40, right=148, bottom=138), Box(left=44, top=18, right=164, bottom=138)
    assert tracker.add(0, [Detection(first, 1.0)], photo) == [0]
    assert tracker.add(1, [Detection(second, 1.0)], photo) == [0]
