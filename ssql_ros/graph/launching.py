"""What the launch files share: arguments that are checked before anything starts, and nodes whose end is the launch's.

Needs ROS 2's launch and launch_ros.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name

from launch import Action, LaunchContext, LaunchDescription
from ssql_ros.contract import Contract, find_contract, find_nodes_file, load_contract
from ssql_ros.contract.commanded import expanded
from ssql_ros.contract.topics import MARKERS
from ssql_ros.graph.params_file import ParamsFile
from ssql_ros.graph.processes import FLIGHT, RECORDER
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import shielding_critic
from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.robots import DEFAULT
from ssql_ros.robots.tasks import Task, find_task
from ssql_ros.ros.parameters import Parameter
from ssql_ros.shield.critic_limits import epsilon_of


@dataclass(frozen=True)
class Open(Parameter):
    """An argument that need not be given: without it nodes.yaml of the robot counts, or what the node has itself."""


def open_arguments(table: Sequence[Parameter], *names: str) -> tuple[Open, ...]:
    """Return some of a node's parameters as arguments that need not be given."""
    return tuple(Open(**vars(parameter)) for parameter in table if parameter.name in names)


CONTRACT = Parameter("contract", DEFAULT, "robot name or path of its contract YAML")
NAMESPACE = Parameter("namespace", "", "namespace of all nodes")
USE_SIM_TIME = Parameter("use_sim_time", False, "true when a simulator publishes /clock")
PARAMS_FILE = Parameter(
    "params_file",
    "",
    "YAML with parameters of the nodes; arguments go before it; empty: nodes.yaml of the robot",
)
SHIELD = (
    Parameter("bundle", "", "path of the bundle with the safety critic; empty: the one shipped for the robot"),
    Open(
        "mode",
        "enforce",
        "enforce: decisions go to the robot; monitor: they are only published",
        choices=("enforce", "monitor"),
    ),
    Parameter("epsilon", "", "threshold on q_safe, above 0 and below 1; empty: the bundle's own"),
    Parameter("record", False, "true: record everything into a bag"),
    Parameter("output", "", "folder of the bag; empty: bags/ROBOT_TIME"),
    Parameter("markers", False, "true: the decisions are drawn for RViz and Foxglove, in the frame base_link"),
    Parameter("flight", "", "folder for the last seconds before and after whatever happens; empty: they are not kept"),
)
_WORDS = {"true": True, "1": True, "false": False, "0": False}


class LaunchArgumentError(ValueError):
    """A launch argument is wrong; the text names it, what was expected, what came."""


class NodeEnded(RuntimeError):
    """A node without which the launch makes no sense has ended."""


def described(
    file: str, arguments: Sequence[Parameter], nodes: Callable[[dict[str, Any]], Sequence[Action]]
) -> LaunchDescription:
    """Return a launch description that starts nothing before all of its arguments are checked.

    Args:
        file: the launch file: `__file__`.
        nodes: is given the values by name, and returns what to start; a ValueError or OSError of it starts nothing.
    """

    def start(context: LaunchContext) -> list[Action]:
        # Arguments of the command line are this file's where it was launched itself, not included.
        if any(Path(word).name == Path(file).name for word in sys.argv):
            _refuse_unknown([word.partition(":=")[0] for word in context.argv if ":=" in word], arguments)
        return list(nodes({p.name: _value(p, LaunchConfiguration(p.name).perform(context)) for p in arguments}))

    declared = [
        DeclareLaunchArgument(
            p.name,
            default_value="" if isinstance(p, Open) else _text(p.default),
            description=f"{p.description} ({p.kind}{p.allowed}{'; empty: as nodes.yaml has it' * isinstance(p, Open)})",
        )
        for p in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def required(executable: str, values: dict[str, Any], remap: dict[str, str] | None = None, **parameters: Any) -> Node:
    """Return a node whose end ends the launch, with a status that is not 0.

    Args:
        values: of the launch arguments: contract, namespace, use_sim_time and params_file are used.
        remap: topic names, from and to.
        parameters: of the node, above those of the parameter file; what is None is not set.
    """

    def on_exit(context: LaunchContext) -> None:
        # An exception, as launch has no other way to end with a status that is not 0.
        if not context.is_shutdown:
            raise NodeEnded(f"{executable} has ended, and this launch with it; what it printed says why")

    return _node(executable, values, remap, parameters, on_exit=[OpaqueFunction(function=on_exit)])


def _node(
    executable: str, values: dict[str, Any], remap: Any, parameters: dict[str, Any], name: str = "", **options: Any
) -> Node:
    name = name or executable
    sim_time = {"use_sim_time": values["use_sim_time"]} if executable != "sim_node" else {}
    given = {name: value for name, value in {**parameters, **sim_time}.items() if value is not None}
    return Node(
        package="ssql_ros",
        executable=executable,
        name=name,
        namespace=values["namespace"],
        output="screen",
        remappings=list((remap or {}).items()),
        # One set of values: of two files rcl may prefer the one of a wildcard to the one of the node's name.
        parameters=[{**_from_file(values, name), **given}],
        **options,
    )


def _from_file(values: dict[str, Any], node: str) -> dict[str, Any]:
    """Return what the parameter file says of a node. Raises LaunchArgumentError."""
    given = values["params_file"]
    path = Path(given) if given else find_nodes_file(values["contract"])
    if path is None:
        return {}
    file = _named("params_file", given, lambda: ParamsFile(path))
    return file.values(node, values["namespace"])


def contract_of(values: dict[str, Any]) -> Contract:
    """Return the contract that the argument `contract` names. Raises LaunchArgumentError."""
    return _named("contract", values["contract"], lambda: load_contract(find_contract(values["contract"])))


def task_of(values: dict[str, Any]) -> Task:
    """Return the task that the argument `task` names. Raises LaunchArgumentError."""
    return _named("task", values["task"], lambda: find_task(values["task"]))


def check_topics(values: dict[str, Any], *names: str) -> None:
    """Make sure that arguments are topic names. Raises LaunchArgumentError."""
    for name in names:
        try:
            validate_topic_name(values[name])
        except InvalidTopicNameException as error:
            raise LaunchArgumentError(
                f"argument {name}: expected a topic name, got {values[name]!r} ({' '.join(str(error).split())})"
            ) from error


def remapped_commands(values: dict[str, Any], contract: Contract, **topics: Sequence[str]) -> dict[str, str]:
    """Return what the command topics are called, by what the contract calls them, as far as arguments say it.

    Args:
        topics: the contract's, by the argument that names others; with {joint} or {joint_lower} for joints that have
            one each. Raises LaunchArgumentError.
    """
    told, remap = contract.commanded, dict[str, str]()
    for name, own in topics.items():
        if values[name]:
            others = expanded(values[name], told.joint_names) if told.apart else (values[name],)
            if len(set(others)) != len(own):
                raise LaunchArgumentError(
                    f"argument {name}: expected {{joint}} in it: each joint has a topic of its own"
                )
            for topic, other in zip(own, others, strict=True):
                check_topics({name: other}, name)
                remap[topic] = other
    return remap


def shield(values: dict[str, Any], remap: dict[str, str] | None = None) -> list[Node]:
    """Return the shield, and the recorders that are asked for; raise LaunchArgumentError before any of them starts."""
    contract = contract_of(values)
    given = values["bundle"] or str(_from_file(values, "shield_node").get("bundle", ""))
    path = _named("bundle", given, lambda: Path(given) if given else find_shipped_bundle(contract.robot))
    _named("bundle", given, lambda: shielding_critic(load_bundle(path, contract)))
    epsilon = _named("epsilon", values["epsilon"], lambda: epsilon_of(values["epsilon"]))
    settings = {"contract": values["contract"], "bundle": str(path), "mode": values["mode"]}
    if epsilon is not None:
        settings["epsilon"] = epsilon
    nodes = [required("shield_node", values, remap, **settings)]
    if values["record"]:
        output = {"contract": values["contract"], "output": values["output"]}
        if values["output"] and Path(values["output"]).exists():
            raise LaunchArgumentError(f"argument output: {values['output']} is there already; name a folder to be made")
        # Not required: a full disk must not take the shield away.
        nodes.append(_node(RECORDER, values, remap, output))
    if values["markers"]:
        nodes.append(_node(MARKERS, values, remap, {}))
    if values["flight"]:
        settings = {"contract": values["contract"], "output": values["flight"], "flight": True}
        nodes.append(_node(RECORDER, values, remap, settings, name=FLIGHT))
    return nodes


def bundle_with(values: dict[str, Any], load: Callable[[Path], Any]) -> Path:
    """Return the path that the argument `bundle` names, once `load(path)` has done. Raises LaunchArgumentError."""
    path = Path(values["bundle"])
    if not values["bundle"]:
        raise LaunchArgumentError("argument bundle: expected the path of a bundle, got none; give bundle:=PATH")
    _named("bundle", values["bundle"], lambda: load(path))
    return path


def _named(name: str, given: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (ValueError, OSError) as error:
        raise LaunchArgumentError(f"argument {name}:={given}: {error}") from error


def _refuse_unknown(given: Sequence[str], arguments: Sequence[Parameter]) -> None:
    known = [argument.name for argument in arguments]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise LaunchArgumentError(f"argument {name}: is unknown; {advice}")


def _value(argument: Parameter, text: str) -> Any:
    """Return an argument's value of the type of its default; None: it is open. Raises LaunchArgumentError."""
    if isinstance(argument, Open) and not text:
        return None
    kind = type(argument.default)
    try:
        value = _WORDS[text.strip().lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise LaunchArgumentError(f"argument {argument.name}: expected {argument.kind}, got {text!r}") from None
    if fault := argument.fault(value):
        raise LaunchArgumentError(f"argument {fault}")
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
