"""The drunk spider: a point on a map with two pools of lava and a bridge between them."""

from __future__ import annotations

from typing import Any

from ssql_ros.robots.plug import Robot
from ssql_ros.robots.tasks import Task

# Free rectangles of its map, (rows, columns) in m: below and above the pools, left and right of them, between.
ROOMS = (
    ((0.0, 2.0), (0.0, 7.0)),
    ((6.0, 8.0), (0.0, 7.0)),
    ((0.0, 8.0), (0.0, 2.0)),
    ((0.0, 8.0), (3.0, 4.0)),
    ((0.0, 8.0), (5.0, 7.0)),
)


def _world(**options: Any) -> Any:
    from ssql_sim import SpiderEnv

    return SpiderEnv(**options)


def _map() -> Any:
    from ssql_ros.robots.spider.map import SpiderMap

    return SpiderMap()


def _task(
    name: str,
    noise: dict[str, Any] | None = None,
    judged: dict[str, Any] | None = None,
    practice: dict[str, Any] | None = None,
    **finetune: Any,
) -> Task:
    noise = noise or {"action_noise": 0.1}
    return Task(
        name=name,
        robot="spider",
        pretrain={"goal": (7.5, 3.5), **noise, **(practice or {})},
        finetune={"goal": (6.5, 3.5), **noise, **finetune},
        behaviour={"kind": "rooms", "rooms": ROOMS, "disturbance": 0.06, "hold": 8, "context": 0},
        # The middle of the map and its uniform distribution: the first steps never leave the start's corner.
        centre=(4.0, 3.5),
        spread=(2.3, 2.0),
        judged=judged or {},
    )


ROBOT = Robot(
    name="spider",
    make_world=_world,
    tasks=(
        _task("spider"),
        # Rewards that do not depend on the clock, which no policy sees: Q can be exact.
        _task("spider_timeless", noise={"action_noise": 0.1, "timed": False}, judged={"max_steps": 400}),
        # Uniform noise of 0.2 leaves the bridge without risk; that of the authors' public code does not.
        # Pre-training begins anywhere: Q_safe has then seen the bridge and the ways round, which chance seldom finds.
        _task("spider_threshold", {"action_noise": 0.2, "noise": "normal"}, practice={"start_anywhere": True}),
        _task("spider_noise", randomise="noise"),
        _task("spider_scale", randomise="scale"),
    ),
    map=_map,
)
