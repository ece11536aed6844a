"""What every node's process shares: start, spin until told to stop, end cleanly; and the QoS of each kind of topic."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

from ssql_ros.processes import lifeline
from ssql_ros.processes.missing import explained
from ssql_ros.ros import arguments
from ssql_ros.ros.guard import Guard

SENSOR = qos_profile_sensor_data
# Of a view, only the newest counts.
NEWEST = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
# Only the newest command counts, and it must arrive.
COMMAND = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
EVENT = QoSProfile(depth=50, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# Answers of one node, the last few kept for those who come late.
ANSWERS = QoSProfile(
    depth=10,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def spin(node: Any, stopped: Callable[[], bool]) -> None:
    """Serve a node's callbacks until `stopped()` or ROS shuts down, whatever one of them raises: see `Guard.spin`."""
    (getattr(node, "guard", None) or Guard(node.get_logger())).spin(node, stopped)


def raise_priority(node: Any, priority: int, thread: int = 0) -> None:
    """Schedule a thread of this process by SCHED_FIFO; a node that may not goes on at normal priority, and says so.

    Args:
        thread: its native id; 0: the calling one.
    """
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        node.get_logger().warning(f"realtime_priority {priority}: {error}; it runs at normal priority")


def run_node(make: Callable[[], Any], serve: Callable[[Any, Callable[[], bool]], None] = spin) -> int:
    """Make a node, serve it until SIGINT, SIGTERM, SIGHUP or ROS shutdown, then call its `close` and destroy it.

    Args:
        serve: runs the node until its second argument says that it is to stop.

    A ValueError, OSError or ImportError of the constructor is a user's mistake or a missing part: it is printed in
    one line, without a traceback, and the exit status is 2. So are arguments that no node knows. `--help` prints what
    the node can be told. Started by `ssql_ros.graph.processes`, it ends with whoever started it.
    """
    # Not an Event: its lock would be waited for, for ever, by a signal that comes while another one is handled.
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: told.append(number))
    try:
        alone = lifeline.tie()
        others = arguments.unknown(sys.argv)
        if any(word in ("-h", "--help") for word in others):
            print(arguments.usage(make))
            return 0
        if others:
            raise ValueError(arguments.refusal(others, make))
        arguments.initialise()
        node = make()
    except (ValueError, OSError, ImportError, lifeline.ParentGone) as error:
        text = explained(error, make.__module__.rpartition(".")[2]) if isinstance(error, ImportError) else str(error)
        print(f"error: {text}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    try:
        serve(node, lambda: bool(told) and alone())
    finally:
        close = getattr(node, "close", None)
        if close is not None:
            close()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
