"""Assembles observation vectors: the frame of each control period, with what was measured and executed before it.

Plain numbers in, plain numbers out: no messages, no clock. Stamps are whole nanoseconds, as ROS gives them.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.frames import Frame, FrameAligner
from ssql_ros.contract.stamped import JUMP, NANOSECONDS, StampedBuffer


class ObservationAssembler:
    """Turns readings of the contract's inputs, and the actions that were executed, into observations.

    Readings become frames as `FrameAligner` says. A history is as deep as the contract's vector asks, one entry a
    control period; a pause longer than the contract's `episode_gap`, or a step back in time, begins a new one.

    Attributes:
        frames: the alignment.
        episode: counts the histories begun so far, from 1.
    """

    def __init__(self, contract: Contract, counts: Counter[str] | None = None) -> None:
        self.contract = contract
        self.frames = FrameAligner(contract, counts)
        self.episode = 0
        self._period = round(contract.control_period * NANOSECONDS)
        self._gap = round(contract.observed.episode_gap * NANOSECONDS)
        self._n_frames, self._n_actions = contract.past("past_frames"), contract.past("past_actions")
        self._actions: StampedBuffer[np.ndarray] = StampedBuffer()
        self._none = np.zeros(contract.action_size)
        self._begun: int | None = None  # stamp of the frame that began the newest history
        self._newest: Frame | None = None
        self._current = False  # `_newest` is what it will be when asked again
        self._answer: tuple[Frame, np.ndarray, int] | None = None  # the newest frame's vector, and its stand-ins

    def read(self, name: str, stamp: int, arrival: float, values: np.ndarray) -> bool:
        """Take in one reading of input `name`; return True where a whole frame, newer than all before, is there now.

        Args:
            stamp: ns, the message's own stamp.
            arrival: s on the steady clock, when it came.
            values: the input's features in the contract's units, in the frame's order; NaN: the message lacks this one.

        Raises:
            KeyError: the frame reads nothing of this input.
            ContractError: the input has said otherwise at this stamp.
        """
        before = self._newest.stamp if self._newest is not None else -math.inf
        if self.take(name, stamp, arrival, values):
            before = -math.inf
        newest = self._find_newest()
        return newest is not None and newest.stamp > before

    def take(self, name: str, stamp: int, arrival: float, values: np.ndarray) -> bool:
        """Take in one reading, as `read`, without looking what has come of it; return whether time has begun anew."""
        restarts = self.frames.counts["restarts"]
        self._current, self._answer = False, None
        self.frames.read(name, stamp, arrival, values)
        if self.frames.counts["restarts"] == restarts:
            return False
        self._actions.begin_anew(stamp)
        self._begun = None
        return True

    def repeat(self, name: str, stamp: int, arrival: float) -> None:
        """Note that a reading was told again while time stands still: see `FrameAligner.repeat`."""
        self._current, self._answer = False, None
        self.frames.repeat(name, stamp, arrival)

    def executed(self, action: np.ndarray, stamp: int = 0) -> None:
        """Remember the action (n_action,) that was sent to the robot.

        It is the past action of that control period until whose middle no newer one came; a second one of the same
        stamp replaces the first.

        Args:
            stamp: ns, of the frame that it was sent for, or of the time when it was; 0: that of the newest frame.
        """
        if stamp == 0:
            newest = self._find_newest()
            if newest is None:
                return
            stamp = newest.stamp
        self._answer = None
        if self._actions.stamps and stamp < self._actions.stamps[-1] - JUMP:
            self._actions.clear()
        self._actions.add(stamp, np.array(action, dtype=float))

    def action_at(self, stamp: int, next_stamp: int | None = None) -> tuple[int, np.ndarray] | None:
        """Return stamp and value (n_action,) of what was executed in the control period that began at `stamp`.

        `next_stamp`: ns, stamp of the frame after it, whose own action is no part of this period; None: not known.
        """
        until = stamp + self._period // 2
        return self._actions.until(until if next_stamp is None else min(until, next_stamp - 1))

    @property
    def newest(self) -> Frame | None:
        """Return the newest whole frame, None before the first."""
        return self._find_newest()

    @property
    def stamp(self) -> int | None:
        """Return the stamp of the newest whole frame in ns, None before the first."""
        newest = self._find_newest()
        return None if newest is None else newest.stamp

    @property
    def frame(self) -> np.ndarray:
        """Return the newest whole frame (n_frame,); NaN before the first."""
        newest = self._find_newest()
        if newest is None or newest.values is None:
            return np.full(self.contract.frame_size, np.nan)
        return newest.values

    @property
    def ready(self) -> bool:
        """Tell whether the newest frame is whole and nothing better is expected for it."""
        newest = self._find_newest()
        return newest is not None and newest is self.frames.frames[-1] and self.frames.ready()

    @property
    def arrival(self) -> float:
        """Return when the oldest reading in the newest whole frame came, s on the steady clock; -inf before it."""
        newest = self._find_newest()
        return -math.inf if newest is None else newest.time

    @property
    def followed(self) -> bool:
        """Tell whether it is known what was executed for the frame before the newest, where there is one."""
        newest = self._find_newest()
        before = None if newest is None else self.before(newest)
        return before is None or self._is_known(before.stamp)

    def vector(self, frame: Frame | None = None) -> np.ndarray:
        """Return the observation (n_observation,) of `frame`, or of the newest whole one; NaN before the first.

        Past frames and actions come newest first, one a control period. Where a period has no frame, the one before it
        stands in; before the history begins, its first frame does, and its first action, or zeros where there is none.
        """
        return self._assembled(frame)[0]

    def missing(self, frame: Frame | None = None) -> int:
        """Return how many entries of the history of `frame`, or of the newest, are stand-ins; 0: all were measured.

        So counts what was measured further than half a control period from its place.
        """
        return self._assembled(frame)[1]

    def _find_newest(self) -> Frame | None:
        if self._current:
            return self._newest
        self.frames.refresh()
        newest, self._current = None, True
        for frame in reversed(self.frames.frames):
            if frame.values is not None:
                newest = frame
                break
        if newest is not None and newest.begin != self._begun:
            self.episode += 1
            self._begun = newest.begin
        self._newest = newest
        return newest

    def _index(self, frame: Frame) -> int:
        frames = self.frames.frames
        if frames and frames[-1] is frame:
            return len(frames) - 1
        return next(i for i in range(len(frames) - 1, -1, -1) if frames[i] is frame)

    def before(self, frame: Frame) -> Frame | None:
        """Return the whole frame before `frame` in the same history, or None."""
        return self.frames.before(self._index(frame))

    def _is_known(self, stamp: int) -> bool:
        """Tell whether an action was executed in the control period that began at `stamp`."""
        action = self.action_at(stamp)
        return action is not None and action[0] >= stamp

    def _assembled(self, frame: Frame | None) -> tuple[np.ndarray, int]:
        """Return the observation of a frame, and how many entries of its history are stand-ins."""
        contract = self.contract
        if frame is None:
            frame = self._find_newest()
        if frame is None or frame.values is None:
            return np.full(contract.observation_size, np.nan), self._n_frames + self._n_actions
        if self._answer is not None and self._answer[0] is frame:
            return self._answer[1].copy(), self._answer[2]
        past, stamps = self._past(frame)
        frames, missing = self._stood_in(past, frame, self._n_frames)
        missing += self._misplaced(frame, past, stamps)
        actions, unknown = self._past_actions(frame, stamps)
        parts = []
        for block in contract.observed.blocks:
            if block.kind == "frame":
                part = frame.values
            elif block.kind == "derived":
                part = contract.observed.derived @ frame.values
            elif block.kind == "past_frames":
                part = np.concatenate(frames[: block.count])
            else:
                part = np.concatenate(actions[: block.count])
            parts.append(part if block.scale == 1.0 else block.scale * part)
        self._answer = frame, np.concatenate(parts), missing + unknown
        return self._answer[1].copy(), self._answer[2]

    def _past(self, frame: Frame) -> tuple[list[np.ndarray | None], list[int]]:
        """Return what came before a frame in its history, newest first, one entry a control period.

        Returns:
            values of each period's frame, None where there is none; stamp of each period's begin.
        """
        depth = max(self._n_frames, self._n_actions)
        frames, period = self.frames.frames, self._period
        values: list[np.ndarray | None] = []
        stamps: list[int] = []
        for i in range(self._index(frame), 0, -1):
            steps, before = frames[i].steps, frames[i - 1]
            if before.stamp < frame.begin:
                break
            for lost in range(1, steps):
                values.append(None)
                stamps.append(frames[i].stamp - lost * period)
            values.append(before.values)
            stamps.append(before.stamp)
            if len(values) >= depth and before.values is not None:
                break
        return values, stamps

    def _misplaced(self, frame: Frame, past: list[np.ndarray | None], stamps: list[int]) -> int:
        """Return how many past frames lie further than half a period from their place."""
        period, half, count = self._period, self._period // 2, 0
        for k in range(min(self._n_frames, len(past))):
            if past[k] is not None and abs(frame.stamp - stamps[k] - (k + 1) * period) > half:
                count += 1
        return count

    @staticmethod
    def _stood_in(past: list[np.ndarray | None], frame: Frame, count: int) -> tuple[list[np.ndarray], int]:
        """Return `count` past frames, and how many of them stand in for one that was not measured."""
        if len(past) >= count and not any(values is None for values in past[:count]):
            return past[:count], 0  # type: ignore[return-value]
        filled: list[np.ndarray] = []
        missing = max(0, count - len(past))
        oldest = next((values for values in reversed(past) if values is not None), frame.values)
        for k in range(count):
            values = past[k] if k < len(past) else None
            if values is None:
                missing += k < len(past)
                # Held from before, as a driver's value is; where nothing is before, the first stands in.
                values = next((older for older in past[k:] if older is not None), oldest)
            assert values is not None
            filled.append(values)
        return filled, missing

    def _past_actions(self, frame: Frame, stamps: list[int]) -> tuple[list[np.ndarray], int]:
        """Return the past actions, newest first, and how many of them are stand-ins."""
        count = self._n_actions
        actions, missing = [], 0
        next_stamp = frame.stamp
        for k in range(count):
            found = None
            if k < len(stamps):
                found, next_stamp = self.action_at(stamps[k], next_stamp), stamps[k]
            if found is not None and found[0] >= frame.begin:
                actions.append(found[1])
                missing += found[0] < stamps[k]
            else:
                actions.append(self._first_action(frame))
                missing += 1
        return actions, missing

    def _first_action(self, frame: Frame) -> np.ndarray:
        """Return the first action of a frame's history, which stands in for those before it; zeros before any."""
        half = self._period // 2
        first = self._actions.after(frame.begin - 1)
        if first is None or first[0] >= frame.stamp - half:
            return self._none
        found = self._actions.until(min(first[0] + half, frame.stamp - 1))
        return self._none if found is None else found[1]
