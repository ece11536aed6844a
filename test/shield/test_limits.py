"""Whatever a controller wants, whoever has the robot: no command beyond what an action can say, and none unjudged."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_shield_loop import SETTINGS, stamp

from ssql_ros.contract import Contract
from ssql_ros.shield.decision import Decision
from ssql_ros.shield.loop import ShieldLoop
from ssql_ros.shield.tick import Mode
from support.toy_robot import PERIOD, FormulaCritic, toy_contract

EASY = FormulaCritic(lambda actions: np.full(len(actions), -9.0))


def slow(coupled: bool) -> Contract:
    """A robot whose joints may move by 0.02 rad a period where the source changes; coupled: each by both elements."""
    told = toy_contract(3).commanded
    if not coupled:
        return dataclasses.replace(toy_contract(3), commanded=dataclasses.replace(told, max_rate=1.0))
    robot = toy_contract(2)
    two = robot.commanded
    matrix = np.array([[0.5, 0.5], [0.5, -0.5]])
    return dataclasses.replace(robot, commanded=dataclasses.replace(two, max_rate=1.0, matrix=matrix))


@pytest.mark.parametrize("coupled", [False, True])
@given(
    st.lists(
        st.tuples(
            st.floats(-100.0, 100.0),
            st.floats(-100.0, 100.0),
            st.sampled_from(["go", "go", "go", "silent", "operator", "monitor", "enforce", "swap"]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_no_command_is_beyond_the_limits_and_what_passes_is_what_was_judged(coupled, events):
    contract = slow(coupled)
    n, (low, high) = contract.action_size, contract.joint_limits
    loop, now = ShieldLoop(contract, EASY, SETTINGS, Mode.ENFORCE), 100.0
    loop.start(now)
    for k, (first, second, event) in enumerate(events, 1):
        if event in ("monitor", "enforce"):
            loop.mode = Mode[event.upper()]
            loop.source.change()
        elif event == "swap":
            loop.source.change()
        elif event == "silent":
            now += 5 * PERIOD
        loop.read("imu", stamp(k), now, 0, np.array([0.0]))
        loop.read("joints", stamp(k), now, 0, np.zeros(n))
        action = np.array([first, second, first - second])[:n]
        command = contract.joint_command(action)
        if loop.propose(action, command, stamp(k), now, operator=event == "operator") and loop.watching:
            sent = loop.relayed(command, stamp(k))
            assert ((low - 1e-9 <= sent) & (sent <= high + 1e-9)).all()
        tick = loop.tick(now)
        now += PERIOD
        if (sent := tick.joint_command) is None:
            continue
        assert ((low - 1e-9 <= sent) & (sent <= high + 1e-9)).all(), (sent, tick.verdict)
        if tick.verdict.decision is Decision.PASSED:
            np.testing.assert_allclose(sent, contract.joint_command(tick.verdict.action), rtol=0, atol=1e-9)
