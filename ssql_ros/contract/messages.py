"""Messages to numbers and back: the one place where a value enters or leaves a ROS message.

The rclpy wheels do not check field types, and a wrong scalar type is corrupted silently on the wire (a NumPy bool
arrives as False, an int in a float field as 5e-324), so every scalar is cast here and nowhere else. Functions take
message objects and fill message objects; none needs a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssql_ros.contract.contract import Contract, Feature, Input
from ssql_ros.contract.fields import FLOAT, FLOATS, FUNCTIONS, JOINT_STATE, TRAJECTORY, TWIST_STAMPED
from ssql_ros.contract.header import check_stamp as check_stamp
from ssql_ros.contract.header import set_stamp as set_stamp
from ssql_ros.contract.header import stamp_of as stamp_of
from ssql_ros.contract.message_kinds import kinds
from ssql_ros.contract.schema import ContractError
from ssql_ros.contract.sensor_values import FIELD_VALUES, ODOMETRY, check_measured, measured, turned
from ssql_ros.contract.serialised import POINT_FIELDS
from ssql_ros.contract.stamped import NANOSECONDS


class JointReader:
    """Reads named joints of a JointState; names are mapped to indices once and again only when they change.

    Args:
        wanted: joint names, in the order in which values are returned.
        fields: JointState field of each.
        what: the topic, for error texts.
        partial: a message may lack joints (several publishers share `joint_states`): their values are NaN.
    """

    def __init__(
        self, wanted: Sequence[str], fields: Sequence[str], what: str, contract_path: str, partial: bool = False
    ) -> None:
        self._wanted, self._fields, self._what, self._path = list(wanted), list(fields), what, contract_path
        self._partial = partial
        self._names: list[str] | None = None
        self._places: list[tuple[str, int]] = []  # field and index of each joint; index -1: the message lacks it

    def __call__(self, message: Any) -> np.ndarray:
        """Return the wanted values, SI units.

        Raises:
            ContractError: a joint is missing or given twice, it has no value in the field, or one that is not finite.
        """
        return np.array(self.values(message))

    def values(self, message: Any) -> list[float]:
        """Return the wanted values as plain floats; raises as a call does."""
        if message.name != self._names:
            self._places = self._find(list(message.name))
            self._names = list(message.name)
        values = []
        for joint, (field, i) in zip(self._wanted, self._places, strict=True):
            if i < 0:
                values.append(math.nan)
                continue
            column = getattr(message, field)
            if i >= len(column):
                raise ContractError(
                    f"{self._what}: {joint} has no {field}: {len(column)} values for {len(message.name)} names; "
                    f"{self._path} reads it"
                )
            values.append(column[i])
            if not math.isfinite(values[-1]):
                raise ContractError(f"{self._what}: {joint} is {values[-1]} in {field}, expected a finite number")
        return values

    def _find(self, names: list[str]) -> list[tuple[str, int]]:
        for joint in self._wanted:
            if joint not in names and not self._partial:
                has = ", ".join(names) or "none"
                raise ContractError(f"{self._what} lacks {joint}; {self._path} lists it; it has: {has}")
            if names.count(joint) > 1:
                raise ContractError(f"{self._what}: {joint} is given {names.count(joint)} times in one message")
        places = [names.index(joint) if joint in names else -1 for joint in self._wanted]
        return list(zip(self._fields, places, strict=True))


def _check_finite(values: Sequence[float] | np.ndarray, names: Sequence[str], what: str) -> None:
    if not all(map(math.isfinite, values)):
        bad = [math.isfinite(value) for value in values].index(False)
        raise ContractError(f"{what}: {names[bad]} is {values[bad]}, expected a finite number")


class InputReader:
    """Reads the features of one contract input from its messages, in the contract's units and order."""

    def __init__(self, contract: Contract, source: Input) -> None:
        features: list[Feature] = [f for f in contract.observed.frame if f.input == source.name]
        self._what = source.topic
        self._names = [feature.name for feature in features]
        self._units = [(feature.factor, feature.wrap, FUNCTIONS.get(feature.function)) for feature in features]
        self._fields = [feature.field for feature in features]
        self._read_joints: JointReader | None = None
        self._turned = source.type == ODOMETRY and any(name.startswith("orientation") for name in self._fields)
        self._read_values: Callable[[Any], list[float]] | None = None
        self._measured = measured(self._fields) if source.type == "sensor_msgs/msg/Imu" else []
        self._frame_id = source.frame_id
        if source.type == JOINT_STATE:
            joints = [feature.joint or "" for feature in features]
            self._read_joints = JointReader(joints, self._fields, source.topic, contract.path, partial=True)
        elif source.type in FIELD_VALUES:
            self._values_of = FIELD_VALUES[source.type]
        else:
            self._read_values = kinds()[source.type].reader(self._fields, source.topic)

    def __call__(self, message: Any) -> np.ndarray:
        """Return the features (n_features of this input,); NaN: the message lacks this joint, another may have it.

        Raises:
            ContractError: names the topic and the field or joint that has no value, two, or one that is not finite.
        """
        if self._read_joints is not None:
            values = self._read_joints.values(message)
        elif self._read_values is not None:
            values = self._read_values(message)
            _check_finite(values, self._names, self._what)
        else:
            check_measured(message, self._measured, self._what)
            if self._frame_id and message.header.frame_id != self._frame_id:
                given = message.header.frame_id
                raise ContractError(f"{self._what}: expected a pose in frame {self._frame_id!r}, got one in {given!r}")
            by_field = self._values_of(message, self._what)
            if self._turned:
                by_field |= turned(message.pose.pose.orientation, self._what)
            values = [by_field[field] for field in self._fields]
            _check_finite(values, self._names, self._what)
        return np.array(
            [
                scaled(factor * value, wrap, function)
                for (factor, wrap, function), value in zip(self._units, values, strict=True)
            ]
        )


def field_reader(kind: str, fields: Sequence[str], what: str) -> Callable[[Any], np.ndarray]:
    """Return what reads `fields` (see contract.MESSAGE_FIELDS) of messages of type `kind`, SI units.

    The function raises ContractError where a value is not finite. Joints are read by `JointReader`.
    """
    values_of = FIELD_VALUES[kind]

    def read(message: Any) -> np.ndarray:
        by_field = values_of(message, what)
        values = [by_field[field] for field in fields]
        _check_finite(values, fields, what)
        return np.array(values)

    return read


def scaled(value: float, wrap: bool, function: Callable[[float], float] | None) -> float:
    """Return a feature's number of a field's value times its factor."""
    if function is not None:
        return function(value)
    return wrap_angle(value) if wrap else value


def wrap_angle(angle: float) -> float:
    """Return an angle in rad brought to [-pi, pi); one already there is unchanged to the last bit."""
    return angle if -math.pi <= angle < math.pi else (angle + math.pi) % (2 * math.pi) - math.pi


class Proposed(NamedTuple):
    """What a Proposal says, each (n_action,): see Proposal.msg. None: it does not say."""

    action: np.ndarray
    mean: np.ndarray
    std: np.ndarray | None
    low: np.ndarray | None
    high: np.ndarray | None
    squashed: bool


class CommandReader:
    """Reads an action vector from what controllers send: joints by name, parts of a Twist, numbers, or a Proposal."""

    def __init__(self, contract: Contract, what: str) -> None:
        self._contract, self._what = contract, what
        told = contract.commanded
        self._parts: Callable[[Any], list[float]] | None = None
        if not told.by_joint:
            whole = {FLOAT: ["data"], FLOATS: [f"data[{i}]" for i in range(len(told.joint_names))]}
            self._parts = kinds()[told.type].reader(whole.get(told.type, told.joint_names), what)
        self._joints = JointReader(told.joint_names, [told.field] * len(told.joint_names), what, contract.path)

    def joint_command(self, message: Any) -> np.ndarray:
        """Return the commanded joint values (n_joint,), or parts of a Twist, SI units, in the contract's order.

        Args:
            message: of the contract's type of command, as `serialised.reader_of` or `CommandAssembly` gives it.

        Raises:
            ContractError: a joint is missing, the length is wrong, or a value is not finite.
        """
        if self._parts is None:
            return self._joints(message)
        values = self._parts(message)
        _check_finite(values, self._contract.commanded.joint_names, self._what)
        return np.array(values)

    def joint_state(self, message: Any) -> np.ndarray:
        """Return the action (n_action,) of a command of the contract's type; not clipped."""
        return self._contract.action_of(self.joint_command(message))

    def array_command(self, message: Any) -> np.ndarray:
        """Return the commanded joint values of a Float64MultiArray, in the order of the contract's joints."""
        names = self._contract.commanded.joint_names
        values = np.asarray(message.data, dtype=float)
        if values.shape != (len(names),):
            raise ContractError(f"{self._what}: expected {len(names)} values, one per joint, got {len(values)}")
        _check_finite(values, names, self._what)
        return values

    def proposal(self, message: Any) -> Proposed:
        """Return what a Proposal says. Its context is the proposer's own business.

        Raises:
            ContractError: made for another contract, a wrong length, a value that is not finite, a negative std, a
                support that has no inside, a squashed distribution without mean or std.
        """
        contract, names = self._contract, self._contract.commanded.names
        if message.contract_id and message.contract_id != contract.id:
            raise ContractError(f"{self._what}: made for contract {message.contract_id}, this is {contract.id}")
        vectors = {}
        for field in ("action", "mean", "std", "low", "high"):
            vector = np.asarray(getattr(message, field), dtype=float)
            if vector.shape != (len(names),) and (field == "action" or vector.size):
                raise ContractError(f"{self._what}: expected {len(names)} values in {field}, got {len(vector)}")
            _check_finite(vector, names, f"{self._what}: {field}")
            vectors[field] = vector
        if (vectors["std"] < 0).any():
            raise ContractError(f"{self._what}: std has a negative value")
        if vectors["low"].size != vectors["high"].size or (vectors["low"] > vectors["high"]).any():
            raise ContractError(f"{self._what}: expected low and high with low at most high")
        squashed = bool(message.squashed)
        if squashed and not (vectors["mean"].size and vectors["std"].size):
            raise ContractError(f"{self._what}: squashed, but mean or std is empty")
        mean = vectors["mean"] if vectors["mean"].size else vectors["action"]
        std, low, high = (vectors[field] if vectors[field].size else None for field in ("std", "low", "high"))
        return Proposed(vectors["action"], mean, std, low, high, squashed)


def fill_joint_command(message: Any, contract: Contract, joint_command: np.ndarray, stamp: int) -> Any:
    """Fill a message of the contract's type of command with one (n_joint,) in SI units and return it.

    Where each joint has a topic of its own, it is that joint's (1,).
    """
    told, values = contract.commanded, _floats(joint_command)
    if told.stamped:
        set_stamp(message, stamp)
    if told.type == JOINT_STATE:
        message.name = list(told.joint_names)
        setattr(message, told.field, values)
    elif told.type == TRAJECTORY:
        # Stamp 0: it begins when it comes. Reached a period later, when the next point is there.
        message.joint_names = list(told.joint_names)
        (point,) = message.points
        setattr(point, POINT_FIELDS[told.field], values)
        sec, nanosec = divmod(round(contract.control_period * NANOSECONDS), NANOSECONDS)
        point.time_from_start.sec, point.time_from_start.nanosec = sec, nanosec
    elif told.type in (FLOAT, FLOATS):
        message.data = values[0] if told.type == FLOAT else values
    else:
        twist = message.twist if told.type == TWIST_STAMPED else message
        for part, value in zip(told.joint_names, values, strict=True):
            vector, _, axis = part.partition(".")
            setattr(getattr(twist, vector), axis, value)
    return message


def fill_joint_state(message: Any, stamp: int, names: Sequence[str], **fields: np.ndarray) -> Any:
    """Fill a JointState with position, velocity and effort arrays (n_joint,) in SI units and return it."""
    set_stamp(message, stamp)
    message.name = list(names)
    for field, values in fields.items():
        setattr(message, field, _floats(values))
    return message


def fill_vector3(vector: Any, values: Sequence[float]) -> None:
    """Fill a geometry_msgs Vector3 or Point."""
    vector.x, vector.y, vector.z = (float(value) for value in values)


def fill_quaternion(quaternion: Any, xyzw: Sequence[float]) -> None:
    """Fill a geometry_msgs Quaternion from (x, y, z, w)."""
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = (float(value) for value in xyzw)


def _floats(values: np.ndarray) -> list[float]:
    return np.asarray(values, dtype=float).tolist()


def fill(message: Any, **fields: Any) -> Any:
    """Fill fields of one of this package's messages, each cast to the type that its definition gives it.

    Args:
        fields: values by field name. NumPy scalars, Python numbers and arrays are all right; what the field's type
            cannot hold is not.

    Raises:
        ContractError: a field that the message does not have, or a value that its type cannot hold.
    """
    types = message.get_fields_and_field_types()
    for name, value in fields.items():
        if name not in types:
            raise ContractError(f"{type(message).__name__} has no field {name!r}")
        setattr(message, name, _cast(value, types[name], f"{type(message).__name__}.{name}"))
    return message


_NUMBERS = (int, float, np.integer, np.floating, np.bool_)
_INTEGER_BITS = {f"{sign}int{bits}": (sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)}
_NUMERIC = frozenset(("double", "float", "boolean", *_INTEGER_BITS))


def _cast(value: Any, kind: str, where: str) -> Any:
    if kind.startswith("sequence<"):
        items = value.tolist() if isinstance(value, np.ndarray) else value
        return [_cast(item, kind[len("sequence<") : -1], where) for item in items]
    if kind == "string":
        return str(value)
    if kind not in _NUMERIC:
        raise ContractError(f"{where}: a {kind} is not filled here")
    # Text is no number, though float() and bool() would take it.
    if not isinstance(value, _NUMBERS):
        raise ContractError(f"{where}: expected a number, got {value!r}")
    if kind in ("double", "float"):
        return float(value)
    if kind == "boolean":
        return bool(value)
    sign, bits = _INTEGER_BITS[kind]
    low, high = (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    # By way of Python's own number: NumPy's do not compare with bounds that they cannot hold.
    number = value.item() if isinstance(value, np.generic) else value
    if not low <= number <= high or number != int(number):
        raise ContractError(f"{where}: expected a whole number from {low} to {high}, got {value!r}")
    return int(number)
