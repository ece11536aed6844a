"""Where a run's losses and episodes are told: TensorBoard always, and trackers of others, each by its own library."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ssql_ros.processes.missing import need

Scalar = Callable[[str, float, int], None]  # name, value, step


@contextmanager
def tracking(wanted: Sequence[str], folder: Path, facts: Mapping[str, Any], resumed: int) -> Iterator[Scalar]:
    """Yield what tells one number of one step to everyone who is to hear of it.

    Args:
        wanted: beside TensorBoard, e.g. "wandb:walking" or "mlflow": a name of `TRACKERS`, and of the project in it.
        folder: of the run; the same folder is the same run for a tracker too.
        facts: the run's configuration.
        resumed: step that the run goes on from; 0: it begins.

    Raises:
        ValueError: no such tracker, or it cannot begin. ModuleNotFoundError: its library is not installed.
    """
    chosen = [told(text) for text in wanted]
    with ExitStack() as stack:
        board = stack.enter_context(_tensorboard(folder, resumed))
        others: dict[str, Scalar] = {}
        for kind, project in chosen:
            try:
                others[kind] = stack.enter_context(TRACKERS[kind](project, folder, _flat(facts)))
            except Exception as error:  # of whatever kind: a server that is away, a login that is missing
                raise ValueError(f"--track {kind}: it cannot begin: {error}") from error

        def scalar(name: str, value: float, step: int) -> None:
            board(name, value, step)
            for kind, tell in list(others.items()):
                try:
                    tell(name, value, step)
                except Exception as error:  # hours of learning do not end because a server is away
                    del others[kind]
                    print(f"warning: --track {kind}: hears no more from step {step} on: {error}", file=sys.stderr)

        yield scalar


def told(text: str) -> tuple[str, str]:
    """Return tracker and project of NAME or NAME:PROJECT. Raises ValueError, ModuleNotFoundError: see `tracking`."""
    kind, _, project = text.partition(":")
    if kind not in TRACKERS:
        raise ValueError(f"--track {text}: expected {', '.join(TRACKERS)}, with :PROJECT where it has a name")
    need(kind)
    return kind, project or "ssql_ros"


def _flat(facts: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Return nested facts as one level of names, settings.hidden and so on: not all trackers have more."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{at}{name}.") if isinstance(value, Mapping) else {f"{at}{name}": value}
    return flat


def _id_of(folder: Path) -> str:
    """Return the same id for the same folder: a resumed run goes on in the trackers too."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


@contextmanager
def _tensorboard(folder: Path, resumed: int) -> Iterator[Scalar]:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard"), purge_step=resumed or None, write_to_disk=True) as writer:
        yield writer.add_scalar


@contextmanager
def _wandb(project: str, folder: Path, facts: Mapping[str, Any]) -> Iterator[Scalar]:
    import wandb

    run = wandb.init(
        project=project, name=folder.name, id=_id_of(folder), resume="allow", dir=str(folder), config=dict(facts)
    )
    # Episodes are told when they have ended, losses at steps between: its own counter would drop one of both.
    run.define_metric("*", step_metric="step")
    with run:
        yield lambda name, value, step: run.log({name: value, "step": step})


@contextmanager
def _trackio(project: str, folder: Path, facts: Mapping[str, Any]) -> Iterator[Scalar]:
    import trackio

    trackio.init(project=project, name=f"{folder.name}-{_id_of(folder)}", resume="allow", config=dict(facts))
    try:
        yield lambda name, value, step: trackio.log({name: value}, step=step)
    finally:
        trackio.finish()


@contextmanager
def _mlflow(project: str, folder: Path, facts: Mapping[str, Any]) -> Iterator[Scalar]:
    import mlflow

    mlflow.set_experiment(project)
    # It gives ids itself: the run of this folder is found by its tag.
    tag = _id_of(folder)
    found = mlflow.search_runs(filter_string=f"tags.ssql_ros = '{tag}'", output_format="list")
    if found:
        run = mlflow.start_run(run_id=found[0].info.run_id)
    else:
        run = mlflow.start_run(run_name=folder.name, tags={"ssql_ros": tag})
        mlflow.log_params({name: str(value)[:500] for name, value in facts.items()})
    with run:
        yield lambda name, value, step: mlflow.log_metric(name, value, step=step)


TRACKERS: dict[str, Any] = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
