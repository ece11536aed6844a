"""Gives one target wrong inputs, in a process of its own: what a library does to the process is contained and counted.

Which input is being tried is written to a file first, so that who started this knows which one ended it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from bench.fuzz_targets import TARGETS

HANG = 10  # s, after which an input is given up
SLOW, HEAVY = 1.0, 200.0  # s of the processor, MB: more than an input may take
SPACE = 4 * 2**30  # bytes of address space beyond what is there at start: the machine is others' too
KEPT = 20  # faults that are told in full


def try_inputs(name: str, seed: int, first: int, stop: int, note: Any = lambda index: None) -> dict[str, Any]:
    """Try the inputs `first` to `stop` of a target; return counts, and what was wrong with which input.

    Args:
        note: is told the index of each input before it is tried.
    """
    target = TARGETS[name]()
    warnings.simplefilter("ignore")  # of NumPy on numbers as large as they can be
    for index in range(3):
        _outcome(target, target.make(random.Random(index)))  # what is loaded and cached at first use is not the input's
    start = peak = _memory("VmHWM")
    counts, faults, slowest = Counter[str](), list[dict[str, Any]](), 0.0
    for index in range(first, stop):
        note(index)
        given = target.make(random.Random(f"{name}:{seed}:{index}"))
        begun = time.process_time()  # others' load is not the input's
        outcome, fault = _outcome(target, given)
        seconds, memory = time.process_time() - begun, _memory("VmHWM")
        counts[outcome] += 1
        if memory - peak > HEAVY:
            fault = fault or f"{memory - peak:.0f} MB more memory"
            counts["heavy"] += 1
        if seconds > SLOW:
            fault = fault or f"{seconds:.2f} s"
            counts["slow"] += 1
        slowest, peak = max(slowest, seconds), max(peak, memory)
        if fault and len(faults) < KEPT:
            faults.append({"index": index, "fault": fault})
    target.close()
    return {**counts, "inputs": stop - first, "slowest_s": slowest, "peak_mb": peak - start, "faults": faults}


def _outcome(target: Any, given: Any) -> tuple[str, str]:
    try:
        return ("accepted" if target.run(given) else "refused"), ""
    except target.errors:
        return "refused", ""
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ssql_ros/" in frame.filename]
        where = f"{Path(place.filename).name}:{place.lineno}" + (
            f" by {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        )
        return "crashes", f"{type(error).__name__} at {where}: {str(error)[:200]}"


def _memory(key: str) -> float:
    """Return a figure of this process's memory in MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) / 1024.0


def main() -> int:
    """Try the inputs that the command line names; print what came of them as JSON."""
    name, seed, first, stop, at = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    progress = os.open(at, os.O_WRONLY | os.O_CREAT)
    space = int(_memory("VmSize") * 2**20) + SPACE

    def note(index: int) -> None:
        signal.alarm(HANG)  # its own end is what SIGALRM does
        os.pwrite(progress, index.to_bytes(8, "little"), 0)

    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(try_inputs(name, seed, first, stop, note)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
