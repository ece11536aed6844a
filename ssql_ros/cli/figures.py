"""How commands report: a table for people, one JSON line for machines."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ssql_ros

_VERSIONED = ("torch", "numpy", "onnxruntime", "pybullet", "gymnasium", "rosbags", "safetensors")


def command_line() -> str:
    """Return the command as it was typed."""
    return shlex.join(["ssql", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of what figures depend on."""
    found = {"ssql_ros": ssql_ros.__version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json to a command."""
    parser.add_argument("--json", action="store_true", help="end with one line of JSON on stdout, for machines")


def report(figures: Mapping[str, float | None], seed: int, as_json: bool, notes: Sequence[str] = ()) -> None:
    """Print figures by name as a table, or as one line of JSON with seed, versions and command.

    Args:
        notes: sentences printed under the table; they are for people only.
    """
    if as_json:
        numbers = {name: _number(value) for name, value in figures.items()}
        line: dict[str, Any] = {"figures": numbers, "seed": seed, "versions": versions(), "command": command_line()}
        print(json.dumps(line))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"  {name:<{width}}  {'none' if value is None else f'{value:.6g}'}")
    for note in notes:
        print(note)


def _number(value: float | None) -> float | int | None:
    """Return a number that JSON can hold: whole numbers whole, and null for what is not finite, or is none."""
    number = math.nan if value is None else float(value)
    if number != number or number in (float("inf"), float("-inf")):
        return None
    return int(number) if number.is_integer() else number
