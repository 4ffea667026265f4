"""Where the head looks, from the face mesh."""

from __future__ import annotations

from ffaa.evidence.record import Measure

MESH = "angle of the mesh's axes"

MEASURES: dict[str, Measure] = {
    "yaw": Measure(lambda look: look.pose[0], "degrees, towards the picture's right", "head", MESH,
                   (-22.0, -9.0, 9.0, 22.0), ("left", "slightly left", "front", "slightly right", "right")),
    "pitch": Measure(lambda look: look.pose[1], "degrees, upwards", "head", MESH,
                     (-17.0, 6.0), ("down", "level", "up")),
    "roll": Measure(lambda look: look.pose[2], "degrees, towards the picture's right", "head", MESH,
                    (-6.0, 6.0), ("left", "upright", "right")),
}  # fmt: skip
