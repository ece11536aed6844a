"""The drunk spider on a grid, solved exactly: which way is best, and which way a threshold on Q_safe leaves open.

Positions are the centres of square cells, actions and noisy moves whole numbers of cells; what a move meets on its way
is worked out in the world's own substeps, what it is worth by the world's own reward. So there is nothing to learn:

    Q_safe(s, a) = E [I(s') + (1 - I(s')) gamma_safe Q_safe(s', a')],   a' ~ m(.|s')
    m: uniform over the actions of Q_safe <= epsilon, the least risky one where there is none

m is the masked policy (SQRL, eq. 3 and 5) of a proposal that knows nothing. What a threshold leaves open is then the
best return, step by step, of all policies that only take actions below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssql_sim import spider

# The threshold that the critic of the experiment on thresholds is learned at, and the discount of its returns.
LEARNED_AT, GAMMA = 0.2, 0.9


@dataclass(frozen=True)
class Way:
    """What a policy does in one episode from the start, in expectation.

    Attributes:
        success, incident, time_out: probabilities, of sum 1.
        round: probability of passing the pools on the outside.
        length: mean steps.
    """

    success: float
    incident: float
    time_out: float
    round: float
    length: float


class SpiderGrid:
    """One task of the spider with normal noise.

    Args:
        goal: row and column, m.
        noise: standard deviation on each axis of an action, before the sum is clipped to [-1, 1].
        cells: per metre, odd: the start is then the centre of a cell.
        max_steps: of an episode.
    """

    def __init__(self, goal: tuple[float, float], noise: float, cells: int = 7, max_steps: int = 30) -> None:
        if cells % 2 == 0 or noise <= 0.0:
            raise ValueError(f"expected an odd number of cells per metre and noise above 0, got {cells} and {noise:g}")
        self.max_steps, self._size = max_steps, 1.0 / cells
        self.rows = (np.arange(int(spider.ROWS * cells)) + 0.5) / cells
        self.columns = (np.arange(int(spider.COLUMNS * cells)) + 0.5) / cells
        moves = np.arange(-cells, cells + 1)
        self.actions = moves / cells
        # P(move | action) of one axis: the normal's mass in each cell, what lies beyond the bounds at the bounds.
        edges = (moves[:-1] + 0.5) / cells
        below = _normal((edges - self.actions[:, None]) / noise)
        self._moved = np.diff(np.pad(below, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1))), axis=1)
        self.incident = self._incidents(moves)
        row, column = np.arange(len(self.rows))[:, None] + moves, np.arange(len(self.columns))[:, None] + moves
        row, column = row.clip(0, len(self.rows) - 1), column.clip(0, len(self.columns) - 1)
        self._following = row[:, None, :, None] * len(self.columns) + column[None, :, None, :]
        self._distance = np.hypot(self.rows[:, None] - goal[0], self.columns - goal[1])
        self._success = self._distance <= spider.GOAL_RADIUS

    def _incidents(self, moves: np.ndarray) -> np.ndarray:
        """Return whether a move (rows, columns, row move, column move) meets the lava or the edge on its way."""
        row, column = self.rows[:, None, None, None], self.columns[:, None, None]
        step_row, step_column = moves[:, None] * self._size / spider.SUBSTEPS, moves * self._size / spider.SUBSTEPS
        met = np.zeros((len(self.rows), len(self.columns), len(moves), len(moves)), bool)
        for i in range(spider.SUBSTEPS):
            for at_row, at_column in ((i + 1, i), (i + 1, i + 1)):
                met |= _dangerous(row + at_row * step_row, column + at_column * step_column)
        return met

    def expected(self, outcome: np.ndarray) -> np.ndarray:
        """Return the mean (rows, columns, row action, column action) of what each move comes to (..., moves, moves)."""
        return np.einsum("ai,rcij,bj->rcab", self._moved, outcome, self._moved, optimize=True)

    def at(self, value: np.ndarray) -> np.ndarray:
        """Return `value` (rows, columns) of where each move ends."""
        return value.reshape(-1)[self._following]

    def risk(self, epsilon: float, gamma_safe: float, sweeps: int = 120) -> tuple[np.ndarray, float]:
        """Return Q_safe (rows, columns, actions, actions) of the masked policy, and by how much its equation fails.

        The masked policy need not exist (see test/support/finite_mdp.py); each sweep moves half way, as a target
        network does, and what is left of the difference tells.
        """
        q = np.zeros((*self._success.shape, len(self.actions), len(self.actions)))
        left = math.inf
        for _ in range(sweeps):
            kept = q <= epsilon
            count = kept.sum(axis=(2, 3))
            mean = np.where(kept, q, 0.0).sum(axis=(2, 3)) / np.maximum(count, 1)
            value = np.where(self._success, 0.0, np.where(count > 0, mean, q.min(axis=(2, 3))))
            change = self.expected(np.where(self.incident, 1.0, gamma_safe * self.at(value))) - q
            left = float(np.abs(change).max())
            q += 0.5 * change
        return q, left

    def best(self, gamma: float, allowed: np.ndarray | None = None) -> np.ndarray:
        """Return the actions (steps, rows, columns), as indices, of the best return that is `allowed` (see `mask`)."""
        distance, value = self._distance / spider.DIAGONAL, np.zeros_like(self._distance)
        chosen = np.zeros((self.max_steps, *value.shape), int)
        for step in reversed(range(self.max_steps)):
            left = self.max_steps - step - 1
            onward = gamma * value if left else -float(self.max_steps)
            worth = -distance + np.where(self._success, spider.GOAL_REWARD + left, onward)
            q = self.expected(np.where(self.incident, -(left + 1.0) - self.at(distance), self.at(worth)))
            flat = (q if allowed is None else np.where(allowed, q, -np.inf)).reshape(*value.shape, -1)
            chosen[step], value = flat.argmax(axis=-1), flat.max(axis=-1)
        return chosen

    def mask(self, q: np.ndarray, epsilon: float) -> np.ndarray:
        """Return which actions the mask keeps; where none is safe, those of least Q_safe."""
        kept = q <= epsilon
        return np.where(kept.any(axis=(2, 3), keepdims=True), kept, q <= q.min(axis=(2, 3), keepdims=True))

    def way(self, chosen: np.ndarray) -> Way:
        """Return what a policy (steps, rows, columns) does from the start."""
        # How probable it is to be in a cell, having gone round or not.
        there = np.zeros((2, self._distance.size))
        start = np.ravel_multi_index(self.cell(spider.START), self._distance.shape)
        there[0, start] = 1.0
        outside = np.array([spider.goes_round(np.array([[r, c]])) for r in self.rows for c in self.columns])
        done, success = self._success.reshape(-1), np.zeros(2)
        incident, length = np.zeros(2), 0.0
        next_observation, met = (x.reshape(-1, *x.shape[2:]) for x in (self._following, self.incident))
        for actions in chosen.reshape(len(chosen), -1):
            length += there.sum()
            row, column = np.divmod(actions, len(self.actions))
            moved = np.zeros_like(there)
            for went in range(2):
                (cells,) = there[went].nonzero()
                mass = (
                    self._moved[row[cells], :, None] * self._moved[column[cells], None] * there[went, cells, None, None]
                )
                incident[went] += mass[met[cells]].sum()
                np.add.at(moved[went], next_observation[cells][~met[cells]], mass[~met[cells]])
            moved = np.stack([np.where(outside, 0.0, moved[0]), moved[1] + np.where(outside, moved[0], 0.0)])
            success += moved[:, done].sum(axis=1)
            there = np.where(done, 0.0, moved)
        round_ = success[1] + incident[1] + there[1].sum()
        return Way(*(float(x) for x in (success.sum(), incident.sum(), there.sum(), round_, length)))

    def cell(self, position: tuple[float, float]) -> tuple[int, int]:
        """Return the cell of a position on the map, m."""
        row, column = (int(x / self._size) for x in position)
        return min(row, len(self.rows) - 1), min(column, len(self.columns) - 1)

    def walk(self, chosen: np.ndarray, env: spider.SpiderEnv, episodes: int, seed: int) -> list[np.ndarray]:
        """Return the positions (T + 1, 2) of episodes of a policy (steps, rows, columns) in the world itself."""
        ways = []
        for i in range(episodes):
            way, ended = [env.reset(seed=seed + i)[0]], False
            while not ended:
                row, column = way[-1].tolist()
                actions = np.divmod(chosen[len(way) - 1][self.cell((row, column))], len(self.actions))
                position, _, terminated, truncated, _ = env.step(self.actions[list(actions)])
                way.append(position)
                ended = terminated or truncated
            ways.append(np.array(way))
        return ways


def exact_ways(
    before: dict[str, Any],
    world: dict[str, Any],
    thresholds: Sequence[float],
    gamma_safe: float,
    episodes: int,
    seed: int,
) -> dict[float, list[np.ndarray]]:
    """Return, by threshold, positions (T + 1, 2) of episodes of the best policy that the threshold leaves open.

    Q_safe is of the policy masked at `LEARNED_AT` in a world of the options `before`; returns are those of `world`.

    Raises:
        ValueError: the world's noise is not normal.
    """
    if world.get("noise") != "normal":
        raise ValueError(f"expected a world of normal noise, got {world.get('noise', 'uniform')}")
    noise = world["action_noise"]
    q, _ = SpiderGrid(before["goal"], noise).risk(LEARNED_AT, gamma_safe)
    grid, found = SpiderGrid(world["goal"], noise), {}
    for epsilon in thresholds:
        if not 0.0 < epsilon < 1.0:
            raise ValueError(f"epsilon: expected a number between 0 and 1, got {epsilon:g}")
        chosen = grid.best(GAMMA, grid.mask(q, epsilon))
        found[epsilon] = grid.walk(chosen, spider.SpiderEnv(**world), episodes, seed)
    return found


def _normal(z: np.ndarray) -> np.ndarray:
    """Return P(a standard normal variable is at most z)."""
    return np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2.0)))(z)


def _dangerous(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return whether positions are in the lava or off the map, as `spider.is_incident` for arrays."""
    found = (row < 0.0) | (row > spider.ROWS) | (column < 0.0) | (column > spider.COLUMNS)
    for (row_low, row_high), (column_low, column_high) in spider.LAVA:
        found |= (row > row_low) & (row < row_high) & (column > column_low) & (column < column_high)
    return found
