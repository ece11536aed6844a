"""Robots of gymnasium's MuJoCo family with a speed limit: what they have in common."""

from __future__ import annotations

from functools import partial
from typing import Any

from ssql_ros.robots.plug import Robot
from ssql_ros.robots.tasks import Task


def _world(robot: str, **options: Any) -> Any:
    from ssql_sim import VelocityEnv

    return VelocityEnv(robot=robot, **options)


def limited(name: str, bundle: str = "") -> Robot:
    """Return a robot of ssql_sim.velocity; nobody has a controller for one."""
    return Robot(name, partial(_world, name), (Task(f"{name}_velocity", name, bundle=bundle),), episodes=150)
