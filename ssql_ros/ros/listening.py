"""Listens to a live graph for a while: the bytes of every topic that a contract can read or command."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from ssql_ros.processes.interrupts import deferred
from ssql_ros.ros.recorded_topic import message_type

HEARD = QoSProfile(depth=1000, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
LOOK = 0.5  # s, between two looks for new topics


def listen(
    seconds: float,
    kinds: Collection[str],
    name: str = "ssql_contract_init",
    namespace: str = "",
    remap: Sequence[str] = (),
    topics: Callable[[Any], Collection[str]] | None = None,
    look: Callable[[Any], None] | None = None,
    wait: float = 0.0,
) -> list[tuple[str, str, int, bytes]]:
    """Return what came within `seconds`: topic, type, ns when it came, CDR, in the order in which it came.

    Args:
        kinds: message types that are heard; topics of two types are left out.
        name, namespace, remap: of the node that listens; remaps are FROM:=TO.
        topics: from that node to the names of the topics that are heard, with namespace; None: all.
        wait: s, for a first message, before `seconds` begin: to find who publishes takes a while.
        look: is given the node each time that the graph is looked at, and at the end.

    Raises:
        ValueError: seconds that are not above 0.
    """
    if not seconds > 0.0:
        raise ValueError(f"--seconds: expected a number above 0, got {seconds}")
    heard: list[tuple[str, str, int, bytes]] = []
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        words = ["--ros-args", *(word for rule in remap for word in ("-r", rule))] if remap else []
        node = rclpy.create_node(name, namespace=namespace, context=context, enable_rosout=False, cli_args=words)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        wanted = None if topics is None else topics(node)
        known, end, next_look = set[str](), time.monotonic() + wait + seconds, 0.0
        while (now := time.monotonic()) < end:
            if heard and wait:
                wait, end = 0.0, now + seconds
            if now >= next_look:
                next_look = now + LOOK
                for topic, types in node.get_topic_names_and_types():
                    if topic in known or len(types) != 1 or types[0] not in kinds:
                        continue
                    if wanted is None or topic in wanted:
                        known.add(topic)

                        def take(data: bytes, topic: str = topic, kind: str = types[0]) -> None:
                            heard.append((topic, kind, time.time_ns(), bytes(data)))

                        node.create_subscription(message_type(types[0]), topic, take, HEARD, raw=True)
                if look is not None:
                    look(node)
            with deferred():
                executor.spin_once(timeout_sec=min(0.1, max(0.0, end - now)))
        if look is not None:
            look(node)
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    return heard
