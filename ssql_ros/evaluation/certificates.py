"""Certifies a bundle with a critic of margins: rolls its policy out from held-out states and moves its threshold."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.evaluation.conformal import Certificate, calibrated, in_words, states_needed, thresholds
from ssql_ros.evaluation.driver import Driver
from ssql_ros.model.bundle import Bundle, BundleError, MarginCritic
from ssql_ros.model.policy import OneStepFlow
from ssql_ros.model.served_network import q_values
from ssql_ros.robots.tasks import Task

# States whose scores alone, without episodes, fix the sequence of thresholds.
SEQUENCE_STATES = 2000


def scores_of(bundle: Bundle, observations: np.ndarray) -> np.ndarray:
    """Return V_c(s) = Q_c(s, mu(s, 0)) (N,) of observations (N, n_observation): what the shield holds against delta."""
    actions = OneStepFlow(bundle).at(observations, np.zeros((len(observations), _n_action(bundle))))
    return q_values(bundle.need("critic"), observations, actions).max(axis=0)


def certify(
    bundle: Bundle, task: Task, states: int, epsilon: float, beta: float, seed: int, show: bool = False
) -> tuple[Bundle, Certificate]:
    """Return the bundle with delta and certificate; it is not saved. Episodes are of the policy alone, z = 0.

    Raises:
        BundleError: the bundle has no critic of margins, or no policy of one step.
        ValueError: no states, or no state that the critic takes for safe.
    """
    critic = bundle.critic
    if not isinstance(critic, MarginCritic) or bundle.policy_kind != "one_step_flow":
        found = f"{bundle.rule.name.lower()}, {bundle.policy_kind}"
        raise BundleError(f"{bundle.path}: expected a critic of margins and a policy one_step_flow, got {found}")
    if states < 1:
        raise ValueError(f"states: expected at least 1, got {states}")
    before = _initial_states(task, SEQUENCE_STATES, np.random.default_rng([seed, 0]))
    sequence = thresholds(scores_of(bundle, before))
    drawn, unsafe = _outcomes(bundle, task, states, np.random.default_rng([seed, 1]), show)
    scores = scores_of(bundle, drawn)
    certificate = calibrated(scores, unsafe, sequence, epsilon, beta)
    statement = in_words(certificate)
    if not math.isfinite(certificate.delta):
        needed = states_needed(scores, unsafe, sequence, epsilon, beta)
        statement += (
            f" About {needed} states like these would do: --states {needed}."
            if needed
            else " More states like these would not do: even of those that score lowest too many were unsafe, or none "
            "scores low. Train on, or ask for less with a larger --epsilon-s."
        )
    # None: nothing is certified, and nothing may pass.
    delta = certificate.delta if math.isfinite(certificate.delta) else None
    kept: dict[str, Any] = {
        "kind": "split_conformal",
        **asdict(certificate),
        "delta": delta,
        "epsilon_s": epsilon,
        "beta_s": beta,
        "statement": statement,
        "states": task.plug.truth().states if task.plug.truth else "the world's own initial states",
        "task": task.name,
        "seed": seed,
    }
    return replace(bundle, critic=replace(critic, delta=delta, certificate=kept)), certificate


def _n_action(bundle: Bundle) -> int:
    return bundle.need("policy").members[0][-1].bias.size


def _initial_states(task: Task, count: int, rng: np.random.Generator) -> np.ndarray:
    if task.plug.truth:
        return task.plug.truth().initial(count, rng)
    env = task.make(**task.world("finetune"))
    return np.array([env.reset(seed=int(rng.integers(2**31)))[0] for _ in range(count)])


def _outcomes(
    bundle: Bundle, task: Task, count: int, rng: np.random.Generator, show: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return initial states (N, n_observation), and whether the policy's episode from each was unsafe (N,)."""
    policy = OneStepFlow(bundle)
    if task.plug.truth:
        truth = task.plug.truth()
        starts, n_action = truth.initial(count, rng), _n_action(bundle)
        act = lambda seen: policy.at(seen, np.zeros((len(seen), n_action)))  # noqa: E731
        return starts, truth.worst(starts, act, show) > 0.0
    driver = Driver(task.make(**task.world("finetune")), task.contract(), rng, "calibrate")
    seen, incidents = [], []
    for _ in tqdm(range(count), unit="episode", disable=not show):
        seen.append(driver.episode(policy, None, 0, best=True)[0].observation)
        incidents.append(driver.row(0).incident)
    return np.array(seen), np.array(incidents)
