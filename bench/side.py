"""Gradient updates of several learners timed in turn, each in a process of its own, with a Python of its own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

PEERS = Path(".venv-peers/bin/python")


def checked_peers(peers: Path, rounds: int) -> str:
    """Return the Python of the peers' environment. Raises ValueError: it is not there, or no rounds."""
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    if not peers.exists():
        raise ValueError(f"{peers} is not there: `make peers` installs the learners that ours is compared with")
    return str(peers)


@dataclass(frozen=True)
class Side:
    """One learner.

    Attributes:
        name: "ours", or a peer's.
        python: of its environment.
        worker: program beside this one; it is run as `worker NAME ARGUMENT ...`, answers `ready`, and then each line
            with a number of updates by the seconds that they took (see `update_worker`).
    """

    name: str
    python: str
    worker: str
    arguments: Sequence[str]


class SideProcess:
    """A side that runs."""

    def __init__(self, side: Side, threads: int) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        if side.python != sys.executable:
            # The peers' environment must not see this one's packages.
            environment.pop("PYTHONPATH", None)
        environment |= {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": environment.get("JAX_PLATFORMS", "")}
        self.name = side.name
        self.process = subprocess.Popen(
            [side.python, str(Path(__file__).with_name(side.worker)), side.name, *side.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> SideProcess:
        while (line := self._line()) != "ready":
            if not line:
                error = (self.process.stderr.read() if self.process.stderr else "").strip().splitlines()
                raise ValueError(f"bench: {self.name} ended before it was ready: {error[-1:] or 'no word'}")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def seconds(self, updates: int) -> float:
        """Return how long so many updates take."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def compare(sides: Sequence[Side], rounds: int, updates: int, threads: int) -> dict[str, float]:
    """Return updates_per_s_NAME of every side, and ratio_to_NAME: how much faster the first is than each other.

    Each round times so many updates of every side, one after another, so that a change of the machine's speed hits all;
    a ratio is the median over rounds of each round's.

    Raises:
        ValueError: a side does not start.
    """
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    with ExitStack() as stack:
        processes = [stack.enter_context(SideProcess(side, threads)) for side in sides]
        for _ in tqdm(range(rounds), desc="updates in turn", unit="round", leave=False):
            for process in processes:
                times[process.name].append(process.seconds(updates))
    figures = {f"updates_per_s_{name}": updates / statistics.median(values) for name, values in times.items()}
    first, *others = times
    for name in others:
        ratios = [theirs / own for theirs, own in zip(times[name], times[first], strict=True)]
        figures[f"ratio_to_{name}"] = statistics.median(ratios)
    return figures
