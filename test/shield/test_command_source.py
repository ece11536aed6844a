"""How fast a command moves where its source changes: speeds, and where they are stated accelerations."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.contract import ContractError, load_contract
from ssql_ros.shield.command_source import CommandSource
from support.toy_robot import PERIOD, toy_contract, toy_yaml

TOY = toy_contract()
SPEED, ACCELERATION = 2.0, 10.0
STEP, JOLT = SPEED * PERIOD, ACCELERATION * PERIOD**2
TOLD = replace(TOY.commanded, velocity=np.array([SPEED]), acceleration=np.array([ACCELERATION]))
CONTRACT = replace(TOY, commanded=TOLD)
LOW, HIGH = (float(end[0]) for end in CONTRACT.joint_limits)


def sent_to(source, goal, periods=400):
    """Commands on the way to one goal, until it is reached."""
    sent = []
    for _ in range(periods):
        sent.append(float(source.towards(np.array([goal]))[0]))
        if sent[-1] == goal:
            return sent
    raise AssertionError(f"never there: {sent[-5:]}")


@given(st.lists(st.floats(LOW, HIGH), min_size=1, max_size=4))
def test_from_pose_to_pose_no_step_is_too_long_or_too_unlike_the_one_before(goals):
    source = CommandSource(CONTRACT)
    source.measured(np.array([0.0, 0.0]))
    sent = [0.0, 0.0]
    for goal in goals:
        source.change()
        sent += sent_to(source, goal)
    steps = np.diff(sent)
    assert np.abs(steps).max() <= STEP + 1e-9
    assert np.abs(np.diff(steps)).max() <= JOLT + 1e-9
    assert min(sent) >= LOW - 1e-9
    assert max(sent) <= HIGH + 1e-9


def test_it_takes_hardly_longer_than_it_must():
    source = CommandSource(CONTRACT)
    source.measured(np.array([0.0, 0.0]))
    # Up to speed, along, and down again: 0.5 rad at 2 rad/s and 10 rad/s^2.
    least = 0.5 / SPEED + SPEED / ACCELERATION
    assert len(sent_to(source, 0.5)) == pytest.approx(least / PERIOD, abs=2)


def test_source_that_is_left_in_motion_is_braked_and_not_stopped_dead():
    source = CommandSource(CONTRACT)
    source.measured(np.array([0.0, 0.0]))
    moving = [source.towards(np.array([0.5]))[0] for _ in range(8)]
    source.change()
    back = [float(source.held(None)[0]) for _ in range(60)]
    steps = np.diff([*moving, *back])
    assert np.abs(np.diff(steps)).max() <= JOLT + 1e-9
    assert back[-1] == 0.1 + 0.5 * 0.25


def test_controller_that_moves_gets_the_robot_though_it_never_waits():
    source = CommandSource(CONTRACT)
    source.measured(np.array([0.0, 0.0]))
    sent = [0.0, 0.0]
    for k in range(200):
        wanted = np.array([0.1 + 0.4 * np.sin(0.05 * k)])  # at most 0.02 a period
        source.aim(wanted)
        sent.append(float(source.towards(wanted)[0]))
        if sent[-1] == wanted[0]:
            break
    assert sent[-1] == wanted[0]
    assert k < 60
    assert np.abs(np.diff(np.diff(sent))).max() <= JOLT + 1e-9


def test_acceleration_without_a_speed_is_refused(tmp_path):
    path = tmp_path / "toy.yaml"
    text = toy_yaml().replace("{name: joint0, offset: 0.1,", "{name: joint0, acceleration: 5.0, offset: 0.1,")
    path.write_text(text)
    error = r"joints\[0\]\.acceleration: needs the joint's velocity, or the command's max_rate"
    with pytest.raises(ContractError, match=error):
        load_contract(path)
    path.write_text(text.replace("acceleration: 5.0", "velocity: 2.0, acceleration: 5.0"))
    assert load_contract(path).commanded.acceleration.tolist() == [5.0]
