"""Readings of a simulated or scripted robot as messages, by the type that its contract gives an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Imu, JointState

from ssql_ros.contract.message_kinds import kinds
from ssql_ros.contract.messages import fill_joint_state, fill_quaternion, fill_vector3, set_stamp
from ssql_ros.contract.sensor_readings import Reading
from ssql_ros.drivers.kind_bytes import kind_bytes
from ssql_ros.ros.inputs import message_type

REST = 256  # bytes, more than any definition has behind its table
_ZERO, _UPRIGHT = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)


def _joint_state(reading: Reading, stamp: int) -> JointState:
    fields = {name: values for name, values in reading.items() if name != "name"}
    return fill_joint_state(JointState(), stamp, reading["name"], **fields)


def _imu(reading: Reading, stamp: int) -> Imu:
    message = Imu()
    message.header.frame_id = "base_link"
    set_stamp(message, stamp)
    fill_quaternion(message.orientation, reading.get("orientation", _UPRIGHT))
    fill_vector3(message.angular_velocity, reading.get("angular_velocity", _ZERO))
    fill_vector3(message.linear_acceleration, reading.get("linear_acceleration", _ZERO))
    return message


def _odometry(reading: Reading, stamp: int) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id = "odom"
    set_stamp(message, stamp)
    fill_vector3(message.pose.pose.position, reading.get("position", _ZERO))
    fill_quaternion(message.pose.pose.orientation, reading.get("orientation", _UPRIGHT))
    fill_vector3(message.twist.twist.linear, reading.get("linear_velocity", _ZERO))
    fill_vector3(message.twist.twist.angular, reading.get("angular_velocity", _ZERO))
    return message


def _pose(reading: Reading, stamp: int) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = reading.get("frame_id", "map")
    set_stamp(message, stamp)
    fill_vector3(message.pose.position, reading.get("position", _ZERO))
    fill_quaternion(message.pose.orientation, reading.get("orientation", _UPRIGHT))
    return message


# From the readings of one input (see robots.body) and a stamp in ns to its message.
MESSAGES: dict[str, Callable[[Reading, int], Any]] = {
    "sensor_msgs/msg/JointState": _joint_state,
    "sensor_msgs/msg/Imu": _imu,
    "nav_msgs/msg/Odometry": _odometry,
    "geometry_msgs/msg/PoseStamped": _pose,
}


def sensor_message(kind: str, reading: Reading, stamp: int) -> Any:
    """Return the message of a type that says what a sensor read; `stamp`: ns.

    Raises:
        ContractError: no message of this type can be made of it.
    """
    if kind in MESSAGES:
        return MESSAGES[kind](reading, stamp)
    fields = {name: value for name, value in reading.items() if name != "frame_id"}
    # Zeros are whatever the definition has behind the last value of the table: empty, or 0.
    return deserialize_message(kind_bytes(kinds()[kind], stamp, fields) + bytes(REST), message_type(kind))
