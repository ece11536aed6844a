"""Publishes one node's health on /diagnostics (REP-107)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ssql_ros.contract.messages import set_stamp
from ssql_ros.contract.topics import DIAGNOSTICS_TOPIC

Description = tuple[bytes, str, dict[str, str]]


class Diagnostics:
    """One status of one component.

    Args:
        node: whose name and clock are used.
        component: what the status is about.
        describe: returns the level (DiagnosticStatus.OK, WARN, ERROR), a summary and values by name.
    """

    def __init__(self, node: Any, component: str, describe: Callable[[], Description]) -> None:
        self._node, self._describe = node, describe
        self._name = f"{node.get_fully_qualified_name().lstrip('/')}: {component}"
        self._publisher = node.create_publisher(DiagnosticArray, DIAGNOSTICS_TOPIC, 10)

    def publish(self) -> None:
        """Describe the component now and publish it."""
        level, message, values = self._describe()
        status = DiagnosticStatus(level=level, name=self._name, message=message)
        status.hardware_id = self._node.get_name()
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        set_stamp(array, self._node.get_clock().now().nanoseconds)
        self._publisher.publish(array)

    def close(self) -> None:
        """Give up the topic."""
        self._node.destroy_publisher(self._publisher)
