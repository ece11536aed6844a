"""The one alignment of readings: which of them make the frame of each control period, by their stamps alone.

A frame begins at a trigger message. The control periods form a grid that follows the trigger's clock: of a trigger
that is faster than the control rate, the message nearest to each period's begin is taken, told from the interval
before it, so that no decision waits for the message after it. A trigger that is lost leaves its period without a frame.
Of every other input a frame at stamp t holds

    the newest reading in [t - max_skew, t],
    else the oldest in (t, t + max_skew],
    else the newest in [t - max_age, t - max_skew),     held over

and none otherwise. All of that is a function of what was heard, not of the order in which it came: what is late, by
less than `WINDOW`, puts the frames right that it belongs to. So the shield, the policy, the learner and the conversion
of a bag see the same frames. Several publishers of one input (left and right half of a robot's joints) are merged
feature by feature, each with its own age. Where the robot was put elsewhere, a history begins: see `leaps`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter

import numpy as np

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.fields import JOINT_STATE
from ssql_ros.contract.leaps import LeapRule
from ssql_ros.contract.readings import Frame, Reading, Source
from ssql_ros.contract.schema import ContractError
from ssql_ros.contract.stamped import HORIZON, JUMP, NANOSECONDS, WINDOW

# The grid follows the trigger's clock by this share of each period's error: enough for clocks that differ by a
# percent, and so little that a trigger of 125 Hz, which never meets 50 Hz, keeps to 50 Hz in the mean.
FOLLOWING = 8


class FrameAligner:
    """Makes frames of the readings of a contract's inputs, in whatever order they come.

    Attributes:
        frames: those that may still be asked for, oldest first. The last one is the newest.
        counts: triggers, late (triggers that come when their period is over), duplicates, foreign (messages that hold
            nothing that the frame reads), contradictions, restarts (time began anew).
    """

    def __init__(self, contract: Contract, counts: Counter[str] | None = None) -> None:
        self.contract = contract
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.frames: list[Frame] = []
        observed = contract.observed
        self._places = {
            name: np.array([i for i, feature in enumerate(observed.frame) if feature.input == name])
            for name in contract.observed_inputs
        }
        self._period = round(contract.control_period * NANOSECONDS)
        self._gap = round(observed.episode_gap * NANOSECONDS)
        # What is nearer to the next frame belongs to that one.
        self._skew = min(round(observed.max_skew * NANOSECONDS), self._period // 2)
        self._max_age = {
            name: max(round(contract.inputs[name].max_age * NANOSECONDS), self._skew) for name in self._places
        }
        self._sources: dict[str, list[Source]] = {name: [] for name in self._places}
        self._triggers: list[int] = []  # stamps, in order
        self._newest = -math.inf  # stamp of the newest reading of all
        self._late_run: tuple[int, int] | None = None  # first and newest stamp of triggers that come too late
        self._cuts: list[int] = []  # the first frame after each of these stamps begins an episode
        self._told: dict[int, str] = {}  # leaps that only others can see, by stamp of the frame
        self._rule = LeapRule(contract)
        # How far a history reaches back at most.
        self._reach = self._gap * (1 + max(contract.past("past_frames"), contract.past("past_actions")))

    @property
    def newest_trigger(self) -> int | None:
        """Return the stamp of the newest trigger, None before the first."""
        return self._triggers[-1] if self._triggers else None

    def restarts_at(self, name: str, stamp: int) -> bool:
        """Tell whether a reading would begin time anew: a clock was set back, or a simulation was begun again."""
        if name != self.contract.observed.trigger or not self._triggers:
            return False
        behind = self._triggers[-1] - stamp
        if behind <= WINDOW:
            return False
        run = self._late_run
        # Late ones that follow each other for longer than an episode's gap are a new time that goes on.
        return behind > JUMP or (run is not None and stamp > run[1] and stamp - run[0] > self._gap)

    def read(self, name: str, stamp: int, time: float, values: np.ndarray) -> bool:
        """Take in one reading of input `name`; return True where it begins a frame that is newer than all before.

        Args:
            stamp: ns, the message's own.
            time: s on the steady clock, when it came.
            values: the input's features in the frame's order; NaN: the message does not hold this one.

        Raises:
            KeyError: the frame reads nothing of this input.
            ContractError: the input has said otherwise at this stamp; neither is used.
        """
        source = self._source(name, values)
        if source is None:
            self.counts["foreign"] += 1
            return False
        # Whichever part of it comes most often: the others are held.
        triggers = name == self.contract.observed.trigger
        if triggers and self._triggers and self._triggers[-1] - stamp > WINDOW:
            if not self.restarts_at(name, stamp):
                self.counts["late"] += 1
                first, newest = self._late_run or (stamp, stamp)
                self._late_run = (stamp, stamp) if stamp < newest else (first, stamp)
                return False
            self._restart(stamp)
        stamps = source.readings.stamps
        if stamps and stamp < stamps[-1] - JUMP:
            source.readings.clear()
        held = source.readings.get(stamp)
        own = values if source.columns is None else values[source.columns]
        if held is not None and np.array_equal(held.values, own):
            self.counts["duplicates"] += 1
            return False
        if held is not None or len(self._sources[name]) > 1:
            if self._is_void(held):
                return False
            self._check(source, stamp, own, held)
        if stamps and stamp > stamps[-1]:
            source.hear(stamp)
        source.readings.add(stamp, Reading(own, time))
        self._newest = max(self._newest, stamp)
        self._mark_stale(stamp - self._skew)
        return triggers and self._begin(stamp)

    def repeat(self, name: str, stamp: int, time: float) -> None:
        """Note that a reading was told again while time stands still (a simulation that waits): it is as of now."""
        for source in self._sources[name]:
            if (held := source.readings.get(stamp)) is not None:
                source.readings.add(stamp, held._replace(time=time))
                self._mark_stale(stamp)

    def cut_after(self, stamp: int) -> None:
        """Let the next frame after `stamp` begin an episode: whoever ran the one before has said that it is over."""
        self._cuts = [cut for cut in self._cuts if cut > stamp - 2 * HORIZON]
        self._cuts.append(stamp)
        self._rebuild(stamp)

    def leap_at(self, frame: Frame, why: str) -> None:
        """Let a frame begin a history: the robot was put elsewhere, as is told by what the frame does not read."""
        self._told = {stamp: told for stamp, told in self._told.items() if stamp > frame.stamp - 2 * HORIZON}
        self._told[frame.stamp] = why
        self._mark_stale(frame.stamp)
        self.refresh()

    def ready(self) -> bool:
        """Tell whether nothing better is expected for the newest frame: it is worth a decision."""
        if not self.frames:
            return False
        stamp = self.frames[-1].stamp
        if self._newest > stamp + self._skew:
            return True
        for sources in self._sources.values():
            if not sources:
                return False
            for source in sources:
                if not source.is_final(stamp, self._skew):
                    return False
        return True

    def refresh(self) -> None:
        """Make the values of those frames anew that something came for."""
        frames = self.frames
        at = len(frames)
        while at and frames[at - 1].stale:
            at -= 1
        for i in range(at, len(frames)):
            frame = frames[i]
            self._fill(frame)
            frame.leap = ""
            before = self.before(i)
            if before is not None and frame.values is not None:
                frame.leap = self._told.get(frame.stamp, "") or self._rule.find(before, frame)
                before = None if frame.leap else before
            frame.begin = frame.stamp if before is None else before.begin

    def before(self, i: int) -> Frame | None:
        """Return the whole frame before frame `i` in the same history, None where frame `i` is the first."""
        frames, stamp = self.frames, self.frames[i].stamp
        while i and frames[i].steps and not frames[i].leap and stamp - frames[i - 1].stamp <= self._gap:
            i -= 1
            if frames[i].values is not None:
                return frames[i]
        return None

    def missing(self, stamp: int | None) -> dict[str, list[str]]:
        """Return, by input, the features (joints by name) of which a frame at `stamp` has nothing to hold.

        `stamp`: ns; None: of which nothing was heard at all.
        """
        found: dict[str, list[str]] = {}
        for name, places in self._places.items():
            covered: set[int] = set()
            for source in self._sources[name]:
                if stamp is None or source.readings.choose(stamp, self._skew, self._max_age[name]) is not None:
                    covered |= set(source.places.tolist())
            left = [self.contract.observed.frame[place] for place in places.tolist() if place not in covered]
            if left:
                found[name] = list(dict.fromkeys(feature.joint or feature.name for feature in left))
        return found

    def sources(self, name: str) -> list[Source]:
        """Return the sources of an input that were heard."""
        return self._sources[name]

    def told_apart(self, name: str) -> int | None:
        """Return how many publishers of an input can be told apart: each gives features of its own, or none.

        None: any number, as nothing is known yet, or some give what the frame does not read.
        """
        foreign = self.contract.inputs[name].type == JOINT_STATE and self.counts["foreign"]
        return None if foreign or not self._sources[name] else len(self._sources[name])

    def _source(self, name: str, values: np.ndarray) -> Source | None:
        """Return the source that a message with these values is of; None: it holds nothing that the frame reads."""
        places, known = self._places[name], self._sources[name]
        # The sum of squares is a number only where every value is, and takes a fraction of the time.
        if not math.isnan(values.dot(values)):
            if known and known[0].columns is None:
                return known[0]
            whole = Source(name, places, None)
            known.insert(0, whole)
            return whole
        columns = np.flatnonzero(~np.isnan(values))
        if not len(columns):
            return None
        for source in known:
            if source.columns is not None and np.array_equal(source.columns, columns):
                return source
        known.append(Source(name, places[columns], columns))
        return known[-1]

    @staticmethod
    def _is_void(held: Reading | None) -> bool:
        """Tell whether what is said of this stamp is known to be contradicted."""
        return held is not None and bool(np.isnan(held.values).any())

    def _void(self, source: Source, stamp: int) -> None:
        """Let what was said of an input at this stamp be used by no frame, whoever said it."""
        for one in self._sources[source.name]:
            if (reading := one.readings.get(stamp)) is not None:
                one.readings.add(stamp, reading._replace(values=np.full(len(reading.values), np.nan)))
        self._mark_stale(stamp - self._skew)

    def _check(self, source: Source, stamp: int, own: np.ndarray, held: Reading | None) -> None:
        """Raise ContractError where something else was said of the same features at the same stamp."""
        place = None
        if held is not None:
            place = int(source.places[np.flatnonzero(held.values != own)[0]])
            said = (float(held.values[source.places == place][0]), float(own[source.places == place][0]))
        else:
            mine = dict(zip(source.places.tolist(), own.tolist(), strict=True))
            for other in self._sources[source.name]:
                theirs = other.readings.get(stamp) if other is not source else None
                if theirs is None:
                    continue
                for at, value in zip(other.places.tolist(), theirs.values.tolist(), strict=True):
                    if at in mine and mine[at] != value and place is None:
                        place, said = at, (value, mine[at])
        if place is None:
            return
        self.counts["contradictions"] += 1
        self._void(source, stamp)
        feature = self.contract.observed.frame[place]
        first, second = (value / feature.factor for value in said)
        raise ContractError(
            f"{self.contract.inputs[source.name].topic}: two messages of one stamp ({stamp / NANOSECONDS:.6f} s) "
            f"contradict each other: {feature.joint or feature.name} is {first:g} and {second:g} in {feature.field}; "
            "do two nodes publish the same joints?"
        )

    def _restart(self, stamp: int) -> None:
        """Time begins anew: keep of the readings those that came for it already."""
        self.counts["restarts"] += 1
        self._triggers.clear()
        self.frames.clear()
        self._late_run = None
        self._cuts.clear()
        self._told.clear()
        for sources in self._sources.values():
            for source in sources:
                source.readings.begin_anew(stamp)
                source.interval = 0
        self._newest = stamp

    def _begin(self, stamp: int) -> bool:
        """Take in a trigger; return True where it begins a frame that is newer than all before."""
        self._late_run = None
        triggers = self._triggers
        at = bisect_left(triggers, stamp)
        if at < len(triggers) and triggers[at] == stamp:  # another part of it
            return False
        self.counts["triggers"] += 1
        if triggers and stamp < triggers[-1]:
            newest = self.frames[-1].stamp if self.frames else None
            triggers.insert(at, stamp)
            self._rebuild(stamp - 1)
            return bool(self.frames) and self.frames[-1].stamp != newest
        triggers.append(stamp)
        if triggers[0] < stamp - 2 * HORIZON:
            del triggers[: bisect_left(triggers, stamp - HORIZON)]
        return self._consider(stamp, triggers[-2] if len(triggers) > 1 else None)

    def _rebuild(self, after: int) -> None:
        """Choose the frames later than `after` anew."""
        while self.frames and self.frames[-1].stamp > after:
            self.frames.pop()
        at = bisect_right(self._triggers, after)
        for i in range(at, len(self._triggers)):
            self._consider(self._triggers[i], self._triggers[i - 1] if i else None)

    def _consider(self, stamp: int, before: int | None) -> bool:
        """Begin a frame at a trigger where one is due. `before`: stamp of the trigger before it."""
        last = self.frames[-1] if self.frames else None
        cut = last is not None and any(last.stamp <= cut < stamp for cut in self._cuts)
        if last is None or before is None or cut or stamp - last.stamp > self._gap:
            frame = Frame(stamp, stamp + self._period, 0)
        else:
            # Nearest to where it is due, as far as the interval to the one before it foretells the next.
            interval = min(stamp - before, self._period)
            late = stamp - last.due
            if -2 * late > interval:
                return False
            lost = max(0, (2 * late + self._period) // (2 * self._period))
            error = late - lost * self._period
            frame = Frame(stamp, stamp - error + self._period + error // FOLLOWING, 1 + lost)
        self.frames.append(frame)
        if self.frames[0].stamp < stamp - 2 * HORIZON - self._reach:
            at = bisect_left(self.frames, stamp - HORIZON - self._reach, key=lambda frame: frame.stamp)
            del self.frames[:at]
        return True

    def _mark_stale(self, stamp: int) -> None:
        for frame in reversed(self.frames):
            if frame.stamp < stamp:
                break
            frame.stale = True

    def _fill(self, frame: Frame) -> None:
        frame.stale, frame.values = False, None
        frame.held = held = []
        values, stamp = np.empty(self.contract.frame_size), frame.stamp
        for name, sources in self._sources.items():
            if len(sources) == 1 and sources[0].columns is None:
                source = sources[0]
                at = source.readings.choose(stamp, self._skew, self._max_age[name])
                if at is None:
                    return
                reading = source.readings.values[at]
                values[source.places] = reading.values
                held.append((source, source.readings.stamps[at], reading.time))
            elif not self._merge(name, stamp, values, held):
                return
        if not math.isnan(values.dot(values)):
            frame.values = values

    def _merge(self, name: str, stamp: int, values: np.ndarray, held: list[tuple[Source, int, float]]) -> bool:
        """Fill in an input that comes in parts; return whether all of it is there."""
        values[self._places[name]] = np.nan
        chosen = []
        for source in self._sources[name]:
            at = source.readings.choose(stamp, self._skew, self._max_age[name])
            if at is not None:
                chosen.append((source.readings.stamps[at], source, source.readings.values[at]))
        # Where several hold a feature, the newest that is not later than the frame counts.
        chosen.sort(key=lambda found: (found[0] <= stamp, found[0]))
        for found, source, reading in chosen:
            values[source.places] = reading.values
            held.append((source, found, reading.time))
        return not np.isnan(values[self._places[name]]).any()
