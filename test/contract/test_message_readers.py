"""Readers: what a driver or a controller sends becomes numbers by name, or an error that names topic and joint."""

import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray
from transforms3d.euler import euler2mat
from transforms3d.quaternions import quat2mat, rotate_vector

from ssql_ros.contract import Contract, ContractError, find_contract, load_contract
from ssql_ros.contract.messages import (
    CommandReader,
    InputReader,
    JointReader,
    fill,
    fill_joint_command,
    fill_joint_state,
    fill_quaternion,
    fill_vector3,
    wrap_angle,
)
from ssql_ros.msg import Proposal

SHIPPED = find_contract("minitaur")
CONTRACT = load_contract(SHIPPED)
JOINTS = list(CONTRACT.commanded.joint_names)
angles = st.floats(-4.0, 4.0)


def read(name: str, message: object, contract: Contract = CONTRACT) -> np.ndarray:
    came = deserialize_message(serialize_message(message), type(message))
    return InputReader(contract, contract.inputs[name])(came)


def joint_state(names: list[str], positions: list[float]) -> JointState:
    return fill_joint_state(JointState(), 1, names, position=np.array(positions))


def imu(orientation=(0.0, 0.0, 0.0, 1.0), rates=(0.1, 0.2, 0.3)) -> Imu:
    message = Imu()
    fill_quaternion(message.orientation, orientation)
    fill_vector3(message.angular_velocity, rates)
    return message


def with_changes(tmp_path, change) -> Contract:
    document = yaml.safe_load(SHIPPED.read_text())
    change(document)
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_contract(path)


# Joints


@given(st.permutations([*JOINTS, "camera_joint", "wheel_joint"]), st.lists(angles, min_size=10, max_size=10))
def test_joints_are_read_by_name_whatever_their_order_and_company(names, positions):
    by_name = dict(zip(names, positions, strict=True))
    expected = [wrap_angle(np.array((-1 if "left" in n else 1) * by_name[n])) for n in JOINTS]
    assert read("joint_states", joint_state(names, positions)).tolist() == [float(value) for value in expected]


def test_reader_follows_a_driver_that_changes_its_order():
    reader = InputReader(CONTRACT, CONTRACT.inputs["joint_states"])
    values = np.arange(8) / 10
    first = reader(joint_state(JOINTS, values))
    assert reader(joint_state(JOINTS[::-1], values[::-1])).tolist() == first.tolist()
    assert reader(joint_state(JOINTS, values)).tolist() == first.tolist()
    assert np.isnan(reader(joint_state(JOINTS[1:], values[1:]))).tolist() == [True] + [False] * 7
    assert reader(joint_state(JOINTS, values)).tolist() == first.tolist()


def test_fields_are_read_apart():
    reader = JointReader(["b", "a", "b"], ["position", "velocity", "effort"], "topic", "file")
    values = {"position": np.array([1.0, 2.0]), "velocity": np.array([3.0, 4.0]), "effort": np.array([5.0, 6.0])}
    assert reader(fill_joint_state(JointState(), 0, ["a", "b"], **values)).tolist() == [2.0, 3.0, 6.0]


@pytest.mark.parametrize("missing", JOINTS)
def test_missing_joint_of_a_command_is_named_with_topic_and_contract(missing):
    names = [name for name in JOINTS if name != missing]
    with pytest.raises(ContractError) as caught:
        CommandReader(CONTRACT, "joint_commands_raw").joint_command(joint_state(names, [0.0] * 7))
    expected = f"joint_commands_raw lacks {missing}; {SHIPPED} lists it; it has: {names[0]}, "
    assert str(caught.value).startswith(expected)


def test_joint_renamed_in_the_contract_is_missed_by_its_new_name(tmp_path):
    def rename(document):
        document["observation"]["frame"][4]["joint"] = "front_left_hip"

    contract = with_changes(tmp_path, rename)
    values = read("joint_states", joint_state(JOINTS, [0.0] * 8), contract)
    assert np.isnan(values).tolist() == [True] + [False] * 7


def test_joint_state_without_our_joints_holds_nothing():
    assert np.isnan(read("joint_states", JointState())).all()
    assert np.isnan(read("joint_states", joint_state(["gripper"], [0.3]))).all()


def test_joint_that_is_given_twice_is_named():
    with pytest.raises(ContractError, match="joint_states: motor_front_leftL_joint is given 2 times"):
        read("joint_states", joint_state([*JOINTS, JOINTS[0]], [0.0] * 9))


@pytest.mark.parametrize("length", [0, 7])
def test_joint_without_a_value_is_named(length):
    text = f"joint_states: {JOINTS[length]} has no position: {length} values for 8 names"
    with pytest.raises(ContractError, match=text):
        read("joint_states", joint_state(JOINTS, [0.0] * length))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("joint", [0, 7])
def test_position_that_is_not_finite_is_named_with_its_joint(joint, value):
    positions = [0.0] * 8
    positions[joint] = value
    with pytest.raises(
        ContractError, match=f"joint_states: {JOINTS[joint]} is {value} in position, expected a finite number"
    ):
        read("joint_states", joint_state(JOINTS, positions))


def test_unused_joint_may_be_nan():
    assert np.isfinite(read("joint_states", joint_state([*JOINTS, "camera_joint"], [0.0] * 8 + [math.nan]))).all()


@given(st.floats(-1e4, 1e4))
def test_angle_is_wrapped_to_half_a_turn_either_way(angle):
    wrapped = float(wrap_angle(np.array(angle)))
    assert -math.pi <= wrapped <= math.pi
    turns = (angle - wrapped) / (2 * math.pi)
    assert turns == pytest.approx(round(turns), abs=1e-9)
    if -math.pi <= angle < math.pi:
        assert wrapped == angle


# Inertial unit

quaternions = (
    st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4)
    .map(np.array)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: q / np.linalg.norm(q))
)
rates = st.lists(st.floats(-20.0, 20.0), min_size=3, max_size=3)


@given(quaternions, rates)
def test_rates_are_turned_to_the_world_frame(xyzw, body_rates):
    x, y, z, w = xyzw
    expected = rotate_vector(body_rates, (w, x, y, z))
    np.testing.assert_allclose(read("imu", imu(xyzw, body_rates))[2:], expected[:2], rtol=0, atol=1e-12)


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))
def test_roll_and_pitch_are_those_that_the_orientation_was_made_of(roll, pitch, yaw):
    # Half-angle products: independent of the reader's way through the rotation matrix.
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a / 2), math.sin(a / 2)) for a in (roll, pitch, yaw))
    w, x = cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy
    y, z = cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy
    np.testing.assert_allclose(quat2mat((w, x, y, z)), euler2mat(roll, pitch, yaw, "sxyz"), rtol=0, atol=1e-12)
    np.testing.assert_allclose(read("imu", imu((x, y, z, w)))[:2], (roll, pitch), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("orientation", "text"),
    [
        ((0.0, 0.0, 0.0, 0.0), "got norm 0"),
        ((0.0, 0.0, 0.0, 0.5), "got norm 0.5"),
        ((0.0, 0.0, 0.0, 1.02), "got norm 1.02"),
        ((0.0, math.nan, 0.0, 1.0), "got norm nan"),
        ((0.0, math.inf, 0.0, 1.0), "got norm inf"),
    ],
)
def test_orientation_that_is_none_is_refused(orientation, text):
    with pytest.raises(ContractError, match=f"imu/data: no orientation: expected a unit quaternion, {text}"):
        read("imu", imu(orientation))


@pytest.mark.parametrize("quantity", ["orientation", "angular_velocity"])
def test_quantity_that_the_inertial_unit_does_not_measure_is_refused(quantity):
    message = imu()
    getattr(message, f"{quantity}_covariance")[0] = -1.0
    with pytest.raises(ContractError, match=f"imu/data: no {quantity}: its covariance is -1"):
        read("imu", message)


def test_quantity_that_the_contract_does_not_read_may_be_missing(tmp_path):
    message = imu()
    message.linear_acceleration_covariance[0] = -1.0
    assert np.isfinite(read("imu", message)).all()

    def only_tilt(document):
        del document["observation"]["frame"][2:4]

    contract = with_changes(tmp_path, only_tilt)
    message.angular_velocity_covariance[0] = -1.0
    assert read("imu", message, contract).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rate_that_is_not_finite_is_named(value):
    with pytest.raises(ContractError, match=r"imu/data: roll_rate is (nan|inf), expected a finite number"):
        read("imu", imu(rates=(value, 0.0, 0.0)))


# Units and odometry


def test_features_come_in_the_contract_s_units_and_scale(tmp_path):
    def change(document):
        frame = document["observation"]["frame"]
        frame[0] = {"name": "height", "input": "odometry", "field": "position.z", "unit": "m", "scale": 2.0}
        frame[1] = {"name": "vx", "input": "odometry", "field": "linear_velocity.x", "unit": "m/s", "scale": -1.0}
        frame[2]["unit"] = "deg/s"
        del document["incident"][:2]

    contract = with_changes(tmp_path, change)
    odometry = Odometry()
    fill_vector3(odometry.pose.pose.position, (1.0, 2.0, 0.25))
    fill_vector3(odometry.twist.twist.linear, (0.5, 0.0, 0.0))
    assert contract.observed_inputs == ("joint_states", "imu", "odometry")
    assert read("odometry", odometry, contract).tolist() == [0.5, -0.5]
    np.testing.assert_allclose(read("imu", imu(), contract), [math.degrees(0.1), 0.2], rtol=1e-14)


# Commands

actions = st.lists(st.floats(-1.5, 1.5), min_size=8, max_size=8).map(np.array)


@given(actions, st.permutations(range(8)))
def test_command_by_name_means_the_action_that_it_was_made_from(action, order):
    message = fill_joint_command(JointState(), CONTRACT, CONTRACT.joint_command(action), 1)
    message.name = [message.name[i] for i in order]
    message.position = [message.position[i] for i in order]
    reader = CommandReader(CONTRACT, "joint_commands_raw")
    assert reader.joint_command(message).tolist() == CONTRACT.joint_command(action).tolist()
    np.testing.assert_allclose(reader.joint_state(message), action, rtol=0, atol=1e-13)


@given(actions)
def test_forward_command_is_read_in_the_contract_s_order(action):
    joints = CONTRACT.joint_command(action)
    message = fill(Float64MultiArray(), data=joints)
    assert CommandReader(CONTRACT, "forward").array_command(message).tolist() == joints.tolist()


def test_proposal_without_distribution_is_its_own_mean():
    action = np.linspace(-1, 1, 8)
    reader = CommandReader(CONTRACT, "joint_proposals")
    found, mean, std, *rest = reader.proposal(fill(Proposal(), action=action))
    assert (found.tolist(), mean.tolist(), std) == (action.tolist(), action.tolist(), None)
    assert rest == [None, None, False]
    full = fill(Proposal(), contract_id=CONTRACT.id, action=action, mean=-action, std=[0.5] * 8)
    found, mean, std, *_ = reader.proposal(full)
    assert (mean.tolist(), std.tolist()) == ((-action).tolist(), [0.5] * 8)


def test_proposal_keeps_its_support_and_how_its_distribution_is_meant():
    low, high = np.full(8, -0.3), np.linspace(0.1, 0.8, 8)
    message = fill(Proposal(), action=[0.0] * 8, mean=[2.0] * 8, std=[1.0] * 8, low=low, high=high, squashed=True)
    said = CommandReader(CONTRACT, "joint_proposals").proposal(message)
    assert (said.low.tolist(), said.high.tolist(), said.squashed) == (low.tolist(), high.tolist(), True)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "topic: expected 8 values in action, got 0"),
        ({"action": [0.0] * 7}, "topic: expected 8 values in action, got 7"),
        ({"action": [0.0] * 8, "mean": [0.0] * 9}, "topic: expected 8 values in mean, got 9"),
        ({"action": [0.0] * 8, "std": [0.1]}, "topic: expected 8 values in std, got 1"),
        ({"action": [0.0] * 7 + [math.nan]}, "topic: action: back_right_extension is nan"),
        ({"action": [0.0] * 8, "mean": [math.inf] + [0.0] * 7}, "topic: mean: front_left_swing is inf"),
        ({"action": [0.0] * 8, "std": [math.nan] + [0.0] * 7}, "topic: std: front_left_swing is nan"),
        ({"action": [0.0] * 8, "std": [-0.1] * 8}, "topic: std has a negative value"),
        ({"action": [0.0] * 8, "low": [0.0] * 8}, "topic: expected low and high with low at most high"),
        ({"action": [0.0] * 8, "low": [0.1] * 8, "high": [0.0] * 8}, "topic: expected low and high with low at most"),
        ({"action": [0.0] * 8, "low": [math.nan] * 8, "high": [0.0] * 8}, "topic: low: front_left_swing is nan"),
        ({"action": [0.0] * 8, "mean": [0.0] * 8, "squashed": True}, "topic: squashed, but mean or std is empty"),
        ({"action": [0.0] * 8, "contract_id": "spider-1"}, f"topic: made for contract spider-1, this is {CONTRACT.id}"),
    ],
)
def test_proposal_that_does_not_fit_is_refused(fields, text):
    with pytest.raises(ContractError, match=text):
        CommandReader(CONTRACT, "topic").proposal(fill(Proposal(), **fields))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "topic: expected 8 values, one per joint, got 0"),
        ([0.0] * 9, "topic: expected 8 values, one per joint, got 9"),
        ([0.0] * 7 + [math.nan], "topic: motor_back_rightR_joint is nan"),
    ],
)
def test_forward_command_that_does_not_fit_is_refused(data, text):
    with pytest.raises(ContractError, match=text):
        CommandReader(CONTRACT, "topic").array_command(fill(Float64MultiArray(), data=data))
