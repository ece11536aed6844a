"""What the worker programs of the benchmarks share; it imports nothing of this package, for the peers' environment."""

import os
import sys
import time


def keep_to(threads):
    """Keep this process to so many processors: JAX makes a thread for each that it may use, and knows no other way."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def serve(updates, warm_up):
    """Make `warm_up` updates, say `ready`, then answer each line, a number of updates, by the seconds they took."""
    updates(warm_up)
    print("ready", flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        updates(int(line))
        print(time.perf_counter() - begin, flush=True)
