"""The boat: a point in a current, with two rocks."""

from __future__ import annotations

from functools import partial

from ssql_ros.robots.boat.pilots import PILOTS, Pilot
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.plug import Robot, lazily
from ssql_ros.robots.tasks import Task

ROBOT = Robot(
    name="boat",
    make_world=lazily("ssql_sim:BoatEnv"),
    tasks=(
        Task(
            name="boat",
            robot="boat",
            untrusted=Noise("seeker", sigma=0.0),
            bundle="boat_safefql.safetensors",
            # The box's middle, and its uniform distribution.
            centre=(-0.5, 0.0),
            spread=(1.45, 1.15),
        ),
    ),
    controllers={"turns": partial(Pilot, ""), **{name: partial(Pilot, name) for name in PILOTS}},
    log=lazily("ssql_ros.robots.boat.truth:boat_log"),
    episodes=2500,
    truth=lazily("ssql_ros.robots.boat.truth:BoatTruth"),
)
