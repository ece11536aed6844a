"""A robot's behaviour as a node: a scripted controller, or a safe behaviour policy, with noise on top where wanted.

Bounded noise makes of a safe script a behaviour policy; strong unbounded noise makes it a controller that is not to be
trusted. It knows nothing of a shield: it publishes what any controller would, and remapping does the rest.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ssql_ros.model.policy import ServedPolicy
from ssql_ros.nodes.answering import OUTPUT, AnsweringNode
from ssql_ros.nodes.answering import PARAMETERS as ANSWERING
from ssql_ros.robots.noise import Noise, NoisyController
from ssql_ros.robots.plug import find_behaviour
from ssql_ros.ros.parameters import Parameter
from ssql_ros.ros.process import run_node

PARAMETERS = (
    *ANSWERING,
    Parameter(
        "behaviour",
        "",
        "a controller of the robot, a task whose safe behaviour policy it is, or path of a bundle that holds one; "
        "empty: the robot's first",
        fixed=True,
    ),
    Parameter("sigma", 0.0, "standard deviation of the noise, action units; 0: none", low=0.0, high=2.0),
    Parameter("rho", 0.0, "correlation of the noise from one step to the next", low=0.0, high=0.999),
    Parameter("bound", 2.0, "largest deviation that is noise, action units; 2 bounds nothing", low=1e-6, high=2.0),
    Parameter("listeners", 1, "how many must listen to the answers before the first is sent", 0, 100, fixed=True),
    replace(OUTPUT, default="command"),
)


class BehaviourNode(AnsweringNode):
    """Answers each observation as its behaviour does; parameters of the noise count from the next episode on."""

    def __init__(self) -> None:
        super().__init__("behaviour_node", PARAMETERS)
        self._base = self._policy

    def _load(self) -> tuple[ServedPolicy, str]:
        name = self.value_of("behaviour")
        return find_behaviour(name, self.contract), f"behaviour {name or 'of the robot'}"

    @property
    def _pending(self) -> bool:
        publisher = self._commands if self.value_of("output") == "command" else self._proposals
        heard = self._answered is not None or publisher.get_subscription_count() >= self.value_of("listeners")
        return heard and super()._pending

    def _begin_episode(self) -> None:
        self._policy = self._base
        if sigma := self.value_of("sigma"):
            bound = self.value_of("bound")
            noise = Noise(self._source, sigma, self.value_of("rho"), math.inf if bound >= 2.0 else bound)
            self._policy = NoisyController(self._base, noise, self.contract.action_size)
        super()._begin_episode()


def main() -> int:
    """Run the node."""
    return run_node(BehaviourNode)
