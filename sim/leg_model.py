"""The Minitaur's coordinates: actions, leg poses, motor angles and URDF joint positions.

A leg's two motors move its foot together: swing turns the leg, extension stretches it,

    swing = s 0.5 (R - L),   extension = 0.5 (L + R)   [rad],

with s = +1 for the left legs and -1 for the right ones. Legs come in the order front left, back left,
front right, back right; of each leg the L motor comes first. A URDF joint turns in its motor's direction on
the right side of the robot and against it on the left.
"""

import math
from collections.abc import Sequence

LEGS = ("front_left", "back_left", "front_right", "back_right")
MOTORS = tuple(f"{leg}{side}" for leg in LEGS for side in "LR")
JOINT_NAMES = tuple(f"motor_{motor}_joint" for motor in MOTORS)
MOTOR_DIRECTION = (-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0)
ACTION_SCALE = 0.5  # rad of leg pose per unit of action
STANDING_EXTENSION = 2.0  # rad, the pose that action 0 commands; its swing is 0

_TWO_PI = 2.0 * math.pi


def joint_targets(scaled_action: Sequence[float]) -> list[float]:
    """Joint positions (8, rad) of a scaled action (8, rad): the hot path, in plain floats.

    Grouped as offset + (matrix @ action), so that whoever evaluates the map in that form gets the same bits.
    """
    s0, s1, s2, s3, e0, e1, e2, e3 = scaled_action
    h = STANDING_EXTENSION
    return [
        -h + (s0 - e0),
        -h + (-s0 - e0),
        -h + (s1 - e1),
        -h + (-s1 - e1),
        h + (s2 + e2),
        h + (-s2 + e2),
        h + (s3 + e3),
        h + (-s3 + e3),
    ]


def leg_pose(motor_angle: Sequence[float]) -> list[float]:
    """Swing x4 then extension x4 (rad) of eight motor angles (rad)."""
    a, b, c, d, e, f, g, h = motor_angle
    return [
        0.5 * (b - a),
        0.5 * (d - c),
        0.5 * (e - f),
        0.5 * (g - h),
        0.5 * (a + b),
        0.5 * (c + d),
        0.5 * (e + f),
        0.5 * (g + h),
    ]


def pose_to_scaled_action(pose: Sequence[float]) -> list[float]:
    """The scaled action (8, rad) that commands this leg pose (8, rad)."""
    s0, s1, s2, s3, e0, e1, e2, e3 = pose
    h = STANDING_EXTENSION
    return [s0, s1, s2, s3, e0 - h, e1 - h, e2 - h, e3 - h]


def wrap(angle: float) -> float:
    """The angle (rad) brought into [-pi, pi); an angle already inside keeps its exact bits."""
    angle = math.fmod(angle, _TWO_PI)
    if angle >= math.pi:
        return angle - _TWO_PI
    if angle < -math.pi:
        return angle + _TWO_PI
    return angle
