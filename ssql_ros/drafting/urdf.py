"""What a URDF says of a robot's joints: limits of position, velocity and effort."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from ssql_ros.contract import ContractError

MOVING = ("revolute", "continuous", "prismatic")


@dataclass(frozen=True)
class JointLimits:
    """One joint: rad, rad/s and N m, or m, m/s and N of a prismatic one; inf: not said."""

    kind: str
    lower: float = -math.inf
    upper: float = math.inf
    velocity: float = math.inf
    effort: float = math.inf

    def of(self, field: str) -> tuple[float, float]:
        """Return the least and the largest position, velocity or effort."""
        if field == "position":
            return self.lower, self.upper
        most = self.velocity if field == "velocity" else self.effort
        return -most, most


def read_urdf(path: Path) -> dict[str, JointLimits]:
    """Return the joints that move, by name.

    Raises:
        ContractError: the file cannot be read, is no XML, or has a limit that is no number.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ContractError(f"{path}: cannot be read as a URDF: {error}") from error
    if root.tag != "robot":
        raise ContractError(f"{path}: expected a URDF, whose first element is <robot>, got <{root.tag}>")
    found = {}
    for joint in root.iter("joint"):
        kind, name, limit = joint.get("type", ""), joint.get("name", ""), joint.find("limit")
        if kind not in MOVING or joint.find("mimic") is not None:
            continue
        told = {} if limit is None else limit.attrib
        ends = ("velocity", "effort") if kind == "continuous" else ("lower", "upper", "velocity", "effort")
        try:
            numbers = {key: float(told[key]) for key in ends if key in told}
        except ValueError as error:
            raise ContractError(f"{path}: joint {name}: limit: expected numbers, got {dict(told)}: {error}") from error
        # An effort or a velocity of 0 is how exporters say that they do not know it.
        numbers = {key: value for key, value in numbers.items() if key in ("lower", "upper") or value > 0.0}
        found[name] = JointLimits(kind, **numbers)
    return found
