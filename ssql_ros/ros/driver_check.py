"""Checks a driver live: who publishes and takes what on the graph, and what `drivers.check` makes of the messages."""

from __future__ import annotations

import struct
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from rclpy.exceptions import InvalidNamespaceException

from ssql_ros.contract import Contract
from ssql_ros.contract.contract import Input
from ssql_ros.contract.fields import FLOATS
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.contract.topics import CLOCK_TOPIC, proposal_topics
from ssql_ros.drivers.check import DriverCheck, Message, check_messages
from ssql_ros.drivers.findings import Finding, Level, ordered, said
from ssql_ros.ros.graph_watch import GraphWatch, node_of, several
from ssql_ros.ros.listening import listen
from ssql_ros.ros.process import COMMAND, SENSOR
from ssql_ros.ros.qos import proposal_qos

CLOCK_TYPE = "rosgraph_msgs/msg/Clock"
SHIELD_STATE = "ssql_ros/msg/ShieldState"
_TIME = struct.Struct("<4xiI")
FOUND = 5.0  # s, within which a driver is found by who listens


def check_driver(
    contract: Contract, seconds: float, namespace: str = "", simulated: bool = False, remap: Sequence[str] = ()
) -> list[Finding]:
    """Listen to the graph of this ROS domain and return what was found, the worst first.

    Args:
        seconds: to listen for, from the first message on.
        namespace: of the robot's topics.
        simulated: stamps are of /clock.
        remap: of the contract's topics, FROM:=TO, as the shield will be given them.

    Raises:
        ValueError: seconds that are not above 0, or no namespace.
    """
    graph, wait = _Graph(contract), min(FOUND, 2.0 * seconds)
    kinds = {source.type for source in contract.inputs.values()} | ({CLOCK_TYPE} if simulated else set())
    try:
        heard = listen(seconds, kinds, "ssql_check_driver", namespace, remap, graph.topics, graph.look, wait)
    except InvalidNamespaceException as error:
        why = " ".join(str(error).split())
        raise ValueError(f"--namespace: expected a ROS namespace, got {namespace!r}: {why}") from error
    clock, messages = 0, []
    for topic, kind, came, data in heard:
        if topic == CLOCK_TOPIC:
            seconds_, nanoseconds = _TIME.unpack_from(data)
            clock = seconds_ * NANOSECONDS + nanoseconds
        else:
            messages.append(Message(graph.relative[topic], kind, came, data, clock if simulated else came))
    check = check_messages(contract, messages, time.time_ns(), simulated)
    return ordered([*graph.findings(check), *check.findings()])


class _Graph:
    """What the graph showed last: publishers and takers of the topics that matter, and what is wrong with their QoS.

    Attributes:
        relative: the contract's topics, by their names with namespace.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self.relative: dict[str, str] = {}
        self._watch: GraphWatch | None = None
        self._types: dict[str, list[str]] = {}
        self._publishers: dict[str, list[Any]] = {}
        self._takers: dict[str, list[Any]] = {}  # by the contract's name of the topic
        self._commands: dict[str, str] = {}  # its topics of commands, with namespace
        self._controllers: list[str] = []
        self._shields: list[str] = []
        self._problems: dict[str, str] = {}

    def topics(self, node: Any) -> Collection[str]:
        """Return the topics to listen to, with namespace."""
        sources = self._contract.inputs.values()
        self.relative = {node.resolve_topic_name(source.topic): source.topic for source in sources}
        return {*self.relative, CLOCK_TOPIC}

    def look(self, node: Any) -> None:
        """Look at everything; what was there last counts, as discovery takes a while."""
        contract = self._contract
        if self._watch is None:
            inputs = {name: source.topic for name, source in contract.inputs.items()}
            topics, raw = contract.commanded.topics, proposal_topics(contract)
            qos = dict.fromkeys(map(node.resolve_topic_name, inputs.values()), SENSOR)
            qos |= dict.fromkeys(map(node.resolve_topic_name, raw), proposal_qos(contract))
            qos |= dict.fromkeys(map(node.resolve_topic_name, topics), COMMAND)
            self._watch = GraphWatch(node, topics, raw, inputs, qos, lambda _name: None)
        self._problems = dict(self._watch.look_at_all())
        self._types = dict(node.get_topic_names_and_types())
        self._commands = {topic: node.resolve_topic_name(topic) for topic in contract.commanded.topics}
        self._publishers = {
            topic: node.get_publishers_info_by_topic(topic)
            for topic in [*self.relative, *self._commands.values(), *self._alike()]
        }
        self._takers = {topic: node.get_subscriptions_info_by_topic(full) for topic, full in self._commands.items()}
        states = [topic for topic, types in self._types.items() if SHIELD_STATE in types]
        self._controllers = self._watch.controllers
        self._shields = [topic.rpartition("/")[0] for topic in states]

    def findings(self, check: DriverCheck) -> list[Finding]:
        """Return what is wrong with who publishes and takes what; `check`: of the messages."""
        found: list[Finding] = []
        for topic, name in self.relative.items():
            source = next(source for source in self._contract.inputs.values() if source.topic == name)
            found += self._of_input(topic, source, check)
        return [*found, *self._of_commands(), *self._of_controllers()]

    def _of_input(self, topic: str, source: Input, check: DriverCheck) -> list[Finding]:
        needed = source.name in self._contract.observed_inputs
        bad = Level.ERROR if needed else Level.WARNING
        infos = self._publishers.get(topic, [])
        if not infos:
            use = "" if needed else ", which learning alone needs"
            fix = "start its driver" + self._where_else(source)
            return [Finding(bad, "missing_topic", source.topic, f"nobody publishes {topic}{use}", fix)]
        others = sorted({info.topic_type for info in infos} - {source.type})
        if others:
            names = ", ".join(sorted({node_of(info) for info in infos if info.topic_type != source.type}))
            text = f"{names} publishes {', '.join(others)}, and the contract reads {source.type}"
            fix = "let the driver publish that type, or state the other one in the contract (`type`)"
            return [Finding(bad, "type", source.topic, text, fix)]
        found = []
        if problem := self._problems.get(source.topic):
            found.append(said(bad, "qos", source.topic, problem, "a reliable or best-effort, volatile publisher"))
        elif not check.heard(source.name):
            names = ", ".join(node_of(info) for info in infos)
            text = f"{names} publishes it, and no message came"
            found.append(
                Finding(bad, "no_message", source.topic, text, "does its device run? --seconds listens longer")
            )
        allowed = check.told_apart(source.name)
        if allowed is not None and len(infos) > allowed:
            text = several(source.topic, [node_of(info) for info in infos])
            found.append(said(bad, "extra_publisher", source.topic, text, "stop the other one"))
        return found

    def _alike(self) -> list[str]:
        kinds = {source.type for source in self._contract.inputs.values()}
        return [topic for topic, types in self._types.items() if kinds & set(types) and topic not in self.relative]

    def _where_else(self, source: Input) -> str:
        """Return which topics of the type are published and read by no contract, as an advice to remap."""
        taken = {f"{topic}{end}" for topic in self._commands.values() for end in ("", "_raw")}
        found = [
            topic
            for topic in self._alike()
            if source.type in self._types[topic] and self._publishers.get(topic) and topic not in taken
        ]
        return f", or remap: its type is on {', '.join(found[:4])}" if found else ""

    def _of_commands(self) -> list[Finding]:
        """Return who commands the robot, and whether it listens; what holds of all joints' topics stands there once."""
        told, by_topic = self._contract.commanded, list[list[Finding]]()
        for topic, raw in zip(told.topics, told.raw_topics, strict=True):
            by_topic.append(self._of_command(topic, raw))
        same = [[replace(one, where=told.topic) for one in found] for found in by_topic]
        if all(found == same[0] for found in same):
            return same[0]
        return [one for found in by_topic for one in found]

    def _of_command(self, topic: str, raw: str) -> list[Finding]:
        told, found = self._contract.commanded, list[Finding]()
        publishers = [node_of(info) for info in self._publishers.get(self._commands.get(topic, ""), [])]
        others = sorted(name for name in publishers if name not in self._shields)
        if others:
            text = f"{', '.join(others)} publishes commands past any shield"
            fix = f"remap the controller to {raw}: only the shield may command the robot"
            found.append(Finding(Level.ERROR, "commands_past_shield", topic, text, fix))
        if len(publishers) - len(others) > 1:
            text = f"{len(publishers) - len(others)} shields command the robot"
            found.append(Finding(Level.ERROR, "several_shields", topic, text, "let one of them run"))
        # Controllers hear what the robot is told; they are no driver.
        heard = [info for info in self._takers.get(topic, []) if node_of(info) not in self._controllers]
        takers = [info for info in heard if info.topic_type == told.type]
        if not heard:
            fix = "let the driver subscribe to it, or remap; a driver that listens is what the shield needs"
            found.append(Finding(Level.ERROR, "nobody_listens", topic, "nobody takes the commands", fix))
        elif not takers:
            kinds, names = sorted({info.topic_type for info in heard}), sorted(map(node_of, heard))
            text = f"{', '.join(names)} takes {', '.join(kinds)}, and the contract commands {told.type}"
            level, fix = Level.ERROR, "state the driver's type in the contract (`action.command`)"
            if FLOATS in kinds and not told.apart:
                level, fix = Level.WARNING, "start the shield with the parameter command_type:=forward"
            found.append(Finding(level, "command_type", topic, text, fix))
        elif len(publishers) < 2 and (problem := self._problems.get(topic)):
            fix = "the shield offers reliable, volatile, depth 1: let the driver ask for no more"
            found.append(said(Level.ERROR, "command_qos", topic, problem, fix))
        else:
            text = f"taken by {', '.join(sorted(map(node_of, takers)))}"
            if shields := sorted(set(publishers) - set(others)):
                text += f"; {', '.join(shields)} commands it"
            found.append(Finding(Level.OK, "commands", topic, text))
        return found

    def _of_controllers(self) -> list[Finding]:
        names = proposal_topics(self._contract)
        texts = {name: self._problems[name] for name in names if name in self._problems}
        return [
            said(Level.WARNING, "controllers", name, text, "let the controller offer reliable, volatile")
            for name, text in texts.items()
        ]
