"""Who else is on a shield's topics: a second controller or shield, a controller wired past it, an incompatible QoS.

All of that makes a shield useless without a sign at the shield itself, so it looks for it, one topic at a time: a look
at the graph takes time from the thread that serves sensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.qos import QoSProfile

from ssql_ros.ros.qos import override

UNRELIABLE = "best effort is offered where reliable is requested"
KEY = "`reliability: best_effort` in the contract's action.command, or "
LOOKS = 10  # after so many all topics were looked at


class GraphWatch:
    """Looks at a shield's topics in turn.

    Args:
        node: the shield's.
        commanded: topics of the commands that it publishes; `proposals`: of those that it takes, those first that each
            of `commanded` has as a controller's.
        inputs: topics of the sensors, by the name of the contract's input.
        qos: what it offers and asks for there, by full name.
        takeover: topics of an operator's commands.
        publishers_allowed: how many publishers of an input can be told apart by what they publish; None: any number.

    Attributes:
        problems: what is wrong now, by topic.
    """

    def __init__(
        self,
        node: Any,
        commanded: Sequence[str],
        proposals: Sequence[str],
        inputs: dict[str, str],
        qos: Mapping[str, QoSProfile],
        publishers_allowed: Callable[[str], int | None],
        takeover: Sequence[str] = (),
    ) -> None:
        self.problems: dict[str, str] = {}
        self._node, self._proposals = node, list(proposals)
        self._qos, self._allowed = qos, publishers_allowed
        self._controllers: dict[str, list[str]] = {}
        self._by_joint = self._proposals[: len(commanded)]  # a robot's controllers may be as many as its joints
        self._turns: list[tuple[str, Callable[[], str]]] = [
            *(
                (topic, self._look_at_commands(topic, raw))
                for topic, raw in zip(commanded, self._proposals, strict=False)
            ),
            *((topic, self._look_at_proposals(topic)) for topic in proposals),
            *((topic, self._look_at_input(name, topic)) for name, topic in inputs.items()),
            *((topic, self._look_at_takeover(topic)) for topic in takeover),
        ]
        self._next = itertools.cycle(self._turns)

    def look(self) -> bool:
        """Look at the next topic, or more where there are many; return whether something is otherwise than it was."""
        topics = itertools.islice(self._next, math.ceil(len(self._turns) / LOOKS))
        changed = [self._look_at(*turn) for turn in topics]
        return any(changed)

    def look_at_all(self) -> dict[str, str]:
        """Look at every topic once; return what is wrong, by topic."""
        for turn in self._turns:
            self._look_at(*turn)
        return self.problems

    def _look_at(self, topic: str, check: Callable[[], str]) -> bool:
        problem, before = check(), self.problems.get(topic, "")
        if problem:
            self.problems[topic] = problem
        else:
            self.problems.pop(topic, None)
        return problem != before

    @property
    def controllers(self) -> list[str]:
        """Return the nodes that propose commands."""
        return sorted({name for names in self._controllers.values() for name in names})

    def publishers(self, topic: str) -> list[str]:
        """Return the publishers of a topic, a node's name for each."""
        return [node_of(info) for info in self._publishers(topic)]

    def _publishers(self, topic: str) -> list[Any]:
        return self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))

    def _look_at_commands(self, name: str, raw: str) -> Callable[[], str]:
        def look() -> str:
            topic = self._node.resolve_topic_name(name)
            publishers = self.publishers(name)
            if len(publishers) > 1:
                others = list(publishers)
                own = self._node.get_fully_qualified_name()
                if own in others:
                    others.remove(own)
                return (
                    f"{', '.join(sorted(others))} also publishes {topic}, past this shield: only the shield may "
                    f"command the robot; remap the controller to {raw}, and let one shield run"
                )
            return self._incompatible(topic, self._node.get_subscriptions_info_by_topic(topic), "publisher")

        return look

    def _look_at_proposals(self, name: str) -> Callable[[], str]:
        def look() -> str:
            found = self._publishers(name)
            names = [node_of(info) for info in found]
            self._controllers[name] = names
            # One controller may publish one topic or another, or each joint have its own; two of one name are two.
            together = {one for topic in self._by_joint for one in self._controllers.get(topic, ())}
            if len(names) > 1 or len(self.controllers) > max(1, len(together)):
                several = sorted(names) if len(names) > 1 else self.controllers
                topics = name if len(names) > 1 and len(self._by_joint) > 1 else ", ".join(self._proposals)
                return (
                    f"{len(several)} controllers propose commands on {topics}: {', '.join(several)}; let one of them "
                    "run"
                )
            return self._incompatible(name, found, "subscription", KEY)

        return look

    def _look_at_takeover(self, topic: str) -> Callable[[], str]:
        def look() -> str:
            found = self._publishers(topic)
            if len(found) > 1:
                names = ", ".join(sorted(map(node_of, found)))
                return f"{len(found)} operators command on {topic}: {names}; let one of them do so at a time"
            return self._incompatible(topic, found, "subscription", KEY)

        return look

    def _look_at_input(self, name: str, topic: str) -> Callable[[], str]:
        def look() -> str:
            found = self._publishers(topic)
            allowed = self._allowed(name)
            if allowed is not None and len(found) > allowed:
                return several(topic, [node_of(info) for info in found])
            return self._incompatible(topic, found, "subscription")

        return look

    def _incompatible(self, topic: str, found: Sequence[Any], end: str, key: str = "") -> str:
        """Return who cannot be heard, or cannot hear, why, and what helps; `end`: what this node has there."""
        full = self._node.resolve_topic_name(topic)
        own = self._qos[full]
        for info in found:
            other = info.qos_profile
            pair = (own, other) if end == "publisher" else (other, own)
            if reason := incompatibility(*pair):
                told = f"{topic}: the QoS of {node_of(info)} is incompatible, and nothing arrives: {reason}"
                if reason != UNRELIABLE:
                    return told
                if end == "publisher":
                    return f"{told}; set the shield's parameter {override(full, end)}: reliable"
                parameter = f"the shield's parameter {override(full, end)}: best_effort"
                return f"{told}; let it publish reliably, or set {key}{parameter}"
        return ""


def incompatibility(offered: QoSProfile, requested: QoSProfile) -> str:
    """Return why a publisher's and a subscription's QoS do not match, or an empty text.

    As DDS has it: what is offered must be at least what is requested. rclpy's qos_check_compatible takes a profile's
    default, a duration of 0, for the shortest one; on the wire it is infinite.
    """
    if _is(requested.reliability, "RELIABLE") and _is(offered.reliability, "BEST_EFFORT"):
        return UNRELIABLE
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
