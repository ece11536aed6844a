"""Proposes a contract: which topics are inputs, what of them a frame holds, what the action means, how often.

Rules, each of which a person may overrule in the YAML:

- what stands still is left out, and so is where in the world a robot is that moves by its joints (but for how high),
  or that has a scanner, so that what is learned holds elsewhere too;
- a pose that turns is taken with all of its orientation;
- of an IMU the tilt and its rates; of a JointState positions, and velocities too where no positions are commanded; of
  an odometry the place, the heading and velocities; of a scan the least distance in each sector of 30 degrees;
- the frame begins with the input whose rate is nearest to that of the commands, which gives the control period;
- an action of -1 to 1 spans what was commanded, or the joint's limits where a URDF tells them;
- positions without velocities are observed over the last 0.1 s.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ssql_ros.contract import ContractError
from ssql_ros.contract.commanded import names_joints
from ssql_ros.contract.fields import COMMAND_TYPES, FLOAT, FLOATS, JOINT_STATE, TWIST_PARTS, field_unit
from ssql_ros.contract.message_kinds import ANY
from ssql_ros.drafting.joint_topics import joined_commands
from ssql_ros.drafting.signals import JOINT_FIELDS, JOINT_UNITS, SCAN, Signal
from ssql_ros.drafting.urdf import JointLimits

IMU, ODOMETRY = "sensor_msgs/msg/Imu", "nav_msgs/msg/Odometry"
BATTERY = "sensor_msgs/msg/BatteryState"
# What names a command, and what names one that a shield is still to see.
COMMAND_NAME, RAW_NAME = re.compile(r"cmd|command|control|setpoint|effort_in"), re.compile(r"_raw$|_in$|proposal")
ROOM = 1.1  # of what was commanded, that an action spans
ALIKE = 1.5  # below this ratio two sides are taken for one
SECTOR = 30  # degrees
HISTORY, MOST_HISTORY = 0.1, 5  # s, frames
# With these, what is measured tells how it moves.
_TWIST_NAMES = {"linear.x": "forward", "linear.y": "sideways", "linear.z": "up", "angular.z": "turn"}
_TURNS = ("roll", "pitch", "yaw")
_IMU_FIELDS = {
    "roll": "orientation.roll",
    "pitch": "orientation.pitch",
    "roll_rate": "world_angular_velocity.x",
    "pitch_rate": "world_angular_velocity.y",
}


@dataclass(frozen=True)
class DraftFeature:
    """One number of the frame; `options`: further keys of the YAML; low, high: its range in what was looked at."""

    name: str
    input: str
    field: str
    unit: str
    joint: str | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class DraftInput:
    """One input. `max_age`: s, None: the default of two control periods will do."""

    name: str
    signal: Signal
    max_age: float | None = None


@dataclass(frozen=True)
class DraftPart:
    """One joint, or part of a message, that is commanded: offset + weight * its element of the action.

    Attributes:
        element: name of that.
        why: where the range comes from, in words.
    """

    name: str
    element: str
    offset: float
    weight: float
    safe: float
    why: str


@dataclass(frozen=True)
class Draft:
    """A proposed contract.

    Attributes:
        field, unit: that are commanded of a JointState; empty: of another type.
        history: past frames and actions; 0: none.
        notes: what a person is to look at, a sentence each.
    """

    robot: str
    period: float
    inputs: Sequence[DraftInput]
    trigger: str
    frame: Sequence[DraftFeature]
    command: Signal
    field: str
    unit: str
    parts: Sequence[DraftPart]
    max_rate: float | None
    holds: bool
    history: int
    notes: Sequence[str]


def draft(
    signals: Mapping[str, Signal],
    robot: str,
    command: str | None = None,
    limits: Mapping[str, JointLimits] | None = None,
    topics: Sequence[str] = (),
) -> Draft:
    """Return a proposal.

    Args:
        command: the topic that the driver takes; None: the one that is named like one.
        limits: of joints, from a URDF.
        topics: that may be inputs; empty: all.

    Raises:
        ContractError: there is no command, or several, or nothing to observe; the text says what there is.
    """
    chosen = _command(signals, command)
    limits, notes = limits or {}, list[str]()
    measured = {
        topic: signal
        for topic, signal in signals.items()
        if signal is not chosen and not _is_command(signal) and (not topics or topic in topics)
    }
    if unknown := [topic for topic in topics if topic not in signals]:
        raise ContractError(
            f"--topic {unknown[0]}: is not there, or of no type that can be read; there are: {_listed(signals)}"
        )
    if any(signal.kind == BATTERY for signal in measured.values()) and not topics:
        measured = {topic: signal for topic, signal in measured.items() if signal.kind != BATTERY}
        notes.append("BatteryState is left out: name its topic with --topic where the battery matters to safety.")
    names = {topic: _input_name(topic) for topic in measured}
    kinds = {signal.kind for signal in measured.values()}
    field_, unit, parts, most = _action(chosen, limits, notes)
    known = {joint for signal in measured.values() for joint in signal.joints}
    if chosen.joints and known and (alone := [joint for joint in chosen.joints if joint not in known]):
        notes.append(f"Commanded and not measured: {', '.join(alone)}; say which joints each moves by `couples`.")
    frame: list[DraftFeature] = []
    for topic, signal in measured.items():
        frame += _features(signal, names[topic], kinds, field_)
    frame = _distinct(frame)
    if not frame:
        raise ContractError(
            f"nothing to observe: no number of {_listed(measured)} changes; there are: {_listed(signals)}"
        )
    used = {feature.input for feature in frame}
    period = _rounded_period(chosen.interval)
    trigger = min(
        (topic for topic in measured if names[topic] in used),
        key=lambda topic: (round(abs(math.log(measured[topic].interval / period)), 1), _order(measured[topic])),
    )
    if measured[trigger].interval > 1.4 * period:
        slower = _rounded_period(measured[trigger].interval)
        notes.append(f"Commands come every {period:g} s, but no input is faster than {slower:g} s: that is the period.")
        period = slower
    for topic, signal in measured.items():
        if signal.broken:
            notes.append(f"{topic}: {signal.broken} messages cannot be read, the first: {signal.fault}")
        if names[topic] in used and not signal.stamped:
            notes.append(f"{topic} has no stamps that can be used: when its messages come stands in for that.")
    # What is read by nothing in the frame may still tell what a step is worth.
    inputs = [
        DraftInput(names[topic], signal, _max_age(signal, period))
        for topic, signal in measured.items()
        if names[topic] in used or signal.kind == ODOMETRY
    ]
    positions = {(f.input, f.joint) for f in frame if f.field.startswith(("position", "orientation"))}
    rates = {(f.input, f.joint) for f in frame if "velocity" in f.field}
    still = positions - rates
    return Draft(
        robot=robot,
        period=period,
        inputs=inputs,
        trigger=names[trigger],
        frame=frame,
        command=chosen,
        field=field_,
        unit=unit,
        parts=parts,
        max_rate=most,
        holds=field_ == "position"
        and {part.name for part in parts} <= {f.joint for f in frame if f.field == "position"},
        history=min(max(round(HISTORY / period), 1), MOST_HISTORY) if still else 0,
        notes=notes,
    )


def _listed(signals: Mapping[str, Signal]) -> str:
    return ", ".join(f"{topic} ({signal.kind})" for topic, signal in sorted(signals.items())) or "none"


def _is_command(signal: Signal) -> bool:
    name = signal.topic.lower()
    return signal.kind in COMMAND_TYPES and bool(COMMAND_NAME.search(name) or RAW_NAME.search(name))


def _command(signals: Mapping[str, Signal], wanted: str | None) -> Signal:
    if wanted is not None:
        found = signals.get(wanted) or signals.get(f"/{wanted.lstrip('/')}")
        if found is None or found.kind not in COMMAND_TYPES:
            raise ContractError(
                f"--command {wanted}: expected a topic of {', '.join(COMMAND_TYPES)}; there are: {_listed(signals)}"
            )
        return found
    named = [signal for signal in signals.values() if _is_command(signal)]
    final = [signal for signal in named if not RAW_NAME.search(signal.topic)] or named
    if (joined := joined_commands(final, signals)) is not None:
        return joined
    if len(final) != 1:
        what = "several could be what the driver takes" if final else "none is named like a command (cmd, command)"
        raise ContractError(
            f"which topic does the driver take? {what}: name it with --command; there are: "
            f"{_listed({signal.topic: signal for signal in final} if final else signals)}"
        )
    return final[0]


def _order(signal: Signal) -> int:
    return next((i for i, kind in enumerate((JOINT_STATE, ODOMETRY, IMU)) if kind == signal.kind), 9)


def _input_name(topic: str) -> str:
    name = re.sub(r"\W+", "_", topic.strip("/"))
    return {"odom": "odometry"}.get(name, re.sub(r"_(data|raw|filtered)$", "", name) or name)


def _max_age(signal: Signal, period: float) -> float | None:
    return None if signal.interval <= 1.2 * period else float(f"{2.5 * signal.interval:.2g}")


def _rounded_period(interval: float) -> float:
    """Return a period whose rate is a whole number of Hz, where one is near; else two digits."""
    if not 0.0 < interval < math.inf:
        raise ContractError("the commands' rate cannot be told: expected at least two of them")
    rate = 1.0 / interval
    whole = round(rate)
    return float(f"{1.0 / whole:.6g}") if whole and abs(rate - whole) < 0.03 * rate else float(f"{interval:.2g}")


def _features(signal: Signal, name: str, kinds: set[str], commanded: str) -> list[DraftFeature]:
    """Return what of an input is in the frame; `commanded`: which field of joints, empty: no joints."""
    if signal.kind == JOINT_STATE:
        # A servo is told by where it is and was; encoders mostly differentiate that themselves.
        wanted = JOINT_FIELDS[: 1 if commanded == "position" else 2]
        return [
            _ranged(DraftFeature(f"{joint}{suffix}", name, field_, JOINT_UNITS[field_], joint), signal, (joint, field_))
            for field_, suffix in zip(wanted, ("", "_rate"), strict=False)
            for joint in signal.joints
            if signal.moves((joint, field_))
        ]
    if signal.kind == IMU:
        return [
            _ranged(DraftFeature(title, name, field_, field_unit(IMU, field_) or ""), signal, field_)
            for title, field_ in _IMU_FIELDS.items()
            if signal.moves(field_)
        ]
    if signal.kind == ODOMETRY:
        if IMU in kinds and commanded:
            return []
        return _odometry(signal, name, "" if SCAN in kinds else "z" if JOINT_STATE in kinds else "xyz")
    if signal.kind == SCAN:
        return _sectors(signal, name)
    found, turns = [], tuple(f"orientation.{turn}" for turn in _TURNS)
    # A thing that turns about one axis today turns about another tomorrow: its orientation is taken whole.
    moving = {key for key in signal.values if signal.moves(key)}
    if moving & set(turns):
        moving |= {key for key in signal.values if key in turns}
    for key in signal.values:
        unit = field_unit(signal.kind, str(key)) or ""
        if key in moving:
            plain = re.sub(r"\W+", "_", str(key)).strip("_")
            title = name if plain in ("data", "range") else f"{name}_{plain.removeprefix('data_')}"
            found.append(_ranged(DraftFeature(title, name, str(key), "1" if unit == ANY else unit), signal, key))
    return found


def _odometry(signal: Signal, name: str, places: str) -> list[DraftFeature]:
    plain = {axis: f"position.{axis}" for axis in places}
    plain |= {f"velocity_{axis}": f"linear_velocity.{axis}" for axis in "xyz"}
    plain |= {f"{turn}_rate": f"angular_velocity.{axis}" for turn, axis in zip(_TURNS, "xyz", strict=True)}
    found = [
        _ranged(DraftFeature(title, name, field_, field_unit(ODOMETRY, field_) or ""), signal, field_)
        for title, field_ in plain.items()
        if signal.moves(field_)
    ]
    if len(places) > 1 and signal.moves("orientation.yaw"):
        found += [
            DraftFeature(f"heading_{f}", name, "orientation.yaw", "rad", options={"function": f}, low=-1.0, high=1.0)
            for f in ("sin", "cos")
        ]
    return found


def _sectors(signal: Signal, name: str) -> list[DraftFeature]:
    """Return the least distance in each sector that the scan sees all of; front is 0 degrees."""
    assert signal.view is not None
    low, high = (math.degrees(angle) for angle in signal.view)
    round_it = high - low > 340.0  # the last beam is one short of the first
    whole = "min(-180, 180)" if round_it else f"min({low:.4g}, {high:.4g})"
    found = [DraftFeature(f"{name}_nearest", name, whole, "m")]
    sides = 180 // SECTOR if round_it else math.ceil(max(-low, high) / SECTOR)
    for i in range(-sides + round_it, sides + 1):
        begin, end = (i - 0.5) * SECTOR, (i + 0.5) * SECTOR
        if not round_it:
            begin, end = max(begin, low), min(end, high)
        if end - begin > 1.0:
            angle = abs(i) * SECTOR
            side = "front" if not i else "rear" if angle == 180 else f"{'left' if i > 0 else 'right'}_{angle}"
            found.append(DraftFeature(f"{name}_{side}", name, f"min({begin:.4g}, {end:.4g})", "m"))
    return found


def _ranged(feature: DraftFeature, signal: Signal, key: str | tuple[str, str]) -> DraftFeature:
    low, high = signal.range(key)
    return replace(feature, low=low, high=high)


def _distinct(frame: list[DraftFeature]) -> list[DraftFeature]:
    """Put the input's name before names that several have."""
    names = [feature.name for feature in frame]
    return [replace(f, name=f"{f.input}_{f.name}") if names.count(f.name) > 1 else f for f in frame]


def _action(
    command: Signal, limits: Mapping[str, JointLimits], notes: list[str]
) -> tuple[str, str, list[DraftPart], float | None]:
    if names_joints(command.kind, command.topic):
        told = [name for name in JOINT_FIELDS if any((joint, name) in command.values for joint in command.joints)]
        if not told:
            raise ContractError(f"{command.topic}: expected positions, velocities or efforts, got names alone")
        field_ = next((f for f in told if any(command.moves((j, f)) for j in command.joints)), told[0])
        parts = [
            _part(joint, joint, command.range((joint, field_)), limits.get(joint), field_)
            for joint in command.joints
            if (joint, field_) in command.values
        ]
        fastest = [limits[joint].velocity for joint in command.joints if joint in limits]
        most = min(fastest, default=math.inf) if field_ == "position" else math.inf
        return (
            field_,
            JOINT_UNITS[field_],
            parts,
            None if math.isinf(most) else most,
        )
    if command.kind in (FLOAT, FLOATS):
        keys = sorted(map(str, command.values), key=lambda key: int(re.sub(r"\D", "", key) or 0))
        base = _input_name(command.topic)
        named = [base] if len(keys) == 1 else [f"{base}_{i}" for i in range(len(keys))]
        pairs = zip(named, keys, strict=True)
        return "", "", [_part(each, each, command.range(key), None, "") for each, key in pairs], None
    used = [part for part in TWIST_PARTS if command.moves(part)]
    if not used:
        raise ContractError(f"{command.topic}: expected a twist that changes, but all of its parts stand still")
    notes.append(f"Of {command.topic} {', '.join(used)} are commanded; the other parts are sent as 0.")
    return "", "", [_part(p, _TWIST_NAMES.get(p, p.replace(".", "_")), command.range(p), None, "") for p in used], None


def _part(name: str, element: str, seen: tuple[float, float], limit: JointLimits | None, field_: str) -> DraftPart:
    low, high, why = *seen, f"what was commanded, {seen[0]:.4g} to {seen[1]:.4g}, and a tenth"
    told = limit.of(field_) if limit is not None else (-math.inf, math.inf)
    if all(map(math.isfinite, told)) and told[0] < told[1]:
        (low, high), why = told, "the joint's limits"
    elif field_ != "position" and low < 0.0 < high and max(-low, high) < ALIKE * min(-low, high):
        # To either side alike, so that no action is no motion.
        most = max(-low, high) * ROOM
        low, high = -most, most
    else:
        middle, half = 0.5 * (low + high), 0.5 * (high - low) * ROOM
        low, high = (
            (middle - half, middle + half) if field_ == "position" else (min(low, 0.0) * ROOM, max(high, 0.0) * ROOM)
        )
    offset, weight = float(f"{0.5 * (low + high):.4g}"), float(f"{max(0.5 * (high - low), 1e-3):.4g}")
    safe = 0.0 if field_ == "position" or not offset else min(max(-offset / weight, -1.0), 1.0)
    return DraftPart(name, element, offset, weight, safe, why)
