"""Writes a draft as the YAML of a contract, with a comment wherever a person may want something else."""

from __future__ import annotations

from collections.abc import Sequence

from ssql_ros.contract.commanded import names_joints
from ssql_ros.drafting.draft import Draft, DraftFeature, DraftPart
from ssql_ros.drafting.rules import Rule


def contract_text(made: Draft, rules: Sequence[Rule], source: str) -> str:
    """Return the YAML.

    Args:
        source: what it was drafted from, in words.
    """
    by_joint = names_joints(made.command.kind, made.command.topic)
    lines = [
        f"# The contract of {made.robot}, drafted by `ssql contract init` from {source}. Read it before you trust it.",
        "# docs/how_to/shield_my_controller.md says what the keys mean; `ssql contract schema` helps editors.",
        *(f"# Note: {note}" for note in made.notes),
        "",
        f"robot: {made.robot}",
        f"control_period: {made.period:g}   # s, one command every period",
        f"command_timeout: {2 * made.period:g}   # s, the driver must hold safe_action when no command came so long",
        "",
        "inputs:   # max_age: s, by default two control periods; topics are relative and can be remapped",
        *(_input(made, i) for i in range(len(made.inputs))),
        "",
        "observation:",
        f"  trigger: {made.trigger}   # each new message of it begins a frame",
        "  frame:   # in the comments the range in what was recorded",
        *(_feature(feature) for feature in made.frame),
        *_vector(made),
        "",
        "action:   # the action vector has no unit; -1 to 1 spans what each part may be told",
        "  elements:",
        *(f"    - {{name: {part.element}, low: -1.0, high: 1.0}}" for part in made.parts),
        _command(made),
        f"  {'joints' if by_joint else 'parts'}:   # what is commanded: offset + sum",
        *(_part(part) for part in made.parts),
        "",
        "# What must not happen. I(s) = l(s) > 0, where the margin l(s) is the largest excess over a limit.",
        "incident:",
        *(_rule(rule) for rule in rules),
        "",
        *_safe(made),
        "",
        "# Once it is inside: hold safe_action (or: damp, backup) until ~/reset_fault. Without it decisions go on.",
        "# on_incident: hold",
        "",
        "# reward: what a step is worth; without it a policy learns to do what was done, more safely.",
    ]
    return "\n".join(lines) + "\n"


def _relative(topic: str) -> str:
    return topic.lstrip("/")


def _input(made: Draft, at: int) -> str:
    told = made.inputs[at]
    parts = [f"topic: {_relative(told.signal.topic)}", f"type: {told.signal.kind}"]
    if told.max_age is not None:
        parts.append(f"max_age: {told.max_age:g}")
    if not told.signal.stamped:
        parts.append("stamps: arrival")
    unused = "" if any(feature.input == told.name for feature in made.frame) else "; for a reward alone"
    return f"  {told.name}: {{{', '.join(parts)}}}   # {1.0 / told.signal.interval:.1f} Hz{unused}"


def _feature(feature: DraftFeature) -> str:
    field = f'"{feature.field}"' if "(" in feature.field or "[" in feature.field else feature.field
    parts = [f"name: {feature.name}", f"input: {feature.input}", f"field: {field}"]
    parts += [f"joint: {feature.joint}"] if feature.joint is not None else []
    unit = f'"{feature.unit}"' if feature.unit == "1" else feature.unit
    parts += [f"unit: {unit}", *(f"{key}: {value}" for key, value in feature.options.items())]
    known = "" if feature.low != feature.low else f"   # {feature.low:.4g} to {feature.high:.4g}"
    return f"    - {{{', '.join(parts)}}}{known}"


def _vector(made: Draft) -> list[str]:
    if not made.history:
        return ["  vector:", "    - {block: frame}"]
    return [
        "  vector:   # not all velocities are measured: the past tells them, and how commands are followed",
        "    - {block: frame}",
        f"    - {{block: past_frames, count: {made.history}}}",
        f"    - {{block: past_actions, count: {made.history}}}",
    ]


def _command(made: Draft) -> str:
    topic = _relative(made.command.topic)
    parts = [f'topic: "{topic}"' if "{" in topic else f"topic: {topic}", f"type: {made.command.kind}"]
    if made.field:
        parts += [f"field: {made.field}", f"unit: {made.unit}"]
    if made.max_rate is not None:
        parts.append(f"max_rate: {made.max_rate:g}")
    return f"  command: {{{', '.join(parts)}}}"


def _part(part: DraftPart) -> str:
    return (
        f"    - {{name: {part.name}, offset: {part.offset:g}, sum: {{{part.element}: {part.weight:g}}}}}   # {part.why}"
    )


def _rule(rule: Rule) -> str:
    limits = [
        f"{name}: {value:g}" for name, value in (("above", rule.above), ("below", rule.below)) if value is not None
    ]
    unit = '"1"' if rule.feature.options or rule.feature.unit == "1" else rule.feature.unit
    return f"  - {{feature: {rule.feature.name}, {', '.join(limits)}, unit: {unit}}}"


def _safe(made: Draft) -> list[str]:
    if made.holds:
        return [
            "# What the robot is told when nothing can be decided on: to stay in the pose that it is in.",
            "safe_action: hold",
        ]
    numbers = ", ".join(f"{part.safe:g}" for part in made.parts)
    what = "its middle pose" if made.field == "position" else "nothing that moves it"
    return [f"# What the robot is told when nothing can be decided on: {what}.", f"safe_action: [{numbers}]"]
