"""Commands that move several joints, limits of joints, and poses in a stated frame: what a contract says of them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from hypothesis import given
from hypothesis import strategies as st
from transforms3d.euler import euler2quat

from ssql_ros.contract import ContractError, ObservationAssembler, load_contract
from ssql_ros.contract.leaps import LeapRule
from ssql_ros.contract.messages import InputReader, fill_quaternion, fill_vector3
from ssql_ros.contract.readings import Frame, Source
from ssql_ros.shield.command_source import CommandSource

YAML = """
robot: gripper
control_period: 0.04
command_timeout: 0.1
inputs:
  joints: {topic: joint_states, type: sensor_msgs/msg/JointState, max_age: 0.04}
  cup: {topic: cup_pose, type: geometry_msgs/msg/PoseStamped, max_age: 0.1, frame_id: palm, max_speed: 2.0}
observation:
  trigger: joints
  max_skew: 0.01
  episode_gap: 0.2
  frame:
    - {name: near, input: joints, field: position, joint: near, unit: rad}
    - {name: middle, input: joints, field: position, joint: middle, unit: deg}
    - {name: far, input: joints, field: position, joint: far, unit: rad, scale: -1}
    - {name: z, input: cup, field: position.z, unit: m}
    - {name: roll, input: cup, field: orientation.roll, unit: rad}
    - {name: pitch, input: cup, field: orientation.pitch, unit: rad}
    - {name: yaw, input: cup, field: orientation.yaw, unit: rad}
  vector: [{block: frame}]
action:
  elements: [{name: bend, low: -1.0, high: 1.0}, {name: curl, low: -1.0, high: 1.0}]
  command: {topic: commands, type: sensor_msgs/msg/JointState, field: position, unit: rad, max_rate: 3.0}
  joints:
    - {name: near, offset: 0.5, sum: {bend: 0.5}, lower: 0.0, upper: 1.0, velocity: 1.0, effort: 0.9}
    - {name: tip, offset: 1.5, sum: {curl: 1.5}, couples: [middle, far], lower: 0.0, upper: 3.0}
incident: [{feature: z, below: 0.0, unit: m}]
safe_action: hold
"""


@pytest.fixture
def written(tmp_path: Path):
    def write(*changes: tuple[str, str]):
        text = YAML
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "contract.yaml"
        path.write_text(text)
        return load_contract(path)

    return write


angles = st.floats(-1.4, 1.4)


def test_a_coupled_command_is_measured_as_the_sum_of_its_joints(written):
    contract = written()
    assert contract.commanded.moved == (("near",), ("middle", "far"))

    @given(angles, angles, angles)
    def holds(near, middle, far):
        frame = np.array([near, math.degrees(middle), -far, 0.1, 0.0, 0.0, 0.0])
        command = contract.measured_command(frame, np.zeros(2))
        np.testing.assert_allclose(command, [near, middle + far], atol=1e-12)

    holds()


def test_one_joint_of_a_pair_that_is_not_measured_leaves_the_pose_unknown(written):
    contract = written(("joint: far", "joint: other"))
    assert contract.measured_command(np.zeros(7), np.zeros(2)) is None


def test_coupling_and_frame_are_part_of_what_vectors_mean_and_limits_and_topics_are_not(written):
    identity = written().id
    assert written(("couples: [middle, far]", "couples: [middle, far, near2]")).id != identity
    assert written((", couples: [middle, far]", "")).id != identity
    assert written(("frame_id: palm", "frame_id: world")).id != identity
    assert written(("effort: 0.9", "effort: 0.8"), ("velocity: 1.0", "velocity: 2.0")).id == identity
    assert written(("topic: cup_pose", "topic: mug_pose")).id == identity


def test_what_moves_slower_than_the_rest_is_bounded_by_its_own_velocity(written):
    contract = written()
    np.testing.assert_array_equal(contract.commanded.fastest, [1.0, 3.0])
    source = CommandSource(contract)
    source.measured(np.zeros(7))
    np.testing.assert_allclose(source.limited(np.ones(2)), [0.04, 0.12])
    unbounded = replace(contract, commanded=replace(contract.commanded, max_rate=math.inf))
    source = CommandSource(unbounded)
    source.measured(np.zeros(7))
    np.testing.assert_allclose(source.limited(np.ones(2)), [0.04, 1.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("couples: [middle, far]", "couples: [middle]")], "at least 2 names"),
        ([("couples: [middle, far]", "couples: [middle, near]")], "'near' is moved by two commands"),
        ([("couples: [middle, far]", "couples: [middle, middle]")], "'middle' is moved by two commands"),
        ([("upper: 1.0", "upper: 0.9")], r"joints\[0\].upper: the action's bounds command from 0 to 1"),
        ([("lower: 0.0, upper: 3.0", "lower: 0.5, upper: 3.0")], r"joints\[1\].lower: .* from 0 to 3"),
        ([("velocity: 1.0", "velocity: 0")], "above 0"),
        ([("effort: 0.9", "effort: -1")], "above 0"),
        ([("max_age: 0.04}", "max_age: 0.04, frame_id: palm}")], "frame_id: is for a geometry_msgs"),
    ],
)
def test_what_cannot_be_meant_is_refused(written, changes, message):
    with pytest.raises(ContractError, match=message):
        written(*changes)


def pose(frame_id: str = "palm", position=(0.0, 0.0, 0.1), orientation=(0.0, 0.0, 0.0, 1.0)) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = frame_id
    fill_vector3(message.pose.position, position)
    fill_quaternion(message.pose.orientation, orientation)
    return message


def test_a_pose_is_read_as_a_position_and_roll_pitch_yaw(written):
    contract = written()
    read = InputReader(contract, contract.inputs["cup"])

    @given(st.floats(-3.0, 3.0), angles, st.floats(-3.0, 3.0), st.floats(-1.0, 1.0))
    def holds(roll, pitch, yaw, z):
        w, x, y, z_ = euler2quat(roll, pitch, yaw)
        np.testing.assert_allclose(
            read(pose(position=(9.0, 9.0, z), orientation=(x, y, z_, w))), [z, roll, pitch, yaw], atol=1e-9
        )

    holds()


def test_a_pose_in_another_frame_without_orientation_or_not_finite_is_refused(written):
    contract = written()
    read = InputReader(contract, contract.inputs["cup"])
    with pytest.raises(ContractError, match=r"cup_pose: expected a pose in frame 'palm', got one in 'world'"):
        read(pose("world"))
    with pytest.raises(ContractError, match="unit quaternion"):
        read(pose(orientation=(0.0, 0.0, 0.0, 0.0)))
    with pytest.raises(ContractError, match="z is nan"):
        read(pose(position=(0.0, 0.0, math.nan)))
    anywhere = written((", frame_id: palm", ""))
    assert InputReader(anywhere, anywhere.inputs["cup"])(pose("world")) == pytest.approx([0.1, 0.0, 0.0, 0.0])


def test_a_pose_that_is_put_elsewhere_leaps_and_one_that_turns_fast_does_not(written):
    rule, sources = LeapRule(written()), [Source(name, np.arange(1), None) for name in ("joints", "cup")]

    def frame(stamp: int, z: float = 0.1, roll: float = 0.0) -> Frame:
        held = [(source, stamp, 0.0) for source in sources]
        return Frame(stamp, stamp, 1, values=np.array([0.0, 0.0, 0.0, z, roll, 0.0, 0.0]), held=held)

    assert rule.find(frame(0), frame(40_000_000, z=0.15)) == ""
    assert "z moved by 0.2 m" in rule.find(frame(0), frame(40_000_000, z=0.3))
    # The position's speed says nothing of the orientation.
    assert rule.find(frame(0), frame(40_000_000, roll=1.0)) == ""
    assert "roll and pitch and yaw moved by 3" in rule.find(frame(0), frame(40_000_000, roll=3.0))


def test_joint_states_at_125_hz_make_frames_at_the_control_rate_with_the_newest_pose(written):
    contract = written()
    assembler = ObservationAssembler(contract)
    frames = []
    for k in range(250):
        stamp = 1_000_000_000 + 8_000_000 * k
        if k % 2 == 0:  # a tracker of 62.5 Hz
            assembler.read("cup", stamp, 0.0, np.array([0.1 + k * 1e-4, 0.0, 0.0, 0.0]))
        if assembler.read("joints", stamp, 0.0, np.array([0.001 * k, 0.0, 0.0])):
            frames.append((assembler.stamp, *assembler.frame[[0, 3]]))
    stamps, joints, heights = np.array(frames).T
    assert len(frames) == 50
    np.testing.assert_array_equal(np.diff(stamps), 40_000_000)
    newest = np.round(joints / 0.001)
    assert (np.abs((heights - 0.1) / 1e-4 - newest) <= 1 + 1e-6).all()
