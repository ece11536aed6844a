"""What each setting of an algorithm is, from the docstrings that declare them: for --settings and the reference."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, fields
from typing import Any

from ssql_ros.training.settings import expected_of

ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.*)")


@dataclass(frozen=True)
class Described:
    """One setting.

    Attributes:
        default: the papers'; see `settings_of` for a robot's.
        expected: its type and bounds, in words.
        text: what it is, with its unit.
    """

    name: str
    default: Any
    expected: str
    text: str


def described(kind: type[Any]) -> list[Described]:
    """Return the settings of a dataclass, in the order in which they are declared.

    Raises:
        ValueError: a setting that no docstring describes.
    """
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts |= _attributes(base)
    found = []
    for field in fields(kind):
        if field.name not in texts:
            raise ValueError(
                f"{kind.__name__}.{field.name}: expected a line under Attributes of its docstring, got none"
            )
        expected = expected_of(field.name, field.default)
        found.append(Described(field.name, field.default, expected, texts[field.name]))
    return found


def _attributes(kind: type) -> dict[str, str]:
    """Return what a class's own docstring says under Attributes, by name; names before one colon share a text."""
    lines = iter(inspect.cleandoc(kind.__dict__.get("__doc__") or "").splitlines())
    texts: dict[str, str] = {}
    names: list[str] = []
    if "Attributes:" not in lines:
        return texts
    for line in lines:
        if not line.startswith("    "):
            break
        entry = ENTRY.fullmatch(line.strip()) if not line.startswith("     ") else None
        if entry:
            names, text = entry["names"].split(", "), entry["text"]
        else:
            text = line.strip()
        for name in names:
            texts[name] = text if entry else f"{texts[name]} {text}"
    return texts
