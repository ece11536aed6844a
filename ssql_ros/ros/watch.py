"""Watches a running graph and says in one line each what matters: the shield's mode, episodes, interventions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.signals import SignalHandlerOptions

from ssql_ros.contract.messages import stamp_of
from ssql_ros.contract.topics import EPISODE_TOPIC, INTERVENTIONS_TOPIC, STATE_TOPIC
from ssql_ros.msg import Episode, ShieldedAction, ShieldState
from ssql_ros.ros.client import Client
from ssql_ros.ros.process import EVENT, LATCHED
from ssql_ros.shield.decision import Decision
from ssql_ros.shield.tick import Mode

PATIENCE = 3.0  # s, for a state of a shield that is there and was never heard
EVERY = 10.0  # s, between two lines on what the shield has done where no episode ends


@dataclass
class Account:
    """What was heard of a run, or of one episode of it."""

    episodes: int = 0
    falls: int = 0
    steps: int = 0
    interventions: int = 0


class Watch(Client):
    """Hears the simulator's episodes and the shield's state and interventions. Use as a context manager.

    Args:
        say: is given each line.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self._say, self._account, self._stamp, self._before = say, Account(), 0, 0
        self._state, self._told, self._told_at = ShieldState(mode=ShieldState.INACTIVE), ShieldState(), time.monotonic()
        super().__init__("watch", signal_handler_options=SignalHandlerOptions.NO)
        self.node.create_subscription(Episode, EPISODE_TOPIC, self._on_episode, LATCHED)
        self.node.create_subscription(ShieldState, STATE_TOPIC, self._on_state, LATCHED)
        self.node.create_subscription(ShieldedAction, INTERVENTIONS_TOPIC, self._on_intervention, EVENT)

    def spin(self, seconds: float) -> None:
        """Hear what comes within `seconds`, or the first of it."""
        super().spin(seconds)
        if time.monotonic() - self._told_at > EVERY:
            self._tell_state()

    def wait_for(self, topic: str, check: Callable[[], None], patience: float = 30.0) -> None:
        """Hear what comes until somebody publishes `topic`, for at most `patience` s; `check` may raise to end it."""
        end, name = time.monotonic() + patience, self.node.resolve_topic_name(topic)
        while not self.node.count_publishers(name) and time.monotonic() < end:
            check()
            self.spin(0.02)

    def summary(self) -> str:
        """Return what the whole run came to, with the last that is on its way here."""
        for _ in range(20):
            super().spin(0.01)
        # On a busy machine Fast DDS may take seconds to bring a shield's first state here.
        end = time.monotonic() + PATIENCE
        while not self._state.ticks and self.node.count_publishers(STATE_TOPIC) and time.monotonic() < end:
            super().spin(0.05)
        heard, state = self._account, self._state
        parts = []
        if heard.episodes:
            parts.append(f"{heard.episodes} episodes, {heard.falls} ended by an incident, {heard.steps} steps")
        if state.ticks:
            changed = state.ticks - state.passed
            parts.append(f"shield: {state.ticks} decisions, {changed} interventions ({changed / state.ticks:.1%})")
        return "; ".join(parts) or "no episode ended and the shield decided nothing"

    def _on_intervention(self, message: ShieldedAction) -> None:
        # Between episodes the shield goes on holding, for an observation that it has decided on before.
        if (stamp := stamp_of(message)) != self._stamp:
            self._stamp = stamp
            self._account.interventions += 1

    def _on_episode(self, message: Episode) -> None:
        heard = self._account
        heard.episodes += 1
        heard.falls += bool(message.incident)
        heard.steps += message.steps
        changed, self._before = heard.interventions - self._before, heard.interventions
        end = f"incident ({message.cause})" if message.incident else "ok"
        self._say(
            f"episode {message.episode + 1:3d}  seed {message.seed:<5d} {message.steps:5d} steps  {end:<26} "
            f"interventions {changed:4d}  incidents so far {heard.falls}"
        )
        self._told, self._told_at = self._state, time.monotonic()

    def _on_state(self, message: ShieldState) -> None:
        before, self._state = self._state, message
        if any(getattr(before, name) != getattr(message, name) for name in ("mode", "bundle_id", "epsilon")):
            mode = Mode(message.mode).name.lower()
            bundle = f", bundle {message.bundle_id}, epsilon {message.epsilon:g}" if message.bundle_id else ""
            self._say(f"shield: {mode}{bundle}")
        if message.latched and not before.latched:
            self._say(f"shield: FAULT latched until shield_node/reset_fault: {message.fault_reason}")
        elif message.incidents > before.incidents and not message.latched:
            self._say(f"shield: incident {message.incidents}, margin now {message.margin:.3g} {message.margin_unit}")
        if message.out_of_domain and not before.out_of_domain:
            far = f"{message.domain_distance:.3g}, limit {message.domain_limit:.3g}"
            self._say(f"shield: out of its critic's domain, distance {far}")

    def _tell_state(self) -> None:
        """Say what the shield has done since the last line, where that is anything."""
        state, told, self._told_at = self._state, self._told, time.monotonic()
        self._told = state
        if state.ticks <= told.ticks:
            told = ShieldState()  # it was started anew
        counts = {d.name.lower(): getattr(state, d.name.lower()) - getattr(told, d.name.lower()) for d in Decision}
        if not (decided := sum(counts.values())):
            return
        passed = counts.pop("passed")
        changed = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no intervention"
        why = f"; last reason: {state.last_reason}" if state.last_reason and decided > passed else ""
        self._say(f"shield: {decided} decisions in {EVERY:g} s: {passed} passed, {changed}{why}")
