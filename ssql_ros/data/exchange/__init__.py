"""Data sets in the formats of others, each through its own library: what is written, what is read, what is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.data.data_set import DataSet


@dataclass
class Foreign:
    """What a file of another format holds.

    Attributes:
        columns: arrays (N, ...) by our names (see data_set.transition_columns), those of them that it has, and `cost`
            (> 0: an incident in s_(t+1)) and `truncated` (an episode ends here, and not for good).
        facts: what it says of itself: control_period [s], and, of what was written here, contract_id and more.
    """

    columns: dict[str, np.ndarray]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        what: in words.
        module: that writes and reads it.
        needs: libraries, of the extra `data`.
        lost_out, lost_in: what does not survive the way to it, and what it cannot tell us, in words.
    """

    what: str
    module: str
    needs: tuple[str, ...]
    lost_out: str
    lost_in: str

    @property
    def write(self) -> Callable[[DataSet, Path], None]:
        """Return what writes a data set to a path that is not there yet."""
        return import_module(f"{__name__}.{self.module}").write

    @property
    def read(self) -> Callable[[Path], Foreign]:
        """Return what reads a path; it raises ValueError where that is not of this format."""
        return import_module(f"{__name__}.{self.module}").read


_CONTEXT = "the context of a behaviour policy, where it was recorded (`context`, `next_context`)"
FORMATS = {
    "parquet": Format(
        "plain Parquet: a row a transition, its columns ours",
        "parquet",
        ("pyarrow",),
        "nothing",
        "nothing of a file written here; of others what they lack is named",
    ),
    "hdf5": Format(
        "the HDF5 of D4RL and DSRL: observations, actions, rewards, next_observations, costs, terminals, timeouts",
        "hdf5",
        ("h5py",),
        f"{_CONTEXT}; other readers see of a margin only whether there was an incident (costs 0 or 1)",
        "how far from an incident a state was, unless infos/margin is there; of D4RL, which has no costs, what an "
        "incident is: the contract must say it",
    ),
    "minari": Format(
        "Minari: a folder of episodes",
        "minari_episodes",
        ("minari", "h5py"),
        f"{_CONTEXT}, and stamps; an episode is cut where its states do not follow one another",
        "how far from an incident a state was, unless infos/margin is there; what an incident is, unless infos/cost is",
    ),
    "lerobot": Format(
        "LeRobotDataset v3.0: a folder of Parquet, without videos (written and read by pyarrow: the package lerobot "
        "asks for torch, video codecs and a hub)",
        "lerobot",
        ("pyarrow",),
        f"{_CONTEXT}; fps is a whole number there, stamps become seconds of an episode; whoever reads only frames does "
        "not see the last state of an episode (next.observation.state)",
        "the last step of each episode, whose successor no frame tells, unless next.observation.state is there; images "
        "and videos; what an incident is, unless next.incident, next.cost or cost is there",
    ),
}
