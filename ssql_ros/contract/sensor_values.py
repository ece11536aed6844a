"""What a frame can read of Imu, Odometry and PoseStamped, in plain floats, by the names of the contract's fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ssql_ros.contract.rotations import orientation_of, rotated
from ssql_ros.contract.schema import ContractError


def _imu_values(message: Any, what: str) -> dict[str, float]:
    rotation, rate, a = message.orientation, message.angular_velocity, message.linear_acceleration
    p, q, r = rate.x, rate.y, rate.z
    angles = turned(rotation, what)
    world = rotated((rotation.w, rotation.x, rotation.y, rotation.z), (p, q, r))
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
    roll, pitch, yaw = orientation_of(rotation.w, rotation.x, rotation.y, rotation.z, what)
    return {"orientation.roll": roll, "orientation.pitch": pitch, "orientation.yaw": yaw}


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


def _pose_values(message: Any, what: str) -> dict[str, float]:
    p = message.pose.position
    return {"position.x": p.x, "position.y": p.y, "position.z": p.z, **turned(message.pose.orientation, what)}


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
    "geometry_msgs/msg/PoseStamped": _pose_values,
}
