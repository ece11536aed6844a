"""Commands are serialised as rclpy does it, number by number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.contract.messages import fill_joint_command
from ssql_ros.nodes.command_writer import LATEST, CommandWriter

CONTRACT = load_contract(find_contract("minitaur"))
WRITERS = {forward: CommandWriter(CONTRACT, forward) for forward in (False, True)}
JOINTS = st.lists(st.floats(allow_nan=False), min_size=8, max_size=8).map(np.array)


@settings(deadline=None)
@given(JOINTS, st.integers(0, LATEST - 1))
def test_a_joint_command_is_the_message_that_rclpy_would_send(joints, stamp):
    # Not byte by byte: what lies between the fields to align them is not set.
    assert deserialize_message(WRITERS[False](joints, stamp), JointState) == fill_joint_command(
        JointState(), CONTRACT, joints, stamp
    )


@settings(deadline=None)
@given(JOINTS)
def test_an_array_holds_the_numbers_alone(joints):
    message = deserialize_message(WRITERS[True](joints, 0), WRITERS[True].type)
    assert message.data.tolist() == joints.tolist()


@pytest.mark.parametrize("stamp", [-1, LATEST, 2**63])
def test_a_stamp_that_no_message_can_say_is_left_out(stamp):
    message = deserialize_message(WRITERS[False](np.zeros(8), stamp), JointState)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)
