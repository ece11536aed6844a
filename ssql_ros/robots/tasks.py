"""Tasks by name: which robot, what changes between pre-training and fine-tuning, what acts and what shields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy, make_behaviour
from ssql_ros.contract import Contract, find_contract, load_contract
from ssql_ros.contract.plugs import plugs
from ssql_ros.model.backup import Backup
from ssql_ros.model.shipped import bundle_folder
from ssql_ros.robots.adversaries import Adversary, Takeover
from ssql_ros.robots.noise import Noise, NoisyController

PHASES = ("pretrain", "finetune")
ENV = "env:"  # begins the name of a task that is any gymnasium world (see own_worlds.py)
# Of an observation: what hardly moves in what was seen must not become huge once it does.
LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        robot: whose.
        pretrain, finetune: options of the world in each phase.
        untrusted: the controller that the shield is judged on; None: there is none.
        bundle: file name of the shipped safety critic; empty: none is shipped.
        foreign_bundle: file name of the shipped safety critic for controllers that nobody knows; empty: `bundle`.
        first_bundle: file name of the shipped bundle that a live learner begins with; empty: none is shipped.
        behaviour: its safe behaviour policy (see behaviour.policy.make_behaviour); empty: it has none.
        judged: options of the world that Q is judged in, whose episodes then show their discounted rest.
        backup: what takes over where its critic does not trust a controller, and when; None: the task has none.
        met: options of the worlds that such a critic meets while it learns, each as likely as the others.
        worlds: options of the worlds that the matrix of a shield is made of, by name.
        centre, spread: standardisation of observations (n_observation,), where the first random steps do not show it.
        contract_file: of a robot that is known by its contract alone, and has no world; empty: the robot is a plug.
    """

    name: str
    robot: str
    pretrain: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
    untrusted: Noise | None = None
    bundle: str = ""
    foreign_bundle: str = ""
    first_bundle: str = ""
    behaviour: dict[str, Any] = field(default_factory=dict)
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    judged: dict[str, Any] = field(default_factory=dict)
    backup: Backup | None = None
    met: tuple[dict[str, Any], ...] = ({},)
    worlds: dict[str, dict[str, Any]] = field(default_factory=lambda: {"as modelled": {}})
    contract_file: str = ""

    @property
    def plug(self) -> Any:
        """Return its robot (a `plug.Robot`). Raises ValueError where it is known by its contract alone."""
        if self.contract_file:
            raise ValueError(
                f"{self.contract_file}: robot {self.robot} is known by its contract alone: it has no simulated world; "
                "learn from its data with --data or --bag, or make it a plug (docs/how_to/add_a_robot.md)"
            )
        return plugs()[self.robot]

    def bounded_scale(self, scale: np.ndarray) -> np.ndarray:
        """Return the scale of states (n_state,), an observation and what follows it, nowhere too small."""
        return np.maximum(scale, LEAST_SPREAD)

    def contract(self) -> Contract:
        """Return the robot's contract."""
        return load_contract(self.contract_file or find_contract(self.robot))

    def contract_text(self) -> str:
        """Return the contract as YAML where no file has it; empty: one has."""
        return ""

    def bundle_path(self) -> Path:
        """Return the path of the shipped safety critic. Raises ValueError where none is shipped."""
        return self._shipped("bundle", "shipped safety critic, which --bundle can name")

    def foreign_bundle_path(self) -> Path:
        """Return the shipped safety critic for any controller. Raises ValueError where none is shipped."""
        if not self.foreign_bundle:
            return self.bundle_path()
        return self._shipped("foreign_bundle", "shipped safety critic")

    def first_bundle_path(self) -> Path:
        """Return the path of the bundle that a live learner begins with. Raises ValueError where none is shipped."""
        return self._shipped("first_bundle", "shipped bundle that a live learner begins with")

    def _shipped(self, what: str, words: str) -> Path:
        return bundle_folder(self.robot) / self._need(what, words)

    def behaviour_policy(self) -> BehaviourPolicy:
        """Return the safe behaviour policy. Raises ValueError where the task has none."""
        return make_behaviour(self._need("behaviour", "safe behaviour policy"))

    def noisy_controller(self) -> Noise:
        """Return what the untrusted controller is. Raises ValueError where the task has none."""
        return self._need("untrusted", "untrusted controller")

    def controller(self, what: Noise | Adversary) -> NoisyController | Takeover:
        """Return a controller of the robot under noise, or an adversary, which the backup takes over from.

        Raises:
            ValueError: the robot has none of that name.
        """
        contract, base = self.contract(), None
        noise = what if isinstance(what, Noise) else what.noise
        if noise is not None:
            base = NoisyController(self.plug.controller(noise.controller)(contract), noise, contract.action_size)
        if isinstance(what, Adversary):
            return Takeover(what, base, np.array(self.backup.action) if self.backup else contract.safe_action)
        assert base is not None
        return base

    def _need(self, what: str, words: str) -> Any:
        if not getattr(self, what):
            if self.contract_file:
                raise ValueError(
                    f"{self.contract_file}: robot {self.robot}, known by its contract alone, has no {words}"
                )
            with_one = ", ".join(name for name, task in tasks().items() if getattr(task, what))
            raise ValueError(f"task {self.name!r} has no {words}; these have one: {with_one}")
        return getattr(self, what)

    def world(self, phase: str) -> dict[str, Any]:
        """Return the options of the world in `phase`. Raises ValueError: no such phase."""
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r} is unknown; known: {', '.join(PHASES)}")
        return self.pretrain if phase == "pretrain" else self.finetune

    def make(self, **options: Any) -> Any:
        """Return the bare world, a gymnasium.Env, with `options` for its constructor."""
        make_world: Callable[..., Any] = self.plug.make_world
        return make_world(**options)


@lru_cache(maxsize=1)
def tasks() -> dict[str, Task]:
    """Return the tasks of all robots that are installed, by name.

    Raises:
        ValueError: two robots have a task of one name.
    """
    found: dict[str, Task] = {}
    for robot in plugs().values():
        for task in robot.tasks:
            if task.name in found:
                raise ValueError(f"task {task.name!r} is of robot {found[task.name].robot} and of {robot.name}")
            found[task.name] = task
    return found


def find_task(name: str) -> Task:
    """Return a task by name; of a contract's file (.yaml), its robot without a world, known by what it recorded.

    `env:WORLD` is a world of gymnasium, whose code is imported: such a name must come from whoever runs this.

    Raises:
        ValueError: no such task; the text lists those that are known. A ContractError where the file cannot be read.
    """
    if name.startswith(ENV):
        from ssql_ros.robots.own_worlds import own_world  # is made of what stands above

        return own_world(name)
    if name not in tasks() and name.endswith((".yaml", ".yml")):
        return Task(name, load_contract(name).robot, contract_file=name)
    if name not in tasks():
        raise ValueError(f"task {name!r} is unknown; known: {', '.join(tasks()) or 'none, as no robot is installed'}")
    return tasks()[name]
