"""What the shields of a ROS domain do, as numbers: for a view of it, and for machines. Hears, and publishes nothing."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from ssql_ros.contract.topics import ACCOUNT_TOPIC, STATE_TOPIC
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.ros.client import Client
from ssql_ros.ros.graph_watch import node_of
from ssql_ros.ros.process import LATCHED
from ssql_ros.shield.decision import Decision
from ssql_ros.shield.tick import Mode

RECENT = 10.0  # s, that counts and times are of
KEPT = 240  # scores that are shown
REASONS = 8  # that are remembered
LOOK = 1.0  # s, between two looks at the graph
# A view must not slow a shield down: what it misses, it misses.
HEARD = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass
class Robot:
    """What is known of one shield.

    Attributes:
        namespace: of the robot, from its `/` on.
        state: the newest; None before the first.
        scores: of the newest proposals: Q_safe, or Q_c where the rule is margins.
        accounts: of the newest decisions: when they came, s; decision; time that it took, s.
        reasons: the newest, with how often each came in a row.
        topics: who publishes and who hears each, by the topic's name.
    """

    namespace: str
    state: ShieldState | None = None
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    accounts: deque[tuple[float, Decision, float]] = field(default_factory=lambda: deque(maxlen=20_000))
    reasons: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=REASONS))
    taken_over: bool = False
    topics: dict[str, tuple[str, list[str], list[str]]] = field(default_factory=dict)

    def take(self, account: Any, now: float) -> None:
        """Take in a decision (ShieldedAction) at `now`, s."""
        decision = Decision(account.decision)
        self.accounts.append((now, decision, float(account.decision_time)))
        self.scores.append(float(account.q_safe_proposal))
        self.taken_over = bool(account.taken_over)
        if not account.reason:
            return
        reason = f"{decision.name.lower()}: {account.reason}"
        times = self.reasons[0][1] + 1 if self.reasons and self.reasons[0][0] == reason else 1
        if times > 1:
            self.reasons.popleft()
        self.reasons.appendleft((reason, times))

    def recent(self, now: float) -> list[tuple[float, Decision, float]]:
        """Return the accounts of the last ten seconds."""
        while self.accounts and now - self.accounts[0][0] > RECENT:
            self.accounts.popleft()
        return list(self.accounts)

    def summary(self, now: float) -> dict[str, Any]:
        """Return it all as numbers and texts, for JSON; what is not known is None."""
        recent, state = self.recent(now), self.state
        times = 1e3 * np.array([seconds for _, _, seconds in recent])
        span = max(1e-9, min(RECENT, now - recent[0][0])) if recent else math.inf
        counts = Counter(decision.name.lower() for _, decision, _ in recent)
        score = self.scores[-1] if self.scores else math.nan
        told = {
            "mode": None if state is None else Mode(state.mode).name.lower(),
            "bundle": None if state is None else state.bundle_id,
            "contract": None if state is None else state.contract_id,
            "epsilon": None if state is None or math.isnan(state.epsilon) else state.epsilon,
            "delta": None if state is None or math.isnan(state.delta) else state.delta,
            "fault": None if state is None or not state.latched else state.fault_reason,
            "incidents": None if state is None else state.incidents,
            "margin": None if state is None or math.isnan(state.margin) else state.margin,
            "out_of_domain": None if state is None else state.out_of_domain,
            "missed_periods": None if state is None else state.missed_periods,
        }
        return {
            "namespace": self.namespace,
            **told,
            "taken_over": self.taken_over,
            "rate_hz": len(recent) / span if recent else 0.0,
            "decision_ms_p50": float(np.median(times)) if len(times) else None,
            "decision_ms_p99": float(np.percentile(times, 99)) if len(times) else None,
            "q_safe": None if math.isnan(score) else score,
            "decisions": dict(counts),
            "reason": self.reasons[0][0] if self.reasons else None,
        }


class Overview(Client):
    """Finds every shield of the domain, or those of some namespaces, and hears them. Use as a context manager.

    Args:
        namespaces: whose; empty: all that there are.
    """

    def __init__(self, namespaces: list[str]) -> None:
        super().__init__("ssql_watch", signal_handler_options=SignalHandlerOptions.NO)
        self._only = {f"/{name.strip('/')}" for name in namespaces}
        self.robots: dict[str, Robot] = {}
        self._looked = -math.inf

    def hear(self, seconds: float) -> None:
        """Take in what comes within `seconds`, and look at the graph now and then."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now - self._looked >= LOOK:
                self._looked = now
                self._look()
            self.spin(min(0.05, max(0.0, end - now)))

    def _look(self) -> None:
        kinds = dict(self.node.get_topic_names_and_types())
        for name in kinds:
            if name.endswith(f"/{STATE_TOPIC}"):
                namespace = name[: -len(STATE_TOPIC) - 1] or "/"
                if namespace not in self.robots and (not self._only or namespace in self._only):
                    self._follow(namespace)
        for namespace, robot in self.robots.items():
            prefix = namespace.rstrip("/") + "/"
            robot.topics = {
                name: (types[0], *self._ends(name))
                for name, types in sorted(kinds.items())
                if name.startswith(prefix) and (namespace != "/" or not self._others(name))
            }

    def _others(self, name: str) -> bool:
        return any(name.startswith(f"{other}/") for other in self.robots if other != "/")

    def _ends(self, name: str) -> tuple[list[str], list[str]]:
        own = self.node.get_fully_qualified_name()
        sides = self.node.get_publishers_info_by_topic(name), self.node.get_subscriptions_info_by_topic(name)
        publishers, hearers = (sorted({node_of(info) for info in side} - {own}) for side in sides)
        return publishers, hearers

    def _follow(self, namespace: str) -> None:
        robot = self.robots[namespace] = Robot(namespace)
        prefix = namespace.rstrip("/") + "/"

        def on_state(state: ShieldState) -> None:
            robot.state = state

        self.node.create_subscription(ShieldState, f"{prefix}{STATE_TOPIC}", on_state, LATCHED)
        take = lambda account: robot.take(account, time.monotonic())  # noqa: E731
        self.node.create_subscription(ShieldedAction, f"{prefix}{ACCOUNT_TOPIC}", take, HEARD)
