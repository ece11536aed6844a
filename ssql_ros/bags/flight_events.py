"""Which of a shield's messages are events that a flight recorder writes a file for.

The rules, so that no event is missed and a robot that waits writes no file after file:

- `latched`: ShieldState.latched rises. `incident`: ShieldState.incidents rises, or an Incident message says so after
  one that did not. `fault`: a decision is FAULT after one that was not. Each time counts.
- `held`: a decision is HELD, once the shield has decided on something since it became active: a robot that waits at
  start has no event. A cause (the reason without its figures) counts again when it has been gone for `QUIET_SECONDS`.
- What was there already when the recorder began to listen is no event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.shield.decision import Decision
from ssql_ros.shield.tick import Mode

LATCHED, INCIDENT, FAULT, HELD, SNAPSHOT = "latched", "incident", "fault", "held", "snapshot"
QUIET_SECONDS = 10.0
# A message that took longer from its publisher to here was kept for those who come late.
LATE_SECONDS = 1.0


@dataclass(frozen=True)
class Event:
    """Something that a file is written for.

    Attributes:
        kind: one of the constants above.
        stamp: ns of the system clock, when it was heard of.
        words: what it was.
    """

    kind: str
    stamp: int
    words: str


class EventRules:
    """Hears a shield's messages in the order in which they came, and says which are events.

    `stamp`: ns of the system clock, when the message was received.
    """

    def __init__(self) -> None:
        self._latched: bool | None = None
        self._incidents: int | None = None
        self._inside: bool | None = None
        self._decision: Decision | None = None
        self._decided = False
        self._held: dict[str, int] = {}  # when each cause was there last

    def state(self, message: Any, stamp: int) -> Iterator[Event]:
        """Yield the events of a ShieldState."""
        if message.mode == Mode.INACTIVE:
            self._decided = False
        if message.latched and self._latched is False:
            yield Event(LATCHED, stamp, f"latched: {message.fault_reason}")
        if self._incidents is not None and message.incidents > self._incidents:
            margin = f"{message.margin:.3g} {message.margin_unit}".rstrip()
            yield Event(INCIDENT, stamp, f"incident {message.incidents} of the shield's count, margin {margin}")
        self._latched, self._incidents = bool(message.latched), int(message.incidents)

    def incident(self, message: Any, stamp: int, published: int = 0) -> Iterator[Event]:
        """Yield the event of an Incident. `published`: ns of the system clock; 0: not known."""
        before, self._inside = self._inside, bool(message.incident)
        kept = before is None and 0 < published < stamp - LATE_SECONDS * NANOSECONDS
        if self._inside and not before and not kept:
            yield Event(INCIDENT, stamp, f"incident: {message.cause}")

    def decision(self, message: Any, stamp: int) -> Iterator[Event]:
        """Yield the event of a ShieldedAction."""
        before, self._decision = self._decision, Decision(message.decision)
        if self._decision is Decision.FAULT:
            if before not in (None, Decision.FAULT):
                yield Event(FAULT, stamp, f"fault: {message.reason}")
        elif self._decision is not Decision.HELD:
            self._decided = True
        elif self._decided and self._is_news(message.reason, stamp):
            yield Event(HELD, stamp, f"held: {message.reason}")

    def _is_news(self, reason: str, stamp: int) -> bool:
        # By distance: a clock that is set back must silence nothing.
        quiet = QUIET_SECONDS * NANOSECONDS
        self._held = {cause: last for cause, last in self._held.items() if abs(stamp - last) <= quiet}
        cause = "".join(letter for letter in reason if not letter.isdigit())
        known = cause in self._held
        self._held[cause] = stamp
        return not known
