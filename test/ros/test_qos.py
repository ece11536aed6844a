"""The QoS of a shield's topics: what its contract and its parameters say of it, and what it says of others'."""

from pathlib import Path

import pytest
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from ssql_ros.contract import ContractError, load_contract
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction
from ssql_ros.ros.process import COMMAND
from ssql_ros.ros.qos import override, proposal_qos, publish_on, subscribe, unused_overrides
from support.robots import CONTRACT, SAFE_COMMAND, Robot

RAW = override("/joint_commands_raw", "subscription")
BEST_EFFORT, PASSED = ReliabilityPolicy.BEST_EFFORT, ShieldedAction.PASSED


def contract_with(folder: Path, reliability: str) -> Path:
    path, before = folder / "minitaur.yaml", "field: position, unit: rad, max_rate"
    text = Path(CONTRACT.path).read_text()
    assert before in text
    path.write_text(text.replace(before, f"reliability: {reliability}, {before}"))
    return path


def test_a_contract_says_that_controllers_publish_best_effort_and_means_the_same(tmp_path):
    contract = load_contract(contract_with(tmp_path, "best_effort"))
    assert contract.id == CONTRACT.id
    assert proposal_qos(contract).reliability is BEST_EFFORT
    assert proposal_qos(CONTRACT).reliability is COMMAND.reliability is ReliabilityPolicy.RELIABLE
    with pytest.raises(ContractError, match="reliability: expected one of reliable, best_effort; got 'best'"):
        load_contract(contract_with(tmp_path, "best"))


@pytest.fixture
def node(domain):
    """A node that was given parameters as a parameter file gives them."""
    context = rclpy.Context()
    rare = RAW.replace("raw", "rare")
    rclpy.init(args=["--ros-args", "-p", f"{RAW}:=best_effort", "-p", f"{rare}:=x"], context=context)
    node = rclpy.create_node("shield_node", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.ros
def test_a_parameter_changes_one_topic_and_no_other(node):
    topics = ("joint_commands_raw", "joint_commands_takeover")
    raw, takeover = (subscribe(node, JointState, topic, print, COMMAND) for topic in topics)
    assert raw.qos_profile.reliability is BEST_EFFORT
    assert takeover.qos_profile.reliability is COMMAND.reliability is ReliabilityPolicy.RELIABLE
    assert node.get_parameter(RAW).value == "best_effort"
    assert unused_overrides(node) == [RAW.replace("raw", "rare")]
    # Once more, as a shield that is configured again does it.
    node.destroy_subscription(raw)
    assert subscribe(node, JointState, topics[0], print, COMMAND).qos_profile.reliability is BEST_EFFORT
    with pytest.raises(ValueError, match=r"joint_commands_rare.subscription.*: .*; expected reliability: reliable or"):
        subscribe(node, JointState, "joint_commands_rare", print, COMMAND)
    assert publish_on(node, JointState, "joint_commands", COMMAND).qos_profile.reliability is COMMAND.reliability


@pytest.mark.ros
def test_a_best_effort_controller_is_not_heard_until_the_contract_or_a_parameter_says_so(domain, tmp_path):
    robot = Robot()
    robot.node.destroy_publisher(robot.raw)
    robot.raw = robot.node.create_publisher(
        JointState, "joint_commands_raw", QoSProfile(depth=1, reliability=BEST_EFFORT)
    )
    send = robot.command(SAFE_COMMAND)
    log = tmp_path / "logs" / "shield_node.log"
    try:
        with Graph(tmp_path / "logs") as graph:
            graph.start("shield_node")
            says = (
                "joint_commands_raw: the QoS of /robot is incompatible, and nothing arrives: best effort is offered "
                "where reliable is requested; let it publish reliably, or set `reliability: best_effort` in the "
                f"contract's action.command, or the shield's parameter {RAW}: best_effort"
            )
            robot.until(lambda: says in log.read_text(), send)
            assert PASSED not in {account.decision for account in robot.accounts}
            graph.stop("shield_node")
            for options in ({"contract": str(contract_with(tmp_path, "best_effort"))}, {RAW: "best_effort"}):
                graph.start("shield_node", **options)
                robot.hear(lambda a: a.decision == PASSED, send)
                graph.stop("shield_node")
    finally:
        robot.close()
