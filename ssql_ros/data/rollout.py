"""Drives a world, step by step and episode after episode: the one loop that all who collect and judge go through."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssql_ros.data.replay import Transition


@dataclass(frozen=True)
class EpisodeRow:
    """One episode in the log.

    Attributes:
        kind: collect, or rollout for one of the safety critic's own.
        step: of training, at its end.
        velocity: m/s, mean over the episode; NaN in a world without one.
        intervened: how many of its steps the mask changed.
        least_risk: how many of those had no safe candidate.
    """

    kind: str
    step: int
    length: int
    total_reward: float
    incident: bool
    success: bool
    velocity: float
    intervened: int
    least_risk: int


class Rollout:
    """Steps of one world, and what its newest episode has come to.

    Args:
        env: of gymnasium's API, whose info says `incident`, and may say `success`, `velocity` [m/s] and `cost`.
        rng: of each episode's seed.

    Attributes:
        observation: the newest.
        ended: whether no episode is going on: the world is new, or its episode is over.
        length, total_reward: of the episode so far.
        incident: whether there was one in it; in some worlds it does not end the episode.
        cost: the world's own, else 1 for each step that ends in an incident.
        info: what the world says of the newest step.
    """

    def __init__(self, env: Any, rng: np.random.Generator) -> None:
        self.env, self.rng = env, rng
        self.observation: Any = np.zeros(0)
        self.ended, self.incident, self.length, self.total_reward, self.cost = True, False, 0, 0.0, 0.0
        self.info: dict[str, Any] = {}
        self._velocities: list[float] = []

    def begin(self, seed: int | None = None, start: np.ndarray | None = None) -> None:
        """Begin an episode.

        Args:
            seed: None: the next one of `rng`.
            start: position to begin at, in a world that knows positions; None: the world's own.
        """
        options = {} if start is None else {"options": {"position": start}}
        seed = int(self.rng.integers(2**31)) if seed is None else seed
        self.observation, self.info = self.env.reset(seed=seed, **options)
        self.ended, self.incident, self.length, self.total_reward, self.cost = False, False, 0, 0.0, 0.0
        self._velocities = []

    def step(self, action: Any) -> Transition:
        """Make one step."""
        before = self.observation
        self.observation, reward, terminated, truncated, self.info = self.env.step(action)
        incident = bool(self.info["incident"])
        self.length += 1
        self.total_reward += float(reward)
        self.incident |= incident
        self.cost += float(self.info.get("cost", incident))
        self._velocities.append(self.info.get("velocity", math.nan))
        self.ended = bool(terminated or truncated)
        return Transition(before, action, float(reward), self.observation, incident, bool(terminated))

    def episode(self, act: Callable[[Any], Any]) -> Iterator[Transition]:
        """Yield what is left of the episode that has begun; `act` returns an observation's action."""
        while not self.ended:
            yield self.step(act(self.observation))

    def steps(self, act: Callable[[Any], Any], begun: Callable[[], None] | None = None) -> Iterator[Transition]:
        """Yield steps without end; `begun` is called when an episode has begun."""
        while True:
            if self.ended:
                self.begin()
                if begun is not None:
                    begun()
            yield self.step(act(self.observation))

    def row(self, kind: str, step: int = 0, intervened: int = 0, least_risk: int = 0) -> EpisodeRow:
        """Return the episode that has just ended, for the log."""
        success, velocity = bool(self.info.get("success", False)), float(np.mean(self._velocities or [math.nan]))
        counts = (kind, step, self.length, self.total_reward)
        return EpisodeRow(*counts, self.incident, success, velocity, intervened, least_risk)
