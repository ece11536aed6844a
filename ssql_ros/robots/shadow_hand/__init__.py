"""The Shadow Hand, palm up: it is to turn a cube without dropping it."""

from __future__ import annotations

from typing import Any

from ssql_ros.model.backup import Backup
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.plug import Robot, lazily
from ssql_ros.robots.shadow_hand.body import ShadowHandBody
from ssql_ros.robots.shadow_hand.cup import CUP, Cup, CupHold
from ssql_ros.robots.shadow_hand.turning import CubeTurning
from ssql_ros.robots.tasks import Task

# Drops the cube in nearly every episode when nothing protects it.
WILD = Noise("cup", sigma=0.8, rho=0.8)

TURNING = {"kind": "cube_turning", "bound": 0.05, "context": 1}
HOLD = {"kind": "cup_hold", "bound": 0.1}


# Those that the safe behaviour policy gets to; for the others it holds the cube.
GOALS = ("x+", "z+")


def _task(name: str, behaviour: dict[str, Any], **finetune: Any) -> Task:
    world = {"goals": GOALS}
    return Task(
        name,
        "shadow_hand",
        world,
        {**world, **finetune},
        WILD,
        bundle="shadow_hand_critic.safetensors",
        # What lies in the cup is not dropped. At once: among 20 numbers no safe ones are found near unsafe ones.
        backup=Backup(tuple(map(float, CUP)), most=0),
        met=({}, {}, {"randomise": "physics"}),
        worlds={"as modelled": {}, "random physics": {"randomise": "physics"}},
        behaviour=behaviour,
    )


ROBOT = Robot(
    name="shadow_hand",
    make_world=lazily("ssql_sim:CubeEnv"),
    tasks=(
        _task("cube", TURNING, turn=2.2, goals=(*GOALS, "x-", "z-")),
        _task("cube_hold", HOLD),
        _task("cube_physics", TURNING, randomise="physics"),
    ),
    behaviours={"cube_turning": CubeTurning, "cup_hold": CupHold},
    controllers={"cup": Cup},
    body=ShadowHandBody,
)
