"""Dual ascent on the multiplier of a constraint, E slack >= 0: it rises while the slack is below 0, and falls above.

    lambda >= 0 minimises lambda E slack

SAC's temperature (slack: entropy above its target), nu of SQRL's fine-tuning and of RS (slack: epsilon - Q_safe), and
the price of IQL with a Lagrangian (slack: budget - cost), which may be 0: `ascended`. CPO solves its dual exactly.
"""

from __future__ import annotations

import math

import torch


class Multiplier:
    """lambda = exp(log), which is never quite 0; whoever owns it moves `log` by the gradient of `loss`.

    Attributes:
        log: (1,), the parameter.
    """

    def __init__(self, initial: float, device: torch.device) -> None:
        self.log = torch.tensor([math.log(initial)], device=device, requires_grad=True)

    @property
    def value(self) -> torch.Tensor:
        """Return lambda (1,), without a gradient."""
        return self.log.detach().exp()

    def loss(self, slack: torch.Tensor) -> torch.Tensor:
        """Return log lambda E slack, for slacks (batch,) without a gradient: its gradient has the sign of lambda's."""
        return (self.log * slack.mean()).sum()


def ascended(price: torch.Tensor, cost: torch.Tensor, limit: float, rate: float, most: float) -> torch.Tensor:
    """Return the next lambda: up where the cost is above its limit, down where below, from 0 to `most`."""
    return (price + rate * (cost - limit)).clamp(0.0, most)
