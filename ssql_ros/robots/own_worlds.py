"""Tasks that nobody wrote: `env:WORLD`, any continuous gymnasium world (see ssql_sim.foreign), with its own contract.

Its contract is that of plain vectors (contract.vectors). A worker process finds the task by its name, as any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.contract_file import read_contract
from ssql_ros.contract.vectors import vectors_document, vectors_text
from ssql_ros.robots.noise import Noise, Scripted
from ssql_ros.robots.plug import Robot, lazily
from ssql_ros.robots.tasks import ENV, Task

# A margin is a length, an excess, or -1 and 1 where the world has costs alone: one of those seldom seen is not huge.
MARGIN_SPREAD = 0.3
# Held by nobody's design: what an untrusted controller of a world is of which only its spaces are known.
UNTRUSTED = Noise("neutral", sigma=1.0, rho=0.9)


class Neutral(Scripted):
    """Always the action that commands nothing, or as little as the bounds allow."""

    def __init__(self, contract: Contract) -> None:
        self._action = contract.safe_action

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return that action (n_action,)."""
        return self._action


@dataclass(frozen=True)
class WorldTask(Task):
    """The task of a world that is known by its name alone; see `own_world`."""

    world_name: str = ""

    @property
    def plug(self) -> Robot:
        """Return its robot, which has this task only."""
        make = partial(lazily("ssql_sim.foreign:ForeignEnv"), world=self.world_name)
        return Robot(self.robot, make, (self,), controllers={"neutral": Neutral}, episodes=90)

    def bounded_scale(self, scale: np.ndarray) -> np.ndarray:
        """Return the scale of states (n_state,), nowhere too small, that of the margin in them above all."""
        scale, margin = super().bounded_scale(scale), self.contract().observation_size - 1
        scale[margin] = max(scale[margin], MARGIN_SPREAD)
        return scale

    def contract(self) -> Contract:
        """Return the contract that its spaces give."""
        return read_contract(_document(self.world_name, self.robot), self.name)

    def contract_text(self) -> str:
        """Return that contract as YAML, which a shield reads."""
        return vectors_text(_document(self.world_name, self.robot), f"`--env {self.world_name}`")


def own_world(name: str) -> WorldTask:
    """Return the task `env:WORLD`; the world itself is only made where something of it is asked for."""
    world = name.removeprefix(ENV)
    robot = "env_" + re.sub(r"\W+", "_", world).strip("_").lower()
    return WorldTask(name, robot, untrusted=UNTRUSTED, world_name=world)


@lru_cache(maxsize=8)
def _document(world: str, robot: str) -> dict[str, Any]:
    """Return the contract as its YAML has it. Raises ValueError: no such world, or spaces that are none of numbers."""
    made = lazily("ssql_sim.foreign:ForeignEnv")(world=world)
    made.close()
    n = made.observation_space.shape[0] - 1
    return vectors_document(robot, n, made.low, made.high, made.control_period)
