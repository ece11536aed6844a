"""The message types that contracts name, and how their bytes are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.serialization import deserialize_message

from ssql_ros.contract.fields import TRAJECTORY
from ssql_ros.contract.message_kinds import kinds
from ssql_ros.contract.schema import ContractError
from ssql_ros.contract.serialised import reader_of
from ssql_ros.ros.recorded_topic import message_type as message_type


def empty_command(kind: str) -> Any:
    """Return a message of a type of command, for `messages.fill_joint_command`."""
    message = message_type(kind)()
    if kind == TRAJECTORY:
        message.points = [message_type("trajectory_msgs/msg/JointTrajectoryPoint")()]
    return message


def parser_of(kind: str) -> Callable[[bytes], Any]:
    """Return what reads serialised messages of a type; see `ssql_ros.contract.serialised`. It raises ContractError."""

    def otherwise(data: bytes) -> Any:
        if kind in kinds() or kind == TRAJECTORY:
            raise ContractError(f"a {kind}: expected little-endian CDR, got the header {data[:4].hex()}")
        try:
            return deserialize_message(data, message_type(kind))
        except Exception as error:  # of rmw's own kind; it says only that it cannot
            raise ContractError(f"a {kind} of {len(data)} bytes is not a whole message: {error}") from error

    return reader_of(kind, otherwise)
