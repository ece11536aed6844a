"""An operator's commands come before the controller's, as long as they come or a lock is set, and are judged as any."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_shield_loop import CONTRACT, SAFE_COMMAND, Robot, stamp

from ssql_ros.shield.decision import Decision
from support.toy_robot import PERIOD


def operate(robot: Robot, action: float, k: int | None = None) -> bool:
    command = CONTRACT.joint_command(np.array([action]))
    return robot.loop.propose(np.array([action]), command, 0 if k is None else stamp(k), robot.now, operator=True)


def test_an_operators_commands_come_first_while_they_come_and_are_judged_too():
    robot = Robot(safe_below=0.5)
    robot.step(1, 0.2)
    robot.observe(2)
    assert operate(robot, 0.4)
    robot.propose(0.3, 2)
    tick = robot.tick()
    assert (tick.taken_over, tick.proposal.tolist(), robot.loop.takeover.overridden) == (True, [0.4], 1)
    # Slower than the robot's period, and unsafe now: another is drawn near what the operator wants.
    robot.now += PERIOD
    robot.observe(3)
    operate(robot, 0.6)
    assert robot.tick().verdict.decision is Decision.RESAMPLED
    for k in range(4, 20):
        robot.now += PERIOD
        robot.observe(k)
        robot.propose(0.3, k)
        tick = robot.tick()
        assert (tick.taken_over, tick.verdict.decision) == (True, Decision.RESAMPLED)


def test_the_controller_has_the_robot_again_once_the_operator_lets_go():
    robot = Robot()
    robot.step(1, 0.2)
    robot.observe(2)
    operate(robot, 0.4)
    robot.tick()
    robot.now += robot.loop.takeover.timeout + 0.001
    robot.observe(40)
    held = robot.tick()
    assert (held.taken_over, held.verdict.decision) == (False, Decision.HELD)
    assert held.verdict.reason == "no new command of the controller"
    robot.now += PERIOD
    assert robot.step(41, 0.3).verdict.decision is Decision.PASSED
    # A message that was long on its way does not hand it back to the operator.
    assert robot.loop.propose(np.array([0.1]), SAFE_COMMAND, 0, robot.now - 0.3)
    assert not robot.loop.taken_over


def test_a_lock_keeps_the_controller_out_also_while_the_operator_says_nothing():
    robot = Robot()
    robot.step(1, 0.2)
    robot.loop.takeover.lock(True)
    for k in range(2, 60):
        robot.observe(k)
        robot.propose(0.3, k)
        tick = robot.tick()
        assert (tick.taken_over, tick.verdict.decision) == (True, Decision.HELD)
        assert tick.verdict.reason == "taken over: no command of the operator yet"
        robot.now += PERIOD
    robot.observe(60)
    operate(robot, 0.4)
    assert robot.tick().verdict.decision is Decision.PASSED
    robot.loop.takeover.lock(False)
    robot.now += PERIOD
    tick = robot.step(61, 0.3)
    assert (tick.taken_over, tick.proposal.tolist()) == (False, [0.3])


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 0.4), st.sampled_from([None, True, False])), max_size=60))
def test_whoever_has_the_robot_is_who_was_decided_on(events):
    """Operator's actions are negative, the controller's positive: no decision ever is on the other's."""
    robot = Robot()
    for k, (operator, pause, lock) in enumerate(events, 1):
        robot.now += PERIOD + pause
        if lock is not None:
            robot.loop.takeover.lock(lock)
        robot.observe(k)
        if operator:
            operate(robot, -0.3)
        else:
            robot.propose(0.3, k)
        tick = robot.tick()
        if tick.proposal.size:
            assert bool(tick.proposal[0] < 0.0) is tick.taken_over
