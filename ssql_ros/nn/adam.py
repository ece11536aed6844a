"""Adam (Kingma & Ba 2014, 1412.6980), written so that a step can be part of a compiled update."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

FIRST_DECAY, SECOND_DECAY, LEAST_ROOT = 0.9, 0.999, 1e-8


class Adam:
    """m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  p <- p - rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + 1e-8).

    Attributes:
        count: t, steps made.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], rate: float) -> None:
        self.parameters, self._learning_rate, self.count = list(parameters), rate, 0
        # With r = sqrt(1 - b2^t) a step is (rate r / (1 - b1^t)) m / (sqrt(v) + 1e-8 r). The two factors are tensors,
        # because what is compiled must not depend on a number that changes, and are computed outside of it: inside, it
        # would be done anew for every few parameters.
        self._rate, self._least = (torch.ones((), device=self.parameters[0].device) for _ in range(2))
        self._first, self._second = (
            [torch.zeros_like(p, requires_grad=False, memory_format=torch.contiguous_format) for p in self.parameters]
            for _ in range(2)
        )

    def set_rate(self, rate: float) -> None:
        """Change the learning rate, from the next step on."""
        self._learning_rate = rate

    def advance(self) -> None:
        """Count a step: what of it is no matter of tensors. `descend` does so itself where it is not compiled."""
        self.count += 1
        root = math.sqrt(1.0 - SECOND_DECAY**self.count)
        self._rate.fill_(self._learning_rate * root / (1.0 - FIRST_DECAY**self.count))
        self._least.fill_(LEAST_ROOT * root)

    def descend(self, loss: torch.Tensor) -> None:
        """Make one step down the gradient of a loss that depends on every parameter."""
        if not torch.compiler.is_compiling():
            self.advance()
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, gradients, self._first, self._second, strict=True):
                m.lerp_(g, 1.0 - FIRST_DECAY)
                v.lerp_(g * g, 1.0 - SECOND_DECAY)
                p.sub_(self._rate * m / (v.sqrt() + self._least))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget all steps."""
        for tensor in (*self._first, *self._second):
            tensor.zero_()
        self.count = 0

    def state(self) -> list[dict[str, Any]]:
        """Return what a checkpoint must hold of each parameter, in order."""
        step = torch.tensor(float(self.count))
        return [{"step": step, "exp_avg": m, "exp_avg_sq": v} for m, v in zip(self._first, self._second, strict=True)]

    @torch.no_grad()
    def restore(self, state: list[dict[str, Any]]) -> None:
        """Take the state of a checkpoint; a parameter that had not moved yet has an empty one."""
        self.count = 0
        for m, v, values in zip(self._first, self._second, state, strict=True):
            if values:
                self.count = int(values["step"])
                m.copy_(values["exp_avg"])
                v.copy_(values["exp_avg_sq"])
