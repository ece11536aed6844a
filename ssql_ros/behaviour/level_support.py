"""The support of a density that was fitted: the actions where it is at least as high as a stated level.

    p(a|s) = sum_k w_k prod_i N(a_i; m_ki, s_ki) truncated to [-1, 1],   A(s) = {a: log p(a|s) >= floor}
    b(a|s) = p(a|s) / P(A(s)) in A(s), and 0 outside

A fitted density is nowhere 0, so without a level it would support everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from ssql_ros.behaviour.support import TOLERANCE, Support, normal_mass

# By how much rounding to float32 may change a log density.
LOG_TOLERANCE = 1e-3
_ROUNDS = 50
_BISECTIONS = 40


@dataclass(frozen=True)
class LevelSupport(Support):
    """b(.|s) for N states. The boxes are all of [-1, 1], each with a truncated normal.

    Attributes:
        floor: the level of log p.
    """

    floor: float = -math.inf

    @cached_property
    def _log_scale(self) -> np.ndarray:
        """Return log w_k - sum_i log(s_ki sqrt(2 pi) mass_ki), (N, K): log p of a component at its mean."""
        mass = normal_mass(self.low, self.high, self.mean, self.std)
        with np.errstate(divide="ignore"):
            return np.log(self.weight) - np.log(self.std * math.sqrt(2.0 * math.pi) * mass).sum(axis=2)

    def level(self, actions: np.ndarray) -> np.ndarray:
        """Return log p(a|s) (N, count) of actions (N, count, n_action) in [-1, 1], whatever the floor."""
        z = (actions[:, :, np.newaxis] - self.mean[:, np.newaxis]) / self.std[:, np.newaxis]
        return np.logaddexp.reduce(self._log_scale[:, np.newaxis] - 0.5 * np.square(z).sum(axis=3), axis=2)

    @cached_property
    def _modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the components' means (N, K, n_action), which lie in [-1, 1], and log p there (N, K)."""
        return self.mean, self.level(self.mean)

    @property
    def somewhere(self) -> np.ndarray:
        """Return in which states (N,) an action is known that reaches the floor: elsewhere nothing is supported."""
        return np.any(self._modes[1] >= self.floor, axis=1)

    def contains(self, actions: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
        """Return whether actions (N, count, n_action) are in A(s), (N, count); never where one is not finite,
        nor in a state where none is known that reaches the floor (see `somewhere`)."""
        within = (np.abs(actions) <= 1.0 + tolerance).all(axis=2)
        level = self.level(np.where(within[..., np.newaxis], actions, 0.0))
        return within & (level >= self.floor - LOG_TOLERANCE) & self.somewhere[:, np.newaxis]

    def log_density(self, actions: np.ndarray) -> np.ndarray:
        """Return log p(a|s) (N, count) in A(s), -inf outside: b's but for log P(A(s)), which is near 0."""
        inside = self.contains(actions)
        return np.where(inside, self.level(np.where(inside[..., np.newaxis], actions, 0.0)), -np.inf)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return `count` draws from b for each state, (N, count, n_action); the highest mode where there is none."""
        actions = super().sample(count, rng)
        for _ in range(_ROUNDS):
            below = self.level(actions) < self.floor
            rows = np.flatnonzero(below.any(axis=1) & self.somewhere)
            if not len(rows):
                break
            again = Support.sample(self._of(rows), count, rng)
            actions[rows] = np.where(below[rows, :, np.newaxis], again, actions[rows])
        return self.project(actions)

    def _of(self, rows: np.ndarray) -> LevelSupport:
        parts = {field.name: getattr(self, field.name)[rows] for field in fields(Support)}
        return replace(self, **parts)

    def project(self, actions: np.ndarray) -> np.ndarray:
        """Return supported actions near `actions` (N, count, n_action); those inside are unchanged.

        On the way from each mode that reaches the floor to the action, the last point that was found to reach it; of
        these the nearest. Where no mode does, the highest mode.
        """
        found = np.clip(actions, -1.0, 1.0)
        states, places = np.nonzero((self.level(found) < self.floor) | ~self.somewhere[:, np.newaxis])
        if not len(states):
            return found
        of = self._of(states)
        modes, levels = of._modes
        wanted = found[states, places][:, np.newaxis]
        reached, missed = np.zeros(levels.shape), np.ones(levels.shape)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (reached + missed)
            there = of.level(modes + middle[..., np.newaxis] * (wanted - modes)) >= self.floor
            reached, missed = np.where(there, middle, reached), np.where(there, missed, middle)
        ends = modes + reached[..., np.newaxis] * (wanted - modes)
        away = np.where(levels >= self.floor, np.square(ends - wanted).sum(axis=2), np.inf)
        # Where none reaches it: the highest mode.
        nearest = np.where(of.somewhere, away.argmin(axis=1), levels.argmax(axis=1))
        rows = np.arange(len(states))
        best = np.where(of.somewhere[:, np.newaxis], ends[rows, nearest], modes[rows, nearest])
        found[states, places] = best
        return found

    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """Return low and high (N, n_action) of a box around A(s).

        Of K components one at least has a K-th of p: |a_i - m_ki| <= s_ki sqrt(2 (log p_k(m_k) - floor + log K)).
        """
        k = self.weight.shape[1]
        squared = 2.0 * (self._log_scale - self.floor + math.log(k))
        radius = np.sqrt(np.maximum(squared, 0.0))[:, :, np.newaxis] * self.std
        there = (squared >= 0.0) & self.somewhere[:, np.newaxis]
        modes, levels = self._modes
        # Where nothing is supported, the highest mode.
        there[~self.somewhere, levels[~self.somewhere].argmax(axis=1)] = True
        radius = np.where(self.somewhere[:, np.newaxis, np.newaxis], radius, 0.0)
        low = np.where(there[:, :, np.newaxis], modes - radius, np.inf).min(axis=1)
        high = np.where(there[:, :, np.newaxis], modes + radius, -np.inf).max(axis=1)
        return np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0)
