"""What every target of fuzzing is, and a contract with an input of every type of message that some of them use."""

from __future__ import annotations

from random import Random
from typing import Any

from ssql_ros.contract import ContractError
from ssql_ros.contract.fields import JOINT_STATE, MESSAGE_FIELDS, UNITS, field_unit
from ssql_ros.contract.message_kinds import ANY

ROBOT = "boat"  # the smallest of those that are shipped, with a critic and a policy


class Target:
    """One thing that is read from outside.

    Attributes:
        errors: what it raises for what it refuses; a text, and no other way to end.
    """

    errors: tuple[type[Exception], ...] = (ContractError,)

    def make(self, rng: Random) -> Any:
        """Return a wrong input."""
        raise NotImplementedError

    def run(self, given: Any) -> bool:
        """Read it; return whether it was accepted. Raises one of `errors` where it says what is wrong."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove what was made on disk."""


def everything() -> dict[str, Any]:
    """Return the document of a contract with an input of every type of message."""
    inputs: dict[str, Any] = {}
    frame: list[dict[str, Any]] = []
    for i, kind in enumerate(MESSAGE_FIELDS):
        inputs[f"input_{i}"] = {"topic": f"topic_{i}", "type": kind, "max_age": 1.0}
        for k, field in enumerate(list(MESSAGE_FIELDS[kind])[:3]):
            named = field.replace("[i]", "[0]").replace("(from, to)", "(-30, 30)")
            unit = field_unit(kind, named) or ANY
            entry = {"name": f"f{i}_{k}", "input": f"input_{i}", "field": named}
            entry["unit"] = "m" if unit == ANY else next(name for name, (si, _) in UNITS.items() if si == unit)
            frame.append(entry | ({"joint": "hip"} if kind == JOINT_STATE else {}))
    return {
        "robot": "anything",
        "control_period": 0.02,
        "inputs": inputs,
        "observation": {"trigger": "input_0", "frame": frame},
        "action": {
            "elements": [{"name": "x", "low": -1.0, "high": 1.0}],
            "command": {"topic": "joint_commands", "type": JOINT_STATE, "field": "position", "unit": "rad"},
            "joints": [{"name": "hip", "sum": {"x": 1.0}}],
        },
        "incident": [{"feature": frame[0]["name"], "above": 1e6, "unit": frame[0]["unit"]}],
        "safe_action": [0.0],
    }
