"""Reads a robot's contract from its YAML file and checks every entry."""

from __future__ import annotations

import difflib
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.contract import keys
from ssql_ros.contract.commanded import JOINT_PLACES, RELIABILITIES, Commanded, expanded, joint_has_topic
from ssql_ros.contract.contract import Block, Contract, Feature, Input, Observed
from ssql_ros.contract.fields import (
    BY_JOINT,
    COMMAND_TYPES,
    FLOAT,
    FLOATS,
    FUNCTIONS,
    JOINT_STATE,
    MESSAGE_FIELDS,
    POSE,
    TWIST,
    TWIST_PARTS,
    TWIST_STAMPED,
    UNITS,
    field_unit,
)
from ssql_ros.contract.incident_file import read_incident
from ssql_ros.contract.message_kinds import ANY, kinds
from ssql_ros.contract.reward import DISTANCE, FORWARD_VELOCITY, KINDS, DistanceRule, ForwardVelocityRule, RewardRule
from ssql_ros.contract.schema import Section, read_yaml, shown

STAMPS = ("header", "arrival")
LARGEST = 2**18  # numbers of an observation, and of the table of sums of actions or features
TOPIC = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
BLOCKS = ("frame", "past_frames", "past_actions", "derived")


def load_contract(path: str | os.PathLike[str]) -> Contract:
    """Read and check a robot's contract.

    Args:
        path: the YAML file.

    Raises:
        ContractError: what is wrong, in which file, at which key, what was expected and what came.
    """
    return read_contract(read_yaml(Path(path)), str(path))


def read_contract(document: dict[str, Any], path: str) -> Contract:
    """Return the contract that a document says; `path`: where it is from. Raises ContractError, as `load_contract`."""
    top = _section(document, f"{path}: ", keys.TOP)
    control_period = top.seconds("control_period")
    inputs = _read_inputs(top, control_period)
    observed = _read_observed(top, inputs, control_period)
    commanded = _read_commanded(top)
    command_timeout = top.seconds("command_timeout", 2 * control_period)
    if command_timeout < control_period:
        raise top.error("command_timeout", f"expected at least control_period ({control_period:g} s)")
    limits, boxes, balls = read_incident(top, observed)
    contract = Contract(
        path=path,
        robot=top.text("robot"),
        control_period=control_period,
        command_timeout=command_timeout,
        inputs=inputs,
        observed=observed,
        commanded=commanded,
        limits=limits,
        boxes=boxes,
        balls=balls,
        safe_action=_read_safe_action(top, commanded),
        holds_pose=top.raw("safe_action") == "hold",
        reward=_read_reward(top, inputs) if top.has("reward") else None,
        on_incident=top.text("on_incident", keys.ON_INCIDENT, "continue"),
        on_out_of_domain=top.text("on_out_of_domain", keys.ON_OUT_OF_DOMAIN, "warn"),
    )
    if contract.observation_size > LARGEST:
        raise top.error("observation", f"has {contract.observation_size} numbers, at most {LARGEST} are observed")
    if contract.on_incident == "damp":
        _check_damping(top, contract)
    return contract


def _check_damping(top: Section, contract: Contract) -> None:
    """Raise ContractError where it is not known what leaves the robot to its drives' damping."""
    told = contract.commanded
    if told.type in (FLOAT, FLOATS) and not told.by_joint:
        raise top.error("on_incident", f"damp: a {told.type} does not say what zeros mean; expected hold or backup")
    if told.field == "position" and not contract.measures_pose:
        unmeasured = "but the frame does not measure the position of all that is commanded; expected hold or backup"
        raise top.error("on_incident", f"damp follows the measured pose, {unmeasured}")


def _section(mapping: Any, where: str, known: keys.Keys) -> Section:
    return Section(mapping, where, known.required, known.optional)


def _read_inputs(top: Section, control_period: float) -> dict[str, Input]:
    raw = top.raw("inputs")
    names = list(raw) if isinstance(raw, dict) else []
    if wrong := [name for name in names if not isinstance(name, str) or not name]:
        raise top.error("inputs", f"expected names of inputs, got {shown(wrong[0])}")
    section, inputs = Section(raw, top.place("inputs"), names), {}
    for name in names:
        entry = _section(section.raw(name), section.place(name), keys.INPUT)
        kind = entry.text("type", MESSAGE_FIELDS)
        stamped = kind not in kinds() or kinds()[kind].stamped
        stamps = entry.text("stamps", STAMPS) if entry.has("stamps") else STAMPS[not stamped]
        if not stamped and stamps != "arrival":
            raise entry.error("stamps", f"a {kind} has no header: expected arrival, got {stamps!r}")
        max_age = entry.seconds("max_age", 2 * control_period)
        fastest = entry.number("max_speed", positive=True) if entry.has("max_speed") else None
        frame_id = entry.text("frame_id") if entry.has("frame_id") else ""
        if frame_id and kind != POSE:
            raise entry.error("frame_id", f"is for a {POSE}, this is a {kind}")
        inputs[name] = Input(name, entry.text("topic"), kind, max_age, stamps, fastest, frame_id)
    return inputs


def _entries(section: Section, key: str, known: keys.Keys) -> list[Section]:
    return [_section(raw, f"{section.place(key)}[{i}]", known) for i, raw in enumerate(section.items(key))]


def _names_once(entries: list[Section], taken: tuple[str, ...] = ()) -> tuple[str, ...]:
    names = list(taken)
    for entry in entries:
        name = entry.text("name")
        if name in names:
            raise entry.error("name", f"{name!r} is given twice")
        names.append(name)
    return tuple(names[len(taken) :])


def _unit(entry: Section, si_unit: str) -> str:
    unit = entry.text("unit")
    if si_unit == ANY:
        known = [name for name, (base, _) in UNITS.items() if name == base]
        if unit not in known:
            raise entry.error("unit", f"the message does not say: expected one of {', '.join(known)}; got {unit!r}")
        return unit
    if unit not in UNITS or UNITS[unit][0] != si_unit:
        fitting = [name for name, (base, _) in UNITS.items() if base == si_unit]
        raise entry.error("unit", f"the field is in {si_unit}: expected {' or '.join(fitting)}, got {unit!r}")
    return unit


def _sums(entries: list[Section], sources: tuple[str, ...]) -> np.ndarray:
    """Return the weighted sums of `entries` over `sources`, one row an entry."""
    if len(entries) * len(sources) > LARGEST:
        raise entries[0].error("sum", f"{len(entries)} sums of {len(sources)} numbers, at most {LARGEST} in all")
    matrix = np.zeros((len(entries), len(sources)))
    for row, entry in enumerate(entries):
        for name, weight in entry.weights("sum", sources).items():
            matrix[row, sources.index(name)] = weight
    return matrix


def _read_feature(entry: Section, inputs: dict[str, Input]) -> Feature:
    source = entry.text("input", inputs)
    kind, field = inputs[source].type, entry.text("field")
    si_unit, joint = field_unit(kind, field), None
    if si_unit is None:
        known, near = list(MESSAGE_FIELDS[kind]), difflib.get_close_matches(field, MESSAGE_FIELDS[kind], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise entry.error("field", f"expected a field of {kind}: {', '.join(known)}; got {field!r}{hint}")
    unit = _unit(entry, si_unit)
    if inputs[source].type == JOINT_STATE:
        joint = entry.text("joint")
    elif entry.has("joint"):
        raise entry.error("joint", f"only {JOINT_STATE} has joints; {source} is a {inputs[source].type}")
    wrap = entry.flag("wrap")
    if wrap and unit != "rad":
        raise entry.error("wrap", f"only angles in rad are wrapped, this is in {unit}")
    scale, function = entry.number("scale", 1.0), ""
    if entry.has("function"):
        function = entry.text("function", FUNCTIONS)
        if unit != "rad" or wrap:
            raise entry.error("function", f"expected an angle in rad that is not wrapped, this is in {unit}")
    return Feature(entry.text("name"), source, field, unit, joint, scale, wrap, function)


def _read_block(entry: Section) -> Block:
    kind = entry.text("block", BLOCKS)
    past = kind.startswith("past_")
    if past != entry.has("count"):
        raise entry.error("count", f"{'is missing for' if past else 'is not for'} the block {kind!r}")
    return Block(kind, entry.count("count") if past else 1, entry.number("scale", 1.0))


def _read_observed(top: Section, inputs: dict[str, Input], control_period: float) -> Observed:
    section = _section(top.raw("observation"), top.place("observation"), keys.OBSERVATION)
    frame_entries = _entries(section, "frame", keys.FEATURE)
    frame_names = _names_once(frame_entries)
    frame = tuple(_read_feature(entry, inputs) for entry in frame_entries)
    derived = _entries(section, "derived", keys.DERIVED) if section.has("derived") else []
    return Observed(
        trigger=section.text("trigger", sorted({feature.input for feature in frame})),
        max_skew=section.seconds("max_skew", control_period / 4),
        episode_gap=section.seconds("episode_gap", 5 * control_period),
        frame=frame,
        derived_names=_names_once(derived, taken=frame_names),
        derived=_sums(derived, frame_names),
        blocks=(
            tuple(_read_block(entry) for entry in _entries(section, "vector", keys.BLOCK))
            if section.has("vector")
            else (Block("frame", 1, 1.0),)
        ),
        incomplete_history=(
            section.text("incomplete_history", ("flag", "hold")) if section.has("incomplete_history") else "flag"
        ),
    )


def _read_commanded(top: Section) -> Commanded:
    section = _section(top.raw("action"), top.place("action"), keys.ACTION)
    elements = _entries(section, "elements", keys.ELEMENT)
    for entry in elements:
        if entry.number("low") >= entry.number("high"):
            raise entry.error("high", f"expected a number above low ({entry.number('low'):g})")
    names = _names_once(elements)

    command = _section(section.raw("command"), section.place("command"), keys.COMMAND)
    kind, topic = command.text("type", COMMAND_TYPES), command.text("topic")
    by_joint = kind in BY_JOINT or joint_has_topic(kind, topic)
    field, to_si = _read_command_unit(command, kind, by_joint)
    own, other = ("joints", "parts") if by_joint else ("parts", "joints")
    if section.has(other) or not section.has(own):
        wrong = f"a command of type {kind} has {own}, and no {other}"
        if kind == FLOAT and not by_joint:
            wrong += "; with {joint} in its topic, each joint has one"
        raise section.error(other if section.has(other) else own, wrong)
    joints = _entries(section, own, keys.JOINT)
    for entry in joints if kind in (TWIST, TWIST_STAMPED) else ():
        entry.text("name", TWIST_PARTS)
    if kind == FLOAT and not by_joint and len(joints) > 1:
        use = f"use {FLOATS}, or a topic with {{joint}} in it"
        raise section.error("parts", f"a {kind} holds one number, got {len(joints)} parts; {use}")
    matrix = to_si * _sums(joints, names)
    if np.linalg.matrix_rank(matrix) < len(names):
        idle = [name for name, column in zip(names, matrix.T, strict=True) if not column.any()]
        what = f"{', '.join(idle)} moves no joint" if idle else "different actions would give the same joint command"
        raise section.error(own, f"{what}: is a {own[:-1]} missing?")
    joint_names = _names_once(joints)
    _check_topics(command, topic, joint_names)
    told = Commanded(
        names=names,
        low=np.array([entry.number("low") for entry in elements]),
        high=np.array([entry.number("high") for entry in elements]),
        topic=topic,
        field=field,
        joint_names=joint_names,
        offset=to_si * np.array([entry.number("offset", 0.0) for entry in joints]),
        matrix=matrix,
        max_rate=to_si * command.number("max_rate", positive=True) if command.has("max_rate") else math.inf,
        coupled=_read_coupled(joints, joint_names),
        velocity=to_si * _limits(joints, "velocity"),
        acceleration=to_si * _limits(joints, "acceleration"),
        effort=_limits(joints, "effort"),
        type=kind,
        reliability=command.text("reliability", RELIABILITIES, RELIABILITIES[0]),
    )
    _check_joint_limits(joints, told, to_si)
    return told


def _read_coupled(joints: list[Section], taken: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    coupled: dict[str, tuple[str, ...]] = {}
    moved = {name for name, entry in zip(taken, joints, strict=True) if not entry.has("couples")}
    for name, entry in zip(taken, joints, strict=True):
        if not entry.has("couples"):
            continue
        parts = entry.items("couples")
        if len(parts) < 2 or not all(isinstance(part, str) and part for part in parts):
            raise entry.error("couples", f"expected a list of at least 2 names of joints, got {shown(parts)}")
        for part in parts:
            if part in moved:
                raise entry.error("couples", f"{part!r} is moved by two commands")
            moved.add(part)
        coupled[name] = tuple(parts)
    return coupled


def _limits(joints: list[Section], key: str) -> np.ndarray:
    return np.array([entry.number(key, positive=True) if entry.has(key) else math.inf for entry in joints])


def _check_joint_limits(joints: list[Section], told: Commanded, to_si: float) -> None:
    """Raise ContractError where an action would command a joint beyond what it can do."""
    least, most = told.joint_range
    for entry, low, high, fastest in zip(joints, least / to_si, most / to_si, told.fastest, strict=True):
        if entry.has("acceleration") and not math.isfinite(fastest):
            raise entry.error("acceleration", "needs the joint's velocity, or the command's max_rate")
        for key, wrong in (("lower", lambda end, low=low: low < end), ("upper", lambda end, high=high: high > end)):
            if entry.has(key) and wrong(entry.number(key) + (1e-9 if key == "upper" else -1e-9)):
                raise entry.error(key, f"the action's bounds command from {low:g} to {high:g}, beyond it")


def _check_topics(command: Section, topic: str, joints: tuple[str, ...]) -> None:
    """Raise ContractError where a topic with braces does not give each joint one of its own."""
    if "{" not in topic and "}" not in topic:
        return
    if not joint_has_topic(command.text("type"), topic):
        raise command.error("topic", f"{topic!r}: {' and '.join(JOINT_PLACES)} are for a {FLOAT}, other braces are not")
    found = expanded(topic, joints)
    for joint, own in zip(joints, found, strict=True):
        if not TOPIC.fullmatch(own):
            raise command.error("topic", f"{own!r}, of joint {joint!r}, is no name of a topic")
        if found.count(own) > 1:
            raise command.error("topic", f"{own!r} would be that of {found.count(own)} joints")


def _read_command_unit(command: Section, kind: str, by_joint: bool) -> tuple[str, float]:
    """Return which field is commanded, and what offsets and weights are multiplied by to be in SI units."""
    if by_joint:
        field = command.text("field", MESSAGE_FIELDS[JOINT_STATE])
        return field, 1.0 / UNITS[_unit(command, MESSAGE_FIELDS[JOINT_STATE][field])][1]
    for key in ("field", "unit") if kind in (TWIST, TWIST_STAMPED) else ("field",):
        if command.has(key):
            fixed = "its parts are in m/s and rad/s" if key == "unit" else "only commands by joint have one"
            raise command.error(key, f"is not for a {kind}: {fixed}")
    if command.has("unit"):
        _unit(command, ANY)
    return "", 1.0


def _read_safe_action(top: Section, commanded: Commanded) -> np.ndarray:
    if isinstance(top.raw("safe_action"), str):
        if top.text("safe_action", ("hold", "zero")) == "hold" and commanded.field != "position":
            raise top.error("safe_action", f"hold is for commands of positions, these are of {commanded.field}")
        return np.minimum(np.maximum(np.zeros(len(commanded.names)), commanded.low), commanded.high)
    safe_action, size = np.array(top.numbers("safe_action")), len(commanded.names)
    if safe_action.shape != (size,):
        raise top.error("safe_action", f"expected {size} numbers, one per action element, got {len(safe_action)}")
    if np.any(safe_action < commanded.low) or np.any(safe_action > commanded.high):
        raise top.error("safe_action", f"lies outside the action bounds: {safe_action.tolist()}")
    return safe_action


def _read_reward(top: Section, inputs: dict[str, Input]) -> RewardRule:
    place, numbers = top.place("reward"), ("limit", "acceleration_weight", "action_scale")
    kind = Section(top.raw("reward"), place, ("kind",), keys.FORWARD_VELOCITY.required).text("kind", KINDS)
    known = {FORWARD_VELOCITY: keys.FORWARD_VELOCITY, DISTANCE: keys.DISTANCE}[kind]
    section = _section(top.raw("reward"), place, known)
    source = section.text("input", inputs)
    if inputs[source].type != "nav_msgs/msg/Odometry":
        raise section.error("input", f"expected a nav_msgs/msg/Odometry, {source} is a {inputs[source].type}")
    if kind == DISTANCE:
        goal = section.numbers("goal")
        if len(goal) > 3:
            raise section.error("goal", f"expected x, or x and y, or x, y and z, got {len(goal)} numbers")
        return DistanceRule(source, tuple(goal))
    limit, weight, scale = (section.number(name, positive=name != "acceleration_weight") for name in numbers)
    return ForwardVelocityRule(source, section.number("goal"), limit, weight, scale)
