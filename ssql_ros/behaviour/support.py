"""What a behaviour policy promises of its actions: a mixture of boxes, each with a density inside and none outside.

    b(a|s) = sum_k w_k prod_i f_ki(a_i),   f_ki uniform, or normal truncated, on [low_ki, high_ki]

One form serves all: a box of safe actions, rooms of a map, a controller with bounded noise, a fitted mixture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# What rounding may add to an action on its way through float32, in action units.
TOLERANCE = 1e-6
_ROUNDS = 100
_erf = np.vectorize(math.erf, otypes=[float])


@dataclass(frozen=True)
class Support:
    """b(.|s) for N states: K boxes each, actions of n_action numbers.

    Attributes:
        weight: (N, K), sums to 1; a box that a state does not have weighs 0.
        low, high: (N, K, n_action), of the boxes.
        mean, std: (N, K, n_action) of the normal that is truncated to the box; std inf: uniform.
    """

    weight: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return `count` draws from b for each state, (N, count, n_action)."""
        n, k = self.weight.shape
        if k == 1:
            chosen = np.zeros((n, count), int)
        else:
            ends = np.cumsum(self.weight, axis=1)
            # The last end may round to less than 1.
            chosen = (rng.random((n, count, 1)) > (ends / ends[:, -1:])[:, np.newaxis]).sum(axis=2)
        rows = np.arange(n)[:, np.newaxis]
        low, high, mean, std = (part[rows, chosen] for part in (self.low, self.high, self.mean, self.std))
        uniform = np.isinf(std)
        actions = low + (high - low) * rng.random(low.shape)
        if uniform.all():
            return actions
        # Rejection, element by element; what lies far in a tail is left uniform in its box.
        pending = ~uniform
        for _ in range(_ROUNDS):
            if not pending.any():
                break
            drawn = mean[pending] + std[pending] * rng.standard_normal(int(pending.sum()))
            inside = (drawn >= low[pending]) & (drawn <= high[pending])
            where = np.argwhere(pending)[inside]
            actions[tuple(where.T)] = drawn[inside]
            pending[tuple(where.T)] = False
        return actions

    def contains(self, actions: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
        """Return whether actions (N, count, n_action) have b > 0, (N, count); never where one is not finite."""
        a = actions[:, :, np.newaxis]
        inside = (a >= self.low[:, np.newaxis] - tolerance) & (a <= self.high[:, np.newaxis] + tolerance)
        there: np.ndarray = inside.all(axis=3) & (self.weight > 0.0)[:, np.newaxis]
        return np.any(there, axis=2)

    def log_density(self, actions: np.ndarray) -> np.ndarray:
        """Return log b(a|s) (N, count) of actions (N, count, n_action); -inf outside of the support.

        Directions in which a box has no width have no density and count as 1: both sides of a KL have them.
        """
        a = actions[:, :, np.newaxis]
        low, high, mean, std = (p[:, np.newaxis] for p in (self.low, self.high, self.mean, self.std))
        width, uniform = high - low, np.isinf(std)
        scale = np.where(uniform, 1.0, std)
        mass = normal_mass(low, high, mean, scale)
        z = (a - mean) / scale
        with np.errstate(divide="ignore"):
            normal = -0.5 * z * z - np.log(scale * math.sqrt(2.0 * math.pi)) - np.log(mass)
            flat = -np.log(np.where(width > 0.0, width, 1.0))
            logs = np.where(uniform, flat, np.where(width > 0.0, normal, 0.0)).sum(axis=3)
            inside = ((a >= low - TOLERANCE) & (a <= high + TOLERANCE)).all(axis=3)
            logs = np.where(inside, logs, -np.inf) + np.log(self.weight)[:, np.newaxis]
        return np.logaddexp.reduce(logs, axis=2)

    def project(self, actions: np.ndarray) -> np.ndarray:
        """Return the supported actions nearest to `actions` (N, count, n_action); those inside are unchanged."""
        a = actions[:, :, np.newaxis]
        nearest = np.clip(a, self.low[:, np.newaxis], self.high[:, np.newaxis])
        away = np.square(nearest - a).sum(axis=3) + np.where(self.weight > 0.0, 0.0, np.inf)[:, np.newaxis]
        best = away.argmin(axis=2)
        return np.take_along_axis(nearest, best[:, :, np.newaxis, np.newaxis], axis=2)[:, :, 0]

    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """Return low and high (N, n_action) of the least box around all boxes."""
        there = (self.weight > 0.0)[:, :, np.newaxis]
        low = np.where(there, self.low, np.inf).min(axis=1)
        return low, np.where(there, self.high, -np.inf).max(axis=1)


def normal_mass(low: np.ndarray, high: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return how much of a normal lies between `low` and `high`; all of one shape."""
    scale = std * math.sqrt(2.0)
    return 0.5 * (_erf((high - mean) / scale) - _erf((low - mean) / scale))


def boxes(weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> Support:
    """Return a support that is uniform in each box."""
    return Support(weight, low, high, 0.5 * (low + high), np.full(low.shape, np.inf))
