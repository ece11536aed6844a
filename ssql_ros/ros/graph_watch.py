"""Who else is on a shield's topics: a second controller or shield, a controller wired past it, an incompatible QoS.

All of that makes a shield useless without a sign at the shield itself, so it looks for it, one topic at a time: a look
at the graph takes time from the thread that serves sensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.qos import QoSProfile


class GraphWatch:
    """Looks at a shield's topics in turn.

    Args:
        node: the shield's.
        commanded: topic of the commands that it publishes; `proposals`: of those that it takes.
        inputs: topics of the sensors, by the name of the contract's input.
        command_qos, sensor_qos: what it offers and asks for there.
        takeover: topic of an operator's commands; empty: there is none.
        publishers_allowed: how many publishers of an input can be told apart by what they publish; None: any number.

    Attributes:
        problems: what is wrong now, by topic.
    """

    def __init__(
        self,
        node: Any,
        commanded: str,
        proposals: Sequence[str],
        inputs: dict[str, str],
        command_qos: QoSProfile,
        sensor_qos: QoSProfile,
        publishers_allowed: Callable[[str], int | None],
        takeover: str = "",
    ) -> None:
        self.problems: dict[str, str] = {}
        self._node, self._commanded, self._proposals = node, commanded, list(proposals)
        self._command_qos, self._sensor_qos, self._allowed = command_qos, sensor_qos, publishers_allowed
        self._controllers: dict[str, list[str]] = {}
        self._turns: list[tuple[str, Callable[[], str]]] = [
            (commanded, self._look_at_commands),
            *((topic, self._look_at_proposals(topic)) for topic in proposals),
            *((topic, self._look_at_input(name, topic)) for name, topic in inputs.items()),
            *((topic, self._look_at_takeover(topic)) for topic in [takeover] if topic),
        ]
        self._turn = 0

    def look(self) -> bool:
        """Look at the next topic; return whether something is otherwise than it was."""
        topic, check = self._turns[self._turn]
        self._turn = (self._turn + 1) % len(self._turns)
        problem, before = check(), self.problems.get(topic, "")
        if problem:
            self.problems[topic] = problem
        else:
            self.problems.pop(topic, None)
        return problem != before

    def look_at_all(self) -> dict[str, str]:
        """Look at every topic once; return what is wrong, by topic."""
        for _ in self._turns:
            self.look()
        return self.problems

    @property
    def controllers(self) -> list[str]:
        """Return the nodes that propose commands."""
        return sorted({name for names in self._controllers.values() for name in names})

    def publishers(self, topic: str) -> list[str]:
        """Return the publishers of a topic, a node's name for each."""
        return [node_of(info) for info in self._publishers(topic)]

    def _publishers(self, topic: str) -> list[Any]:
        return self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))

    def _look_at_commands(self) -> str:
        topic = self._node.resolve_topic_name(self._commanded)
        publishers = self.publishers(self._commanded)
        if len(publishers) > 1:
            others = list(publishers)
            own = self._node.get_fully_qualified_name()
            if own in others:
                others.remove(own)
            return (
                f"{', '.join(sorted(others))} also publishes {topic}, past this shield: only the shield may command "
                f"the robot; remap the controller to {self._proposals[0]}, and let one shield run"
            )
        return self._incompatible(
            topic, self._node.get_subscriptions_info_by_topic(topic), lambda other: (self._command_qos, other)
        )

    def _look_at_proposals(self, name: str) -> Callable[[], str]:
        def look() -> str:
            found = self._publishers(name)
            names = [node_of(info) for info in found]
            self._controllers[name] = names
            # One controller may publish one topic or another; two of one name are two.
            if len(self.controllers) > 1 or len(names) > 1:
                several = sorted(names) if len(names) > 1 else self.controllers
                return (
                    f"{len(several)} controllers propose commands on {', '.join(self._proposals)}: "
                    f"{', '.join(several)}; let one of them run"
                )
            return self._incompatible(name, found, lambda other: (other, self._command_qos))

        return look

    def _look_at_takeover(self, topic: str) -> Callable[[], str]:
        def look() -> str:
            found = self._publishers(topic)
            if len(found) > 1:
                names = ", ".join(sorted(map(node_of, found)))
                return f"{len(found)} operators command on {topic}: {names}; let one of them do so at a time"
            return self._incompatible(topic, found, lambda other: (other, self._command_qos))

        return look

    def _look_at_input(self, name: str, topic: str) -> Callable[[], str]:
        def look() -> str:
            found = self._publishers(topic)
            allowed = self._allowed(name)
            if allowed is not None and len(found) > allowed:
                return several(topic, [node_of(info) for info in found])
            return self._incompatible(topic, found, lambda other: (other, self._sensor_qos))

        return look

    def _incompatible(self, topic: str, found: Sequence[Any], pair: Callable[[QoSProfile], tuple[Any, Any]]) -> str:
        for info in found:
            if reason := incompatibility(*pair(info.qos_profile)):
                return f"{topic}: the QoS of {node_of(info)} is incompatible, and nothing arrives: {reason}"
        return ""


def incompatibility(offered: QoSProfile, requested: QoSProfile) -> str:
    """Return why a publisher's and a subscription's QoS do not match, or an empty text.

    As DDS has it: what is offered must be at least what is requested. rclpy's qos_check_compatible takes a profile's
    default, a duration of 0, for the shortest one; on the wire it is infinite.
    """
    if _is(requested.reliability, "RELIABLE") and _is(offered.reliability, "BEST_EFFORT"):
        return "best effort is offered where reliable is requested"
    if _is(requested.durability, "TRANSIENT_LOCAL") and _is(offered.durability, "VOLATILE"):
        return "volatile is offered where transient local is requested"
    for name in ("deadline", "liveliness_lease_duration"):
        most, least = (_seconds(getattr(profile, name)) for profile in (requested, offered))
        if least > most:
            return f"the {name.replace('_', ' ')} offered ({least:g} s) is longer than the one requested ({most:g} s)"
    return ""


def _is(policy: Any, name: str) -> bool:
    return policy.name == name


def _seconds(duration: Any) -> float:
    nanoseconds = duration.nanoseconds
    # rmw gives infinite as the largest number that fits.
    return math.inf if nanoseconds <= 0 or nanoseconds >= 2**62 else nanoseconds * 1e-9


def several(topic: str, names: Sequence[str]) -> str:
    """Return that an input has several publishers whose values cannot be told apart."""
    publishers = ", ".join(sorted(names))
    return f"{topic} has {len(names)} publishers of the same values, {publishers}; which one is the robot's?"


def node_of(info: Any) -> str:
    """Return the full name of the node that an endpoint (TopicEndpointInfo) is of."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
