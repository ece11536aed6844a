"""How a learner computes: in which precision, and from which update on compiled. Its checkpoints keep to it.

    SSQL_ROS_PRECISION   float32 or bfloat16; unset: what a probe of this machine finds
    SSQL_ROS_COMPILE     0: never, 1: from the first update on; unset: from update 10,000 on

bfloat16 is for products of hidden layers with hidden layers alone; everything else is float32.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch

PRECISION, COMPILE = "SSQL_ROS_PRECISION", "SSQL_ROS_COMPILE"
# Below this width conversions cost more than the products gain.
LEAST_BFLOAT16_WIDTH = 128
# Of a 256^3 product in bfloat16, against float32: without instructions for it, it is many times slower.
LEAST_GAIN = 1.5
# Compilation takes as long as it saves in about so many updates.
COMPILED_FROM = 10_000

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NAMES = {precision: name for name, precision in _PRECISIONS.items()}


@cache
def bfloat16_gain(device: str) -> float:
    """Return how much faster a batched product of 256 x 256 matrices is in bfloat16 than in float32 on this machine."""
    matrices = {p: torch.ones((2, 256, 256), dtype=p, device=device) for p in _PRECISIONS.values()}
    shortest = dict.fromkeys(matrices, float("inf"))
    threads = torch.get_num_threads()
    # Another program may have the processor for a while: in turn, on one thread, and the shortest of many.
    torch.set_num_threads(1)
    for _ in range(30):
        for precision, a in matrices.items():
            begin = time.perf_counter()
            torch.bmm(a, a)
            if device == "cuda":
                torch.cuda.synchronize()
            shortest[precision] = min(shortest[precision], time.perf_counter() - begin)
    torch.set_num_threads(threads)
    return shortest[torch.float32] / shortest[torch.bfloat16]


def _wanted_precision() -> torch.dtype | None:
    """Return what the environment asks for. Raises ValueError: nothing that there is."""
    wanted = os.environ.get(PRECISION)
    if wanted and wanted not in _PRECISIONS:
        raise ValueError(f"{PRECISION}: expected {' or '.join(_PRECISIONS)}, got {wanted!r}")
    return _PRECISIONS[wanted] if wanted else None


def _wanted_compilation() -> int | None:
    """Return the update that the environment wants compiled first; None: none is. Raises ValueError."""
    wanted = os.environ.get(COMPILE)
    if wanted not in (None, "", "0", "1"):
        raise ValueError(f"{COMPILE}: expected 0 or 1, got {wanted!r}")
    return {"0": None, "1": 0}.get(wanted or "", COMPILED_FROM)


class Arithmetic:
    """How one learner computes.

    Args:
        widths: of all hidden layers.
        precision: of hidden products; None: what the environment or the probe says.

    Attributes:
        compiled_from: number of the first update that is compiled; None: none is.
    """

    def __init__(self, device: torch.device, widths: Sequence[int], precision: torch.dtype | None = None) -> None:
        self.device, self.compiled_from = device, _wanted_compilation()
        precision = precision or _wanted_precision()
        if precision is None:
            gains = min(widths) >= LEAST_BFLOAT16_WIDTH and bfloat16_gain(device.type) >= LEAST_GAIN
            precision = torch.bfloat16 if gains else torch.float32
        self.precision = precision

    def state(self) -> dict[str, Any]:
        """Return it for a checkpoint and for the record of a run."""
        return {"precision": _NAMES[self.precision], "compiled_from": self.compiled_from}

    def restore(self, state: dict[str, Any] | None, ensembles: Iterable[Any]) -> None:
        """Compute as a checkpoint says, so that its run goes on bit for bit.

        Args:
            state: None: of an earlier version, which did not say.
            ensembles: the learner's networks.

        Raises:
            ValueError: the environment asks for something else.
        """
        if state is None:
            return
        precision, wanted = _PRECISIONS[state["precision"]], _wanted_precision()
        if wanted not in (None, precision):
            raise ValueError(
                f"it computes in {state['precision']}, and {PRECISION} asks for {_NAMES[wanted]}: "
                "unset it, or begin anew"
            )
        first = state["compiled_from"]
        if os.environ.get(COMPILE) and _wanted_compilation() != first:
            raise ValueError(
                f"its updates are compiled {'never' if first is None else f'from number {first} on'}, and "
                f"{COMPILE} asks for something else: unset it, or begin anew"
            )
        self.precision, self.compiled_from = precision, first
        for ensemble in ensembles:
            ensemble.precision = precision
