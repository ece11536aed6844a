"""The shield's way from sensors and proposals to commands: what runs while a robot waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from std_srvs.srv import SetBool, Trigger

from ssql_ros.contract.messages import fill, set_stamp
from ssql_ros.contract.topics import OWN_ACCOUNT, OWN_INTERVENTIONS, OWN_RECORDS
from ssql_ros.msg import DecisionRecord, ShieldedAction
from ssql_ros.nodes.command_writer import LATEST, CommandPublisher
from ssql_ros.nodes.shield_inputs import ShieldInputs
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.process import COMMAND, EVENT, raise_priority
from ssql_ros.ros.qos import publish_on, unused_overrides
from ssql_ros.shield.decision import Decision, ShieldSettings
from ssql_ros.shield.loop import ShieldLoop
from ssql_ros.shield.record import record_fields
from ssql_ros.shield.tick import Tick

STOPPING = 1.0  # s, how long the way to the safe action may take when the shield stops


class ShieldControl(ShieldInputs):
    """Connects a `ShieldLoop` to topics, and sends one command every control period once it is started.

    Subscriptions fill the loop's slots. The one that completes an input has it decided on at once, as a hand-over to
    another thread would cost a wake-up. A thread on the steady clock decides for every period that ends without, and
    publishes the accounts, which nobody waits for. While the loop only watches, proposals go on as they come.

    Args:
        node: whose topics, clock and log are used.
        guard: takes what callbacks raise.
        forward: commands go out as Float64MultiArray instead of JointState.
        on_observation: called for readings that come while `started` is False and a whole observation is there.
        on_decision: called after each decision, in the tick's thread.
    """

    def __init__(
        self,
        node: Any,
        loop: ShieldLoop,
        guard: Guard,
        forward: bool,
        on_observation: Callable[[], None],
        on_decision: Callable[[Tick], None],
    ) -> None:
        self._on_observation, self._on_decision = on_observation, on_decision
        self._thread: threading.Thread | None = None
        self._running = False
        self._accounts: list[tuple[Tick, float]] = []
        self._command = CommandPublisher(node, loop.contract, loop.contract.commanded.topics, COMMAND, forward)
        self._account = publish_on(node, ShieldedAction, OWN_ACCOUNT, EVENT)
        self._interventions = publish_on(node, ShieldedAction, OWN_INTERVENTIONS, EVENT)
        self._records = publish_on(node, DecisionRecord, OWN_RECORDS, EVENT)
        self._services = [
            node.create_service(Trigger, "~/reset_fault", guard.service("reset_fault", self._on_reset_fault)),
            node.create_service(SetBool, "~/take_over", guard.service("take_over", self._on_take_over)),
        ]
        super().__init__(node, loop, guard)
        self.qos |= {one.topic_name: one.qos_profile for one in self._command.publishers}
        if unused := unused_overrides(node):
            node.get_logger().warning(f"of no topic of this node: {', '.join(unused)}; it has {', '.join(self.qos)}")

    def _on_reset_fault(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            with self.lock:
                released = self.loop.reset_fault(time.monotonic(), self._now())
        except ValueError as error:
            response.success, response.message = False, str(error)
            self._node.get_logger().warning(f"~/reset_fault: {error}")
            return response
        response.success, response.message = True, f"released: {released}"
        self._node.get_logger().info(f"~/reset_fault: released: {released}")
        return response

    def _on_take_over(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self.lock:
            self.loop.takeover.lock(request.data)
        topics = ", ".join(map(self._node.resolve_topic_name, self.takeover_topics))
        what = f"only commands on {topics} count" if request.data else "the controller has the robot"
        response.success, response.message = True, what
        self._node.get_logger().info(f"~/take_over: {what}")
        return response

    @property
    def started(self) -> bool:
        """Tell whether commands are sent."""
        return self._thread is not None

    def fault(self) -> str:
        """Return why nothing can be decided on what is observed now, or an empty text."""
        with self.lock:
            return self.loop.observation_fault(time.monotonic(), self._now())

    def start(self, priority: int) -> None:
        """Begin to send commands. `priority`: SCHED_FIFO priority of who decides; 0: normal scheduling."""
        if priority:
            raise_priority(self._node, priority)  # of this thread, which serves subscriptions; the tick's inherits it
        self.loop.start(time.monotonic())
        self._running = True
        self._thread = threading.Thread(target=self._run, name="tick", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send the safe action, unless the shield only watches, and no command after that."""
        if self._thread is None:
            return
        with self.lock:
            self._running = False
            self.lock.notify()
        self._thread.join()
        self._thread = None
        # A robot that lies there is not brought to the safe pose because its shield ends.
        if self.loop.watching or self.loop.supervision.latched is not None:
            return
        frame = self.loop.assembler.frame if self.loop.assembler.newest is not None else None
        source, end = self.loop.source, time.monotonic() + STOPPING
        while (command := source.held(frame)) is not None:
            self._publish_command(command, self._now())
            if source.arrived or time.monotonic() > end:
                return
            time.sleep(self._contract.control_period)

    def disconnect(self) -> None:
        """Give up the topics."""
        super().disconnect()
        self._command.destroy()
        for publisher in (self._account, self._interventions, self._records):
            self._node.destroy_publisher(publisher)
        for service in self._services:
            self._node.destroy_service(service)

    # What goes out.

    def _proposed(self, joints: np.ndarray, stamp: int, arrival: float, taken: bool) -> None:
        """Hand a proposal on to the robot where the loop only watches; decide where it does not."""
        if taken and self._running and self.loop.watching:
            self._publish_command(self.loop.relayed(joints, stamp), stamp or self._now())
        self._answer(arrival)

    def _observed(self) -> None:
        if self._thread is None and not self.fault():
            self._on_observation()

    def _answer(self, arrival: float) -> None:
        """Decide here and now when the input is complete. The lock is held."""
        if self._running and self.loop.input_complete():
            self._decide(arrival)
            self.lock.notify()

    def _run(self) -> None:
        """Decide for every period that ends without a decision, and publish the accounts of all decisions."""
        running = True
        while running:
            with self.lock:
                while self._running and not self._accounts and (wait := self.loop.wait(time.monotonic())) > 0.0:
                    self.lock.wait(wait)
                running = self._running
                if running and not self._accounts:
                    self._decide(time.monotonic())
                accounts, self._accounts = self._accounts, []
            for tick, seconds in accounts:
                try:
                    self._on_decision(tick)
                except Exception as error:  # what is said of a decision must not end the tick
                    self._guard.note("report", error)
                try:
                    self._publish_account(tick, seconds)
                except Exception as error:  # a failing publisher must not end the tick
                    self._guard.note("account", error)

    def _decide(self, since: float) -> None:
        """Take one decision and send its command. The lock is held. `since`: s, when the input was complete."""
        begun = time.monotonic()
        try:
            tick = self.loop.tick(begun, self._now(), settle=False)
            if time.monotonic() - begun > self._contract.control_period:
                # This process was stopped in the middle of it: what was decided is of before.
                tick = self.loop.tick(time.monotonic(), self._now(), settle=False)
        except Exception as error:  # whatever it is, the robot needs a command now, and the next period its own
            self._guard.note("tick", error)
            if not self.loop.watching:
                self._publish_command(self._contract.joint_command(self._contract.safe_action), self._now())
            return
        self._accounts.append((tick, time.monotonic() - since))
        if tick.joint_command is not None:
            held = tick.verdict.decision in (Decision.HELD, Decision.FAULT)
            try:
                self._publish_command(tick.joint_command, self._now() if held else tick.stamp)
            except Exception as error:  # a failing publisher must not end the tick
                self._guard.note("command", error)
        try:
            self.loop.settle()
        except Exception as error:  # neither must what is only told
            self._guard.note("supervision", error)

    def _publish_command(self, joints: np.ndarray, stamp: int) -> None:
        self._command.publish(joints, stamp)

    def _publish_account(self, tick: Tick, seconds: float) -> None:
        """Publish account and record where somebody asks: else the processor is free for the next command."""
        verdict, stamp = tick.verdict, tick.stamp if tick.stamp < LATEST else 0
        if self._records.get_subscription_count():
            record = fill(DecisionRecord(), **record_fields(tick, self._contract.id))
            set_stamp(record, stamp)
            self._records.publish(record)
        if not self._account.get_subscription_count() and not self._interventions.get_subscription_count():
            return
        account = fill(
            ShieldedAction(),
            decision=verdict.decision,
            enforced=tick.enforced,
            proposal=tick.proposal,
            action=verdict.action,
            q_safe_proposal=verdict.q_proposal,
            q_safe_action=verdict.q_action,
            **threshold_fields(tick.basis.settings),
            candidates_scored=verdict.scored,
            candidates_safe=verdict.safe,
            history_missing=tick.history_missing,
            taken_over=tick.taken_over,
            decision_time=seconds,
            bundle_id=tick.bundle_id,
            reason=verdict.reason,
        )
        set_stamp(account, stamp)
        self._account.publish(account)
        if verdict.decision is not Decision.PASSED:
            self._interventions.publish(account)


def threshold_fields(settings: ShieldSettings) -> dict[str, float]:
    """Return rule, epsilon and delta as messages carry them: NaN for the threshold of the other rule."""
    epsilon, delta = (math.nan if value is None else value for value in (settings.epsilon, settings.delta))
    return {"rule": settings.rule, "epsilon": epsilon, "delta": delta}
