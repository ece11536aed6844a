"""Rotations by unit quaternions, written out in plain floats.

transforms3d's matrices take ten times as long, and these run on every reading, while a robot waits.
"""

from __future__ import annotations

import math

from ssql_ros.contract.schema import ContractError


def orientation_of(w: float, x: float, y: float, z: float, what: str) -> tuple[float, float, float]:
    """Return roll, pitch and yaw, rad, of what should be a unit quaternion; raise ContractError where it is none."""
    norm = math.sqrt(w * w + x * x + y * y + z * z)
    # An unset message has an all-zero quaternion.
    if not abs(norm - 1.0) < 1e-2:
        raise ContractError(f"{what}: no orientation: expected a unit quaternion, got norm {norm:.3g}")
    return _roll_pitch_yaw(w, x, y, z)


def _roll_pitch_yaw(w: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return roll, pitch and yaw (rad, REP-103: turns about fixed axes x, y, z) of the quaternion (w, x, y, z).

    By way of the rotation matrix, in the order in which transforms3d does it: so both give the same bits.
    """
    s = 2.0 / (w * w + x * x + y * y + z * z)
    sx, sy, sz = x * s, y * s, z * s
    m00, m10, m20 = 1.0 - (y * sy + z * sz), x * sy + w * sz, x * sz - w * sy
    m21, m22 = y * sz + w * sx, 1.0 - (x * sx + y * sy)
    return math.atan2(m21, m22), math.atan2(-m20, math.sqrt(m00 * m00 + m10 * m10)), math.atan2(m10, m00)


def quaternion_of(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Return the quaternion (w, x, y, z) of roll, pitch and yaw, rad: what `orientation_of` takes apart."""
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(a / 2), math.cos(a / 2)) for a in (roll, pitch, yaw))
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def rotated(q: tuple[float, float, float, float], v: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return vector `v` turned by the quaternion (w, x, y, z): v + 2 u x (u x v + w v), for |q| = 1."""
    w, x, y, z = q
    vx, vy, vz = v
    cx, cy, cz = y * vz - z * vy + w * vx, z * vx - x * vz + w * vy, x * vy - y * vx + w * vz
    return vx + 2 * (y * cz - z * cy), vy + 2 * (z * cx - x * cz), vz + 2 * (x * cy - y * cx)
