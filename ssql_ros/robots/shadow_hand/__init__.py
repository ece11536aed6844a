"""The Shadow Hand, palm up: it is to turn a cube without dropping it."""

from __future__ import annotations

from ssql_ros.robots.noise import Noise
from ssql_ros.robots.plug import Robot, lazily
from ssql_ros.robots.shadow_hand.body import ShadowHandBody
from ssql_ros.robots.shadow_hand.cup import Cup, CupHold
from ssql_ros.robots.tasks import Task

# Drops the cube in nearly every episode when nothing protects it.
WILD = Noise("cup", sigma=0.8, rho=0.8)

ROBOT = Robot(
    name="shadow_hand",
    make_world=lazily("ssql_sim:CubeEnv"),
    tasks=(
        Task(
            name="cube",
            robot="shadow_hand",
            finetune={"turn": 2.2},
            untrusted=WILD,
            behaviour={"kind": "cup_hold", "bound": 0.1},
        ),
    ),
    behaviours={"cup_hold": CupHold},
    controllers={"cup": Cup},
    body=ShadowHandBody,
)
