"""Robots of gymnasium's MuJoCo family with a speed limit: what they have in common."""

from __future__ import annotations

from functools import partial

from ssql_ros.robots.plug import Robot, lazily
from ssql_ros.robots.tasks import Task


def limited(name: str, bundle: str = "") -> Robot:
    """Return a robot of ssql_sim.velocity; nobody has a controller for one."""
    world = partial(lazily("ssql_sim:VelocityEnv"), robot=name)
    return Robot(name, world, (Task(f"{name}_velocity", name, bundle=bundle),), episodes=150)
