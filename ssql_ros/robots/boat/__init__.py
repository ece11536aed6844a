"""The boat: a point in a current, with two rocks."""

from __future__ import annotations

from functools import partial
from typing import Any

from ssql_ros.robots.boat.pilots import PILOTS, Pilot
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.plug import Robot
from ssql_ros.robots.tasks import Task


def _world(**options: Any) -> Any:
    from ssql_sim import BoatEnv

    return BoatEnv(**options)


def _log(episodes: int, seed: int, show: bool) -> Any:
    from ssql_ros.robots.boat.truth import boat_log

    return boat_log(episodes, seed, show)


def _truth() -> Any:
    from ssql_ros.robots.boat.truth import BoatTruth

    return BoatTruth()


ROBOT = Robot(
    name="boat",
    make_world=_world,
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
    log=_log,
    episodes=2500,
    truth=_truth,
)
