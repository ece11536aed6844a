"""Reads many serialised messages of one topic at once, where all of them are laid out alike, as they mostly are.

A driver sends the same joints in the same order with the same frame for hours: then every number lies at the same
offset of every message, and a block of thousands is one array. Where one message is laid out otherwise, or holds what
is not finite, a block is not read here: message by message, `messages` says what is wrong with which.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import numpy as np

from ssql_ros.contract import Contract, ContractError
from ssql_ros.contract.contract import Input
from ssql_ros.contract.fields import FUNCTIONS, JOINT_STATE
from ssql_ros.contract.messages import wrap_angle
from ssql_ros.contract.serialised import PLAIN_CDR
from ssql_ros.contract.stamped import NANOSECONDS

Block = tuple[np.ndarray, np.ndarray]  # stamps (N,) in ns, values (N, n)
BlockReader = Callable[[Sequence[bytes]], Block | None]

_STAMP = 4  # offset of the header's stamp
_FRAME = 12  # offset of the length of its frame_id
# Doubles of an Imu: orientation x y z w, 9, angular velocity x y z, 9, linear acceleration x y z, 9.
_IMU_DOUBLES = 37
_UNIT = 1e-2


def _at_4(end: int) -> int:
    return (end + 3) & ~3


def _at_8(end: int) -> int:
    return ((end + 3) & ~7) + 4


def _rows(messages: Sequence[bytes]) -> np.ndarray | None:
    """Return messages of one length as bytes (N, length); None where they differ, or are not little-endian CDR."""
    length = len(messages[0])
    if any(len(message) != length for message in messages):
        return None
    rows = np.frombuffer(b"".join(messages), np.uint8).reshape(len(messages), length)
    head = np.frombuffer(PLAIN_CDR, np.uint8)
    return rows if (rows[:, : len(head)] == head).all() else None


def _same(rows: np.ndarray, start: int, end: int) -> bool:
    return bool((rows[:, start:end] == rows[0, start:end]).all())


def _stamps(rows: np.ndarray) -> np.ndarray:
    parts = np.ascontiguousarray(rows[:, _STAMP : _STAMP + 8])
    seconds = parts[:, :4].copy().view("<i4")[:, 0].astype(np.int64)
    return seconds * NANOSECONDS + parts[:, 4:].copy().view("<u4")[:, 0].astype(np.int64)


def _doubles(rows: np.ndarray, start: int, count: int, places: Sequence[int] | None = None) -> np.ndarray | None:
    """Return `count` doubles from `start` on, of them those at `places`; None where one of these is not finite."""
    if start + 8 * count > rows.shape[1]:
        return None
    values = np.ascontiguousarray(rows[:, start : start + 8 * count]).view("<f8")
    values = values if places is None else values[:, places]
    return values if np.isfinite(values).all() else None


def _length(message: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", message, at)[0])


def _joint_positions(messages: Sequence[bytes]) -> tuple[np.ndarray, list[str], np.ndarray] | None:
    """Return stamps, joint names, and positions (N, n_joint)."""
    rows = _rows(messages)
    if rows is None:
        return None
    first = messages[0]
    at = _at_4(_FRAME + 4 + _length(first, _FRAME))
    names = []
    count = _length(first, at)
    end = at + 4
    for _ in range(count):
        begin = _at_4(end) + 4
        end = begin + _length(first, begin - 4)
        names.append(first[begin : end - 1].decode())
    start = _at_4(end)
    if _length(first, start) != count or not count:
        return None
    begin = _at_8(start + 4)
    # Frame, names and the number of positions: all up to the first position.
    if not _same(rows, _FRAME, begin):
        return None
    positions = _doubles(rows, begin, count)
    return None if positions is None else (_stamps(rows), names, positions)


def _guarded(read: BlockReader) -> BlockReader:
    def guarded(messages: Sequence[bytes]) -> Block | None:
        try:
            return read(messages)
        except (struct.error, UnicodeDecodeError, ValueError, IndexError):
            return None

    return guarded


def command_blocks(contract: Contract) -> BlockReader:
    """Return what reads blocks of joint commands as actions (N, n_action), clipped; None where it does not."""
    told = contract.commanded

    def read(messages: Sequence[bytes]) -> Block | None:
        if told.field != "position" or len(told.joint_names) != contract.action_size:
            return None
        found = _joint_positions(messages)
        if found is None or any(name not in found[1] for name in told.joint_names):
            return None
        stamps, names, positions = found
        joints = positions[:, [names.index(name) for name in told.joint_names]]
        try:
            contract.action_of(joints[0])
        except ContractError:
            return None
        return stamps, contract.clip(contract.nearest_action(joints))

    return _guarded(read)


def input_blocks(contract: Contract, source: Input) -> BlockReader:
    """Return what reads blocks of a contract's input as its features (N, n), in the frame's order."""
    features = [feature for feature in contract.observed.frame if feature.input == source.name]
    factors = np.array([feature.factor for feature in features])
    wrapped = [i for i, feature in enumerate(features) if feature.wrap]
    of_angles = [(i, FUNCTIONS[feature.function]) for i, feature in enumerate(features) if feature.function]

    def scaled(values: np.ndarray) -> np.ndarray:
        values = factors * values
        for i in wrapped:
            for row in np.flatnonzero(np.abs(values[:, i]) >= np.pi):
                values[row, i] = wrap_angle(float(values[row, i]))
        for i, function in of_angles:  # one by one, for the same bits as of one message
            values[:, i] = [function(value) for value in values[:, i].tolist()]
        return values

    def read_joints(messages: Sequence[bytes]) -> Block | None:
        found = _joint_positions(messages)
        if found is None or any(f.field != "position" or f.joint not in found[1] for f in features):
            return None
        stamps, names, positions = found
        return stamps, scaled(positions[:, [names.index(feature.joint or "") for feature in features]])

    def read_imu(messages: Sequence[bytes]) -> Block | None:
        rows = _rows(messages)
        if rows is None:
            return None
        start = _at_8(_FRAME + 4 + _length(messages[0], _FRAME))
        values = _doubles(rows, start, _IMU_DOUBLES)
        # A covariance that begins with -1 says that something was not measured.
        if values is None or not _same(rows, _FRAME, start) or (values[:, [4, 16, 28]] == -1.0).any():
            return None
        by_field = _imu_fields(values)
        return None if by_field is None else (_stamps(rows), scaled(np.stack([by_field[f.field] for f in features], 1)))

    def read_odometry(messages: Sequence[bytes]) -> Block | None:
        found = _odometry_fields(messages, [feature.field for feature in features])
        return None if found is None else (found[0], scaled(found[1]))

    readers: dict[str, BlockReader] = {
        JOINT_STATE: read_joints,
        "sensor_msgs/msg/Imu": read_imu,
        "nav_msgs/msg/Odometry": read_odometry,
    }
    return _guarded(readers.get(source.type, lambda messages: None))


def _imu_fields(values: np.ndarray) -> dict[str, np.ndarray] | None:
    """Return what messages._imu_values gives, for many at once; None where an orientation is no unit quaternion."""
    x, y, z, w = values[:, :4].T
    rate, acceleration = values[:, 13:16].T, values[:, 25:28].T
    norm = w * w + x * x + y * y + z * z
    if not (np.abs(np.sqrt(norm) - 1.0) < _UNIT).all():
        return None
    s = 2.0 / norm
    sx, sy, sz = x * s, y * s, z * s
    m00, m10, m20 = 1.0 - (y * sy + z * sz), x * sy + w * sz, x * sz - w * sy
    m21, m22 = y * sz + w * sx, 1.0 - (x * sx + y * sy)
    vx, vy, vz = rate
    cx, cy, cz = y * vz - z * vy + w * vx, z * vx - x * vz + w * vy, x * vy - y * vx + w * vz
    return {
        "orientation.roll": np.arctan2(m21, m22),
        "orientation.pitch": np.arctan2(-m20, np.sqrt(m00 * m00 + m10 * m10)),
        "orientation.yaw": np.arctan2(m10, m00),
        **{f"angular_velocity.{axis}": part for axis, part in zip("xyz", rate, strict=True)},
        "world_angular_velocity.x": vx + 2 * (y * cz - z * cy),
        "world_angular_velocity.y": vy + 2 * (z * cx - x * cz),
        "world_angular_velocity.z": vz + 2 * (x * cy - y * cx),
        **{f"linear_acceleration.{axis}": part for axis, part in zip("xyz", acceleration, strict=True)},
    }


# Where an Odometry's doubles lie, counted from its pose: 7 of it, 36 of its covariance, 3 of the linear velocity.
_ODOMETRY_FIELDS = {
    **{f"position.{axis}": i for i, axis in enumerate("xyz")},
    **{f"linear_velocity.{axis}": 43 + i for i, axis in enumerate("xyz")},
    **{f"angular_velocity.{axis}": 46 + i for i, axis in enumerate("xyz")},
}


def _odometry_fields(messages: Sequence[bytes], fields: Sequence[str]) -> Block | None:
    """Return stamps, and `fields` (N, n_fields)."""
    rows = _rows(messages)
    if rows is None or any(field not in _ODOMETRY_FIELDS for field in fields):  # an orientation is worked out
        return None
    at = _at_4(_FRAME + 4 + _length(messages[0], _FRAME))
    start = _at_8(at + 4 + _length(messages[0], at))
    places = [_ODOMETRY_FIELDS[field] for field in fields]
    values = _doubles(rows, start, max(places) + 1, places)
    return (_stamps(rows), values) if values is not None and _same(rows, _FRAME, start) else None


def place_blocks(fields: Sequence[str]) -> BlockReader:
    """Return what reads blocks of Odometry as `fields` (N, n_fields)."""
    return _guarded(lambda messages: _odometry_fields(messages, fields))
