"""Learns from the buffer of a live robot, round by round, and offers what passes every gate (see live_worker)."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.behaviour.policy import make_behaviour
from ssql_ros.contract import load_contract
from ssql_ros.data.replay import Batch, Replay, Transition
from ssql_ros.live.acceptance import LiveJudge
from ssql_ros.live.algorithms import LiveAlgorithm, live_settings, make_live, meaning_of
from ssql_ros.live.buffer import Chunk, LiveBuffer
from ssql_ros.live.checkpoints import LiveCheckpoints
from ssql_ros.live.offers import offered_rounds
from ssql_ros.live.settings import LiveSettings
from ssql_ros.model.bundle import Bundle, MarginCritic, load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.nn.checkpoint import CheckpointError

# One chunk of so many is never learned from, but judged on.
HELD_OUT = 8
SLICE = 50  # updates between two looks at commands and new data
# An executed action that differs by more from its proposal is another one: joints there and back round less.
OVERRIDDEN = 1e-5
RETRY = 2.0  # s, between two attempts to write what the disk refuses


class LiveLearner:
    """Learns round by round. Its place is between `step`s.

    Args:
        folder: of the learner; checkpoints and candidates go there.
        tell: what becomes of problems, in words.

    Attributes:
        counts: steps and learnable (transitions that came, and those of them that are learned from), incidents,
            breaches, overridden, updates, rounds; over all runs on this folder.
    """

    def __init__(self, folder: Path, settings: LiveSettings, tell: Callable[[str], None]) -> None:
        self.folder, self.settings = folder, settings
        self.contract = load_contract(settings.contract)
        self.behaviour = make_behaviour(settings.behaviour)
        n, m = self.contract.observation_size, self.contract.action_size
        self.buffer = LiveBuffer(folder / "buffer", (n, self.behaviour.n_context, m), settings.source)
        self.shield = load_bundle(settings.shield, self.contract)
        self.judge = LiveJudge(folder, settings, self.contract, self.behaviour, self.shield, tell)
        self.learning = live_settings(settings.algorithm, self.contract.robot, settings.settings)
        self.replay = Replay(settings.replay, n + self.behaviour.n_context, m)
        self.starts: list[np.ndarray] = []
        self.algorithm: LiveAlgorithm | None = None
        self.counts: Counter[str] = Counter()
        self.round_updates = 0
        self.paused = self.asked = False
        self.loss = math.nan
        self._counted = -1  # number of the newest chunk that `counts` knows
        self._unsaved: Bundle | None = None  # has passed, and waits for room on the disk
        self._retry_at = 0.0
        self._draws = torch.Generator().manual_seed(settings.seed)
        self._tell = tell
        meaning = meaning_of(settings.algorithm, self.learning)
        self._checkpoints = LiveCheckpoints(folder, {**settings.source, **meaning}, tell)
        self._checkpoints.load(self._restore)
        # Of what was offered nothing is ever written over, whatever became of the checkpoint.
        self.counts["rounds"] = max(self.counts["rounds"], *offered_rounds(folder), 0)

    # Data.

    def take_in(self) -> int:
        """Read new chunks; return how many transitions they hold."""
        new, refused = 0, set(self.buffer.refused)
        for chunk in self.buffer.unread():
            new += len(chunk)
            self._take_in(chunk)
        for name in sorted(set(self.buffer.refused) - refused):
            self._tell(f"left out: {self.buffer.refused[name]}")
        return new

    def _take_in(self, chunk: Chunk) -> None:
        learned = chunk.number % HELD_OUT != HELD_OUT // 2 - 1
        states = np.concatenate([chunk.observation, chunk.context], axis=1)
        next_observations = np.concatenate([chunk.next_observation, chunk.next_context], axis=1)
        if chunk.number > self._counted:
            # The promise is the controller's; what the shield puts in the place of its proposals is counted apart.
            supported = self.behaviour.support(states.astype(float)).contains(chunk.proposal[:, np.newaxis])[:, 0]
            self._counted = chunk.number
            incidents = int(chunk.incident.sum())
            self.counts["steps"] += len(chunk)
            self.counts["learnable"] += len(chunk) if learned else 0
            self.counts["incidents"] += incidents
            self.counts["breaches"] += int((~supported).sum()) + incidents
            self.counts["overridden"] += int((np.abs(chunk.action - chunk.proposal) > OVERRIDDEN).any(axis=1).sum())
        self.starts += list(chunk.observation[chunk.first > 0])[: 64 - len(self.starts)]
        self.judge.see(chunk)
        if not learned:
            self.judge.held_out.append(chunk)
            return
        for i in range(len(chunk)):
            ended = bool(chunk.incident[i])
            self.replay.add(
                Transition(states[i], chunk.action[i], float(chunk.reward[i]), next_observations[i], ended, ended)
            )

    # Learning.

    def ready(self) -> bool:
        """Tell whether there is something to learn from now."""
        s = self.settings
        enough = len(self.replay) >= max(s.first_steps, self.learning.batch)
        due = self.counts["updates"] < s.updates_per_step * self.counts["learnable"]
        return enough and due and bool(self.judge.held_out)

    def step(self) -> list[dict[str, Any]]:
        """Learn for a moment; return what is to be told."""
        if self._unsaved is not None:
            return self._offer()
        if self.judge.has_seen_enough:
            algorithm = self._algorithm()
            self._unsaved = self.judge.finish(algorithm, lambda: self._batch(algorithm))
            return self._offer() if self._unsaved is not None else [self._verdict("")]
        if self.paused or not (self.ready() or (self.asked and len(self.replay) >= self.learning.batch)):
            return []
        algorithm = self._algorithm()
        for _ in range(SLICE):
            losses = algorithm.update(self._batch(algorithm))
        self.loss = float(losses["critic_loss"])
        if not math.isfinite(self.loss):
            self._tell("what was learned is not finite any more: it is dropped")
            self.algorithm, self.round_updates = None, 0
            counted = self.counts, self._counted
            self._checkpoints.load(self._restore)
            self.counts, self._counted = counted
            return [self.progress()]
        self.counts["updates"] += SLICE
        self.round_updates += SLICE
        told = [self.progress()]
        if self.judge.pending is None and (self.round_updates >= self.settings.round_updates or self.asked):
            told.append(self._extract(algorithm))
        return told

    def _algorithm(self) -> LiveAlgorithm:
        if self.algorithm is None:
            seen = self.replay.newest(self.settings.first_steps, torch.device("cpu")).observation.numpy()
            self.algorithm = self._made(seen.mean(axis=0), np.maximum(seen.std(axis=0), 0.02))
        return self.algorithm

    def _made(self, mean: np.ndarray, scale: np.ndarray) -> LiveAlgorithm:
        return make_live(mean, scale, self.contract.action_size, self.learning, self.settings.seed, self.behaviour)

    def _batch(self, algorithm: LiveAlgorithm) -> Batch:
        return self.replay.draw(self.learning.batch, self._draws, algorithm.device)

    # What is kept.

    def save(self) -> None:
        """Write the checkpoint; where that fails the one before stays, and it is told."""
        if self.algorithm is None:
            return
        a = self.algorithm
        state = {"mean": a.mean.cpu(), "scale": a.scale.cpu(), "algorithm": a.state()}
        try:
            self._checkpoints.save({**state, "counts": dict(self.counts), "counted": self._counted})
        except CheckpointError as error:
            self._tell(str(error))

    def _restore(self, state: dict[str, Any]) -> None:
        # What it sees is standardised as it was.
        made = self._made(state["mean"].numpy(), state["scale"].numpy())
        made.restore(state["algorithm"])
        counts, counted = Counter({str(name): int(count) for name, count in state["counts"].items()}), state["counted"]
        self.algorithm, self.counts = made, counts
        # A buffer that was begun anew counts from 0 again.
        self._counted = counted if counted <= self.buffer.newest else -1

    # Stage 2, and what is offered.

    def _bundle(self, algorithm: LiveAlgorithm, provenance: dict[str, Any]) -> Bundle:
        networks, behaviour = algorithm.networks(), self.behaviour
        if self.starts:
            behaviour = behaviour.with_start_weights(algorithm.start_weights(np.array(self.starts)))
        # The critic with its rule and thresholds. What was certified of it was certified with another policy.
        critic = self.shield.critic
        if isinstance(critic, MarginCritic):
            critic = replace(critic, certificate={})
        return replace(
            self.shield,
            critic=critic,
            provenance={"algorithm": self.settings.algorithm, "live": self.progress(), **provenance},
            policy=networks["policy"],
            reward=networks["reward"],
            policy_kind=algorithm.kind,
            behaviour=behaviour.describe(),
            probes={},
            id="",
            path="",
        )

    def _extract(self, algorithm: LiveAlgorithm) -> dict[str, Any]:
        self.asked, self.round_updates = False, 0
        for _ in range(getattr(self.learning, "extraction_updates", 0)):
            algorithm.extract(self._batch(algorithm))
        self.counts["rounds"] += 1
        self.save()
        bundle = self._bundle(algorithm, {"settings": asdict(self.learning)})
        # Where it has passed so far, the last gates need states of the robot as it is now.
        return self.progress() if self.judge.begin(bundle, algorithm) else self._verdict("")

    def _verdict(self, path: str) -> dict[str, Any]:
        gates = [asdict(gate) for gate in self.judge.gates]
        return {
            "event": "judged",
            "round": self.counts["rounds"],
            "passed": bool(path),
            "gates": gates,
            "path": path,
        }

    def _offer(self) -> list[dict[str, Any]]:
        """Write what has passed, for as long as it takes; return the verdict once it is there."""
        passed = self._unsaved
        if passed is None or time.monotonic() < self._retry_at:
            return []
        gates = [asdict(gate) for gate in self.judge.gates]
        bundle = replace(passed, provenance={**passed.provenance, "live": self.progress(), "gates": gates})
        path = self.folder / "offered" / f"round_{self.counts['rounds']:03d}.safetensors"
        try:
            saved = save_bundle(with_probes(bundle, self.contract), path)
        except ValueError as error:
            self._retry_at = time.monotonic() + RETRY
            self._tell(f"round {self.counts['rounds']} has passed, and waits to be written: {error}")
            return []
        self._unsaved = None
        return [{**self._verdict(str(path)), "bundle_id": saved.id}]

    def export(self) -> dict[str, Any]:
        """Write what was learned so far as a bundle, judged or not; say where."""
        if self.algorithm is None:
            return {"event": "exported", "path": "", "words": "nothing is learned yet"}
        bundle = self._bundle(self.algorithm, {"gates": "none: exported on demand"})
        path = self.folder / "exported" / f"updates_{self.counts['updates']:08d}.safetensors"
        try:
            save_bundle(with_probes(bundle, self.contract), path)
        except ValueError as error:
            return {"event": "exported", "path": "", "words": str(error)}
        return {"event": "exported", "path": str(path), "words": ""}

    def progress(self) -> dict[str, Any]:
        """Return where it stands."""
        names = ("steps", "updates", "rounds", "incidents", "breaches", "overridden")
        return {
            "event": "progress",
            **{name: self.counts[name] for name in names},
            "critic_loss": self.loss,
            "paused": self.paused,
            "in_memory": len(self.replay),
            "refused_chunks": len(self.buffer.refused),
            "waits_for_shadow": self.judge.pending is not None,
        }
