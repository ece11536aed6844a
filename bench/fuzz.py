"""Wrong inputs for everything that is read from outside: contracts, bundles, bags, messages, requests, keys.

Each is a valid one with a few changes that know its structure. It must be refused with an error of the package's own
that says what is wrong, or be accepted; nothing else may be raised, no process may end, and no input may take a second
or 200 MB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.fuzz_targets import TARGETS

STRETCH = 5000  # inputs of one process
COUNTS = ("inputs", "accepted", "refused", "crashes", "ended", "slow", "heavy")


def bench_fuzz(
    targets: list[str] | None = None, inputs: int = 1000, first: int = 0, seed: int = 0, quiet: bool = False
) -> tuple[dict[str, float], list[str]]:
    """Try `inputs` wrong inputs of each target; return figures by target, and what was wrong with which input.

    Args:
        targets: of `TARGETS`; None: all.
        first: index of the first input: with `inputs` 1 and the same seed one input is tried again.

    Raises:
        ValueError: an unknown target, or no input.
    """
    if inputs < 1:
        raise ValueError(f"--inputs: expected at least 1, got {inputs}")
    figures: dict[str, float] = {}
    faults: list[str] = []
    for name in targets or TARGETS:
        if name not in TARGETS:
            raise ValueError(f"--targets: {name!r} is unknown; known: {', '.join(TARGETS)}")
        found = _tried(name, seed, first, inputs, quiet)
        figures |= {f"{name}_{key}": found[key] for key in (*COUNTS, "slowest_s", "peak_mb")}
        faults += [f"{name} {fault['index']}: {fault['fault']}" for fault in found["faults"]]
    for count in COUNTS:
        figures[f"all_{count}"] = sum(figures[f"{name}_{count}"] for name in targets or TARGETS)
    figures["faults"] = float(len(faults))
    return figures, faults


def _tried(name: str, seed: int, first: int, inputs: int, quiet: bool) -> dict[str, Any]:
    """Try a target's inputs in processes, one after the other; what ends a process is passed over."""
    counts, faults, slowest, peak = Counter[str](), list[dict[str, Any]](), 0.0, 0.0
    at, stop = first, first + inputs
    with (
        tempfile.TemporaryDirectory(prefix="ssql_fuzz_") as folder,
        tqdm(total=inputs, desc=name, unit="input", disable=quiet) as bar,
    ):
        place = Path(folder) / "at"
        limit = STRETCH
        while at < stop:
            end = min(at + limit, stop)
            words = [sys.executable, "-m", "bench.fuzz_worker", name, *map(str, (seed, at, end)), str(place)]
            ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
            before = at
            if ran.returncode == 0:
                told = json.loads(ran.stdout.splitlines()[-1])
                counts.update({key: told.get(key, 0) for key in COUNTS})
                faults += told["faults"]
                slowest, peak = max(slowest, told["slowest_s"]), max(peak, told["peak_mb"])
                at, limit = end, STRETCH
            elif not place.exists() or ran.returncode > 0:
                raise ValueError(f"target {name} cannot be tried: {ran.stderr.strip()[-2000:]}")
            else:
                # What came before it is tried again without it, as its counts went with the process.
                culprit = int.from_bytes(place.read_bytes(), "little")
                if culprit > at:
                    limit = culprit - at
                    continue
                what = "hung" if ran.returncode == -14 else f"ended by signal {-ran.returncode}"
                faults.append({"index": culprit, "fault": f"the process {what}"})
                counts.update(inputs=1, ended=1)
                at, limit = culprit + 1, STRETCH
            bar.update(at - before)
    return {**{key: counts[key] for key in COUNTS}, "slowest_s": slowest, "peak_mb": peak, "faults": faults}
