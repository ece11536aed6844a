"""Serialised messages: read as rclpy reads them, whatever they hold, and refused when they are not whole."""

import contextlib

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Imu, JointState

from ssql_ros.contract import ContractError
from ssql_ros.contract.messages import stamp_of
from ssql_ros.contract.serialised import reader_of

KINDS = {
    "sensor_msgs/msg/JointState": JointState,
    "sensor_msgs/msg/Imu": Imu,
    "nav_msgs/msg/Odometry": Odometry,
    "geometry_msgs/msg/PoseStamped": PoseStamped,
}
numbers = st.floats(width=64)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
stamps = st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
rows = st.lists(numbers, max_size=5)


def refused(data: bytes) -> None:
    raise AssertionError(f"{data!r} is in the usual encoding")


def stamped(message, stamp, frame_id):
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    message.header.frame_id = frame_id
    return message


def same_parts(ours: object, theirs: object) -> None:
    """Every attribute that `ours` has is that of rclpy's message."""
    if hasattr(ours, "_asdict"):
        for name, part in ours._asdict().items():
            same_parts(part, getattr(theirs, name))
    elif isinstance(ours, list):
        assert ours == theirs  # names
    else:
        np.testing.assert_array_equal(ours, theirs)


def check(message: object, kind: str) -> None:
    data = serialize_message(message)
    same_parts(reader_of(kind, refused)(data), deserialize_message(data, KINDS[kind]))


@given(stamps, texts, st.lists(texts, max_size=4), rows, rows, rows)
def test_joint_states_are_those_of_rclpy(stamp, frame_id, names, position, velocity, effort):
    message = stamped(JointState(), stamp, frame_id)
    message.name, message.position, message.velocity, message.effort = names, position, velocity, effort
    check(message, "sensor_msgs/msg/JointState")


@given(stamps, texts, st.lists(numbers, min_size=7, max_size=7))
def test_poses_are_those_of_rclpy_with_their_frame(stamp, frame_id, values):
    message = stamped(PoseStamped(), stamp, frame_id)
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z, q.x, q.y, q.z, q.w = values
    check(message, "geometry_msgs/msg/PoseStamped")
    assert reader_of("geometry_msgs/msg/PoseStamped", refused)(serialize_message(message)).header.frame_id == frame_id


@given(st.lists(st.tuples(st.sampled_from(["", "base", "odom_1"]), st.permutations(["a", "bc", "joint_3"]), rows)))
def test_names_that_change_are_seen(stream):
    read = reader_of("sensor_msgs/msg/JointState", refused)
    for frame_id, names, position in stream:
        message = stamped(JointState(), (1, 2), frame_id)
        message.name, message.position = list(names), position
        found = read(serialize_message(message))
        assert found.name == list(names)
        np.testing.assert_array_equal(found.position, position)


@given(stamps, texts, st.lists(numbers, min_size=37, max_size=37))
def test_inertial_units_are_those_of_rclpy(stamp, frame_id, values):
    message = stamped(Imu(), stamp, frame_id)
    for name, part in (
        ("orientation", values[:4]),
        ("angular_velocity", values[4:7]),
        ("linear_acceleration", values[7:10]),
    ):
        for axis, value in zip("xyzw", part, strict=False):
            setattr(getattr(message, name), axis, value)
    message.orientation_covariance = np.array(values[10:19])
    message.angular_velocity_covariance = np.array(values[19:28])
    message.linear_acceleration_covariance = np.array(values[28:])
    check(message, "sensor_msgs/msg/Imu")


@given(stamps, texts, texts, st.lists(numbers, min_size=13, max_size=13))
def test_odometry_is_that_of_rclpy(stamp, frame_id, child_frame_id, values):
    message = stamped(Odometry(), stamp, frame_id)
    message.child_frame_id = child_frame_id
    parts = (
        (message.pose.pose.position, values[:3]),
        (message.pose.pose.orientation, values[3:7]),
        (message.twist.twist.linear, values[7:10]),
        (message.twist.twist.angular, values[10:]),
    )
    for part, numbers_of_part in parts:
        for axis, value in zip("xyzw", numbers_of_part, strict=False):
            setattr(part, axis, value)
    check(message, "nav_msgs/msg/Odometry")


def full(kind: str) -> bytes:
    message = stamped(KINDS[kind](), (12, 34), "base_link")
    if isinstance(message, JointState):
        message.name, message.position = ["hip", "knee"], [0.5, -0.5]
        message.velocity, message.effort = [1.0, 2.0], [3.0, 4.0]
    return serialize_message(message)


@pytest.mark.parametrize("kind", KINDS)
def test_message_that_is_cut_off_is_refused(kind):
    data, read = full(kind), reader_of(kind, refused)
    whole = read(data)
    assert stamp_of(whole) == 12_000_000_034
    for end in range(2, len(data) - 8):
        with pytest.raises(ContractError, match=f"a {kind} of {end} bytes is not a whole message"):
            read(data[:end])
    assert read(data) == whole


@pytest.mark.parametrize("kind", KINDS)
@given(garbage=st.binary(max_size=400))
def test_garbage_is_read_or_refused_and_nothing_else(kind, garbage):
    with contextlib.suppress(ContractError):
        reader_of(kind, refused)(b"\x00\x01\x00\x00" + garbage)


def test_text_that_is_none_is_refused():
    data = full("sensor_msgs/msg/JointState").replace(b"hip", b"h\xffp")
    with pytest.raises(ContractError, match="is not a whole message"):
        reader_of("sensor_msgs/msg/JointState", refused)(data)


def test_other_encodings_are_left_to_the_other_reader():
    data = b"\x00\x00" + full("sensor_msgs/msg/Imu")[2:]
    assert reader_of("sensor_msgs/msg/Imu", len)(data) == len(data)
