"""Columns of others by our names, and what is missing in them told from what is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.vectors import has_margin_behind
from ssql_ros.data.data_set import DataSet, transition_columns
from ssql_ros.data.exchange import Foreign
from ssql_ros.data.logged_steps import margins

# What others call it; the first that is there counts.
NAMES = {
    "observation": ("observation", "observations", "observation.state", "obs", "state", "states"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards", "next.reward"),
    "next_observation": ("next_observation", "next_observations", "next.observation.state", "next_obs"),
    "margin": ("margin", "infos/margin", "observation.margin"),
    "incident": ("incident", "next.incident"),
    "cost": ("cost", "costs", "next.cost", "infos/cost"),
    "terminal": ("terminal", "terminals", "terminations", "terminated", "next.terminal"),
    "truncated": ("truncated", "timeouts", "truncations"),
    "done": ("done", "dones", "next.done"),
    "episode": ("episode", "episode_index", "episode_id"),
    "stamp": ("stamp", "infos/stamp"),
    "context": ("context",),
    "next_context": ("next_context",),
}
PERIOD = 0.05  # s, where nobody says it
_VECTORS = ("observation", "action", "next_observation", "context", "next_context")
_SAFE, _INSIDE = -1.0, 1.0  # margins, where it is only told whether there was an incident


def renamed(names: Iterable[str], where: Path) -> dict[str, str]:
    """Return which of the columns of a file is which of ours. Raises ValueError: observation or action is missing."""
    there = set(names)
    found = {ours: next((name for name in theirs if name in there), "") for ours, theirs in NAMES.items()}
    for name in ("observation", "action"):
        if not found[name]:
            raise ValueError(
                f"{where}: expected a column {name!r} (or {', '.join(NAMES[name][1:])}), got "
                f"{', '.join(sorted(there)) or 'none'}"
            )
    return {ours: theirs for ours, theirs in found.items() if theirs}


def facts_of(data: DataSet) -> dict[str, Any]:
    """Return what a file says of the data set that it was made of."""
    return {name: value for name, value in data.manifest.items() if name not in ("columns", "format", "rows")}


def ends_of(episode: np.ndarray) -> np.ndarray:
    """Return which rows (N,) are the last of their episode."""
    numbers = np.asarray(episode)
    return np.append(numbers[1:] != numbers[:-1], True)


def checked(foreign: Foreign, where: Path) -> dict[str, np.ndarray]:
    """Return its columns as arrays of our types, all of one length. Raises ValueError: which one is not, and how."""
    rows, columns = len(foreign.columns["observation"]), dict[str, np.ndarray]()
    if not rows:
        raise ValueError(f"{where}: expected at least one step, got none")
    for name, values in foreign.columns.items():
        if len(values) != rows:
            raise ValueError(f"{where}: {name}: expected {rows} rows, as the observations have, got {len(values)}")
        if name in _VECTORS and values.ndim == 1:
            values = values[:, np.newaxis]
        if name not in _VECTORS and values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != (2 if name in _VECTORS else 1):
            what = "vector" if name in _VECTORS else "number"
            raise ValueError(f"{where}: {name}: expected one {what} a row, got shape {values.shape}")
        if values.dtype.kind == "f" and name not in ("context", "next_context") and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values.reshape(rows, -1)).all(axis=1))[0])
            raise ValueError(f"{where}: {name}: row {row}: expected finite numbers, got {values[row]}")
        columns[name] = values
    return columns


def completed(foreign: Foreign, contract: Contract, where: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return all columns of transitions (N, ...) for a contract, and in words what was told from something else.

    A file whose observations lack only the margin of a contract of plain vectors gets it, by its costs; its actions are
    then in the world's own units.

    Raises:
        ValueError: its vectors are not the contract's, or nothing says what an incident is; the text says which.
    """
    columns, notes = checked(foreign, where), list[str]()
    rows, ends = len(columns["observation"]), _ends(columns, where)
    terminal = np.asarray(columns.get("terminal", np.zeros(rows, bool)), bool)
    behind = has_margin_behind(contract) and columns["observation"].shape[1] == contract.observation_size - 1
    episode = np.cumsum(np.append(0, ends[:-1]))
    if "next_observation" not in columns:
        columns["next_observation"] = np.roll(columns["observation"], -1, axis=0)
        columns["next_observation"][ends] = columns["observation"][ends]
        # Where an episode ended for good nobody learns from the state after it, and its margin comes from the costs.
        keep = ~ends | (terminal & behind)
        if not keep.any():
            raise ValueError(f"{where}: no step is left: no episode has more than one, and none tells what followed")
        if not keep.all():
            notes.append(f"{int((~keep).sum())} last steps of episodes are left out: nothing tells what followed them")
        columns = {name: values[keep] for name, values in columns.items()}
        terminal, episode, rows = terminal[keep], episode[keep], int(keep.sum())
        ends = ends_of(episode)
    incident = _incident(columns, contract, behind, where, notes)
    if behind:
        _put_margins(columns, incident, ends, notes)
        columns["action"] = contract.nearest_action(columns["action"].astype(float))
    for name, size in (("observation", contract.observation_size), ("action", contract.action_size)):
        if columns[name].shape[1] != size:
            raise ValueError(
                f"{where}: {name}: expected {size} numbers a row, as {contract.path} has, got {columns[name].shape[1]}"
            )
    if "margin" not in columns:
        columns["margin"] = margins(columns["observation"], contract)
        notes.append("margins are by the contract")
    outside = (np.abs(columns["action"] - contract.clip(columns["action"])) > 1e-3).any(axis=1)
    if outside.any():
        notes.append(f"{int(outside.sum())} of {rows} actions are clipped to the contract's bounds")
    columns["action"] = contract.clip(columns["action"])
    if "reward" not in columns:
        notes.append("rewards are 0: the file has none")
    period = round(1e9 * contract.control_period)
    given = {"reward": np.zeros(rows), "stamp": np.arange(rows) * period, **columns}
    given |= {"incident": incident, "terminal": terminal, "episode": episode}
    width = columns["context"].shape[1] if {"context", "next_context"} <= set(columns) else 0
    wanted = transition_columns(contract.observation_size, contract.action_size, width)
    return {name: np.asarray(given[name], column.dtype) for name, column in wanted.items()}, notes


def _put_margins(columns: dict[str, np.ndarray], incident: np.ndarray, ends: np.ndarray, notes: list[str]) -> None:
    """Put margins behind the observations: the file's, or -1 and 1 by its costs."""
    after = np.where(incident, _INSIDE, _SAFE)
    if "margin" in columns:
        before = columns["margin"]
        # What follows an episode's last step has no row that says it.
        after = np.where(ends, np.where(incident, _INSIDE, before), np.roll(before, -1))
    else:
        before = np.where(np.append(True, ends[:-1]), _SAFE, np.append(_SAFE, after[:-1]))
        notes.append("margins are -1 and 1, by the costs, and stand behind the observations")
    columns["observation"] = np.column_stack([columns["observation"], before])
    columns["next_observation"] = np.column_stack([columns["next_observation"], after])
    columns["margin"] = before


def _ends(columns: dict[str, np.ndarray], where: Path) -> np.ndarray:
    if "episode" in columns:
        return ends_of(columns["episode"])
    flags = [columns[name].astype(bool) for name in ("terminal", "truncated", "done") if name in columns]
    if not flags:
        raise ValueError(f"{where}: nothing says where an episode ends: expected {', '.join(NAMES['episode'])}, or "
                         f"{', '.join(NAMES['terminal'])}, or {', '.join(NAMES['truncated'])}")  # fmt: skip
    ends = np.any(flags, axis=0)
    ends[-1] = True
    return ends


def _incident(
    columns: dict[str, np.ndarray], contract: Contract, behind: bool, where: Path, notes: list[str]
) -> np.ndarray:
    for name in ("incident", "cost"):
        if name in columns:
            return columns[name] > 0
    if behind:
        raise ValueError(
            f"{where}: nothing says what an incident is: expected {', '.join(NAMES['cost'])} (> 0), or a contract "
            "whose rule judges the observations (--contract)"
        )
    notes.append("incidents are by the contract's rule: the file has no costs")
    after = columns["next_observation"]
    if after.shape[1] != contract.observation_size:
        return np.zeros(len(after), bool)  # refused by its width at once
    return margins(after, contract) > 0.0


def unknown_contract(foreign: Foreign, where: Path) -> tuple[int, np.ndarray, np.ndarray, float, list[str]]:
    """Return what a contract of plain vectors is made of: n, low and high of actions, control period, and notes."""
    columns, notes = checked(foreign, where), list[str]()
    action = columns["action"].astype(float)
    low, high = -np.ones(action.shape[1]), np.ones(action.shape[1])
    if np.abs(action).max() > 1.0 + 1e-3:
        low, high = action.min(axis=0), action.max(axis=0)
        high = np.where(high > low, high, low + 1.0)
        notes.append("the bounds of actions are the least and the largest that there are, which may not be all")
    period = foreign.facts.get("control_period")
    if not isinstance(period, (int, float)) or not 0.0 < period < 3600.0:
        period = PERIOD
        notes.append(f"the file does not say its control period: {PERIOD} s is written into the contract")
    return columns["observation"].shape[1], low, high, float(period), notes
