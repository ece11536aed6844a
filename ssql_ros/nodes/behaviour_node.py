"""The scripted trot with noise as a node: answers every joint state with a command or a proposal.

Bounded noise makes it a safe-support behaviour policy; strong unbounded noise makes it a controller that is not to be
trusted. It knows nothing of a shield: it publishes what any controller would, and remapping does the rest.
"""

from __future__ import annotations

import math

import numpy as np
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import JointState

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.contract.messages import fill, fill_joint_command, set_stamp, stamp_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.msg import Proposal
from ssql_ros.robots.minitaur.noisy_trot import NoiseSettings, NoisyTrot
from ssql_ros.robots.minitaur.trot import GAITS
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import COMMAND, SENSOR, run_node

PARAMETERS = (
    Parameter("contract", "minitaur", "robot name or path of its contract YAML", fixed=True),
    Parameter("gait", "A", "gait of the trot family", choices=tuple(GAITS)),
    Parameter("sigma", 0.1, "standard deviation of the noise, action units", low=0.0, high=2.0),
    Parameter("rho", 0.0, "correlation of the noise from one step to the next", low=0.0, high=0.999),
    Parameter("bound", 0.3, "largest deviation from the trot, action units; 2 bounds nothing", low=1e-6, high=2.0),
    Parameter("seed", 0, "seed of the next episode's noise; goes up by one with each episode", low=0, high=2**31 - 1),
    Parameter("output", "command", "publish joint_commands_raw, or joint_proposals", choices=("command", "proposal")),
)


class BehaviourNode(Node):
    """Answers each joint state; a gap in the stamps begins a new episode, with the next seed."""

    def __init__(self) -> None:
        super().__init__("behaviour_node")
        self.value_of = declare(self, PARAMETERS)
        self.contract = load_contract(find_contract(self.value_of("contract")))
        self._gap = round(self.contract.observed.episode_gap * NANOSECONDS)
        self._stamp: int | None = None
        self._trot = NoisyTrot(NoiseSettings())
        self._action = np.zeros(self.contract.action_size)
        self._commands = self.create_publisher(JointState, "joint_commands_raw", COMMAND)
        self._proposals = self.create_publisher(Proposal, "joint_proposals", COMMAND)
        topic = self.contract.inputs[self.contract.observed.trigger].topic
        self.create_subscription(JointState, topic, self._on_joint_state, SENSOR)

    def _on_joint_state(self, message: JointState) -> None:
        stamp = stamp_of(message)
        # An observation told again gets the same answer again: the first may have reached nobody.
        if stamp != self._stamp:
            if self._stamp is None or not 0 < stamp - self._stamp <= self._gap:
                self._trot = self._new_episode()
            self._stamp = stamp
            self._action = self._trot.next()
        self._answer(self._action, stamp)

    def _new_episode(self) -> NoisyTrot:
        seed = self.value_of("seed")
        bound = self.value_of("bound")
        settings = NoiseSettings(
            gait=self.value_of("gait"),
            sigma=self.value_of("sigma"),
            rho=self.value_of("rho"),
            bound=math.inf if bound >= 2.0 else bound,
        )
        trot = NoisyTrot(settings)
        trot.reset(seed)
        self.set_parameters([RosParameter("seed", value=seed + 1)])
        return trot

    def _answer(self, action: np.ndarray, stamp: int) -> None:
        if self.value_of("output") == "command":
            joints = self.contract.joint_command(action)
            self._commands.publish(fill_joint_command(JointState(), self.contract, joints, stamp))
            return
        proposal = fill(
            Proposal(),
            contract_id=self.contract.id,
            source="noisy_trot",
            action=action,
            mean=self._trot.mean,
            std=[self._trot.settings.sigma] * len(action),
        )
        set_stamp(proposal, stamp)
        self._proposals.publish(proposal)


def main() -> int:
    """Run the node."""
    return run_node(BehaviourNode)
