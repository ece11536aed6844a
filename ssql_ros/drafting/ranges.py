"""The range of every feature of a contract in a bag, read as a conversion reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssql_ros.bags.definitions import BagError
from ssql_ros.bags.executed import ExecutedReader
from ssql_ros.bags.reader import survey
from ssql_ros.bags.roles import match_topics, reader_for, refuse
from ssql_ros.contract import Contract, ContractError
from ssql_ros.contract.serialised import reader_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.data.transitions import COMMAND

PERCENTILES = (0, 1, 50, 99, 100)


def feature_ranges(bag: Path, contract: Contract, namespace: str | None = None) -> dict[str, tuple[str, np.ndarray]]:
    """Return unit and (least, 1 %, median, 99 %, most) of every feature, and of every element of the action.

    Raises:
        BagError: the bag cannot be read, or lacks a topic.
    """
    seen = survey(bag)
    if seen.bag is None:
        raise BagError(seen.problem)
    roles = match_topics(contract, seen.topics, None, namespace)
    told, readers = contract.commanded, {}
    executed = ExecutedReader(contract, told.topics, reader_of(told.type, refuse))
    for topic, those in roles.items():
        for role in those:
            if role.name == COMMAND or role.name in contract.observed_inputs:
                readers[topic] = (role, reader_for(role, contract, None))
    rows: dict[str, list[np.ndarray]] = {role.name: [] for role, _ in readers.values()}
    for topic, kind, time, data in seen.bag.raw_messages(readers.keys()):
        role, read = readers[topic]
        if kind == role.type:
            try:
                found = read(data) if role.place is None else executed(role.place, data, time / NANOSECONDS)
            except ContractError:
                continue  # `ssql bag check` tells
            if found is not None:
                rows[role.name].append(found[1])
    columns: dict[str, tuple[str, np.ndarray]] = {}
    for name in contract.observed_inputs:
        features = [feature for feature in contract.observed.frame if feature.input == name]
        for feature, column in zip(features, _columns(rows[name], len(features)), strict=True):
            columns[feature.name] = ("1" if feature.function else feature.unit, column)
    commanded = _columns(rows.get(COMMAND, []), len(told.names))
    return columns | {f"action {title}": ("", column) for title, column in zip(told.names, commanded, strict=True)}


def _columns(rows: list[np.ndarray], count: int) -> np.ndarray:
    if not rows:
        return np.full((count, len(PERCENTILES)), np.nan)
    return np.nanpercentile(np.array(rows), PERCENTILES, axis=0).T


def table(columns: dict[str, tuple[str, np.ndarray]]) -> list[str]:
    """Return the ranges as lines of text."""
    width = max(len(name) for name in columns)
    head = f"  {'':<{width}} {'unit':<6}" + "".join(
        f"{text:>11}" for text in ("least", "1 %", "median", "99 %", "most")
    )
    return [head] + [
        f"  {name:<{width}} {unit:<6}" + "".join(f"{value:11.4g}" for value in values)
        for name, (unit, values) in columns.items()
    ]
