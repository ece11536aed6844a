"""A boat in a current as a gymnasium environment: reach the goal downstream without touching either of two rocks.

After the boat navigation task of SafeFQL (Safe Flow Q-Learning). Its motion is also here as functions of many states
at once, for exact ground truth on grids and for fast evaluation.
"""

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np

LOW, HIGH = (-3.0, -2.0), (2.0, 2.0)  # m, corners of the box
GOAL = (1.5, 0.0)  # m
# Centre and radius of each rock, m: config/boat/contract.yaml has the same.
ROCKS = (((-0.5, 0.5), 0.4), ((-1.0, -1.2), 0.5))
CONTROL_PERIOD = 0.005  # s
MAX_STEPS = 400

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


def moved(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return positions (..., 2) one control period on, for actions (..., 2).

    x' = x + (a_1 + 2 - y^2 / 2) dt, y' = y + a_2 dt, kept inside the box, a at unit length (0 stays 0: drifting).
    """
    length = np.sqrt(np.square(action).sum(axis=-1, keepdims=True))
    heading = action / np.where(length > 0.0, length, 1.0)
    current = 2.0 - 0.5 * np.square(position[..., 1])
    x = position[..., 0] + (heading[..., 0] + current) * CONTROL_PERIOD
    y = position[..., 1] + heading[..., 1] * CONTROL_PERIOD
    return np.stack([np.clip(x, LOW[0], HIGH[0]), np.clip(y, LOW[1], HIGH[1])], axis=-1)


def margin_of(position: np.ndarray) -> np.ndarray:
    """Return l(s), m, of positions (..., 2): radius - distance, the larger of both rocks; positive is inside one."""
    return np.max([radius - _distance(position, centre) for centre, radius in ROCKS], axis=0)


def reward_of(position: np.ndarray) -> np.ndarray:
    """Return the reward of a step that begins at positions (..., 2): minus the distance to the goal, m."""
    return -_distance(position, GOAL)


def _distance(position: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    return np.hypot(position[..., 0] - point[0], position[..., 1] - point[1])


class BoatEnv(gymnasium.Env):
    """A boat of speed 1 m/s in a current of up to 2 m/s, on [-3, 2] x [-2, 2] m.

    Observation, (2,) float64: x and y [m].

    Action, (2,) in [-1, 1], clipped: the heading; its length does not matter, see `moved`.

    An incident is to be inside a rock after a step. It costs 1 and does not end the episode, which runs for `max_steps`
    steps and is then truncated. `info`: incident, margin (l of the new state, m), cost.

    Reward: minus the distance to the goal, of the state before the step.

    Attributes:
        position: x and y, m.
        max_steps: steps after which an episode is truncated.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, *, max_steps: int = MAX_STEPS):
        if max_steps < 1:
            raise ValueError(f"max_steps is at least 1, not {max_steps}")
        self.max_steps = max_steps
        self.position = np.zeros(2)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(np.array(LOW), np.array(HIGH), dtype=np.float64)
        self._steps: int | None = None  # None while no episode goes on

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see gymnasium.Env.reset.

        Args:
            options: `position`: (x, y) to begin at, m; default: uniform over the box, outside of the rocks.

        Raises:
            ValueError: an unknown option, or a position that is not inside the box.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := sorted(set(options) - {"position"}):
            raise ValueError(f"reset options: expected only 'position', got {unknown[0]!r}")
        if "position" in options:
            self.position = _two_finite("position", options["position"])
            if not ((self.position >= LOW) & (self.position <= HIGH)).all():
                raise ValueError(f"a position lies in {LOW} to {HIGH}, but {self.position.tolist()} came")
        else:
            self.position = self.np_random.uniform(LOW, HIGH)
            while margin_of(self.position) > 0.0:
                self.position = self.np_random.uniform(LOW, HIGH)
        self._steps = 0
        return self.position.copy(), self._info()

    def step(self, action: np.ndarray) -> StepResult:
        """Move for one control period; see gymnasium.Env.step.

        Raises:
            ValueError: the action has not 2 finite elements.
            RuntimeError: no episode goes on.
        """
        heading = np.clip(_two_finite("action", action), -1.0, 1.0)
        if self._steps is None:
            raise RuntimeError("call reset() before a step: no episode goes on")
        reward = float(reward_of(self.position))
        self.position = moved(self.position, heading)
        self._steps += 1
        truncated = self._steps == self.max_steps
        if truncated:
            self._steps = None
        return self.position.copy(), reward, False, truncated, self._info()

    def _info(self) -> dict[str, Any]:
        margin = float(margin_of(self.position))
        return {"incident": margin > 0.0, "margin": margin, "cost": float(margin > 0.0)}


def _two_finite(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape != (2,):
        raise ValueError(f"{name}: expected shape (2,), got {array.shape}")
    if not all(map(math.isfinite, array.tolist())):
        raise ValueError(f"{name}: expected finite numbers, got {array.tolist()}")
    return array
