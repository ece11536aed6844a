"""A node's command line: what it knows, what it refuses, and its --help."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from ssql_ros.ros.parameters import Parameter

# By node, as they stand before any remapping; a contract may name other inputs.
TOPICS = {
    "shield_node": ("joint_states", "imu/data", "odom", "joint_commands_raw", "joint_proposals", "joint_commands"),
    "policy_node": ("joint_states", "imu/data", "odom", "joint_commands", "joint_proposals", "model_announcements"),
    "behaviour_node": ("joint_states", "imu/data", "odom", "joint_commands", "joint_commands_raw", "joint_proposals"),
    "sim_node": ("joint_states", "imu/data", "odom", "joint_commands", "forward_commands", "incident", "episode"),
    "driver_node": ("joint_states", "imu/data", "odom", "joint_commands", "forward_commands"),
    "learner_node": ("joint_states", "imu/data", "odom", "joint_commands", "joint_proposals", "model_announcements"),
    "marker_node": ("shield_node/shielded_action", "shield_node/state"),
    "recorder_node": ("joint_states", "imu/data", "odom", "joint_commands_raw", "joint_commands"),
}


def unknown(argv: Sequence[str]) -> list[str]:
    """Return the words of a command line that are not for ROS.

    Raises:
        ValueError: what stands behind --ros-args cannot be read.
    """
    try:
        remove_ros_args(list(argv))
    except Exception as error:  # of several kinds, none of which rclpy exports
        raise ValueError(_plain(error)) from error
    # Sorted here: rcl still takes a bare NAME:=VALUE for the remapping that it once was, and says nothing.
    words, for_ros = [], False
    for word in argv[1:]:
        if word == "--ros-args" or (for_ros and word == "--"):
            for_ros = word == "--ros-args"
        elif not for_ros:
            words.append(word)
    return words


def initialise() -> None:
    """Start ROS, and leave signals to the caller.

    Raises:
        ValueError: what stands behind --ros-args cannot be read.
    """
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # of several kinds, none of which rclpy exports
        raise ValueError(_plain(error)) from error


def _plain(error: Exception) -> str:
    """Return an error of rcl without where in its sources it arose."""
    if type(error).__name__ == "UnknownROSArgsError":
        return f"unknown ROS argument {error}; expected -p NAME:=VALUE, -r FROM:=TO or --params-file FILE"
    text = re.sub(r",? at /\S+:\d+", "", str(error))
    text = re.sub(r"^[^:]*: (?=Couldn't)", "", text)
    if "params file" in text and (found := re.search(r"--params-file (\S+?)'", text)) and not Path(found[1]).is_file():
        return f"--params-file: there is no file {found[1]}"
    return text.replace("Expected lexeme type (22) not found", "expected NAME:=VALUE")


def refusal(words: Sequence[str], make: Callable[[], Any]) -> str:
    """Return why words are refused, and how to say what they seem to mean."""
    text = f"unknown argument {words[0]}"
    name, _, value = words[0].lstrip("-").replace(":=", "=").partition("=")
    name = name.replace("-", "_")
    known = [parameter.name for parameter in _parameters(make)]
    if close := difflib.get_close_matches(name, known, 1):
        value = value or (words[1] if len(words) > 1 else "VALUE")
        return f"{text}; parameters are given like this: --ros-args -p {close[0]}:={value}"
    return f"{text}; parameters are given as --ros-args -p NAME:=VALUE, and --help lists them"


def usage(make: Callable[[], Any]) -> str:
    """Return a node's help: what it is for, its parameters, and how to set and remap."""
    module = sys.modules[make.__module__]
    node = make.__module__.rpartition(".")[2]
    lines = [f"usage: ros2 run ssql_ros {node} [--ros-args [-p NAME:=VALUE] [-r FROM:=TO] [--params-file FILE] ...]"]
    lines += ["", (module.__doc__ or "").strip(), "", "parameters:"]
    for parameter in _parameters(make):
        lines.append(f"  {parameter.name} ({parameter.kind}, default {parameter.default!r}{parameter.allowed})")
        lines.append(f"      {parameter.description}{'; only at start' * parameter.fixed}")
    lines += ["  use_sim_time (true or false, default False)", "      follow /clock, as a simulator publishes it"]
    topics = TOPICS.get(node, ())
    if topics:
        lines += ["", f"topics: {', '.join(topics)}"]
        lines.append(f"  names are relative; remap with -r, e.g. --ros-args -r {topics[0]}:=/my_robot/{topics[0]}")
        lines.append("  or put the node into a namespace: --ros-args -r __ns:=/my_robot")
    return "\n".join(lines)


def _parameters(make: Callable[[], Any]) -> Sequence[Parameter]:
    return getattr(sys.modules[make.__module__], "PARAMETERS", ())
