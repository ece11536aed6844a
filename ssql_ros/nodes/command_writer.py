"""Publishes commands. Numbers are filled into the bytes of one message, which is not made and converted each time."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from std_msgs.msg import Float64MultiArray

from ssql_ros.contract import Contract
from ssql_ros.contract.messages import fill, fill_joint_command
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.ros.inputs import empty_command, message_type
from ssql_ros.ros.qos import publish_on

STAMP = 4  # of a message that begins with a header, after the four bytes that say how it is laid out
LATEST = 2**31 * NANOSECONDS  # ns, beyond what a message's stamp can say


class CommandWriter:
    """Makes the serialised commands of one contract; where each joint has a topic of its own, those of any joint.

    Args:
        forward: as Float64MultiArray instead of the contract's type.

    Raises:
        ValueError: `forward`, and each joint has a topic of its own.

    Attributes:
        type: of the message.
    """

    def __init__(self, contract: Contract, forward: bool) -> None:
        own, apart = contract.commanded.type, contract.commanded.apart
        if forward and apart:
            raise ValueError(f"command_type forward: {contract.path} has a topic for each joint; expected joint_state")
        self.type: Any = Float64MultiArray if forward else message_type(own)
        # Numbers that are found again among the bytes, wherever a release puts them.
        marks = 1.25 + np.arange(1 if apart else len(contract.commanded.joint_names))
        if forward:
            message = fill(Float64MultiArray(), data=marks)
        else:
            message = fill_joint_command(empty_command(own), contract, marks, 0)
        self._stamped = not forward and contract.commanded.stamped
        data = bytearray(serialize_message(message))
        order = "<" if data[1] == 1 else ">"
        self._float, self._time, self._data = struct.Struct(f"{order}d"), struct.Struct(f"{order}iI"), data
        self._places = [data.index(self._float.pack(mark)) for mark in marks.tolist()]

    def __call__(self, joint_command: np.ndarray, stamp: int) -> bytes:
        """Return a joint command (n_joint,), or (1,) of one joint, in SI units as bytes.

        Args:
            stamp: ns, 0 where a message cannot say it.
        """
        if self._stamped:
            self._time.pack_into(self._data, STAMP, *divmod(stamp if 0 <= stamp < LATEST else 0, NANOSECONDS))
        for place, value in zip(self._places, joint_command.tolist(), strict=True):
            self._float.pack_into(self._data, place, value)
        return bytes(self._data)


class CommandPublisher:
    """Publishes the commands of one contract, however many topics they go to.

    Args:
        topics: the contract's, or those before the shield: see `Commanded.topics`.
        forward: see `CommandWriter`; its errors are raised.

    Attributes:
        publishers: one for each of `topics`.
    """

    def __init__(
        self, node: Any, contract: Contract, topics: Sequence[str], qos: QoSProfile, forward: bool = False
    ) -> None:
        self._node, self._apart = node, contract.commanded.apart
        self._write = CommandWriter(contract, forward)
        self.publishers = [publish_on(node, self._write.type, topic, qos) for topic in topics]

    def publish(self, joint_command: np.ndarray, stamp: int) -> None:
        """Publish a joint command (n_joint,) in SI units; `stamp`: see `CommandWriter`."""
        parts = joint_command.reshape(-1, 1) if self._apart else [joint_command]
        for publisher, part in zip(self.publishers, parts, strict=True):
            publisher.publish(self._write(part, stamp))

    def get_subscription_count(self) -> int:
        """Return how many hear whole commands."""
        return min(publisher.get_subscription_count() for publisher in self.publishers)

    def destroy(self) -> None:
        """Give up the topics."""
        for publisher in self.publishers:
            self._node.destroy_publisher(publisher)
