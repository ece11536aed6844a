"""What Ctrl-C, SIGTERM and SIGHUP do to a command: it ends in order, with the exit status that a shell expects."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        number: of the signal.
        note: for the console, e.g. how to go on; empty: none.
    """

    def __init__(self, number: int = signal.SIGINT, note: str = "") -> None:
        super().__init__(f"signal {number}")
        self.number, self.note = number, note


@contextmanager
def _handling(handle: Callable[[int], None]) -> Iterator[None]:
    """Handle the signals by `handle(number)`, in the main thread; what was ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda came, _frame: handle(came))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def raising() -> Iterator[None]:
    """Raise Interrupted at the first signal; let what it ends take its time at the second; end at once at the third."""
    count = 0

    def handle(number: int) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise Interrupted(number)
        if count == 2:
            print("ending in order; once more ends at once", file=sys.stderr, flush=True)
        else:
            os._exit(128 + number)

    with _handling(handle):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Let what a signal raises wait until the block ends: raised among C++'s conversions it would be another error.

    A second signal is handled at once, for a block that hangs.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    came = 0

    def note(number: int, frame: Any) -> None:
        nonlocal came
        if came:
            handlers[signal.Signals(number)](number, frame)  # type: ignore[misc, operator]
        came = number

    ours = threading.current_thread() is threading.main_thread()
    changed = [number for number, handler in handlers.items() if ours and callable(handler)]
    for number in changed:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, handlers[number])
    if came:
        handlers[signal.Signals(came)](came, None)  # type: ignore[misc, operator]


class Stop:
    """Tells a loop that a signal has come.

    Attributes:
        number: of the signal; 0: none has come.
    """

    def __init__(self) -> None:
        self.number = 0

    def __bool__(self) -> bool:
        """Tell whether one has come."""
        return self.number != 0


@contextmanager
def noting(where: str) -> Iterator[Stop]:
    """Note the first signal, for a loop that ends where its state is whole; raise Interrupted at the second.

    Args:
        where: the loop will end, in words.
    """
    stop = Stop()

    def handle(number: int) -> None:
        if stop:
            raise Interrupted(number)
        stop.number = number
        print(f"\nstops at {where}, with a checkpoint; once more stops at once", file=sys.stderr, flush=True)

    with _handling(handle):
        yield stop
