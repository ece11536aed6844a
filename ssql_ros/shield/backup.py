"""Decisions with a backup: isolated unsafe proposals are replaced by what is near them, more of them by the backup.

A search among many candidates finds the critic's errors too, and a controller that is unsafe again and again gives it
many chances; and a robot that is handed back after every single step of the backup is never led out of danger. So the
backup takes over where unsafe proposals come often, and lets go when the proposals have been safe for a while. Where
unsafe proposals are rare and nothing near one is safe, it is one more candidate, for that decision.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from ssql_ros.contract.contract import Contract
from ssql_ros.model.backup import Backup
from ssql_ros.model.bundle import Rule
from ssql_ros.model.critic import sigmoid
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.decision import Critic, Decision, Observation, ShieldSettings, Verdict, decide


class SafetyFilter:
    """Takes decisions in their order; the same as `decide` where the critic has no backup.

    A critic in the place of another begins anew: what is remembered was judged by the other.

    Attributes:
        steps: decisions since the backup took over; 0: the controller has the robot.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._critic: Critic | None = None
        self._unsafe: deque[bool] = deque()
        self._left = 0
        self.steps = 0

    def reset(self) -> None:
        """Begin an episode: nothing is known of the proposals before."""
        self._unsafe.clear()
        self._left = self.steps = 0

    def memory(self, critic: Critic) -> tuple[tuple[bool, ...], int, int]:
        """Return what the next decision by `critic` remembers: which proposals were unsafe, the dwell left, `steps`."""
        if critic is not self._critic:
            return (), 0, 0
        return tuple(self._unsafe), self._left, self.steps

    def _recent(self, backup: Backup) -> int:
        """Return how many of the last `window` proposals were unsafe."""
        return sum(islice(reversed(self._unsafe), backup.window))

    def recall(self, unsafe: Sequence[bool], dwell: int, steps: int, critic: Critic) -> None:
        """Remember what `memory` returned."""
        self._critic, self._unsafe = critic, deque(unsafe)
        self._left, self.steps = dwell, steps

    def decide(
        self,
        observation: Observation | None,
        proposal: Proposal | None,
        critic: Critic,
        settings: ShieldSettings,
        now: float,
        rng: np.random.Generator,
        late: Callable[[], bool] | None = None,
    ) -> Verdict:
        """Decide on the action for one control period; arguments and result as those of `decide`."""
        if critic is not self._critic:
            self.reset()
            self._critic = critic
        backup = getattr(critic, "backup", None)
        if backup is None or settings.riskiest:
            return decide(observation, proposal, critic, self._contract, settings, now, rng, late)
        often = self._recent(backup) >= backup.most
        has = bool(self._left) or often
        verdict = decide(observation, proposal, critic, self._contract, settings, now, rng, late, search=not has)
        if verdict.decision is Decision.HELD or observation is None:
            return verdict
        unsafe = verdict.decision is not Decision.PASSED
        while len(self._unsafe) >= max(backup.window, backup.history):
            self._unsafe.popleft()
        self._unsafe.append(unsafe)
        if unsafe and has:
            again = sum(self._unsafe) // max(backup.most, 1) if backup.history else 1
            self._left = max(min(backup.dwell * again, backup.history), backup.dwell)
        elif self._left:
            self._left -= 1
        action = self._contract.clip(np.array(backup.action))
        if self._left:
            self.steps += 1
            why = verdict.reason or f"proposals must be safe for {self._left} more decisions"
            if often and unsafe:
                last = min(len(self._unsafe), backup.window)
                why = f"{why}; {self._recent(backup)} of the last {last} proposals were unsafe"
            score = _score(critic, observation, action)
            reason = f"backup, decision {self.steps}: {why}"
            return replace(verdict, decision=Decision.BACKUP, action=action, q_action=score, reason=reason)
        self.steps = 0
        if verdict.decision is Decision.LEAST_RISK:
            # One more candidate: where nothing near the proposal is safe, the way out may be.
            score = _score(critic, observation, action)
            if score <= verdict.q_action:
                reason = f"backup, one decision: {verdict.reason}"
                return replace(verdict, decision=Decision.BACKUP, action=action, q_action=score, reason=reason)
        return verdict


def _score(critic: Critic, observation: Observation, action: np.ndarray) -> float:
    """Return Q_safe, or the margin, of one action; NaN where the critic has no number for it."""
    score = float(critic.logits(observation.vector, action[np.newaxis])[0])
    if not math.isfinite(score):
        return math.nan
    return sigmoid(score) if critic.rule is Rule.PROBABILITY else score
