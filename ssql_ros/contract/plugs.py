"""Robots that packages plug in: each is an entry point of the group `ssql_ros.robots`, named as the robot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

GROUP = "ssql_ros.robots"


class Plug(Protocol):
    """What the layers below `ssql_ros.robots` need to know of a robot (see `ssql_ros.robots.plug.Robot`).

    Attributes:
        name: as its contract has it.
        config: folder of its contract.yaml, learning.yaml and nodes.yaml; None: config/NAME of this package.
        behaviours: makers of its own kinds of behaviour policies, by kind.
    """

    name: str
    config: Path | None
    behaviours: Mapping[str, Callable[..., Any]]


@lru_cache(maxsize=1)
def plugs() -> dict[str, Any]:
    """Return the robots that are installed, by name, in that order. One that cannot be loaded is said and left out."""
    found = {}
    for entry in sorted(entry_points(group=GROUP)):
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # another package's mistake must not take the other robots away
            print(f"robot {entry.name}: {entry.value} cannot be loaded: {error!r}", file=sys.stderr)
    return found
