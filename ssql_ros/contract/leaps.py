"""Tells where a robot was put elsewhere: from one frame to the next it moved as no motion moves it.

A simulation is reset, a motion capture begins anew, somebody carries the robot back while the driver pauses: stamps go
on, and what is measured leaps. What leaps is told from what moves fast by speed. An input's `max_speed` counts alone
where the contract gives one. Else a place is compared with the velocities that the same frames measure, at both ends:
it leaps where it moved more than twice as far as the faster of them explains, and further than any acceleration makes
up for between two measurements. Where no velocity is measured, only what is beyond `FASTEST` leaps. A pose is judged
as a position and as an orientation; its `max_speed` is that of the position.

An orientation is judged as a whole, so that roll may flip where pitch passes 90 degrees; a joint by its angle on the
circle, so that an encoder may begin anew after a turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ssql_ros.contract.contract import Contract, Feature
from ssql_ros.contract.fields import JOINT_STATE, POSE
from ssql_ros.contract.rotations import quaternion_of
from ssql_ros.contract.stamped import NANOSECONDS

if TYPE_CHECKING:
    from ssql_ros.contract.readings import Frame

IMU, ODOMETRY = "sensor_msgs/msg/Imu", "nav_msgs/msg/Odometry"
# By type, beyond what moves: a joint whose position is commanded, rad/s; the range of a gyroscope of 2000 deg/s; m/s.
FASTEST = {JOINT_STATE: 100.0, IMU: 35.0, ODOMETRY: 100.0}
# By type, how far it may be from what velocities explain: noise and corrections of an estimate, rad or m, and what
# this acceleration does between two measurements, rad/s^2 or m/s^2 (an impact, a direct drive).
NOISE = {JOINT_STATE: 0.2, IMU: 0.1, ODOMETRY: 0.2}
ACCELERATION = {JOINT_STATE: 5000.0, IMU: 1000.0, ODOMETRY: 100.0}
SLACK = 2.0
_UNIT = {JOINT_STATE: "rad", IMU: "rad", ODOMETRY: "m"}


class _Place:
    """A place that is measured: one joint's angle, an orientation, a position.

    Args:
        at: where in a frame its numbers are, `factors` what the SI values were multiplied by.
        way: returns how far two of it (SI) are apart, rad or m.
        rates: where its velocities are, and their factors; none: not all that are needed are measured.
    """

    def __init__(
        self,
        contract: Contract,
        features: list[tuple[int, Feature]],
        rates: list[tuple[int, Feature]],
        way: Callable[[list[float], list[float]], float],
    ) -> None:
        first = features[0][1]
        source = contract.inputs[first.input]
        # A pose is two places: it moves as what an odometry and what an IMU measures.
        turns = first.field.startswith("orientation.")
        self.kind = source.type if source.type != POSE else IMU if turns else ODOMETRY
        max_speed = None if source.type == POSE and turns else source.max_speed
        self.input = first.input
        self.name = " and ".join(feature.name for _, feature in features)
        self._at = [(i, feature.factor) for i, feature in features]
        self._rates = [] if max_speed is not None else [(i, feature.factor) for i, feature in rates]
        self._way = way
        commanded = contract.commanded
        moved = {joint for joints in commanded.moved for joint in joints}
        free = first.joint is not None and not (first.joint in moved and commanded.field == "position")
        # A wheel may turn as fast as it likes.
        self._fastest = max_speed or (math.inf if free else FASTEST[self.kind])

    @property
    def judged(self) -> bool:
        """Tell whether it can leap at all."""
        return bool(self._rates) or self._fastest < math.inf

    def leap(self, before: np.ndarray, after: np.ndarray, elapsed: float) -> str:
        """Return how it leapt within `elapsed` s, or an empty text."""
        way = self._way([before[i] / f for i, f in self._at], [after[i] / f for i, f in self._at])
        if self._rates:
            speed = max(math.hypot(*(frame[i] / f for i, f in self._rates)) for frame in (before, after))
            explained = SLACK * speed * elapsed + self._unseen(elapsed)
            why = f"measured velocities explain {explained:.3g}"
        else:
            explained = self._fastest * elapsed
            why = f"at most {self._fastest:g} {_UNIT[self.kind]}/s would be {explained:.3g}"
        if way <= explained:
            return ""
        return f"{self.name} moved by {way:.3g} {_UNIT[self.kind]} in {elapsed:.3f} s, where {why}"

    def _unseen(self, elapsed: float) -> float:
        return max(NOISE[self.kind], ACCELERATION[self.kind] * elapsed**2 / 4)

    def least(self, period: float) -> float:
        """Return what each of its numbers, in the frame's units, may change by without a closer look."""
        least = self._unseen(period) if self._rates else self._fastest * period
        return least / len(self._at) * min(abs(f) for _, f in self._at)

    @property
    def places(self) -> list[int]:
        """Return where in a frame its numbers are."""
        return [i for i, _ in self._at]


class LeapRule:
    """Judges two frames of a contract, one after the other."""

    def __init__(self, contract: Contract) -> None:
        self._period = contract.control_period
        self._places = [place for place in _places(contract) if place.judged]
        self._at = np.array([i for place in self._places for i in place.places], dtype=int)
        self._least = np.array([place.least(self._period) for place in self._places for _ in place.places])

    def find(self, before: Frame, after: Frame) -> str:
        """Return what leapt between two whole frames, in words; an empty text: nothing."""
        first, second = before.values, after.values
        assert first is not None
        assert second is not None
        if not len(self._at) or (np.abs(second[self._at] - first[self._at]) <= self._least).all():
            return ""
        for place in self._places:
            if leap := place.leap(first, second, self._elapsed(place.input, before, after)):
                return leap
        return ""

    def _elapsed(self, name: str, before: Frame, after: Frame) -> float:
        """Return how far what two frames hold of an input lies apart, s; a control period at least."""
        earlier = [stamp for source, stamp, _ in before.held if source.name == name]
        later = [stamp for source, stamp, _ in after.held if source.name == name]
        return max(self._period, (max(later) - min(earlier)) / NANOSECONDS)


def place_leap(contract: Contract, name: str, fields: tuple[str, ...], way: np.ndarray, elapsed: int) -> str:
    """Return how what is read of an odometry, beside the frame, leapt, in words; an empty text: it did not.

    Args:
        fields: that are read, `way` (n_fields,) how they changed, SI units.
        elapsed: ns, between the two messages.
    """
    source = contract.inputs[name]
    seconds = max(contract.control_period, elapsed / NANOSECONDS)
    far = math.hypot(*(step for field, step in zip(fields, way.tolist(), strict=True) if field.startswith("position.")))
    fastest = source.max_speed or FASTEST[ODOMETRY]
    if source.type != ODOMETRY or far <= fastest * seconds:
        return ""
    return (
        f"the position on {source.topic} moved by {far:.3g} m in {seconds:.3f} s, where at most {fastest:g} m/s would "
        f"be {fastest * seconds:.3g}"
    )


def _places(contract: Contract) -> list[_Place]:
    places: list[_Place] = []
    for name in contract.observed_inputs:
        frame, kind = contract.observed.frame, contract.inputs[name].type
        of_input = [(i, f) for i, f in enumerate(frame) if f.input == name and f.factor and not f.function]
        if kind == JOINT_STATE:
            for at in of_input:
                rates = [one for one in of_input if one[1].joint == at[1].joint and one[1].field == "velocity"]
                if at[1].field == "position":
                    places.append(_Place(contract, [at], rates, _turned))
            continue
        by_field = {feature.field: (i, feature) for i, feature in of_input}
        found = [] if kind == IMU else [_positioned(contract, by_field)]
        found += [] if kind == ODOMETRY else [_oriented(contract, by_field)]
        places += [place for place in found if place is not None]
    return places


def _positioned(contract: Contract, by_field: dict[str, tuple[int, Feature]]) -> _Place | None:
    axes = [axis for axis in "xyz" if f"position.{axis}" in by_field]
    rates = [axis for axis in "xyz" if f"linear_velocity.{axis}" in by_field]
    if not axes:
        return None
    # Velocities are of the body (nav_msgs), positions are not: only their lengths can be compared.
    enough = len(rates) > 1 and set(axes) <= set(rates)
    return _Place(
        contract,
        [by_field[f"position.{axis}"] for axis in axes],
        [by_field[f"linear_velocity.{axis}"] for axis in rates] if enough else [],
        math.dist,
    )


def _oriented(contract: Contract, by_field: dict[str, tuple[int, Feature]]) -> _Place | None:
    """Return the tilt or orientation that an IMU or a pose tells; None where what is read has no sure distance."""
    turns = [turn for turn in ("roll", "pitch", "yaw") if f"orientation.{turn}" in by_field]
    ways: dict[tuple[str, ...], Callable[[list[float], list[float]], float]] = {
        ("pitch",): _turned,
        ("roll", "pitch"): _tilted,
        ("roll", "pitch", "yaw"): _rotated,
    }
    way = ways.get(tuple(turns))
    if way is None:
        return None
    rates: list[tuple[int, Feature]] = []
    for prefix in ("world_angular_velocity", "angular_velocity"):
        found = [axis for axis in "xyz" if f"{prefix}.{axis}" in by_field]
        # Turning about the vertical tilts nothing.
        if found == ["x", "y", "z"] or (found == ["x", "y"] and prefix.startswith("world") and "yaw" not in turns):
            rates = [by_field[f"{prefix}.{axis}"] for axis in found]
            break
    return _Place(contract, [by_field[f"orientation.{turn}"] for turn in turns], rates, way)


def _turned(before: list[float], after: list[float]) -> float:
    return abs(math.remainder(after[0] - before[0], 2 * math.pi))


def _down(roll: float, pitch: float) -> tuple[float, float, float]:
    """Return the vertical, seen from the body."""
    return -math.sin(pitch), math.sin(roll) * math.cos(pitch), math.cos(roll) * math.cos(pitch)


def _tilted(before: list[float], after: list[float]) -> float:
    """Return by how much (roll, pitch) tilts the body further, rad."""
    return 2.0 * math.asin(min(1.0, math.dist(_down(*before), _down(*after)) / 2.0))


def _rotated(before: list[float], after: list[float]) -> float:
    """Return the angle between two orientations (roll, pitch, yaw), rad."""
    first, second = quaternion_of(*before), quaternion_of(*after)
    apart = min(math.dist(first, second), math.dist(first, [-number for number in second]))
    return 4.0 * math.asin(min(1.0, apart / 2.0))
