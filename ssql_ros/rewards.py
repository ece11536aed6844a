"""What a step is worth, taken from what the robot publishes: the same numbers that the simulated worlds give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssql_ros.spec import Contract


@dataclass(frozen=True)
class ForwardVelocity:
    """The Minitaur's: goal - |goal - clip(v_x, -limit, limit)| - weight mean |a_t - 2 a_(t-1) + a_(t-2)|.

    v_x is the way along x over one control period; actions count in the scale that reaches the legs, and before an
    episode's first one stands that first one.

    Attributes:
        goal: m/s.
        period: s, of control.
        limit: m/s.
        weight: of the acceleration of actions.
        action_scale: what an action of 1 is to the robot.
    """

    goal: float
    period: float
    limit: float = 0.8
    weight: float = 0.01
    action_scale: float = 0.5
    input: str = "odometry"
    fields: tuple[str, ...] = ("position.x",)

    def __call__(self, before: np.ndarray, after: np.ndarray, actions: Sequence[np.ndarray]) -> float:
        """Return the reward of a step from positions (1,) and the executed actions, newest first."""
        speed = min(max(float(after[0] - before[0]) / self.period, -self.limit), self.limit)
        newest, last, before_last = [*actions, actions[-1], actions[-1]][:3]
        acceleration = self.action_scale * float(np.abs(newest - 2.0 * last + before_last).mean())
        return self.goal - abs(self.goal - speed) - self.weight * acceleration


def reward_of(contract: Contract, goal: float) -> ForwardVelocity:
    """Return the reward of a robot.

    Args:
        goal: m/s, of robots that walk.

    Raises:
        ValueError: the robot has none that can be taken from its topics.
    """
    source = contract.inputs.get("odometry")
    if source is None or source.type != "nav_msgs/msg/Odometry":
        raise ValueError(
            f"{contract.path}: expected an input odometry (nav_msgs/msg/Odometry), from which v_x is taken"
        )
    return ForwardVelocity(goal, contract.control_period)
