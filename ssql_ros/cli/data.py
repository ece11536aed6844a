"""`ssql data`: data sets in the formats of others, out and in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli.figures import add_json, command_line, report, versions
from ssql_ros.cli.options import add_robot
from ssql_ros.data.exchange import FORMATS

if TYPE_CHECKING:
    from ssql_ros.contract import Contract


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("data", help="take data sets to other tools, and theirs from them")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    formats = "; ".join(f"{name}: {each.what}" for name, each in FORMATS.items())
    out = kinds.add_parser(
        "export",
        help="write a data set as Parquet, HDF5 (D4RL, DSRL), Minari or LeRobotDataset",
        description=f"{formats}. What is lost on the way is said.",
        epilog="example: ssql data export data/boat --format hdf5 --out boat.hdf5",
    )
    out.add_argument("data", type=Path, metavar="DATASET", help="of `ssql bag convert`, `ssql collect` or `import`")
    out.set_defaults(run=_export)
    into = kinds.add_parser(
        "import",
        help="make a data set of one of those",
        description=f"{formats}. With the contract of a robot, a task or a world its vectors are checked. Without one "
        "a contract is written beside the data set (DATASET.yaml), of its vectors and, behind the observations, the "
        "margin that its costs tell: `ssql train safefql --contract DATASET.yaml --data DATASET`.",
        epilog="example: ssql data import boat.hdf5 --format hdf5 --out data/again --task boat",
    )
    into.add_argument("source", type=Path, metavar="FILE", help="file, of minari and lerobot a folder")
    add_robot(into, "whose vectors it has")
    into.set_defaults(run=_import)
    for kind in (out, into):
        kind.add_argument("--format", choices=tuple(FORMATS), required=True)
        kind.add_argument("--out", type=Path, required=True, metavar="PATH", help="what to write")
        add_json(kind)


def _export(options: argparse.Namespace) -> int:
    from ssql_ros.data.data_set import DataSet
    from ssql_ros.processes.missing import need

    kind, data = FORMATS[options.format], DataSet(options.data)
    need(*kind.needs)
    if not len(data):
        raise ValueError(f"{options.data}: has no row to export")
    if options.out.exists():
        raise ValueError(f"--out {options.out}: is there already; name another")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kind.write(data, options.out)
    notes = (f"{len(data)} transitions are in {options.out}", f"lost: {kind.lost_out}")
    report({"transitions": float(len(data)), "episodes": float(len(data.episodes()))}, 0, options.json, notes=notes)
    return 0


def _import(options: argparse.Namespace) -> int:
    from ssql_ros.data.data_set import DataSetWriter, transition_columns
    from ssql_ros.data.exchange.columns import completed
    from ssql_ros.processes.files import write_atomically
    from ssql_ros.processes.missing import need
    from ssql_ros.robots.tasks import find_task

    kind, name, beside = FORMATS[options.format], options.contract or options.task, ""
    need(*kind.needs)
    if options.out.exists():
        raise ValueError(f"--out {options.out}: is there already; name another")
    foreign = kind.read(options.source)
    if name:
        contract, notes = find_task(name).contract(), list[str]()
    else:
        contract, beside, notes = _contract_beside(options, foreign)
    columns, told = completed(foreign, contract, options.source)
    width = columns["context"].shape[1] if "context" in columns else 0
    facts = {
        "task": name or f"{options.out}.yaml",
        "contract_id": contract.id,
        "control_period": contract.control_period,
        "imported_from": str(options.source),
        "format_of_source": options.format,
        "command": command_line(),
        "versions": versions(),
    }
    with DataSetWriter(
        options.out, transition_columns(contract.observation_size, contract.action_size, width)
    ) as writer:
        writer.extend(columns)
        writer.finish(facts)
    if beside:
        write_atomically(options.out.with_name(f"{options.out.name}.yaml"), beside.encode())
        told.append(f"its contract is in {options.out}.yaml")
    figures = {
        "transitions": float(len(columns["reward"])),
        "episodes": float(len(set(columns["episode"].tolist()))),
        "incidents": float(columns["incident"].sum()),
    }
    lines = [f"data set is in {options.out}", *(f"note: {note}" for note in [*notes, *told]), f"lost: {kind.lost_in}"]
    report(figures, 0, options.json, notes=lines)
    return 0


def _contract_beside(options: argparse.Namespace, foreign: Any) -> tuple[Contract, str, list[str]]:
    """Return a contract that a file's vectors give, its YAML, and what was assumed."""
    import re

    from ssql_ros.contract.contract_file import read_contract
    from ssql_ros.contract.vectors import vectors_document, vectors_text
    from ssql_ros.data.exchange.columns import unknown_contract

    path = options.out.with_name(f"{options.out.name}.yaml")
    if path.exists():
        raise ValueError(f"{path}: is there already; name another --out, or give it with --contract")
    n, low, high, period, notes = unknown_contract(foreign, options.source)
    robot = "data_" + re.sub(r"\W+", "_", options.out.name).strip("_").lower()
    document = vectors_document(robot, n, low, high, period)
    return read_contract(document, str(path)), vectors_text(document, str(options.source)), notes
