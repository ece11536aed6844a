"""E-SAC: SAC with an ensemble of critics and a low percentile of it in place of the least (baseline of SQRL, after
Eysenbach et al. 2018): what the critics do not agree on is taken to be bad.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssql_ros.algorithms.sac import SAC, SACSettings


@dataclass(frozen=True)
class ESACSettings(SACSettings):
    """How E-SAC learns.

    Attributes:
        percentile: fraction of the critics that lie below the value taken.
    """

    critics: int = 10
    percentile: float = 0.3


class ESAC(SAC):
    """SAC whose pessimism is a percentile, in the target and in the actor's objective."""

    settings: ESACSettings

    def pessimistic(self, q: torch.Tensor) -> torch.Tensor:
        """Return the percentile (batch,) over critics (M, batch), between its two neighbours in order."""
        ordered = q.sort(dim=0).values
        place = self.settings.percentile * (len(q) - 1)
        below = int(place)
        above = min(below + 1, len(q) - 1)
        return torch.lerp(ordered[below], ordered[above], place - below)
