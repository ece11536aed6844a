"""Readings of a simulated robot as messages, by the type that its contract gives an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Imu, JointState

from ssql_ros.contract.messages import fill_joint_state, fill_quaternion, fill_vector3, set_stamp
from ssql_ros.robots.body import Reading

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
