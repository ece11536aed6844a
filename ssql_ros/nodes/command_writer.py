"""Serialises commands: numbers are filled into the bytes of one message, which is not made and converted each time."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from std_msgs.msg import Float64MultiArray

from ssql_ros.contract import Contract
from ssql_ros.contract.fields import JOINT_STATE, TWIST_STAMPED
from ssql_ros.contract.messages import fill, fill_joint_command
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.ros.inputs import empty_command, message_type

STAMP = 4  # of a message that begins with a header, after the four bytes that say how it is laid out
LATEST = 2**31 * NANOSECONDS  # ns, beyond what a message's stamp can say


class CommandWriter:
    """Makes the serialised commands of one contract.

    Args:
        forward: as Float64MultiArray instead of the contract's type.

    Attributes:
        type: of the message.
    """

    def __init__(self, contract: Contract, forward: bool) -> None:
        own = contract.commanded.type
        self.type: Any = Float64MultiArray if forward else message_type(own)
        # Numbers that are found again among the bytes, wherever a release puts them.
        marks = 1.25 + np.arange(len(contract.commanded.joint_names))
        if forward:
            message = fill(Float64MultiArray(), data=marks)
        else:
            message = fill_joint_command(empty_command(own), contract, marks, 0)
        self._stamped = not forward and own in (JOINT_STATE, TWIST_STAMPED)
        data = bytearray(serialize_message(message))
        order = "<" if data[1] == 1 else ">"
        self._float, self._time, self._data = struct.Struct(f"{order}d"), struct.Struct(f"{order}iI"), data
        self._places = [data.index(self._float.pack(mark)) for mark in marks.tolist()]

    def __call__(self, joint_command: np.ndarray, stamp: int) -> bytes:
        """Return a joint command (n_joint,) in SI units as bytes; `stamp`: ns, 0 where a message cannot say it."""
        if self._stamped:
            self._time.pack_into(self._data, STAMP, *divmod(stamp if 0 <= stamp < LATEST else 0, NANOSECONDS))
        for place, value in zip(self._places, joint_command.tolist(), strict=True):
            self._float.pack_into(self._data, place, value)
        return bytes(self._data)
