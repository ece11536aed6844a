"""Rollouts in worker processes: a controller drives a world, with or without the shield in between."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.data.episode import Episode, EpisodeJob
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.rollout import Rollout
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import SafetyCritic, shielding_critic
from ssql_ros.model.proposal import Proposal
from ssql_ros.processes.lifeline import end_with_parent
from ssql_ros.robots.tasks import find_task
from ssql_ros.shield.backup import SafetyFilter
from ssql_ros.shield.decision import Decision, Observation


@lru_cache(maxsize=4)
def _world(task: str, options: tuple[tuple[str, Any], ...]) -> tuple[Any, Contract]:
    """Return the process's own world, made once."""
    found = find_task(task)
    return found.make(**dict(options)), found.contract()


@lru_cache(maxsize=2)
def _critic(bundle: str, task: str) -> SafetyCritic:
    return shielding_critic(load_bundle(bundle, find_task(task).contract()))


def run_episode(job: EpisodeJob) -> Episode:
    """Run one episode in this process."""
    env, contract = _world(job.task, tuple(sorted(job.world.items())))
    critic = _critic(job.bundle, job.task) if job.bundle else None
    controller, draws = find_task(job.task).controller(job.controller), np.random.default_rng(job.seed)
    controller.reset(draws)
    shield = SafetyFilter(contract)
    rng = Stream.SHIELDED_CONTROLLER.generator(job.seed)
    world = Rollout(env, rng)
    world.begin(job.seed)
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, int, float, float]] = []
    distance, incident = 0.0, False
    while not (world.ended or incident):
        observation = world.observation
        drawn = controller.propose(observation, draws)
        proposal, mean = drawn.action, drawn.action if drawn.mean is None else drawn.mean
        action, decision, q_safe, seconds = proposal, -1, np.nan, np.nan
        if critic is not None and job.shield is not None:
            start = time.perf_counter()
            seen, wanted = Observation(observation, 0.0), Proposal(proposal, 0.0)
            verdict = shield.decide(seen, wanted, critic, job.shield, 0.0, rng)
            seconds = time.perf_counter() - start
            decision, q_safe = int(verdict.decision), verdict.q_proposal
            action = verdict.action if job.enforce else proposal
        step = world.step(action)
        steps.append((observation, action, proposal, mean, step.reward, decision, q_safe, seconds))
        distance += world.info.get("velocity", np.nan) * contract.control_period
        # In some worlds an incident does not end the episode; here it does.
        incident = bool(step.incident)
    observations, actions, proposals, means, rewards, decisions, q_safes, times = zip(*steps, strict=True)
    return Episode(
        job=job,
        observations=np.array([*observations, world.observation], np.float32),
        actions=np.array(actions, np.float32),
        proposals=np.array(proposals, np.float32),
        means=np.array([*means, controller.best(world.observation)], np.float32),
        incident=incident,
        rewards=np.array(rewards),
        decisions=np.array(decisions, np.int8),
        q_safe=np.array(q_safes, np.float32),
        decision_times=np.array(times),
        distance=distance,
        period=contract.control_period,
    )


def _begin_worker(parent: int) -> None:
    """Leave Ctrl-C, which a terminal sends to all, to the parent; end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)


class RolloutPool:
    """Worker processes that run episodes; results come in the order of the jobs, whatever the number of workers.

    Args:
        workers: how many; default: one per processor that this process may use.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        # spawn: a forked child would share the parent's physics clients and thread pools.
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(
            self.workers, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),)
        )

    def run(self, jobs: Iterable[EpisodeJob]) -> Iterator[Episode]:
        """Yield the episodes of `jobs`, in their order."""
        yield from self._executor.map(run_episode, jobs)

    def __enter__(self) -> RolloutPool:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        self._executor.shutdown(cancel_futures=True)


def intervened(decisions: np.ndarray) -> np.ndarray:
    """Return which decisions (T,) changed the proposal."""
    return decisions > int(Decision.PASSED)
