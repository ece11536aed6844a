"""The shield as a lifecycle node: proposals in, judged commands out, with an account of every decision.

`joint_commands_raw` (JointState), `joint_proposals` (Proposal) or `forward_commands_raw` (Float64MultiArray) come in;
`joint_commands` goes out, once every control period while the node is active, whatever happens.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import SetBool, Trigger

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.nodes.shield_control import ShieldControl
from ssql_ros.nodes.shield_facts import fallen_at, graph_watch
from ssql_ros.nodes.shield_models import ShieldModels
from ssql_ros.nodes.shield_parameters import PARAMETERS
from ssql_ros.nodes.shield_report import ShieldReport
from ssql_ros.ros import model_receiver
from ssql_ros.ros.graph_watch import GraphWatch
from ssql_ros.ros.guard import Guard, GuardedLifecycle
from ssql_ros.ros.model_receiver import Inspected, ModelReceiver, Served
from ssql_ros.ros.parameters import declare
from ssql_ros.ros.process import run_node
from ssql_ros.shield.critic_limits import epsilon_of, in_words
from ssql_ros.shield.loop import ShieldLoop
from ssql_ros.shield.scoring_time import SHARE, stage_sizes
from ssql_ros.shield.tick import Mode

LOOK = 0.1  # s, between two looks at the graph, a topic each


class ShieldNode(GuardedLifecycle):
    """Parameters, life cycle, services and reports of a shield; `ShieldControl` does its work."""

    def __init__(self) -> None:
        super().__init__("shield_node")
        self._disabled, self._enabled_mode = False, "enforce"  # by ~/enable; the mode to come back to
        self.value_of = declare(self, PARAMETERS, check=self._fault)
        self.guard = Guard(self.get_logger())
        self.add_post_set_parameters_callback(self.guard("parameters", lambda _changes: self._apply_settings()))
        self.contract = load_contract(find_contract(self.value_of("contract")))
        self._models = ShieldModels(self.contract, self.value_of, self.get_logger())
        model_receiver.trust_of(self, self.value_of)  # what is wrong with it must be said at start
        self._said = ShieldReport(self, self.contract.id, self.guard)
        self._control: ShieldControl | None = None  # these three: there while it is configured
        self._receiver: ModelReceiver | None = None
        self._watch: GraphWatch | None = None
        # On the steady clock: reports go on when /clock has stopped.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self.guard("report", self._report), clock=steady)
        self.create_timer(LOOK, self.guard("graph", self._look), clock=steady)
        self._starting = bool(self.value_of("autostart"))
        if self._starting:
            self._start_timer = self.create_timer(0.0, self._configure_once, clock=steady)

    def configure(self) -> None:
        models = self._models
        critic, models.limits = models.load()
        settings, mode = models.settings(critic), self._mode()
        simulated = bool(self.get_parameter("use_sim_time").value)
        loop = ShieldLoop(
            self.contract,
            critic,
            settings,
            mode,
            self.value_of("seed"),
            simulated,
            time.monotonic,
            self.value_of("takeover_timeout"),
        )
        forward = self.value_of("command_type") == "forward"
        self._control = ShieldControl(self, loop, self.guard, forward, self._activate_once, self._said.decided)
        self._watch = graph_watch(self, self._control)
        self._said.follow(self._control, self._watch)
        self._offered = [
            self.create_service(SetBool, "~/enable", self.guard.service("enable", self._on_enable)),
            self.create_service(Trigger, "~/reload", self.guard.service("reload", self._on_reload)),
        ]
        first = Served(critic.id, critic)
        sizes = self.value_of("rounds") * stage_sizes(self.value_of("candidates"))
        inspected = Inspected("critic", sizes, SHARE * self.contract.control_period)
        self._receiver = ModelReceiver(
            self, self.contract, inspected, models.serve, self._put_in_force, self._report, first, self.value_of
        )
        self._said.change(f"bundle {critic.id} for {self.contract.id}, {in_words(settings)}, {mode.name.lower()}")

    def _put_in_force(self, critic: SafetyCritic) -> None:
        """Serve another critic from the next decision on."""
        control = self._configured()
        with control.lock:
            control.loop.critic, control.loop.settings = critic, self._models.settings(critic)
            control.loop.source.change()

    def activate(self) -> None:
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

    def deactivate(self) -> None:
        if self._control is not None and self._control.started:
            self._control.stop()
            gc.unfreeze()
            self._said.change("deactivated: the robot gets no command from here", bad=True)
            self._said.expect(time.monotonic())  # that says it all for now
            self._report()

    def cleanup(self) -> None:
        self._configured().disconnect()
        self._end_receiver()
        for service in self._offered:
            self.destroy_service(service)
        self._control, self._watch = None, None
        self._said.follow(None, None)
        gc.collect()

    def close(self) -> None:
        """Send the safe action if active, and end the tick."""
        self.deactivate()
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

    def _apply_settings(self) -> None:
        if self._control is None:
            return
        loop, models = self._control.loop, self._models
        before = (in_words(loop.settings), loop.mode)
        models.limits = models.limits_of(models.limits.own)
        try:
            models.limits.check()
        except ValueError as error:
            self.get_logger().warning(str(error))
        with self._control.lock:
            loop.settings, loop.mode = models.settings(loop.critic), self._mode()
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
        # At start there is no contract yet to hold them against.
        models = getattr(self, "_models", None)
        return models.time.fault(values["rounds"], values["candidates"]) if models is not None else ""

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        control = self._configured()
        if request.data == self._disabled:
            if not request.data:
                self._enabled_mode = self.value_of("mode")
            self._disabled = not request.data
            name = self._enabled_mode if request.data else "disabled"
            self.set_parameters([RosParameter("mode", value=name)])
        response.success, response.message = True, f"shield is {control.loop.mode.name.lower()}"
        return response

    def _on_reload(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._receiver is None:
                raise ValueError("the node is not configured")
            models = self._models
            critic, limits = models.load()
            models.limits.check_rule(critic.bundle)
            models.limits = limits
            self._receiver.replace(Served(critic.id, critic))
        except (ValueError, OSError) as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(f"cannot reload: {error}")
            return response
        self._report()
        response.success, response.message = True, f"bundle {critic.id}"
        self._said.change(f"bundle {critic.id} is in force by ~/reload, {in_words(models.settings(critic))}")
        return response

    # Reports.

    def _report(self) -> None:
        self._said.publish()
        self._said.interventions(time.monotonic())
        # Taken once: this runs in the receiver's thread too, while another thread may end it.
        receiver = self._receiver
        if receiver is not None:
            receiver.report()
        self._said.remind(time.monotonic())

    def _look(self) -> None:
        if self._watch is not None and self._watch.look():
            for problem in self._watch.problems.values():
                self.get_logger().error(problem)
            self._said.publish()


def main() -> int:
    """Run the node."""
    # Shorter than the default of 5 ms: the tick must not wait that long for another thread's Python code.
    sys.setswitchinterval(0.0005)
    return run_node(ShieldNode)
