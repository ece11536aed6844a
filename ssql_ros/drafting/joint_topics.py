"""Finds joints that are each commanded on a Float64 topic of its own, as ros_control's joint controllers take them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ssql_ros.contract.commanded import JOINT_PLACES, expanded
from ssql_ros.contract.fields import BY_JOINT, FLOAT
from ssql_ros.drafting.signals import JOINT_FIELDS, Signal


def joined_commands(candidates: Sequence[Signal], signals: Mapping[str, Signal]) -> Signal | None:
    """Return one signal of all candidates, with `{joint}` or `{joint_lower}` in its topic; None: they are not alike.

    Args:
        candidates: what may be the robot's commands.
        signals: all topics; where one tells positions, its joints' names tell what of a topic is a name.
    """
    if len(candidates) < 2 or {signal.kind for signal in candidates} != {FLOAT}:
        return None
    measured = [joint for signal in signals.values() if signal.kind in BY_JOINT for joint in signal.joints]
    topics = [signal.topic for signal in candidates]
    template = _by_names(topics, measured) or _by_ends(topics)
    if template is None:
        return None
    pattern = re.compile(re.sub(r"\\\{joint(_lower)?\\\}", r"(\\w+)", re.escape(template)))
    found = [pattern.fullmatch(topic) for topic in topics]
    if not all(found):
        return None
    known = {topic: joint for joint in measured for topic in expanded(template, [joint])}
    joints = [known.get(topic, match[1]) for topic, match in zip(topics, found, strict=True) if match]
    # Joints in the order in which the robot measures them, those that it does not measure behind.
    order = {joint: i for i, joint in enumerate(measured)}
    pairs = sorted(zip(joints, candidates, strict=True), key=lambda pair: (order.get(pair[0], len(order)), pair[0]))
    field = next((name for name in JOINT_FIELDS if name in template), JOINT_FIELDS[0])
    one = pairs[0][1]
    return Signal(
        template,
        FLOAT,
        one.times,
        one.stamps,
        {(joint, field): signal.values.get("data", []) for joint, signal in pairs},
        [joint for joint, _ in pairs],
        broken=sum(signal.broken for signal in candidates),
        fault=next((signal.fault for signal in candidates if signal.fault), ""),
    )


def _by_names(topics: Sequence[str], measured: Sequence[str]) -> str | None:
    """Return the template in which most of the topics have a measured joint's name; None: none has one."""
    found: list[str] = []
    for topic in topics:
        for place, name in ((place, joint) for joint in measured for place in JOINT_PLACES):
            written = name if place == JOINT_PLACES[0] else name.lower()
            # A name is whole: it does not go on with a letter or a number, as shoulder1 would after shoulder.
            found += [
                topic[: at.start()] + place + topic[at.end() :]
                for at in re.finditer(rf"(?<![A-Za-z0-9]){re.escape(written)}(?![A-Za-z0-9])", topic)
            ]
    return max(dict.fromkeys(found), key=found.count, default=None)


def _by_ends(topics: Sequence[str]) -> str | None:
    """Return the template of topics that differ in one part of their path."""
    parts = [topic.split("/") for topic in topics]
    if len({len(part) for part in parts}) > 1:
        return None
    apart = [i for i, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    if len(apart) != 1:
        return None
    # What they end in alike, word by word, is no part of a name.
    words = [part[apart[0]].split("_") for part in parts]
    alike = 0
    while alike + 1 < min(map(len, words)) and len({word[-1 - alike] for word in words}) == 1:
        alike += 1
    tail = "".join(f"_{word}" for word in words[0][len(words[0]) - alike :])
    template = list(parts[0])
    template[apart[0]] = JOINT_PLACES[0] + tail
    return "/".join(template)
