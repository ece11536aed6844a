"""Reads serialised messages of the types that contracts name, without making message objects of them.

rclpy makes a Python object of every part of a message that it delivers, which takes longer than everything that a
shield then does with it. What is made here has the attributes that `messages` reads, and no others. The encoding is
CDR as ROS 2 sends it (little-endian PLAIN_CDR, DDS-XTypes 1.3, 7.4): values in the order of the definition, each
aligned to its own size, counted from the end of a header of 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from ssql_ros.contract.message_kinds import Header, Stamp, kinds
from ssql_ros.contract.schema import ContractError

PLAIN_CDR = b"\x00\x01"

_HEADER = struct.Struct("<4xiII")  # stamp: s and ns; length of frame_id
_COUNT = struct.Struct("<I")
_FLAGS = struct.Struct("<B?")
_TAKEN_OVER = struct.Struct("<32x12x?")  # after two scores, two thresholds and three counts
_IMU = struct.Struct("<4d9d3d9d3d9d")
_PLACE = struct.Struct("<7d")
_POSE = struct.Struct("<7d36d")
_TWIST = struct.Struct("<6d36d")


class Vector3(NamedTuple):
    """geometry_msgs/msg/Vector3 and Point."""

    x: float
    y: float
    z: float


class Quaternion(NamedTuple):
    """geometry_msgs/msg/Quaternion."""

    x: float
    y: float
    z: float
    w: float


class JointState(NamedTuple):
    """sensor_msgs/msg/JointState."""

    header: Header
    name: list[str]
    position: tuple[float, ...]
    velocity: tuple[float, ...]
    effort: tuple[float, ...]


# What a point of a trajectory calls a JointState's fields.
POINT_FIELDS = {"position": "positions", "velocity": "velocities", "effort": "effort"}


class Imu(NamedTuple):
    """sensor_msgs/msg/Imu."""

    header: Header
    orientation: Quaternion
    orientation_covariance: tuple[float, ...]
    angular_velocity: Vector3
    angular_velocity_covariance: tuple[float, ...]
    linear_acceleration: Vector3
    linear_acceleration_covariance: tuple[float, ...]


class Pose(NamedTuple):
    """geometry_msgs/msg/Pose."""

    position: Vector3
    orientation: Quaternion


class FramedHeader(NamedTuple):
    """std_msgs/msg/Header, with the frame."""

    stamp: Stamp
    frame_id: str


class PoseStamped(NamedTuple):
    """geometry_msgs/msg/PoseStamped."""

    header: FramedHeader
    pose: Pose


class PoseWithCovariance(NamedTuple):
    """geometry_msgs/msg/PoseWithCovariance."""

    pose: Pose


class Twist(NamedTuple):
    """geometry_msgs/msg/Twist."""

    linear: Vector3
    angular: Vector3


class TwistWithCovariance(NamedTuple):
    """geometry_msgs/msg/TwistWithCovariance."""

    twist: Twist


class Odometry(NamedTuple):
    """nav_msgs/msg/Odometry."""

    header: Header
    pose: PoseWithCovariance
    twist: TwistWithCovariance


class Proposal(NamedTuple):
    """ssql_ros/msg/Proposal, its first fields."""

    header: Header
    contract_id: str
    source: str
    action: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    context: tuple[float, ...]


class ShieldedAction(NamedTuple):
    """ssql_ros/msg/ShieldedAction, its first fields."""

    header: Header
    decision: int
    enforced: bool
    proposal: tuple[float, ...]
    action: tuple[float, ...]


class Stamped(NamedTuple):
    """Any message that begins with a header: that alone."""

    header: Header


def reader_of(kind: str, otherwise: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function that reads one topic's serialised messages of type `kind`.

    It raises ContractError for bytes that are no whole message.

    Args:
        otherwise: reads messages in another encoding.
    """
    read = _READERS[kind]() if kind in _READERS else kinds()[kind].parser()

    def checked(data: bytes) -> Any:
        if not data.startswith(PLAIN_CDR):
            return otherwise(data)
        try:
            return read(data)
        except (struct.error, UnicodeDecodeError) as error:
            raise ContractError(f"a {kind} of {len(data)} bytes is not a whole message: {error}") from error

    return checked


def _header(data: bytes) -> tuple[Header, int]:
    """Return the header and where it ends."""
    sec, nanosec, length = _HEADER.unpack_from(data)
    return Header(Stamp(sec, nanosec)), _HEADER.size + length


# Where the next value of 4 or 8 bytes begins, the header of 4 bytes not counted.


def _at_4(end: int) -> int:
    return (end + 3) & ~3


def _at_8(end: int) -> int:
    return ((end + 3) & ~7) + 4


class _JointStateReader:
    """Remembers the bytes of the names, which are hardly ever others than those of the message before."""

    def __init__(self) -> None:
        self._block, self._names = b"", list[str]()

    def __call__(self, data: bytes) -> JointState:
        header, end = _header(data)
        start = _at_4(end)
        if not self._block or not data.startswith(self._block, start):
            names, end = _strings(data, start)
            self._block, self._names = data[start:end], names
        position, end = _doubles(data, start + len(self._block))
        velocity, end = _doubles(data, end)
        effort, _ = _doubles(data, end)
        return JointState(header, self._names, position, velocity, effort)


def _trajectory(data: bytes) -> JointState:
    """Read a JointTrajectory of one point as the JointState that it asks for."""
    _, end = _header(data)
    names, end = _strings(data, _at_4(end))
    start = _at_4(end)
    (count,) = _COUNT.unpack_from(data, start)
    if count != 1:
        raise ContractError(
            f"a JointTrajectory: expected one point, as a controller streams them, got {count}; a whole trajectory "
            "must be sampled before the shield"
        )
    positions, end = _doubles(data, start + _COUNT.size)
    velocities, end = _doubles(data, end)
    _, end = _doubles(data, end)
    effort, _ = _doubles(data, end)
    # Its stamp says when to begin, not which observation it answers.
    return JointState(Header(Stamp(0, 0)), names, positions, velocities, effort)


def _strings(data: bytes, start: int) -> tuple[list[str], int]:
    """Return a sequence of strings and where it ends."""
    (count,) = _COUNT.unpack_from(data, start)
    end, strings = start + _COUNT.size, []
    for _ in range(count):
        text, end = _string(data, end)
        strings.append(text)
    return strings, end


def _string(data: bytes, end: int) -> tuple[str, int]:
    """Return the string that follows `end`, and where it ends."""
    begin = _at_4(end) + _COUNT.size
    (length,) = _COUNT.unpack_from(data, begin - _COUNT.size)
    end = begin + length
    if end > len(data):
        raise struct.error(f"a text of {length} bytes at offset {begin}")
    return data[begin : end - 1].decode(), end  # without the zero that ends it


def _doubles(data: bytes, end: int) -> tuple[tuple[float, ...], int]:
    """Return the sequence of doubles that follows `end`, and where it ends."""
    start = _at_4(end)
    (count,) = _COUNT.unpack_from(data, start)
    end = start + _COUNT.size
    if not count:
        return (), end
    start = _at_8(end)
    return struct.unpack_from(f"<{count}d", data, start), start + 8 * count


def _imu(data: bytes) -> Imu:
    header, end = _header(data)
    values = _IMU.unpack_from(data, _at_8(end))
    return Imu(
        header,
        Quaternion(*values[:4]),
        values[4:13],
        Vector3(*values[13:16]),
        values[16:25],
        Vector3(*values[25:28]),
        values[28:],
    )


def _odometry(data: bytes) -> Odometry:
    header, end = _header(data)
    start = _at_4(end)
    (length,) = _COUNT.unpack_from(data, start)  # of child_frame_id
    start = _at_8(start + _COUNT.size + length)
    pose = _POSE.unpack_from(data, start)
    twist = _TWIST.unpack_from(data, start + _POSE.size)
    return Odometry(
        header,
        PoseWithCovariance(Pose(Vector3(*pose[:3]), Quaternion(*pose[3:7]))),
        TwistWithCovariance(Twist(Vector3(*twist[:3]), Vector3(*twist[3:6]))),
    )


def _pose_stamped(data: bytes) -> PoseStamped:
    header, end = _header(data)
    frame_id, _ = _string(data, _HEADER.size - _COUNT.size)
    values = _PLACE.unpack_from(data, _at_8(end))
    pose = Pose(Vector3(*values[:3]), Quaternion(*values[3:]))
    return PoseStamped(FramedHeader(header.stamp, frame_id), pose)


def _proposal(data: bytes) -> Proposal:
    header, end = _header(data)
    contract_id, end = _string(data, end)
    source, end = _string(data, end)
    vectors = []
    for _ in range(4):
        vector, end = _doubles(data, end)
        vectors.append(vector)
    return Proposal(header, contract_id, source, *vectors)


def _shielded_action(data: bytes) -> ShieldedAction:
    header, end = _header(data)
    decision, enforced = _FLAGS.unpack_from(data, end)
    proposal, end = _doubles(data, end + _FLAGS.size)
    action, _ = _doubles(data, end)
    return ShieldedAction(header, decision, enforced, proposal, action)


def taken_over(data: bytes) -> bool:
    """Return field `taken_over` of a ShieldedAction; raises struct.error for bytes that are no whole one."""
    _, end = _header(data)
    _, end = _doubles(data, end + _FLAGS.size)
    _, end = _doubles(data, end)
    return bool(_TAKEN_OVER.unpack_from(data, _at_8(end + 1))[0])  # after `rule`


def _stamped(data: bytes) -> Stamped:
    return Stamped(_header(data)[0])


_READERS: dict[str, Callable[[], Callable[[bytes], Any]]] = {
    "sensor_msgs/msg/JointState": _JointStateReader,
    "trajectory_msgs/msg/JointTrajectory": lambda: _trajectory,
    "sensor_msgs/msg/Imu": lambda: _imu,
    "nav_msgs/msg/Odometry": lambda: _odometry,
    "geometry_msgs/msg/PoseStamped": lambda: _pose_stamped,
    "ssql_ros/msg/Proposal": lambda: _proposal,
    "ssql_ros/msg/ShieldedAction": lambda: _shielded_action,
    "ssql_ros/msg/Episode": lambda: _stamped,
}
