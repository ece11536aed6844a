"""Runs a plan: loop, checkpoints, figures, bundle, probes, in one folder that `ssql report` reads.

config.json             the plan, every setting, arithmetic, data set, command, versions
contract.yaml           of a world without a robot: what a shield needs beside the bundle
checkpoint.safetensors  the newest one, replaced complete; an interrupted run is resumed from there
episodes.csv            one line per episode, where episodes are driven
tensorboard/            losses and episodes
bundle.safetensors      the policy and its critics, when the run has ended; of a grid policy.csv
figures.json            its summary, when the run has ended
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.data.rollout import EpisodeRow
from ssql_ros.model.bundle import save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.nn.checkpoint import CheckpointError, check_resumable, load_checkpoint, save_checkpoint
from ssql_ros.processes.files import write_atomically
from ssql_ros.processes.interrupts import Interrupted, noting
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.grid_training import GridTraining
from ssql_ros.training.log_training import training_from_log
from ssql_ros.training.plan import Plan
from ssql_ros.training.result import as_csv
from ssql_ros.training.steps import Checkpointable, Training
from ssql_ros.training.trackers import Scalar, told, tracking
from ssql_ros.training.world_training import LEARNED, PlannedTraining

LOSS_EVERY = 200
CHECKPOINT = "checkpoint.safetensors"


def run(plan: Plan, folder: Path, facts: dict[str, Any], show: bool, trackers: Sequence[str] = ()) -> dict[str, float]:
    """Learn as planned, from the folder's checkpoint on where there is one; return the figures.

    Args:
        facts: what else is written beside the result (command, versions).
        show: a progress bar on stderr.
        trackers: that are told of losses and episodes beside TensorBoard (see `tracking`).

    Raises:
        ValueError: the plan does not fit the folder's run, the bundle, the data set, or the task; no such tracker.
        CheckpointError: the checkpoint is damaged, or cannot be written.
        Interrupted: a signal came; the checkpoint has all steps up to there, in a world to the end of an episode.
    """
    for tracker in trackers:
        told(tracker)
    training = training_of(plan)
    settings, default = (dataclasses.asdict(plan.checked_settings(which)) for which in (False, True))
    config = {"plan": dataclasses.asdict(plan), "settings": settings, **training.facts, **facts}
    config["arithmetic"] = training.arithmetic()
    # Only now: what cannot begin leaves no folder behind.
    claim(folder, config, default)
    if text := "" if plan.on_grid else find_task(plan.task).contract_text():
        write_atomically(folder / "contract.yaml", text.encode())
    title = f"{plan.algorithm} {plan.task} {plan.phase}"
    repeat(training, folder, plan.checkpoint_every, title, show, trackers, config)
    for work in training.finish():
        for _ in tqdm(range(work.count), unit="update", desc=work.name, disable=not show or work.count == 1):
            work.step()
    # As a resumed run has it, and one whose updates could not be compiled.
    config["arithmetic"] = training.arithmetic()
    result = training.result()
    config |= result.facts
    if result.bundle is not None:
        provenance = {**config, "task": plan.task, "figures": result.figures, **result.provenance}
        bundle = with_probes(dataclasses.replace(result.bundle, provenance=provenance), find_task(plan.task).contract())
        save_bundle(bundle, folder / "bundle.safetensors")
    if result.learned:
        save_checkpoint(folder / LEARNED, result.learned)
    for name, content in result.files.items():
        write_atomically(folder / name, content)
    write_atomically(folder / "figures.json", json.dumps({"figures": result.figures, **config}, indent=1).encode())
    return result.figures


def training_of(plan: Plan) -> Training:
    """Return what a plan repeats, at its beginning. Raises ValueError: the data set or the bundle does not fit it."""
    if plan.on_grid:
        return GridTraining(plan, plan.checked_settings())
    return training_from_log(plan) if plan.data else PlannedTraining(plan, plan.checked_settings())


def claim(folder: Path, config: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Take the folder for this run, or make sure that the run in it is this one.

    Args:
        defaults: settings that a run has had which was begun before there was a choice.
    """
    path = folder / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text())
            plan, settings = Plan.told(there["plan"]), dict(there["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: is not the configuration of a run: {error}") from error
        # As JSON has it: a tuple is a list there. Defaults may have changed since the run began.
        wanted = json.loads(json.dumps({**config["settings"], **config["plan"]}))
        found = {**json.loads(json.dumps(defaults)), **settings, **plan}
        # How often to save, and how long to look at the result, does not change what is learned.
        for name in wanted.keys() - {"checkpoint_every", "evaluation"}:
            if found.get(name) != wanted[name]:
                raise CheckpointError(
                    f"{folder}: holds a run with {name} {found.get(name)!r}, not {wanted[name]!r}; use another folder"
                )
        return
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder}: is not empty, and holds no run; use another folder")
    write_atomically(path, json.dumps(config, indent=1).encode())


def repeat(
    training: Training,
    folder: Path,
    every: int,
    title: str,
    show: bool,
    trackers: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Make the steps that are left, from the folder's checkpoint on.

    Args:
        every: steps between checkpoints, at least.
        title: of the progress bar.
        trackers, facts: who hears of it beside TensorBoard, and of which configuration.

    Raises:
        CheckpointError: the checkpoint is damaged, or cannot be written.
        Interrupted: a signal came; the checkpoint has all steps so far.
    """
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        restore(training, checkpoint)
    saved, logged, rows = training.step, len(training.rows or ()), training.rows
    with (
        noting(training.pause) as stop,
        tracking(trackers, folder, facts or {}, saved) as tell,
        tqdm(total=training.steps, initial=saved, unit="step", desc=title, disable=not show, mininterval=0.5) as bar,
    ):
        for losses in training.run():
            bar.update()
            if training.step % LOSS_EVERY == 0:
                for name, value in losses.items():
                    tell(f"learning/{name}", float(value), training.step)
            if rows is not None and len(rows) > logged:
                for row in rows[logged:]:
                    _log(tell, row)
                logged = len(rows)
                bar.set_postfix_str(_summary([row for row in rows[-100:] if row.kind == "collect"]), refresh=False)
            # At the end too: what follows takes its time, and may be interrupted. No step of a begun episode is left.
            ended = training.step == training.steps
            if ended or (training.can_stop and (stop or training.step - saved >= every)):
                if rows is not None:
                    write_atomically(folder / "episodes.csv", as_csv(rows).encode())
                save_checkpoint(checkpoint, training.state())
                saved = training.step
                if stop:
                    raise Interrupted(stop.number, f"step {saved} of {training.steps} is in {checkpoint}")


def restore(training: Checkpointable, checkpoint: Path) -> None:
    """Take what a checkpoint holds. Raises CheckpointError."""
    check_resumable(checkpoint)
    state = load_checkpoint(checkpoint)
    try:
        training.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint}: is not a checkpoint of this run: {error}") from error


def _summary(rows: list[EpisodeRow]) -> str:
    if not rows:
        return ""
    reward = np.mean([row.total_reward for row in rows])
    return f"reward {reward:.1f}, incidents {np.mean([row.incident for row in rows]):.1%} of newest {len(rows)}"


def _log(tell: Scalar, row: EpisodeRow) -> None:
    for name in ("total_reward", "incident", "success", "velocity", "intervened"):
        if (value := float(getattr(row, name))) == value:
            tell(f"{row.kind}/{name}", value, row.step)
