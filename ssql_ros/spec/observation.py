"""Assembles observation vectors from stamped readings: one frame per control period, with its history.

Plain numbers in, plain numbers out: no messages, no clock. Stamps are whole nanoseconds, as ROS gives them.
"""

from __future__ import annotations

import math
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
        followed: whether it is known what was executed for the frame before the newest one, where there is one.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.stamp: int | None = None
        self.frame = np.full(contract.frame_size, np.nan)
        self.episode = 0
        self.followed = True
        self._readings: dict[str, Reading] = {}
        self._framed: dict[str, Reading] = {}
        self._slots = {
            name: np.array([i for i, f in enumerate(contract.observed.frame) if f.input == name])
            for name in contract.observed_inputs
        }
        self._max_skew = round(contract.observed.max_skew * NANOSECONDS)
        self._gap = round(contract.observed.episode_gap * NANOSECONDS)
        self._action: np.ndarray | None = None  # executed for the newest frame
        self._last_action: np.ndarray | None = None  # executed in this episode before that
        self._before: tuple[int, np.ndarray | None, np.ndarray] | None = None  # stamp and past of the frame before
        # Newest first, one after the other.
        self._past_frames = np.full(contract.past("past_frames") * contract.frame_size, np.nan)
        self._past_actions = np.zeros(contract.past("past_actions") * contract.action_size)

    def read(self, name: str, stamp: int, arrival: float, values: np.ndarray) -> bool:
        """Take in one reading of input `name`; return True when it completes a new frame.

        Args:
            stamp: ns, the message's own stamp.
            arrival: s on the steady clock, when it came.
            values: the input's features in the contract's units, in the frame's order.

        Raises:
            KeyError: the frame reads nothing of this input.
        """
        if name not in self._slots:
            raise KeyError(name)
        self._readings[name] = Reading(stamp, arrival, values)
        if name in self._framed and self._framed[name].stamp == stamp:
            self._framed[name].arrival = arrival
        trigger = self._readings.get(self.contract.observed.trigger)
        if trigger is None or trigger.stamp == self.stamp or len(self._readings) < len(self._slots):
            return False
        for reading in self._readings.values():
            if abs(reading.stamp - trigger.stamp) > self._max_skew:
                return False
        self._push(trigger.stamp)
        return True

    def _push(self, stamp: int) -> None:
        new_episode = self.stamp is None or not 0 < stamp - self.stamp <= self._gap
        frame = np.empty(self.contract.frame_size)
        for name, slots in self._slots.items():
            frame[slots] = self._readings[name].values
        if new_episode:
            self.episode += 1
            self._past_frames = _repeated(frame, self._past_frames)
            self._past_actions = np.zeros(len(self._past_actions))
            self._last_action, self._before, self.followed = None, None, True
        else:
            self._past_frames = _shifted(self.frame, self._past_frames)
            self._before = (self.stamp or 0, self._last_action, self._past_actions)
            # Where nothing was decided on a frame, the driver went on with the command before.
            self.followed = self._action is not None
            self._push_action(self._last_action if self._action is None else self._action)
        self._action = None
        self.frame = frame
        self._framed = dict(self._readings)
        self.stamp = stamp

    @property
    def arrival(self) -> float:
        """Return when the oldest reading in the newest frame came, s on the steady clock; -inf before the first.

        Readings that no frame could be made of do not count; one told again, with the same stamp, does.
        """
        return min((reading.arrival for reading in self._framed.values()), default=-math.inf)

    def _push_action(self, action: np.ndarray | None) -> None:
        """Add an action to those of before; None: there is none yet."""
        first = self._last_action is None
        self._last_action = action
        if action is not None:
            self._past_actions = (_repeated if first else _shifted)(action, self._past_actions)

    def executed(self, action: np.ndarray, stamp: int = 0) -> None:
        """Remember the action (n_action,) that was sent to the robot for the newest frame.

        It is a past action from the next frame on. A second action for the same frame (no new frame came within a
        period) replaces the first, so that actions and frames stay in step.

        Args:
            stamp: ns, of the frame that it was sent for, or of the time; 0: the newest. One of the frame before the
                newest came late, and corrects the history; an older one is too late for that.
        """
        action = np.array(action, dtype=float)
        if stamp == 0 or (self.stamp is not None and stamp >= self.stamp):
            self._action = action
        elif self._before is not None and stamp >= self._before[0]:
            _, self._last_action, self._past_actions = self._before
            self._push_action(action)
            self.followed = True

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
                part = self._past_frames[: block.count * len(self.frame)]
            else:
                part = self._past_actions[: block.count * self.contract.action_size]
            parts.append(part if block.scale == 1.0 else block.scale * part)
        return np.concatenate(parts)


def _shifted(newest: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Return a history, newest first, with a new entry and without its oldest."""
    return np.concatenate((newest, history))[: len(history)]


def _repeated(entry: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Return a history of the same length in which every entry is `entry`."""
    return np.tile(entry, len(history) // len(entry))
