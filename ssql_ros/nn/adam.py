"""Adam (Kingma & Ba 2014, 1412.6980), written so that a step can be part of a compiled update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

FIRST_DECAY, SECOND_DECAY, LEAST_ROOT = 0.9, 0.999, 1e-8


class Adam:
    """m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  p <- p - rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + 1e-8).

    Attributes:
        rate: learning rate, a tensor; `set_rate` changes it.
        step: t, a tensor; what is compiled must not depend on a number that changes.
        count: updates made, for `Update`.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], rate: float) -> None:
        self.parameters = list(parameters)
        device = self.parameters[0].device
        self.rate = torch.tensor(rate, dtype=torch.float64, device=device)
        self.step = torch.zeros((), device=device)
        self.first, self.second = (
            [torch.zeros_like(p, requires_grad=False, memory_format=torch.contiguous_format) for p in self.parameters]
            for _ in range(2)
        )
        self.count = 0

    def set_rate(self, rate: float) -> None:
        """Change the learning rate."""
        self.rate.fill_(rate)

    def descend(self, loss: torch.Tensor) -> None:
        """Make one step down the gradient of a loss that depends on every parameter."""
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            self.step.add_(1.0)
            # In float64: 1 - 0.999^1 would keep four digits.
            step = self.step.double()
            rate = (self.rate / (1.0 - FIRST_DECAY**step)).float()
            root = (1.0 - SECOND_DECAY**step).sqrt().float()
            for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
                m.lerp_(g, 1.0 - FIRST_DECAY)
                v.lerp_(g * g, 1.0 - SECOND_DECAY)
                p.sub_(rate * m / (v.sqrt() / root + LEAST_ROOT))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget all steps."""
        for tensor in (self.step, *self.first, *self.second):
            tensor.zero_()
        self.count = 0

    def state(self) -> list[dict[str, Any]]:
        """Return what a checkpoint must hold of each parameter, in order."""
        return [
            {"step": self.step, "exp_avg": m, "exp_avg_sq": v} for m, v in zip(self.first, self.second, strict=True)
        ]

    @torch.no_grad()
    def restore(self, state: list[dict[str, Any]]) -> None:
        """Take the state of a checkpoint; a parameter that had not moved yet has an empty one."""
        for m, v, values in zip(self.first, self.second, state, strict=True):
            if values:
                self.step.copy_(values["step"])
                m.copy_(values["exp_avg"])
                v.copy_(values["exp_avg_sq"])
        self.count = int(self.step)
