"""The executor of every node: EventsExecutor, or where rclpy has none, as in early Jazzy, SingleThreadedExecutor."""

from __future__ import annotations

from typing import Any

from rclpy.executors import SingleThreadedExecutor

try:
    from rclpy.experimental.events_executor import EventsExecutor
except ImportError:
    EventsExecutor = None
# Whether a process has said already that it makes do.
_said = False


def executor_for(node: Any) -> Any:
    """Return an executor that serves a node; say so once, at INFO, where it is the slower of the two.

    Use it by `spin_once(timeout_sec=...)`: EventsExecutor.spin() delivers nothing in some releases.
    """
    global _said
    if EventsExecutor is None and not _said:
        _said = True
        node.get_logger().info(
            "this rclpy has no EventsExecutor: SingleThreadedExecutor serves the node and takes more processor time"
        )
    executor = SingleThreadedExecutor() if EventsExecutor is None else EventsExecutor()
    executor.add_node(node)
    return executor
