"""Learns from the buffer of a live robot, round by round, and offers what passes every gate (see live_worker)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.behaviour.policy import make_behaviour
from ssql_ros.bundle import Bundle, load_bundle, save_bundle
from ssql_ros.learning.algorithms import settings_of
from ssql_ros.learning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ssql_ros.learning.live_buffer import LiveBuffer
from ssql_ros.learning.live_judging import LiveJudge
from ssql_ros.learning.live_settings import LiveSettings
from ssql_ros.learning.replay import Batch, Replay, Transition
from ssql_ros.learning.ssql import SSQL, SSQLSettings, policy_kind
from ssql_ros.probes import with_probes
from ssql_ros.spec import load_contract

# One chunk of so many is never learned from, but judged on.
HELD_OUT = 8
SLICE = 50  # updates between two looks at commands and new data
# An executed action that differs by more from its proposal is another one: joints there and back round less.
OVERRIDDEN = 1e-5


class LiveLearner:
    """Learns round by round. Its place is between `step`s.

    Args:
        folder: of the learner; checkpoint and candidates go there.
        tell: what becomes of problems, in words.
    """

    def __init__(self, folder: Path, settings: LiveSettings, tell: Callable[[str], None]) -> None:
        self.folder, self.settings = folder, settings
        self.contract = load_contract(settings.contract)
        self.behaviour = make_behaviour(settings.behaviour)
        n, m = self.contract.observation_size, self.contract.action_size
        self.buffer = LiveBuffer(folder / "buffer", (n, self.behaviour.n_context, m))
        self.shield = load_bundle(settings.shield, self.contract)
        self.judge = LiveJudge(folder, settings, self.contract, self.behaviour, self.shield, tell)
        made = settings_of("ssql", self.contract.robot, settings.ssql)
        assert isinstance(made, SSQLSettings)
        self.ssql_settings = made
        self.replay = Replay(settings.replay, n + self.behaviour.n_context, m)
        self.starts: list[np.ndarray] = []
        self.algorithm: SSQL | None = None
        self.updates = self.round_updates = self.rounds = self.chunks = self.incidents = self.breaches = (
            self.overridden
        ) = 0
        self.paused = self.asked = False
        self.loss = float("nan")
        self._draws = torch.Generator().manual_seed(settings.seed)
        self._tell = tell
        self._checkpoint = folder / "checkpoint.safetensors"

    # Data.

    def take_in(self) -> int:
        """Read new chunks; return how many transitions they hold."""
        new = 0
        for chunk in self.buffer.unread():
            new += len(chunk)
            self.incidents += int(chunk.incident.sum())
            states = np.concatenate([chunk.observation, chunk.context], axis=1)
            followings = np.concatenate([chunk.following, chunk.following_context], axis=1)
            # The promise is the controller's; what the shield puts in the place of its proposals is counted apart.
            supported = self.behaviour.support(states.astype(float)).contains(chunk.proposal[:, np.newaxis])[:, 0]
            self.breaches += int((~supported).sum() + chunk.incident.sum())
            self.overridden += int((np.abs(chunk.action - chunk.proposal) > OVERRIDDEN).any(axis=1).sum())
            self.starts += list(chunk.observation[chunk.first > 0])[: 64 - len(self.starts)]
            self.chunks += 1
            self.judge.see(chunk)
            if self.chunks % HELD_OUT == HELD_OUT // 2:
                self.judge.held_out.append(chunk)
                continue
            for i in range(len(chunk)):
                ended = bool(chunk.incident[i])
                self.replay.add(
                    Transition(states[i], chunk.action[i], float(chunk.reward[i]), followings[i], ended, ended)
                )
        return new

    # Learning.

    def ready(self) -> bool:
        """Tell whether there is something to learn from now."""
        s = self.settings
        enough = len(self.replay) >= max(s.first_steps, self.ssql_settings.batch)
        return enough and self.updates < s.updates_per_step * self.replay.added and bool(self.judge.held_out)

    def step(self) -> list[dict[str, Any]]:
        """Learn for a moment; return what is to be told."""
        if self.judge.has_seen_enough:
            algorithm = self._algorithm()
            return [self._verdict(self.judge.finish(algorithm, lambda: self._batch(algorithm)))]
        if self.paused or not (self.ready() or (self.asked and len(self.replay) >= self.ssql_settings.batch)):
            return []
        algorithm = self._algorithm()
        for _ in range(SLICE):
            losses = algorithm.update(self._batch(algorithm))
        self.loss = float(losses["critic_loss"])
        self.updates += SLICE
        self.round_updates += SLICE
        told = [self.progress()]
        if self.judge.pending is None and (self.round_updates >= self.settings.round_updates or self.asked):
            told.append(self._extract(algorithm))
        return told

    def _algorithm(self) -> SSQL:
        if self.algorithm is None:
            seen = self.replay.newest(self.settings.first_steps, torch.device("cpu")).observation.numpy()
            mean, scale = seen.mean(axis=0), np.maximum(seen.std(axis=0), 0.02)
            self.algorithm = self._made(mean, scale)
            if self._checkpoint.exists():
                try:
                    state = load_checkpoint(self._checkpoint)
                    # What it sees is standardised as it was.
                    self.algorithm = self._made(state["mean"].numpy(), state["scale"].numpy())
                    self.algorithm.restore(state["algorithm"])
                    self.updates, self.rounds = state["updates"], state["rounds"]
                except (CheckpointError, KeyError, ValueError, RuntimeError) as error:
                    self.algorithm = self._made(mean, scale)
                    self._tell(f"begins anew: {error}")
        return self.algorithm

    def _made(self, mean: np.ndarray, scale: np.ndarray) -> SSQL:
        return SSQL(mean, scale, self.contract.action_size, self.ssql_settings, self.settings.seed, self.behaviour)

    def _batch(self, algorithm: SSQL) -> Batch:
        return self.replay.draw(self.ssql_settings.batch, self._draws, algorithm.device)

    def save(self) -> None:
        """Write the checkpoint."""
        if self.algorithm is not None:
            a = self.algorithm
            state = {"mean": a.mean.cpu(), "scale": a.scale.cpu(), "algorithm": a.state()}
            save_checkpoint(self._checkpoint, {**state, "updates": self.updates, "rounds": self.rounds})

    # Stage 2, and what is offered.

    def _extract(self, algorithm: SSQL) -> dict[str, Any]:
        self.asked, self.round_updates = False, 0
        for _ in range(self.ssql_settings.extraction_updates):
            algorithm.extract(self._batch(algorithm))
        behaviour = self.behaviour
        if self.starts:
            behaviour = behaviour.with_start_weights(algorithm.start_weights(np.array(self.starts)))
        networks = algorithm.networks()
        bundle = Bundle(
            self.contract.id,
            self.shield.critic,
            policy=networks["policy"],
            reward=networks["reward"],
            policy_kind=policy_kind(self.ssql_settings),
            behaviour=behaviour.describe(),
        )
        self.rounds += 1
        self.save()
        # Where it has passed so far, the last gates need states of the robot as it is now.
        return self.progress() if self.judge.begin(bundle, algorithm) else self._verdict(None)

    def _verdict(self, passed: Bundle | None) -> dict[str, Any]:
        gates = [asdict(gate) for gate in self.judge.gates]
        told: dict[str, Any] = {"event": "judged", "round": self.rounds, "passed": passed is not None, "gates": gates}
        if passed is not None:
            provenance = {
                "algorithm": "ssql",
                "live": self.progress(),
                "gates": gates,
                "settings": asdict(self.ssql_settings),
            }
            path = self.folder / "offered" / f"round_{self.rounds:03d}.safetensors"
            saved = save_bundle(with_probes(replace(passed, provenance=provenance), self.contract), path)
            told |= {"path": str(path), "bundle_id": saved.id}
        return told

    def export(self) -> dict[str, Any]:
        """Write what was learned so far as a bundle, judged or not; say where."""
        if self.algorithm is None:
            return {"event": "exported", "path": "", "words": "nothing is learned yet"}
        networks = self.algorithm.networks()
        bundle = Bundle(
            self.contract.id,
            self.shield.critic,
            {"algorithm": "ssql", "live": self.progress(), "gates": "none: exported on demand"},
            policy=networks["policy"],
            reward=networks["reward"],
            policy_kind=policy_kind(self.ssql_settings),
            behaviour=self.behaviour.describe(),
        )
        path = self.folder / "exported" / f"updates_{self.updates:08d}.safetensors"
        save_bundle(with_probes(bundle, self.contract), path)
        return {"event": "exported", "path": str(path), "words": ""}

    def progress(self) -> dict[str, Any]:
        """Return where it stands."""
        return {
            "event": "progress",
            "steps": self.replay.added + sum(len(chunk) for chunk in self.judge.held_out),
            "updates": self.updates,
            "rounds": self.rounds,
            "critic_loss": self.loss,
            "incidents": self.incidents,
            "breaches": self.breaches,
            "overridden": self.overridden,
            "paused": self.paused,
            "refused_chunks": len(self.buffer.refused),
            "waits_for_shadow": self.judge.pending is not None,
        }
