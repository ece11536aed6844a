"""Assembles transitions (s, a, r, s') from what a robot publishes, by stamps: live, in whatever order it arrives.

Everything about one control period carries the stamp of its observation: readings, the proposal that answers it with
its context, the action that was executed, the position that the reward is taken from. Messages wait until all of their
period is there, or until newer ones are so far ahead that the missing will not come. Pure: no messages, no clock.

Counted, never hidden: duplicates, late messages (their period is over), periods without an action or a reading, and
transitions that were dropped for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ssql_ros.spec import Contract, ObservationAssembler
from ssql_ros.spec.observation import NANOSECONDS

# Transitions join observations whose stamps are one period apart, give or take this fraction of it.
TOLERANCE = 0.5
# Actions that a reward may look back on, the newest included.
REMEMBERED = 3


class Reward(Protocol):
    """What one step is worth."""

    @property
    def input(self) -> str:
        """Return the name of the contract's input that it reads."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the fields that it reads of that input's messages."""

    def __call__(self, before: np.ndarray, after: np.ndarray, actions: Sequence[np.ndarray]) -> float:
        """Return the reward of a step.

        Args:
            before, after: (n_fields,), the values at the step's begin and end.
            actions: executed, newest first, up to `REMEMBERED` of this episode.
        """


@dataclass(frozen=True)
class LiveTransition:
    """One step.

    Attributes:
        stamp: ns, of the observation that the action answers.
        observation, following: (n_observation,).
        context, following_context: (n_context,), what the behaviour policy knew beside them; zeros at an incident.
        action: (n_action,), executed.
        first: True for the first step of an episode.
        incident: I(s').
        proposal: (n_action,), what the controller wanted; the action itself where no proposal told it.
    """

    stamp: int
    observation: np.ndarray
    context: np.ndarray
    action: np.ndarray
    reward: float
    following: np.ndarray
    following_context: np.ndarray
    incident: bool
    first: bool
    proposal: np.ndarray


@dataclass
class _Period:
    """What is known of one control period."""

    readings: dict[str, np.ndarray] = field(default_factory=dict)
    action: np.ndarray | None = None
    context: np.ndarray | None = None
    proposal: np.ndarray | None = None
    place: np.ndarray | None = None


@dataclass
class _Step:
    """An observation that waits for its successor."""

    stamp: int
    observation: np.ndarray
    period: _Period
    place: np.ndarray
    first: bool


class TransitionAssembler:
    """Puts together what carries the same stamp, in the order of stamps.

    Args:
        reward: what a step is worth.
        n_context: of the behaviour policy; 0: proposals are not waited for.
        window: s, how far newer messages must be ahead before an incomplete period is given up.

    Attributes:
        counts: duplicates, late, incomplete (periods), dropped and made (transitions), episodes.
    """

    def __init__(self, contract: Contract, reward: Reward, n_context: int, window: float = 0.2) -> None:
        self.counts: Counter[str] = Counter()
        self._contract, self._reward, self._n_context = contract, reward, n_context
        self._window = round(window * NANOSECONDS)
        self._period = contract.control_period * NANOSECONDS
        self._gap = round(contract.observed.episode_gap * NANOSECONDS)
        self._periods: dict[int, _Period] = {}
        self._assembler = ObservationAssembler(contract)
        self._waiting: _Step | None = None
        self._actions: list[np.ndarray] = []
        self._done: int | None = None
        self._newest = 0
        self._episode_over = False

    def read(self, name: str, stamp: int, values: np.ndarray) -> None:
        """Take in a reading of the contract's input `name`, in the frame's order."""
        period = self._at(stamp)
        if period is not None:
            if name in period.readings:
                self.counts["duplicates"] += 1
            period.readings.setdefault(name, values)

    def locate(self, stamp: int, values: np.ndarray) -> None:
        """Take in the values (n_fields,) that the reward reads."""
        period = self._at(stamp)
        if period is not None:
            if period.place is not None:
                self.counts["duplicates"] += 1
            period.place = values if period.place is None else period.place

    def propose(self, stamp: int, action: np.ndarray, context: np.ndarray) -> None:
        """Take in a proposal: its action (n_action,), and the context (n_context,) that it was drawn in."""
        period = self._at(stamp)
        if period is not None and period.context is None:
            period.context, period.proposal = context, action

    def execute(self, stamp: int, action: np.ndarray) -> None:
        """Take in the action (n_action,) that went to the robot for this observation. A later one replaces it."""
        period = self._at(stamp)
        if period is not None:
            period.action = action

    def _at(self, stamp: int) -> _Period | None:
        if self._done is not None and stamp <= self._done:
            # Time that has jumped far back is a new world's: what came before is over.
            if self._newest - stamp > max(10 * self._window, self._gap):
                self._restart()
            else:
                self.counts["late"] += 1
                return None
        self._newest = max(self._newest, stamp)
        return self._periods.setdefault(stamp, _Period())

    def _restart(self) -> None:
        self.counts["dropped"] += self._waiting is not None
        self._periods.clear()
        self._waiting, self._done, self._newest, self._episode_over = None, None, 0, False

    def take(self) -> list[LiveTransition]:
        """Return the transitions that are complete by now, in the order of stamps."""
        made = []
        for stamp in sorted(self._periods):
            period = self._periods[stamp]
            # After a gap, a period of which nothing has come yet may still lie between.
            next_one = self._done is not None and stamp - self._done <= (1.0 + TOLERANCE) * self._period
            if not (next_one and self._complete(period)) and self._newest - stamp <= self._window:
                break
            del self._periods[stamp]
            self._done = stamp
            made += self._end_of_step(stamp, period)
        return made

    def _complete(self, period: _Period) -> bool:
        observed = period.place is not None and len(period.readings) == len(self._contract.observed_inputs)
        answered = period.action is not None and (period.context is not None or self._n_context == 0)
        return observed and answered

    def _end_of_step(self, stamp: int, period: _Period) -> list[LiveTransition]:
        """Judge one period: it ends the step before it, and begins another."""
        before, self._waiting = self._waiting, None
        episode = self._assembler.episode
        whole = False
        # The trigger last, as it comes: it completes the frame.
        trigger = self._contract.observed.trigger
        for name in sorted(period.readings, key=lambda name: name == trigger):
            whole = self._assembler.read(name, stamp, 0.0, period.readings[name]) or whole
        if not whole or period.place is None:
            self.counts["incomplete"] += 1
            self.counts["dropped"] += before is not None
            self._actions.clear()
            return []
        new_episode = self._assembler.episode != episode
        if new_episode:
            self.counts["episodes"] += 1
            self._actions.clear()
            self._episode_over = False
        observation, incident = self._assembler.vector(), self._contract.margin(self._assembler.frame)[0] > 0.0
        made = [] if before is None else self._joined(before, stamp, observation, incident, period, new_episode)
        self._episode_over |= incident
        if period.action is None or (period.context is None and self._n_context):
            # An episode's last observation has no answer: that is no loss.
            self.counts["incomplete"] += not self._episode_over
            self._actions.clear()
            return made
        self._assembler.executed(period.action)
        if not self._episode_over:
            self._waiting = _Step(stamp, observation, period, period.place, new_episode)
        return made

    def _joined(
        self, before: _Step, stamp: int, observation: np.ndarray, incident: bool, period: _Period, new_episode: bool
    ) -> list[LiveTransition]:
        apart = abs(stamp - before.stamp - self._period)
        context = period.context if period.context is not None else np.zeros(self._n_context)
        unknown = period.context is None and self._n_context > 0 and not incident
        if new_episode or apart > TOLERANCE * self._period or unknown:
            # What followed the last observation of an episode is not known: its step says nothing.
            self.counts["dropped"] += not new_episode
            return []
        action, proposal = before.period.action, before.period.proposal
        if action is None or self._assembler.episode == 0:
            return []
        self._actions = [action, *self._actions][:REMEMBERED]
        reward = self._reward(before.place, period.place, self._actions)  # type: ignore[arg-type]
        self.counts["made"] += 1
        known = before.period.context if before.period.context is not None else np.zeros(0)
        return [
            LiveTransition(
                stamp=before.stamp,
                observation=before.observation,
                context=known,
                action=action,
                reward=reward,
                following=observation,
                following_context=context,
                incident=bool(incident),
                first=before.first,
                proposal=action if proposal is None else proposal,
            )
        ]
