"""Assembles transitions (s, a, r, s') from what a robot publishes: beside the robot, and from its bags.

Frames are those of `contract.frames`, one a control period; observations are those of `contract.observation`, as the
shield and the policy have them. A row joins two frames one period apart. What the reward reads is held like any other
input. The action is the newest command not later than half a period after the frame, and not older than the driver's
time-out. An episode ends at an incident, where whoever ran it says so, where the robot was put elsewhere, and at a gap.
After an incident the next one begins when the state has been safe for `RECOVERY`: what trembles on the edge of the
failure set is one incident, and a state that is back is no less a state. Nothing waits for ever: what is `WINDOW`
behind the newest trigger is decided on. Every period is accounted for. Pure: no messages, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ssql_ros.contract import Contract, ObservationAssembler
from ssql_ros.contract.frames import Frame
from ssql_ros.contract.leaps import place_leap
from ssql_ros.contract.stamped import HORIZON, JUMP, NANOSECONDS, WINDOW, StampedBuffer

# Beside the names of the contract's inputs: what was executed, what the reward reads, what the behaviour policy knew,
# what the controller wanted, where an episode was ended by whoever ran it, and whether an operator had the robot.
COMMAND, PLACE, CONTEXT, PROPOSED, ENDING = "command", "place", "context", "proposed", "ending"
INTERVENTION = "intervention"
# Actions that a reward may look back on, the newest included.
REMEMBERED = 3
RECOVERY = 0.5  # s

# What becomes of a period other than a row, and why.
LEFT_OUT = {
    "lost": "no trigger came in this control period",
    "unobserved": "an input, or what the reward reads, was missing or older than its max_age",
    "unanswered": "no command within the driver's time-out",
    "inside": "the state was inside the failure set: it ends a row, and none begins there",
    "recovering": "after an incident, the state had not been safe for long enough",
    "unfollowed": "no period followed: an episode's last one, or the next was lost",
}
# Messages that were not used.
UNUSED = {
    "between": "triggers faster than the control period: another was nearer to it",
    "duplicates": "messages that were there already",
    "late": "triggers that came when their period was decided on",
    "unstamped": "messages without a stamp (commands without one answer the newest trigger)",
    "unreadable": "messages that are not whole, or hold what the contract refuses",
    "foreign": "messages that hold nothing that the contract reads, such as another robot's joints",
    "contradictions": "messages that contradict another of the same stamp",
}


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


@dataclass
class _Step:
    """A frame with its action, that waits for its successor."""

    stamp: int
    observation: np.ndarray
    margin: float
    action: np.ndarray
    place: np.ndarray | None
    context: np.ndarray
    proposal: np.ndarray
    intervention: bool


class TransitionAssembler:
    """Makes rows (see dataset.transition_columns) of messages in any order that is not too far off.

    Args:
        reward: None: rewards are 0.
        sink: takes each row.
        n_context: numbers of the behaviour policy's context in a row; NaN where it is not known.
        recovery: s, how long the state must be safe again after an incident before an episode begins.
        with_proposals: rows have "proposal" too: what the controller wanted, or what was executed where that is not
            known.
        with_interventions: rows have "intervention" too.

    Attributes:
        counts: periods, which are rows and those of `LEFT_OUT`; `UNUSED`; episodes, incidents, clock_jumps,
            resets: how often the robot was put elsewhere (see `contract.leaps`).
        first_reset: the first of them, in words.
    """

    def __init__(
        self,
        contract: Contract,
        reward: Reward | None,
        sink: Callable[[dict[str, Any]], None],
        n_context: int = 0,
        recovery: float = RECOVERY,
        with_proposals: bool = False,
        with_interventions: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.first_reset = ""
        self._contract, self._reward, self._sink = contract, reward, sink
        self._period = round(contract.control_period * NANOSECONDS)
        self._skew = min(round(contract.observed.max_skew * NANOSECONDS), self._period // 2)
        self._timeout = round(contract.command_timeout * NANOSECONDS)
        self._trigger = contract.observed.trigger
        self._place_age = 0 if reward is None else round(contract.inputs[reward.input].max_age * NANOSECONDS)
        self._no_context, self._with_proposals = np.full(n_context, np.nan), with_proposals
        self._with_interventions = with_interventions
        self._recovery = round(recovery * NANOSECONDS)
        self._episode = -1
        self._restart()

    def _restart(self) -> None:
        """Forget everything: another beginning of time."""
        self._assembler = ObservationAssembler(self._contract, self.counts)
        self._held: dict[str, StampedBuffer[np.ndarray]] = {
            role: StampedBuffer() for role in (PLACE, CONTEXT, PROPOSED, ENDING, INTERVENTION)
        }
        self._newest: dict[str, int] = {}  # stamp, by role
        self._settled: int | None = None  # stamp of the newest frame that was decided on
        self._inside: int | None = None  # newest frame in the failure set, of the history that goes on
        self._before: _Step | None = None
        self._placed: tuple[int, np.ndarray] | None = None  # what the reward read last, of the history that goes on
        self._actions: list[np.ndarray] = []

    def feed(self, role: str, stamp: int, values: np.ndarray, time: int = 0) -> None:
        """Take in one message: of an input by name, or in one of the roles above.

        Args:
            stamp: ns, of the message; 0: not set.
            values: see `bags.roles.reader_for`.
            time: ns, when it came; what counts for inputs whose contract says `stamps: arrival`.

        Raises:
            ContractError: it contradicts another message; neither is used.
        """
        source = self._contract.inputs.get(role) or (
            self._contract.inputs[self._reward.input] if role == PLACE and self._reward is not None else None
        )
        if source is not None and source.stamps == "arrival" and time:
            stamp = time
        if stamp == 0:
            if role != COMMAND or self._trigger not in self._newest:
                self.counts["unstamped"] += 1
                return
            stamp = self._newest[self._trigger]
        newest = self._newest.get(role, stamp)
        # Each topic against its own past: clocks of different devices may be apart.
        if self._assembler.frames.restarts_at(role, stamp):
            self._begin_anew(stamp)
            newest = stamp
        elif stamp < newest - JUMP:
            self._settle_all()
            newest = stamp
            if role in self._held:
                self._held[role].clear()
        self._newest[role] = max(newest, stamp)
        if role in self._contract.inputs:
            self._read(role, stamp, values)
            return
        if self._is_pausing(stamp):
            self._settle_all()
        if role == COMMAND:
            self._assembler.executed(values, stamp)
        elif not self._held[role].add(stamp, values):
            self.counts["duplicates"] += 1
        elif role == ENDING:
            self._assembler.frames.cut_after(stamp + self._period // 2)

    def _is_pausing(self, stamp: int) -> bool:
        """Tell whether the trigger pauses: what waits for it is about to be forgotten."""
        trigger = self._assembler.frames.newest_trigger
        return trigger is not None and stamp > trigger + HORIZON

    def _read(self, name: str, stamp: int, values: np.ndarray) -> None:
        if name != self._trigger and self._is_pausing(stamp):
            self._settle_all()
        self._assembler.take(name, stamp, 0.0, values)
        if name == self._trigger and (trigger := self._assembler.frames.newest_trigger) is not None:
            self._settle(trigger - WINDOW)

    def finish(self) -> None:
        """Decide on what is left, as nothing more will come before a new beginning."""
        self._settle_all()
        self._drop_step()
        self._restart()

    def _begin_anew(self, stamp: int) -> None:
        """A clock was set back, or a simulation begun again: decide on what was before, and keep what came since."""
        self._settle_all()
        self._drop_step()
        self.counts["clock_jumps"] += 1
        self._settled, self._inside, self._placed = None, None, None
        for held in self._held.values():
            held.begin_anew(stamp)
        self._newest = {role: newest for role, newest in self._newest.items() if newest <= stamp + WINDOW}

    def _settle_all(self) -> None:
        trigger = self._assembler.frames.newest_trigger
        if trigger is not None:
            self._settle(trigger + 1)

    def _settle(self, until: int) -> None:
        """Decide on the frames before `until`."""
        aligner = self._assembler.frames
        frames = aligner.frames
        at = len(frames)
        while at and (self._settled is None or frames[at - 1].stamp > self._settled):
            at -= 1
        if at == len(frames) or frames[at].stamp >= until:
            return
        aligner.refresh()
        while at < len(frames) and frames[at].stamp < until:
            frame = frames[at]
            at += 1
            self._decide(frame, frames[at].stamp if at < len(frames) else None)
            self._settled = frame.stamp
        # Triggers of which none was a frame, of those that have been decided on.
        self.counts["between"] = self.counts["triggers"] - self.counts["frames"] - (len(frames) - at)

    def _drop_step(self) -> None:
        """The step that waits has no successor."""
        if self._before is not None:
            self._leave_out("unfollowed")
        self._before = None
        self._actions.clear()

    def _decide(self, frame: Frame, next_stamp: int | None) -> None:
        """Judge one frame: it ends the step before it, and begins another. `next_stamp`: ns, of the next frame."""
        counts, stamp, assembler = self.counts, frame.stamp, self._assembler
        lost = max(0, frame.steps - 1)
        counts["periods"] += 1 + lost
        counts["frames"] += 1
        counts["lost"] += lost
        place = self._place_at(stamp)
        if frame.values is None or (place is None and self._reward is not None):
            counts["unobserved"] += 1
            self._drop_step()
            return
        self._find_place_leap(frame)
        if frame.leap:
            counts["resets"] += 1
            self.first_reset = self.first_reset or f"at {stamp / NANOSECONDS:.3f} s {frame.leap}"
        begins = assembler.before(frame) is None
        if begins or frame.steps != 1:
            self._drop_step()
        if begins:
            self._inside = None
        observation, margin = assembler.vector(frame), self._contract.margin(frame.values)[0]
        inside, context = margin > 0.0, self._context(stamp)
        if self._before is not None:
            self._emit(self._before, observation, inside, place, context)
        self._before = None
        command = assembler.action_at(stamp, next_stamp)
        if command is not None and stamp - command[0] > self._timeout:
            command = None
        last = self._is_last(stamp)
        self._inside = stamp if inside else self._inside
        if inside:
            self._leave_out("inside")
        elif self._inside is not None and stamp - self._inside < self._recovery:
            self._leave_out("recovering")
        elif last or command is None:
            self._leave_out("unfollowed" if last else "unanswered")
        else:
            proposal = self._near(PROPOSED, stamp)
            proposal = command[1] if proposal is None else proposal
            intervention = self._has_intervened(stamp)
            self._before = _Step(stamp, observation, margin, command[1], place, context, proposal, intervention)
        if last:
            self._inside = None

    def _leave_out(self, why: str) -> None:
        """No step begins here: an episode is cut."""
        self.counts[why] += 1
        self._actions.clear()

    def _place_at(self, stamp: int) -> np.ndarray | None:
        """Return what the reward reads at a frame, held as any other input is."""
        held = self._held[PLACE]
        at = held.choose(stamp, self._skew, self._place_age)
        return None if at is None else held.values[at]

    def _find_place_leap(self, frame: Frame) -> None:
        """Begin a history at a frame where what the reward reads shows that the robot was put elsewhere."""
        held, reward = self._held[PLACE], self._reward
        at = held.choose(frame.stamp, self._skew, self._place_age)
        if at is None or reward is None:
            return
        placed, self._placed = self._placed, (held.stamps[at], held.values[at])
        if placed is None or self._assembler.before(frame) is None:
            return
        way, elapsed = held.values[at] - placed[1], held.stamps[at] - placed[0]
        if leap := place_leap(self._contract, reward.input, reward.fields, way, elapsed):
            self._assembler.frames.leap_at(frame, leap)

    def _near(self, role: str, stamp: int) -> np.ndarray | None:
        """Return what was said in a role within half a period of a frame."""
        found = self._held[role].until(stamp + self._period // 2)
        return None if found is None or stamp - found[0] > self._period // 2 else found[1]

    def _has_intervened(self, stamp: int) -> bool:
        """Tell whether an operator had the robot at a frame: by its account, or else by the one before."""
        found = self._held[INTERVENTION].until(stamp)
        return found is not None and stamp - found[0] < 1.5 * self._period and bool(found[1][0])

    def _context(self, stamp: int) -> np.ndarray:
        """Return the context of the proposal that answers the frame; NaN where there is none."""
        found = self._near(CONTEXT, stamp) if len(self._no_context) else None
        return self._no_context if found is None or len(found) != len(self._no_context) else found

    def _is_last(self, stamp: int) -> bool:
        """Tell whether whoever ran the episode said that this frame is its last."""
        return self._near(ENDING, stamp) is not None

    def _emit(
        self, step: _Step, next_observation: np.ndarray, incident: bool, place: np.ndarray | None, context: np.ndarray
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
            "next_observation": next_observation,
            "margin": step.margin,
            "incident": incident,
            "terminal": incident,
            "episode": self._episode,
            "stamp": step.stamp,
        }
        if len(self._no_context):
            row |= {"context": step.context, "next_context": context}
        if self._with_proposals:
            row["proposal"] = step.proposal
        if self._with_interventions:
            row["intervention"] = step.intervention
        self._sink(row)


def account(counts: Counter[str], names: Iterable[str]) -> dict[str, int]:
    """Return those of `names` that were counted at all."""
    return {name: counts[name] for name in names if counts[name]}
