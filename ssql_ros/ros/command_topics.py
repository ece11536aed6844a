"""Subscribes to commands, however many topics they come on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.qos import QoSProfile

from ssql_ros.contract import Contract
from ssql_ros.contract.command_assembly import CommandAssembly
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.inputs import message_type, parser_of
from ssql_ros.ros.qos import subscribe

# Is given what reads a command, and s on the steady clock at which the message came that completes it. What reads it
# raises ContractError, and gives None where joints of it are still to come.
Take = Callable[[Callable[[], Any], float], None]


def hear_commands(
    node: Any,
    contract: Contract,
    topics: Sequence[str],
    take: Take,
    qos: QoSProfile,
    guard: Guard,
    timeout: float | None = None,
) -> list[Any]:
    """Subscribe to the commands of one sender; return the subscriptions.

    Args:
        topics, timeout: as of `CommandAssembly`.
        take: is called for each message.
    """
    told = contract.commanded
    assembly, parse = CommandAssembly(contract, topics, timeout), parser_of(told.type)

    def receiver(place: int) -> Callable[[bytes], None]:
        def receive(data: bytes) -> None:
            arrival = time.monotonic()
            take(lambda: assembly.take(place, lambda: parse(data), arrival), arrival)

        return receive

    return [
        subscribe(node, message_type(told.type), topic, guard(topic, receiver(place)), qos, raw=True)
        for place, topic in enumerate(topics)
    ]
