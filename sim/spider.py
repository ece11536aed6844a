"""The drunk spider as a gymnasium environment: cross a bridge between two pools of lava, with noise on every action.

After the drunk spider task (DrunkSpiderShort) of SQRL (Srinivasan et al. 2020, Learning to be Safe: Deep RL with a
Safety Critic).
"""

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np

ROWS, COLUMNS = 8.0, 7.0  # m, one cell is 1 m x 1 m
START = (0.5, 3.5)  # row, column [m]
# Of each pool the rows and the columns between which it lies, m: config/spider/contract.yaml has the same.
LAVA = (((2.0, 6.0), (2.0, 3.0)), ((2.0, 6.0), (4.0, 5.0)))
BRIDGE = ((2.0, 3.0), (6.0, 4.0))  # (row, column) of two corners, m: between the pools
DIAGONAL = math.hypot(ROWS, COLUMNS)  # m
GOAL_RADIUS = 1.0  # m
GOAL_REWARD = 30.0
INCIDENT_COST = 30.0  # where rewards are not timed
SUBSTEPS = 10
NOISE_FAMILY = (0.0, 0.4)
SCALE_FAMILY = (0.5, 2.0)
NOISES = ("uniform", "normal")
RANDOMISATIONS = (None, "noise", "scale")

_SUBSTEP = 1.0 / SUBSTEPS
_LAVA_WIDTH = 1.0  # m, the smaller side of a pool

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class SpiderEnv(gymnasium.Env):
    """A spider on a map of 8 rows x 7 columns, with a bridge of one column between two pools of lava.

    Observation, (2,) float64: row and column [m].

    Action, (2,) in [-1, 1], clipped: by how much row and column shall change, m a step. The spider moves by
    scale * action + noise * (u - 1/2), u ~ U(0, 1) for each axis, drawn once a step: in 10 substeps, the row first,
    then the column.

    An incident is to be in the lava or off the map, edges excluded, after any single move; it ends the episode
    there and then. A success is to end a step within 1 m of the goal. Both terminate. An episode that has neither in
    `max_steps` is truncated. `info`: incident, success.

    Reward: -d / D, d the distance to the goal after the step and D the map's diagonal, and at the end of an episode
    of n steps, N = max_steps: success 30 + (N - n), incident -(N - n + 1), time-out -N. That depends on n, which is
    not observed: no Q(s, a) is exact. Where it is not `timed`, success pays 30, incident -30, time-out nothing.

    Attributes:
        action_noise, action_scale: those of this episode.
        max_steps: N.
        position: row and column, m.

    Args:
        goal: row and column, m.
        action_noise: width of the noise, m a step, where it is not drawn; its standard deviation where it is normal.
        action_scale: m a step for an action of 1, where it is not drawn.
        noise: "uniform", or "normal" as in the authors' public code, where the sum with the action is clipped again.
        randomise: None, "noise" or "scale": what every reset draws anew, noise from U(0, 0.4), scale from U(0.5, 2).
        max_steps: steps after which an episode is truncated.
        timed: whether the reward depends on the time that is left.
        start_anywhere: half of the episodes begin uniformly over the map, outside of the lava, the others on the
            bridge; else all begin in front of it.

    Raises:
        ValueError: an unknown choice, or a number outside its range.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        *,
        goal: tuple[float, float] = (7.5, 3.5),
        action_noise: float = 0.1,
        action_scale: float = 1.0,
        noise: str = "uniform",
        randomise: str | None = None,
        max_steps: int = 30,
        timed: bool = True,
        start_anywhere: bool = False,
    ):
        if noise not in NOISES:
            raise ValueError(f"noise is one of {NOISES}, not {noise!r}")
        if randomise not in RANDOMISATIONS:
            raise ValueError(f"randomise is one of {RANDOMISATIONS}, not {randomise!r}")
        if len(goal) != 2 or not (0.0 <= goal[0] <= ROWS and 0.0 <= goal[1] <= COLUMNS):
            raise ValueError(f"goal is a row of 0 to {ROWS:g} and a column of 0 to {COLUMNS:g}, not {goal}")
        if not (math.isfinite(action_noise) and action_noise >= 0.0):
            raise ValueError(f"action_noise is a number from 0 on, not {action_noise}")
        if not (math.isfinite(action_scale) and action_scale > 0.0):
            raise ValueError(f"action_scale is a number above 0, not {action_scale}")
        if max_steps < 1:
            raise ValueError(f"max_steps is at least 1, not {max_steps}")
        most_noise = NOISE_FAMILY[1] if randomise == "noise" else action_noise
        most_scale = SCALE_FAMILY[1] if randomise == "scale" else action_scale
        reach = (most_scale + 0.5 * most_noise) * _SUBSTEP  # m, the longest single move
        if reach >= _LAVA_WIDTH:
            raise ValueError(
                f"action_scale {action_scale:g} with action_noise {action_noise:g} moves {reach:g} m a substep: "
                f"under {_LAVA_WIDTH:g} m is expected, or the spider leaps over the lava"
            )
        self.goal = (float(goal[0]), float(goal[1]))
        self.action_noise = action_noise
        self.action_scale = action_scale
        self.noise = noise
        self.randomise = randomise
        self.max_steps = max_steps
        self.timed = timed
        self.start_anywhere = start_anywhere
        self.position = START
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        # Off the map by one move at most: there the episode ends.
        high = np.array([ROWS + reach, COLUMNS + reach])
        self.observation_space = gymnasium.spaces.Box(np.full(2, -reach), high, dtype=np.float64)
        self._steps: int | None = None  # None while no episode goes on

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see gymnasium.Env.reset. There are no options."""
        if options:
            raise ValueError(f"there are no reset options, but {sorted(options)} came")
        super().reset(seed=seed)
        if self.randomise == "noise":
            self.action_noise = self.np_random.uniform(*NOISE_FAMILY)
        elif self.randomise == "scale":
            self.action_scale = self.np_random.uniform(*SCALE_FAMILY)
        self.position = START
        if self.start_anywhere:
            self.position = self._free_place()
        self._steps = 0
        return np.array(self.position), {"incident": False, "success": False}

    def _free_place(self) -> tuple[float, float]:
        low, high = ((0.0, 0.0), (ROWS, COLUMNS)) if self.np_random.random() < 0.5 else BRIDGE
        while True:
            row, column = self.np_random.uniform(low, high).tolist()
            if not is_incident(row, column):
                return row, column

    def step(self, action: np.ndarray) -> StepResult:
        """Move once; see gymnasium.Env.step.

        Raises:
            ValueError: the action has not 2 finite elements.
            RuntimeError: no episode goes on.
        """
        row_action, column_action = _two_finite(action)
        if self._steps is None:
            raise RuntimeError("call reset() before a step: no episode goes on")
        # Drawn without noise too: seeds then give the same draws at every noise.
        if self.noise == "uniform":
            row_noise, column_noise = ((self.np_random.random(2) - 0.5) * self.action_noise).tolist()
            row = _clipped(row_action) * self.action_scale + row_noise
            column = _clipped(column_action) * self.action_scale + column_noise
        else:
            row_noise, column_noise = (self.np_random.standard_normal(2) * self.action_noise).tolist()
            row = _clipped(row_action + row_noise) * self.action_scale
            column = _clipped(column_action + column_noise) * self.action_scale
        incident = self._move(row, column)
        self._steps += 1
        distance = math.dist(self.position, self.goal)
        success = not incident and distance <= GOAL_RADIUS
        left = self.max_steps - self._steps
        terminated = incident or success
        truncated = not terminated and left == 0

        reward = -distance / DIAGONAL
        if success:
            reward += GOAL_REWARD + (left if self.timed else 0)
        elif incident:
            reward -= left + 1 if self.timed else INCIDENT_COST
        elif truncated and self.timed:
            reward -= self.max_steps
        if terminated or truncated:
            self._steps = None
        return np.array(self.position), reward, terminated, truncated, {"incident": incident, "success": success}

    def _move(self, row_change: float, column_change: float) -> bool:
        """Move by the changes, m, in substeps, up to the first incident; return whether there was one."""
        row, column = self.position
        incident = False
        for _ in range(SUBSTEPS):
            row += row_change * _SUBSTEP
            incident = is_incident(row, column)
            if incident:
                break
            column += column_change * _SUBSTEP
            incident = is_incident(row, column)
            if incident:
                break
        self.position = (row, column)
        return incident


def goes_round(way: np.ndarray) -> bool:
    """Return whether positions (T, 2) pass the pools on the outside, at any time while in their rows."""
    (low, high), (left, _) = LAVA[0]
    right = LAVA[1][1][1]
    beside = (way[:, 0] > low) & (way[:, 0] < high)
    return bool((beside & ((way[:, 1] < left) | (way[:, 1] > right))).any())


def is_incident(row: float, column: float) -> bool:
    """Tell whether a position, m, is in the lava or off the map; on an edge it is neither."""
    if not (0.0 <= row <= ROWS and 0.0 <= column <= COLUMNS):
        return True
    for (row_low, row_high), (column_low, column_high) in LAVA:
        if row_low < row < row_high and column_low < column < column_high:
            return True
    return False


def _clipped(action: float) -> float:
    return min(max(action, -1.0), 1.0)


def _two_finite(action: np.ndarray) -> list[float]:
    values = np.asarray(action, np.float64)
    if values.shape != (2,):
        raise ValueError(f"an action has shape (2,), but {values.shape} came")
    elements = values.tolist()
    if not (math.isfinite(elements[0]) and math.isfinite(elements[1])):
        raise ValueError(f"an action must be finite, but {elements} came")
    return elements
