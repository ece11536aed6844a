"""What follows when a process of the graph is killed, stopped, doubled or has no disk; for `ssql bench faults`."""

from __future__ import annotations

import math
import re
import resource
import signal
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from tqdm import tqdm

from bench.processes import Processes
from bench.round_trip import Driver, RoundTripError
from ssql_ros.contract import Contract
from ssql_ros.contract.messages import stamp_of
from ssql_ros.msg import ShieldedAction
from ssql_ros.ros.process import EVENT, SENSOR
from ssql_ros.shield.decision import Decision

SHIELD, CONTROLLER, DRIVER = "shield_node", "behaviour_node", "driver_node"
RECORDER, LEARNER, SECOND = "recorder_node", "learner_node", "second_shield"
CALM = 0.3  # s in which all is well before a fault
WATCHED = 1.0  # s after a fault from which nothing may follow
FROZEN = 1.0  # s
PATIENCE = 10.0  # s, for what follows
STARTING = 60.0  # s, for a process to be there on a busy machine
ERROR = 2
STOPPED = re.compile(r"\[(\d+\.\d+)\] \[driver_node\]: command time-out")


@dataclass
class Figures:
    """What trials of one fault gave, s, by name; counts where the name says so."""

    of: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, value: float) -> None:
        """Keep a figure of one trial."""
        self.of[name].append(value)

    def summary(self, name: str) -> dict[str, float]:
        """Return NAME_FIGURE_ms_p50 and _max of times, NAME_FIGURE_max of counts; what never came is left out."""
        told: dict[str, float] = {}
        for figure, values in self.of.items():
            known = np.array([value for value in values if math.isfinite(value)])
            prefix = f"{name}_{figure}" if figure else name
            if not len(known):
                continue
            if figure == "burst":
                told[f"{prefix}_max"] = float(known.max())
            else:
                told |= {
                    f"{prefix}_ms_p50": 1e3 * float(np.median(known)),
                    f"{prefix}_ms_max": 1e3 * float(known.max()),
                }
        return told


class Listener(Driver):
    """Hears the whole graph, and sends nothing. All times are s on the steady clock.

    Attributes:
        accounts: when decisions came.
        commands: when commands came, and how old their observations were then, s.
        answers, sensed: when the newest command of the controller and the newest sensor message came.
        shield: when the shield said last how it is, and what.
        diagnosed: by the part of a node, when its level became what it is, and that level.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__("listener")
        self.accounts: deque[tuple[float, Decision]] = deque(maxlen=4000)
        self.commands: deque[tuple[float, float]] = deque(maxlen=4000)
        self.answers = self.sensed = -math.inf
        self.diagnosed: dict[str, tuple[float, int]] = {}
        self.shield = (-math.inf, "")
        told, trigger = contract.commanded, contract.inputs[contract.observed.trigger]
        for kind, topic, receive, qos in (
            (ShieldedAction, f"{SHIELD}/shielded_action", self._on_account, EVENT),
            (JointState, told.topic, self._on_command, EVENT),
            (JointState, told.raw_topics[0], self._on_answer, EVENT),
            (JointState, trigger.topic, self._on_sensed, SENSOR),
            (DiagnosticArray, "/diagnostics", self._on_diagnosed, EVENT),
        ):
            self.node.create_subscription(kind, topic, receive, qos)

    def _on_account(self, message: ShieldedAction) -> None:
        self.accounts.append((time.monotonic(), Decision(message.decision)))

    def _on_command(self, message: JointState) -> None:
        self.commands.append((time.monotonic(), 1e-9 * (time.time_ns() - stamp_of(message))))

    def _on_answer(self, _message: JointState) -> None:
        self.answers = time.monotonic()

    def _on_sensed(self, _message: JointState) -> None:
        self.sensed = time.monotonic()

    def _on_diagnosed(self, message: DiagnosticArray) -> None:
        for status in message.status:
            part, level = status.name.rpartition(": ")[2], int(status.level[0])
            if status.hardware_id == SHIELD and part == "shield":
                self.shield = time.monotonic(), status.message
            # Of the two shields only the first one counts.
            if status.hardware_id != SECOND and self.diagnosed.get(part, (0.0, -1))[1] != level:
                self.diagnosed[part] = (time.monotonic(), level)

    def first(self, decision: Decision, since: float) -> float:
        """Return when a decision was heard of for the first time after `since`; infinity: not yet."""
        return next((came for came, heard in self.accounts if heard is decision and came > since), math.inf)

    def named(self, there: bool, since: float) -> float:
        """Return when the shield said after `since` that there is a second one, or of none; infinity: not yet."""
        came, text = self.shield
        return came if came > since and (SECOND in text) is there else math.inf

    def gap(self, since: float) -> float:
        """Return the longest time without a command from `since` until now, s."""
        times = [since, *(came for came, _ in self.commands if came > since), time.monotonic()]
        return float(max(np.diff(times)))


class ProcessFaults:
    """A robot's driver, a controller and a shield as processes, to which things are done.

    Args:
        bundle: of the shield.
        gaits: a bundle with a behaviour policy, for the learner.
        folder: for bags and what a learner keeps.
    """

    def __init__(
        self, nodes: Processes, listener: Listener, contract: Contract, bundle: Path, gaits: Path, folder: Path
    ) -> None:
        self._nodes, self._heard, self._contract = nodes, listener, contract
        self._bundle, self._gaits, self._folder = bundle, gaits, folder
        self._period, self._made = contract.control_period, 0
        sensors = max(contract.inputs[name].max_age for name in contract.observed_inputs)
        proposals = 2.0 * self._period
        self.faults: dict[str, Callable[[Figures], None]] = {
            "undisturbed": lambda told: self._nothing_follows(told, lambda: None),
            "controller killed": lambda told: self._silenced(told, CONTROLLER, signal.SIGKILL, proposals),
            "controller frozen": lambda told: self._silenced(told, CONTROLLER, signal.SIGSTOP, proposals),
            # Without sensors the controller answers nothing either: what is stale first counts.
            "driver killed": lambda told: self._silenced(told, DRIVER, signal.SIGKILL, min(sensors, proposals)),
            "driver frozen": lambda told: self._silenced(told, DRIVER, signal.SIGSTOP, min(sensors, proposals)),
            "shield killed": self._shield_killed,
            "shield frozen": self._shield_frozen,
            "second shield": self._second_shield,
            "recorder frozen": lambda told: self._beside(told, RECORDER, self._freeze),
            "recorder killed": lambda told: self._beside(told, RECORDER, self._kill),
            "disk full": lambda told: self._beside(told, RECORDER, self._fill_the_disk, loud=True),
            "learner killed": lambda told: self._beside(told, LEARNER, self._kill),
        }

    def run(self, trials: int) -> dict[str, float]:
        """Do everything `trials` times, and return the figures; see `bench_faults`."""
        for node in (DRIVER, SHIELD, CONTROLLER):
            self._start(node)
        told, over, unanswered = {}, 0, 0
        for name, fault in tqdm(self.faults.items(), desc="faults", leave=False, disable=None):
            figures = Figures()
            for _ in range(trials):
                self._settle()
                fault(figures)
            told |= figures.summary(name.replace(" ", "_"))
            to_safe = figures.of.get("", [])
            unanswered += sum(not math.isfinite(value) for value in to_safe)
            over += any(value > self._period for value in to_safe if math.isfinite(value))
        return {**told, "period_ms": 1e3 * self._period, "over_one_period": over, "unanswered": unanswered}

    # What is done.

    def _silenced(self, told: Figures, node: str, how: signal.Signals, after: float) -> None:
        """A process says nothing any more: the safe action, until it is back.

        `after`: s, how long what it said last is still believed.
        """
        process = self._nodes.processes[node]

        def newest() -> float:
            return self._heard.answers if node == CONTROLLER else self._heard.sensed

        self._signal(node, how)
        self._heard.rest(time.monotonic() + 2.0 * after)
        last = newest()
        # One that came before is of a busy machine.
        told.add("", self._until(lambda: self._heard.first(Decision.HELD, last)) - last - self._period - after)
        if how is signal.SIGKILL:
            self._start(node)
        else:
            process.send_signal(signal.SIGCONT)
        again = time.monotonic()
        heard = self._until(lambda: newest() if newest() > again else math.inf, STARTING)
        told.add("back", self._until(lambda: self._heard.first(Decision.PASSED, heard), STARTING) - again)

    def _shield_killed(self, told: Figures) -> None:
        self._driver_stops(told, signal.SIGKILL)
        self._start(SHIELD)
        again = time.monotonic()
        told.add("back", self._until(lambda: self._heard.first(Decision.PASSED, again), STARTING) - again)

    def _shield_frozen(self, told: Figures) -> None:
        """No command that waited meanwhile may reach the robot, and not many at once."""
        process, begun = self._nodes.processes[SHIELD], time.monotonic()
        self._driver_stops(told, signal.SIGSTOP)
        self._heard.rest(begun + FROZEN)
        process.send_signal(signal.SIGCONT)
        again = time.monotonic()
        told.add("back", self._until(lambda: self._heard.first(Decision.PASSED, again), STARTING) - again)
        self._heard.rest(time.monotonic() + CALM)
        came = [(at, age) for at, age in self._heard.commands if at > again]
        told.add(
            "burst",
            max((sum(at <= other < at + self._period for other, _ in came) for at, _ in came), default=math.nan),
        )
        told.add("oldest", max((age for _, age in came), default=math.inf))

    def _driver_stops(self, told: Figures, how: signal.Signals) -> None:
        begun = time.monotonic()
        self._signal(SHIELD, how)

        def stopped() -> float:
            # By its own clock, and from its log: of a driver that was started anew, /rosout is not heard at once.
            lines = STOPPED.findall((self._folder / "logs" / f"{DRIVER}.log").read_text())
            at = float(lines[-1]) - time.time() + time.monotonic() if lines else -math.inf
            return at if at > begun else math.inf

        told.add("", self._until(stopped) - self._heard.commands[-1][0] - self._contract.command_timeout)

    def _second_shield(self, told: Figures) -> None:
        """A second one of the same robot, from when it publishes commands to the ERROR of the first."""
        topic = self._heard.node.resolve_topic_name(self._contract.commanded.topic)

        def publishers(wanted: int) -> float:
            return time.monotonic() if self._heard.node.count_publishers(topic) == wanted else math.inf

        self._until(lambda: publishers(1), STARTING)
        self._start(SECOND)
        there = self._until(lambda: publishers(2), STARTING)
        told.add("error", self._until(lambda: self._heard.named(True, there), STARTING) - there)
        self._nodes.stop(SECOND)  # politely: one that is killed is in the graph until its lease is over
        gone = time.monotonic()
        told.add("forgotten", self._until(lambda: self._heard.named(False, gone), STARTING) - gone)

    def _beside(self, told: Figures, node: str, fault: Callable[[str], None], loud: bool = False) -> None:
        """Something befalls a process at the side: commands go on. `loud`: it says ERROR itself."""
        self._heard.diagnosed.clear()
        self._start(node)
        part = "recording" if node == RECORDER else "learner"
        self._until(lambda: self._heard.diagnosed.get(part, (math.inf, 0))[0], STARTING)
        self._settle()
        begun = time.monotonic()
        self._nothing_follows(told, lambda: fault(node))
        if loud:
            told.add("error", self._until(lambda: self._level(part, ERROR, begun), STARTING) - begun)
        if node in self._nodes.processes:
            self._kill(node)

    def _nothing_follows(self, told: Figures, fault: Callable[[], None]) -> None:
        begun = time.monotonic()
        fault()
        self._heard.rest(begun + WATCHED)
        told.add("gap", self._heard.gap(begun))

    # Processes.

    def _start(self, node: str) -> None:
        own: dict[str, Any] = {"contract": self._contract.path}
        name: dict[str, str] = {}
        executable = node
        if node in (SHIELD, SECOND):
            own |= {"bundle": str(self._bundle), "epsilon": 0.99, "candidates": 32}
            executable = SHIELD
            name = {"__node": node} if node == SECOND else {}
        elif node in (RECORDER, LEARNER):
            self._made += 1
            place = str(self._folder / f"{node}_{self._made}")
            own |= {"output": place} if node == RECORDER else {"behaviour": str(self._gaits), "folder": place}
        self._nodes.start(executable, None, name, **own)

    def _signal(self, node: str, how: signal.Signals) -> None:
        if how is signal.SIGKILL:
            self._kill(node)
        else:
            self._nodes.processes[node].send_signal(how)

    def _kill(self, node: str) -> None:
        process = self._nodes.processes.pop(node)
        process.kill()
        process.wait()

    def _freeze(self, node: str) -> None:
        self._nodes.processes[node].send_signal(signal.SIGSTOP)

    def _fill_the_disk(self, node: str) -> None:
        """Let no file of a process grow any more."""
        resource.prlimit(self._nodes.processes[node].pid, resource.RLIMIT_FSIZE, (1, 1))

    # What is heard.

    def _level(self, part: str, level: int, since: float) -> float:
        came, now = self._heard.diagnosed.get(part, (0.0, -1))
        return max(came, since) if now == level else math.inf

    def _settle(self) -> None:
        """Wait until everybody is heard, all is well, and has been for a while. Raises RoundTripError: it never is."""
        heard, end, calm = self._heard, time.monotonic() + STARTING, time.monotonic()
        while (now := time.monotonic()) < calm + CALM:
            if now > end:
                silent = {"controller": now - heard.answers, "driver": now - heard.sensed}
                told = ", ".join(f"{who} heard {age:.1f} s ago" for who, age in silent.items())
                raise RoundTripError(
                    f"not everything passed for {CALM:g} s within {STARTING:g} s: {told}; {heard.shield}"
                )
            self._nodes.check()
            heard.spin(0.02)
            newest = min(heard.answers, heard.sensed, heard.accounts[-1][0] if heard.accounts else -math.inf)
            late = [decision for came, decision in heard.accounts if came > calm]
            # A busy machine holds the safe action now and then.
            if late.count(Decision.PASSED) < 0.8 * len(late) or newest < time.monotonic() - 0.5 * CALM:
                calm = time.monotonic()

    def _until(self, when: Callable[[], float], patience: float = PATIENCE) -> float:
        """Take in what comes until `when` is finite, and return it; infinity: not in time."""
        end = time.monotonic() + patience
        while not math.isfinite(found := when()) and time.monotonic() < end:
            self._nodes.check()
            self._heard.spin(0.02)
        return found
