"""What a live learner is told: from what it learns by which algorithm, when it learns, and when it offers."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

# See live_algorithms.
LIVE_ALGORITHMS = ("ssql", "iql")


@dataclass(frozen=True)
class LiveSettings:
    """When the learner learns, and when it offers.

    Attributes:
        contract: path of the contract.
        behaviour: of the robot's data, see behaviour.policy.make_behaviour.
        shield: path of the bundle whose safety critic judges in shadow and goes into what is offered.
        source: what the buffer is recorded from, see live_buffer.recorded_from.
        algorithm: one of LIVE_ALGORITHMS.
        settings: of the algorithm, by name.
        first_steps: transitions before learning begins.
        updates_per_step: gradient steps of stage 1 for each transition, at most.
        round_updates: of stage 1 before a policy is extracted and judged.
        shadow_steps: transitions that must come after the extraction, to judge in the states of now.
        return_margin: by how much, as a share of the range of recorded returns, a policy may be estimated worse than
            the one in service.
        value_updates: gradient steps of each estimate.
        replay: transitions in memory; beyond them the oldest are forgotten.
    """

    contract: str
    behaviour: dict[str, Any]
    shield: str
    source: dict[str, Any]
    algorithm: str = "ssql"
    settings: dict[str, Any] = field(default_factory=dict)
    first_steps: int = 2000
    updates_per_step: float = 1.0
    round_updates: int = 3000
    shadow_steps: int = 250
    return_margin: float = 0.05
    value_updates: int = 600
    replay: int = 500_000
    seed: int = 0


def read_settings(path: Path) -> LiveSettings:
    """Return the settings of a learner's folder.

    Raises:
        ValueError: the file is not JSON, or has an unknown or a missing key.
    """
    try:
        values = json.loads(path.read_text())
        unknown = sorted(set(values) - {f.name for f in fields(LiveSettings)})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}")
        return LiveSettings(**values)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: is not a learner's configuration: {error}") from error


def claim(path: Path, wait: bool) -> IO[str]:
    """Return a file that is locked for as long as it is open, and this process lives.

    Raises:
        OSError: it cannot be opened; or, where there is to be no waiting, somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        file.close()
        raise
    return file
