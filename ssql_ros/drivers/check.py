"""Holds what a driver published against its contract, as a shield would have taken it: see `check_messages`.

The messages go through the reader, the alignment and the judgement of freshness that the shield has, so that what is
found here is what it would have said, all of it at once, and with what helps.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ssql_ros.contract import Contract, ContractError, ObservationAssembler
from ssql_ros.contract.contract import Input
from ssql_ros.contract.fields import JOINT_STATE
from ssql_ros.contract.health import Freshness, fallen
from ssql_ros.contract.messages import InputReader, check_stamp
from ssql_ros.contract.serialised import reader_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.drivers.findings import Finding, Level, said
from ssql_ros.drivers.units import Measured, unit_findings

# Share of the control periods that may lack a whole observation, or have one that is not fresh, and be no error.
LOST = 0.1
PATIENCE = 1.25  # control periods, after which the shield decides without a new observation
ENOUGH = 10  # control periods, below which nothing is said of shares
WHAT_HELPS = {
    "stale": "look at the driver's rate, its load and the network; or state a longer max_age for this input",
    "observation": "see the rows above; what they say is what the shield would wait for",
    "slow": "let the driver publish faster, or state a longer control_period or max_age in the contract",
}


class Message(NamedTuple):
    """One message: topic as the contract has it, type, ns of this computer's clock when it came, CDR.

    Attributes:
        clock: ns, on the clock that stamps are of; 0: it is not set.
    """

    topic: str
    type: str
    time: int
    data: bytes
    clock: int


@dataclass
class _Heard:
    """What came of one input."""

    source: Input
    read: InputReader
    parse: Callable[[bytes], Any]
    times: list[int] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    judged: int = 0  # messages, and control periods without one
    faults: Counter[str] = field(default_factory=Counter)
    measured: Measured = field(default_factory=Measured)

    def note(self, counts: Counter[str], text: str) -> None:
        """Count a text, whatever its figures are, and keep the newest."""
        kind = re.sub(r"\d+", "", text)
        counts[kind] += 1
        self.examples[kind] = text


class DriverCheck:
    """Takes in messages in the order in which they came, and says what is wrong with them.

    Args:
        simulated: stamps are of /clock.
    """

    def __init__(self, contract: Contract, simulated: bool = False) -> None:
        self.contract = contract
        self._assembler = ObservationAssembler(contract)
        self._all = Freshness(contract, simulated)
        self._each = Freshness(contract, simulated, contract.inputs)
        self._inputs = {
            source.topic: _Heard(source, InputReader(contract, source), reader_of(source.type, _refuse))
            for source in contract.inputs.values()
        }
        self._period = round(contract.control_period * NANOSECONDS)
        self._due: int | None = None  # ns, when a decision can wait no longer
        self._offset: int | None = None  # ns, of the clock of stamps from this computer's; None: it is not set
        self._judged = 0  # ns, when a decision was judged last
        self._begun: int | None = None  # ns, when the first whole observation was there
        self._periods, self._frames, self._inside = 0, 0, 0
        self._held: Counter[str] = Counter()
        self._texts: dict[str, str] = {}
        self._fallen = ""

    def take(self, message: Message) -> None:
        """Take in one message; those of other topics and types are left out."""
        heard = self._inputs.get(message.topic)
        if heard is None or heard.source.type != message.type:
            return
        self.judge_until(message.time)
        self._offset = message.clock - message.time if message.clock else None
        heard.times.append(message.time)
        try:
            self._read(heard, message)
        except ContractError as error:
            heard.note(heard.unreadable, str(error))

    def _read(self, heard: _Heard, message: Message) -> None:
        source, now = heard.source, message.time / NANOSECONDS
        parsed = heard.parse(message.data)
        heard.measured.hear(parsed)
        values = heard.read(parsed)
        stamp = check_stamp(parsed, source.topic)
        health = self._each.inputs[source.name]
        if source.stamps == "arrival":
            stamp = max(message.clock or message.time, (health.stamp or 0) + 1)
        if len(values) and np.isnan(values).all():
            # Of other joints: the alignment counts it, and its stamp says nothing of this input.
            self._assembler.take(source.name, max(stamp, 1), now, values)
            return
        health.hear(stamp, now, message.clock)
        self._judge_input(heard, now, message.clock)
        if source.name in self._all.inputs:
            self._all.inputs[source.name].hear(stamp, now, message.clock)
            if stamp and self._assembler.read(source.name, stamp, now, values):
                self._frames += 1
                self._begun = self._begun or message.time
                if text := fallen(self.contract, self._assembler.frame):
                    self._inside, self._fallen = self._inside + 1, text
                self._judge(message.time)

    def _judge_input(self, heard: _Heard, now: float, clock: int) -> None:
        heard.judged += 1
        if fault := self._each.input_fault(heard.source.name, now, clock):
            heard.note(heard.faults, fault)

    def judge_until(self, time: int) -> None:
        """Judge the control periods that are over at `time`, ns of this computer's clock, without a new observation."""
        self._due = self._due or time + self._period
        while self._due <= time:
            self._judge(self._due)

    def _judge(self, time: int) -> None:
        """Judge what a decision at `time` would stand on. As the shield: at once, or when it can wait no longer."""
        now, clock = time / NANOSECONDS, 0 if self._offset is None else time + self._offset
        self._judged, self._due = time, time + round(PATIENCE * self._period)
        for heard in self._inputs.values():
            # What comes is judged when it comes; here, what does not.
            silent = now - self._each.inputs[heard.source.name].arrival
            if math.isfinite(silent) and silent > heard.source.max_age + self.contract.control_period:
                self._judge_input(heard, now, clock)
        if self._begun is None:
            return
        self._periods += 1
        if fault := self._all.fault(self._assembler.frames, self._assembler.newest, now, clock):
            kind = re.sub(r"\d+", "", fault)
            self._held[kind] += 1
            self._texts[kind] = fault

    @property
    def names(self) -> dict[str, list[str]]:
        """Return the joints that were heard, by topic."""
        return {topic: heard.measured.names for topic, heard in self._inputs.items()}

    def told_apart(self, name: str) -> int | None:
        """Return how many publishers of an input can be told apart: see `FrameAligner.told_apart`."""
        return self._assembler.frames.told_apart(name) if name in self.contract.observed_inputs else None

    def heard(self, name: str) -> int:
        """Return how many messages came of an input."""
        return len(self._inputs[self.contract.inputs[name].topic].times)

    def findings(self) -> list[Finding]:
        """Return what is wrong with the messages, input by input, then with the observation; and what is well."""
        found: list[Finding] = []
        for heard in self._inputs.values():
            if heard.times:
                found += self._of_input(heard)
        return [*found, *self._of_observation([finding.level for finding in found])]

    def _of_input(self, heard: _Heard) -> list[Finding]:
        source, found = heard.source, list[Finding]()
        health = self._each.inputs[source.name]
        needed = source.name in self.contract.observed_inputs
        bad = Level.ERROR if needed else Level.WARNING
        for kind, count in heard.unreadable.most_common():
            text = f"{count} of {len(heard.times)} messages: {heard.examples[kind].removeprefix(f'{source.topic}: ')}"
            found.append(Finding(bad, "unreadable", source.topic, text, "the driver, or what the contract reads of it"))
        if needed and source.type == JOINT_STATE:
            found += self._of_joints(heard)
        for kind, count in heard.faults.most_common():
            share = count / heard.judged
            if heard.judged < ENOUGH or share <= LOST:
                continue
            text = heard.examples[kind].removeprefix("observation is stale: ")
            found.append(said(bad, _kind_of(text), source.topic, text, WHAT_HELPS["stale"]))
        rate = _rate(heard.times)
        if slow := self._each.slow(source.name, rate):
            triggers = source.name == self.contract.observed.trigger
            level = bad if triggers else Level.WARNING
            found.append(said(level, "rate", source.topic, slow, WHAT_HELPS["slow"]))
        jitter = health.jitters(source.max_age, self.contract.control_period)
        if jitter and source.stamps != "arrival":
            found.append(said(Level.WARNING, "jitter", source.topic, jitter))
        found += unit_findings(self.contract, source, heard.measured, self._assembler.frame)
        text = f"{len(heard.times)} messages, {rate:.1f} Hz"
        if health.messages and health.stamp:
            text += f"; {self._each.values()[source.topic].partition(', ')[2]}"
        return [*found, Finding(Level.OK, "heard", source.topic, text)]

    def _of_joints(self, heard: _Heard) -> list[Finding]:
        source, path = heard.source, self.contract.path
        wanted = list(
            dict.fromkeys(f.joint for f in self.contract.observed.frame if f.input == source.name and f.joint)
        )
        missing = [joint for joint in wanted if joint not in heard.measured.names]
        extra = [name for name in heard.measured.names if name not in wanted]
        found = []
        if missing:
            pairs = {joint: _closest(joint, extra) for joint in missing}
            hints = [f"{joint}: {close}?" for joint, close in pairs.items() if close]
            fix = f"let the driver name them as {path} does, or the contract as the driver does"
            if hints:
                fix += f"; is {', '.join(hints[:4])}"
            elif not extra:
                fix += "; is another driver missing, whose joints they are?"
            found.append(Finding(Level.ERROR, "missing_joint", source.topic, f"lacks {_listed(missing)}", fix))
        if extra:
            fix = "" if not missing else "one of them may be a joint that is missing"
            found.append(Finding(Level.NOTE, "extra_joint", source.topic, f"has {_listed(extra)} too: not read", fix))
        return found

    def _of_observation(self, levels: Sequence[Level]) -> list[Finding]:
        contract, found = self.contract, list[Finding]()
        trigger = self._inputs[contract.inputs[contract.observed.trigger].topic]
        if self._assembler.frames.counts["contradictions"]:
            count = self._assembler.frames.counts["contradictions"]
            text = f"{count} messages contradict others of the same stamp"
            found.append(Finding(Level.ERROR, "contradiction", trigger.source.topic, text, "let one of them publish"))
        if self._begun is None:
            text = self._all.fault(self._assembler.frames, None, 0.0, 0) or "no observation yet"
            return [*found, said(Level.ERROR, "observation", "observation", text, WHAT_HELPS["observation"])]
        held, due = sum(self._held.values()), (self._judged - self._begun) // self._period
        text = f"{self._frames} whole observations in {due} control periods"
        if held > LOST * self._periods:
            kind, _ = self._held.most_common(1)[0]
            text += f", and none to decide on in {held / self._periods:.0%} of them: {self._texts[kind]}"
        elif self._frames >= (1.0 - LOST) * (due - 1):
            found.append(Finding(Level.OK, "observation", "observation", text))
            text = ""
        if text:
            found.append(Finding(Level.ERROR, "observation", "observation", text, WHAT_HELPS["observation"]))
        if 2 * self._inside > self._frames and Level.ERROR not in levels:
            found.append(said(Level.WARNING, "failure_set", "observation", self._fallen, "the robot, or its sensors"))
        return found


def check_messages(contract: Contract, messages: Iterable[Message], until: int, simulated: bool = False) -> DriverCheck:
    """Return the check of what came until `until` (ns), in the order in which it came."""
    check = DriverCheck(contract, simulated)
    for message in messages:
        check.take(message)
    check.judge_until(until)
    return check


def _refuse(data: bytes) -> Any:
    raise ContractError(f"expected little-endian CDR, got the header {data[:4].hex()}")


def _rate(times: Sequence[int]) -> float:
    apart = times[-1] - times[0]
    return (len(times) - 1) * NANOSECONDS / apart if apart > 0 else 0.0


_KINDS: Mapping[str, str] = {
    "header.stamp is 0": "stamp_zero",
    "ahead of": "clock_ahead",
    "stands still": "stamp_still",
    "behind this one": "clock_behind",
    "old by stamp": "clock_behind",
    "jitter": "jitter",
}


def _kind_of(text: str) -> str:
    return next((kind for words, kind in _KINDS.items() if words in text), "stale")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def _closest(name: str, others: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [other.lower() for other in others], 1, 0.6)
    return next((other for other in others if close and other.lower() == close[0]), "")
