"""Options that many verbs have, spelled once."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssql_ros.contract import Contract
    from ssql_ros.robots.tasks import Task


class _StoreTask(argparse.Action):
    """Stores the name of a task; its help lists them all, and looks for them only where it is shown."""

    grids = False

    def __call__(self, parser: Any, namespace: Any, value: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, value)

    @property
    def help(self) -> str:
        from ssql_ros.robots.tasks import tasks

        names = list(tasks())
        if self.grids:
            from ssql_sim.grid import GRIDS

            names += GRIDS
        return f"{self._what}; one of {', '.join(names)}"

    @help.setter
    def help(self, what: str) -> None:
        self._what = what


class _StoreWorld(argparse.Action):
    """Stores the task that any world is (see robots.own_worlds)."""

    def __call__(self, parser: Any, namespace: Any, value: Any, option_string: Any = None) -> None:
        from ssql_ros.robots.tasks import ENV

        setattr(namespace, self.dest, f"{ENV}{value}")


def add_task(
    parser: Any,
    what: str = "which world",
    grids: bool = False,
    env: bool = False,
    required: bool = False,
    **options: Any,
) -> None:
    """Add --task, with the list of tasks in its help.

    Args:
        parser: or a group of it.
        what: the task stands for, in words.
        grids: the grid worlds are among them.
        env: add --env, too, of which one is given: a world that is no task here.
        options: of `add_argument`, e.g. `default`.
    """
    if options.get("default") is not None:
        what += " (default: %(default)s)"
    if env and isinstance(parser, argparse.ArgumentParser):
        parser, required = parser.add_mutually_exclusive_group(required=required), False
    if required:
        options["required"] = True
    action: Any = parser.add_argument("--task", action=_StoreTask, help=what, **options)
    action.grids = grids
    if env:
        parser.add_argument(
            "--env",
            action=_StoreWorld,
            dest="task",
            default=options.get("default"),
            metavar="ID",
            help="instead of a task any continuous gymnasium world: a registered id, module:ID, or module:attribute "
            "that makes one; info['margin'] > 0 or info['cost'] > 0 is an incident (docs/how_to/own_worlds.md)",
        )


# Share of a log's episodes that what is learned without a world is judged on.
HELD_OUT = 0.2


def add_robot(
    parser: argparse.ArgumentParser, what: str = "which world", required: bool = False, **options: Any
) -> None:
    """Add --task, --env and --contract, of which one is given: a world, or a robot known by its contract alone."""
    either: Any = parser.add_mutually_exclusive_group(required=required)
    add_task(either, what, env=True, **options)
    either.add_argument(
        "--contract",
        metavar="FILE",
        help="contract YAML of a robot without a world (`ssql contract init`), whose --data or --bag is learned from",
    )


def check_writable(folder: Path) -> None:
    """Make sure that --out can be written, before what is to lie there takes minutes to make; leave no trace.

    Raises:
        ValueError: it cannot, or something is in it.
    """
    made: list[Path] = []
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"--out {folder}: is not an empty folder; name another")
        for path in [*reversed(folder.parents), folder]:
            if not path.exists():
                path.mkdir()
                made.append(path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--out {folder}: cannot be written: {error.strerror or error}; name another folder"
        ) from error
    finally:
        for path in reversed(made):
            path.rmdir()


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """Add --seed; `of`: what it is the seed of, in words."""
    parser.add_argument("--seed", type=int, default=0, help=f"{of} (default: %(default)s)")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add --quiet."""
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add --track, which trackers hear of a run."""
    parser.add_argument(
        "--track",
        nargs="+",
        action="extend",
        default=[],
        metavar="TRACKER[:PROJECT]",
        help="tell losses and episodes to wandb, mlflow or trackio too (`pip install 'ssql_ros[track]'`, or the one)",
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add --results, the folder of tables and pictures."""
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="(default: %(default)s)")


def contract_of(bundle: Path, robot: str) -> Contract:
    """Return the contract of --contract, or else that of the task that a bundle was made for.

    Raises:
        ValueError: no such contract, or the bundle's provenance names no task.
    """
    from ssql_ros.contract import find_contract, load_contract
    from ssql_ros.model.bundle import read_provenance
    from ssql_ros.robots.tasks import tasks

    if not robot:
        task = read_provenance(bundle).get("task")
        if task not in tasks():
            raise ValueError(f"{bundle}: its provenance names no task; name its robot with --contract")
        robot = tasks()[task].robot
    return load_contract(find_contract(robot))


def task_of(bundle: Path, name: str | None) -> Task:
    """Return the task of --task, or else the one that a bundle was made for.

    Raises:
        ValueError: no such task, or the bundle's provenance names none.
    """
    from ssql_ros.robots.tasks import find_task

    return find_task(name or task_name_in(bundle, "name it with --task"))


def task_name_in(bundle: Path, instead: str) -> str:
    """Return the name of the task that a bundle was made for.

    Args:
        instead: what to do where the bundle does not say, in words.

    Raises:
        ValueError: its provenance names none, or a world of --env: to look at that imports a module, which a file must
            not choose.
    """
    from ssql_ros.model.bundle import read_provenance
    from ssql_ros.robots.tasks import ENV

    name = read_provenance(bundle).get("task")
    if not isinstance(name, str):
        raise ValueError(f"{bundle}: its provenance names no task; {instead}")
    if name.startswith(ENV):
        raise ValueError(
            f"{bundle}: says that it was made in the world {name.removeprefix(ENV)}, whose code is not run because a "
            f"file says so; say it yourself: --env {name.removeprefix(ENV)}"
        )
    return name
