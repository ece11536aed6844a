"""The message types that contracts name as inputs, and how their bytes are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Imu, JointState

from ssql_ros.contract.serialised import reader_of

INPUT_TYPES = {
    "sensor_msgs/msg/JointState": JointState,
    "sensor_msgs/msg/Imu": Imu,
    "nav_msgs/msg/Odometry": Odometry,
    "geometry_msgs/msg/PoseStamped": PoseStamped,
}


def parser_of(kind: str) -> Callable[[bytes], Any]:
    """Return what reads serialised messages of a type; see `ssql_ros.contract.serialised`. It raises ContractError."""
    return reader_of(kind, lambda data: deserialize_message(data, INPUT_TYPES[kind]))
