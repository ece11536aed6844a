"""What a frame can read of an Imu and of an Odometry, in plain floats, by the names of the contract's fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ssql_ros.contract.schema import ContractError


def _imu_values(message: Any, what: str) -> dict[str, float]:
    rotation, rate, a = message.orientation, message.angular_velocity, message.linear_acceleration
    p, q, r = rate.x, rate.y, rate.z
    angles = turned(rotation, what)
    world = _rotate((rotation.w, rotation.x, rotation.y, rotation.z), (p, q, r))
    return {
        **angles,
        "angular_velocity.x": p,
        "angular_velocity.y": q,
        "angular_velocity.z": r,
        "world_angular_velocity.x": world[0],
        "world_angular_velocity.y": world[1],
        "world_angular_velocity.z": world[2],
        "linear_acceleration.x": a.x,
        "linear_acceleration.y": a.y,
        "linear_acceleration.z": a.z,
    }


def turned(rotation: Any, what: str) -> dict[str, float]:
    """Return roll, pitch and yaw of a Quaternion. Raises ContractError where it is none."""
    w, x, y, z = rotation.w, rotation.x, rotation.y, rotation.z
    norm = math.sqrt(w * w + x * x + y * y + z * z)
    # An unset message has an all-zero quaternion.
    if not abs(norm - 1.0) < 1e-2:
        raise ContractError(f"{what}: no orientation: expected a unit quaternion, got norm {norm:.3g}")
    roll, pitch, yaw = _roll_pitch_yaw(w, x, y, z)
    return {"orientation.roll": roll, "orientation.pitch": pitch, "orientation.yaw": yaw}


# Rotations are written out in plain floats: transforms3d's matrices take ten times as long, and these run on every
# reading, while a robot waits.


def _roll_pitch_yaw(w: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return roll, pitch and yaw (rad, REP-103: turns about fixed axes x, y, z) of the quaternion (w, x, y, z).

    By way of the rotation matrix, in the order in which transforms3d does it: so both give the same bits.
    """
    s = 2.0 / (w * w + x * x + y * y + z * z)
    sx, sy, sz = x * s, y * s, z * s
    m00, m10, m20 = 1.0 - (y * sy + z * sz), x * sy + w * sz, x * sz - w * sy
    m21, m22 = y * sz + w * sx, 1.0 - (x * sx + y * sy)
    return math.atan2(m21, m22), math.atan2(-m20, math.sqrt(m00 * m00 + m10 * m10)), math.atan2(m10, m00)


def _rotate(q: tuple[float, float, float, float], v: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return vector `v` turned by the quaternion (w, x, y, z): v + 2 u x (u x v + w v), for |q| = 1."""
    w, x, y, z = q
    vx, vy, vz = v
    cx, cy, cz = y * vz - z * vy + w * vx, z * vx - x * vz + w * vy, x * vy - y * vx + w * vz
    return vx + 2 * (y * cz - z * cy), vy + 2 * (z * cx - x * cz), vz + 2 * (x * cy - y * cx)


def _odometry_values(message: Any, _what: str) -> dict[str, float]:
    p, v, w = message.pose.pose.position, message.twist.twist.linear, message.twist.twist.angular
    return {
        "angular_velocity.x": w.x,
        "angular_velocity.y": w.y,
        "angular_velocity.z": w.z,
        "position.x": p.x,
        "position.y": p.y,
        "position.z": p.z,
        "linear_velocity.x": v.x,
        "linear_velocity.y": v.y,
        "linear_velocity.z": v.z,
    }


def check_measured(message: Any, covariances: Sequence[str], what: str) -> None:
    """Raise ContractError where a driver says by covariance -1 that it does not measure a quantity (REP-145)."""
    for covariance in covariances:
        if getattr(message, covariance)[0] == -1.0:
            quantity = covariance.removesuffix("_covariance")
            raise ContractError(f"{what}: no {quantity}: its covariance is -1, which means not measured")


def measured(fields: Sequence[str]) -> list[str]:
    """Return the names of the covariances of what `fields` of an Imu message are made of."""
    used = [
        quantity
        for quantity in ("orientation", "angular_velocity", "linear_acceleration")
        if any(quantity in field for field in fields)
    ]
    # Rates are turned to the world frame by the orientation.
    turned = any(field.startswith("world_") for field in fields)
    if turned and "orientation" not in used:
        used.append("orientation")
    return [f"{quantity}_covariance" for quantity in used]


ODOMETRY = "nav_msgs/msg/Odometry"
FIELD_VALUES: dict[str, Callable[[Any, str], dict[str, float]]] = {
    "sensor_msgs/msg/Imu": _imu_values,
    ODOMETRY: _odometry_values,
}
