"""Assembles observation vectors from stamped readings: one frame per control period, with its history.

Plain numbers in, plain numbers out: no messages, no clock. Stamps are whole nanoseconds, as ROS gives them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ssql_ros.spec.contract import Contract

NANOSECONDS = 1_000_000_000


@dataclass
class Reading:
    """The latest values of one input: `stamp` in ns of the sender's clock, `arrival` in s of the steady clock."""

    stamp: int
    arrival: float
    values: np.ndarray


class ObservationAssembler:
    """Turns readings of the contract's inputs into observations.

    A frame is complete when every input has a reading within `max_skew` of the trigger's. Frames and executed
    actions are kept as far back as the contract's vector asks. A gap in the stamps starts a new history.

    Attributes:
        stamp: ns, of the newest complete frame; None before the first.
        frame: (n_frame,), the newest complete frame.
        episode: counts the histories begun so far, from 1.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.stamp: int | None = None
        self.frame = np.full(contract.frame_size, np.nan)
        self.episode = 0
        self.readings: dict[str, Reading] = {}
        self._slots = {
            name: np.array([i for i, f in enumerate(contract.observed.frame) if f.input == name])
            for name in contract.observed_inputs
        }
        self._max_skew = round(contract.observed.max_skew * NANOSECONDS)
        self._gap = round(contract.observed.episode_gap * NANOSECONDS)
        self._acted_stamp: int | None = None
        self._frames: deque[np.ndarray] = deque(maxlen=max(1, contract.past("past_frames")))
        self._actions: deque[np.ndarray] = deque(maxlen=max(1, contract.past("past_actions")))

    def read(self, name: str, stamp: int, arrival: float, values: np.ndarray) -> bool:
        """Take in one reading of input `name`; return True when it completes a new frame.

        Args:
            stamp: ns, the message's own stamp.
            arrival: s on the steady clock, when it came.
            values: the input's features in the contract's units, in the frame's order.
        """
        self.readings[name] = Reading(stamp, arrival, values)
        trigger = self.readings.get(self.contract.observed.trigger)
        if trigger is None or trigger.stamp == self.stamp or len(self.readings) < len(self._slots):
            return False
        for reading in self.readings.values():
            if abs(reading.stamp - trigger.stamp) > self._max_skew:
                return False
        self._push(trigger.stamp)
        return True

    def _push(self, stamp: int) -> None:
        new_episode = self.stamp is None or not 0 < stamp - self.stamp <= self._gap
        if new_episode:
            self.episode += 1
            self._frames.clear()
            self._actions.clear()
        else:
            self._frames.appendleft(self.frame)
        self.frame = np.empty(self.contract.frame_size)
        for name, slots in self._slots.items():
            self.frame[slots] = self.readings[name].values
        self.stamp = stamp

    def executed(self, action: np.ndarray) -> None:
        """Remember the action (n_action,) that was sent to the robot for the newest frame.

        A second action for the same frame (no new frame came within a period) replaces the first, so that actions
        and frames stay in step.
        """
        if self._actions and self._acted_stamp == self.stamp:
            self._actions.popleft()
        self._actions.appendleft(np.array(action, dtype=float))
        self._acted_stamp = self.stamp

    def vector(self) -> np.ndarray:
        """Return the observation (n_observation,) of the newest frame; NaN before the first.

        Past frames come newest first; where the episode is not that old its first frame stands in. So do past
        actions, with zeros before any was executed.
        """
        parts = []
        for block in self.contract.observed.blocks:
            if block.kind == "frame":
                part = self.frame
            elif block.kind == "derived":
                part = self.contract.observed.derived @ self.frame
            elif block.kind == "past_frames":
                part = _padded(self._frames, block.count, self.frame)
            else:
                part = _padded(self._actions, block.count, np.zeros(self.contract.action_size))
            parts.append(part if block.scale == 1.0 else block.scale * part)
        return np.concatenate(parts)


def _padded(history: deque[np.ndarray], count: int, empty: np.ndarray) -> np.ndarray:
    """Return the newest `count` entries as one vector, the oldest repeated where there are too few."""
    entries = list(history)[:count] or [empty]
    return np.concatenate(entries + [entries[-1]] * (count - len(entries)))
