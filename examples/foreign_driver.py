"""A driver of a robot that the package does not know: its contract, and what a driver owes the shield.

    python examples/foreign_driver.py --contract-only cart.yaml     # writes the contract below to cart.yaml
    ros2 launch ssql_ros shield.launch.py contract:=cart.yaml bundle:=YOUR_BUNDLE
    python examples/foreign_driver.py

The robot is a cart on a rail, 1 m to either side. The driver publishes its joint at 50 Hz, stamped when it was
measured; takes joint_commands; and stops by itself when no command has come for the contract's command_timeout.
"""

import argparse
import contextlib
import time
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import JointState

CONTRACT = """\
robot: cart
control_period: 0.02        # s
command_timeout: 0.04       # s, the driver stops when no command came for this long
inputs:
  joints: {topic: joint_states, type: sensor_msgs/msg/JointState, max_age: 0.04}
observation:
  trigger: joints
  max_skew: 0.005           # s
  episode_gap: 0.1          # s
  frame:
    - {name: x, input: joints, field: position, joint: rail, unit: rad}       # of the drive, 1 rad a metre
    - {name: v, input: joints, field: velocity, joint: rail, unit: rad/s}
  vector: [{block: frame}]
action:
  elements: [{name: push, low: -1.0, high: 1.0}]
  command: {topic: joint_commands, type: sensor_msgs/msg/JointState, field: velocity, unit: rad/s}
  joints: [{name: rail, offset: 0.0, sum: {push: 0.5}}]
incident: [{feature: x, above: 1.0, below: -1.0, unit: rad}]
safe_action: zero
"""
PERIOD, TIMEOUT = 0.02, 0.04  # s, as above


class CartDriver(Node):
    """Measures, publishes, obeys, and stops on silence."""

    def __init__(self) -> None:
        super().__init__("cart_driver")
        self.x, self.v = 0.0, 0.0
        self.stopped = True
        self._wanted, self._heard = 0.0, -TIMEOUT
        # Sensors best effort; commands reliable and depth 1: only the newest counts.
        self._sensors = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(JointState, "joint_commands", self._on_command, newest)
        self.create_timer(PERIOD, self._tick)

    def _on_command(self, message: JointState) -> None:
        # By name, never by position: the shield names every joint.
        self._wanted = message.velocity[list(message.name).index("rail")]
        self._heard = time.monotonic()  # steady: it goes on when the system's clock is set

    def _tick(self) -> None:
        self.stopped = time.monotonic() - self._heard > TIMEOUT
        self.v = 0.0 if self.stopped else self._wanted
        self.x += self.v * PERIOD
        message = JointState(name=["rail"], position=[float(self.x)], velocity=[float(self.v)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._sensors.publish(message)


def main() -> None:
    """Run the driver until it is told to stop, or write the contract."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contract-only", type=Path, metavar="FILE", help="write the contract and end")
    given = parser.parse_args()
    if given.contract_only:
        given.contract_only.write_text(CONTRACT)
        return
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(CartDriver())


if __name__ == "__main__":
    main()
