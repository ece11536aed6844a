"""The shield as a lifecycle node: proposals in, judged commands out, with an account of every decision.

`joint_commands_raw` (JointState), `joint_proposals` (Proposal) or `forward_commands_raw` (Float64MultiArray) come in;
`joint_commands` goes out, once every control period while the node is active, whatever happens.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from ssql_ros.bundle import Bundle, MarginCritic, load_bundle
from ssql_ros.critic import SafetyCritic, shielding_critic
from ssql_ros.critic_limits import CriticLimits, epsilon_of, in_words
from ssql_ros.msg import ShieldState
from ssql_ros.nodes import model_receiver
from ssql_ros.nodes.diagnostics import Diagnostics
from ssql_ros.nodes.model_receiver import Inspected, ModelReceiver, Served, rest
from ssql_ros.nodes.parameters import Parameter, declare
from ssql_ros.nodes.process import LATCHED, run_node
from ssql_ros.nodes.shield_control import ShieldControl, threshold_fields
from ssql_ros.probes import check_critic, check_probes
from ssql_ros.shield import FIRST_STAGE, Decision, ShieldSettings
from ssql_ros.shield_loop import Mode, ShieldLoop
from ssql_ros.spec import find_contract, load_contract
from ssql_ros.spec.messages import fill, set_stamp

PARAMETERS = (
    Parameter("contract", "minitaur", "robot name or path of its contract YAML", fixed=True),
    Parameter("bundle", "", "path of the bundle with the safety critic; empty: config/bundles/ROBOT_critic"),
    Parameter("mode", "enforce", "enforce the decisions, or only monitor them", choices=("enforce", "monitor")),
    Parameter("epsilon", None, "threshold on q_safe, above 0 and below 1; not set or empty: the bundle's own"),
    Parameter(
        "delta_margin", 0.0, "critics of margins: subtracted from delta, in the margin's unit", low=0.0, high=1e9
    ),
    Parameter("allow_rule_change", False, "a critic of margins may replace one of probabilities, and the reverse"),
    Parameter("candidates", 100, "candidate actions drawn per round (k)", low=1, high=10000),
    Parameter("rounds", 3, "rounds of candidates before the least risky action is taken", low=1, high=20),
    Parameter("growth", 1.5, "factor on the candidates' spread from round to round", low=1.0, high=10.0),
    Parameter("spread", 0.4, "std around a plain command, as a fraction of half the action range", low=1e-3, high=2.0),
    Parameter("nearest", False, "take the most probable safe candidate instead of drawing from the masked policy"),
    Parameter("seed", 0, "seed of the candidates", low=0, high=2**31 - 1, fixed=True),
    Parameter("autostart", True, "configure at start and activate on the first whole observation", fixed=True),
    Parameter("command_type", "joint_state", "type of joint_commands", choices=("joint_state", "forward"), fixed=True),
    Parameter(
        "realtime_priority", 0, "SCHED_FIFO priority of the threads that decide; 0: normal", low=0, high=99, fixed=True
    ),
    *model_receiver.PARAMETERS,
)
# An announced critic must score a decision's candidates in this share of a control period.
SHARE = 0.5


class ShieldNode(LifecycleNode):
    """Parameters, life cycle, services and reports of a shield; `ShieldControl` does its work."""

    def __init__(self) -> None:
        super().__init__("shield_node")
        self.value_of = declare(self, PARAMETERS, check=_fault)
        self.add_post_set_parameters_callback(lambda _changes: self._apply_settings())
        self.contract = load_contract(find_contract(self.value_of("contract")))
        model_receiver.trust_of(self, self.value_of)  # what is wrong with it must be said at start
        self._control: ShieldControl | None = None
        self._receiver: ModelReceiver | None = None
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
        except Exception as error:  # whatever it is, it must be seen
            self.get_logger().error(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        critic, self._limits = self._load_critic()
        settings, mode = self._settings(critic), self._mode()
        loop = ShieldLoop(self.contract, critic, settings, mode, self.value_of("seed"))
        forward = self.value_of("command_type") == "forward"
        self._control = ShieldControl(self, loop, forward, self._on_bad_qos, self._activate_once)
        self._offered = [
            self.create_service(SetBool, "~/enable", self._on_enable),
            self.create_service(Trigger, "~/reload", self._on_reload),
        ]
        first = Served(critic.id, critic)
        sizes = self.value_of("rounds") * self._sizes()
        inspected = Inspected("critic", sizes, SHARE * self.contract.control_period)
        self._receiver = ModelReceiver(
            self, self.contract, inspected, self._serve, self._put_in_force, self._report, first, self.value_of
        )
        # What lives now lives for good: a full collection later would take milliseconds of some tick.
        gc.collect()
        gc.freeze()
        self.get_logger().info(f"bundle {critic.id} for {self.contract.id}, {in_words(settings)}, {mode.name.lower()}")

    def _load_critic(self) -> tuple[SafetyCritic, CriticLimits]:
        """Return the critic of the parameter `bundle`, tried, and what follows from it for those that are announced."""
        path = self.value_of("bundle")
        if not path:
            path = find_contract(self.contract.robot).parent / "bundles" / f"{self.contract.robot}_critic.safetensors"
        bundle = load_bundle(path, self.contract)
        critic = shielding_critic(bundle)
        check_probes(bundle)
        self._try(critic)
        limits, own = self._limits_of(bundle), bundle.critic
        limits.check()
        if isinstance(own, MarginCritic) and not own.certified:
            self.get_logger().warning(f"{path}: delta {own.delta:g} is not certified; `ssql calibrate` does that")
        return critic, limits

    def _limits_of(self, own: Bundle) -> CriticLimits:
        epsilon, margin = epsilon_of(self.value_of("epsilon")), self.value_of("delta_margin")
        return CriticLimits(own, epsilon, margin, self.value_of("allow_rule_change"))

    def _sizes(self) -> tuple[int, ...]:
        """Return how many actions a round of a decision scores at once, each time."""
        candidates = self.value_of("candidates")
        return tuple({1, min(FIRST_STAGE, candidates), max(1, candidates - FIRST_STAGE)})

    def _try(self, critic: SafetyCritic) -> float:
        """Score once with each size that a decision uses, so that the first decision is not the slow one.

        Returns:
            s, how long that took.
        """
        observation = np.zeros(self.contract.observation_size)
        start = time.monotonic()
        for k in self._sizes():
            logits = critic.logits(observation, np.tile(self.contract.safe_action, (k, 1)))
            if not np.isfinite(logits).all():
                raise ValueError(f"{critic.bundle.path}: the critic's self-test gave a score that is not finite")
        return time.monotonic() - start

    def _serve(self, bundle: Bundle) -> tuple[SafetyCritic, str]:
        """Return the critic of an announced bundle, verified and tried. In the receiver's thread."""
        limits = self._limits
        limits.check_announced(bundle)
        critic = shielding_critic(bundle)
        rest()
        check_critic(critic)
        rest()
        # The best of a few: what the machine is busy with beside it does not count against the critic.
        seconds = self.value_of("rounds") * min(self._try(critic) for _ in range(5))
        limit = SHARE * self.contract.control_period
        if not seconds <= limit:
            raise ValueError(f"{bundle.path}: scoring takes {seconds:.4f} s a decision, at most {limit:g} s are there")
        return critic, limits.capped(bundle)

    def _put_in_force(self, critic: SafetyCritic) -> None:
        """Serve another critic from the next decision on."""
        control = self._configured()
        with control.lock:
            control.loop.critic, control.loop.settings = critic, self._settings(critic)

    def _activate(self) -> None:
        control = self._configured()
        if not control.observed():
            raise RuntimeError(f"no fresh observation on {', '.join(control.inputs)}")
        priority = self.value_of("realtime_priority")
        control.start(priority)
        if priority and self._receiver is not None:
            self._receiver.raise_priority(priority)
        self._report()

    def _deactivate(self) -> None:
        if self._control is not None and self._control.started:
            self._control.stop()
            self._report()

    def _cleanup(self) -> None:
        self._configured().disconnect()
        self._end_receiver()
        for service in self._offered:
            self.destroy_service(service)
        self._control = None

    def close(self) -> None:
        """Send the safe action if active, and end the tick."""
        self._deactivate()
        self._end_receiver()

    def _end_receiver(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()

    def _configure_once(self) -> None:
        self._start_timer.cancel()
        self.trigger_configure()

    def _activate_once(self) -> None:
        if self._starting:
            self._starting = False
            self.trigger_activate()

    def _configured(self) -> ShieldControl:
        if self._control is None:
            raise RuntimeError("the node is not configured")
        return self._control

    # Parameters and services.

    def _mode(self) -> Mode:
        return Mode[self.value_of("mode").upper()]

    def _settings(self, critic: SafetyCritic) -> ShieldSettings:
        contract, (epsilon, delta) = self.contract, self._limits.thresholds(critic.bundle)
        return ShieldSettings(
            epsilon=epsilon,
            delta=delta,
            max_observation_age=min(contract.inputs[name].max_age for name in contract.observed_inputs),
            max_proposal_age=contract.command_timeout,
            **{name: self.value_of(name) for name in ("candidates", "rounds", "growth", "spread", "nearest")},
        )

    def _apply_settings(self) -> None:
        if self._control is None:
            return
        loop = self._control.loop
        self._limits = self._limits_of(self._limits.own)
        try:
            self._limits.check()
        except ValueError as error:
            self.get_logger().warning(str(error))
        with self._control.lock:
            loop.settings = self._settings(loop.critic)
            if loop.mode is not Mode.DISABLED:
                loop.mode = self._mode()
        self._report()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        control = self._configured()
        mode = self._mode() if request.data else Mode.DISABLED
        with control.lock:
            control.loop.mode = mode
        text = f"shield is {mode.name.lower()}"
        # One call for each: a logger takes one severity from one place in the code.
        if request.data:
            self.get_logger().info(text)
        else:
            self.get_logger().warning(text)
        self._report()
        response.success, response.message = True, text
        return response

    def _on_reload(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._receiver is None:
                raise ValueError("the node is not configured")
            critic, limits = self._load_critic()
            self._limits.check_rule(critic.bundle)
            self._limits = limits
            self._receiver.replace(Served(critic.id, critic))
        except (ValueError, OSError) as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(f"cannot reload: {error}")
            return response
        self._report()
        response.success, response.message = True, f"bundle {critic.id}"
        self.get_logger().info(f"bundle {critic.id} is in force by ~/reload, {in_words(self._settings(critic))}")
        return response

    # Reports.

    def _on_bad_qos(self, event: Any) -> None:
        self._bad_qos = f"{event.total_count} publishers offer an incompatible QoS ({event.last_policy_kind})"
        self.get_logger().error(self._bad_qos)

    def _report(self) -> None:
        self._diagnostics.publish()
        # Taken once: this runs in the receiver's thread too, while another thread may end it.
        receiver = self._receiver
        if receiver is not None:
            receiver.report()
        control, state = self._control, ShieldState()
        set_stamp(state, self.get_clock().now().nanoseconds)
        mode = control.loop.mode if control is not None and control.started else Mode.INACTIVE
        fill(state, mode=mode, contract_id=self.contract.id, epsilon=math.nan, delta=math.nan)
        if control is not None:
            loop = control.loop
            counts = {decision.name.lower(): loop.counts[decision] for decision in Decision}
            fill(
                state,
                bundle_id=loop.critic.id,
                **threshold_fields(loop.settings),
                ticks=loop.ticks,
                missed_periods=loop.missed_periods,
                last_reason=loop.last_reason,
                **counts,
            )
        self._state.publish(state)

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        if self._control is None or not self._control.started:
            return DiagnosticStatus.WARN, "inactive: the robot gets no command from here", {}
        loop = self._control.loop
        values = {
            "mode": loop.mode.name.lower(),
            "bundle": loop.critic.id,
            "threshold": in_words(loop.settings),
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
        critic = loop.critic.bundle.critic
        if isinstance(critic, MarginCritic) and not critic.certified:
            return DiagnosticStatus.WARN, f"{loop.mode.name.lower()}, but its delta is not certified", values
        return DiagnosticStatus.OK, loop.mode.name.lower(), values


def _fault(values: dict[str, Any]) -> str:
    try:
        epsilon_of(values["epsilon"])
    except ValueError as error:
        return str(error)
    return ""


def main() -> int:
    """Run the node."""
    # Shorter than the default of 5 ms: the tick must not wait that long for another thread's Python code.
    sys.setswitchinterval(0.0005)
    return run_node(ShieldNode)
