"""The image's spectrum: how it falls off, and the regular peaks that up-sampling leaves (Durall et al. 2020)."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from ffaa.evidence.look import EPSILON, Look, ratio
from ffaa.evidence.record import Measure, NotMeasurableError

REACH = 2  # bins around a grid frequency that belong to its peak


def _power(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power, zero frequency in the middle, and its radius in cycles per pixel."""
    window = np.outer(np.hanning(plane.shape[0]), np.hanning(plane.shape[1])).astype(np.float32)
    power = np.abs(np.fft.fftshift(np.fft.fft2((plane - plane.mean()) * window))) ** 2
    freq = np.fft.fftshift(np.fft.fftfreq(plane.shape[0]))
    return power, np.hypot(freq[:, None], freq[None, :])


def _limit(look: Look) -> float:
    """Frequency (cycles per pixel) up to which an enlarged image can hold detail."""
    return 0.5 / max(1.0, look.scale or 1.0)


def rolloff(look: Look) -> float:
    """High against middle frequencies."""
    power, radius = look.once("power", lambda: _power(look.gray))
    high = power[(radius > 0.28) & (radius < 0.45)].mean()
    return ratio(float(high), float(power[(radius > 0.05) & (radius < 0.15)].mean()))


def _rings(power: np.ndarray, radius: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n,) log of the mean power between n + 1 edges."""
    rings = [power[(radius >= a) & (radius < b)] for a, b in pairwise(edges)]
    if not all(len(ring) for ring in rings):
        raise NotMeasurableError("the face was enlarged too much for its spectrum")
    return np.log(np.array([ring.mean() for ring in rings]) + EPSILON)


def slope(look: Look) -> float:
    """Exponent of the radial power law over the middle frequencies."""
    power, radius = look.once("power", lambda: _power(look.gray))
    edges = np.geomspace(0.03, 0.6 * _limit(look), 9)
    return float(-np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), _rings(power, radius, edges), 1)[0])


def tail(look: Look) -> float:
    """How far the finest frequencies lie above (+) or below the power law of the middle ones, log2."""
    power, radius = look.once("power", lambda: _power(look.gray))
    top = _limit(look)
    edges = np.geomspace(0.05, 0.5 * top, 7)
    centres = np.log(np.sqrt(edges[:-1] * edges[1:]))
    fit = np.polyfit(centres, _rings(power, radius, edges), 1)
    (high,) = _rings(power, radius, np.array([0.8, 0.98]) * top)
    return float((high - np.polyval(fit, np.log(0.89 * top))) / np.log(2))


def _residual_power(look: Look) -> tuple[np.ndarray, np.ndarray]:
    """log2 power of the mean residual's spectrum, and the same smoothed."""
    power, _ = _power((look.residual @ np.array([0.299, 0.587, 0.114])).astype(np.float32))
    log = np.log2(power + EPSILON).astype(np.float32)
    return log, cv2.blur(log, (21, 21))


def _grid(look: Look, period: int) -> float:
    """Power at the frequencies of a grid of `period` photo pixels against its neighbourhood, log2, mean residual."""
    scale = look.scale if look.scale is not None else 1.0
    base = 1 / (period * scale)
    if base > 0.47:
        raise NotMeasurableError("the image is too small for that grid: it was reduced")
    log, flat = look.once("residual power", lambda: _residual_power(look))
    n = log.shape[0]
    found = []
    for fy, fx in ((0, base), (base, 0), (base, base), (-base, base)):
        y, x = round(n / 2 + fy * n), round(n / 2 + fx * n)
        part = log[max(0, y - REACH) : y + REACH + 1, max(0, x - REACH) : x + REACH + 1]
        found.append(float(part.max() - flat[min(y, n - 1), min(x, n - 1)]))
    return float(np.mean(found))


MEASURES: dict[str, Measure] = {
    "rolloff": Measure(rolloff, "log2 ratio", "image", "high against middle spatial frequencies",
                       (-10.2, -7.4), ("early", "regular", "late")),
    "slope": Measure(slope, "exponent", "image", "power law of the middle frequencies",
                     (3.1, 4.2), ("shallow", "usual", "steep")),
    "tail": Measure(tail, "log2", "image", "finest frequencies against the power law",
                    (-2.1, -0.3), ("cut", "regular", "raised")),
    "grid_2": Measure(lambda look: _grid(look, 2), "log2", "image", "peak at 1/2 cycle per photo pixel",
                      (2.65, 3.1), ("none", "faint", "peak")),
    "grid_4": Measure(lambda look: _grid(look, 4), "log2", "image", "peak at 1/4 cycle per photo pixel",
                      (2.65, 3.1), ("none", "faint", "peak")),
    "grid_8": Measure(lambda look: _grid(look, 8), "log2", "image", "peak at 1/8 cycle per photo pixel",
                      (2.65, 3.1), ("none", "faint", "peak")),
}  # fmt: skip
