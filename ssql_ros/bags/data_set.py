"""From rosbags to a data set on the disk, with a manifest: where every row comes from, and what was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssql_ros.bags.conversion import Conversion, context_size, convert, has_interventions
from ssql_ros.bags.definitions import BagError
from ssql_ros.bags.reader import Survey, survey
from ssql_ros.contract import Contract
from ssql_ros.data.data_set import DataSet, DataSetError, DataSetWriter, transition_columns
from ssql_ros.data.transitions import LEFT_OUT, RECOVERY, UNUSED, Reward

Sink = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Source:
    """Bags, and how they are read.

    Attributes:
        bags: in this order.
        reward: None: rewards are 0.
        namespace: of the robot's topics; None: the only one that has all the contract needs.
        recovery: s, see `TransitionAssembler`.
    """

    bags: tuple[Path, ...]
    contract: Contract
    reward: Reward | None
    namespace: str | None = None
    recovery: float = RECOVERY

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        if not self.bags:
            raise ValueError("expected at least one bag")
        if missing := [str(bag) for bag in self.bags if not bag.exists()]:
            raise BagError(f"{', '.join(missing)}: there is no such bag")
        if not 0.0 <= self.recovery < 3600.0:
            raise ValueError(f"recovery: expected from 0 to 3600 s, got {self.recovery}")

    def told(self) -> dict[str, Any]:
        """Return how the bags are read, for a manifest."""
        return {
            "contract_id": self.contract.id,
            "control_period": self.contract.control_period,
            "reward": "none: the column is 0" if self.reward is None else repr(self.reward),
            "namespace": self.namespace,
            "recovery": self.recovery,
        }


def read_bags(source: Source, make_sink: Callable[[int, bool], Sink], show: bool = False) -> Conversion:
    """Convert bags; `make_sink` returns what takes the rows, given what columns they have beside the others.

    Raises:
        BagError: none of the bags could be used; the text says why, of each.
    """
    bags = [_surveyed(path) for path in source.bags]
    total = sum(topic.count for bag in bags for topic in bag.topics.values())
    n_context = context_size(bags, source.contract, source.reward, source.namespace)
    interventions = has_interventions(bags, source.contract, source.reward, source.namespace)
    sink = make_sink(n_context, interventions)
    with tqdm(total=total, unit="message", unit_scale=True, disable=not show) as bar:
        return convert(
            bags,
            source.contract,
            source.reward,
            sink,
            bar.update,
            source.namespace,
            n_context,
            source.recovery,
            interventions,
        )


def _surveyed(path: Path) -> Survey:
    """Return what is known of a bag; where nothing is there to read, no topic, and the reason."""
    try:
        return survey(path)
    except BagError as error:
        return Survey(path, {}, 0, 0, {}, str(error))


def make_data_set(source: Source, out: Path, facts: Mapping[str, Any], show: bool = False) -> Conversion:
    """Convert bags into a data set at `out`; where no transition comes of them, nothing is written.

    Args:
        facts: what else the manifest says.

    Raises:
        BagError: none of the bags could be used.
        DataSetError: `out` is there already, or cannot be written.
    """
    contract = source.contract
    # What is not finished leaves nothing.
    with ExitStack() as stack:
        writers: list[DataSetWriter] = []

        def begin(n_context: int, interventions: bool) -> Sink:
            sizes = contract.observation_size, contract.action_size, n_context
            columns = transition_columns(*sizes, interventions)
            writers.append(stack.enter_context(DataSetWriter(out, columns)))
            return writers[0].add

        outcome = read_bags(source, begin, show)
        if outcome.counts["rows"]:
            writers[0].finish(
                {
                    **source.told(),
                    "sources": digests(source.bags),
                    "counts": dict(outcome.counts),
                    "left_out": {**LEFT_OUT, **UNUSED},
                    "problems": outcome.problems,
                    "first_reset": outcome.first_reset,
                    **facts,
                }
            )
    return outcome


def data_set_of(source: Source, out: Path, facts: Mapping[str, Any], show: bool = False) -> DataSet:
    """Return the data set of bags at `out`: the one that is there, where it was made of these bags like this.

    Raises:
        BagError: none of the bags could be used, or no transition comes of them.
        DataSetError: another data set is there, or `out` cannot be written.
    """
    if not out.exists():
        outcome = make_data_set(source, out, facts, show)
        if not outcome.counts["rows"]:
            bags = ", ".join(map(str, source.bags))
            left_out = ", ".join(f"{outcome.counts[name]} {name}" for name in LEFT_OUT if outcome.counts[name])
            raise BagError(
                f"{bags}: no transition comes of {outcome.counts['periods']} periods ({left_out}); "
                "`ssql bag check` says more"
            )
        return DataSet(out)
    data = DataSet(out)
    for name, value in source.told().items():
        if data.manifest.get(name) != value:
            raise DataSetError(
                f"{out}: holds a data set with another {name}: {data.manifest.get(name)!r}, not {value!r}; "
                "remove it, or name another folder"
            )
    # Wherever the bags lie, and however they are named from here, it is their content that counts.
    made_of = [entry.get("sha256") for entry in data.manifest.get("sources", [])]
    if made_of != [entry["sha256"] for entry in digests(source.bags)]:
        raise DataSetError(
            f"{out}: holds a data set of other bags than {', '.join(map(str, source.bags))}; "
            "remove it, or name another folder"
        )
    return data


def files_of(bag: Path) -> list[Path]:
    """Return the files of a bag."""
    return [bag] if bag.is_file() else sorted(path for path in bag.iterdir() if path.is_file())


def digests(bags: Sequence[Path]) -> list[dict[str, Any]]:
    """Return path, bytes and SHA-256 of every file of bags."""
    found = []
    for file in (file for bag in bags for file in files_of(bag)):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        found.append({"path": str(file), "bytes": file.stat().st_size, "sha256": digest})
    return found
