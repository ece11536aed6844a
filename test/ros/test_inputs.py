"""Messages in an encoding that is read by rclpy: what is no message is an error of the contract's, not rmw's."""

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

from ssql_ros.contract import ContractError
from ssql_ros.ros.inputs import parser_of

KIND = "sensor_msgs/msg/JointState"


@pytest.mark.parametrize("encoding", [b"\0\0", b"\0\x80", b"\xff\xff"])
def test_bytes_in_another_encoding_that_are_no_message_are_refused(encoding):
    data = encoding + serialize_message(JointState(name=["a"], position=[1.0]))[2:]
    with pytest.raises(ContractError, match="is not a whole message"):
        parser_of(KIND)(data)
