"""What a robot is to this package: one object of data and makers, which an entry point names.

Light to import: who serves a robot needs no simulator. What does is named, and imported when it is called (`lazily`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.contract import Contract
from ssql_ros.contract.plugs import plugs
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.policy import ActingBehaviour, ServedPolicy, behaviour_of
from ssql_ros.robots.body import Body, ObservedBody
from ssql_ros.robots.tasks import Task


def lazily(where: str) -> Callable[..., Any]:
    """Return a function that calls `module:name`, which is imported only then."""

    def call(*arguments: Any, **options: Any) -> Any:
        module, _, name = where.partition(":")
        return getattr(import_module(module), name)(*arguments, **options)

    return call


class Truth(Protocol):
    """What a world that begins at any position lets one know exactly.

    Attributes:
        states: in words, where `initial` draws from.
    """

    states: str

    def safe_starts(self, count: int, seed: int) -> np.ndarray:
        """Return positions (count, n), uniformly drawn from those from which the robot can stay safe."""

    def initial(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return positions (count, n) as they may be met."""

    def worst(self, starts: np.ndarray, act: Callable[[np.ndarray], np.ndarray], show: bool) -> np.ndarray:
        """Return the largest margin (N,) of an episode from each start, with actions act(positions) (N, n_action)."""


class Map(Protocol):
    """A map that paths are drawn on: hazards and goals as rectangles and circles in the plane of the observation.

    Attributes:
        size: of the map along both axes, m.
        hazards: ((low, high), (low, high)) of each, by axis.
    """

    size: tuple[float, float]
    hazards: Sequence[tuple[tuple[float, float], tuple[float, float]]]

    def judged(self, path: np.ndarray) -> dict[str, float]:
        """Return what is to be said of a path (T, 2), by name."""

    def best(
        self, task: Task, phase: str, thresholds: Sequence[float], gamma_safe: float, episodes: int, seed: int
    ) -> dict[float, list[np.ndarray]]:
        """Return paths, by threshold on Q_safe, of the best policy that the threshold leaves open: exactly solved."""


@dataclass(frozen=True)
class Robot:
    """One robot. What is None or empty it lacks; whoever needs it says so.

    Attributes:
        name: as its contract has it.
        make_world: from options to its world, a gymnasium.Env whose observation is the contract's vector.
        tasks: in this order in lists.
        config: folder of contract.yaml, learning.yaml, nodes.yaml; None: config/NAME of this package.
        behaviours: makers of its own kinds of behaviour policies, by kind.
        controllers: makers of its scripted controllers, by name; the first is what drives where none is named.
        body: makes the driver of its world, which sim_node is.
        log: from (episodes, seed, show progress) to a mixed data.logged_steps.Log; None: its behaviour policy, or
            learners, make one.
        episodes: in such a log where nobody says how many.
        truth: makes what is known exactly of its world, which then takes the reset option `position`.
        map: makes the map of its world.
    """

    name: str
    make_world: Callable[..., Any]
    tasks: tuple[Task, ...]
    config: Path | None = None
    behaviours: Mapping[str, Callable[..., BehaviourPolicy]] = field(default_factory=dict)
    controllers: Mapping[str, Callable[[Contract], ServedPolicy]] = field(default_factory=dict)
    body: Callable[[Any, Contract], Body] = ObservedBody
    log: Callable[[int, int, bool], Any] | None = None
    episodes: int = 400
    truth: Callable[[], Truth] | None = None
    map: Callable[[], Map] | None = None

    def controller(self, name: str) -> Callable[[Contract], ServedPolicy]:
        """Return what makes a controller of this name. Raises ValueError where there is none."""
        if name not in self.need("controllers"):
            raise ValueError(f"controller {name!r} is none of {self.name}; known: {', '.join(self.controllers)}")
        return self.controllers[name]

    def need(self, what: str) -> Any:
        """Return an attribute that a robot may lack. Raises ValueError where this one does: what, and who has one."""
        if not (value := getattr(self, what)):
            others = ", ".join(name for name, other in plugs().items() if getattr(other, what)) or "none"
            raise ValueError(f"robot {self.name} has no {_WORDS[what]}; these have: {others}")
        return value


_WORDS = {
    "controllers": "scripted controllers",
    "truth": "ground truth, nor a world that begins at any position",
    "map": "map to draw on",
}


def find_behaviour(name: str, contract: Contract) -> ServedPolicy:
    """Return what drives a robot, as it is without noise.

    Args:
        name: of one of the robot's scripted controllers, of one of its tasks, whose safe behaviour policy it then is,
            or path of a bundle that holds a behaviour policy; empty: the first of the robot's.

    Raises:
        ValueError: there is no such thing (a BundleError where it is a bundle); the text lists what there is.
    """
    if Path(name).is_file() or name.endswith(".safetensors"):
        bundle = load_bundle(name, contract)
        from ssql_ros.model.probes import check_probes  # brings onnxruntime, which only few who read a plug need

        check_probes(bundle)
        return ActingBehaviour(behaviour_of(bundle))
    robot: Robot | None = plugs().get(contract.robot)
    own = {} if robot is None else {task.name: task for task in robot.tasks if task.behaviour}
    known = [*(robot.controllers if robot is not None else ()), *own]
    if not known:
        able = [other.name for other in plugs().values() if other.controllers or any(t.behaviour for t in other.tasks)]
        raise ValueError(
            f"robot {contract.robot} has nothing that drives it, neither a scripted controller nor a safe behaviour "
            f"policy; these have: {', '.join(able) or 'none'}"
        )
    name = name or known[0]
    if robot is not None and name in robot.controllers:
        return robot.controllers[name](contract)
    if name in own:
        return ActingBehaviour(own[name].behaviour_policy())
    raise ValueError(
        f"behaviour {name!r}: is neither a bundle nor a behaviour of robot {contract.robot}, which has "
        f"{', '.join(known)}"
    )
