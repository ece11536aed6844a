"""How long a critic takes to score a decision's candidates here, and whether the control period has that much time."""

from __future__ import annotations

import math
import time

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.shield.decision import FIRST_STAGE, STAGE

# Of a control period, which scoring may take.
SHARE = 0.5
TRIED = 4  # sizes that are tried to tell how long a round takes
REPEATS = 20
# s, for which a critic that seems too slow is measured again: another program may have the processor for a while.
PATIENCE = 1.0
PAUSE = 0.02  # s, between two measurements: whoever has the processor gets on, and decisions beside it are not delayed


def stage_sizes(candidates: int) -> tuple[int, ...]:
    """Return how many actions a round of a decision scores at once, each time; the proposal comes first."""
    left = max(0, candidates - FIRST_STAGE)
    stages = (*(STAGE,) * (left // STAGE), left % STAGE)
    return (1, min(FIRST_STAGE, candidates), *(size for size in stages if size))


class ScoringTime:
    """Measures critics, and holds candidates and rounds against the time that there is.

    Attributes:
        seconds: of scoring one candidate, by the critic measured last; 0: none was.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract, self.seconds = contract, 0.0

    def measure(self, critic: SafetyCritic, rounds: int, candidates: int) -> None:
        """Score with every size that a decision uses, so that the first decision is not the slow one.

        Raises:
            ValueError: a score is not finite, or a decision cannot be taken in the share of the period that it has.
        """
        # The best of a few: what the machine is busy with beside it does not count against the critic.
        self.seconds, end = math.inf, time.monotonic() + PATIENCE
        while True:
            best = min(self._round(critic, candidates) for _ in range(REPEATS)) / candidates
            self.seconds = min(self.seconds, best)
            fault = self.fault(rounds, candidates)
            if not fault:
                return
            if time.monotonic() > end:
                raise ValueError(fault)
            time.sleep(PAUSE)

    def fault(self, rounds: int, candidates: int) -> str:
        """Return that so many candidates cannot be scored in time, or an empty text."""
        seconds, limit = rounds * candidates * self.seconds, SHARE * self._contract.control_period
        if seconds <= limit:
            return ""
        return (
            f"candidates {candidates}, rounds {rounds}: scoring takes {seconds:.4f} s a decision, at most {limit:g} s "
            "of a control period are there; take fewer of them"
        )

    def _round(self, critic: SafetyCritic, candidates: int) -> float:
        """Return the seconds that a round of candidates takes."""
        observation, sizes = np.zeros(self._contract.observation_size), stage_sizes(candidates)
        start = time.monotonic()
        for k in sizes if len(sizes) < TRIED else (*sizes[:TRIED], sizes[-1]):
            scores = critic.logits(observation, np.tile(self._contract.safe_action, (k, 1)))
            if not np.isfinite(scores).all():
                raise ValueError(f"{critic.bundle.path}: the critic's self-test gave a score that is not finite")
        return (time.monotonic() - start) * max(1.0, len(sizes) / TRIED)
