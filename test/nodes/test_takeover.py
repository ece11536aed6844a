"""An operator takes a robot over from its controller: what goes to the robot, what is told, and what is recorded."""

import time

import numpy as np
import pytest
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from test_foreign_robots import Foreign

from ssql_ros.bags.data_set import Source, make_data_set
from ssql_ros.contract.messages import fill_joint_state, stamp_of
from ssql_ros.data.data_set import DataSet
from ssql_ros.evaluation.replay import replay
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction
from ssql_ros.ros.process import COMMAND, EVENT
from support.robots import CONTRACT

pytestmark = pytest.mark.ros
NAMES = CONTRACT.commanded.joint_names
CONTROLLER, OPERATOR = (CONTRACT.joint_command(np.full(8, value)).tolist() for value in (0.1, -0.1))


@pytest.fixture
def robot(domain):
    robot = Foreign()
    yield robot
    robot.close()


def test_an_operator_takes_over_and_gives_back_and_the_data_set_says_when(robot, tmp_path):
    hand = robot.node.create_publisher(JointState, "joint_commands_takeover", COMMAND)
    told, send, frames = {}, robot.command(CONTROLLER), 0

    def tell(account):
        # Of one observation there may be two decisions, and the robot may be handed over between them.
        told.setdefault(stamp_of(account), set()).add(account.taken_over)

    robot.node.create_subscription(ShieldedAction, "shield_node/shielded_action", tell, EVENT)

    def both(stamp):
        """The operator's commands come every fifth period, stamped by clocks that are minutes off, or by none."""
        nonlocal frames
        send(stamp)
        frames += 1
        if frames % 5 == 0:
            shift = (-200, 0, 200)[frames // 5 % 3] * 1_000_000_000
            hand.publish(
                fill_joint_state(JointState(), stamp + shift if shift else 0, NAMES, position=np.array(OPERATOR))
            )

    with Graph(tmp_path / "logs") as graph:
        graph.start("recorder_node", output=str(tmp_path / "bag"))
        graph.start("shield_node", takeover_timeout=0.3)
        # Of each the shield or this test, and the recorder.
        needed = (
            "joint_states",
            "imu/data",
            "joint_commands",
            "joint_commands_takeover",
            "shield_node/shielded_action",
        )
        robot.until(lambda: all(robot.node.count_subscribers(f"/{name}") >= 2 for name in needed), send)
        robot.until(lambda: robot.node.count_subscribers("/shield_node/decision_records"), send)
        robot.hear(lambda a: a.decision == ShieldedAction.PASSED and not a.taken_over, send)

        taken = robot.hear(lambda a: a.taken_over and a.decision == ShieldedAction.PASSED, both)
        assert np.allclose(taken.proposal, -0.1)
        robot.until(lambda: robot.commands[-1].position.tolist() == OPERATOR, both)
        robot.until(lambda: robot.states[-1].taken_over, both)
        first = len(robot.accounts)
        end = time.monotonic() + 1.0
        robot.until(lambda: time.monotonic() > end, both)
        # Slower than the period, and still all is the operator's.
        assert all(account.taken_over for account in robot.accounts[first:])
        assert {a.decision for a in robot.accounts[first:]} == {ShieldedAction.PASSED}

        # He falls silent, and the controller has the robot again; then he locks it, and nothing is done without him.
        robot.hear(lambda a: not a.taken_over and a.decision == ShieldedAction.PASSED, send)
        assert robot.call(SetBool, "shield_node/take_over", data=True).success
        why = "taken over: no command of the operator yet"
        held = robot.hear(lambda a: a.taken_over and a.reason == why, send)
        assert held.decision == ShieldedAction.HELD
        answer = robot.call(SetBool, "shield_node/take_over", data=False)
        assert answer.message == "the controller has the robot"
        robot.hear(lambda a: not a.taken_over and a.decision == ShieldedAction.PASSED, send)
        robot.until(lambda: robot.commands[-1].position.tolist() == CONTROLLER, send)

    make_data_set(Source((tmp_path / "bag",), CONTRACT, None), tmp_path / "set", {})
    data = DataSet(tmp_path / "set")
    flags = dict(zip(data["stamp"].tolist(), data["intervention"].tolist(), strict=True))
    assert 40 < sum(flags.values()) < len(flags)
    assert {stamp: flag for stamp, flag in flags.items() if flag not in told.get(stamp, {flag})} == {}
    again = replay(tmp_path / "bag")
    assert sum(again.decisions.values()) > 50
    assert (again.different, again.told) == (0, [])
