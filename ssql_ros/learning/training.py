"""The training loop: one world, one learner, a mask in between where there is one; every algorithm runs through it.

What is counted is what happened to the robot: every episode of collection, and the extra masked episodes of the safety
critic, each with its incident. A run can be stopped at any time and goes on from its last checkpoint, with the same
figures in the end as an unbroken one: checkpoints are made between episodes, and hold networks, optimisers, replay,
generators and the log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from ssql_ros.learning.learner import Learner
from ssql_ros.learning.replay import Transition
from ssql_ros.learning.sac import Mask
from ssql_ros.shield import Decision, Observation, Proposal, decide
from ssql_ros.spec import Contract


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


class Actor(Protocol):
    """What drives a world: a learner, or a policy out of a bundle."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy for an observation (n_observation,)."""

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the policy's most probable action (n_action,)."""


class Driver:
    """Drives one world, an action at a time, through the mask.

    Args:
        rng: of proposals, of the shield's candidates, and of each episode's seed.

    Attributes:
        cost: of the episode so far: the world's own, else 1 for each step that ends in an incident.
    """

    def __init__(self, env: gymnasium.Env, contract: Contract, rng: np.random.Generator, kind: str) -> None:
        self._env, self._contract, self._kind, self.rng = env, contract, kind, rng
        self._observation = np.zeros(0)
        self.between_episodes = True
        self.cost, self._incident = 0.0, False

    def reset(self, actor: Actor, start: np.ndarray | None = None) -> None:
        """Begin an episode, at a position `start` where one is given and the world knows positions."""
        actor.reset(self.rng)
        options = None if start is None else {"position": start}
        self._observation, _ = self._env.reset(seed=int(self.rng.integers(2**31)), options=options)
        self.cost, self._incident = 0.0, False
        self._totals = {"length": 0, "total_reward": 0.0, "intervened": 0, "least_risk": 0}
        self._velocities: list[float] = []
        self.between_episodes = False

    def step(self, propose: Callable[[np.ndarray, np.random.Generator], Proposal], mask: Mask | None) -> Transition:
        """Make one step; return it. `row` tells of the episode once it has ended."""
        observation = self._observation
        proposal = propose(observation, self.rng)
        action, decision = proposal.action, Decision.PASSED
        if mask is not None:
            seen = Observation(observation, 0.0)
            verdict = decide(seen, proposal, mask.critic, self._contract, mask.settings, 0.0, self.rng)
            action, decision = verdict.action, verdict.decision
        following, reward, terminated, truncated, info = self._env.step(action)
        self._totals["length"] += 1
        self._totals["total_reward"] += float(reward)
        self._totals["intervened"] += decision > Decision.PASSED
        self._totals["least_risk"] += decision == Decision.LEAST_RISK
        self._velocities.append(info.get("velocity", float("nan")))
        # In some worlds an incident does not end the episode.
        self._incident |= bool(info["incident"])
        self.cost += float(info.get("cost", info["incident"]))
        self._ending = {"incident": self._incident, "success": bool(info.get("success", False))}
        self._observation, self.between_episodes = following, bool(terminated or truncated)
        return Transition(observation, action, float(reward), following, bool(info["incident"]), bool(terminated))

    def row(self, step: int) -> EpisodeRow:
        """Return the episode that has just ended, for the log."""
        velocity = float(np.mean(self._velocities))
        return EpisodeRow(kind=self._kind, step=step, velocity=velocity, **self._totals, **self._ending)  # type: ignore[arg-type]

    def episode(
        self, actor: Actor, mask: Mask | None, step: int, best: bool = False, start: np.ndarray | None = None
    ) -> list[Transition]:
        """Run one whole episode; `best`: of the policy's most probable actions; `start`: see `reset`."""

        def most_probable(observation: np.ndarray, _: np.random.Generator) -> Proposal:
            return Proposal(actor.best(observation), 0.0)

        self.reset(actor, start)
        transitions = []
        while not self.between_episodes:
            transitions.append(self.step(most_probable if best else actor.propose, mask))
        return transitions


class Training:
    """A run of one learner in one world.

    Args:
        make_world: makes a world of its own at each call: collection and the extra rollouts have one each.
        steps: of collection.
        rows: of the log so far.
    """

    def __init__(
        self,
        learner: Learner,
        make_world: Callable[[], gymnasium.Env],
        contract: Contract,
        steps: int,
        seed: int,
    ) -> None:
        low, high = contract.commanded.low, contract.commanded.high
        if not ((low == -1.0).all() and (high == 1.0).all()):
            raise ValueError(f"{contract.path}: expected action bounds of -1 and 1, got {low} and {high}")
        self.learner, self.steps, self.step = learner, steps, 0
        self.rows: list[EpisodeRow] = []
        collecting, rolling = (np.random.default_rng([seed, i]) for i in range(2))
        self._driver = Driver(make_world(), contract, collecting, "collect")
        self._make_world, self._contract, self._rolling = make_world, contract, rolling
        self._rollout_driver: Driver | None = None

    def run(self) -> Iterator[dict[str, torch.Tensor]]:
        """Make the remaining steps; yield the losses of each, and the log grows in `rows`."""
        while self.step < self.steps:
            if self._driver.between_episodes:
                self._driver.reset(self.learner)
            transition = self._driver.step(self.learner.propose, self.learner.mask(self.step))
            self.step += 1
            self.learner.observe(transition)
            losses = self.learner.learn()
            if masks := self.learner.rollouts_due(self.step):
                losses |= self.learner.observe_rollouts([self._rollout(mask) for mask in masks])
            if self._driver.between_episodes:
                self.rows.append(self._driver.row(self.step))
            yield losses

    def _rollout(self, mask: Mask | None) -> list[Transition]:
        if self._rollout_driver is None:
            self._rollout_driver = Driver(self._make_world(), self._contract, self._rolling, "rollout")
        episode = self._rollout_driver.episode(self.learner, mask, self.step)
        self.rows.append(self._rollout_driver.row(self.step))
        return episode

    @property
    def can_stop(self) -> bool:
        """Return whether this is a place for a checkpoint: the world's own state is in none."""
        return self._driver.between_episodes

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold; only where `can_stop`."""
        return {
            "step": self.step,
            "learner": self.learner.state(),
            "collecting": self._driver.rng.bit_generator.state,
            "rolling": self._rolling.bit_generator.state,
            "rows": [list(asdict(row).values()) for row in self.rows],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.step = state["step"]
        self.learner.restore(state["learner"])
        self._driver.rng.bit_generator.state = state["collecting"]
        self._rolling.bit_generator.state = state["rolling"]
        self.rows = [EpisodeRow(*row) for row in state["rows"]]


def evaluate(
    actor: Actor, env: gymnasium.Env, contract: Contract, mask: Mask | None, episodes: int, seed: int
) -> list[EpisodeRow]:
    """Return the log of `episodes` episodes of the policy's most probable actions, behind the mask if there is one."""
    driver = Driver(env, contract, np.random.default_rng([seed, 2]), "evaluate")
    rows = []
    for _ in range(episodes):
        driver.episode(actor, mask, 0, best=True)
        rows.append(driver.row(0))
    with contextlib.suppress(AttributeError):
        env.close()
    return rows
