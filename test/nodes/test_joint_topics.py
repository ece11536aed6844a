"""A robot of which each joint is commanded on a topic of its own, over real processes: controller, shield, driver."""

from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64
from test_foreign_robots import Foreign

from ssql_ros.bags.conversion import convert
from ssql_ros.contract import Contract, load_contract
from ssql_ros.drafting.ranges import feature_ranges
from ssql_ros.drivers.findings import Level
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction
from ssql_ros.nodes.command_writer import CommandWriter
from ssql_ros.ros.driver_check import check_driver
from ssql_ros.ros.process import COMMAND, EVENT
from support.robots import CONTRACT

pytestmark = pytest.mark.ros
PASSED, HELD = ShieldedAction.PASSED, ShieldedAction.HELD
WANTED, OPERATOR = (CONTRACT.joint_command(np.full(8, value)) for value in (0.1, -0.1))


@pytest.fixture
def told(tmp_path) -> Contract:
    """The Minitaur's contract, but for what its driver takes."""
    text, before = Path(CONTRACT.path).read_text(), "topic: joint_commands, type: sensor_msgs/msg/JointState"
    assert before in text
    path = tmp_path / "minitaur.yaml"
    path.write_text(text.replace(before, "topic: 'legs/{joint_lower}/command', type: std_msgs/msg/Float64"))
    return load_contract(path)


class Driven(Foreign):
    """A controller and an operator of a robot whose driver is another process."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        for publisher in (self.imu, self.joints):
            self.node.destroy_publisher(publisher)
        self.contract, self.executed = contract, dict[str, float]()
        for topic in contract.commanded.topics:
            self.node.create_subscription(Float64, topic, self.hearer(topic), EVENT)
        self.hand = self.publishers(contract.commanded.takeover_topics)

    def hearer(self, topic):
        return lambda message: self.executed.update({topic: message.data})

    def publishers(self, topics):
        return [self.node.create_publisher(Float64, topic, COMMAND) for topic in topics]

    def sense(self):
        return 0

    @staticmethod
    def sends(publishers, joints):
        def send(_stamp):
            for publisher, value in zip(publishers, joints.tolist(), strict=True):
                publisher.publish(Float64(data=value))

        return send

    def executes(self, joints) -> bool:
        wanted = dict(zip(self.contract.commanded.topics, joints.tolist(), strict=True))
        return self.executed.keys() == wanted.keys() and all(
            abs(self.executed[topic] - value) < 1e-9 for topic, value in wanted.items()
        )


def wiring(contract: Contract, expected: list[tuple[Level, str]]) -> bool:
    """Whether a check finds this of the commands; the first ones may not know everybody yet."""
    topics = (contract.commanded.topic, *contract.commanded.topics)
    return any(
        [(found.level, found.where) for found in check_driver(contract, 0.5) if found.where in topics] == expected
        for _ in range(20)
    )


def test_a_command_is_written_for_each_joint(told):
    assert told.id == CONTRACT.id
    assert deserialize_message(CommandWriter(told, False)(np.array([0.3]), 5), Float64).data == 0.3
    with pytest.raises(ValueError, match="has a topic for each joint"):
        CommandWriter(told, True)


def test_controller_shield_and_driver_a_silent_joint_and_a_takeover(domain, told, tmp_path):
    robot = Driven(told)
    try:
        with Graph(tmp_path / "logs") as graph:
            graph.start("driver_node", contract=told.path)
            graph.start("recorder_node", contract=told.path, output=str(tmp_path / "bag"))
            graph.start("shield_node", contract=told.path)
            # The package's own controller first, then a foreign one.
            graph.start("behaviour_node", contract=told.path)
            robot.hear(lambda a: a.decision == PASSED, lambda _: None)
            robot.until(lambda: len(robot.executed) == 8)
            assert wiring(told, [(Level.OK, told.commanded.topic)])
            graph.stop("behaviour_node")

            raw = robot.publishers(told.commanded.raw_topics)
            send = robot.sends(raw, WANTED)
            robot.hear(lambda a: a.decision == PASSED and np.allclose(a.proposal, 0.1), send)
            robot.until(lambda: robot.executes(WANTED), send)
            # One joint falls silent: no mix of old and new follows, and the reason names it.
            silent = told.commanded.raw_topics[3]
            held = robot.hear(
                lambda a: a.decision == HELD and f"on {silent}" in a.reason, robot.sends(raw[:3] + raw[4:], WANTED[:7])
            )
            assert held.action.tolist() == told.safe_action.tolist()
            robot.hear(lambda a: a.decision == PASSED, send)

            def both(stamp):
                send(stamp)
                robot.sends(robot.hand, OPERATOR)(stamp)

            robot.hear(lambda a: a.taken_over and a.decision == PASSED and np.allclose(a.proposal, -0.1), both)
            robot.until(lambda: robot.executes(OPERATOR), both)
            # Who else commands one of the joints is named.
            topic = told.commanded.topics[5]
            robot.node.create_publisher(Float64, topic, COMMAND)
            robot.diagnosed(f"also publishes /{topic}, past this shield", send=send)
            robot.recorded("/joint_states", "/imu/data", send=send)
            # From now on it is all in the bag, the operator's too.
            robot.hear(lambda a: a.decision == PASSED and not a.taken_over and np.allclose(a.proposal, 0.1), send)
            robot.hear(lambda a: a.taken_over and a.decision == PASSED and np.allclose(a.proposal, -0.1), both)
            robot.until(lambda: robot.executes(OPERATOR), both)
    finally:
        robot.close()
    rows = []
    outcome = convert([tmp_path / "bag"], told, None, rows.append)
    assert (len(rows) > 10, outcome.problems) == (True, [])
    assert any(np.allclose(row["action"], 0.1) for row in rows)
    assert any(np.allclose(row["action"], -0.1) for row in rows)
    least, *_, most = feature_ranges(tmp_path / "bag", told)[f"action {told.commanded.names[0]}"][1]
    assert least < -0.09 < 0.09 < most
