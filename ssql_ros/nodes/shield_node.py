"""The shield as a lifecycle node: proposals in, judged commands out, with an account of every decision.

`joint_commands_raw` (JointState), `joint_proposals` (Proposal) or `forward_commands_raw` (Float64MultiArray) come in;
`joint_commands` goes out, once every control period while the node is active, whatever happens.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from ssql_ros.bundle import load_bundle
from ssql_ros.critic import SafetyCritic
from ssql_ros.msg import Proposal, ShieldedAction, ShieldState
from ssql_ros.nodes.diagnostics import Diagnostics
from ssql_ros.nodes.parameters import Parameter, declare
from ssql_ros.nodes.process import COMMAND, EVENT, LATCHED, SENSOR, run_node
from ssql_ros.shield import Decision, ShieldSettings
from ssql_ros.shield_loop import Mode, ShieldLoop, Tick
from ssql_ros.spec import ContractError, find_contract, load_contract
from ssql_ros.spec.messages import CommandReader, InputReader, fill, fill_joint_command, set_stamp, stamp_of

INPUT_TYPES = {"sensor_msgs/msg/JointState": JointState, "sensor_msgs/msg/Imu": Imu, "nav_msgs/msg/Odometry": Odometry}

PARAMETERS = (
    Parameter("contract", "minitaur", "robot name or path of its contract YAML", fixed=True),
    Parameter("bundle", "", "path of the bundle with the safety critic; empty: config/bundles/ROBOT_critic"),
    Parameter("mode", "enforce", "enforce the decisions, or only monitor them", choices=("enforce", "monitor")),
    Parameter("epsilon", -1.0, "threshold on q_safe, above 0 and below 1; -1: the bundle's own", low=-1.0, high=1.0),
    Parameter("candidates", 100, "candidate actions drawn per round (k)", low=1, high=10000),
    Parameter("rounds", 3, "rounds of candidates before the least risky action is taken", low=1, high=20),
    Parameter("growth", 1.5, "factor on the candidates' spread from round to round", low=1.0, high=10.0),
    Parameter("spread", 0.4, "std around a plain command, as a fraction of half the action range", low=1e-3, high=2.0),
    Parameter("nearest", False, "take the most probable safe candidate instead of drawing from the masked policy"),
    Parameter("seed", 0, "seed of the candidates", low=0, high=2**31 - 1, fixed=True),
    Parameter("autostart", True, "configure at start and activate on the first whole observation", fixed=True),
    Parameter("command_type", "joint_state", "type of joint_commands", choices=("joint_state", "forward"), fixed=True),
    Parameter("realtime_priority", 0, "SCHED_FIFO priority of the tick; 0: normal scheduling", low=0, high=99, fixed=True),
)


class ShieldNode(LifecycleNode):
    """Adapts `ShieldLoop` to ROS: subscriptions fill its slots, a thread on the steady clock takes its decisions."""

    def __init__(self) -> None:
        super().__init__("shield_node")
        self.value_of = declare(self, PARAMETERS, check=_fault)
        self.add_post_set_parameters_callback(lambda _changes: self._apply_settings())
        self.contract = load_contract(find_contract(self.value_of("contract")))
        self.loop: ShieldLoop | None = None
        self._wake = threading.Condition()
        self._running = False
        self._thread: threading.Thread | None = None
        self._woken = 0.0
        self._state = self.create_publisher(ShieldState, "~/state", LATCHED)
        self._diagnostics = Diagnostics(self, "shield", self._describe)
        # On the steady clock: reports go on when /clock has stopped.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._report_timer = self.create_timer(1.0, self._report, clock=steady)
        self._bad_qos = ""
        self._starting = bool(self.value_of("autostart"))
        if self._starting:
            self._start_timer = self.create_timer(0.0, self._configure_once, clock=steady)

    # Lifecycle. rclpy swallows exceptions in these callbacks, so each is caught, logged and fails the transition.

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load and try the bundle, and connect the topics."""
        return self._transition("configure", self._configure)

    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Start the tick; refused before a whole and fresh observation."""
        return self._transition("activate", self._activate)

    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Send the safe action, then stop the tick."""
        return self._transition("deactivate", self._deactivate)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Disconnect the topics and forget the bundle."""
        return self._transition("clean up", self._cleanup)

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Send the safe action if active, then stop."""
        return self._transition("shut down", self.close)

    def _transition(self, name: str, act: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            act()
        except Exception as error:  # noqa: BLE001 (whatever it is, it must be seen)
            self.get_logger().error(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        contract = self.contract
        critic = self._load_critic()
        self.loop = ShieldLoop(contract, critic, self._settings(critic), self._mode(), self.value_of("seed"))
        # One message, filled anew each time: making one takes as long as filling it.
        self._command_message = Float64MultiArray() if self.value_of("command_type") == "forward" else JointState()
        self._command = self.create_publisher(type(self._command_message), contract.commanded.topic, COMMAND)
        self._account = self.create_publisher(ShieldedAction, "~/shielded_action", EVENT)
        self._interventions = self.create_publisher(ShieldedAction, "~/interventions", EVENT)
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_bad_qos)
        self._topics = [
            self.create_subscription(
                INPUT_TYPES[contract.inputs[name].type],
                contract.inputs[name].topic,
                self._reader(name),
                SENSOR,
                event_callbacks=events,
            )
            for name in contract.observed_inputs
        ]
        for topic, kind, receive in (
            ("joint_commands_raw", JointState, self._on_joint_command),
            ("joint_proposals", Proposal, self._on_proposal),
            ("forward_commands_raw", Float64MultiArray, self._on_forward_command),
        ):
            self._topics.append(self.create_subscription(kind, topic, receive, COMMAND, event_callbacks=events))
        self._commands = {
            topic: CommandReader(contract, topic)
            for topic in ("joint_commands_raw", "joint_proposals", "forward_commands_raw")
        }
        self._offered = [
            self.create_service(SetBool, "~/enable", self._on_enable),
            self.create_service(Trigger, "~/reload", self._on_reload),
        ]
        # What lives now lives for good: a full collection later would take milliseconds of some tick.
        gc.collect()
        gc.freeze()
        self.get_logger().info(
            f"bundle {critic.id} for {contract.id}, epsilon {self.loop.settings.epsilon:g}, {self._mode().name.lower()}"
        )

    def _load_critic(self) -> SafetyCritic:
        path = self.value_of("bundle")
        if not path:
            path = find_contract(self.contract.robot).parent / "bundles" / f"{self.contract.robot}_critic.safetensors"
        critic = SafetyCritic(load_bundle(path, self.contract))
        # Tried with both sizes that a decision uses, so that the first decision is not the slow one.
        observation = np.zeros(self.contract.observation_size)
        for k in (1, self.value_of("candidates")):
            logits = critic.logits(observation, np.tile(self.contract.safe_action, (k, 1)))
            if not np.isfinite(logits).all():
                raise ValueError(f"{path}: the critic's self-test gave a score that is not finite")
        return critic

    def _activate(self) -> None:
        loop = self._loop()
        if not self._observed():
            raise RuntimeError(f"no fresh observation on {', '.join(s.topic_name for s in self._topics[:-3])}")
        loop.start(time.monotonic())
        self._running = True
        self._thread = threading.Thread(target=self._run, name="tick", daemon=True)
        self._thread.start()
        self._report()

    def _deactivate(self) -> None:
        if self._thread is None:
            return
        with self._wake:
            self._running = False
            self._wake.notify()
        self._thread.join()
        self._thread = None
        self._publish_command(self.contract.joint_command(self.contract.safe_action), self._now())
        self._report()

    def _cleanup(self) -> None:
        for subscription in self._topics:
            self.destroy_subscription(subscription)
        for publisher in (self._command, self._account, self._interventions):
            self.destroy_publisher(publisher)
        for service in self._offered:
            self.destroy_service(service)
        self.loop = None

    def close(self) -> None:
        """Send the safe action if active, and end the tick."""
        self._deactivate()

    def _configure_once(self) -> None:
        self._start_timer.cancel()
        self.trigger_configure()

    def _loop(self) -> ShieldLoop:
        if self.loop is None:
            raise RuntimeError("the node is not configured")
        return self.loop

    # Subscriptions: fill a slot and wake the tick.

    def _reader(self, name: str) -> Callable[[Any], None]:
        read = InputReader(self.contract, self.contract.inputs[name])

        def receive(message: Any) -> None:
            arrival, loop = time.monotonic(), self._loop()
            try:
                values = read(message)
            except ContractError as error:
                self._fault_in(str(error))
                with self._wake:
                    loop.unreadable(str(error))
                return
            stamp = stamp_of(message)
            with self._wake:
                loop.read(name, stamp, arrival - self._delay(stamp), values)
                self._notify(arrival)
            if self._starting and self._observed():
                self._starting = False
                self.trigger_activate()

        return receive

    def _on_joint_command(self, message: JointState) -> None:
        self._propose("joint_commands_raw", message, lambda read: read.joint_command(message), stamp_of(message))

    def _on_forward_command(self, message: Float64MultiArray) -> None:
        self._propose("forward_commands_raw", message, lambda read: read.array_command(message), 0)

    def _propose(
        self, topic: str, message: Any, joints_of: Callable[[CommandReader], np.ndarray], stamp: int
    ) -> None:
        arrival, loop = time.monotonic(), self._loop()
        try:
            joints = joints_of(self._commands[topic])
            action = self.contract.action_of(joints)
        except ContractError as error:
            self._refuse(str(error), stamp, arrival)
            return
        with self._wake:
            loop.propose(action, joints, stamp, arrival - self._delay(stamp))
            self._notify(arrival)

    def _on_proposal(self, message: Proposal) -> None:
        arrival, loop, stamp = time.monotonic(), self._loop(), stamp_of(message)
        try:
            action, mean, std = self._commands["joint_proposals"].proposal(message)
        except ContractError as error:
            self._refuse(str(error), stamp, arrival)
            return
        with self._wake:
            loop.propose(
                action, self.contract.joint_command(action), stamp, arrival - self._delay(stamp), mean, std
            )
            self._notify(arrival)

    def _refuse(self, fault: str, stamp: int, arrival: float) -> None:
        self._fault_in(fault)
        with self._wake:
            self._loop().unreadable_proposal(fault, stamp)
            self._notify(arrival)

    def _notify(self, arrival: float) -> None:
        if self._loop().input_complete():
            self._woken = arrival
            self._wake.notify()

    def _fault_in(self, fault: str) -> None:
        self.get_logger().error(fault, throttle_duration_sec=1.0)

    def _delay(self, stamp: int) -> float:
        """Return how old a message was on arrival by its own stamp, in s; 0 where stamp or clock is not set."""
        now = self._now()
        return max(0.0, (now - stamp) * 1e-9) if stamp and now else 0.0

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    # The tick.

    def _run(self) -> None:
        self._raise_priority()
        loop = self._loop()
        while True:
            with self._wake:
                while self._running and (wait := loop.wait(time.monotonic())) > 0.0:
                    self._wake.wait(wait)
                if not self._running:
                    return
                start = time.monotonic()
                tick = loop.tick(start)
                seconds = time.monotonic() - (self._woken if tick.complete else start)
            try:
                held = tick.verdict.decision is Decision.HELD
                self._publish_command(tick.joint_command, self._now() if held else tick.stamp)
                self._publish_account(tick, seconds)
            except Exception as error:  # noqa: BLE001 (a failing publisher must not end the tick)
                self.get_logger().error(f"cannot publish: {error}", throttle_duration_sec=1.0)

    def _raise_priority(self) -> None:
        priority = self.value_of("realtime_priority")
        if priority:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
            except OSError as error:
                self.get_logger().warning(f"realtime_priority {priority}: {error}; the tick runs at normal priority")

    def _publish_command(self, joints: np.ndarray, stamp: int) -> None:
        message = self._command_message
        if isinstance(message, Float64MultiArray):
            fill(message, data=joints)
        else:
            fill_joint_command(message, self.contract, joints, stamp)
        self._command.publish(message)

    def _publish_account(self, tick: Tick, seconds: float) -> None:
        verdict, loop = tick.verdict, self._loop()
        account = fill(
            ShieldedAction(),
            decision=verdict.decision,
            enforced=tick.enforced,
            proposal=tick.proposal,
            action=verdict.action,
            q_safe_proposal=verdict.q_proposal,
            q_safe_action=verdict.q_action,
            epsilon=loop.settings.epsilon,
            candidates_scored=verdict.scored,
            candidates_safe=verdict.safe,
            decision_time=seconds,
            bundle_id=loop.critic.id,
            reason=verdict.reason,
        )
        set_stamp(account, tick.stamp)
        self._account.publish(account)
        if verdict.decision is not Decision.PASSED:
            self._interventions.publish(account)

    # Parameters, services, reports.

    def _mode(self) -> Mode:
        return Mode[self.value_of("mode").upper()]

    def _settings(self, critic: SafetyCritic) -> ShieldSettings:
        contract, epsilon = self.contract, self.value_of("epsilon")
        return ShieldSettings(
            epsilon=critic.bundle.epsilon if epsilon < 0 else epsilon,
            max_observation_age=min(contract.inputs[name].max_age for name in contract.observed_inputs),
            max_proposal_age=contract.command_timeout,
            **{name: self.value_of(name) for name in ("candidates", "rounds", "growth", "spread", "nearest")},
        )

    def _apply_settings(self) -> None:
        if self.loop is not None:
            with self._wake:
                self.loop.settings = self._settings(self.loop.critic)
                if self.loop.mode is not Mode.DISABLED:
                    self.loop.mode = self._mode()
            self._report()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        loop = self._loop()
        with self._wake:
            loop.mode = self._mode() if request.data else Mode.DISABLED
        text = f"shield is {loop.mode.name.lower()}"
        (self.get_logger().info if request.data else self.get_logger().warning)(text)
        self._report()
        response.success, response.message = True, text
        return response

    def _on_reload(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            critic = self._load_critic()
            settings = self._settings(critic)
        except (ValueError, OSError) as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(f"cannot reload: {error}")
            return response
        with self._wake:
            self._loop().critic, self._loop().settings = critic, settings
        self._report()
        response.success, response.message = True, f"bundle {critic.id}"
        return response

    def _observed(self) -> bool:
        loop = self._loop()
        with self._wake:
            observation = loop.observation()
        return observation is not None and time.monotonic() - observation.time <= loop.settings.max_observation_age

    def _on_bad_qos(self, event: Any) -> None:
        self._bad_qos = f"{event.total_count} publishers offer an incompatible QoS ({event.last_policy_kind})"
        self.get_logger().error(self._bad_qos)

    def _report(self) -> None:
        self._diagnostics.publish()
        loop = self.loop
        state = ShieldState()
        set_stamp(state, self._now())
        fill(state, mode=Mode.INACTIVE if loop is None or self._thread is None else loop.mode, contract_id=self.contract.id)
        if loop is not None:
            counts = {decision.name.lower(): loop.counts[decision] for decision in Decision}
            fill(
                state,
                bundle_id=loop.critic.id,
                epsilon=loop.settings.epsilon,
                ticks=loop.ticks,
                missed_periods=loop.missed_periods,
                last_reason=loop.last_reason,
                **counts,
            )
        self._state.publish(state)

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        loop = self.loop
        if loop is None or self._thread is None:
            return DiagnosticStatus.WARN, "inactive: the robot gets no command from here", {}
        values = {
            "mode": loop.mode.name.lower(),
            "bundle": loop.critic.id,
            "ticks": str(loop.ticks),
            **{decision.name.lower(): str(loop.counts[decision]) for decision in Decision},
            "missed_periods": str(loop.missed_periods),
            "last_reason": loop.last_reason,
        }
        if self._bad_qos:
            return DiagnosticStatus.ERROR, self._bad_qos, values
        if loop.mode is Mode.DISABLED:
            return DiagnosticStatus.WARN, "disabled: proposals go through unjudged", values
        if loop.holding:
            return DiagnosticStatus.ERROR, f"holding the safe action: {loop.last_reason}", values
        return DiagnosticStatus.OK, loop.mode.name.lower(), values


def _fault(values: dict[str, Any]) -> str:
    epsilon = values["epsilon"]
    if epsilon != -1.0 and not 0.0 < epsilon < 1.0:
        return f"epsilon: expected above 0 and below 1, or -1 for the bundle's own, got {epsilon}"
    return ""


def main() -> int:
    """Run the node."""
    # Shorter than the default of 5 ms: the tick must not wait that long for another thread's Python code.
    sys.setswitchinterval(0.0005)
    return run_node(ShieldNode)
