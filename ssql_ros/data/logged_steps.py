"""Logged steps as what offline learners draw batches from: transitions over n steps, cut at the ends of episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.contract import Contract
from ssql_ros.data.data_set import DataSet, DataSetWriter, transition_columns


@dataclass(frozen=True, eq=False)
class Log:
    """Steps in the order they were made, episode after episode.

    Attributes:
        observation: (N, n_observation), s_t.
        action: (N, n_action), the executed one, in [-1, 1].
        reward: (N,), of the step that begins in s_t.
        margin: (N,), l(s_t).
        terminal: (N,), whether the episode ended for good in s_t's successor, which has no row of its own.
        episode: (N,), a number that is the same for all rows of an episode.
        ending: (N,), l of that successor where a row is terminal; elsewhere it is not read. None: no row is terminal.
        next_observation, incident: (N, n_observation) and (N,), s_(t+1) and whether it is an incident; None: not told.
        control_period: s.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    margin: np.ndarray
    terminal: np.ndarray
    episode: np.ndarray
    ending: np.ndarray | None = None
    next_observation: np.ndarray | None = None
    incident: np.ndarray | None = None
    control_period: float = 0.0

    def __post_init__(self) -> None:
        """Check shapes. Raises ValueError with the name, what was expected and what came."""
        rows = len(self.observation)
        for name in ("action", "reward", "margin", "terminal", "episode"):
            if len(getattr(self, name)) != rows:
                raise ValueError(
                    f"log: {name}: expected {rows} rows, as observation has, got {len(getattr(self, name))}"
                )
        for name in ("observation", "action", "reward", "margin"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"log: {name}: has values that are not finite")
        if rows == 0:
            raise ValueError("log: expected at least one step, got none")
        last = np.asarray(self.terminal, bool)
        if last.any() and (self.ending is None or not np.isfinite(self.ending[last]).all()):
            raise ValueError("log: ending: expected the margin of every state that ended an episode")

    def part(self, rows: np.ndarray, episode: np.ndarray) -> Log:
        """Return some rows (bool, N) alone; `episode` (N,): what is numbered as one there."""
        columns = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **{**columns, "episode": episode[rows]})


def save_log(log: Log, folder: Path, facts: dict[str, Any]) -> None:
    """Write a log as a data set; `facts`: what else the manifest says.

    Raises:
        DataSetError: the folder is there.
        ValueError: the log does not tell what follows each step.
    """
    if log.next_observation is None or log.incident is None:
        raise ValueError("log: next_observation and incident: expected both, to write it")
    columns = transition_columns(log.observation.shape[1], log.action.shape[1])
    stamps = np.arange(len(log.reward)) * round(1e9 * log.control_period)
    with DataSetWriter(folder, columns) as writer:
        writer.extend({name: stamps if name == "stamp" else getattr(log, name) for name in columns})
        writer.finish({"control_period": log.control_period, **facts})


def load_log(folder: Path, contract: Contract) -> tuple[Log, dict[str, Any]]:
    """Return a data set as a log, and its manifest.

    Margins of states that ended an episode are computed from `next_observation`, whose first numbers are the contract's
    frame; some data sets of former versions have them as a column `ending`.

    Raises:
        ValueError: a file is missing or damaged (DataSetError), or the columns do not fit together.
    """
    data = DataSet(folder)
    columns: dict[str, Any] = {
        name: data[name] for name in ("observation", "action", "reward", "margin", "terminal", "episode")
    }
    if "ending" in data.names:
        columns["ending"] = data["ending"]
    elif columns["terminal"].any():
        columns["ending"] = _endings(data, contract)
    try:
        return Log(**columns), data.manifest
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _endings(data: DataSet, contract: Contract) -> np.ndarray:
    """Return l of the states that ended an episode (N,), 0 elsewhere."""
    terminal, after = np.asarray(data["terminal"], bool), data["next_observation"]
    ending = np.zeros(len(terminal))
    rows = np.flatnonzero(terminal)
    try:
        ending[rows] = margins(after[rows], contract)
    except ValueError as error:
        raise ValueError(f"{data.path}: has no column ending, and {error}") from error
    return ending


def margins(observations: np.ndarray, contract: Contract) -> np.ndarray:
    """Return l (N,) of observations (N, n_observation).

    Raises:
        ValueError: the contract's vector does not begin with its frame, so that l cannot be told from it.
    """
    first = contract.observed.blocks[0]
    if first.kind != "frame" or first.scale != 1.0:
        raise ValueError(f"{contract.path} does not begin its vector with the frame")
    frames = observations[:, : contract.frame_size].astype(float)
    return np.array([contract.margin(frame)[0] for frame in frames])


@dataclass(frozen=True)
class OfflineBatch:
    """Transitions over n steps.

    Attributes:
        observation, action: s_t, a_t.
        reward: (batch,), r_t + gamma r_(t+1) + ..., n terms.
        margin: (batch,), max of l(s_t) ... l(s_(t+n-1)), and of the state that ended the episode where one did.
        next_observation: s_(t+n).
        terminal: (batch,), 1 where the episode ended for good within these steps.
        cost: (batch,), c_t + gamma c_(t+1) + ..., c = 1 where l > 0; of a state that ended the episode too.
    """

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    margin: torch.Tensor
    next_observation: torch.Tensor
    terminal: torch.Tensor
    cost: torch.Tensor


class OfflineData:
    """A log in memory, ready to draw from.

    Attributes:
        starts: (count, n_observation), where episodes begin, of those that do not begin in the failure set.
        length: steps of an episode, in the mean.
    """

    def __init__(self, log: Log, n_step: int, gamma: float, device: torch.device) -> None:
        """Sum up n steps from every row. Raises ValueError: no episode has n steps."""
        rows = np.arange(len(log.observation))
        # Of each row, the last row of its episode.
        ends = np.flatnonzero(np.append(log.episode[1:] != log.episode[:-1], True))
        last = ends[np.searchsorted(ends, rows)]
        ended_at = log.terminal.astype(bool)
        reward, cost, margin = np.zeros(len(rows)), np.zeros(len(rows)), np.full(len(rows), -np.inf)
        for k in range(n_step):
            at = np.minimum(rows + k, last)
            within = rows + k <= last
            reward += np.where(within, gamma**k * log.reward[at], 0.0)
            cost += np.where(within, gamma**k * (log.margin[at] > 0.0), 0.0)
            margin = np.maximum(margin, log.margin[at])
            if log.ending is not None:
                ends_here = (rows + k == last) & ended_at[last]
                margin = np.where(ends_here, np.maximum(margin, log.ending[last]), margin)
                cost += np.where(ends_here, gamma ** (k + 1) * (log.ending[last] > 0.0), 0.0)
        # Complete: s_(t+n) has a row, or the episode ended for good before.
        reaches = rows + n_step <= last
        ended = ended_at[last] & ~reaches
        keep = np.flatnonzero(reaches | ended)
        if not len(keep):
            raise ValueError(f"log: no episode has more than {n_step} steps")
        self.n_step = n_step

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values[keep], dtype=torch.float32, device=device)

        next_observation = tensor(log.observation[np.minimum(rows + n_step, last)])
        columns = OfflineBatch(
            tensor(log.observation), tensor(log.action), tensor(reward), tensor(margin), next_observation,
            tensor(ended), tensor(cost),
        )  # fmt: skip
        # Packed, so that a draw is one operation.
        self._widths = [column[0].numel() for column in vars(columns).values()]
        self._rows = torch.cat([column.view(len(keep), -1) for column in vars(columns).values()], dim=1)
        firsts = np.append(0, ends[:-1] + 1)
        self.length = len(rows) / len(ends)
        self.starts = torch.as_tensor(
            log.observation[firsts[log.margin[firsts] <= 0.0]], dtype=torch.float32, device=device
        )

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, batch: int, generator: torch.Generator) -> OfflineBatch:
        """Return `batch` transitions, uniformly drawn."""
        index = torch.randint(len(self), (batch,), generator=generator, device=self._rows.device)
        observation, action, reward, margin, next_observation, *rest = self._rows[index].split(self._widths, dim=1)
        terminal, cost = (column[:, 0] for column in rest)
        return OfflineBatch(observation, action, reward[:, 0], margin[:, 0], next_observation, terminal, cost)
