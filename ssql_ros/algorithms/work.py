"""Work: what a learner still has to do when collection is complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Work:
    """Learning after collection: `step` is called `count` times, and returns losses."""

    name: str
    count: int
    step: Callable[[], dict[str, torch.Tensor]]
