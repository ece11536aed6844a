"""What fingers and wrist do to turn the cube by a quarter turn: found by search in simulation.

A nudge leads from the cup through some places, linearly, and back into the cup, where the cube comes to rest; a gait
goes round and round. Both are offsets from the cup in action units, in the contract's order: first finger J0 J3 J4,
little finger J0 J3 J4 J5, middle finger J0 J3 J4, ring finger J0 J3 J4, thumb J1 to J5, wrist J1 J2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Offset = tuple[float, ...]  # 20 numbers


@dataclass(frozen=True)
class Nudge:
    """One nudge.

    Attributes:
        places: offsets from the cup.
        steps: control steps to each place, and those back to the cup.
        rest: control steps in the cup after that.
    """

    places: tuple[Offset, ...]
    steps: tuple[int, ...]
    rest: int

    def track(self) -> np.ndarray:
        """Return the offsets from the cup at each control step, (sum of steps + rest, 20)."""
        cup = np.zeros((1, len(self.places[0])))
        points = np.concatenate([cup, self.places, cup])
        parts = [
            before + np.arange(1, count + 1)[:, np.newaxis] / count * (after - before)
            for before, after, count in zip(points[:-1], points[1:], self.steps, strict=True)
        ]
        return np.concatenate([*parts, np.zeros((self.rest, points.shape[1]))])


@dataclass(frozen=True)
class Gait:
    """One gait: centre + sine sin(2 pi t / period) + cosine cos(2 pi t / period), which swells from the cup at first.

    Attributes:
        centre, sine, cosine: offsets from the cup.
        period: control steps.
        steps: control steps after which it begins anew.
        swell: control steps until it is whole.
    """

    centre: Offset
    sine: Offset
    cosine: Offset
    period: int
    steps: int = 100
    swell: int = 8

    def track(self) -> np.ndarray:
        """Return the offsets from the cup at each control step, (steps, 20)."""
        t = np.arange(1, self.steps + 1)[:, np.newaxis]
        angle = 2.0 * math.pi * t / self.period
        whole = np.array(self.centre) + np.sin(angle) * self.sine + np.cos(angle) * self.cosine
        return np.minimum(1.0, t / self.swell) * whole


# By goal, one after the other, over and over. What was
# found for x- (towards the fingers) and z- (clockwise, seen from above) drops the cube now and then: it is left out.
# fmt: off
MOTIONS: dict[str, tuple[Nudge | Gait, ...]] = {
    "x+": (
        Nudge((
            (0.0, 0.7, -0.15, 0.0, 0.7, -2.36, -0.09, 0.0, 0.7, -0.89,
             0.0, 0.7, -1.62, 0.27, -0.2, 1.57, 0.52, -0.22, 0.65, 0.14),
            (0.0, 0.61, 0.31, 0.0, -0.49, 0.31, -0.44, 0.0, 0.25, 0.31,
             0.0, -0.12, 0.31, -0.42, -0.8, -0.09, -1.41, 0.0, -0.07, 0.66),
            (0.0, 2.49, 0.46, 0.0, 0.26, 1.26, -0.24, 0.0, 1.75, 0.73,
             0.0, 1.0, 0.99, -0.06, -0.57, -0.5, -0.32, -0.43, -0.19, -0.19),
        ), (7, 2, 2, 2), 6),
        Nudge((
            (0.0, 0.7, -0.15, 0.0, 0.7, -2.36, -0.09, 0.0, 0.7, -0.89,
             0.0, 0.7, -1.62, 0.27, -0.2, 1.57, 0.52, -0.22, 0.65, 0.14),
            (0.0, 0.61, 0.31, 0.0, -0.49, 0.31, -0.44, 0.0, 0.25, 0.31,
             0.0, -0.12, 0.31, -0.42, -0.8, -0.09, -1.41, 0.0, -0.07, 0.66),
            (0.0, 2.49, 0.46, 0.0, 0.26, 1.26, -0.24, 0.0, 1.75, 0.73,
             0.0, 1.0, 0.99, -0.06, -0.57, -0.5, -0.32, -0.43, -0.19, -0.19),
        ), (7, 2, 2, 2), 6),
    ),
    "x-": (
    ),
    "z+": (
        Gait(
            (0.06, 0.1, 0.0, 0.02, -0.23, -0.04, 0.05, -0.08, 0.16, -0.12,
             -0.13, -0.14, 0.04, 0.08, -0.01, 0.0, -0.05, 0.03, -0.3, 0.05),
            (-0.2, 0.28, 0.09, -0.13, -0.38, -0.01, -0.24, -0.07, -0.07, 0.06,
             -0.02, -0.14, 0.0, -0.02, -0.15, 0.11, -0.07, 0.06, -0.15, 0.01),
            (0.13, 0.01, 0.17, 0.01, 0.31, -0.09, 0.04, 0.19, 0.14, -0.21,
             0.01, 0.15, -0.09, 0.0, 0.11, 0.0, 0.06, 0.18, 0.34, 0.02),
            6,
        ),
    ),
    "z-": (
    ),
}
# fmt: on
