"""The JSON Schema of a contract, for editors: made of the same tables that the reader of contracts refuses keys by."""

from __future__ import annotations

import re
from typing import Any

from ssql_ros.contract import keys
from ssql_ros.contract.fields import COMMAND_TYPES, MESSAGE_FIELDS, UNITS

# Which section a key of a section holds, and how: one of it, a list of it, or a mapping of names of one's own to it.
_NESTED: dict[tuple[str, str], tuple[str, tuple[keys.Keys, ...]]] = {
    (keys.TOP.place, "inputs"): ("mapping", (keys.INPUT,)),
    (keys.TOP.place, "observation"): ("one", (keys.OBSERVATION,)),
    (keys.TOP.place, "action"): ("one", (keys.ACTION,)),
    (keys.TOP.place, "incident"): ("list", (keys.LIMIT, keys.BOX, keys.BALL)),
    (keys.TOP.place, "reward"): ("one", (keys.FORWARD_VELOCITY, keys.DISTANCE)),
    (keys.OBSERVATION.place, "frame"): ("list", (keys.FEATURE,)),
    (keys.OBSERVATION.place, "derived"): ("list", (keys.DERIVED,)),
    (keys.OBSERVATION.place, "vector"): ("list", (keys.BLOCK,)),
    (keys.ACTION.place, "elements"): ("list", (keys.ELEMENT,)),
    (keys.ACTION.place, "command"): ("one", (keys.COMMAND,)),
    (keys.ACTION.place, "joints"): ("list", (keys.JOINT,)),
    (keys.ACTION.place, "parts"): ("list", (keys.JOINT,)),
}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) as plain data."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The contract of a robot (ssql_ros)",
        **_section(keys.TOP),
    }


def _section(section: keys.Keys) -> dict[str, Any]:
    return {
        "description": section.description,
        "type": "object",
        "properties": {key.name: _key(section, key) for key in section.keys},
        "required": list(section.required),
        "additionalProperties": False,
    }


def _key(section: keys.Keys, key: keys.Key) -> dict[str, Any]:
    text = f"{key.description} [{key.unit}]" if key.unit else key.description
    told: dict[str, Any] = {"description": text}
    nested = _NESTED.get((section.place, key.name))
    if nested is None:
        return told | _value(section, key)
    how, sections = nested
    inner = [_section(one) for one in sections]
    one = inner[0] if len(inner) == 1 else {"anyOf": inner}
    if how == "one":
        return {**one, **told}
    if how == "mapping":
        return told | {"type": "object", "additionalProperties": one, "minProperties": 1}
    return told | {"type": "array", "items": one, "minItems": 1}


def _value(section: keys.Keys, key: keys.Key) -> dict[str, Any]:
    kind = key.kind
    if key.name == "safe_action":
        numbers = {"type": "array", "items": {"type": "number"}, "minItems": 1}
        return {"anyOf": [numbers, {"enum": ["zero", "hold"]}]}
    if key.name == "kind":
        return {"const": re.sub("`", "", key.description)}
    if key.name == "type":
        return {"enum": list(COMMAND_TYPES if section is keys.COMMAND else MESSAGE_FIELDS)}
    if key.name == "unit":
        return {"enum": list(UNITS)}
    if choices := re.findall("`([^`]+)`", kind):
        return {"enum": choices}
    if kind.startswith("mapping"):
        side = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
        return {"type": "object", "additionalProperties": side if "[low" in kind else {"type": "number"}}
    if kind.startswith("list"):
        item = {"type": "string"} if "names" in kind else {"type": "number"}
        return {"type": "array", "items": item, "minItems": 1}
    if kind.startswith("whole number"):
        return {"type": "integer", "minimum": 1}
    if kind.startswith("true"):
        return {"type": "boolean"}
    if kind.startswith("number"):
        above = "above 0" in kind or "at least control_period" in kind
        return {"type": "number", **({"exclusiveMinimum": 0} if above else {})}
    return {"type": "string", "minLength": 1}
