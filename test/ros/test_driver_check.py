"""`ssql check driver` on a real graph: a scripted driver, what is wrong with it, and who else is there."""

import json
from pathlib import Path

import pytest
import rclpy
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import String

from ssql_ros.cli.main import main
from ssql_ros.contract import Contract, load_contract
from ssql_ros.drivers.findings import Finding, Level
from ssql_ros.graph.processes import Graph
from ssql_ros.ros.driver_check import check_driver
from ssql_ros.ros.process import COMMAND, EVENT
from support.nodes import refusal
from support.toy_robot import toy_yaml

SECONDS = 1.2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A contract that forgives a machine which is busy."""
    path = tmp_path / "toy.yaml"
    text = toy_yaml().replace("control_period: 0.02", "control_period: 0.1").replace("timeout: 0.04", "timeout: 0.5")
    path.write_text(text.replace("max_age: 0.04", "max_age: 0.5").replace("episode_gap: 0.1", "episode_gap: 1.0"))
    return path


class Others:
    """Nodes beside the driver."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("rogue", context=self.context)

    def close(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def others(domain):
    others = Others()
    yield others
    others.close()


def errors(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.kind, finding.where) for finding in findings if finding.level is Level.ERROR}


def until_errors(graph: Graph, contract: Contract, expected: set[tuple[str, str]], **options: object) -> list[Finding]:
    """The findings of the first check that has found everybody, as each begins without knowing anybody."""
    findings: list[Finding] = []
    for _ in range(20):
        findings = check_driver(contract, SECONDS, **options)
        if errors(findings) == expected:
            return findings
        graph.check()
    assert errors(findings) == expected
    return findings


@pytest.mark.ros
def test_a_scripted_driver_is_well_until_others_publish_and_command_too(others, path, tmp_path, capsys) -> None:
    contract = load_contract(path)
    with Graph(tmp_path / "logs") as graph:
        graph.start("driver_node", contract=str(path))
        until_errors(graph, contract, set())
        assert main(["check", "driver", "--contract", str(path), "--seconds", str(SECONDS), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["figures"]["errors"] == 0
        assert {"ok"} == {finding["level"] for finding in told["findings"]}
        second = others.node.create_publisher(Imu, "imu/data", EVENT)
        past = others.node.create_publisher(JointState, "joint_commands", COMMAND)
        expected = {("extra_publisher", "imu/data"), ("commands_past_shield", "joint_commands")}
        findings = until_errors(graph, contract, expected)
        assert all("/rogue" in finding.found for finding in findings if finding.level is Level.ERROR)
        # The driver itself says so too: it may drown a robot's sensors.
        assert "/rogue also publishes /imu/data" in (tmp_path / "logs" / "driver_node.log").read_text()
        others.node.destroy_publisher(second)
        others.node.destroy_publisher(past)


@pytest.mark.ros
def test_what_is_missing_of_another_type_or_qos_is_named_with_what_helps(others, path, tmp_path) -> None:
    contract = load_contract(path)
    others.node.create_publisher(String, "imu/data", EVENT)
    others.node.create_publisher(Imu, "imu", EVENT)
    with Graph(tmp_path / "logs") as graph:
        given = {"silent": True, "only": "imu", "latched_commands": True}
        graph.start("driver_node", contract=str(path), **given)
        expected = {("type", "imu/data"), ("command_qos", "joint_commands"), ("observation", "observation")}
        findings = until_errors(graph, contract, expected)
        text = {finding.kind: f"{finding.found}; {finding.fix}" for finding in findings}
        assert "/rogue publishes std_msgs/msg/String" in text["type"]
        # On the topic that it is on, it is there, and says nothing.
        silent = {("no_message", "imu/data"), *expected} - {("type", "imu/data")}
        until_errors(graph, contract, silent, remap=["imu/data:=imu"])
        assert "volatile is offered where transient local is requested" in text["command_qos"]


@pytest.mark.ros
def test_an_empty_graph_lacks_everything(domain, capsys) -> None:
    assert main(["check", "driver", "--robot", "boat", "--seconds", "0.6"]) == 1
    out = capsys.readouterr().out
    assert "nobody publishes /odom" in out
    assert "nobody takes the commands" in out
    assert "the shield cannot run on it" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["check", "driver", "--robot", "boat", "--seconds", "0"], "--seconds: expected a number above 0"),
        (["check", "driver", "--robot", "nobody"], "no contract 'nobody'"),
        (["check", "driver", "--robot", "boat", "--namespace", "a b"], "--namespace: expected a ROS namespace"),
        (["check", "driver", "--robot", "boat", "--remap", "odom"], "--remap: expected FROM:=TO, got 'odom'"),
        (
            ["run", "driver", "--robot", "boat", "--set", "speed=1"],
            "driver_node has no such parameter; it has contract",
        ),
        (["run", "driver", "--robot", "boat", "--set", "degrees=yes"], "degrees: expected true or false, got 'yes'"),
        (["run", "driver", "--robot", "boat", "--rate", "odometry"], "--rate: expected NAME=VALUE, got 'odometry'"),
    ],
)
def test_wrong_use_is_one_line(domain, capsys, words, text) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert error.count("\n") == 1


def test_a_driver_that_cannot_be_as_asked_for_does_not_start(domain, capfd) -> None:
    assert "'radar' is no input of" in refusal("driver_node", capfd, only="radar")
    assert "rates: 'radar' is no input of" in refusal("driver_node", capfd, rates='{"radar": 1.0}')
    assert "rates: imu: expected Hz above 0, at most 2000, got 0" in refusal("driver_node", capfd, rates='{"imu": 0}')
    assert "rates: expected an object in JSON" in refusal("driver_node", capfd, rates="125")
    assert "rename: expected JOINT=NAME" in refusal("driver_node", capfd, rename="a")
