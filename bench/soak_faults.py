"""What goes wrong in a soak: each is begun, lasts a while, and ends; for `ssql bench soak`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from bench.processes import Processes
from bench.soak_driver import SoakDriver

SHIELD, RECORDER = "shield_node", "recorder_node"
LONGEST = {"shield stopped": 0.6, "shield killed": 0.1, "recorder killed": 0.1, "recorder ended": 0.1}  # s
OTHERS = 1.0  # s
# What is rare: a process that is started anew takes seconds to be there.
WEIGHTS = {"shield killed": 0.1, "recorder killed": 0.2, "recorder ended": 0.2, "shield stopped": 0.5}


class Mischief:
    """Everything that can be done to a running graph.

    Args:
        start: starts a node anew, by its name.
        bundles: files that may be announced, `broken` one that must be refused.
        announce: announces a file.
    """

    def __init__(
        self,
        driver: SoakDriver,
        nodes: Processes,
        start: Callable[[str], None],
        bundles: list[Path],
        broken: Path,
        announce: Callable[[Path], None],
        rng: np.random.Generator,
    ) -> None:
        self._driver, self._nodes, self._start, self._rng = driver, nodes, start, rng
        self._bundles, self._broken, self._announce = bundles, broken, announce
        self._clients: dict[str, Any] = {}
        self.faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
            **{f"sensors: {how}": self._does("sensors", how) for how in driver.SENSORS},
            **{f"controller: {how}": self._does("controller", how) for how in driver.CONTROLLER},
            "operator takes over": self._does("operator", "commands"),
            "operator locks": lambda: self._called(SetBool, "take_over", data=True, after={"data": False}),
            "shield taken out": lambda: self._called(SetBool, "enable", data=False, after={"data": True}),
            "shield only monitors": lambda: self._set("mode", "monitor", "enforce"),
            "epsilon moves": lambda: self._set("epsilon", float(rng.uniform(0.005, 0.2)), 0.02),
            "shield stopped": self._stopped,
            "shield killed": lambda: self._ended(SHIELD, signal.SIGKILL),
            "recorder killed": lambda: self._ended(RECORDER, signal.SIGKILL),
            "recorder ended": lambda: self._ended(RECORDER, signal.SIGINT),
            "hot swap": lambda: self._announced(bundles[int(rng.integers(len(bundles)))]),
            "broken bundle announced": lambda: self._announced(broken),
            "model rolled back": lambda: self._called(Trigger, "rollback"),
            "fault reset": lambda: self._called(Trigger, "reset_fault"),
        }
        self._names = list(self.faults)
        weights = np.array([WEIGHTS.get(name, 1.0) for name in self._names])
        self._shares = weights / weights.sum()

    def drawn(self) -> tuple[str, float]:
        """Return the name of the next fault, and how long it lasts, s."""
        name = str(self._rng.choice(self._names, p=self._shares))
        return name, float(self._rng.uniform(0.05, LONGEST.get(name, OTHERS)))

    def _does(self, who: str, how: str) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def done() -> Iterator[None]:
            setattr(self._driver, who, how)
            yield
            setattr(self._driver, who, "")

        return done

    @contextmanager
    def _called(self, kind: Any, name: str, after: dict[str, Any] | None = None, **request: Any) -> Iterator[None]:
        self._driver.excused |= name == "enable"
        self._call(kind, f"{SHIELD}/{name}", **request)
        yield
        if after is not None:
            self._call(kind, f"{SHIELD}/{name}", **after)

    @contextmanager
    def _set(self, name: str, value: Any, before: Any) -> Iterator[None]:
        self._driver.excused |= name == "mode"
        for given in (value, before):
            parameters = [Parameter(name, value=given).to_parameter_msg()]
            self._call(SetParameters, f"{SHIELD}/set_parameters", parameters=parameters)
            if given is value:
                yield

    def _call(self, kind: Any, name: str, **request: Any) -> None:
        """Ask, and wait for no answer: a stopped shield gives none."""
        if name not in self._clients:
            self._clients[name] = self._driver.node.create_client(kind, name)
        self._clients[name].call_async(kind.Request(**request))

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        process = self._nodes.processes[SHIELD]
        self._driver.excused = True
        process.send_signal(signal.SIGSTOP)
        yield
        process.send_signal(signal.SIGCONT)

    @contextmanager
    def _ended(self, node: str, how: signal.Signals) -> Iterator[None]:
        self._driver.excused |= node == SHIELD
        process = self._nodes.processes.pop(node)
        process.send_signal(how)
        yield
        if node == SHIELD:
            self._driver.states.clear()  # it is there again when it says so itself
        # An orderly end takes its time: the bag is closed.
        while process.poll() is None:
            self._driver.step()
        self._start(node)

    @contextmanager
    def _announced(self, path: Path) -> Iterator[None]:
        self._announce(path)
        yield
