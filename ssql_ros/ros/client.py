"""A node of a process that is no node itself: it hears and asks, from one thread, for as long as a block lasts."""

from __future__ import annotations

from typing import Any, Self

import rclpy
from rclpy.node import Node

from ssql_ros.processes.interrupts import deferred
from ssql_ros.ros.executor import executor_for


class Client:
    """A node with an executor of its own. Use as a context manager.

    Args:
        options: of `rclpy.init`.
    """

    def __init__(self, name: str, **options: Any) -> None:
        rclpy.init(**options)
        self.node = Node(name)
        self._executor = executor_for(self.node)

    def spin(self, seconds: float) -> None:
        """Hear what comes within `seconds`, or the first of it; Ctrl-C ends it after that."""
        with deferred():
            self._executor.spin_once(timeout_sec=seconds)

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the graph."""
        self._executor.remove_node(self.node)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()
