"""Leads a running graph through episodes: sets modes and seeds, asks for resets, and hears how each one went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from ssql_ros.contract.messages import stamp_of
from ssql_ros.contract.topics import ACCOUNT_TOPIC, EPISODE_TOPIC
from ssql_ros.msg import Episode, ShieldedAction
from ssql_ros.ros.client import Client
from ssql_ros.ros.process import EVENT, LATCHED

# s without an answer, after which a service is asked once more. A server may answer before it knows of its asker's
# reader; Fast DDS then drops the answer after 100 ms, which a busy machine needs (ros2/rmw_fastrtps#842).
ASK_AGAIN = 10.0
RESULTS = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
}


class ConductorError(RuntimeError):
    """The graph did not do what it was asked for in time; the text says what."""


@dataclass
class EpisodeHeard:
    """What was heard of one episode: its end, and for each step the decision and its time in s."""

    seed: int = 0
    steps: int = 0
    incident: bool = False
    cause: str = ""
    decisions: list[int] = field(default_factory=list)
    decision_times: list[float] = field(default_factory=list)


class Conductor(Client):
    """A client of the simulator's, the controller's and the shield's services. Use as a context manager.

    Args:
        check: called while waiting; raises when the graph is broken.
        patience: s, how long anything may take.
        controller: the node that drives the robot, and has a parameter `seed`.
    """

    def __init__(self, check: Callable[[], None], patience: float = 60.0, controller: str = "behaviour_node") -> None:
        self._check, self._patience, self._controller = check, patience, controller
        # Signals are the command's: it ends the graph in order.
        super().__init__("conductor", signal_handler_options=SignalHandlerOptions.NO)
        self._ended: list[Episode] = []
        self._heard, self._stamp, self._active = EpisodeHeard(), 0, False
        self._clients: dict[str, Any] = {}
        self.node.create_subscription(Episode, EPISODE_TOPIC, self._ended.append, LATCHED)
        self.node.create_subscription(ShieldedAction, ACCOUNT_TOPIC, self._on_account, EVENT)

    def _on_account(self, message: ShieldedAction) -> None:
        # Between episodes the shield goes on holding, for an observation that it has decided on before.
        stamp = stamp_of(message)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._heard.decisions.append(message.decision)
        self._heard.decision_times.append(message.decision_time)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Serve callbacks until `condition()` is true and return its value. Raises ConductorError."""
        end = time.monotonic() + self._patience
        while not (value := condition()):
            if time.monotonic() > end:
                raise ConductorError(f"{what}: nothing for {self._patience:g} s")
            self._check()
            self.spin(0.05)
        return value

    def _call(self, kind: Any, service: str, request: Any) -> Any:
        """Return a service's answer to what may be asked twice."""
        client = self._clients.get(service) or self.node.create_client(kind, service)
        self._clients[service] = client
        self.wait(client.service_is_ready, f"service {service}")
        futures, asked = [client.call_async(request)], time.monotonic()

        def answer() -> Any:
            nonlocal asked
            if time.monotonic() > asked + ASK_AGAIN:
                asked = time.monotonic()
                futures.append(client.call_async(request))
            return next((future for future in futures if future.done()), None)

        return self.wait(answer, f"answer of {service}").result()

    def set_parameters(self, node: str, **values: Any) -> None:
        """Set parameters of a node. Raises ConductorError when it refuses one."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self._call(SetParameters, f"{node}/set_parameters", SetParameters.Request(parameters=parameters))
        for result in answer.results:
            if not result.successful:
                raise ConductorError(f"{node} refuses {values}: {result.reason}")

    def configure_shield(self) -> None:
        """Bring the shield from unconfigured to inactive: its topics are there, it commands nothing yet."""
        if not self._transition(Transition.TRANSITION_CONFIGURE):
            raise ConductorError("the shield cannot configure; its log says why")

    def _activate_shield(self) -> None:
        """Bring the shield from inactive to active, which it refuses until it has seen the robot."""
        self.wait(lambda: self._transition(Transition.TRANSITION_ACTIVATE), "the shield to activate")

    def _transition(self, number: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=number))
        if self._call(ChangeState, "shield_node/change_state", request).success:
            return True
        # Asked twice, the second is refused where the first has succeeded.
        state = self._call(GetState, "shield_node/get_state", GetState.Request()).current_state.id
        return bool(state == RESULTS[number])

    def wait_for_listener(self, listener: str, topics: list[str]) -> None:
        """Wait until node `listener` subscribes to all of `topics`."""

        def listens(topic: str) -> bool:
            name = self.node.resolve_topic_name(topic)
            return any(info.node_name == listener for info in self.node.get_subscriptions_info_by_topic(name))

        self.wait(lambda: all(map(listens, topics)), f"{listener} to listen to {', '.join(topics)}")

    def episodes(self, mode: str, seed: int, count: int) -> Iterator[EpisodeHeard]:
        """Run `count` episodes in a shield mode from `seed` on; yield each when it has ended.

        The simulator waits between episodes; it must run with auto_reset false.
        """
        self.set_parameters("shield_node", mode=mode)
        for node in (self._controller, "sim_node"):
            self.set_parameters(node, seed=seed)
        for _ in range(count):
            self._ended.clear()
            self._heard = EpisodeHeard()
            self._call(Trigger, "sim_node/reset", Trigger.Request())
            if not self._active:
                # Only now: the first command starts the clock of the simulation.
                self._activate_shield()
                self._active = True
            self.wait(self._complete, "the end of an episode with its account")
            end, heard = self._ended[-1], self._heard
            heard.seed, heard.steps, heard.incident, heard.cause = end.seed, end.steps, end.incident, end.cause
            yield heard

    def unshielded_episodes(self, count: int) -> Iterator[Episode]:
        """Yield the end of each of `count` episodes of a controller that drives without a shield, from its first on.

        The simulator waits between episodes; it must run with auto_reset false.
        """
        for number in range(count):
            if number:
                self._ended.clear()
                self._call(Trigger, "sim_node/reset", Trigger.Request())
            self.wait(lambda: self._ended, "the end of an episode")
            yield self._ended[-1]

    @property
    def newest(self) -> Episode:
        """Return what the simulator said of the episode that ended last."""
        return self._ended[-1]

    def _complete(self) -> bool:
        # The last accounts may still be on their way when the episode's end has come.
        # Some may be lost where this process gets too little of the processor; the newest are not.
        if not self._ended:
            return False
        return len(self._heard.decisions) >= self._ended[-1].steps or self._stamp >= stamp_of(self._ended[-1])
