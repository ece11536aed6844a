"""Faults that stay until a person has looked: what was latched, what goes to the robot meanwhile, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace

HISTORY = 10  # faults that are remembered


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        stamp: ns, of the observation that it was seen in.
        words: what was wrong, with the figure and its unit.
        response: what goes to the robot until it is released: "hold", "damp" or "backup"; "continue": it is only told.
        ended: how it ended, in words; empty: it goes on.
    """

    stamp: int
    words: str
    response: str
    ended: str = ""


class FaultLatch:
    """Holds the fault in force and those before it.

    Attributes:
        latched: the fault in force, None where there is none.
        history: the newest faults, newest first, the one in force among them. Replaced and never changed: another
            thread may be reading it.
    """

    def __init__(self) -> None:
        self.latched: Fault | None = None
        self.history: tuple[Fault, ...] = ()

    def note(self, stamp: int, words: str, response: str, latch: bool = True) -> None:
        """Take in a fault, and latch it unless another one is, or it is only told. `stamp`: ns."""
        if self.latched is not None:
            return
        fault = Fault(stamp, words, response, "" if latch else "only told")
        self.latched = fault if latch else None
        self.history = (fault, *self.history)[:HISTORY]

    def release(self, how: str) -> None:
        """End the fault in force. `how`: in words."""
        if self.latched is not None:
            ended, self.latched = replace(self.latched, ended=how), None
            self.history = (ended, *self.history[1:])
