"""Benchmark of gradient updates: this package's SAC, stable-baselines3's and SBX's, in turn in one run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from ssql_ros.bench.side import PEERS, Side, checked_peers, compare
from ssql_ros.nn.arithmetic import Arithmetic

UPDATES = 64  # of one turn
N_OBSERVATION, N_ACTION, HIDDEN = 28, 8, (256, 256)


def bench_train(rounds: int, threads: int, seed: int, peers: Path = PEERS) -> dict[str, float]:
    """Time updates of batch 256, two layers of 256, observation 28, action 8, one gradient step of each network.

    Args:
        threads: 0: as many as there are processors.
        peers: Python of the peers' environment.

    Returns:
        updates_per_s of each, ratio_to_sb3 and ratio_to_sbx (above 1: this package's is faster); see `compare`.
        ratio_to_products: how many times as long as its own bare matrix products an update takes; bfloat16: 1 where
        they are in it.

    Raises:
        ValueError: no rounds, the peers are not installed, or a side does not start.
    """
    python = checked_peers(peers, rounds)
    count = threads or len(os.sched_getaffinity(0))
    precision = Arithmetic(torch.device("cpu"), HIDDEN).precision
    shape = [str(seed), str(count), str(N_OBSERVATION), str(N_ACTION), str(precision).removeprefix("torch.")]
    pythons = {"ours": sys.executable, "products": sys.executable, "sb3": python, "sbx": python}
    sides = [Side(name, python, "sac_worker.py", shape) for name, python in pythons.items()]
    figures = compare(sides, rounds, UPDATES, count)
    figures["ratio_to_products"] = 1.0 / figures["ratio_to_products"]
    return {"threads": float(count), "bfloat16": float(precision == torch.bfloat16), **figures}
