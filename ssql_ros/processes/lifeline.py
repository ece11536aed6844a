"""Ends a process with the one that started it, whatever ended that one, SIGKILL included. Linux; no rclpy.

The kernel sends SIGTERM to a child whose parent is gone (PR_SET_PDEATHSIG). All of them at once would be the wrong
order: a driver must still be there when the shield sends its safe action. So whoever commands the robot holds one end
of a pipe that nobody writes to, and whoever must outlive them waits at the other end until the last of them is gone.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Mapping

PARENT, OUTLIVES = "SSQL_ROS_PARENT", "SSQL_ROS_OUTLIVES"
PATIENCE = 10.0  # s, how long a process waits for those that it is to outlive
_PR_SET_PDEATHSIG = 1


class ParentGone(RuntimeError):
    """The process that started this one has ended already."""


def environment(outlives: int | None = None) -> dict[str, str]:
    """Return the environment of a child that is to end with this process.

    Args:
        outlives: file descriptor, handed on to the child, at which it waits for others to end first.
    """
    child = {name: value for name, value in os.environ.items() if name not in (PARENT, OUTLIVES)}
    child[PARENT] = str(os.getpid())
    if outlives is not None:
        child[OUTLIVES] = str(outlives)
    return child


def end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when the thread of `parent` that started it ends.

    Raises:
        ParentGone: it has ended already.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # Whoever died before the call above sends nothing any more.
    if os.getppid() != parent:
        raise ParentGone(f"process {parent}, which started this one, has ended")


def tie(told: Mapping[str, str] | None = None) -> Callable[[], bool]:
    """Tie this process to the one that started it with `environment`; return a function for when it is told to end.

    The function says whether those are gone that this process is to outlive: at once unless the parent has died, which
    would have ended all others in order itself.

    Raises:
        ParentGone: the parent has ended already.
    """
    told = os.environ if told is None else told
    if PARENT not in told:
        return lambda: True
    parent = int(told[PARENT])
    end_with_parent(parent)
    if OUTLIVES not in told:
        return lambda: True
    others, since = int(told[OUTLIVES]), [0.0]

    def alone() -> bool:
        since[0] = since[0] or time.monotonic()
        if os.getppid() == parent or time.monotonic() - since[0] > PATIENCE:
            return True
        # Nobody writes: what can be read is the end of the file, when the last who holds the other end is gone.
        return bool(select.select([others], [], [], 0.0)[0])

    return alone
