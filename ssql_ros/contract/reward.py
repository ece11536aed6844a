"""What a step is worth, as a contract says it: which message fields it is taken from, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass

FORWARD_VELOCITY, DISTANCE = "forward_velocity", "distance"
KINDS = (FORWARD_VELOCITY, DISTANCE)


@dataclass(frozen=True)
class ForwardVelocityRule:
    """goal - |goal - clip(v_x, -limit, limit)| - acceleration_weight mean |a_t - 2 a_(t-1) + a_(t-2)|.

    Attributes:
        input: name of the odometry, from whose position.x v_x is taken.
        goal, limit: m/s.
        action_scale: what an action of 1 is to the robot.
    """

    input: str
    goal: float
    limit: float
    acceleration_weight: float
    action_scale: float


@dataclass(frozen=True)
class DistanceRule:
    """Minus the distance to `goal` of the position before the step, m.

    Attributes:
        input: name of the odometry.
        goal: (1 to 3,), of position.x, position.y, position.z.
    """

    input: str
    goal: tuple[float, ...]


RewardRule = ForwardVelocityRule | DistanceRule
