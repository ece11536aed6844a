"""Starts this package's nodes as processes, for those who run it without `ros2 launch`. No rclpy."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssql_ros.processes import lifeline
from ssql_ros.processes.missing import HOW

RECORDER = "recorder_node"
# In the order in which they end: who commands the robot sends its safe action while a driver is there to hear it.
NODES = (
    "shield_node",
    "behaviour_node",
    "policy_node",
    "learner_node",
    "marker_node",
    "sim_node",
    "driver_node",
    RECORDER,
)
# A recorder that only keeps the last seconds has a name of its own: it may run beside one that writes everything.
FLIGHT = "flight_recorder"
NAMES = (*NODES, FLIGHT)
COMMANDING = ("shield_node", "behaviour_node", "policy_node")
LAST = ("sim_node", "driver_node", RECORDER, FLIGHT)
# 101 is the highest domain whose ports lie below Linux' ephemeral range; 0 is everybody's.
DOMAINS = range(1, 102)
# Of DDS: the port on which the first participant of a domain listens.
_PORT, _PORTS_PER_DOMAIN = 7410, 250
# Variables that would lead beyond this machine.
_ELSEWHERE = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "ROS_SUPER_CLIENT")
_claim: socket.socket | None = None


class GraphError(OSError):
    """A node is not installed, or ended by itself; or no domain is free."""


def isolate() -> int:
    """Keep this process and its children to this machine, in a ROS domain of their own; return its ROS_DOMAIN_ID.

    Never the caller's domain, which may be a robot's, and none in which somebody on this machine is already.

    Raises:
        GraphError: no domain is free.
    """
    global _claim
    mine = os.environ.get("ROS_DOMAIN_ID", "0")
    if _claim is not None:
        _claim.close()
        _claim = None
    for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
        if str(domain) == mine or not _unused(domain):
            continue
        # An abstract socket: gone with this process, however that ends. It keeps out those who look at the same time.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0ssql_ros/domain/{domain}")
        except OSError:
            claim.close()
            continue
        _claim = claim
        for name in _ELSEWHERE:
            os.environ.pop(name, None)
        os.environ.update(ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", ROS_DOMAIN_ID=str(domain))
        return domain
    raise GraphError(f"no ROS domain from {DOMAINS[0]} to {DOMAINS[-1]} is free on this machine; end what runs in them")


def _unused(domain: int) -> bool:
    """Tell whether no participant on this machine listens in a domain."""
    for participant in range(4):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", _PORT + _PORTS_PER_DOMAIN * domain + 2 * participant))
            except OSError:
                return False
    return True


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
    raise GraphError(f"needs ROS 2: {node} is not installed under {', '.join(filter(None, prefixes))}; {HOW}")


def parameter_text(value: Any) -> str:
    """Return a parameter value as `-p name:=value` takes it, its type kept."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    # A double-quoted text means the same in YAML as in JSON.
    return json.dumps(value) if isinstance(value, str) else str(value)


def end(process: subprocess.Popen[Any], seconds: float = 10.0) -> None:
    """End a process that leads a session of its own, and whatever it has started: politely, then by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # Those who are left see that it is gone, and may have something to save.
    limit = time.monotonic() + min(seconds, 5.0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < limit:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


class Graph:
    """Node processes that end together, in order, with this process at the latest, whatever ends it.

    Nodes are to be started by a thread that lives as long as the graph: they end with it.

    Args:
        logs: folder for one log file per node; None: they print to this terminal.
    """

    def __init__(self, logs: Path | None = None) -> None:
        self._logs = logs
        self.processes: dict[str, subprocess.Popen[Any]] = {}
        self._waits, self._holds = os.pipe()

    def start(
        self, node: str, config: Path | None = None, remap: Mapping[str, str] | None = None, /, **parameters: Any
    ) -> None:
        """Start a node with parameters.

        Args:
            config: file of parameters, which those that are given here stand above.
            remap: topic names, from and to; `__node`: the node's own name.
        """
        settings = ["--params-file", str(config)] if config else []
        settings += [item for names in (remap or {}).items() for item in ("-r", ":=".join(names))]
        settings += [item for name, value in parameters.items() for item in ("-p", f"{name}:={parameter_text(value)}")]
        self.run((remap or {}).get("__node", node), [str(executable(node)), "--ros-args", *settings])

    def run(self, name: str, command: Sequence[str], **options: Any) -> None:
        """Start a process that ends with the others; `options`: of Popen."""
        output = None
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
            output = (self._logs / f"{name}.log").open("wb")
        waits, holds = (
            [end] if name in nodes else [] for end, nodes in ((self._waits, LAST), (self._holds, COMMANDING))
        )
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT if output else None}
        # A session of its own: Ctrl-C reaches this process only, which then ends the others in order.
        self.processes[name] = subprocess.Popen(
            command,
            start_new_session=True,
            env=lifeline.environment(*waits),
            pass_fds=[*waits, *holds],
            **streams | options,
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
        end(self.processes[node], seconds)
        del self.processes[node]

    def stop_all(self, seconds: float = 10.0) -> None:
        """End all nodes in the order of `NAMES`: the shield first, driver and recorder last."""
        for node in sorted(self.processes, key=[*NAMES, *self.processes].index):
            self.stop(node, seconds)

    def __enter__(self) -> Graph:
        """Return the graph."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all nodes."""
        try:
            self.stop_all()
        except BaseException:  # a signal, which ends no node; what is left goes on ending
            self.stop_all()
            raise
        finally:
            os.close(self._waits)
            os.close(self._holds)
