"""From the fields that a frame reads back to what the sensors must have read: the way of `messages`, backwards.

Whoever stands in for a driver needs it: a simulated robot, a scripted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssql_ros.contract.contract import Contract, Feature
from ssql_ros.contract.fields import FUNCTIONS, JOINT_STATE
from ssql_ros.contract.message_kinds import kinds
from ssql_ros.contract.messages import scaled
from ssql_ros.contract.rotations import quaternion_of, rotated

# Of one input, by the fields of its message type: vectors (3,), quaternions (x, y, z, w), and of joints `name` and
# position, velocity or effort; of types that are tables (`message_kinds`), each field's number by its whole name.
Reading = dict[str, Any]
# One number that is measured: input, joint (None: it is of none), field.
Place = tuple[str, str | None, str]
_TURNS = ("roll", "pitch", "yaw")


def place_of(feature: Feature) -> Place:
    """Return where a feature's number is measured."""
    return feature.input, feature.joint, feature.field


def frame_of(contract: Contract, values: Mapping[Place, float]) -> np.ndarray:
    """Return the frame (n_frame,) of what is measured, SI units."""
    return np.array(
        [
            scaled(feature.factor * values[place_of(feature)], feature.wrap, FUNCTIONS.get(feature.function))
            for feature in contract.observed.frame
        ]
    )


def readings_of(contract: Contract, values: Mapping[Place, float]) -> dict[str, Reading]:
    """Return what the sensors read, by the contract's inputs, from what is measured (SI units).

    What the frame does not read is left out: a message then has what its type begins with. Angular velocities in the
    world's frame are turned to the body's.
    """
    readings: dict[str, Reading] = {name: {} for name in contract.inputs}
    for (name, joint, field), value in values.items():
        reading, kind = readings[name], contract.inputs[name].type
        vector, _, axis = field.rpartition(".")
        if kind == JOINT_STATE:
            names = reading.setdefault("name", _joints(values, name))
            reading.setdefault(field, [0.0] * len(names))[names.index(joint)] = value
        elif kind in kinds():
            reading[field] = value
        elif vector == "orientation":
            reading.setdefault("turns", [0.0, 0.0, 0.0])[_TURNS.index(axis)] = value
        else:
            reading.setdefault(vector, [0.0, 0.0, 0.0])["xyz".index(axis)] = value
    for name, reading in readings.items():
        quaternion = quaternion_of(*reading.pop("turns", (0.0, 0.0, 0.0)))
        w, x, y, z = quaternion
        if contract.inputs[name].frame_id:
            reading["frame_id"] = contract.inputs[name].frame_id
        if quaternion != (1.0, 0.0, 0.0, 0.0):
            reading["orientation"] = [x, y, z, w]
        if "world_angular_velocity" in reading:
            reading["angular_velocity"] = list(rotated((w, -x, -y, -z), tuple(reading.pop("world_angular_velocity"))))
    return readings


def _joints(values: Mapping[Place, float], name: str) -> list[str]:
    return list(dict.fromkeys(joint for at, joint, _ in values if at == name and joint is not None))
