"""What a command starts ends with it, whatever ends it, and the robot has its safe action before its driver goes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState

from ssql_ros.graph.processes import Graph, isolate
from ssql_ros.processes import lifeline
from ssql_ros.ros.process import EVENT
from support.robots import SAFE_COMMAND

SSQL = [sys.executable, "-m", "ssql_ros.cli.main"]
WILD = ["--sigma", "0.3", "--rho", "0.85", "--bound", "2"]
PATIENCE = 90.0


def wait(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return value


def living(parent: int) -> dict[str, int]:
    """The nodes that live and were started by `parent`, which may be gone: their process ids by name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            told = (path / "environ").read_bytes().split(b"\0")
            name = (path / "cmdline").read_bytes().split(b"\0")[1].rpartition(b"/")[2].decode()
        except (OSError, IndexError):
            continue
        if state != "Z" and f"{lifeline.PARENT}={parent}".encode() in told:
            found[name] = int(path.name)
    return found


class Listener:
    """Hears the commands that go to the robot, until somebody ends."""

    def __init__(self):
        rclpy.init()
        self.node, self.executor, self.commands = Node("listener"), SingleThreadedExecutor(), []
        self.executor.add_node(self.node)
        self.node.create_subscription(JointState, "joint_commands", self.commands.append, EVENT)

    def heard(self, count):
        self.executor.spin_once(timeout_sec=0.02)
        return len(self.commands) >= count

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def listener(domain):
    heard = Listener()
    yield heard
    heard.close()


@pytest.mark.ros
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_run_ends_all_that_it_started_and_the_robot_has_its_safe_action(listener, tmp_path, number, status):
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen([*SSQL, "run", *WILD], stdout=log, stderr=log, start_new_session=True)
    try:
        wait(lambda: listener.heard(50), "commands to the robot")
        wait(lambda: listener.heard(10**9) or "shield: enforce" in (tmp_path / "log").read_text(), "the shield's state")
        assert sorted(living(run.pid)) == ["behaviour_node", "shield_node", "sim_node"]
        run.send_signal(number)
        assert run.wait(PATIENCE) == status
        wait(lambda: listener.heard(10**9) or not living(run.pid), "all nodes to end")
    finally:
        run.kill()
    for _ in range(20):
        listener.heard(10**9)
    assert list(listener.commands[-1].position) == pytest.approx(SAFE_COMMAND)
    text = (tmp_path / "log").read_text()
    assert f"ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}" in text
    assert "shield: enforce, bundle " in text
    if number != signal.SIGKILL:
        assert re.search(r"shield: [1-9]\d* decisions|the shield decided nothing", text)
        assert text.endswith("interrupted\n")


@pytest.mark.ros
def test_run_says_how_episodes_end_and_sums_up(domain, tmp_path):
    with (tmp_path / "log").open("w+b") as log:
        run = subprocess.Popen([*SSQL, "run", "--lock-step", "--mode", "monitor", "--seed", "4", *WILD], stdout=log)
    try:
        wait(lambda: "episode   2" in (tmp_path / "log").read_text(), "two episodes to end")
        run.send_signal(signal.SIGINT)
        assert run.wait(PATIENCE) == 130
    finally:
        run.kill()
    text = (tmp_path / "log").read_text()
    assert re.search(r"episode   1  seed 4 .* steps  incident \(.+\) .* incidents so far 1\n", text)
    assert re.search(r"\n\d+ episodes, [1-9]\d* ended by an incident, \d+ steps; shield: \d+ decisions", text)


@pytest.mark.ros
def test_impatience_orphans_nobody(domain, tmp_path):
    run = subprocess.Popen([*SSQL, "run", "--no-simulator"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait(lambda: "shield_node" in living(run.pid), "the shield to start")
        # A controller that ignores polite words.
        controller = living(run.pid)["behaviour_node"]
        os.kill(controller, signal.SIGSTOP)
        for _ in range(3):
            run.send_signal(signal.SIGINT)
            time.sleep(0.2)  # signals of one kind that come together are one
        assert run.wait(PATIENCE) == 130
        os.kill(controller, signal.SIGCONT)
        wait(lambda: not living(run.pid), "all nodes to end")
    finally:
        run.kill()


@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("node", ["sim_node", "behaviour_node", "shield_node", "recorder_node"])
def test_node_ends_cleanly_by_itself(domain, tmp_path, node, number):
    given = {"output": str(tmp_path / "bag")} if node == "recorder_node" else {}
    with Graph(tmp_path / "logs") as graph:
        graph.start(node, **given)
        process = graph.processes[node]
        # From when on the signal is its own to handle: it catches SIGHUP.
        caught = 1 << (signal.SIGHUP - 1)
        status = Path(f"/proc/{process.pid}/status")
        wait(lambda: int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) & caught, "the node to start")
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0


STORM = """
import time
from ssql_ros.ros.process import run_node

class Node:
    def destroy_node(self): pass

def serve(node, stopped):
    print("ready", flush=True)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        pass
    assert stopped()

raise SystemExit(run_node(Node, serve))
"""


@pytest.mark.ros
def test_node_ends_in_a_storm_of_signals(domain):
    """A handler that waits for a lock would wait for ever where another signal has come in its midst."""
    process = subprocess.Popen([sys.executable, "-c", STORM], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    # Not to the end: who finishes has the handlers of before again.
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(20.0) == 0
    finally:
        process.kill()


@pytest.mark.long
@pytest.mark.ros
def test_two_demos_at_once_have_domains_of_their_own_and_never_the_callers(tmp_path):
    robots = "37"
    environment = {**os.environ, "ROS_DOMAIN_ID": robots, "ROS_STATIC_PEERS": "10.1.2.3"}
    demos = [
        subprocess.Popen(
            [*SSQL, "demo", "--episodes", "1", "--seed", "4", "--out", str(tmp_path / f"demo{i}")],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for i in range(2)
    ]
    try:
        printed = [demo.communicate(timeout=240)[0] for demo in demos]
    finally:
        for demo in demos:
            demo.kill()
    assert [demo.returncode for demo in demos] == [0, 0]
    domains = [re.match(r"ROS_DOMAIN_ID=(\d+), free", text)[1] for text in printed]
    assert len({robots, *domains}) == 3


def test_domains_are_claimed_until_they_are_given_up(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "5")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    first = isolate()
    assert first != 5
    assert (os.environ["ROS_DOMAIN_ID"], os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"]) == (str(first), "LOCALHOST")
    # A process beside this one finds all others, and this one never.
    code = "import os; from ssql_ros.graph.processes import isolate; print(*{isolate() for _ in range(60)})"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert str(first) not in found
    assert len(found) > 20


def test_process_whose_parent_is_gone_already_does_not_start():
    with pytest.raises(lifeline.ParentGone):
        lifeline.tie({lifeline.PARENT: str(os.getpid())})
