"""How the contract's inputs come: rate, jitter, age and clock of each, and what is wrong with them, in words.

A reading's age is bounded three ways: by its stamp, by when its stamp last changed on the steady clock, and by a stamp
that lies in the future. So a driver without stamps, with a clock that stands still, runs ahead or behind, or began at
its own boot, is seen within one control period. What is late because messages take longer and shorter (jitter), or
because the node's own clock jumped, is told apart from a driver that is at fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ssql_ros.contract.contract import Contract, Input
from ssql_ros.contract.frames import Frame, FrameAligner
from ssql_ros.contract.stamped import NANOSECONDS

# Share of the newest interval in the mean of intervals: what is shown is of the last second or so.
SMOOTHING = 0.05
# As RFC 3550 has it, of messages' delays.
JITTER_SMOOTHING = 1 / 32
JUMPED = 0.5  # s, by which a clock goes on at once where it jumps
RUNNING = 20.0  # times as fast as the steady clock, a simulation may run
CLOCKS = "synchronise the clocks (chrony, PTP), or state `stamps: arrival` for this input in the contract"


@dataclass
class InputHealth:
    """What was heard of one input.

    Attributes:
        stamp: ns, of the newest message; None before the first.
        arrival: s on the steady clock, when the newest message came.
        changed: s on the steady clock, when a message with another stamp than before came last.
        offset: s, by how much that message's stamp lay ahead of the node's clock.
        interval, jitter: s, mean of the intervals between arrivals, and their mean deviation from it.
        varies: s, mean of how much longer or shorter a message took than the one before it.
        delay: s, by some clock, that the newest message took; only its changes say something.
        simulated: the node's clock is /clock.
    """

    stamp: int | None = None
    arrival: float = -math.inf
    changed: float = -math.inf
    offset: float = 0.0
    interval: float = 0.0
    jitter: float = 0.0
    messages: int = 0
    varies: float = 0.0
    delay: float | None = None
    simulated: bool = False

    def hear(self, stamp: int, now: float, clock: int) -> None:
        """Take in a message. `now`: s on the steady clock; `clock`: ns on the node's clock, 0: it is not set."""
        self.messages += 1
        self.arrival = now
        if stamp == self.stamp:
            return
        # Against the steady clock, which does not jump; a simulation runs as fast as it can.
        delay = (clock - stamp) / NANOSECONDS if self.simulated and clock else now - stamp / NANOSECONDS
        if self.delay is not None:
            # A pause of the whole stream is one long delay.
            apart = min(abs(delay - self.delay), max(0.1, 5.0 * self.interval))
            self.varies += JITTER_SMOOTHING * (apart - self.varies)
        self.delay = delay
        if self.stamp is not None and now - self.changed < 10.0:
            apart = now - self.changed
            share = SMOOTHING if self.interval else 1.0
            self.jitter += share * (abs(apart - self.interval) - self.jitter) if self.interval else 0.0
            self.interval += share * (apart - self.interval)
        self.stamp, self.changed = stamp, now
        self.offset = (stamp - clock) / NANOSECONDS if clock else 0.0

    def jitters(self, limit: float, period: float) -> str:
        """Return that its messages' delays vary by more than an age limit (s) bears, or an empty text."""
        # What was held up and comes all at once differs by a period from one to the next.
        if self.varies <= max(0.5 * limit, 1.1 * period):
            return ""
        return (
            f"jitter: the delay of its messages varies by {1e3 * self.varies:.0f} ms from one to the next, more than "
            f"a limit of {limit:g} s bears; look at the network and the load"
        )

    @property
    def rate(self) -> float:
        """Return how many messages a second come, Hz; 0: not known."""
        return 1.0 / self.interval if self.interval else 0.0


class Freshness:
    """Judges whether what was heard of a contract's inputs may be decided on.

    Args:
        simulated: the node's clock is /clock.
        names: of the inputs that are heard; none: those that the frame reads.

    Attributes:
        inputs: by name; answers: of proposals that are stamped.
    """

    def __init__(self, contract: Contract, simulated: bool = False, names: Iterable[str] = ()) -> None:
        self.contract, self.simulated = contract, simulated
        self.inputs = {name: InputHealth(simulated=simulated) for name in names or contract.observed_inputs}
        self.answers = InputHealth(simulated=simulated)
        self._ahead = contract.observed.max_skew
        if simulated:
            # /clock comes beside the sensors, and one step of it may still be on its way.
            self._ahead += 2.0 * contract.control_period
        self._clock: tuple[float, int] | None = None  # steady and node's clock, of the last look
        self._jumped = 0.0  # s, by how much the node's clock did, since all was well

    def fault(self, aligner: FrameAligner, newest: Frame | None, now: float, clock: int) -> str:
        """Return why the newest frame may not be decided on, or an empty text.

        Args:
            newest: the newest whole frame, None before the first.
            now: s on the steady clock; clock: ns on the node's clock, 0: it is not set.
        """
        self._follow_clock(now, clock)
        fault = self._find_fault(aligner, newest, now, clock)
        if not fault:
            self._jumped = 0.0
        return fault

    def _follow_clock(self, now: float, clock: int) -> None:
        if clock and self._clock is not None:
            passed, went = now - self._clock[0], (clock - self._clock[1]) / NANOSECONDS
            if abs(went) > JUMPED + RUNNING * passed:
                self._jumped += went - passed
        self._clock = (now, clock) if clock else self._clock

    def _jump(self, topic: str, behind: float) -> str:
        """Return that the node's clock jumped and a topic's stamps did not, which are `behind` s; or an empty text."""
        jumped = self._jumped
        if not jumped or abs(behind - jumped) > max(JUMPED, 0.2 * abs(jumped)):
            return ""
        which, hint = (
            "this computer's clock",
            "was the time set? synchronise the clocks (chrony, PTP) before drivers start",
        )
        if self.simulated:
            which, hint = "/clock", "do two nodes publish it, or was a simulation begun anew?"
        side = "ahead" if jumped > 0.0 else "back"
        return f"{which} jumped {abs(jumped):.3f} s {side}, and the stamps of {topic} did not: {hint}"

    def _find_fault(self, aligner: FrameAligner, newest: Frame | None, now: float, clock: int) -> str:
        if self.simulated and not clock and any(health.messages for health in self.inputs.values()):
            return "use_sim_time is set, but no /clock comes: start the simulation's clock, or set use_sim_time false"
        for name, health in self.inputs.items():
            if fault := self._fault_of(self.contract.inputs[name], health, clock):
                return fault
        if newest is None:
            return self._why_none(aligner)
        for source, stamp, arrival in newest.held:
            name = source.name
            if fault := self._too_old(self.contract.inputs[name], self.inputs[name], stamp, arrival, now, clock):
                # What is older than the newest was left out: by its stamp it belongs to no frame.
                return self._why_behind(aligner, newest) or fault
        return ""

    def waiting(self) -> list[str]:
        """Return the topics of which nothing was heard yet."""
        return [self.contract.inputs[name].topic for name, health in self.inputs.items() if not health.messages]

    def values(self) -> dict[str, str]:
        """Return what there is to show of each input, by name."""
        shown = {}
        trigger = self.inputs[self.contract.observed.trigger]
        for name, health in self.inputs.items():
            source = self.contract.inputs[name]
            if not health.messages:
                shown[source.topic] = "no message yet"
                continue
            words = [f"{health.rate:.1f} Hz", f"jitter {1e3 * max(health.jitter, health.varies):.1f} ms"]
            if source.stamps == "arrival":
                words.append("stamped on arrival")
            else:
                words.append(f"stamp {1e3 * health.offset:+.1f} ms of this clock")
            if name != self.contract.observed.trigger and health.stamp is not None and trigger.stamp is not None:
                skew = (health.stamp - trigger.stamp) / NANOSECONDS
                words.append(
                    f"skew to {self.contract.inputs[self.contract.observed.trigger].topic} {1e3 * skew:+.1f} ms"
                )
            shown[source.topic] = ", ".join(words)
        return shown

    def warning(self) -> str:
        """Return which input comes more slowly than the control rate, or with too much jitter, or an empty text."""
        for name, health in self.inputs.items():
            if jitter := self._jitter(name):
                return f"{self.contract.inputs[name].topic}: {jitter}"
            if health.messages > 1.0 / SMOOTHING and (slow := self.slow(name, health.rate)):
                return slow
        return ""

    def slow(self, name: str, rate: float) -> str:
        """Return that an input that comes at `rate` (Hz; 0: not known) is too slow, or an empty text."""
        triggers = name == self.contract.observed.trigger
        limit = 1.0 / (self.contract.control_period if triggers else self.contract.inputs[name].max_age)
        if not 0.0 < rate < 0.9 * limit:
            return ""
        least = "the control rate of" if triggers else "what its max_age asks for,"
        return f"{self.contract.inputs[name].topic} comes at {rate:.1f} Hz, below {least} {limit:g} Hz"

    def input_fault(self, name: str, now: float, clock: int) -> str:
        """Return why what was heard last of one input may not be decided on, or an empty text; arguments as `fault`."""
        source, health = self.contract.inputs[name], self.inputs[name]
        if health.stamp is None:
            return f"waiting for {source.topic}"
        fault = self._fault_of(source, health, clock)
        return fault or self._too_old(source, health, health.stamp, health.changed, now, clock)

    def _fault_of(self, source: Input, health: InputHealth, clock: int) -> str:
        if health.stamp is None or source.stamps == "arrival":
            return ""
        if health.stamp == 0:
            return (
                f"{source.topic}: header.stamp is 0; let the driver stamp its messages, or state `stamps: arrival` for "
                "this input in the contract"
            )
        ahead = (health.stamp - clock) / NANOSECONDS
        if clock and ahead > self._ahead:
            if jump := self._jump(source.topic, -ahead):
                return jump
            which = "/clock (is use_sim_time right, and does /clock go on?)" if self.simulated else "this clock"
            return f"{source.topic}: stamped {ahead:.3f} s ahead of {which}; {CLOCKS}"
        return ""

    def jitter_of_answers(self) -> str:
        """Return that proposals come with more jitter than the driver's time-out bears, or an empty text."""
        return self.answers.jitters(self.contract.command_timeout, self.contract.control_period)

    def _jitter(self, name: str) -> str:
        health, source = self.inputs[name], self.contract.inputs[name]
        return "" if source.stamps == "arrival" else health.jitters(source.max_age, self.contract.control_period)

    def _why_none(self, aligner: FrameAligner) -> str:
        if waiting := self.waiting():
            return f"no observation yet: waiting for {', '.join(waiting)}"
        return self._why_behind(aligner, None) or "no observation yet"

    def _why_behind(self, aligner: FrameAligner, newest: Frame | None) -> str:
        """Return which input's stamps lie so far from the trigger's that no frame can hold it, or an empty text."""
        trigger = aligner.newest_trigger
        if newest is not None and (trigger is None or trigger - newest.stamp < 2 * self.contract.control_period * 1e9):
            return ""
        observed, inputs = self.contract.observed, self.contract.inputs
        for name, features in aligner.missing(trigger).items():
            source, health = inputs[name], self.inputs[name]
            if health.stamp is None:
                return f"waiting for {source.topic}"
            for one in (name, observed.trigger):
                if jitter := self._jitter(one):
                    return f"{inputs[one].topic}: {jitter}"
            apart = 0.0 if trigger is None else (health.stamp - trigger) / NANOSECONDS
            if name == observed.trigger or abs(apart) <= source.max_age:
                return (
                    f"{source.topic}: nothing of {', '.join(features)} for {source.max_age:g} s; {self.contract.path} "
                    "lists it: does its driver run, and are the names right?"
                )
            side = "before" if apart < 0 else "after"
            return (
                f"{source.topic} is stamped {abs(apart):.3f} s {side} {inputs[observed.trigger].topic} (max_age "
                f"{source.max_age:g} s): one of them uses another clock, such as seconds since its own boot; {CLOCKS}"
            )
        return ""

    def _too_old(self, source: Input, health: InputHealth, stamp: int, arrival: float, now: float, clock: int) -> str:
        limit, since = source.max_age, now - arrival
        by_stamp = (clock - stamp) / NANOSECONDS if clock and source.stamps != "arrival" else 0.0
        if by_stamp > limit and (jump := self._jump(source.topic, by_stamp - since)):
            return f"observation is stale: {jump}"
        if max(since, by_stamp) > limit and (jitter := self._jitter(source.name)):
            return f"observation is stale: {source.topic}: {jitter}"
        if since > limit:
            still = health.stamp is not None and now - health.arrival <= limit < now - health.changed
            why = (
                f"its stamp stands still at {stamp / NANOSECONDS:.3f} s though messages come: the driver's clock hangs"
                if still
                else f"no newer one for {since:.3f} s"
            )
            return f"observation is stale: {source.topic}: {why} (limit {limit:g} s)"
        if by_stamp > limit:
            return (
                f"observation is stale: {source.topic} came {since:.3f} s ago, but is {by_stamp:.3f} s old by stamp "
                f"(limit {limit:g} s): its clock is behind this one by about {by_stamp - since:.3f} s, or the "
                f"transport takes that long; {CLOCKS}"
            )
        return ""


def fallen(contract: Contract, frame: np.ndarray) -> str:
    """Return that a robot reads as inside its failure set in a frame (n_frame,), and what that may come of; or ""."""
    judged = contract.judged(frame)
    if not judged.margin > 0.0:
        return ""
    named = (f for f in contract.observed.frame if judged.cause.startswith(f"{f.name} "))
    feature = next(named, None)
    hint = ""
    if feature is not None and feature.field.startswith("orientation."):
        hint = "; if the robot stands upright, is the quaternion w first, or the IMU mounted another way?"
    return f"the robot reads as inside its failure set: {judged.words()}{hint}"
