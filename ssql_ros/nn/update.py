"""Updates, compiled whole: losses, their gradients, the optimisers' steps and the averages as one graph each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from ssql_ros.nn.adam import Adam
from ssql_ros.nn.arithmetic import Arithmetic

Losses = dict[str, torch.Tensor]


class Update:
    """An update that is called eagerly at first, and compiled once enough were made (see `Arithmetic`).

    Args:
        function: makes one update from tensors alone; what is drawn at random is drawn before, and given to it. It
            moves parameters, moments and averages in place, and returns losses.
        optimisers: all that step in it, once each; the first one's count is that of the updates.
    """

    def __init__(self, function: Callable[..., Losses], optimisers: Sequence[Adam], arithmetic: Arithmetic) -> None:
        self._function, self._optimisers, self._arithmetic = function, optimisers, arithmetic
        self._compiled: Callable[..., Losses] | None = None

    def __call__(self, *inputs: Any) -> Losses:
        """Make one update; return its losses."""
        first = self._arithmetic.compiled_from
        if first is None or self._optimisers[0].count < first:
            return self._function(*inputs)
        compiled = self._compiled or whole(self._function, self._arithmetic.device)
        for optimiser in self._optimisers:
            optimiser.advance()
        try:
            losses = compiled(*inputs)
        except compile_errors() as error:
            if self._compiled is not None:
                raise
            # Nothing was computed yet. From now on nothing is compiled.
            self._arithmetic.compiled_from = None
            reason = str(error).strip().splitlines() or [type(error).__name__]
            tqdm.write(f"updates are not compiled, and slower for it: {reason[0]}", file=sys.stderr)
            for optimiser in self._optimisers:
                optimiser.count -= 1
            return self._function(*inputs)
        self._compiled = compiled
        return losses


def whole(function: Callable[..., Losses], device: torch.device) -> Callable[..., Losses]:
    """Return a function compiled as one graph, gradients included."""
    # Without it gradients could not be taken inside what is compiled. A version of torch that lacks it says so.
    torch._dynamo.config.trace_autograd_ops = True
    if device.type != "cuda":
        # Networks stay what they are once they are compiled: to look at each call whether they do takes 0.2 ms.
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
        return torch.compile(function, fullgraph=True, dynamic=False, options=options)
    # One launch for the whole graph. What it returns lies where the next run will write.
    run = torch.compile(function, fullgraph=True, dynamic=False, mode="reduce-overhead")
    return lambda *inputs: {name: loss.clone() for name, loss in run(*inputs).items()}


def compile_errors() -> tuple[type[Exception], ...]:
    """Return what compilation raises where there is no compiler, or a version of torch that lacks something."""
    from torch._dynamo.exc import TorchDynamoException

    return (TorchDynamoException, AttributeError)
