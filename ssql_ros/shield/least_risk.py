"""The least risky action, while no candidate is safe: it does not change each period, and does not last for ever."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.model.bundle import Rule
from ssql_ros.model.critic import sigmoid
from ssql_ros.shield.decision import Critic, Decision, Observation, Verdict

# s, how long the least risky action may go on with nothing safe before the safe action is held: each is drawn anew.
NOTHING_SAFE = 0.5
# By how much less risky another action must be scored (in logits, a factor of two in the odds; in the margin's unit) to
# take the place of the least risky one before.
CLEARLY = 0.7


class LeastRisk:
    """Remembers the least risky action that the robot has.

    Args:
        contract: its safe action is held in the end.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._since: float | None = None
        self._action = np.empty(0)

    def end(self) -> None:
        """Note that another decision than the least risky one was taken."""
        self._since = None

    def memory(self, now: float) -> tuple[float | None, np.ndarray]:
        """Return for how long, in s, the least risky action has gone on at `now` (None: it does not), and that one."""
        return (None, np.empty(0)) if self._since is None else (now - self._since, self._action)

    def recall(self, seconds: float | None, action: np.ndarray, now: float) -> None:
        """Remember what `memory` returned."""
        self._since, self._action = None if seconds is None else now - seconds, action

    def kept(self, verdict: Verdict, critic: Critic, observation: Observation | None, now: float) -> Verdict:
        """Return a verdict that does not draw another least risky action each period, nor for ever.

        The one before goes on unless the new one is clearly less risky: a robot that is thrown about falls the sooner.

        Args:
            observation: that was decided on.
            now: s, steady clock.
        """
        if verdict.decision is not Decision.LEAST_RISK or observation is None:
            self.end()
            return verdict
        if self._since is None:
            self._since, self._action = now, verdict.action
            return verdict
        if now - self._since >= NOTHING_SAFE:
            reason = f"nothing safe for {now - self._since:.1f} s: {verdict.reason}"
            return replace(verdict, decision=Decision.HELD, action=self._contract.safe_action.copy(), reason=reason)

        def risk(action: np.ndarray) -> float:
            score = float(critic.logits(observation.vector, action[np.newaxis])[0])
            return score if math.isfinite(score) else math.inf

        before = risk(self._action)
        if before - risk(verdict.action) <= CLEARLY:
            account = sigmoid(before) if critic.rule is Rule.PROBABILITY else before
            return replace(verdict, action=self._action, q_action=account)
        self._action = verdict.action
        return verdict
