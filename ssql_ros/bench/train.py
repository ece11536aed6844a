"""Benchmark of gradient updates: this package's SAC, stable-baselines3's and SBX's, in turn in one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

PEERS = Path(".venv-peers/bin/python")
UPDATES = 64  # of one turn
N_OBSERVATION, N_ACTION = 28, 8


class _Side:
    """One worker process."""

    def __init__(self, name: str, python: str, seed: int, threads: int) -> None:
        script = str(Path(__file__).with_name("sac_worker.py"))
        shape = [str(seed), str(threads), str(N_OBSERVATION), str(N_ACTION)]
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        if name != "ours":
            # The peers' environment must not see this one's packages.
            environment.pop("PYTHONPATH", None)
        environment |= {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": environment.get("JAX_PLATFORMS", "")}
        self.name = name
        self.process = subprocess.Popen(
            [python, script, name, *shape],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> _Side:
        while (line := self._line()) != "ready":
            if not line:
                error = (self.process.stderr.read() if self.process.stderr else "").strip().splitlines()
                raise ValueError(f"bench train: {self.name} ended before it was ready: {error[-1:] or 'no word'}")
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


def bench_train(rounds: int, threads: int, seed: int, peers: Path = PEERS) -> dict[str, float]:
    """Time updates of batch 256, two layers of 256, observation 28, action 8, one gradient step of each network.

    Each round times 64 updates of every side, one after another, so that a change of the machine's speed hits all;
    a ratio is the median over rounds of each round's.

    Args:
        threads: 0: as many as there are processors.
        peers: Python of the peers' environment.

    Returns:
        updates_per_s of each, ratio_to_sb3 and ratio_to_sbx (above 1: this package's is faster).

    Raises:
        ValueError: no rounds, the peers are not installed, or a side does not start.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    if not peers.exists():
        raise ValueError(f"{peers} is not there: `make peers` installs stable-baselines3 and SBX beside this package")
    count = threads or len(os.sched_getaffinity(0))
    times: dict[str, list[float]] = {"ours": [], "sb3": [], "sbx": []}
    with ExitStack() as stack:
        pythons = {"ours": sys.executable, "sb3": str(peers), "sbx": str(peers)}
        sides = [stack.enter_context(_Side(name, pythons[name], seed, count)) for name in times]
        for _ in tqdm(range(rounds), desc="updates in turn", unit="round", leave=False):
            for side in sides:
                times[side.name].append(side.seconds(UPDATES))
    figures = {f"updates_per_s_{name}": UPDATES / statistics.median(values) for name, values in times.items()}
    for name in ("sb3", "sbx"):
        ratios = [theirs / own for theirs, own in zip(times[name], times["ours"], strict=True)]
        figures[f"ratio_to_{name}"] = statistics.median(ratios)
    return {"threads": float(count), **figures}
