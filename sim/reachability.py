"""Ground truth in two dimensions by dynamic programming: who can stay safe, and the best return among those who do.

Reachability, backwards from the end of the episode on a regular grid:

    W_T(s) = l(s),   W_k(s) = min over a of max{ l along the way, W_(k+1)(s after holding a for one decision) }

W_0(s) is the least worst margin that any sequence of decisions reaches: the boat can stay safe where W_0(s) <= 0.
Best safe return, over actions that stay where W <= 0:

    J_k(s) = max over a of { rewards along the way + J_(k+1)(s after it) }

Between grid points values are interpolated (bilinearly), so W_0 = 0 is a line that is known to about a grid cell.
Near it `can_stay_safe` believes only an episode, driven by W in the exact dynamics, that was seen to stay safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

UNSURE = 0.05  # of the margin's unit

Transition = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class World:
    """A deterministic world of two dimensions, as functions of many states at once.

    Attributes:
        moved: (N, 2) positions, (N, 2) actions -> positions one control period on.
        margin, reward: (N, 2) -> (N,); the reward is that of a step that begins there.
        low, high: corners of the box that it never leaves.
        steps: of an episode.
    """

    moved: Transition
    margin: Callable[[np.ndarray], np.ndarray]
    reward: Callable[[np.ndarray], np.ndarray]
    low: tuple[float, float]
    high: tuple[float, float]
    steps: int


@dataclass(frozen=True)
class Grid:
    """How finely it is solved.

    Attributes:
        cells: points along each axis.
        headings: how many actions, evenly round the unit circle.
        hold: control periods that each is held for.
        slack: how far below 0 W must be for an action to count as safe in J, for interpolation's sake.
    """

    cells: tuple[int, int] = (251, 201)
    headings: int = 24
    hold: int = 4
    slack: float = 0.01

    def actions(self) -> np.ndarray:
        """Return the headings (A, 2)."""
        return unit_headings(self.headings)

    def points(self, world: World) -> np.ndarray:
        """Return the grid points (N, 2), the first axis slowest."""
        axes = [np.linspace(*ends) for ends in zip(world.low, world.high, self.cells, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def unit_headings(count: int) -> np.ndarray:
    """Return directions (count, 2) evenly round the unit circle."""
    angles = 2.0 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


class Interpolation:
    """Bilinear interpolation of grid values at fixed positions (N, 2) inside the box."""

    def __init__(self, world: World, cells: tuple[int, int], positions: np.ndarray) -> None:
        low, high, last = np.array(world.low), np.array(world.high), np.array(cells) - 1
        place = (positions - low) / (high - low) * last
        self._corner = np.clip(np.floor(place).astype(np.int32), 0, last - 1)
        part = (place - self._corner).astype(np.float32)
        index = self._corner[:, 0] * cells[1] + self._corner[:, 1]
        self._indices = [index, index + 1, index + cells[1], index + cells[1] + 1]
        x, y = part.T
        self._weights = [(1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the values (N,) at the positions of grid values (cells,)."""
        flat = values.reshape(-1)
        return sum(weight * flat[index] for weight, index in zip(self._weights, self._indices, strict=True))


@dataclass(frozen=True, eq=False)
class Solution:
    """What was solved.

    Attributes:
        worst: (decisions + 1, *cells) W_k, float32.
        best: (decisions + 1, *cells) J_k.
    """

    world: World
    grid: Grid
    worst: np.ndarray
    best: np.ndarray

    def worst_margin(self, positions: np.ndarray) -> np.ndarray:
        """Return W_0 (N,) at positions (N, 2)."""
        return Interpolation(self.world, self.grid.cells, positions)(self.worst[0])

    def safest(self, positions: np.ndarray, step: int, headings: int = 72) -> np.ndarray:
        """Return actions (N, 2) of least W once they were held from positions (N, 2); `step` of the episode."""
        k, actions = min(step // self.grid.hold + 1, len(self.worst) - 1), unit_headings(headings)
        # (headings, N, 2), all at once.
        there = np.broadcast_to(positions, (headings, *positions.shape))
        for _ in range(self.grid.hold):
            there = self.world.moved(there, np.broadcast_to(actions[:, None], there.shape))
        risk = Interpolation(self.world, self.grid.cells, there.reshape(-1, 2))(self.worst[k]).reshape(headings, -1)
        return actions[np.maximum(risk, self.world.margin(there)).argmin(axis=0)]


def solve(world: World, grid: Grid) -> Solution:
    """Return W and J of a world on a grid (see the top of this file)."""
    points, decisions = grid.points(world), world.steps // grid.hold
    ways, along, gained = [], [], []
    for action in grid.actions():
        next_observation, worst, reward = points, world.margin(points), np.zeros(len(points))
        for _ in range(grid.hold):
            reward += world.reward(next_observation)
            next_observation = world.moved(next_observation, np.broadcast_to(action, next_observation.shape))
            worst = np.maximum(worst, world.margin(next_observation))
        ways.append(Interpolation(world, grid.cells, next_observation))
        along.append(worst.astype(np.float32))
        gained.append(reward.astype(np.float32))
    worst_margin, best_return = [world.margin(points).astype(np.float32)], [np.zeros(len(points), np.float32)]
    for _ in range(decisions):
        risks = [np.maximum(worst, way(worst_margin[-1])) for way, worst in zip(ways, along, strict=True)]
        returns = [reward + way(best_return[-1]) for way, reward in zip(ways, gained, strict=True)]
        risk = np.array(risks)
        safest = risk.argmin(axis=0)
        allowed = (risk <= -grid.slack) | (np.arange(len(risk))[:, None] == safest)
        worst_margin.append(risk.min(axis=0))
        best_return.append(np.where(allowed, np.array(returns), -np.inf).max(axis=0))
    shape = (decisions + 1, *grid.cells)
    return Solution(
        world, grid, np.array(worst_margin[::-1]).reshape(shape), np.array(best_return[::-1]).reshape(shape)
    )


def rolled(
    world: World, starts: np.ndarray, policy: Callable[[np.ndarray, int], np.ndarray], show: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run an episode from each of `starts` (N, 2); `policy`: (N, 2) positions, step -> (N, 2) actions.

    Returns:
        return (N,), worst margin (N,) over all states, cost (N,): steps that end inside the failure set.
    """
    position, total = starts, np.zeros(len(starts))
    worst, cost = world.margin(starts), np.zeros(len(starts))
    for step in tqdm(range(world.steps), unit="step", disable=not show):
        total += world.reward(position)
        position = world.moved(position, policy(position, step))
        margin = world.margin(position)
        worst = np.maximum(worst, margin)
        cost += margin > 0.0
    return total, worst, cost


def can_stay_safe(solution: Solution, positions: np.ndarray) -> np.ndarray:
    """Return (N,) whether an episode from positions (N, 2) can stay safe.

    Where W_0 is within `UNSURE` of 0 an episode driven by W in the exact dynamics decides.
    """
    worst = solution.worst_margin(positions)
    unsure = np.abs(worst) < UNSURE
    if unsure.any():
        worst[unsure] = rolled(solution.world, positions[unsure], solution.safest)[1]
    return worst <= 0.0


def safe_starts(solution: Solution, count: int, seed: int) -> np.ndarray:
    """Return states (count, 2), uniformly drawn from those that can stay safe for an episode."""
    rng, world = np.random.default_rng(seed), solution.world
    kept: list[np.ndarray] = []
    while sum(len(part) for part in kept) < count:
        # Some more than are wanted: most starts can stay safe.
        drawn = rng.uniform(world.low, world.high, (count + count // 4 + 10, 2))
        kept.append(drawn[can_stay_safe(solution, drawn)])
    return np.concatenate(kept)[:count]
