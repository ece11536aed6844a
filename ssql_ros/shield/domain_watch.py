"""Tells when a robot has left what its critic was trained on: not by one observation, by most of the newest ones."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from ssql_ros.model.domain import Domain

# Decisions that are looked back on. Of those, the share beyond the limit with which it has left the domain, and the
# share down to which it must come to be back: the limit is a quantile, and single observations lie beyond it by chance.
WINDOW, LEFT, BACK = 25, 0.5, 0.1


class DomainWatch:
    """Scores the observation of every control period.

    Attributes:
        domain: of the critic in force; None: it states none, and nothing is ever outside.
        distance: of the newest observation, NaN: not known.
        out: the robot has left the domain.
    """

    def __init__(self) -> None:
        self._follow(None)

    def _follow(self, domain: Domain | None) -> None:
        self.domain = domain
        self.distance = math.nan
        self.out = False
        self._beyond: deque[bool] = deque(maxlen=WINDOW)
        self._stamp: int | None = None

    def observe(self, domain: Domain | None, observation: np.ndarray, stamp: int) -> bool:
        """Score an observation (n_observation,) of `stamp` ns; return True where the domain is left with it.

        A critic in the place of another begins anew.
        """
        if domain is not self.domain:
            self._follow(domain)
        if domain is None or stamp == self._stamp:
            return False
        self._stamp, self.distance = stamp, domain.distance(observation)
        # What is not a number is not within.
        self._beyond.append(not self.distance <= domain.limit)
        share, before = sum(self._beyond) / WINDOW, self.out
        self.out = share > (BACK if before else LEFT)
        return self.out and not before

    @property
    def limit(self) -> float:
        """Return the distance beyond which an observation counts as outside; NaN: none is stated."""
        return math.nan if self.domain is None else self.domain.limit

    def words(self) -> str:
        """Return where the robot is, with the limit and what it is of."""
        domain = self.domain
        if domain is None:
            return "the critic does not say where it was trained"
        return f"distance {self.distance:.3g} from the critic's training data, {domain.words()}"
