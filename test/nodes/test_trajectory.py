"""A robot that is commanded by streamed trajectories: the same vectors, the same bundle, another message."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from test_foreign_robots import Foreign
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ssql_ros.bags.conversion import convert
from ssql_ros.contract import Contract, ContractError, load_contract
from ssql_ros.contract.fields import TRAJECTORY
from ssql_ros.contract.messages import CommandReader, fill_joint_command
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction
from ssql_ros.nodes.command_writer import CommandWriter
from ssql_ros.ros.inputs import empty_command, parser_of
from ssql_ros.ros.process import COMMAND, EVENT
from support.robots import CONTRACT

pytestmark = pytest.mark.ros


def _trajectory_contract() -> Contract:
    """The Minitaur's, but for what its driver takes."""
    text, before = Path(CONTRACT.path).read_text(), "topic: joint_commands, type: sensor_msgs/msg/JointState"
    assert before in text
    path = Path(tempfile.mkdtemp()) / "minitaur.yaml"
    path.write_text(text.replace(before, f"topic: legs/joint_trajectory, type: {TRAJECTORY}"))
    return load_contract(path)


TOLD = _trajectory_contract()
WRITER = CommandWriter(TOLD, False)


def trajectory(joints, names=CONTRACT.commanded.joint_names, points=1) -> JointTrajectory:
    made = [JointTrajectoryPoint(positions=[float(value) for value in joints]) for _ in range(points)]
    return JointTrajectory(joint_names=list(names), points=made)


def test_how_joints_are_told_does_not_change_what_an_action_means():
    assert TOLD.id == CONTRACT.id
    assert TOLD.commanded.raw_topic == "legs/joint_trajectory_raw"


@given(st.lists(st.floats(-10.0, 10.0), min_size=8, max_size=8), st.permutations(range(8)))
def test_a_point_is_read_by_name_as_rclpy_reads_it_and_written_as_rclpy_would(joints, order):
    named = CONTRACT.commanded.joint_names
    message = trajectory([joints[i] for i in order], [named[i] for i in order])
    reader = CommandReader(TOLD, "raw")
    assert reader.joint_command(parser_of(TRAJECTORY)(serialize_message(message))).tolist() == joints
    made = deserialize_message(WRITER(np.array(joints), 5), JointTrajectory)
    assert made == fill_joint_command(empty_command(TRAJECTORY), TOLD, np.array(joints), 5)
    (point,) = made.points
    assert (list(made.joint_names), point.positions.tolist()) == (list(named), joints)
    # It begins when it comes, and is there when the next one comes.
    assert (made.header.stamp.sec, point.time_from_start.sec, point.time_from_start.nanosec) == (0, 0, 20_000_000)


@pytest.mark.parametrize("points", [0, 2])
def test_a_whole_trajectory_is_refused_with_what_helps(points):
    data = serialize_message(trajectory(np.zeros(8), points=points))
    expected = f"expected one point, as a controller streams them, got {points}; a whole trajectory must be sampled"
    with pytest.raises(ContractError, match=expected):
        parser_of(TRAJECTORY)(data)
    whole = serialize_message(trajectory(np.zeros(8)))
    for end in range(4, len(whole) - 24):  # behind it are empty sequences, a time and slack
        with pytest.raises(ContractError):
            CommandReader(TOLD, "raw").joint_command(parser_of(TRAJECTORY)(whole[:end]))


def test_a_streamed_trajectory_goes_through_the_shield_and_into_transitions(domain, tmp_path):
    robot = Foreign()
    raw = robot.node.create_publisher(JointTrajectory, "legs/joint_trajectory_raw", COMMAND)
    heard = []
    robot.node.create_subscription(JointTrajectory, "legs/joint_trajectory", heard.append, EVENT)
    wanted = CONTRACT.joint_command(np.full(8, 0.1))

    def send(_stamp):
        raw.publish(trajectory(wanted))

    try:
        with Graph(tmp_path / "logs") as graph:
            graph.start("recorder_node", contract=TOLD.path, output=str(tmp_path / "bag"))
            graph.start("shield_node", contract=TOLD.path)
            robot.hear(lambda a: a.decision == ShieldedAction.PASSED, send)
            # By shield and recorder.
            needed = ("/joint_states", "/imu/data", "/legs/joint_trajectory_raw")
            robot.until(lambda: all(robot.node.count_subscribers(name) >= 2 for name in needed), send)
            heard.clear()
            robot.until(lambda: len(heard) > 30 and heard[-1].points[0].positions.tolist() == wanted.tolist(), send)
            # Too many points are no command: the safe action follows, and the reason says why.
            held = robot.hear(
                lambda a: a.decision == ShieldedAction.HELD and "expected one point" in a.reason,
                lambda _: raw.publish(trajectory(wanted, points=3)),
            )
            assert held.action.tolist() == CONTRACT.safe_action.tolist()
    finally:
        robot.close()
    rows = []
    outcome = convert([tmp_path / "bag"], TOLD, None, rows.append)
    assert (len(rows) > 20, outcome.problems) == (True, [])
    assert any(np.allclose(row["action"], 0.1) for row in rows)
