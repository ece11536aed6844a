"""A driver on simulated time whose clock stops, falls silent, slows down or is set; for `ssql bench faults`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from bench.soak_driver import SoakDriver
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.ros.process import COMMAND
from ssql_ros.shield.decision import Decision

JUMP = 10 * NANOSECONDS
AFTER = 1.0  # s after a change of the clock in which decisions are watched


class ClockDriver(SoakDriver):
    """Publishes /clock, and stamps by it.

    Attributes:
        clock: what is wrong with it: `stopped`: it stands still, and stamps with it; `silent`: stamps go on, and no
            /clock comes; `slow`: at half the rate; `set`: ten seconds ahead. Empty: nothing.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.clock = ""
        self._now, self._read = time.time_ns(), time.monotonic_ns()
        self._clock = self.node.create_publisher(Clock, "/clock", COMMAND)

    def _stamp(self) -> int:
        """Tell everybody what time it is, and return it, ns."""
        read = time.monotonic_ns()
        elapsed, self._read = read - self._read, read
        self._now += {"stopped": 0, "slow": elapsed // 2}.get(self.clock, elapsed)
        now = self._now + JUMP * (self.clock == "set")
        if self.clock != "silent":
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(now, NANOSECONDS)
            self._clock.publish(message)
        return now


def clock_figures(driver: ClockDriver, trials: int, calm: Callable[[], None]) -> dict[str, float]:
    """Set and slow the clock `trials` times each, and return how long the safe action went on after that, ms.

    Args:
        calm: goes on until all is well.

    Returns:
        clock_NAME_held_ms_p50 and _max: from the change to the last safe action within a second, 0 where none came;
        clock_NAME_gap_ms_max: the longest between two accounts in that second.
    """
    figures: dict[str, float] = {}
    for name, how, after in tqdm(
        [("ahead", "", "set"), ("back", "set", ""), ("slow", "", "slow")], desc="clock", leave=False, disable=None
    ):
        held, gaps = [], []
        for _ in range(trials):
            driver.clock = how
            calm()
            driver.heard.clear()
            driver.clock, begun = after, driver.due
            while time.monotonic() < begun + AFTER:
                driver.step()
            safe = [came - begun for came, decision in driver.heard if decision is Decision.HELD and came > begun]
            held.append(max(safe, default=0.0))
            gaps.append(max(np.diff([came for came, _ in driver.heard]), default=AFTER))
        driver.clock = ""
        times = 1e3 * np.array(held)
        figures |= {
            f"clock_{name}_held_ms_p50": float(np.median(times)),
            f"clock_{name}_held_ms_max": float(times.max()),
        }
        figures[f"clock_{name}_gap_ms_max"] = 1e3 * float(max(gaps))
    return figures
