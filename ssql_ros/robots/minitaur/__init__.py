"""The Minitaur: a quadruped of eight motors that is to walk without falling."""

from __future__ import annotations

from functools import partial
from typing import Any

from ssql_ros.model.backup import Backup
from ssql_ros.robots.minitaur.body import MinitaurBody
from ssql_ros.robots.minitaur.trot import GAITS, ScriptedTrot
from ssql_ros.robots.minitaur.trot_mixture import TrotMixture
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.plug import Robot, lazily
from ssql_ros.robots.tasks import Task

# Falls in about nine of ten episodes when nothing protects the robot.
WILD = Noise("A", sigma=0.3, rho=0.85)


def _task(name: str, goal: float = 0.3, bundle: str = "", first_bundle: str = "", **finetune: Any) -> Task:
    return Task(
        name=name,
        robot="minitaur",
        pretrain={"goal_velocity": goal},
        finetune={"goal_velocity": goal, **finetune},
        untrusted=WILD,
        bundle=bundle,
        foreign_bundle="minitaur_backup.safetensors",
        first_bundle=first_bundle,
        # Legs drawn in: the lower, the harder to tip over.
        backup=Backup((0.0, 0.0, 0.0, 0.0, -0.9, -0.9, -0.9, -0.9), most=8, dwell=25, history=250),
        met=({}, {"randomise": "physics"}, {"randomise": "physics"}, {"randomise": "friction"}),
        worlds={
            "as modelled": {},
            "friction 0.5": {"foot_friction": 0.5},
            "friction 1.25": {"foot_friction": 1.25},
            "mass + 20 %": {"base_mass": 1.2},
            "random physics": {"randomise": "physics"},
        },
        behaviour={"kind": "trot_mixture", "gaits": ["A", "G4", "G5"], "bound": 0.15, "context": 8},
    )


ROBOT = Robot(
    name="minitaur",
    make_world=lazily("ssql_sim:MinitaurEnv"),
    tasks=(
        _task("minitaur", bundle="minitaur_critic.safetensors"),
        _task("minitaur_velocity", goal_velocity=0.4),
        _task("minitaur_friction", foot_friction=1.25),
        _task("minitaur_physics", randomise="physics"),
        # Learned from safe trots, the fastest of which makes 0.41 m/s: there is nothing to pre-train on.
        _task("minitaur_trots", 0.4, "minitaur_critic.safetensors", "minitaur_trots.safetensors"),
    ),
    behaviours={"trot_mixture": TrotMixture},
    controllers={name: partial(ScriptedTrot, name) for name in GAITS},
    body=MinitaurBody,
)
