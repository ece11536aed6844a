"""What a contract can name: fields of messages, units, functions, and the commands that a driver may take."""

from __future__ import annotations

import math
from collections.abc import Callable

from ssql_ros.contract.message_kinds import kinds

# Fields that a frame can read, per message type, with the SI unit that REP-103 gives them.
MESSAGE_FIELDS: dict[str, dict[str, str]] = {
    "sensor_msgs/msg/JointState": {"position": "rad", "velocity": "rad/s", "effort": "N m"},
    "sensor_msgs/msg/Imu": {
        **{f"orientation.{axis}": "rad" for axis in ("roll", "pitch", "yaw")},
        **{f"angular_velocity.{axis}": "rad/s" for axis in "xyz"},
        **{f"world_angular_velocity.{axis}": "rad/s" for axis in "xyz"},
        **{f"linear_acceleration.{axis}": "m/s^2" for axis in "xyz"},
    },
    "nav_msgs/msg/Odometry": {
        **{f"position.{axis}": "m" for axis in "xyz"},
        **{f"linear_velocity.{axis}": "m/s" for axis in "xyz"},
        **{f"angular_velocity.{axis}": "rad/s" for axis in "xyz"},
        **{f"orientation.{axis}": "rad" for axis in ("roll", "pitch", "yaw")},
    },
    "geometry_msgs/msg/PoseStamped": {
        **{f"position.{axis}": "m" for axis in "xyz"},
        **{f"orientation.{axis}": "rad" for axis in ("roll", "pitch", "yaw")},
    },
}
MESSAGE_FIELDS |= {name: dict(kind.fields) for name, kind in kinds().items() if name not in MESSAGE_FIELDS}
JOINT_STATE = "sensor_msgs/msg/JointState"
POSE = "geometry_msgs/msg/PoseStamped"
# What a driver may take, and the parts of a message that are commanded there, in the place of joints, with their units.
TWIST, TWIST_STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"
FLOAT, FLOATS = "std_msgs/msg/Float64", "std_msgs/msg/Float64MultiArray"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"  # streamed, a point a message
COMMAND_TYPES = (JOINT_STATE, TRAJECTORY, TWIST, TWIST_STAMPED, FLOAT, FLOATS)
BY_JOINT = (JOINT_STATE, TRAJECTORY)  # commands that name the joints
TWIST_PARTS = MESSAGE_FIELDS[TWIST]
RAW_JOINT_COMMANDS = "joint_commands_raw"


def field_unit(kind: str, field: str) -> str | None:
    """Return the SI unit of a field of a message type, `ANY` where the message does not say; None: no such field."""
    found = kinds()[kind].unit(field) if kind in kinds() else None
    return found or MESSAGE_FIELDS[kind].get(field)


# Units that a contract may use, as (SI unit, value in that unit of one SI unit).
UNITS: dict[str, tuple[str, float]] = {
    "rad": ("rad", 1.0),
    "deg": ("rad", 180.0 / math.pi),
    "rad/s": ("rad/s", 1.0),
    "deg/s": ("rad/s", 180.0 / math.pi),
    "N m": ("N m", 1.0),
    "m": ("m", 1.0),
    "m/s": ("m/s", 1.0),
    "m/s^2": ("m/s^2", 1.0),
    "N": ("N", 1.0),
    "V": ("V", 1.0),
    "A": ("A", 1.0),
    "1": ("1", 1.0),
    "%": ("1", 100.0),
}
# Functions of an angle that a feature may be; it is then a plain number.
FUNCTIONS: dict[str, Callable[[float], float]] = {"sin": math.sin, "cos": math.cos}
