"""Calibration while a shield serves: of what was judged safe and sent, what was predicted, and what then happened.

Q_safe(s_t, a_t) predicts y_t = gamma^(k-1), where an incident comes k control periods later, and 0 where none comes
within the horizon. Where a history ends before that, nothing is known, and the decision is left out. The incidents of
a stretch are few and count for many decisions each, so their number (1 - gamma) sum y is taken as Poisson's, with
Byar's interval for its mean (Breslow and Day 1987).

In the manner of adaptive conformal inference (Gibbs and Candes 2021: alpha_(t+1) = alpha_t + step (alpha - err_t)) a
threshold is moved along, from epsilon on, by what was predicted and what came:

    epsilon_(t+1) = epsilon_t + step (1 - gamma) (Q_safe(s_t, a_t) - y_t)

so that each incident that was not predicted takes `STEP` off. It is told, and never used.
"""

from __future__ import annotations

import math
from collections import deque

from ssql_ros.shield.decision import Decision, Verdict

STEP = 0.005
NEGLIGIBLE = 0.01  # what an incident at the horizon counts for
Z_95 = 1.959963984540054


def byar_interval(count: float, z: float = Z_95) -> tuple[float, float]:
    """Return an interval for the mean of Poisson's distribution of which `count` were seen, by default at 95 %."""

    def limit(n: float, side: float) -> float:
        return n * max(0.0, 1.0 - 1.0 / (9.0 * n) + side * z / (3.0 * math.sqrt(n))) ** 3

    return limit(count, -1.0) if count > 0.0 else 0.0, limit(count + 1.0, 1.0)


class CalibrationDrift:
    """Holds predictions until it is known what followed, and adds up both; begins anew with another critic.

    Args:
        period: ns, of control.

    Attributes:
        settled: decisions of which it is known what followed.
        adaptive: the threshold that is moved along; NaN before the first decision.
    """

    def __init__(self, period: int) -> None:
        self._period, self._begin = period, 0
        self._begin_anew("", 0.0, math.nan)

    def _begin_anew(self, critic: str, gamma: float, epsilon: float) -> None:
        self._critic, self._gamma, self.adaptive = critic, gamma, epsilon
        self._horizon = math.ceil(math.log(NEGLIGIBLE) / math.log(gamma)) * self._period if gamma else 0
        self._pending: deque[tuple[int, float]] = deque()
        self._newest = -1
        self._predicted = self._observed = 0.0
        self.settled = 0

    def follow(self, critic: str, gamma: float, epsilon: float) -> None:
        """Judge decisions of the critic of this id from now on."""
        if critic != self._critic:
            self._begin_anew(critic, gamma, epsilon)

    def observe(self, stamp: int, begin: int, inside: bool) -> None:
        """Take in an observation: its stamp and the begin of its history, ns, and whether it is an incident."""
        if begin != self._begin:
            self._begin = begin
            self._pending.clear()
        pending = self._pending
        if inside:
            while pending:
                then, predicted = pending.popleft()
                periods = max(1, round((stamp - then) / self._period))
                self._settle(predicted, self._gamma ** (periods - 1))
        while pending and stamp - pending[0][0] > self._horizon:
            self._settle(pending.popleft()[1], 0.0)

    def decided(self, verdict: Verdict, stamp: int, watching: bool) -> None:
        """Take in a decision on the observation of `stamp` ns. `watching`: the proposal goes, whatever was decided."""
        judged = verdict.decision is Decision.PASSED or (verdict.decision is Decision.RESAMPLED and not watching)
        if not judged or stamp == self._newest or not math.isfinite(verdict.q_action):
            return
        self._newest = stamp
        self._pending.append((stamp, verdict.q_action))

    def _settle(self, predicted: float, observed: float) -> None:
        self.settled += 1
        self._predicted += predicted
        self._observed += observed
        self.adaptive += STEP * (1.0 - self._gamma) * (predicted - observed)

    @property
    def predicted(self) -> float:
        """Return the mean Q_safe of what was sent, NaN where nothing is known."""
        return self._predicted / self.settled if self.settled else math.nan

    @property
    def observed(self) -> float:
        """Return the mean discounted incident that followed, NaN where nothing is known."""
        return self._observed / self.settled if self.settled else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of `observed`; NaN where nothing is known."""
        if not self.settled:
            return math.nan, math.nan
        weight = 1.0 - self._gamma
        low, high = byar_interval(weight * self._observed)
        return low / (weight * self.settled), min(1.0, high / (weight * self.settled))

    def words(self) -> str:
        """Return prediction and outcome, with the interval; an empty text where nothing is known."""
        if not self.settled:
            return ""
        low, high = self.interval
        return (
            f"observed {self.observed:.3g} ({low:.3g} to {high:.3g}), predicted {self.predicted:.3g}, over "
            f"{self.settled} decisions judged safe"
        )

    def warning(self) -> str:
        """Return that incidents come more often than predicted, beyond chance, or an empty text."""
        if not self.settled or not self.interval[0] > self.predicted:
            return ""
        return f"incidents come more often than the critic predicts: {self.words()}"
