"""A pilot of the boat as a node: answers every position with a command, and knows nothing of a shield."""

from __future__ import annotations

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import JointState

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.contract.messages import fill_joint_command, stamp_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.data.random_streams import Stream
from ssql_ros.robots.boat.pilots import PILOTS, Pilots, boat_chart
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import COMMAND, SENSOR, run_node

TURNS = "turns"
PARAMETERS = (
    Parameter("pilot", TURNS, "which pilot; turns: another with each episode", choices=(TURNS, *PILOTS)),
    Parameter("seed", 0, "of the next episode's skill and errors; goes up by one with each", low=0, high=2**31 - 1),
    Parameter("listeners", 1, "how many must listen to the commands before the first is sent", 1, 100, fixed=True),
    Parameter("output_topic", "joint_commands_raw", "where commands go; joint_commands: past the shield", fixed=True),
)


class PilotNode(Node):
    """Answers each position; a gap in the stamps begins a new episode, with the next seed."""

    def __init__(self) -> None:
        super().__init__("pilot_node")
        self.value_of = declare(self, PARAMETERS)
        self.contract = load_contract(find_contract("boat"))
        self._gap = round(self.contract.observed.episode_gap * NANOSECONDS)
        self._stamp: int | None = None
        self._chart = boat_chart()
        self._pilots = self._new_episode()
        self._action = np.zeros(2)
        self._commands = self.create_publisher(JointState, self.value_of("output_topic"), COMMAND)
        self.create_subscription(Odometry, self.contract.inputs["odometry"].topic, self._on_position, SENSOR)

    def _on_position(self, message: Odometry) -> None:
        if self._stamp is None and self._commands.get_subscription_count() < self.value_of("listeners"):
            return
        stamp = stamp_of(message)
        # An observation told again gets the same answer again: the first may have reached nobody.
        if stamp != self._stamp:
            if self._stamp is not None and not 0 < stamp - self._stamp <= self._gap:
                self._pilots = self._new_episode()
            self._stamp = stamp
            place = message.pose.pose.position
            self._action = self._pilots.act(np.array([[place.x, place.y]]))[0].copy()
        joints = self.contract.joint_command(self._action)
        self._commands.publish(fill_joint_command(JointState(), self.contract, joints, stamp))

    def _new_episode(self) -> Pilots:
        seed, pilot = self.value_of("seed"), self.value_of("pilot")
        kind = seed % len(PILOTS) if pilot == TURNS else PILOTS.index(pilot)
        self.set_parameters([RosParameter("seed", value=seed + 1)])
        return Pilots(self._chart, np.array([kind]), Stream.PILOT_NODE.generator(seed))


def main() -> int:
    """Run the node."""
    return run_node(PilotNode)
