"""What a shield says of itself: its latched state, /diagnostics, and a line on the console for every change."""

from __future__ import annotations

import math
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from ssql_ros.contract.messages import fill, set_stamp
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.contract.topics import OWN_STATE
from ssql_ros.model.bundle import MarginCritic
from ssql_ros.msg import ShieldState
from ssql_ros.nodes.shield_control import ShieldControl, threshold_fields
from ssql_ros.nodes.shield_facts import fallen_at, supervised_fields, supervised_values
from ssql_ros.ros.diagnostics import Diagnostics
from ssql_ros.ros.graph_watch import GraphWatch
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.process import LATCHED
from ssql_ros.shield.critic_limits import in_words
from ssql_ros.shield.decision import Decision
from ssql_ros.shield.tick import Mode, Tick

HISTORY = 10  # changes that /diagnostics goes on to show
SUMMARY = 10.0  # s, between two lines about interventions
REMIND = 30.0  # s, between two lines that say what an inactive shield waits for
NEWS = (Decision.HELD, Decision.LEAST_RISK, Decision.BACKUP, Decision.FAULT)
LOSSES = 0.1  # share of decisions on an old proposal from which it is worth a warning


class ShieldReport:
    """Publishes state and diagnostics of one shield, at once on a change.

    Args:
        node: whose topics, clock and log are used.
        contract_id: of the contract in force.
    """

    def __init__(self, node: Any, contract_id: str, guard: Guard) -> None:
        self._node, self._contract_id, self._guard = node, contract_id, guard
        self._state = node.create_publisher(ShieldState, OWN_STATE, LATCHED)
        self._diagnostics = Diagnostics(node, "shield", self._describe)
        self._control: ShieldControl | None = None
        self._watch: GraphWatch | None = None
        # Replaced and never changed: the tick's thread adds to it while another describes.
        self._changes: tuple[str, ...] = ()
        self._said = ""  # newest change, without its figures
        self._counted: dict[Decision, int] = {}
        self._answered = self._unanswered = self._incidents = 0
        self._summary_at = self._reminded_at = 0.0
        self._reminded = ""  # what it waited for when that was last told, without its figures
        self._taken_over = False
        self._waited = ""  # what it waited for at the last look

    def follow(self, control: ShieldControl | None, watch: GraphWatch | None) -> None:
        """Speak of another control from now on; None: of none."""
        self._control, self._watch = control, watch

    def decided(self, tick: Tick) -> None:
        """Take in a decision, in the tick's thread: what changes is told before the period is over."""
        self._answered += tick.fresh
        self._unanswered += not tick.fresh
        self._note_incident(tick)
        if tick.taken_over is not self._taken_over:
            self._taken_over = tick.taken_over
            whose = "an operator's commands count" if tick.taken_over else "the controller's commands count again"
            self.change(whose, bad=tick.taken_over)
        verdict = tick.verdict
        kind = verdict.decision.name if verdict.decision in NEWS else "deciding"
        key = f"{kind}: {kind_of(verdict.reason)}" if verdict.decision is Decision.HELD else kind
        if key == self._said:
            return
        before, self._said = self._said, key
        if verdict.decision is Decision.HELD:
            watching = " (it only watches: nothing is commanded)" if tick.joint_command is None else ""
            self.change(f"holding the safe action{watching}: {verdict.reason}", bad=True)
        elif verdict.decision is Decision.LEAST_RISK:
            self.change(f"nothing safe was found: {verdict.reason}", bad=True)
        elif verdict.decision is Decision.BACKUP:
            self.change(f"the backup has the robot: {verdict.reason}", bad=True)
        elif verdict.decision is Decision.FAULT:
            only = " (it only watches: nothing is commanded)" if tick.joint_command is None else ""
            self.change(f"{verdict.reason}; ~/reset_fault releases it{only}", bad=True)
        elif before:
            self.change("deciding again")

    def _note_incident(self, tick: Tick) -> None:
        """Say that an incident has begun which nothing is latched for."""
        control, before = self._control, self._incidents
        if control is None:
            return
        incidents = control.loop.supervision.incidents
        self._incidents = incidents.incidents
        if self._incidents > before and tick.verdict.decision is not Decision.FAULT:
            self.change(f"incident: {incidents.cause}; the contract's on_incident lets decisions go on", bad=True)

    def change(self, text: str, bad: bool = False) -> None:
        """Say that something has changed: on the console, in the history of /diagnostics, and in the state."""
        seconds = self._node.get_clock().now().nanoseconds / NANOSECONDS
        self._changes = (f"{seconds:.3f} {text}", *self._changes)[:HISTORY]
        # One call for each: a logger takes one severity from one place in the code.
        if bad:
            self._node.get_logger().warning(text)
        else:
            self._node.get_logger().info(text)
        try:
            self.publish()
        except Exception as error:  # what is said of a shield must not end it
            self._guard.note("report", error)

    def interventions(self, now: float) -> None:
        """Say on the console, now and then, how often was intervened since the last time. `now`: s, steady clock."""
        if self._control is None or now < self._summary_at:
            return
        self._summary_at = now + SUMMARY
        counts = dict(self._control.loop.counts)
        new = {decision: counts.get(decision, 0) - self._counted.get(decision, 0) for decision in Decision}
        self._counted = counts
        total = sum(new.values())
        if total and total != new[Decision.PASSED]:
            words = ", ".join(f"{count} {decision.name.lower()}" for decision, count in new.items() if count)
            self._node.get_logger().info(
                f"of {total} decisions: {words}; the last reason: {self._control.loop.last_reason}"
            )

    def expect(self, now: float) -> None:
        """Take what it waits for as told already."""
        self._reminded, self._reminded_at = kind_of(self.waiting()), now

    def remind(self, now: float) -> None:
        """Say on the console what an inactive shield waits for: at once, and again now and then.

        Another reason is told when it stands for two looks: a sensor that is late once is no news.
        """
        waiting = self.waiting()
        kind = kind_of(waiting)
        before, self._waited = self._waited, kind
        changed = kind != self._reminded and (kind == before or not self._reminded)
        if waiting and (changed or now - self._reminded_at > REMIND):
            self._reminded, self._reminded_at = kind, now
            self._node.get_logger().warning(f"not active: {waiting}")

    def publish(self) -> None:
        """Publish state and diagnostics."""
        self._diagnostics.publish()
        control, state = self._control, ShieldState()
        set_stamp(state, max(0, self._node.get_clock().now().nanoseconds))
        mode = control.loop.mode if control is not None and control.started else Mode.INACTIVE
        fill(state, mode=mode, contract_id=self._contract_id, epsilon=math.nan, delta=math.nan)
        if control is None:
            fill(state, margin=math.nan, domain_distance=math.nan, domain_limit=math.nan, incident_predicted=math.nan)
            fill(state, incident_observed=math.nan, incident_low=math.nan, incident_high=math.nan)
            fill(state, epsilon_adaptive=math.nan)
        else:
            loop = control.loop
            counts = {decision.name.lower(): loop.counts[decision] for decision in Decision}
            fill(
                state,
                bundle_id=loop.critic.id,
                **threshold_fields(loop.settings),
                ticks=loop.ticks,
                missed_periods=loop.missed_periods,
                last_reason=loop.last_reason if control.started else control.fault(),
                **counts,
                **supervised_fields(loop),
            )
        self._state.publish(state)

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        control, watch = self._control, self._watch
        values = {f"change {i}": text for i, text in enumerate(self._changes)}
        if control is None:
            return DiagnosticStatus.WARN, "not configured: the robot gets no command from here", values
        loop = control.loop
        values = {
            "mode": loop.mode.name.lower(),
            "bundle": loop.critic.id,
            "threshold": in_words(loop.settings),
            "ticks": str(loop.ticks),
            **{decision.name.lower(): str(loop.counts[decision]) for decision in Decision},
            "missed_periods": str(loop.missed_periods),
            "dropped_proposals": str(loop.dropped),
            "foreign_messages": str(loop.assembler.frames.counts["foreign"]),
            "late_messages": str(loop.assembler.frames.counts["late"]),
            "last_reason": loop.last_reason,
            **loop.inputs.values(),
            **{f"exceptions in {where}": str(count) for where, count in self._guard.counts.copy().items()},
            **supervised_values(loop),
            **values,
        }
        problems = list(dict.fromkeys(watch.problems.values())) if watch is not None else []
        if problems:
            return DiagnosticStatus.ERROR, "; ".join(problems), values
        if not control.started:
            return DiagnosticStatus.WARN, f"inactive: the robot gets no command from here: {self._waiting()}", values
        if loop.mode is Mode.DISABLED:
            return DiagnosticStatus.WARN, "disabled: proposals go through unjudged", values
        if (fault := loop.supervision.latched) is not None:
            words = f"latched, {fault.response}, until ~/reset_fault: {fault.words}"
            return DiagnosticStatus.ERROR, words, values
        fallen = fallen_at(control)
        if loop.holding:
            holding = f"holding the safe action: {loop.last_reason}"
            return DiagnosticStatus.ERROR, f"{fallen}; {holding}" if fallen else holding, values
        if fallen:
            return DiagnosticStatus.ERROR, fallen, values
        if self._said.startswith(Decision.LEAST_RISK.name):
            return DiagnosticStatus.ERROR, f"nothing safe was found: {loop.last_reason}", values
        if self._said.startswith(Decision.BACKUP.name):
            return DiagnosticStatus.WARN, f"the backup has the robot: {loop.last_reason}", values
        if warning := loop.supervision.warning() or loop.inputs.warning() or self._losses():
            return DiagnosticStatus.WARN, warning, values
        critic = loop.critic.bundle.critic
        if isinstance(critic, MarginCritic) and not critic.certified:
            return DiagnosticStatus.WARN, f"{loop.mode.name.lower()}, but its delta is not certified", values
        return DiagnosticStatus.OK, loop.mode.name.lower(), values

    def _waiting(self) -> str:
        """Return what an inactive shield waits for, with how many publish it."""
        control = self._control
        assert control is not None
        topics = control.loop.inputs.waiting()
        if not topics or self._watch is None:
            return control.fault() or "waiting for ~/change_state"
        counts = ", ".join(f"{topic} ({len(self._watch.publishers(topic))} publishers)" for topic in topics)
        return f"waiting for {counts}"

    def waiting(self) -> str:
        """Return what an inactive, configured shield waits for; an empty text where it waits for nothing."""
        return "" if self._control is None or self._control.started else self._waiting()

    def _losses(self) -> str:
        """Return that many decisions were taken without an answer of the controller, or an empty text."""
        answered, unanswered = self._answered, self._unanswered
        if answered + unanswered < 50:
            return ""
        if answered + unanswered > 500:  # the newest half counts more
            self._answered, self._unanswered = answered // 2, unanswered // 2
        share = unanswered / (answered + unanswered)
        if share < LOSSES:
            return ""
        jitter = self._control.loop.inputs.jitter_of_answers() if self._control is not None else ""
        why = jitter or "messages are lost, or late"
        return f"{share:.0%} of control periods brought no new command of the controller: {why}"


def kind_of(reason: str) -> str:
    """Return a reason without its figures, so that the same one is told once."""
    return "".join(letter for letter in reason if not letter.isdigit())
