"""Minari: a folder of episodes, T + 1 states of T steps; `infos` holds cost and margin of every state."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.data.data_set import DataSet
from ssql_ros.data.exchange import Foreign
from ssql_ros.data.exchange.columns import ends_of, facts_of

DATASET_ID = "ssql_ros/exported-v0"


def write(data: DataSet, out: Path) -> None:
    """Write a data set as a folder that `minari.MinariDataset(out / "data")` opens."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    observation, following = (np.asarray(data[name]) for name in ("observation", "next_observation"))
    ends = ends_of(data["episode"])
    # Rows that do not follow one another are episodes of their own.
    ends[:-1] |= (following[:-1] != observation[1:]).any(axis=1)
    cuts, episodes = np.append(-1, np.flatnonzero(ends)) + 1, []
    for number, (begin, end) in enumerate(pairwise(cuts)):
        rows = slice(int(begin), int(end))
        incident, terminal = (np.asarray(data[name][rows], bool) for name in ("incident", "terminal"))
        margin = np.asarray(data["margin"][rows], float)
        truncations = np.zeros(len(margin), bool)
        truncations[-1] = not terminal[-1]
        # Of every state, the one that the episode begins in first; that of the last one is not recorded.
        infos = {
            "cost": np.append(margin[:1] > 0.0, incident).astype(float),
            "margin": np.append(margin, np.nan),
        }
        episodes.append(
            EpisodeBuffer(
                id=number,
                observations=np.concatenate([observation[rows], following[rows][-1:]]),
                actions=np.asarray(data["action"][rows]),
                rewards=np.asarray(data["reward"][rows], float).tolist(),
                terminations=terminal.tolist(),
                truncations=truncations.tolist(),
                infos=infos,
            )
        )
    space = gymnasium.spaces.Box
    out = out.absolute()
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as root, warnings.catch_warnings():
        # Of authors and environments that a data set of a robot has none of.
        warnings.simplefilter("ignore")
        before = os.environ.get("MINARI_DATASETS_PATH")
        os.environ["MINARI_DATASETS_PATH"] = root
        try:
            minari.create_dataset_from_buffers(
                dataset_id=DATASET_ID,
                buffer=episodes,
                observation_space=space(-np.inf, np.inf, observation.shape[1:], observation.dtype.type),
                action_space=space(-1.0, 1.0, data["action"].shape[1:], data["action"].dtype.type),
                algorithm_name=str(facts_of(data).get("command", "")),
                description=json.dumps(facts_of(data)),
            )
        finally:
            if before is None:
                del os.environ["MINARI_DATASETS_PATH"]
            else:
                os.environ["MINARI_DATASETS_PATH"] = before
        (Path(root) / DATASET_ID).rename(out)


def read(path: Path) -> Foreign:
    """Read a folder. Raises ValueError: it is none, or its spaces are none of numbers."""
    import minari

    folder = path / "data" if (path / "data").is_dir() else path
    try:
        data_set = minari.MinariDataset(folder)
        episodes = list(data_set.iterate_episodes())
        facts = _facts(data_set)
    except (OSError, ValueError, KeyError, AssertionError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as a Minari data set: {error}") from error
    parts: dict[str, list[np.ndarray]] = {}
    for number, episode in enumerate(episodes):
        steps = len(episode.rewards)
        for name, values in {"observation": episode.observations, "action": episode.actions}.items():
            if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
                kind = data_set.observation_space if name == "observation" else data_set.action_space
                raise ValueError(f"{path}: expected {name}s that are vectors of numbers, got the space {kind}")
        told = {
            "observation": episode.observations[:-1],
            "next_observation": episode.observations[1:],
            "action": episode.actions,
            "reward": episode.rewards,
            "terminal": episode.terminations,
            "truncated": episode.truncations,
            "episode": np.full(steps, number),
        }
        infos = episode.infos if isinstance(episode.infos, dict) else {}
        for name, begin in (("cost", 1), ("margin", 0)):
            # Some record infos of the steps alone.
            values = np.asarray(infos.get(name, ()), float)
            if len(values) in (steps, steps + 1):
                told[name] = values[begin : begin + steps] if len(values) == steps + 1 else values
        for name, values in told.items():
            parts.setdefault(name, []).append(np.asarray(values))
    whole = {name: values for name, values in parts.items() if len(values) == len(episodes)}
    return Foreign({name: np.concatenate(values) for name, values in whole.items()}, facts)


def _facts(data_set: Any) -> dict[str, Any]:
    """Return what a data set that was written here says of itself."""
    try:
        facts = json.loads(data_set.storage.metadata.get("description", ""))
    except (ValueError, TypeError, AttributeError):
        return {}
    return facts if isinstance(facts, dict) else {}
