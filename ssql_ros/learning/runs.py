"""A run on disk: its configuration, checkpoint, log, curves and what it made, in one folder that `ssql report` reads.

config.json             algorithm, task, phase, steps, seed, every setting, arithmetic, command, versions
checkpoint.safetensors  the newest one, replaced whole
episodes.csv            one line per episode
tensorboard/            losses and episodes
bundle.safetensors      the policy and its safety critic, when the run has ended
figures.json            what it comes to, when the run has ended
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.bundle import Bundle, Network, ProbabilityCritic, load_bundle, save_bundle, write_whole
from ssql_ros.interrupts import Interrupted, noting
from ssql_ros.learning.algorithms import FROM_BEHAVIOUR, Start, make_learner, settings_of
from ssql_ros.learning.checkpoint import CheckpointError, check_resumable, load_checkpoint, save_checkpoint
from ssql_ros.learning.ssql import SSQLSettings, policy_kind
from ssql_ros.learning.training import EpisodeRow, Training, evaluate
from ssql_ros.policy import make_policy
from ssql_ros.probes import with_probes
from ssql_ros.spec import Contract
from ssql_ros.statistics import wilson_interval
from ssql_ros.tasks import Task, find_task

# Uniform steps that show the spread of observations where the task does not state it.
PROBE_STEPS = 2000
LOSS_EVERY = 500
LEARNED = "learned.safetensors"


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        source: bundle to fine-tune from, or the folder of a run: that has the reward critics of every algorithm, and
            the temperature; empty: begin from nothing.
        settings: of the algorithm, by name, that differ from its robot's.
        checkpoint_every: steps between checkpoints, at least.
        evaluation: episodes of the final policy.
    """

    algorithm: str
    task: str
    phase: str
    steps: int
    seed: int
    source: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint_every: int = 25_000
    evaluation: int = 100

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        task = find_task(self.task)
        task.world(self.phase)
        settings_of(self.algorithm, task.robot, self.settings)
        for name, least in (("steps", 1), ("checkpoint_every", 1), ("evaluation", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.phase == "finetune" and not self.source:
            raise ValueError("fine-tuning begins from a pre-trained bundle: name it with --from")
        if self.phase == "pretrain" and self.source:
            raise ValueError("pre-training begins from nothing: --from is for --phase finetune")


def run_training(plan: Plan, folder: Path, facts: dict[str, Any], show: bool) -> dict[str, float]:
    """Train as planned, going on from the folder's checkpoint where there is one; return the figures.

    Args:
        facts: what else is written beside the result (command, versions).
        show: a progress bar on stderr.

    Raises:
        ValueError: the plan does not fit the folder's run, the bundle, or the task.
        CheckpointError: the checkpoint is damaged, or cannot be written.
        Interrupted: a signal came; the checkpoint has all steps up to the end of an episode.
    """
    task = find_task(plan.task)
    contract = task.contract()
    settings = settings_of(plan.algorithm, task.robot, plan.settings)
    config = {"plan": dataclasses.asdict(plan), "settings": dataclasses.asdict(settings), **facts}
    source = load_bundle(_bundle_of(plan.source), contract) if plan.source else None
    monitor = PromiseMonitor(task.behaviour_policy()) if plan.algorithm in FROM_BEHAVIOUR else None
    mean, scale = _standardisation(task, plan, source, monitor)
    start = Start(
        mean, scale, contract.action_size, contract.id, task.robot, plan.phase, plan.steps, plan.seed, monitor
    )
    learner = make_learner(plan.algorithm, start, settings)
    if source is not None:
        try:
            if Path(plan.source).is_dir():
                learner.take_learned(load_checkpoint(Path(plan.source) / LEARNED))
            else:
                learner.take(source.networks())
        except ValueError as error:
            raise ValueError(f"{plan.source}: does not fit {plan.algorithm}: {error}") from error
    config["arithmetic"] = learner.arithmetic()
    # Only now: what cannot begin leaves no folder behind.
    claim(folder, config, dataclasses.asdict(settings_of(plan.algorithm, task.robot, {})))
    training = Training(learner, lambda: task.make(**task.world(plan.phase)), contract, plan.steps, plan.seed)
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        check_resumable(checkpoint)
        state = load_checkpoint(checkpoint)
        try:
            training.restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint}: is not a checkpoint of this run: {error}") from error
    _train(training, plan, folder, checkpoint, show)
    for work in learner.finish():
        for _ in tqdm(range(work.count), unit="update", desc=work.name, disable=not show or work.count == 1):
            work.step()
    bundle, shield = served(contract, settings, learner.networks(), learner.behaves(), task)
    config |= {"safety_critic": shield} if shield else {}
    # As a resumed run has it, and one whose updates could not be compiled.
    config["arithmetic"] = learner.arithmetic()
    rows = evaluate(
        make_policy(bundle) if monitor is not None else learner,
        task.make(**task.world(plan.phase)),
        contract,
        learner.mask(plan.steps),
        plan.evaluation,
        plan.seed,
    )
    figures = {**figures_of(training.rows, rows), **learner.figures()}
    provenance = {**config, "task": plan.task, "figures": figures, "episodes": len(training.rows)}
    bundle = replace(bundle, provenance=provenance)
    save_bundle(with_probes(bundle, contract), folder / "bundle.safetensors")
    save_checkpoint(folder / LEARNED, learner.learned())
    write_whole(folder / "figures.json", json.dumps({"figures": figures, **config}, indent=1).encode())
    return figures


def served(
    contract: Contract, settings: Any, networks: dict[str, Network], behaviour: dict[str, Any], task: Task
) -> tuple[Bundle, str]:
    """Return what was learned as a bundle, and the id of the safety critic that was put behind it; empty: its own.

    Args:
        behaviour: that the policy keeps to (see `Learner.behaves`), or is where nothing else was learned; empty: none.
    """
    if isinstance(settings, SSQLSettings):
        kind = policy_kind(settings)
    else:
        kind = "behaviour" if behaviour else "squashed_gaussian"
    critic = networks.get("critic")
    bundle = Bundle(
        contract.id,
        None if critic is None else ProbabilityCritic.of(critic, settings.epsilon, settings.gamma_safe),
        policy=networks.get("policy"),
        reward=networks.get("reward"),
        policy_kind=kind,
        behaviour=behaviour,
    )
    if not (behaviour and task.bundle):
        return bundle, ""
    # The policy has learned no safety critic; the one that its task ships stands behind it.
    shield = load_bundle(task.bundle_path(), contract)
    return replace(bundle, critic=shield.critic), shield.id


def _bundle_of(source: str) -> Path:
    path = Path(source)
    return path / "bundle.safetensors" if path.is_dir() else path


def claim(folder: Path, config: dict[str, Any], defaults: dict[str, Any] | None = None) -> None:
    """Take the folder for this run, or make sure that the run in it is this one.

    Args:
        defaults: settings that the run had if it was begun before there was a choice; None: there always was.
    """
    path = folder / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text())
            plan, settings = dict(there["plan"]), dict(there["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: is not the configuration of a run: {error}") from error
        # As JSON has it: a tuple is a list there. Defaults may have changed since the run began.
        wanted = json.loads(json.dumps({**config["settings"], **config["plan"]}))
        found = {**json.loads(json.dumps(defaults or {})), **settings, **plan}
        # How often to save, and how long to look at the result, does not change what is learned.
        for name in wanted.keys() - {"checkpoint_every", "evaluation"}:
            if found.get(name) != wanted[name]:
                raise CheckpointError(
                    f"{folder}: holds a run with {name} {found.get(name)!r}, not {wanted[name]!r}; use another folder"
                )
        return
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder}: is not empty, and holds no run; use another folder")
    write_whole(path, json.dumps(config, indent=1).encode())


def _standardisation(
    task: Task, plan: Plan, source: Bundle | None, monitor: PromiseMonitor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of states: of the bundle, the task, or a probe of uniform actions or of the behaviour."""
    if source is not None:
        policy = source.need("policy")
        return policy.observation_mean, policy.observation_scale
    if task.centre:
        return np.array(task.centre), np.array(task.spread)
    if monitor is not None:
        return _spread_of(_behaved(task, plan, monitor))
    return spread_of_uniform(task, plan.phase, plan.seed)


def spread_of_uniform(task: Task, phase: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale (n_observation,) of the states that uniform actions meet."""
    env, rng = task.make(**task.world(phase)), np.random.default_rng([seed, 3])
    seen: list[np.ndarray] = []
    ended = True
    while len(seen) < PROBE_STEPS:
        if ended:
            observation, _ = env.reset(seed=int(rng.integers(2**31)))
            ended = False
        else:
            observation, _, terminated, truncated, _ = env.step(rng.uniform(-1.0, 1.0, env.action_space.shape))
            ended = terminated or truncated
        seen.append(observation)
    env.close()
    return _spread_of(seen)


def _behaved(task: Task, plan: Plan, monitor: PromiseMonitor) -> list[np.ndarray]:
    """Return states that the behaviour policy meets, watched like all of its steps."""
    env, rng, behaviour = task.make(**task.world(plan.phase)), np.random.default_rng([plan.seed, 3]), monitor.behaviour
    seen: list[np.ndarray] = []
    ended = True
    while len(seen) < PROBE_STEPS or not ended:
        if ended:
            observation, _ = env.reset(seed=int(rng.integers(2**31)))
            behaviour.reset(rng)
            monitor.reset()
        state = np.concatenate([observation, behaviour.context()])
        action = behaviour.act(observation, rng)
        observation, _, terminated, truncated, info = env.step(action)
        monitor.watch(state, action, bool(info["incident"]))
        seen.append(state)
        ended = terminated or truncated
    env.close()
    return seen


def _spread_of(seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of states."""
    # A feature that hardly moves under uniform actions must not become huge once it does.
    return np.mean(seen, axis=0), np.maximum(np.std(seen, axis=0), 0.02)


def _train(training: Training, plan: Plan, folder: Path, checkpoint: Path, show: bool) -> None:
    saved = training.step
    logged = len(training.rows)
    with (
        noting("the end of this episode") as stop,
        SummaryWriter(str(folder / "tensorboard"), purge_step=training.step or None, write_to_disk=True) as writer,
        tqdm(total=plan.steps, initial=training.step, unit="step", disable=not show, mininterval=0.5) as bar,
    ):
        bar.set_description(f"{plan.algorithm} {plan.task} {plan.phase}")
        for losses in training.run():
            bar.update()
            if losses and training.step % LOSS_EVERY == 0:
                for name, value in losses.items():
                    writer.add_scalar(f"learning/{name}", float(value), training.step)
            if len(training.rows) > logged:
                for row in training.rows[logged:]:
                    _log(writer, row)
                logged = len(training.rows)
                newest = [row for row in training.rows[-100:] if row.kind == "collect"]
                bar.set_postfix_str(_summary(newest), refresh=False)
            # At the end too: what follows takes its time, and may be interrupted. No step of a begun episode is left.
            ended = training.step == plan.steps
            if ended or (training.can_stop and (stop or training.step - saved >= plan.checkpoint_every)):
                write_whole(folder / "episodes.csv", as_csv(training.rows).encode())
                save_checkpoint(checkpoint, training.state())
                saved = training.step
                if stop:
                    raise Interrupted(stop.number, f"step {saved} of {plan.steps} is in {checkpoint}")


def _summary(rows: list[EpisodeRow]) -> str:
    if not rows:
        return ""
    reward = np.mean([row.total_reward for row in rows])
    return f"reward {reward:.1f}, incidents {np.mean([row.incident for row in rows]):.1%} of newest {len(rows)}"


def _log(writer: Any, row: EpisodeRow) -> None:
    for name in ("total_reward", "incident", "success", "velocity", "intervened"):
        if (value := float(getattr(row, name))) == value:
            writer.add_scalar(f"{row.kind}/{name}", value, row.step)


def as_csv(rows: list[EpisodeRow]) -> str:
    """Return the log of episodes, one line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(EpisodeRow)])
    for row in rows:
        values = dataclasses.asdict(row).values()
        writer.writerow([int(v) if isinstance(v, bool) else f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def figures_of(rows: list[EpisodeRow], evaluated: list[EpisodeRow]) -> dict[str, float]:
    """Return what a run comes to.

    Returns:
        episodes, incidents, incident_rate (with its 95 % interval): of collection; extra_incidents: of the safety
        critic's own rollouts; last_*: of the last tenth of collection's episodes; final_*: of the evaluated policy.
    """
    collected = [row for row in rows if row.kind == "collect"]
    rolled = [row for row in rows if row.kind == "rollout"]
    incidents = sum(row.incident for row in collected)
    low, high = wilson_interval(incidents, len(collected)) if collected else (0.0, 1.0)
    figures: dict[str, float] = {
        "episodes": len(collected),
        "incidents": incidents,
        "incident_rate": incidents / max(len(collected), 1),
        "incident_rate_low": low,
        "incident_rate_high": high,
        "intervened_per_step": sum(r.intervened for r in collected) / max(sum(r.length for r in collected), 1),
        "extra_episodes": len(rolled),
        "extra_incidents": sum(row.incident for row in rolled),
    }
    for name, part in (("last", collected[-max(len(collected) // 10, 1) :]), ("final", evaluated)):
        if part:
            figures |= {
                f"{name}_reward": float(np.mean([row.total_reward for row in part])),
                f"{name}_success": float(np.mean([row.success for row in part])),
                f"{name}_incident_rate": float(np.mean([row.incident for row in part])),
                f"{name}_velocity": float(np.mean([row.velocity for row in part])),
                f"{name}_length": float(np.mean([row.length for row in part])),
            }
    return {name: value for name, value in figures.items() if value == value}
