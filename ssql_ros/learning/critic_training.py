"""Trains a task's safety critic in simulation: rollouts of the noisy controller, then of the masked one, by rounds.

Like algorithm 1 of SQRL without the actor: a first buffer from the controller under noise of many strengths, falls
included; then, round by round, fresh rollouts of the policy masked by the critic of the round before (D_safe), which
show the critic the states that its own mask leads to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.behaviour.noisy_trot import NoiseSettings
from ssql_ros.bundle import Bundle, ProbabilityCritic, save_bundle
from ssql_ros.learning.calibration import HORIZON, Outcomes, calibration, masked_outcomes, policy_outcomes
from ssql_ros.learning.rollout import Episode, EpisodeJob, RolloutPool
from ssql_ros.learning.sac import NO_CLOCK
from ssql_ros.learning.safety_critic import CriticSettings, SafetyCriticLearner, Transitions, transitions_of
from ssql_ros.probes import with_probes
from ssql_ros.shield import ShieldSettings
from ssql_ros.tasks import Task

CORRELATIONS = (0.0, 0.5, 0.85, 0.95)
# Held-out worlds and controllers draw from seeds that training never uses.
HELD_OUT_SEED = 2**30


@dataclass(frozen=True)
class TrainingPlan:
    """How much is collected and learned.

    Attributes:
        episodes: of the noisy controller, for the first buffer.
        rounds: of masked rollouts.
        masked_episodes: per round.
        updates: gradient steps on the first buffer and in each round.
        held_out_episodes: of each kind, for the figures in the bundle.
        epsilon: threshold that the bundle carries.
    """

    episodes: int = 600
    rounds: int = 3
    masked_episodes: int = 250
    updates: int = 8000
    held_out_episodes: int = 120
    epsilon: float = 0.02
    critic: CriticSettings = field(default_factory=CriticSettings)


def train_critic(task: Task, plan: TrainingPlan, seed: int, provenance: dict[str, Any], show: bool) -> Bundle:
    """Collect, learn and judge; return a bundle that is not saved yet, its figures in `provenance`.

    Args:
        provenance: what else the bundle should say of its making (command, versions).
        show: progress bars on stderr.

    Raises:
        ValueError: a plan that cannot be learned from (no episode, or no incident seen).
    """
    if min(plan.episodes, plan.masked_episodes, plan.updates, plan.held_out_episodes) < 1 or plan.rounds < 0:
        raise ValueError("episodes, masked episodes, updates and held-out episodes must be at least 1, rounds 0")
    contract, rng = task.contract(), np.random.default_rng(seed)
    gamma_safe, lookahead = plan.critic.gamma_safe, plan.critic.lookahead
    with RolloutPool() as pool, tempfile.TemporaryDirectory() as folder:
        jobs = [_noisy_job(task, rng) for _ in range(plan.episodes)]
        episodes = _collect(pool, jobs, "noisy rollouts", show)
        if not any(episode.incident for episode in episodes):
            raise ValueError(f"no incident in {len(episodes)} episodes: there is nothing to learn from; use more")
        data = transitions_of(episodes, gamma_safe, lookahead)
        counts = [_count(episodes)]
        learner = SafetyCriticLearner(data, plan.critic, seed)
        _fit(learner, data, plan.updates, "first critic", show)
        path = ""
        for i in range(1, plan.rounds + 1):
            path = str(Path(folder) / f"round_{i}.safetensors")
            save_bundle(_bundle(contract.id, plan, learner, {}), path)
            jobs = [_masked_job(task, rng, path) for _ in range(plan.masked_episodes)]
            episodes = _collect(pool, jobs, f"round {i}: masked rollouts", show)
            counts.append(_count(episodes))
            data = _joined(data, transitions_of(episodes, gamma_safe, lookahead))
            _fit(learner, data, plan.updates, f"round {i}: critic", show)
        final = str(Path(folder) / "final.safetensors")
        save_bundle(_bundle(contract.id, plan, learner, {}), final)
        held_out = _judge(pool, task, plan, learner, final, show)
    facts = {
        **provenance,
        "task": task.name,
        "seed": seed,
        "plan": asdict(plan),
        "policy": f"bare trot {task.noisy_controller().gait}",
        "data": [dict(zip(("episodes", "steps", "incidents"), count, strict=True)) for count in counts],
        "held_out": held_out,
    }
    return with_probes(_bundle(contract.id, plan, learner, facts), contract)


def _bundle(contract_id: str, plan: TrainingPlan, learner: SafetyCriticLearner, facts: dict[str, Any]) -> Bundle:
    critic = ProbabilityCritic.of(learner.network(), plan.epsilon, plan.critic.gamma_safe)
    return Bundle(contract_id, critic, facts)


def _count(episodes: Sequence[Episode]) -> tuple[int, int, int]:
    return len(episodes), sum(map(len, episodes)), sum(episode.incident for episode in episodes)


def _draw_noise(rng: np.random.Generator, rest: int) -> NoiseSettings:
    """Return noise in bursts with the bare trot in between, so that what follows a disturbance is seen undisturbed."""
    return NoiseSettings(
        sigma=float(rng.uniform(0.1, 1.0)),
        rho=float(rng.choice(CORRELATIONS)),
        burst=int(rng.integers(3, 60)),
        rest=rest,
    )


def _noisy_job(task: Task, rng: np.random.Generator) -> EpisodeJob:
    if rng.random() < 1 / 3:
        noise = NoiseSettings(sigma=float(rng.uniform(0.05, 0.6)), rho=float(rng.choice(CORRELATIONS)))
    else:
        noise = _draw_noise(rng, rest=int(rng.integers(15, 50)))
    return EpisodeJob(task.name, int(rng.integers(HELD_OUT_SEED)), noise)


def _masked_job(task: Task, rng: np.random.Generator, bundle: str) -> EpisodeJob:
    # Thresholds of many sizes: the critic must know both sides of whichever one it will serve at.
    epsilon = float(np.exp(rng.uniform(np.log(0.005), np.log(0.3))))
    noise = task.noisy_controller() if rng.random() < 1 / 3 else _draw_noise(rng, rest=int(rng.integers(15, 50)))
    seed = int(rng.integers(HELD_OUT_SEED))
    return EpisodeJob(task.name, seed, noise, bundle, ShieldSettings(epsilon, NO_CLOCK, NO_CLOCK))


def _collect(pool: RolloutPool, jobs: Sequence[EpisodeJob], what: str, show: bool) -> list[Episode]:
    return list(tqdm(pool.run(jobs), total=len(jobs), desc=what, unit="episode", disable=not show))


def _fit(learner: SafetyCriticLearner, data: Transitions, updates: int, what: str, show: bool) -> None:
    with tqdm(learner.fit(data, updates), total=updates, desc=what, unit="update", disable=not show) as bar:
        for i, loss in enumerate(bar):
            if i % 200 == 0:
                bar.set_postfix(loss=f"{loss:.4f}")


def _joined(first: Transitions, second: Transitions) -> Transitions:
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Transitions(*(np.concatenate(pair) for pair in pairs))


def _judge(
    pool: RolloutPool, task: Task, plan: TrainingPlan, learner: SafetyCriticLearner, bundle: str, show: bool
) -> dict[str, Any]:
    """Return calibration figures on held-out episodes: of pi after disturbances, of the masked policy in service."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + plan.held_out_episodes)
    # A rest longer than the horizon: every disturbance ends in an outcome that is known.
    disturbed = [EpisodeJob(task.name, seed, _draw_noise(rng, rest=HORIZON + 15)) for seed in seeds]
    settings = ShieldSettings(plan.epsilon, NO_CLOCK, NO_CLOCK)
    masked = [EpisodeJob(task.name, seed, task.noisy_controller(), bundle, settings) for seed in seeds]
    gamma_safe = plan.critic.gamma_safe
    outcomes = {
        "policy": policy_outcomes(_collect(pool, disturbed, "held out: policy", show), gamma_safe),
        "masked": masked_outcomes(_collect(pool, masked, "held out: masked", show), gamma_safe),
    }
    return {name: _figures(learner, outcome) for name, outcome in outcomes.items()}


def _figures(learner: SafetyCriticLearner, outcomes: Outcomes) -> dict[str, Any]:
    figures = calibration(learner.q_safe(outcomes.observations, outcomes.actions), outcomes.discounted_incident)
    # JSON has no NaN: an AUC without incidents is not a number to report.
    return {name: None if value != value else value for name, value in figures.items()}


def held_out_figures(provenance: dict[str, Any]) -> Iterable[tuple[str, float]]:
    """Yield the held-out figures of a bundle's provenance by name, e.g. policy_auc."""
    for kind, figures in provenance.get("held_out", {}).items():
        for name in ("n", "incidents", "bias", "ece", "auc"):
            if figures.get(name) is not None:
                yield f"{kind}_{name}", float(figures[name])
