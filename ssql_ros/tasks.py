"""Tasks by name: which world, which contract, and which controller is not to be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from ssql_ros.behaviour.noisy_trot import NoiseSettings
from ssql_ros.spec import Contract, config_folder, find_contract, load_contract


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        environment: gymnasium id of its world.
        robot: name of its contract.
        untrusted: the controller that the shield is judged on.
        bundle: file name of the shipped safety critic, in config/bundles.
    """

    name: str
    environment: str
    robot: str
    untrusted: NoiseSettings
    bundle: str

    def contract(self) -> Contract:
        """Return the robot's contract."""
        return load_contract(find_contract(self.robot))

    def bundle_path(self) -> Path:
        """Return the path of the shipped safety critic."""
        return config_folder() / "bundles" / self.bundle

    def make(self, **options: Any) -> gymnasium.Env:
        """Return the bare world, with `options` for its constructor."""
        import ssql_sim  # noqa: F401 (registers the worlds; only those who simulate need pybullet)

        return gymnasium.make(self.environment, disable_env_checker=True, **options).unwrapped


TASKS = {
    "minitaur": Task(
        name="minitaur",
        environment="ssql/Minitaur-v0",
        robot="minitaur",
        # Falls in about nine of ten episodes when nothing protects the robot.
        untrusted=NoiseSettings(gait="A", sigma=0.3, rho=0.85),
        bundle="minitaur_critic.safetensors",
    ),
}


def find_task(name: str) -> Task:
    """Return a task by name.

    Raises:
        ValueError: no such task; the text lists those that are known.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is unknown; known: {', '.join(TASKS)}")
    return TASKS[name]
