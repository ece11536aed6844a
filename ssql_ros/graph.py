"""Starts this package's nodes as processes, for those who run it without `ros2 launch`. No rclpy."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

NODES = ("sim_node", "behaviour_node", "policy_node", "shield_node", "recorder_node", "learner_node", "pilot_node")


class GraphError(OSError):
    """A node is not installed, or ended by itself."""


def isolate() -> int:
    """Keep this process and its children to this machine and return their ROS_DOMAIN_ID.

    A domain that the caller has set is kept; otherwise one is drawn, so that a demonstration never talks to a robot.
    """
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # 101 is the highest domain whose ports lie below Linux' ephemeral range.
    return int(os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101))))


def executable(node: str) -> Path:
    """Return the path of a node's executable.

    Raises:
        GraphError: it is not installed.
    """
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        path = Path(prefix) / "lib" / "ssql_ros" / node
        if path.is_file():
            return path
    raise GraphError(f"{node} is not installed under {', '.join(filter(None, prefixes))}; run 'make setup'")


def parameter_text(value: Any) -> str:
    """Return a parameter value as `-p name:=value` takes it, its type kept."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    # A double-quoted text means the same in YAML as in JSON.
    return json.dumps(value) if isinstance(value, str) else str(value)


class Graph:
    """Node processes that end together.

    Args:
        logs: folder for one log file per node; None: they print to this terminal.
    """

    def __init__(self, logs: Path | None = None) -> None:
        self._logs = logs
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str, **parameters: Any) -> None:
        """Start a node with parameters."""
        settings = [item for name, value in parameters.items() for item in ("-p", f"{name}:={parameter_text(value)}")]
        command = [str(executable(node)), "--ros-args", *settings]
        output = None
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
            output = (self._logs / f"{node}.log").open("wb")
        # A session of its own: Ctrl-C reaches this process only, which then ends the nodes in order.
        self.processes[node] = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT if output else None, start_new_session=True
        )
        if output is not None:
            output.close()

    def check(self) -> None:
        """Raise GraphError when a node has ended by itself."""
        for node, process in self.processes.items():
            if process.poll() is not None:
                where = f"; see {self._logs / f'{node}.log'}" if self._logs is not None else ""
                raise GraphError(f"{node} ended by itself with status {process.returncode}{where}")

    def stop(self, node: str, seconds: float = 10.0) -> None:
        """End one node: politely, and after `seconds` by force."""
        process = self.processes.pop(node)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Graph:
        """Return the graph."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all nodes, the last one started first."""
        for node in reversed(list(self.processes)):
            self.stop(node)
