"""Units by range: what is measured beside what the contract says can be, and which mistake would explain it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssql_ros.contract.contract import Contract, Input
from ssql_ros.contract.fields import JOINT_STATE
from ssql_ros.contract.messages import InputReader
from ssql_ros.contract.schema import ContractError
from ssql_ros.contract.serialised import Quaternion
from ssql_ros.drivers.findings import Finding, Level

TURN = 5.0  # rad or rad/s, above which what would be well in degrees is taken for that
TURNS = 4 * math.pi  # rad, beyond which no joint that nobody limits is expected
FAST = 100.0  # rad/s, beyond which none moves
SLACK = 0.1  # share of a joint's range, and rad, by which it may be beyond that
GRAVITY = 9.81


@dataclass
class Measured:
    """Extremes of what one input measured, before the contract's units: joints by name, and its newest message.

    Attributes:
        joints: least and largest position, velocity and effort, by joint and field.
    """

    names: list[str] = field(default_factory=list)
    joints: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    newest: Any = None

    def hear(self, message: Any) -> None:
        """Take in a parsed message."""
        self.newest = message
        if not hasattr(message, "effort"):
            return
        for at, name in enumerate(message.name):
            if name not in self.names:
                self.names.append(name)
            for column in ("position", "velocity", "effort"):
                values = getattr(message, column)
                if at < len(values) and math.isfinite(values[at]):
                    low, high = self.joints.get((name, column), (math.inf, -math.inf))
                    self.joints[name, column] = min(low, values[at]), max(high, values[at])


def unit_findings(contract: Contract, source: Input, measured: Measured, frame: np.ndarray) -> list[Finding]:
    """Return what an input's values say of its units. `frame` (n_frame,): the newest whole one; NaN: there is none."""
    if source.type == JOINT_STATE:
        return _of_joints(contract, source, measured.joints)
    found = _of_quaternion(contract, source, measured.newest, frame)
    return found + _of_gravity(contract, source, measured.newest)


def _inside(value: tuple[float, float], low: float, high: float, factor: float = 1.0) -> bool:
    slack = max(SLACK, SLACK * (high - low))
    return low - slack <= factor * value[0] and factor * value[1] <= high + slack


def _ranges(contract: Contract, source: Input) -> dict[tuple[tuple[str, ...], str], tuple[float, float]]:
    """Return what the contract says of joints that are read: least and largest value, by joints and field.

    Of joints that one command moves together the sum is limited; of those that none moves nothing is known.
    """
    told = contract.commanded
    low, high = (bound.tolist() for bound in contract.joint_limits)
    velocity = np.broadcast_to(told.velocity, len(told.joint_names)).tolist()
    effort = np.broadcast_to(told.effort, len(told.joint_names)).tolist()
    found: dict[tuple[tuple[str, ...], str], tuple[float, float]] = {}
    for i, joints in enumerate(told.moved):
        if told.field == "position":
            found[joints, "position"] = low[i], high[i]
        # A joint may be pushed faster and harder than its motor can.
        found[joints, "velocity"] = -2.0 * velocity[i], 2.0 * velocity[i]
        found[joints, "effort"] = -2.0 * effort[i], 2.0 * effort[i]
    read = {(f.joint, f.field) for f in contract.observed.frame if f.input == source.name}
    limited = {(joint, column) for joints, column in found for joint in joints}
    for joint, column in read - limited:
        most = {"position": TURNS, "velocity": FAST}.get(column, math.inf)
        found[(str(joint),), column] = -most, most
    return {
        key: (max(least, -FAST) if key[1] == "velocity" else least, min(most, FAST) if key[1] == "velocity" else most)
        for key, (least, most) in found.items()
        if all((joint, key[1]) in read for joint in key[0])
    }


def _of_joints(
    contract: Contract, source: Input, heard: Mapping[tuple[str, str], tuple[float, float]]
) -> list[Finding]:
    degrees: list[str] = []
    beyond: list[str] = []
    largest = 0.0  # of those that would be inside their limits in degrees
    for (joints, column), (low, high) in _ranges(contract, source).items():
        values = [heard[joint, column] for joint in joints if (joint, column) in heard]
        if len(values) != len(joints):
            continue
        value = sum(least for least, _ in values), sum(most for _, most in values)
        if _inside(value, low, high):
            continue
        name = f"{'+'.join(joints)} {column} {value[0]:.4g}" + (f" to {value[1]:.4g}" if value[0] != value[1] else "")
        as_degrees = column != "effort" and _inside(value, low, high, math.pi / 180.0)
        if as_degrees:
            largest = max(largest, abs(value[0]), abs(value[1]))
        (degrees if as_degrees else beyond).append(f"{name} (expected {low:.3g} to {high:.3g})")
    if largest < TURN:  # a joint somewhat beyond its limits is no joint in degrees
        degrees, beyond = [], degrees + beyond
    found = []
    if degrees:
        fix = "let the driver publish rad and rad/s, as REP-103 has it"
        text = f"in degrees? {'; '.join(degrees[:3])}{_more(degrees)}"
        found.append(Finding(Level.ERROR, "degrees", source.topic, text, fix))
    if beyond:
        fix = "the joint's zero, sign or unit in the driver, or offset and limits of it in the contract"
        text = f"beyond what any command means: {'; '.join(beyond[:3])}{_more(beyond)}"
        found.append(Finding(Level.WARNING, "range", source.topic, text, fix))
    return found


def _more(texts: list[str]) -> str:
    return f"; and {len(texts) - 3} more" if len(texts) > 3 else ""


def _of_quaternion(contract: Contract, source: Input, message: Any, frame: np.ndarray) -> list[Finding]:
    """Return that quaternions are w first, where that alone takes the robot out of its failure set."""
    turned = any(f.input == source.name and f.field.startswith("orientation.") for f in contract.observed.frame)
    if not turned or np.isnan(frame).any() or contract.margin(frame)[0] <= 0.0:
        return []
    read, places = InputReader(contract, source), [f.input == source.name for f in contract.observed.frame]
    otherwise = frame.copy()
    try:
        otherwise[places] = read(_w_last(message))
    except ContractError:
        return []
    if contract.margin(otherwise)[0] > 0.0:
        return []
    text = f"quaternion with w first? {contract.margin(frame)[1]}; with w last: {contract.margin(otherwise)[1]}"
    fix = "let the driver fill x, y, z, w by name (geometry_msgs/Quaternion), or look how the sensor is mounted"
    return [Finding(Level.ERROR, "w_first", source.topic, text, fix)]


def _w_last(message: Any) -> Any:
    """Return a parsed message whose quaternion is as if w had been put first into its fields."""
    if hasattr(message, "orientation"):
        q = message.orientation
        return message._replace(orientation=Quaternion(q.y, q.z, q.w, q.x))
    if hasattr(message.pose, "pose"):
        q = message.pose.pose.orientation
        pose = message.pose.pose._replace(orientation=Quaternion(q.y, q.z, q.w, q.x))
        return message._replace(pose=message.pose._replace(pose=pose))
    q = message.pose.orientation
    return message._replace(pose=message.pose._replace(orientation=Quaternion(q.y, q.z, q.w, q.x)))


def _of_gravity(contract: Contract, source: Input, message: Any) -> list[Finding]:
    """Return that an accelerometer measures in g, where what holds the robot up reads as about 1."""
    read = any(f.input == source.name and f.field.startswith("linear_acc") for f in contract.observed.frame)
    if not read or not hasattr(message, "linear_acceleration"):
        return []
    length = math.hypot(*message.linear_acceleration)
    if not 0.8 < length < 1.2:
        return []
    text = f"acceleration of {length:.2f} m/s^2 where a robot at rest has {GRAVITY}: in g?"
    return [Finding(Level.WARNING, "gravity", source.topic, text, "let the driver publish m/s^2 (REP-145)")]
