"""Trains a task's safety critic in simulation: rollouts of the noisy controller, then of the masked one, by rounds.

Like algorithm 1 of SQRL without the actor: a first buffer from the controller under noise of many strengths, falls
included; then, round by round, fresh rollouts of the policy masked by the critic of the round before (D_safe), which
show the critic the states that its own mask leads to.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.algorithms.sac import NO_CLOCK
from ssql_ros.algorithms.safety_critic import CriticSettings, SafetyCriticLearner, Transitions, transitions_of
from ssql_ros.data.episode import Episode, EpisodeJob
from ssql_ros.evaluation.calibration import HORIZON, SHOWN, Outcomes, calibration, masked_outcomes, policy_outcomes
from ssql_ros.evaluation.rollout import RolloutPool
from ssql_ros.model.bundle import Bundle, ProbabilityCritic, save_bundle
from ssql_ros.model.domain import Domain, fitted_domain
from ssql_ros.model.probes import with_probes
from ssql_ros.nn.checkpoint import CheckpointError, check_resumable, load_checkpoint, save_checkpoint
from ssql_ros.processes.interrupts import Interrupted, Stop, noting
from ssql_ros.robots.adversaries import Adversary, drawn
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.tasks import Task
from ssql_ros.shield.decision import ShieldSettings
from ssql_ros.training.settings import checked_settings

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
        backup: learn Q_safe of the task's backup, from adversaries; False: of the bare controller.
        steps: of an episode at most, with the backup; 0: the world's own.
    """

    episodes: int = 600
    rounds: int = 3
    masked_episodes: int = 250
    updates: int = 8000
    held_out_episodes: int = 120
    epsilon: float = 0.02
    backup: bool = False
    steps: int = 250
    critic: CriticSettings = field(default_factory=CriticSettings)


def critic_settings(backup: bool, gamma_safe: float, changed: dict[str, Any]) -> CriticSettings:
    """Return how a critic learns in simulation. Raises ValueError: no such setting in `changed`, or of another type."""
    # The backup is followed for longer than a controller between two disturbances, and late: see `transitions_of`.
    own = {"lookahead": 25, "delay": 5.0, "batch": 512, "learning_rate": 5e-4} if backup else {}
    settings: CriticSettings = checked_settings("critic", CriticSettings(gamma_safe=gamma_safe), own, changed)
    if settings.delay < 1.0:
        raise ValueError(f"setting delay: expected at least 1 step, got {settings.delay:g}")
    return settings


def train_critic(
    task: Task, plan: TrainingPlan, seed: int, provenance: dict[str, Any], show: bool, checkpoint: Path | None = None
) -> Bundle:
    """Collect, learn and judge; return a bundle that is not saved yet, its figures in `provenance`.

    Args:
        provenance: what else the bundle should say of its making (command, versions).
        show: progress bars on stderr.
        checkpoint: file to resume from where it is there, and to write; None: none.

    Raises:
        ValueError: a plan that cannot be learned from (no episode, or no incident seen).
        CheckpointError: the checkpoint is another training's, or damaged, or cannot be written.
        Interrupted: a signal came; the checkpoint has what was collected and learned.
    """
    if plan.backup and not task.backup:
        raise ValueError(f"--backup: task {task.name!r} has no backup")
    if min(plan.episodes, plan.masked_episodes, plan.updates, plan.held_out_episodes) < 1 or plan.rounds < 0:
        raise ValueError("episodes, masked episodes, updates and held-out episodes must be at least 1, rounds 0")
    training = CriticTraining(task, plan, seed, checkpoint)
    with RolloutPool() as pool, tempfile.TemporaryDirectory() as folder, noting("this episode or update") as stop:
        while training.stage <= plan.rounds:
            training.collect(pool, str(Path(folder) / f"round_{training.stage}.safetensors"), stop, show)
            training.fit(stop, show)
        final = str(Path(folder) / "final.safetensors")
        save_bundle(_bundle(task, plan, training.learner, {}), final)
        held_out, domain = _judge(pool, task, plan, training, final, stop, show)
    facts = {
        **provenance,
        "task": task.name,
        "seed": seed,
        "plan": asdict(plan),
        "policy": "backup" if plan.backup else f"bare controller {task.noisy_controller().controller}",
        "data": [dict(zip(("episodes", "steps", "incidents"), count, strict=True)) for count in training.counts],
        "held_out": held_out,
    }
    return with_probes(_bundle(task, plan, training.learner, facts, domain), task.contract())


class CriticTraining:
    """How far a training has come, all of it in a checkpoint: stages 0 to `rounds`, each collects and then learns.

    Attributes:
        stage: the current one.
        counts: of each stage's data so far: episodes, steps, incidents.
        learner: there once stage 0 has its data.
    """

    learner: SafetyCriticLearner

    def __init__(self, task: Task, plan: TrainingPlan, seed: int, path: Path | None) -> None:
        self._task, self._plan, self._seed, self._path = task, plan, seed, path
        self._rng, self.stage, self.counts = np.random.default_rng(seed), 0, [[0, 0, 0]]
        self._data: Transitions | None = None
        self._drawn = self._rng.bit_generator.state  # before the jobs of this stage
        if path is not None and path.exists():
            self._restore(path)

    def collect(self, pool: RolloutPool, bundle: str, stop: Stop, show: bool) -> None:
        """Run what is left of this stage's episodes. `bundle`: where to put the critic that masks them."""
        plan, task, count = self._plan, self._task, self.counts[-1]
        if self.stage == 0:
            jobs, what = [_free_job(task, plan, self._rng) for _ in range(plan.episodes)], "free rollouts"
        else:
            jobs = [_masked_job(task, plan, self._rng, bundle) for _ in range(plan.masked_episodes)]
            what = f"round {self.stage}: masked rollouts"
        done = count[0]
        if self.stage and done < len(jobs):
            save_bundle(_bundle(task, plan, self.learner, {}), bundle)
        bar = tqdm(total=len(jobs), initial=done, desc=what, unit="episode", disable=not show)
        fresh: list[Episode] = []
        with bar:
            for episode in pool.run(jobs[done:]):
                fresh.append(episode)
                bar.update()
                if stop:
                    self._take(fresh)
                    self._interrupt(stop, f"{count[0]} of {len(jobs)} {what}")
        self._take(fresh)
        if not self.counts[0][2]:
            raise ValueError(f"no incident in {self.counts[0][0]} episodes: there is nothing to learn from; use more")
        if self.stage == 0 and not hasattr(self, "learner"):
            assert self._data is not None
            self.learner = SafetyCriticLearner(self._data, plan.critic, self._seed)
        self.save()

    def _take(self, episodes: Sequence[Episode]) -> None:
        if not episodes:
            return
        count, settings = self.counts[-1], self._plan.critic
        seed = int(sum(map(sum, self.counts)))
        new = transitions_of(episodes, settings.gamma_safe, settings.lookahead, settings.delay, seed)
        self._data = new if self._data is None else _joined(self._data, new)
        count[:] = [a + b for a, b in zip(count, _count(episodes), strict=True)]

    def fit(self, stop: Stop, show: bool) -> None:
        """Make what is left of this stage's updates, and begin the next stage."""
        assert self._data is not None
        updates, learner = self._plan.updates, self.learner
        what = f"round {self.stage}: critic" if self.stage else "first critic"
        left = learner.fit(self._data, updates)
        with tqdm(left, total=updates, initial=learner.fitted, desc=what, unit="update", disable=not show) as bar:
            for i, loss in enumerate(bar):
                if i % 200 == 0:
                    bar.set_postfix(loss=f"{loss:.4f}")
                if stop and learner.fitted < updates:
                    self._interrupt(stop, f"{learner.fitted} of {updates} updates of the {what}")
        self.stage += 1
        self._drawn = self._rng.bit_generator.state
        if self.stage <= self._plan.rounds:
            self.counts.append([0, 0, 0])
        self.save()
        if stop:
            self._interrupt(stop, f"the {what}")

    def judged(self, outcome: Iterable[Episode], stop: Stop) -> Iterable[Episode]:
        """Pass the held-out episodes on, which begin anew after an interruption."""
        for episode in outcome:
            if stop:
                self._interrupt(stop, "the last critic, not yet judged,")
            yield episode

    def domain(self, held_out: np.ndarray) -> Domain:
        """Return where it was trained, with the limit from observations (N, n_observation) that were not."""
        assert self._data is not None
        return fitted_domain(self._data.observations, held_out)

    def _interrupt(self, stop: Stop, what: str) -> None:
        self.save()
        raise Interrupted(stop.number, f"{what} are in {self._path}" if self._path else "")

    # The checkpoint.

    def _config(self) -> dict[str, Any]:
        return json.loads(json.dumps({"task": self._task.name, "seed": self._seed, "plan": asdict(self._plan)}))

    def save(self) -> None:
        """Write the checkpoint."""
        if self._path is None:
            return
        has = hasattr(self, "learner")
        state = {
            "config": self._config(),
            "stage": self.stage,
            "counts": self.counts,
            "drawn": self._drawn,
            "data": vars(self._data) if self._data is not None else {},
            "learner": self.learner.state() if has else {},
        }
        save_checkpoint(self._path, state)

    def _restore(self, path: Path) -> None:
        check_resumable(path)
        state = load_checkpoint(path)
        try:
            if (found := state["config"]) != self._config():
                raise CheckpointError(
                    f"{path}: is of another training ({found}); delete it, or write to another file with --out"
                )
            self.stage, self.counts, self._drawn = state["stage"], state["counts"], state["drawn"]
            self._rng.bit_generator.state = self._drawn
            if state["data"]:
                self._data = Transitions(**{name: value.numpy() for name, value in state["data"].items()})
            if state["learner"]:
                assert self._data is not None
                self.learner = SafetyCriticLearner(self._data, self._plan.critic, self._seed)
                self.learner.restore(state["learner"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path}: is not a checkpoint of this training: {error}") from error


def _bundle(
    task: Task, plan: TrainingPlan, learner: SafetyCriticLearner, facts: dict[str, Any], domain: Domain | None = None
) -> Bundle:
    backup = task.backup if plan.backup else None
    critic = ProbabilityCritic.of(learner.network(), plan.epsilon, plan.critic.gamma_safe, backup, domain)
    return Bundle(task.contract().id, critic, facts)


def _count(episodes: Sequence[Episode]) -> tuple[int, int, int]:
    return len(episodes), sum(map(len, episodes)), sum(episode.incident for episode in episodes)


def _draw_noise(task: Task, rng: np.random.Generator, rest: int) -> Noise:
    """Return noise in bursts, the bare controller in between: what follows a disturbance is seen undisturbed."""
    return Noise(
        task.noisy_controller().controller,
        sigma=float(rng.uniform(0.1, 1.0)),
        rho=float(rng.choice(CORRELATIONS)),
        burst=int(rng.integers(3, 60)),
        rest=rest,
    )


def _adversary(task: Task, plan: TrainingPlan, rng: np.random.Generator, rest: int) -> tuple[Adversary, dict[str, Any]]:
    """Return an adversary and the options of the world that it meets."""
    world = dict(task.met[int(rng.integers(len(task.met)))])
    if plan.steps:
        world["max_steps"] = plan.steps
    return drawn(rng, tuple(task.plug.controllers), rest), world


def _free_job(task: Task, plan: TrainingPlan, rng: np.random.Generator) -> EpisodeJob:
    """Return an episode without a shield: in most of them what Q_safe is of takes over now and then."""
    if plan.backup:
        rest = 0 if rng.random() < 0.25 else int(rng.integers(15, 50))
        adversary, world = _adversary(task, plan, rng, rest)
        return EpisodeJob(task.name, int(rng.integers(HELD_OUT_SEED)), adversary, world=world)
    if rng.random() < 1 / 3:
        name = task.noisy_controller().controller
        noise = Noise(name, sigma=float(rng.uniform(0.05, 0.6)), rho=float(rng.choice(CORRELATIONS)))
    else:
        noise = _draw_noise(task, rng, rest=int(rng.integers(15, 50)))
    return EpisodeJob(task.name, int(rng.integers(HELD_OUT_SEED)), noise)


def _masked_job(task: Task, plan: TrainingPlan, rng: np.random.Generator, bundle: str) -> EpisodeJob:
    # Thresholds of many sizes: the critic must know both sides of whichever one it will serve at.
    epsilon = float(np.exp(rng.uniform(np.log(0.005), np.log(0.3))))
    settings, world = ShieldSettings(epsilon, NO_CLOCK, NO_CLOCK), dict[str, Any]()
    who: Noise | Adversary = task.noisy_controller()
    if plan.backup:
        adversary, world = _adversary(task, plan, rng, rest=0)
        who = Adversary("noise", noise=task.noisy_controller()) if rng.random() < 0.2 else adversary
    elif rng.random() >= 1 / 3:
        who = _draw_noise(task, rng, rest=int(rng.integers(15, 50)))
    return EpisodeJob(task.name, int(rng.integers(HELD_OUT_SEED)), who, bundle, settings, world=world)


def _joined(first: Transitions, second: Transitions) -> Transitions:
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Transitions(*(np.concatenate(pair) for pair in pairs))


def _judge(
    pool: RolloutPool,
    task: Task,
    plan: TrainingPlan,
    training: CriticTraining,
    bundle: str,
    stop: Stop,
    show: bool,
) -> tuple[dict[str, Any], Domain]:
    """Return calibration figures on held-out episodes, and how far those lie from the training's observations.

    Figures are of pi after disturbances, and of the masked policy in service.
    """
    rng = np.random.default_rng(HELD_OUT_SEED)
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + plan.held_out_episodes)
    # A rest longer than the horizon: every disturbance ends in an outcome that is known.
    rest = HORIZON + 15
    if plan.backup:
        met = [_adversary(task, replace(plan, steps=0), rng, rest) for _ in seeds]
        disturbed = [
            EpisodeJob(task.name, seed, who, world=world) for seed, (who, world) in zip(seeds, met, strict=True)
        ]
    else:
        disturbed = [EpisodeJob(task.name, seed, _draw_noise(task, rng, rest)) for seed in seeds]
    settings = ShieldSettings(plan.epsilon, NO_CLOCK, NO_CLOCK)
    masked = [EpisodeJob(task.name, seed, task.noisy_controller(), bundle, settings) for seed in seeds]
    gamma_safe = plan.critic.gamma_safe

    def episodes(jobs: Sequence[EpisodeJob], what: str) -> list[Episode]:
        ran = training.judged(pool.run(jobs), stop)
        return list(tqdm(ran, total=len(jobs), desc=f"held out: {what}", unit="episode", disable=not show))

    outcomes = {
        "policy": policy_outcomes(episodes(disturbed, "policy"), gamma_safe),
        "masked": masked_outcomes(episodes(masked, "masked"), gamma_safe),
    }
    figures = {name: _figures(training.learner, outcome) for name, outcome in outcomes.items()}
    return figures, training.domain(np.concatenate([outcome.observations for outcome in outcomes.values()]))


def _figures(learner: SafetyCriticLearner, outcomes: Outcomes) -> dict[str, Any]:
    figures = calibration(learner.q_safe(outcomes.observations, outcomes.actions), outcomes.discounted_incident)
    # JSON has no NaN: an AUC without incidents is not a number to report.
    return {name: None if value != value else value for name, value in figures.items()}


def held_out_figures(provenance: dict[str, Any]) -> Iterable[tuple[str, float]]:
    """Yield the held-out figures of a bundle's provenance by name, e.g. policy_auc."""
    for kind, figures in provenance.get("held_out", {}).items():
        for name in SHOWN:
            if figures.get(name) is not None:
                yield f"{kind}_{name}", float(figures[name])
