"""The shield before drivers, controllers and rogues that are not ours, over real processes."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from ssql_ros.contract.messages import set_stamp
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.ros.process import COMMAND, EVENT
from support.robots import CONTRACT, SAFE_COMMAND, Robot

HELD, PASSED = ShieldedAction.HELD, ShieldedAction.PASSED
pytestmark = pytest.mark.ros
ERROR = 2
SECOND = 1_000_000_000


class Foreign(Robot):
    """A robot whose driver does as drivers do: `shift` in ns on its stamps, `stamps` of its own."""

    def __init__(self):
        super().__init__()
        self.shift, self.stamp = 0, None
        self.said = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.said.append, EVENT)

    def sense(self):
        now = self.node.get_clock().now().nanoseconds
        stamp = now + self.shift if self.stamp is None else self.stamp
        for publisher, message in ((self.imu, self.step.imu), (self.joints, self.step.joint_states)):
            set_stamp(message, stamp)
            publisher.publish(message)
        return stamp

    def diagnosed(self, text, level=ERROR, send=lambda _stamp: None):
        """Go on until the shield says `text` on /diagnostics at `level`; return all of the message."""

        def found():
            return [
                status.message
                for array in self.said
                for status in array.status
                if status.name.endswith(": shield") and text in status.message and int(status.level[0]) >= level
            ]

        self.said.clear()
        self.until(found, send)
        return found()[0]

    def recorded(self, *topics, send=lambda _stamp: None):
        """Go on until the recorder says that it has heard something on each of `topics`."""

        def counted(status):
            counts = {value.key: value.value for value in status.values}
            return all(counts.get(topic, "").isdigit() for topic in topics)

        def found():
            every = [status for array in self.said for status in array.status if status.name.endswith(": recording")]
            return any(map(counted, every))

        self.said.clear()
        self.until(found, send)

    def call(self, kind, name, **request):
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready)
        future = client.call_async(kind.Request(**request))
        self.until(future.done, self.command(SAFE_COMMAND))
        return future.result()


@pytest.fixture
def graph(domain, tmp_path):
    with Graph(tmp_path / "logs") as graph:
        yield graph


@pytest.fixture
def robot(graph):
    robot = Foreign()
    yield robot
    robot.close()


@pytest.fixture
def shielded(graph, robot):
    graph.start("shield_node")
    robot.hear(lambda a: a.decision == PASSED, robot.command(SAFE_COMMAND))
    return robot


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stamp": 0}, "header.stamp is 0"),
        ({"shift": 10 * SECOND}, "s ahead of this clock"),
        ({"shift": 60_000_000}, "s ahead of this clock"),
        ({"shift": -60_000_000}, "old by stamp"),
        ({"stamp": 123 * SECOND}, "old by stamp"),
    ],
)
def test_driver_of_another_clock_is_held_and_named_with_what_helps(shielded, change, reason):
    vars(shielded).update(change)
    # Stamped as its observation is, the command is refused too: that may be said first.
    shielded.hear(
        lambda a: a.decision == HELD and reason in a.reason and "stamps: arrival" in a.reason,
        shielded.command(SAFE_COMMAND),
    )
    shielded.accounts.clear()
    shielded.until(lambda: len(shielded.accounts) > 10, shielded.command(SAFE_COMMAND))
    assert {a.decision for a in shielded.accounts} == {HELD}


def test_stamps_of_arrival_serve_a_driver_that_has_none(graph, robot, tmp_path):
    contract = tmp_path / "minitaur.yaml"
    text = (
        "inputs:\n  joint_states: {topic: joint_states, type: sensor_msgs/msg/JointState, max_age: 0.04, "
        "stamps: arrival}\n  imu: {topic: imu/data, type: sensor_msgs/msg/Imu, max_age: 0.04, stamps: arrival}\n"
        "  odometry: {topic: odom, type: nav_msgs/msg/Odometry, max_age: 0.2}\n\nobservation:"
    )
    shipped = Path(CONTRACT.path).read_text()
    begin, end = shipped.index("inputs:"), shipped.index("observation:")
    contract.write_text(shipped[:begin] + text + shipped[end + len("observation:") :])
    graph.start("shield_node", contract=str(contract))
    robot.stamp = 0
    robot.hear(lambda a: a.decision == PASSED, robot.command(SAFE_COMMAND))


def test_gripper_on_joint_states_is_ignored_and_a_contradiction_is_named(shielded):
    other = shielded.node.create_publisher(JointState, "joint_states", EVENT)

    def sends(names):
        def send(stamp):
            message = JointState(name=list(names), position=[0.0] * len(names))
            set_stamp(message, stamp)
            other.publish(message)
            shielded.command(SAFE_COMMAND)(stamp)

        return send

    shielded.accounts.clear()
    shielded.until(lambda: len(shielded.accounts) > 30, sends(["gripper"]))
    assert sum(a.decision == PASSED for a in shielded.accounts) > 25
    names = CONTRACT.commanded.joint_names
    account = shielded.hear(lambda a: a.decision == HELD and "contradict" in a.reason, sends(names))
    assert names[0] in account.reason


def test_who_else_commands_is_named_and_forgotten_when_gone(shielded):
    send = shielded.command(SAFE_COMMAND)
    past = shielded.node.create_publisher(JointState, "joint_commands", COMMAND)
    assert "/robot also publishes" in shielded.diagnosed("past this shield", send=send)
    shielded.node.destroy_publisher(past)
    second = shielded.node.create_publisher(JointState, "joint_commands_raw", COMMAND)
    assert "/robot" in shielded.diagnosed("controllers propose commands", send=send)
    shielded.node.destroy_publisher(second)
    shielded.diagnosed("enforce", level=0, send=send)


def test_bytes_that_are_no_message_and_wrong_transitions_end_nothing(shielded):
    sensors = shielded.node.create_publisher(JointState, "joint_states", EVENT)
    commands = shielded.node.create_publisher(JointState, "joint_commands_raw", COMMAND)
    for data in (b"\x00", bytes([0, 3, 0, 0, 255, 255, 255, 255]), b"\x00\x01\x00\x00" + b"\xff" * 40):
        for publisher in (sensors, commands):
            publisher.publish(data)
    for transition in (1, 2, 3, 99):
        assert not shielded.call(ChangeState, "shield_node/change_state", transition=_transition(transition)).success
    shielded.hear(lambda a: a.decision == PASSED, shielded.command(SAFE_COMMAND))


def test_deactivation_is_one_line(shielded, tmp_path):
    log = tmp_path / "logs" / "shield_node.log"
    before = len(log.read_text().splitlines())
    assert shielded.call(ChangeState, "shield_node/change_state", transition=_transition(4)).success
    end = time.monotonic() + 2.0
    shielded.until(lambda: time.monotonic() > end, shielded.command(SAFE_COMMAND))
    lines = log.read_text().splitlines()[before:]
    told = [line for line in lines if "activ" in line]
    assert len(told) == 1, lines
    assert "deactivated: the robot gets no command from here" in told[0]


def _transition(number):
    from lifecycle_msgs.msg import Transition

    return Transition(id=number)


def test_monitor_without_controller_commands_nothing_and_clips_what_it_hands_on(graph, robot):
    graph.start("shield_node", mode="monitor")
    robot.until(lambda: len(robot.accounts) > 20)
    assert robot.commands == []
    low, high = CONTRACT.joint_limits
    for value in (1e30, 0.0):
        robot.commands.clear()
        robot.until(lambda: len(robot.commands) > 5, robot.command([value] * 8))
        assert robot.commands[-1].position.tolist() == np.clip([value] * 8, low, high).tolist()
    robot.commands.clear()
    robot.accounts.clear()
    robot.until(lambda: len(robot.accounts) > 5, robot.command([math.nan] * 8))
    assert robot.commands == []


def test_disabled_shield_hands_on_whatever_the_sensors_say_and_its_parameter_says_so(shielded):
    assert shielded.call(SetBool, "shield_node/enable", data=False).success
    shielded.until(lambda: shielded.states and shielded.states[-1].mode == ShieldState.DISABLED)
    shielded.stamp = 0
    wanted = CONTRACT.joint_command(np.full(8, 0.5)).tolist()
    shielded.until(
        lambda: shielded.commands and shielded.commands[-1].position.tolist() == wanted, shielded.command(wanted)
    )
    assert shielded.call(SetBool, "shield_node/enable", data=True).success
    shielded.until(lambda: shielded.states[-1].mode == ShieldState.ENFORCE)


def test_history_is_flagged_until_it_is_whole(graph, robot):
    graph.start("shield_node")
    robot.hear(lambda a: a.decision == PASSED and a.history_missing > 0, robot.command(SAFE_COMMAND))
    robot.hear(lambda a: a.decision == PASSED and a.history_missing == 0, robot.command(SAFE_COMMAND))
