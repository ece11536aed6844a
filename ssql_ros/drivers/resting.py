"""A robot at rest, as its contract tells: joints where the safe action puts them, everything else in the middle.

Not a model of the robot: numbers that its sensors could read while nothing happens, outside its failure set.
"""

from __future__ import annotations

import math

import numpy as np

from ssql_ros.contract.contract import Contract, Feature
from ssql_ros.contract.sensor_readings import Place, frame_of, place_of

# Of what rests, by type and field, where the incident rule says nothing: SI units. Everything else is 0.
RESTING = {
    ("sensor_msgs/msg/Imu", "linear_acceleration.z"): 9.81,  # an IMU measures what holds it up (REP-145)
    ("sensor_msgs/msg/Range", "range"): 2.0,
    ("sensor_msgs/msg/BatteryState", "voltage"): 12.0,
    ("sensor_msgs/msg/BatteryState", "percentage"): 1.0,
}
SCAN, FREE = "sensor_msgs/msg/LaserScan", 2.0  # m, that nothing is within
SPREADS, TRIES = (0.3, 1.0, 3.0, 10.0), 500


def resting_values(contract: Contract) -> dict[Place, float]:
    """Return what is measured, SI units, of every feature of the frame, outside the failure set where any is found.

    The safe action's pose where joints are commanded by position. What the incident rule limits is in the middle
    between its limits, or beside the only one. Where that is inside the failure set, places around it are tried.
    """
    held, free = _held(contract), []
    values: dict[Place, float] = {}
    for feature in contract.observed.frame:
        place = place_of(feature)
        if feature.field == contract.commanded.field and feature.joint in held:
            values[place] = held[feature.joint]
            continue
        values.setdefault(place, _default(contract, feature))
        if not feature.function and feature.factor:
            values[place] = _beside_limits(contract, feature, values[place])
            free.append(feature)
    return _outside(contract, values, free)


def _held(contract: Contract) -> dict[str | None, float]:
    """Return the position of each joint that is commanded by position, in the safe action's pose."""
    told = contract.commanded
    if told.field != "position":
        return {}
    command = contract.joint_command(contract.safe_action).tolist()
    return {joint: value / len(joints) for joints, value in zip(told.moved, command, strict=True) for joint in joints}


def _default(contract: Contract, feature: Feature) -> float:
    kind = contract.inputs[feature.input].type
    return FREE if kind == SCAN else RESTING.get((kind, feature.field), 0.0)


def _beside_limits(contract: Contract, feature: Feature, value: float) -> float:
    """Return a value (SI) that the limits on this feature leave open, the one that is given where they do."""
    for limit in contract.limits:
        if limit.feature != feature.name:
            continue
        low, high, now = limit.below, limit.above, value * feature.factor
        if math.isfinite(low) and math.isfinite(high):
            return 0.5 * (low + high) / feature.factor
        if now <= low:
            return (low + max(1.0, abs(low))) / feature.factor
        if now >= high:
            return (high - max(1.0, abs(high))) / feature.factor
    return value


def _outside(contract: Contract, values: dict[Place, float], free: list[Feature]) -> dict[Place, float]:
    """Return values outside the failure set: those given, else the least inside it of places around them."""
    best, found = contract.margin(frame_of(contract, values))[0], values
    rng = np.random.default_rng(0)
    for spread in SPREADS:
        if best < 0.0 or not free:
            break
        for _ in range(TRIES):
            apart = rng.normal(0.0, spread, len(free))
            tried = values | {
                place_of(feature): values[place_of(feature)] + step / feature.factor
                for feature, step in zip(free, apart.tolist(), strict=True)
            }
            margin = contract.margin(frame_of(contract, tried))[0]
            if margin < best:
                best, found = margin, tried
    return found
