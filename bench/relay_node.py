"""A bare relay: the peer that the shield's latency is measured against.

It subscribes to what the shield node subscribes to, of the same types and QoS and in the same executor, and does the
least that a node between a controller and a driver can do: a command that comes in goes out.
"""

from __future__ import annotations

import sys
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState

from ssql_ros.ros.process import COMMAND, SENSOR, run_node


class RelayNode(Node):
    """Passes commands on and takes in sensors, as a shield without a thought."""

    def __init__(self) -> None:
        super().__init__("relay_node")
        command = self.create_publisher(JointState, "joint_commands", COMMAND)
        self.create_subscription(Imu, "imu/data", self._ignore, SENSOR)
        self.create_subscription(JointState, "joint_states", self._ignore, SENSOR)
        self.create_subscription(JointState, "joint_commands_raw", command.publish, COMMAND)

    def _ignore(self, message: Any) -> None:
        pass


if __name__ == "__main__":
    sys.exit(run_node(RelayNode))
