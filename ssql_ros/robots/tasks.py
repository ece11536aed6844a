"""Tasks by name: which world, which contract, what changes between pre-training and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium

from ssql_ros.behaviour.policy import BehaviourPolicy, make_behaviour
from ssql_ros.contract import Contract, config_folder, find_contract, load_contract
from ssql_ros.robots.minitaur.noisy_trot import NoiseSettings


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        environment: gymnasium id of its world.
        robot: name of its contract.
        pretrain, finetune: options of the world in each phase.
        untrusted: the controller that the shield is judged on; None: there is none.
        bundle: file name of the shipped safety critic, in config/bundles; empty: none is shipped.
        behaviour: its safe behaviour policy (see behaviour.policy.make_behaviour); empty: it has none.
        judged: options of the world that Q is judged in, whose episodes then show their discounted rest.
        centre, spread: standardisation of observations (n_observation,), where the first random steps do not show it.
    """

    name: str
    environment: str
    robot: str
    pretrain: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
    untrusted: NoiseSettings | None = None
    bundle: str = ""
    behaviour: dict[str, Any] = field(default_factory=dict)
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    judged: dict[str, Any] = field(default_factory=dict)

    def contract(self) -> Contract:
        """Return the robot's contract."""
        return load_contract(find_contract(self.robot))

    def bundle_path(self) -> Path:
        """Return the path of the shipped safety critic.

        Raises:
            ValueError: none is shipped.
        """
        if not self.bundle:
            raise ValueError(f"task {self.name!r} has no shipped safety critic; name one with --bundle")
        return config_folder() / "bundles" / self.bundle

    def behaviour_policy(self) -> BehaviourPolicy:
        """Return the safe behaviour policy.

        Raises:
            ValueError: the task has none.
        """
        if not self.behaviour:
            with_one = ", ".join(name for name, task in TASKS.items() if task.behaviour)
            raise ValueError(f"task {self.name!r} has no safe behaviour policy; these have one: {with_one}")
        return make_behaviour(self.behaviour)

    def noisy_controller(self) -> NoiseSettings:
        """Return the untrusted controller.

        Raises:
            ValueError: the task has none.
        """
        if self.untrusted is None:
            with_one = ", ".join(name for name, task in TASKS.items() if task.untrusted is not None)
            raise ValueError(f"task {self.name!r} has no untrusted controller; these have one: {with_one}")
        return self.untrusted

    def world(self, phase: str) -> dict[str, Any]:
        """Return the options of the world in `phase`.

        Raises:
            ValueError: no such phase.
        """
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r} is unknown; known: {', '.join(PHASES)}")
        return self.pretrain if phase == "pretrain" else self.finetune

    def make(self, **options: Any) -> gymnasium.Env:
        """Return the bare world, with `options` for its constructor."""
        import ssql_sim  # noqa: F401 (registers the worlds; only those who simulate need pybullet)

        return gymnasium.make(self.environment, disable_env_checker=True, **options).unwrapped


PHASES = ("pretrain", "finetune")


def _minitaur(name: str, bundle: str = "", goal: float = 0.3, **finetune: Any) -> Task:
    return Task(
        name=name,
        environment="ssql/Minitaur-v0",
        robot="minitaur",
        pretrain={"goal_velocity": goal},
        finetune={"goal_velocity": goal, **finetune},
        # Falls in about nine of ten episodes when nothing protects the robot.
        untrusted=NoiseSettings(gait="A", sigma=0.3, rho=0.85),
        bundle=bundle,
        behaviour={"kind": "trot_mixture", "gaits": ["A", "G4", "G5"], "bound": 0.15, "context": 8},
    )


# Free rectangles of the spider's map, (rows, columns) in m: below and above the pools, left and right of them, between.
SPIDER_ROOMS = (
    ((0.0, 2.0), (0.0, 7.0)),
    ((6.0, 8.0), (0.0, 7.0)),
    ((0.0, 8.0), (0.0, 2.0)),
    ((0.0, 8.0), (3.0, 4.0)),
    ((0.0, 8.0), (5.0, 7.0)),
)


def _spider(
    name: str,
    noise: dict[str, Any] | None = None,
    judged: dict[str, Any] | None = None,
    practice: dict[str, Any] | None = None,
    **finetune: Any,
) -> Task:
    noise = noise or {"action_noise": 0.1}
    return Task(
        name=name,
        environment="ssql/Spider-v0",
        robot="spider",
        pretrain={"goal": (7.5, 3.5), **noise, **(practice or {})},
        finetune={"goal": (6.5, 3.5), **noise, **finetune},
        # The middle of the map and its uniform distribution: the first steps never leave the start's corner.
        behaviour={"kind": "rooms", "rooms": SPIDER_ROOMS, "disturbance": 0.06, "hold": 8, "context": 0},
        centre=(4.0, 3.5),
        spread=(2.3, 2.0),
        judged=judged or {},
    )


def _velocity(robot: str, bundle: str = "") -> Task:
    world = {"robot": robot}
    return Task(f"{robot}_velocity", "ssql/Velocity-v0", robot, pretrain=world, finetune=world, bundle=bundle)


TASKS = {
    task.name: task
    for task in (
        _minitaur("minitaur", bundle="minitaur_critic.safetensors"),
        _minitaur("minitaur_velocity", goal_velocity=0.4),
        _minitaur("minitaur_friction", foot_friction=1.25),
        _minitaur("minitaur_physics", randomise="physics"),
        # Learned from safe trots, the fastest of which makes 0.41 m/s: there is nothing to pre-train on.
        _minitaur("minitaur_trots", bundle="minitaur_critic.safetensors", goal=0.4),
        _spider("spider"),
        # Rewards that do not depend on the clock, which no policy sees: Q can be exact.
        _spider("spider_timeless", noise={"action_noise": 0.1, "timed": False}, judged={"max_steps": 400}),
        # Uniform noise of 0.2 leaves the bridge without risk; that of the authors' public code does not.
        # Pre-training begins anywhere: Q_safe has then seen the bridge and the ways round, which chance seldom finds.
        _spider(
            "spider_threshold",
            noise={"action_noise": 0.2, "noise": "normal"},
            practice={"start_anywhere": True},
        ),
        _spider("spider_noise", randomise="noise"),
        _spider("spider_scale", randomise="scale"),
        # The box's middle, and its uniform distribution.
        Task(
            "boat", "ssql/Boat-v0", "boat", bundle="boat_safefql.safetensors", centre=(-0.5, 0.0), spread=(1.45, 1.15)
        ),
        _velocity("half_cheetah", bundle="half_cheetah_safefql.safetensors"),
        _velocity("swimmer"),
    )
}


def find_task(name: str) -> Task:
    """Return a task by name.

    Raises:
        ValueError: no such task; the text lists those that are known.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is unknown; known: {', '.join(TASKS)}")
    return TASKS[name]
