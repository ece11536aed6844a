"""Uniform over the actions that stay inside free rooms of a map: the safe behaviour of a point on a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.behaviour.support import Support, boxes


class Rooms(BehaviourPolicy):
    """A point moves by scale * action + disturbance, one axis after the other; it keeps to rectangles without hazards.

    In every room that holds the point, the actions whose every outcome is in that room form a box; b draws a room, and
    from its box. A rectangle holds every move between two of its points that follows the axes. What is drawn may be
    held for some steps, as a place in whatever box there is: each action alone is still a draw from b(.|s), but what is
    held goes further than what trembles.

    Args:
        rooms: of each ((low, high), (low, high)), by axis, in m.
        disturbance: m, the largest that is added to a move, either way.
        scale: m a step for an action of 1.
        hold: longest time in steps that a draw is held; every length up to it is as likely.

    Raises:
        ValueError: a room that is too narrow for the disturbance, or a hold below 1.
    """

    def __init__(
        self, rooms: Sequence[Sequence[Sequence[float]]], disturbance: float, scale: float = 1.0, hold: int = 1
    ) -> None:
        self.rooms = np.asarray(rooms, float)
        if self.rooms.ndim != 3 or self.rooms.shape[1:] != (2, 2):
            raise ValueError(f"rooms: expected ((low, high), (low, high)) of each, got shape {self.rooms.shape}")
        if not (np.isfinite(disturbance) and disturbance >= 0.0 and scale > 0.0):
            raise ValueError(f"rooms: expected disturbance >= 0 and scale > 0, got {disturbance} and {scale}")
        if type(hold) is not int or hold < 1:
            raise ValueError(f"rooms: hold: expected a whole number of at least 1, got {hold!r}")
        self.disturbance, self.scale, self.hold = float(disturbance), float(scale), hold
        self._held, self._left = np.zeros(3), 0
        self._low, self._high = self.rooms[:, :, 0] + disturbance, self.rooms[:, :, 1] - disturbance
        if not (self._low < self._high).all():
            raise ValueError(f"rooms: expected all wider than twice the disturbance of {disturbance:g} m")
        self.promise = (
            f"every state inside one of {len(self.rooms)} rooms, disturbances up to {disturbance:g} m included"
        )

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode: nothing is held."""
        self._left = 0

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a draw from b(.|s)."""
        if not self._left:
            # Of the rooms, and of a place in the room's box, as fractions.
            self._held, self._left = rng.random(3), int(rng.integers(self.hold)) + 1
        self._left -= 1
        support = self.support(observation[np.newaxis])
        ends = np.cumsum(support.weight[0])
        room = int(np.searchsorted(ends, self._held[0] * ends[-1], side="right"))
        low, high = support.low[0, room], support.high[0, room]
        return low + self._held[1:] * (high - low)

    def support(self, states: np.ndarray) -> Support:
        """Return b(.|s) for states (N, 2), positions in m; outside of all rooms, back to the nearest one."""
        at = states[:, np.newaxis, :2]
        low, high = ((edge - at) / self.scale for edge in (self._low, self._high))
        # Reachable within one step: the room's inner part is at most one action away on both axes.
        inside = ((at >= self.rooms[:, :, 0]) & (at <= self.rooms[:, :, 1])).all(axis=2)
        fits = inside & ((low <= 1.0) & (high >= -1.0)).all(axis=2)
        lost = ~fits.any(axis=1)
        if lost.any():
            away = np.maximum(np.maximum(low, -high), 0.0).max(axis=2)
            fits[lost, away[lost].argmin(axis=1)] = True
        weight = fits / fits.sum(axis=1, keepdims=True)
        low, high = np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0)
        return boxes(weight, np.minimum(low, high), high)

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        return {
            "kind": "rooms",
            "rooms": self.rooms.tolist(),
            "disturbance": self.disturbance,
            "scale": self.scale,
            "hold": self.hold,
            "context": 0,
        }
