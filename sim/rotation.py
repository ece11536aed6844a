"""Rotations by unit quaternions (x, y, z, w), body to world, in plain floats."""

import math
from collections.abc import Sequence

Vector = tuple[float, float, float]


def roll_pitch(quaternion: Sequence[float]) -> tuple[float, float]:
    """Roll and pitch (rad) of the intrinsic z-y-x (yaw, pitch, roll) Euler angles, REP-103."""
    return roll_pitch_yaw(quaternion)[:2]


def roll_pitch_yaw(quaternion: Sequence[float]) -> Vector:
    """Roll, pitch and yaw (rad) of the intrinsic z-y-x (yaw, pitch, roll) Euler angles, REP-103."""
    x, y, z, w = quaternion
    # By way of the rotation matrix, in the order in which transforms3d does it: so both give the same bits.
    s = 2.0 / (w * w + x * x + y * y + z * z)
    sx, sy, sz = x * s, y * s, z * s
    m00, m10, m20 = 1.0 - (y * sy + z * sz), x * sy + w * sz, x * sz - w * sy
    m21, m22 = y * sz + w * sx, 1.0 - (x * sx + y * sy)
    return math.atan2(m21, m22), math.atan2(-m20, math.sqrt(m00 * m00 + m10 * m10)), math.atan2(m10, m00)


def to_world(quaternion: Sequence[float], vector: Sequence[float]) -> Vector:
    """A vector of the body frame, in the world frame: v + 2 u x (u x v + w v), for a quaternion (u, w)."""
    x, y, z, w = quaternion
    a, b, c = vector
    p, q, r = y * c - z * b + w * a, z * a - x * c + w * b, x * b - y * a + w * c
    return a + 2 * (y * r - z * q), b + 2 * (z * p - x * r), c + 2 * (x * q - y * p)


def to_body(quaternion: Sequence[float], vector: Sequence[float]) -> Vector:
    """A vector of the world frame, in the body frame."""
    x, y, z, w = quaternion
    return to_world((-x, -y, -z, w), vector)
