"""Serialises commands: numbers are filled into the bytes of one message, which is not made and converted each time."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from ssql_ros.contract import Contract
from ssql_ros.contract.messages import fill, fill_joint_command
from ssql_ros.contract.stamped import NANOSECONDS

STAMP = 4  # of a message that begins with a header, after the four bytes that say how it is laid out
LATEST = 2**31 * NANOSECONDS  # ns, beyond what a message's stamp can say


class CommandWriter:
    """Makes the serialised commands of one contract.

    Args:
        forward: as Float64MultiArray instead of JointState.

    Attributes:
        type: of the message.
    """

    def __init__(self, contract: Contract, forward: bool) -> None:
        self.type: Any = Float64MultiArray if forward else JointState
        # Numbers that are found again among the bytes, wherever a release puts them.
        marks = 1.25 + np.arange(len(contract.commanded.joint_names))
        if forward:
            message = fill(Float64MultiArray(), data=marks)
        else:
            message = fill_joint_command(JointState(), contract, marks, 0)
        self._stamped = not forward
        data = bytearray(serialize_message(message))
        order = "<" if data[1] == 1 else ">"
        self._floats, self._time = struct.Struct(f"{order}{len(marks)}d"), struct.Struct(f"{order}iI")
        self._place, self._data = data.index(self._floats.pack(*marks)), data

    def __call__(self, joint_command: np.ndarray, stamp: int) -> bytes:
        """Return a joint command (n_joint,) in SI units as bytes; `stamp`: ns, 0 where a message cannot say it."""
        if self._stamped:
            self._time.pack_into(self._data, STAMP, *divmod(stamp if 0 <= stamp < LATEST else 0, NANOSECONDS))
        self._floats.pack_into(self._data, self._place, *joint_command.tolist())
        return bytes(self._data)
