"""A proposal: what a controller or a policy wants done, and from which distribution it was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Proposal:
    """What the controller wants: `action` (n_action,), drawn from a normal distribution `mean`, `std` if it has one.

    `time`: s on the clock of `decide`'s `now`, when it was made. A plain command has no `mean` and `std`.
    `squashed`: the distribution is that of u, and the action is tanh(u) stretched over the action bounds.
    `low`, `high`: (n_action,), the support of the distribution, which candidates keep to; None: the action bounds.
    """

    action: np.ndarray
    time: float
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    squashed: bool = False
    low: np.ndarray | None = None
    high: np.ndarray | None = None
