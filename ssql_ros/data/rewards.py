"""What a step is worth, taken from what the robot publishes: the same numbers that the simulated worlds give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.reward import ForwardVelocityRule


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


@dataclass(frozen=True)
class Distance:
    """The boat's: minus the distance, m, of the position before the step to the goal.

    Attributes:
        goal: (1 to 3,), m.
    """

    goal: tuple[float, ...]
    input: str = "odometry"

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the fields that it reads."""
        return tuple(f"position.{axis}" for axis, _ in zip("xyz", self.goal, strict=False))

    def __call__(self, before: np.ndarray, after: np.ndarray, actions: Sequence[np.ndarray]) -> float:
        """Return the reward of a step from positions (n_fields,)."""
        return -math.dist(before, self.goal)


def reward_of(contract: Contract, goal: float | None = None) -> ForwardVelocity | Distance:
    """Return the reward that a contract names.

    Args:
        goal: m/s, in place of the contract's, of robots that walk.

    Raises:
        ValueError: the contract names none, or none with such a goal.
    """
    rule = contract.reward
    if rule is None:
        raise ValueError(f"{contract.path}: key 'reward' is missing: what is a step of this robot worth?")
    if isinstance(rule, ForwardVelocityRule):
        return ForwardVelocity(
            goal=rule.goal if goal is None else goal,
            period=contract.control_period,
            limit=rule.limit,
            weight=rule.acceleration_weight,
            action_scale=rule.action_scale,
            input=rule.input,
        )
    if goal is not None:
        raise ValueError(f"{contract.path}: reward.goal is a place; a goal in m/s is for robots that walk")
    return Distance(rule.goal, rule.input)
