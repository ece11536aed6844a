"""Benchmark of offline learning: updates of SafeFQL and of FQL in JAX, in turn in one run.

An update of SafeFQL is more work than one of FQL on the same shapes: two safety critics with their averages and two
networks of values, all of which FQL lacks; FQL has a pass of the actor at s', which SafeFQL lacks.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from bench.side import PEERS, Side, checked_peers, compare

# The published networks on a half cheetah, and what the boat's bundle is trained with.
SHAPES: dict[str, dict[str, Any]] = {
    "published": {
        "observation": 17,
        "action": 6,
        "critics": [256, 256],
        "actors": [512, 512, 512, 512],
        "critic_activation": "relu",
        "batch": 256,
    },
    "boat": {
        "observation": 2,
        "action": 2,
        "critics": [128, 128],
        "actors": [128, 128, 128],
        "critic_activation": "gelu",
        "batch": 256,
    },
}


def bench_offline(
    size: str,
    rounds: int,
    updates: int,
    threads: int,
    seed: int,
    actor_batch: int = 256,
    clone: Path | None = None,
    peers: Path = PEERS,
) -> dict[str, float]:
    """Time whole updates, drawing from memory included; both sides learn all their networks in each.

    Args:
        size: of `SHAPES`.
        updates: of one turn.
        threads: 0: as many as there are processors.
        actor_batch: transitions a step of the actors; the critics' are 256.
        clone: of the authors' repository, https://github.com/seohongpark/fql, to compare with their program too.
        peers: Python of the peers' environment.

    Returns:
        updates_per_s of each, ratio_to_fql and, with a clone, ratio_to_authors (above 1: SafeFQL is faster).

    Raises:
        ValueError: no rounds or updates, an unknown size, a peer is not installed, or a side does not start.
    """
    python = checked_peers(peers, rounds)
    if updates < 1:
        raise ValueError(f"updates: expected at least 1, got {updates}")
    if size not in SHAPES:
        raise ValueError(f"size: expected one of {', '.join(SHAPES)}, got {size}")
    shape = SHAPES[size] | {"actor_batch": actor_batch}
    if clone is not None and not (clone / "agents" / "fql.py").is_file():
        raise ValueError(f"{clone}: no agents/fql.py there; expected a clone of https://github.com/seohongpark/fql")
    if clone is not None and actor_batch != shape["batch"]:
        raise ValueError(f"actor batch: the authors' program has one batch, {shape['batch']}; got {actor_batch}")
    count = threads or len(os.sched_getaffinity(0))
    given = [str(seed), str(count), json.dumps(shape)]
    sides = [Side("ours", sys.executable, "offline_worker.py", given), Side("fql", python, "offline_worker.py", given)]
    if clone is not None:
        sides.append(Side("authors", python, "offline_worker.py", [*given, str(clone.resolve())]))
    return {"threads": float(count), **compare(sides, rounds, updates, count)}
