"""The shield as a lifecycle node: proposals in, judged commands out, with an account of every decision.

`joint_commands_raw` (JointState), `joint_proposals` (Proposal) or `forward_commands_raw` (Float64MultiArray) come in;
`joint_commands` goes out, once every control period while the node is active, whatever happens.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import SetBool, Trigger

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.contract.contract import JOINT_STATE
from ssql_ros.model.bundle import Bundle, MarginCritic, load_bundle
from ssql_ros.model.critic import SafetyCritic, shielding_critic
from ssql_ros.model.probes import check_critic, check_probes
from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.nodes.graph_watch import GraphWatch
from ssql_ros.nodes.shield_control import ShieldControl
from ssql_ros.nodes.shield_report import ShieldReport, fallen_at
from ssql_ros.robots import DEFAULT
from ssql_ros.ros import model_receiver
from ssql_ros.ros.guard import Guard, GuardedLifecycle
from ssql_ros.ros.model_receiver import Inspected, ModelReceiver, Served, rest
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import COMMAND, SENSOR, run_node
from ssql_ros.shield.critic_limits import CriticLimits, epsilon_of, in_words
from ssql_ros.shield.decision import FIRST_STAGE, STAGE, ShieldSettings
from ssql_ros.shield.loop import Mode, ShieldLoop

PARAMETERS = (
    Parameter("contract", DEFAULT, "robot name or path of its contract YAML", fixed=True),
    Parameter("bundle", "", "path of the bundle with the safety critic; empty: the one shipped for the robot"),
    Parameter(
        "mode",
        "enforce",
        "enforce the decisions, or only monitor them; disabled: ~/enable took the shield out",
        choices=("enforce", "monitor", "disabled"),
    ),
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
TRIED = 4  # sizes that are tried to tell how long a round takes
LOOK = 0.2  # s, between two looks at the graph, a topic each
REMIND = 30.0  # s, between two lines that say what an inactive shield waits for
MANY = 2**31


class ShieldNode(GuardedLifecycle, LifecycleNode):
    """Parameters, life cycle, services and reports of a shield; `ShieldControl` does its work."""

    def __init__(self) -> None:
        super().__init__("shield_node")
        self._disabled, self._enabled_mode = False, "enforce"  # by ~/enable; the mode to come back to
        self._cost = 0.0  # s, of scoring a candidate; 0: not known yet
        self.value_of = declare(self, PARAMETERS, check=self._fault)
        self.guard = Guard(self.get_logger())
        applied = self.guard("parameters", lambda _changes: self._apply_settings())
        self.add_post_set_parameters_callback(applied)
        self.contract = load_contract(find_contract(self.value_of("contract")))
        model_receiver.trust_of(self, self.value_of)  # what is wrong with it must be said at start
        self._control: ShieldControl | None = None
        self._receiver: ModelReceiver | None = None
        self._said = ShieldReport(self, self.contract.id, self.guard)
        self._watch: GraphWatch | None = None
        # On the steady clock: reports go on when /clock has stopped.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self.guard("report", self._report), clock=steady)
        self.create_timer(LOOK, self.guard("graph", self._look), clock=steady)
        self._waiting, self._waited = "", 0.0
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
        simulated = bool(self.get_parameter("use_sim_time").value)
        loop = ShieldLoop(
            self.contract, critic, settings, mode, self.value_of("seed"), simulated=simulated, timer=time.monotonic
        )
        forward = self.value_of("command_type") == "forward"
        self._control = ShieldControl(self, loop, self.guard, forward, self._activate_once, self._said.decided)
        inputs = {name: self.contract.inputs[name].topic for name in self.contract.observed_inputs}
        self._watch = GraphWatch(
            self, self.contract.commanded.topic, self._control.proposals, inputs, COMMAND, SENSOR, self._publishers_of
        )
        self._said.follow(self._control, self._watch)
        self._offered = [
            self.create_service(SetBool, "~/enable", self.guard.service("enable", self._on_enable)),
            self.create_service(Trigger, "~/reload", self.guard.service("reload", self._on_reload)),
        ]
        first = Served(critic.id, critic)
        sizes = self.value_of("rounds") * self._sizes()
        inspected = Inspected("critic", sizes, SHARE * self.contract.control_period)
        self._receiver = ModelReceiver(
            self, self.contract, inspected, self._serve, self._put_in_force, self._report, first, self.value_of
        )
        self._said.change(f"bundle {critic.id} for {self.contract.id}, {in_words(settings)}, {mode.name.lower()}")

    def _load_critic(self) -> tuple[SafetyCritic, CriticLimits]:
        """Return the critic of the parameter `bundle`, tried, and what follows from it for those that are announced."""
        path = self.value_of("bundle") or find_shipped_bundle(self.contract.robot)
        bundle = load_bundle(path, self.contract)
        critic = shielding_critic(bundle)
        check_probes(bundle)
        self._check_time(critic)
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
        left = max(0, self.value_of("candidates") - FIRST_STAGE)
        stages = (*(STAGE,) * (left // STAGE), left % STAGE)
        return (1, min(FIRST_STAGE, self.value_of("candidates")), *(size for size in stages if size))

    def _try(self, critic: SafetyCritic) -> float:
        """Score once with each size that a decision uses, so that the first decision is not the slow one.

        Returns:
            s, how long a round of candidates takes.
        """
        observation = np.zeros(self.contract.observation_size)
        sizes = self._sizes()
        start = time.monotonic()
        for k in sizes if len(sizes) < TRIED else (*sizes[:TRIED], sizes[-1]):
            logits = critic.logits(observation, np.tile(self.contract.safe_action, (k, 1)))
            if not np.isfinite(logits).all():
                raise ValueError(f"{critic.bundle.path}: the critic's self-test gave a score that is not finite")
        return (time.monotonic() - start) * max(1.0, len(sizes) / TRIED)

    def _check_time(self, critic: SafetyCritic) -> None:
        """Raise ValueError where a decision cannot be taken in the share of the control period that it has."""
        # The best of a few: what the machine is busy with beside it does not count against the critic.
        rounds = self.value_of("rounds")
        self._cost = min(self._try(critic) for _ in range(5)) / self.value_of("candidates")
        if fault := self._too_long(rounds, self.value_of("candidates")):
            raise ValueError(fault)

    def _too_long(self, rounds: int, candidates: int) -> str:
        """Return that so many candidates cannot be scored in the time that a decision has, or an empty text."""
        if not self._cost:
            return ""
        seconds = rounds * candidates * self._cost
        limit = SHARE * self.contract.control_period
        if seconds <= limit:
            return ""
        return (
            f"candidates {candidates}, rounds {rounds}: scoring takes {seconds:.4f} s a decision, at most {limit:g} s "
            "of a control period are there; take fewer of them"
        )

    def _serve(self, bundle: Bundle) -> tuple[SafetyCritic, str]:
        """Return the critic of an announced bundle, verified and tried. In the receiver's thread."""
        limits = self._limits
        limits.check_announced(bundle)
        critic = shielding_critic(bundle)
        rest()
        check_critic(critic)
        rest()
        self._check_time(critic)
        return critic, limits.capped(bundle)

    def _put_in_force(self, critic: SafetyCritic) -> None:
        """Serve another critic from the next decision on."""
        control = self._configured()
        with control.lock:
            control.loop.critic, control.loop.settings = critic, self._settings(critic)
            control.loop.source.change()

    def _activate(self) -> None:
        control = self._configured()
        if fault := control.fault():
            raise RuntimeError(fault)
        if fallen := fallen_at(control):
            self.get_logger().error(fallen)
        priority = self.value_of("realtime_priority")
        control.start(priority)
        if priority and self._receiver is not None:
            self._receiver.raise_priority(priority)
        # What lives now lives for good: a full collection later would take milliseconds of some tick.
        gc.collect()
        gc.freeze()
        self._said.change(f"active: {control.loop.mode.name.lower()}")
        self._report()

    def _deactivate(self) -> None:
        if self._control is not None and self._control.started:
            self._control.stop()
            gc.unfreeze()
            self._said.change("deactivated: the robot gets no command from here", bad=True)
            self._report()

    def _cleanup(self) -> None:
        self._configured().disconnect()
        self._end_receiver()
        for service in self._offered:
            self.destroy_service(service)
        self._control, self._watch = None, None
        self._said.follow(None, None)
        gc.collect()

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
            # Of each input the loop knows its own.
            max_observation_age=max(contract.inputs[name].max_age for name in contract.observed_inputs),
            deadline=SHARE,
            max_proposal_age=contract.command_timeout,
            **{name: self.value_of(name) for name in ("candidates", "rounds", "growth", "spread", "nearest")},
        )

    def _apply_settings(self) -> None:
        if self._control is None:
            return
        loop = self._control.loop
        before = (in_words(loop.settings), loop.mode)
        self._limits = self._limits_of(self._limits.own)
        try:
            self._limits.check()
        except ValueError as error:
            self.get_logger().warning(str(error))
        with self._control.lock:
            loop.settings = self._settings(loop.critic)
            loop.mode = self._mode()
        # The other settings are on /diagnostics within a second: a storm of them must not cost commands.
        now = (in_words(loop.settings), loop.mode)
        if before != now:
            with self._control.lock:
                loop.source.change()
            disabled = loop.mode is Mode.DISABLED
            what = "proposals go through unjudged" if disabled else now[0]
            self._said.change(f"{loop.mode.name.lower()}: {what}", bad=disabled)

    def _fault(self, values: dict[str, Any]) -> str:
        if (values["mode"] == "disabled") != self._disabled:
            if self._disabled:
                return f"mode: the shield is disabled; call ~/enable with true before mode {values['mode']}"
            return "mode: disabled is set by ~/enable alone, as it takes the shield out"
        try:
            epsilon_of(values["epsilon"])
        except ValueError as error:
            return str(error)
        return self._too_long(values["rounds"], values["candidates"])

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        control = self._configured()
        if request.data == self._disabled:
            if not request.data:
                self._enabled_mode = self.value_of("mode")
            self._disabled = not request.data
            name = self._enabled_mode if request.data else "disabled"
            self.set_parameters([RosParameter("mode", value=name)])
        text = f"shield is {control.loop.mode.name.lower()}"
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
        self._said.change(f"bundle {critic.id} is in force by ~/reload, {in_words(self._settings(critic))}")
        return response

    # Reports.

    def _report(self) -> None:
        self._said.publish()
        self._said.interventions(time.monotonic())
        # Taken once: this runs in the receiver's thread too, while another thread may end it.
        receiver = self._receiver
        if receiver is not None:
            receiver.report()
        waiting = self._said.waiting()
        # At once, and again now and then: who starts the graph must see what it waits for.
        if waiting and (_without_figures(waiting) != self._waiting or time.monotonic() - self._waited > REMIND):
            self._waiting, self._waited = _without_figures(waiting), time.monotonic()
            self.get_logger().warning(f"not active: {waiting}")

    def _look(self) -> None:
        if self._watch is not None and self._watch.look():
            for problem in self._watch.problems.values():
                self.get_logger().error(problem)
            self._said.publish()

    def _publishers_of(self, name: str) -> int:
        """Return how many publishers of an input can be told apart: each gives features of its own, or none."""
        control = self._control
        frames = control.loop.assembler.frames if control is not None else None
        if frames is None or not frames.sources(name):
            return MANY  # nothing is known yet
        if self.contract.inputs[name].type == JOINT_STATE and frames.counts["foreign"]:
            return MANY
        return len(frames.sources(name))


def _without_figures(text: str) -> str:
    return "".join(letter for letter in text if not letter.isdigit())


def main() -> int:
    """Run the node."""
    # Shorter than the default of 5 ms: the tick must not wait that long for another thread's Python code.
    sys.setswitchinterval(0.0005)
    return run_node(ShieldNode)
