"""What a check of a driver found: rows of a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any


class Level(IntEnum):
    """How much a finding matters: with an ERROR the shield cannot run on this driver."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        kind: what it is, for machines: the same text for the same mistake.
        where: the topic, as the contract has it.
        found: what was found; `fix`: what helps, empty where nothing is to be done.
    """

    level: Level
    kind: str
    where: str
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "level": self.level.name.lower()}


def said(level: Level, kind: str, where: str, text: str, otherwise: str = "") -> Finding:
    """Return a finding of a text that says what is wrong, then behind its last semicolon what helps.

    Args:
        otherwise: what helps where the text does not say.
    """
    found, _, fix = text.removeprefix(f"{where}: ").rpartition("; ")
    return Finding(level, kind, where, found or fix, fix if found else otherwise)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the worst first; those of one level stay in their order."""
    return sorted(findings, key=lambda finding: -finding.level)


def table(findings: Sequence[Finding], width: int = 118) -> list[str]:
    """Return a table as lines: level, topic, what was found, what helps; long cells are wrapped."""
    head = ("level", "topic", "found", "what helps")
    rows = [(f.level.name.lower(), f.where, f.found, f.fix) for f in findings]
    first, second = (max(len(row[i]) for row in (head, *rows)) for i in (0, 1))
    left = max(width - first - second - 6, 40)
    widths = (first, second, left - left // 2, left // 2)
    lines = []
    for row in (head, *rows):
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for i in range(max(map(len, cells))):
            parts = [cell[i] if i < len(cell) else "" for cell in cells]
            line = "  ".join(f"{part:<{size}}" for part, size in zip(parts, widths, strict=True))
            lines.append(line.rstrip())
    return lines
