"""What may cover the face: glasses, a fringe or hat, a beard. Rules of thumb on edges and colour, with a band in which
they do not decide."""

from __future__ import annotations

import numpy as np

from ffaa.evidence.expression import TURNED
from ffaa.evidence.look import Look, ratio
from ffaa.evidence.record import Measure, NotMeasurableError

# Between the inner eye corners across the bridge, and below the eyes where a frame's lower rim runs.
BRIDGE = (168, 6, 197)
SHADE = 18.0  # L* below the cheeks
REDDER = 8.0  # a* above the cheeks
BELOW = ((230, 119), (450, 348))


def glasses(look: Look) -> float:
    """Edges that run along the face (frames) on the nose's bridge and below the eyes, against those on the cheeks."""
    if abs(look.pose[0]) > TURNED:
        raise NotMeasurableError("the head is turned too far")
    down = look.points[152, :2] - look.points[10, :2]
    down = down / np.linalg.norm(down)
    slope = np.abs(look.gradient @ down.astype(np.float32))
    radius = 0.045 * look.size
    bridge = max(float(np.percentile(slope[look.disc(look.points[i, :2], radius)], 80)) for i in BRIDGE[:2])
    below = min(
        float(np.percentile(slope[look.disc(look.points[list(pair), :2].mean(0), radius)], 85)) for pair in BELOW
    )
    light = look.lab[..., 0]
    rims = [light[look.disc(look.points[list(pair), :2].mean(0), radius)].mean() for pair in BELOW]
    if min(rims) < light[look.patch("picture_left") | look.patch("picture_right")].mean() - SHADE:
        raise NotMeasurableError("the surroundings of the eyes are dark: sunglasses or shadow")
    cheeks = max(float(slope[look.patch(name)].mean()) for name in ("picture_left", "picture_right"))
    return ratio(np.sqrt(bridge * below), cheeks + 0.5)


def forehead(look: Look) -> float:
    """Colour distance between the upper forehead and the cheeks: hair, a hat or a band over it."""
    top = look.points[10, :2] * 0.45 + look.points[151, :2] * 0.55
    upper = look.lab[look.disc(top, 0.07 * look.size)].mean(0)
    cheeks = np.mean([look.lab[look.patch(name)].mean(0) for name in ("picture_left", "picture_right")], axis=0)
    return float(np.linalg.norm((upper - cheeks) * (0.5, 1, 1)))


def jaw(look: Look) -> float:
    """Lightness of the chin minus that of the cheeks."""
    cheeks = np.mean([look.lab[look.patch(name)].mean(0) for name in ("picture_left", "picture_right")], axis=0)
    chin = look.lab[look.patch("chin")].mean(0)
    if chin[1] - cheeks[1] > REDDER:
        raise NotMeasurableError("what lies at the chin is much redder than the cheeks: lips, or cloth")
    return float(chin[0] - cheeks[0])


MEASURES: dict[str, Measure] = {
    "glasses": Measure(glasses, "log2 ratio", "eyes and nose bridge", "edges along the face against the cheeks'",
                       (0.5, 2.25), ("none", "unsure", "likely")),
    "forehead": Measure(forehead, "colour distance", "upper forehead", "distance of mean L*a*b* to the cheeks'",
                        (9.0, 22.0), ("clear", "unsure", "covered")),
    "jaw": Measure(jaw, "L*", "chin", "chin minus cheeks", (-17.0, -5.0), ("dark", "shaded", "clear")),
}  # fmt: skip
