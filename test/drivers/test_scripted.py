"""A scripted robot rests outside its failure set, follows commands at the contract's speeds, and reads as it is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message

from ssql_ros.contract import Contract, ContractError, find_contract, load_contract
from ssql_ros.contract.message_kinds import Kind, kinds
from ssql_ros.contract.messages import InputReader
from ssql_ros.contract.plugs import plugs
from ssql_ros.contract.rotations import orientation_of, quaternion_of
from ssql_ros.contract.sensor_readings import frame_of
from ssql_ros.drivers.kind_bytes import kind_bytes
from ssql_ros.drivers.resting import resting_values
from ssql_ros.drivers.scripted import SPEED, ScriptedRobot
from ssql_ros.nodes.sensors import sensor_message
from ssql_ros.ros.inputs import parser_of
from support.toy_robot import toy_contract

CART = """
robot: cart
control_period: 0.1
inputs:
  odometry: {topic: odom, type: nav_msgs/msg/Odometry}
  scan: {topic: scan, type: sensor_msgs/msg/LaserScan}
  range: {topic: range, type: sensor_msgs/msg/Range}
  battery: {topic: battery, type: sensor_msgs/msg/BatteryState}
  wrench: {topic: wrench, type: geometry_msgs/msg/WrenchStamped}
  raw: {topic: raw, type: std_msgs/msg/Float64MultiArray}
observation:
  trigger: odometry
  frame:
    - {name: speed, input: odometry, field: linear_velocity.x, unit: m/s}
    - {name: x, input: odometry, field: position.x, unit: m}
    - {name: heading, input: odometry, field: orientation.yaw, unit: rad, function: cos}
    - {name: front, input: scan, field: "min(-30, 30)", unit: m}
    - {name: back, input: scan, field: "mean(150, 210)", unit: m}
    - {name: above, input: range, field: range, unit: m}
    - {name: volts, input: battery, field: voltage, unit: V}
    - {name: push, input: wrench, field: force.y, unit: N}
    - {name: third, input: raw, field: "data[2]", unit: m}
action:
  elements: [{name: forward, low: -1, high: 1}, {name: turn, low: -1, high: 1}]
  command: {topic: cmd_vel, type: geometry_msgs/msg/Twist}
  parts: [{name: linear.x, offset: 0.25, sum: {forward: 0.25}}, {name: angular.z, sum: {turn: 1.5}}]
incident: [{feature: front, below: 2.5, unit: m}, {feature: volts, below: 12.5, unit: V}]
safe_action: [-1, 0]
"""


@pytest.fixture(scope="module")
def cart(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    path = tmp_path_factory.mktemp("cart") / "cart.yaml"
    path.write_text(CART)
    return load_contract(path)


def frame_over_messages(contract: Contract, robot: ScriptedRobot) -> np.ndarray:
    """The frame that a reader makes of what the robot's driver would publish."""
    frame, readings = np.empty(contract.frame_size), robot.readings()
    for name, source in contract.inputs.items():
        message = sensor_message(source.type, readings[name], 10**18)
        values = InputReader(contract, source)(parser_of(source.type)(serialize_message(message)))
        frame[[feature.input == name for feature in contract.observed.frame]] = values
    return frame


@pytest.mark.parametrize("robot", plugs())
def test_every_robot_rests_outside_its_failure_set_and_reads_as_it_is(robot: str) -> None:
    contract = load_contract(find_contract(robot))
    scripted = ScriptedRobot(contract)
    frame = frame_over_messages(contract, scripted)
    assert frame == pytest.approx(frame_of(contract, scripted.values), abs=1e-9)
    assert contract.margin(frame)[0] < 0.0


def test_types_that_are_tables_are_published_too(cart: Contract) -> None:
    scripted = ScriptedRobot(cart)
    frame = frame_over_messages(cart, scripted)
    assert frame == pytest.approx(frame_of(cart, scripted.values), rel=1e-6)
    assert cart.margin(frame)[0] < 0.0
    assert frame[cart.frame_names.index("back")] == pytest.approx(2.0)


def test_a_pose_inside_a_box_is_left() -> None:
    contract = load_contract(find_contract("boat"))
    rock = contract.balls[0]
    # As if the rock lay where everything rests.
    moved = type(rock)(rock.features, (0.0, 0.0), rock.radius, rock.unit)
    around = type(contract)(**{**vars_of(contract), "balls": (moved,)})
    assert around.margin(np.zeros(2))[0] > 0.0
    assert around.margin(frame_of(around, resting_values(around)))[0] < 0.0


def vars_of(contract: Contract) -> dict[str, object]:
    return {name: getattr(contract, name) for name in contract.__dataclass_fields__}


@given(target=st.floats(-1.0, 1.0), elapsed=st.floats(0.001, 1.0))
def test_joints_follow_their_commands_no_faster_than_their_speed(target: float, elapsed: float) -> None:
    contract = toy_contract()
    robot = ScriptedRobot(contract)
    robot.step(0.0)
    place = ("joints", "joint0", "position")
    before, goal = robot.values[place], contract.joint_command(np.array([target]))
    robot.command(goal, elapsed)
    robot.step(elapsed)
    moved = robot.values[place] - before
    assert abs(moved) <= SPEED * elapsed + 1e-12
    assert moved == pytest.approx(np.clip(goal[0] - before, -SPEED * elapsed, SPEED * elapsed), abs=1e-12)


def test_without_commands_it_goes_back_to_its_safe_pose_after_the_time_out() -> None:
    contract = toy_contract()
    robot, safe = ScriptedRobot(contract), contract.joint_command(contract.safe_action)
    robot.step(0.0)
    robot.command(safe + 0.2, 0.0)
    robot.step(contract.command_timeout)
    assert robot.values["joints", "joint0", "position"] == pytest.approx(safe[0] + 0.2)
    assert not robot.stopped
    robot.step(contract.command_timeout + 1.0)
    assert robot.stopped
    assert robot.values["joints", "joint0", "position"] == pytest.approx(safe[0])


def test_joints_that_one_command_moves_share_it() -> None:
    contract = load_contract(find_contract("shadow_hand"))
    robot, told = ScriptedRobot(contract), contract.commanded
    robot.step(0.0)
    low, _ = contract.joint_limits
    for i in range(1, 400):
        robot.command(low, 0.01 * i)
        robot.step(0.01 * i)
    for joints, value in zip(told.moved, low.tolist(), strict=True):
        assert sum(robot.values["joint_states", joint, "position"] for joint in joints) == pytest.approx(value)


def test_a_twist_drives_it_on(cart: Contract) -> None:
    robot = ScriptedRobot(cart)
    robot.step(0.0)
    robot.command(np.array([0.5, 0.0]), 0.05)
    robot.step(0.1)
    assert robot.values["odometry", None, "linear_velocity.x"] == 0.5
    assert robot.values["odometry", None, "position.x"] == pytest.approx(0.05)


NUMBERS = st.floats(-1e3, 1e3)


@given(force=st.tuples(NUMBERS, NUMBERS, NUMBERS), stamp=st.integers(0, 2**31 * 10**9 - 1))
def test_what_is_written_reads_as_it_was(force: tuple[float, float, float], stamp: int) -> None:
    kind = kinds()["geometry_msgs/msg/WrenchStamped"]
    fields = dict(zip(("force.x", "force.y", "torque.z"), force, strict=True))
    message = kind.parser()(kind_bytes(kind, stamp, fields))
    assert tuple(kind.reader(list(fields), "wrench")(message)) == force
    assert message.header.stamp == divmod(stamp, 10**9)


def test_a_field_that_cannot_be_made_is_named() -> None:
    kind = Kind("a/msg/B", (("volume", "f"),), {"weight": "1"}, lambda name: lambda values: values["volume"] * 2)
    with pytest.raises(ContractError, match=r"a/msg/B: cannot be made from weight"):
        kind_bytes(kind, 0, {"weight": 1.0})


@given(st.floats(-3.0, 3.0), st.floats(-1.5, 1.5), st.floats(-3.0, 3.0))
def test_a_quaternion_is_of_its_angles(roll: float, pitch: float, yaw: float) -> None:
    assert orientation_of(*quaternion_of(roll, pitch, yaw), "q") == pytest.approx((roll, pitch, yaw), abs=1e-6)
    assert math.hypot(*quaternion_of(roll, pitch, yaw)) == pytest.approx(1.0)
