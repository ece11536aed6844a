"""Robots of gymnasium's MuJoCo family with a speed limit: run as fast as the limit allows, never faster.

After the velocity tasks of Safety Gymnasium: worlds, rewards and episodes are those of gymnasium; a step whose mean
forward speed exceeds the limit is an incident and costs 1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np

MAX_STEPS = 1000


@dataclass(frozen=True)
class Robot:
    """One robot: gymnasium's id, and its speed limit in m/s, which its contract in config/ has too."""

    environment: str
    limit: float


ROBOTS = {"half_cheetah": Robot("HalfCheetah-v5", 3.2096), "swimmer": Robot("Swimmer-v5", 0.2282)}

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class VelocityEnv(gymnasium.Env):
    """A robot whose forward speed is limited.

    Observation, (n,) float64: gymnasium's, and the mean forward speed of the last control period [m/s], 0 at first:
    what the rule judges must be seen.

    Action, (n_action,) in [-1, 1], clipped: motor torques, as fractions of their gears.

    An incident is a mean forward speed above the limit. It costs 1 and does not end the episode, which runs for
    `max_steps` steps and is then truncated. `info`: incident, margin (speed - limit, m/s), cost, velocity (m/s).

    Reward: gymnasium's, forward speed minus the cost of control.

    Raises:
        ValueError: no such robot, or `max_steps` below 1.
        gymnasium.error.DependencyNotInstalled: MuJoCo is missing: pip install 'ssql_ros[mujoco]'.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, *, robot: str, max_steps: int = MAX_STEPS):
        if robot not in ROBOTS:
            raise ValueError(f"robot {robot!r} is unknown; known: {', '.join(ROBOTS)}")
        if max_steps < 1:
            raise ValueError(f"max_steps is at least 1, not {max_steps}")
        self.limit, self.max_steps = ROBOTS[robot].limit, max_steps
        # Unwrapped: this class counts the steps itself.
        self._world = gymnasium.make(ROBOTS[robot].environment).unwrapped
        bare, action = self._world.observation_space, self._world.action_space
        assert isinstance(bare, gymnasium.spaces.Box)
        assert isinstance(action, gymnasium.spaces.Box)
        self.control_period = float(self._world.dt)  # s
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (bare.shape[0] + 1,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, action.shape, np.float32)
        self._steps: int | None = None  # None while no episode goes on

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode near the robot's rest; see gymnasium.Env.reset. Raises ValueError: options are given."""
        super().reset(seed=seed)
        if options:
            raise ValueError(f"reset options: expected none, got {', '.join(map(repr, options))}")
        observation, _ = self._world.reset(seed=seed)
        self._steps = 0
        return np.append(observation, 0.0), self._info(0.0)

    def step(self, action: np.ndarray) -> StepResult:
        """Act for one control period; see gymnasium.Env.step.

        Raises:
            ValueError: the action has another shape, or is not finite.
            RuntimeError: no episode goes on.
        """
        torques = np.asarray(action, np.float64)
        if torques.shape != self.action_space.shape:
            raise ValueError(f"action: expected shape {self.action_space.shape}, got {torques.shape}")
        if not np.isfinite(torques).all():
            raise ValueError(f"action: expected finite numbers, got {torques.tolist()}")
        if self._steps is None:
            raise RuntimeError("call reset() before a step: no episode goes on")
        observation, reward, _, _, found = self._world.step(np.clip(torques, -1.0, 1.0))
        speed = float(found["x_velocity"])
        self._steps += 1
        truncated = self._steps == self.max_steps
        if truncated:
            self._steps = None
        return np.append(observation, speed), float(reward), False, truncated, self._info(speed)

    def close(self) -> None:
        """Release the simulator."""
        self._world.close()

    def _info(self, speed: float) -> dict[str, Any]:
        margin = speed - self.limit
        return {"incident": margin > 0.0, "margin": margin, "cost": float(margin > 0.0), "velocity": speed}
