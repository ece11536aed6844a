"""Aligns stamped readings to the control period, and makes rows of transitions of them.

A frame is taken once a control period: the trigger message nearest to one period after the frame before. Other inputs
are held: the newest one that is not later than the frame's stamp plus `max_skew` (at most half a period), and not
older than its `max_age`. The action is the newest command not later than half a period after the frame, not older than
the driver's time-out.
An episode ends at an incident, where whoever ran it says so, and at a gap. After an incident the next one begins when
the state has been safe for `RECOVERY`: what trembles on the edge of the failure set is one incident, and a state that
is back is no less a state. Nothing waits for ever: what is `WINDOW` behind the newest trigger is decided on. Every
period is accounted for.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssql_ros.bags.held import HORIZON, JUMP, WINDOW, Held
from ssql_ros.bags.roles import COMMAND, CONTEXT, ENDING, PLACE
from ssql_ros.spec import Contract, ObservationAssembler
from ssql_ros.spec.observation import NANOSECONDS
from ssql_ros.transitions import REMEMBERED, Reward

RECOVERY = 0.5  # s

# What becomes of a period other than a row, and why.
LEFT_OUT = {
    "between": "triggers faster than the control period: another was nearer to it",
    "unobserved": "an input, or what the reward reads, was missing or older than its max_age",
    "unanswered": "no command within the driver's time-out",
    "inside": "the state was inside the failure set: it ends a row, and none begins there",
    "recovering": "after an incident, the state had not been safe for long enough",
    "unfollowed": "no period followed: an episode's last one, or the next was lost",
}
# Messages that were not used.
UNUSED = {
    "duplicates": "messages with a stamp that was there already",
    "late": "triggers that came when their period was decided on",
    "unstamped": "messages without a stamp (commands without one answer the newest trigger)",
    "unreadable": "messages that are not whole, or hold what the contract refuses",
}


@dataclass
class _Step:
    """A frame with its action, that waits for its successor."""

    stamp: int
    observation: np.ndarray
    margin: float
    action: np.ndarray
    place: np.ndarray | None
    context: np.ndarray


class Aligner:
    """Makes rows (see dataset.transition_columns) of messages in any order that is not too far off.

    Args:
        reward: None: rewards are 0.
        sink: takes each row.
        n_context: numbers of the behaviour policy's context in a row; NaN where it is not known.
        recovery: s, how long the state must be safe again after an incident before an episode begins.

    Attributes:
        counts: periods, which are rows and those of `LEFT_OUT`; `UNUSED`; episodes, incidents, clock_jumps.
    """

    def __init__(
        self,
        contract: Contract,
        reward: Reward | None,
        sink: Callable[[dict[str, Any]], None],
        n_context: int = 0,
        recovery: float = RECOVERY,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._contract, self._reward, self._sink = contract, reward, sink
        self._period = round(contract.control_period * NANOSECONDS)
        # What is nearer to the next frame belongs to that one.
        self._skew = min(round(contract.observed.max_skew * NANOSECONDS), self._period // 2)
        self._timeout = round(contract.command_timeout * NANOSECONDS)
        self._trigger = contract.observed.trigger
        self._others = [name for name in contract.observed_inputs if name != self._trigger]
        self._max_age = {name: round(source.max_age * NANOSECONDS) for name, source in contract.inputs.items()}
        if reward is not None:
            self._max_age[PLACE] = self._max_age[reward.input]
        self._needed = self._others if reward is None else [*self._others, PLACE]
        self._no_context = np.full(n_context, np.nan)
        self._recovery = round(recovery * NANOSECONDS)
        self._episode = -1
        self._restart()

    def _restart(self) -> None:
        """Forget everything: another beginning of time."""
        self._assembler = ObservationAssembler(self._contract)
        self._newest: dict[str, int] = {}  # stamp, by role
        self._frames: list[int] = []  # heap of trigger stamps that are not decided on
        self._triggers: dict[int, np.ndarray] = {}
        self._held = {name: Held() for name in (*self._others, COMMAND, PLACE, CONTEXT, ENDING)}
        self._done: int | None = None  # newest trigger decided on
        self._taken: int | None = None  # newest frame
        self._inside: int | None = None  # newest frame in the failure set, of the history that goes on
        self._before: _Step | None = None
        self._actions: list[np.ndarray] = []

    def feed(self, role: str, stamp: int, values: np.ndarray) -> None:
        """Take in one message: of an input by name, or in one of the roles of `roles`. `stamp`: ns; 0: not set."""
        if stamp == 0:
            if role != COMMAND or self._trigger not in self._newest:
                self.counts["unstamped"] += 1
                return
            stamp = self._newest[self._trigger]
        newest = self._newest.get(role, stamp)
        # Each topic against its own past: clocks of different devices may be apart.
        if stamp < newest - JUMP:
            self.finish()
            self.counts["clock_jumps"] += 1
            newest = stamp
        self._newest[role] = max(newest, stamp)
        if role != self._trigger:
            if self._frames and stamp > self._newest[self._trigger] + HORIZON:
                # A pause of the trigger: nothing more comes for what waits, and what it holds is about to be forgotten.
                self._decide_all()
            # The newest command for one frame is what the robot went on with; of anything else it says the same.
            if not self._held[role].add(stamp, values) and role != COMMAND:
                self.counts["duplicates"] += 1
            return
        if self._done is not None and stamp <= self._done:
            self.counts["duplicates" if stamp == self._done else "late"] += 1
            return
        if stamp in self._triggers:
            self.counts["duplicates"] += 1
            return
        self._triggers[stamp] = values
        heapq.heappush(self._frames, stamp)
        due = self._newest[role] - WINDOW
        while self._frames[0] < due:
            self._decide(heapq.heappop(self._frames))

    def finish(self) -> None:
        """Decide on what is left, as nothing more will come before a new beginning."""
        self._decide_all()
        self._drop_step()
        self._restart()

    def _decide_all(self) -> None:
        while self._frames:
            self._decide(heapq.heappop(self._frames))

    def _drop_step(self) -> None:
        """The step that waits has no successor."""
        if self._before is not None:
            self._leave_out("unfollowed")
        self._before = None
        self._actions.clear()

    def _decide(self, stamp: int) -> None:
        """Judge one trigger: as a frame it ends the step before it, and begins another."""
        counts, trigger = self.counts, self._triggers.pop(stamp)
        self._done = stamp
        counts["periods"] += 1
        if self._taken is not None and self._is_between(stamp, self._taken):
            counts["between"] += 1
            return
        self._taken = stamp
        found = self._readings(stamp)
        if found is None:
            counts["unobserved"] += 1
            self._drop_step()
            return
        assembler = self._assembler
        episode = assembler.episode
        for name in self._others:
            # Held to this period: the assembler joins what has one stamp.
            assembler.read(name, stamp, 0.0, found[name])
        assembler.read(self._trigger, stamp, 0.0, trigger)
        before = self._before
        if before is not None and (assembler.episode != episode or 2 * (stamp - before.stamp) > 3 * self._period):
            self._drop_step()
            before = None
        if assembler.episode != episode:
            self._inside = None
        observation, margin = assembler.vector(), self._contract.margin(assembler.frame)[0]
        inside, place, context = margin > 0.0, found.get(PLACE), self._context(stamp)
        if before is not None:
            self._emit(before, observation, inside, place, context)
        self._before = None
        command = self._held[COMMAND].until(stamp + self._period // 2)
        if command is not None and stamp - command[0] > self._timeout:
            command = None
        if command is not None:
            assembler.executed(command[1])
        last = self._is_last(stamp)
        self._inside = stamp if inside else self._inside
        if inside:
            self._leave_out("inside")
        elif self._inside is not None and stamp - self._inside < self._recovery:
            self._leave_out("recovering")
        elif last or command is None:
            self._leave_out("unfollowed" if last else "unanswered")
        else:
            self._before = _Step(stamp, observation, margin, command[1], place, context)
        if last:
            self._assembler, self._inside = ObservationAssembler(self._contract), None

    def _leave_out(self, why: str) -> None:
        """No step begins here: an episode is cut."""
        self.counts[why] += 1
        self._actions.clear()

    def _is_between(self, stamp: int, taken: int) -> bool:
        """Tell whether a trigger is nearer to the frame before than to a period after it, or the next one is nearer."""
        due = taken + self._period
        if 2 * (stamp - taken) < self._period:
            return True
        return stamp < due and len(self._frames) > 0 and abs(self._frames[0] - due) <= due - stamp

    def _readings(self, stamp: int) -> dict[str, np.ndarray] | None:
        """Return what is held for a frame; None where something is missing or too old."""
        found = {}
        for name in self._needed:
            reading = self._held[name].until(stamp + self._skew)
            if reading is None or stamp - reading[0] > self._max_age[name]:
                return None
            found[name] = reading[1]
        return found

    def _context(self, stamp: int) -> np.ndarray:
        """Return the context of the proposal that answers the frame; NaN where there is none."""
        if not len(self._no_context):
            return self._no_context
        found = self._held[CONTEXT].until(stamp + self._period // 2)
        if found is None or stamp - found[0] > self._period // 2 or len(found[1]) != len(self._no_context):
            return self._no_context
        return found[1]

    def _is_last(self, stamp: int) -> bool:
        """Tell whether whoever ran the episode said that this frame is its last."""
        found = self._held[ENDING].until(stamp + self._period // 2)
        return found is not None and stamp - found[0] <= self._period // 2

    def _emit(
        self, step: _Step, following: np.ndarray, incident: bool, place: np.ndarray | None, context: np.ndarray
    ) -> None:
        first = not self._actions
        self._actions = [step.action, *self._actions][:REMEMBERED]
        reward = 0.0
        if self._reward is not None and step.place is not None and place is not None:
            reward = self._reward(step.place, place, self._actions)
        self._episode += first
        self.counts["episodes"] += first
        self.counts["rows"] += 1
        self.counts["incidents"] += incident
        row = {
            "observation": step.observation,
            "action": step.action,
            "reward": reward,
            "following": following,
            "margin": step.margin,
            "incident": incident,
            "terminal": incident,
            "episode": self._episode,
            "stamp": step.stamp,
        }
        if len(self._no_context):
            row |= {"context": step.context, "following_context": context}
        self._sink(row)


def account(counts: Counter[str], names: Iterable[str]) -> dict[str, int]:
    """Return those of `names` that were counted at all."""
    return {name: counts[name] for name in names if counts[name]}
