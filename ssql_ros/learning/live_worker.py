"""The learner's own process: trains on the buffer, judges what it has learned, and offers what passes.

    python -m ssql_ros.learning.live_worker FOLDER

Reads FOLDER/live.json and the chunks in FOLDER/buffer; takes one word a line on standard input (pause, resume, train,
export, stop; end of file is stop), and writes one JSON object a line on standard output. It knows nothing of ROS: who
feeds it may be killed, and it may be, and neither harms the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.behaviour.policy import make_behaviour
from ssql_ros.bundle import Bundle, load_bundle, save_bundle
from ssql_ros.critic import SafetyCritic
from ssql_ros.learning.algorithms import settings_of
from ssql_ros.learning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ssql_ros.learning.gates import Gate, calibration_gate, return_gate, returns_of, shadow_gate, support_gate
from ssql_ros.learning.live_buffer import Chunk, LiveBuffer
from ssql_ros.learning.policy_value import Draw, drawn_by_behaviour, drawn_by_policy, fitted_value, taken_from
from ssql_ros.learning.replay import Batch, Replay, Transition
from ssql_ros.learning.sac import NO_CLOCK
from ssql_ros.learning.ssql import SSQL, SSQLSettings, policy_kind
from ssql_ros.policy import supported_policy
from ssql_ros.probes import with_probes
from ssql_ros.shield import ShieldSettings
from ssql_ros.spec import load_contract

# One chunk of so many is never learned from, but judged on.
HELD_OUT = 8
IDLE = 0.1  # s
SLICE = 50  # updates between two looks at commands and new data
PARENT_CHECK = 1.0  # s
# An executed action that differs by more from its proposal is another one: joints there and back round less.
OVERRIDDEN = 1e-5


@dataclass(frozen=True)
class LiveSettings:
    """When the worker learns, and when it offers.

    Attributes:
        contract: path of the contract.
        behaviour: of the robot's data, see behaviour.policy.make_behaviour.
        shield: path of the bundle whose safety critic judges in shadow and goes into what is offered.
        first_steps: transitions before learning begins.
        updates_per_step: gradient steps of stage 1 for each transition, at most.
        round_updates: of stage 1 before a policy is extracted and judged.
        shadow_steps: transitions that must come after the extraction, to judge in the states of now.
        return_margin: by how much, as a share of the range of recorded returns, a policy may be estimated worse than
            the one in service.
        value_updates: gradient steps of each estimate.
        ssql: settings of the algorithm.
    """

    contract: str
    behaviour: dict[str, Any]
    shield: str
    first_steps: int = 2000
    updates_per_step: float = 1.0
    round_updates: int = 3000
    shadow_steps: int = 250
    return_margin: float = 0.05
    value_updates: int = 600
    replay: int = 500_000
    seed: int = 0
    ssql: dict[str, Any] = field(default_factory=dict)


def read_settings(path: Path) -> LiveSettings:
    """Return the settings of a learner's folder.

    Raises:
        ValueError: the file is not JSON, or has an unknown or a missing key.
    """
    try:
        values = json.loads(path.read_text())
        unknown = sorted(set(values) - {f.name for f in fields(LiveSettings)})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}")
        return LiveSettings(**values)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: is not a learner's configuration: {error}") from error


class LiveWorker:
    """Learns round by round. Its place is between `step`s.

    Args:
        folder: of the learner; checkpoint and candidates go there.
    """

    def __init__(self, folder: Path, settings: LiveSettings) -> None:
        self.folder, self.settings = folder, settings
        self.contract = load_contract(settings.contract)
        self.behaviour = make_behaviour(settings.behaviour)
        n, m = self.contract.observation_size, self.contract.action_size
        self.buffer = LiveBuffer(folder / "buffer", (n, self.behaviour.n_context, m))
        self.shield = load_bundle(settings.shield, self.contract)
        self.critic = SafetyCritic(self.shield)
        made = settings_of("ssql", self.contract.robot, settings.ssql)
        assert isinstance(made, SSQLSettings)
        self.ssql_settings = made
        self.replay = Replay(settings.replay, n + self.behaviour.n_context, m)
        self.held_out: list[Chunk] = []
        self.starts: list[np.ndarray] = []
        self.algorithm: SSQL | None = None
        self.updates = self.round_updates = self.rounds = self.chunks = self.incidents = self.breaches = (
            self.overridden
        ) = 0
        self.paused = self.asked = False
        self.loss = float("nan")
        self._draws = torch.Generator().manual_seed(settings.seed)
        self._rng = np.random.default_rng([settings.seed, 6])
        self._pending: Bundle | None = None
        self._gates: list[Gate] = []
        self._shadow: list[Chunk] = []
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
            if self._pending is not None:
                self._shadow.append(chunk)
            if self.chunks % HELD_OUT == HELD_OUT // 2:
                self.held_out.append(chunk)
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
        return enough and self.updates < s.updates_per_step * self.replay.added and bool(self.held_out)

    def step(self) -> list[dict[str, Any]]:
        """Learn for a moment; return what is to be told."""
        if self._pending is not None and sum(len(chunk) for chunk in self._shadow) >= self.settings.shadow_steps:
            return [self._judge_shadow()]
        if self.paused or not (self.ready() or (self.asked and len(self.replay) >= self.ssql_settings.batch)):
            return []
        algorithm = self._algorithm()
        for _ in range(SLICE):
            losses = algorithm.update(self._batch(algorithm))
        self.loss = float(losses["critic_loss"])
        self.updates += SLICE
        self.round_updates += SLICE
        told = [self.progress()]
        if self._pending is None and (self.round_updates >= self.settings.round_updates or self.asked):
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
                    tell({"event": "problem", "words": f"begins anew: {error}"})
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

    # Stage 2, and the gates.

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
            self.shield.epsilon,
            self.shield.gamma_safe,
            self.shield.critic,
            policy=networks["policy"],
            reward=networks["reward"],
            policy_kind=policy_kind(self.ssql_settings),
            behaviour=behaviour.describe(),
        )
        self.rounds += 1
        self.save()
        policy = supported_policy(bundle)
        self._gates = [self._judge_calibration(algorithm)]
        if self.held_out:
            self._gates.append(support_gate(policy, self.behaviour, self.held_out[-1], self._rng))
        if not all(gate.passed for gate in self._gates):
            return self._verdict()
        # The last gate needs states of the robot as it is now.
        self._pending, self._shadow = bundle, []
        return self.progress()

    def _judge_calibration(self, algorithm: SSQL) -> Gate:
        s = self.ssql_settings
        q, target, returns, whole = [], [], [], []
        for chunk in self.held_out[-8:]:
            states = torch.as_tensor(np.concatenate([chunk.observation, chunk.context], axis=1))
            batch = Batch(
                states,
                torch.as_tensor(chunk.action),
                torch.as_tensor(chunk.reward),
                torch.as_tensor(np.concatenate([chunk.following, chunk.following_context], axis=1)),
                torch.as_tensor(chunk.incident),
                torch.as_tensor(chunk.incident),
            )
            batch = Batch(*(part.to(algorithm.device) for part in vars(batch).values()))
            q.append(algorithm.q(batch.observation, batch.action).mean(dim=0).cpu().numpy())
            target.append(algorithm.target_value(batch).cpu().numpy())
            returns.append(returns_of(chunk.reward, chunk.first, chunk.incident, s.gamma))
            whole.append(_whole(chunk, s.gamma))
        if not q:
            return Gate("calibration", False, "no data is held out yet")
        parts = [np.concatenate(part) for part in (q, target, returns, whole)]
        return calibration_gate(parts[0], parts[1], parts[2], parts[3])

    def _judge_shadow(self) -> dict[str, Any]:
        assert self._pending is not None
        joined = Chunk(*(np.concatenate(part) for part in zip(*(vars(c).values() for c in self._shadow), strict=True)))
        settings = ShieldSettings(self.shield.epsilon, NO_CLOCK, NO_CLOCK)
        policy = supported_policy(self._pending)
        self._gates.append(shadow_gate(policy, joined, self.critic, self.contract, settings, self._rng))
        self._gates.append(self._judge_return(joined))
        return self._verdict()

    def _judge_return(self, shadow: Chunk) -> Gate:
        """Hold the candidate against what acts now: the newest policy that was offered, b where none was."""
        assert self._pending is not None
        algorithm, s = self._algorithm(), self.settings
        whole = _whole(shadow, self.ssql_settings.gamma)
        if not whole.any():
            return return_gate(0.0, 0.0, np.zeros(0))
        states = np.concatenate([shadow.observation, shadow.context], axis=1)[whole]
        returns = returns_of(shadow.reward, shadow.first, shadow.incident, self.ssql_settings.gamma)[whole]

        def judge(draw: Draw) -> float:
            seen = torch.as_tensor(states, device=algorithm.device)
            return fitted_value(algorithm, draw, lambda: self._batch(algorithm), s.value_updates, seen)

        candidate = judge(drawn_by_policy(taken_from(self._pending, algorithm, s.seed)))
        service = drawn_by_behaviour(algorithm)
        try:
            if offered := sorted((self.folder / "offered").glob("round_*.safetensors")):
                bundle = load_bundle(offered[-1], self.contract)
                service = drawn_by_policy(taken_from(bundle, algorithm, s.seed))
        except ValueError as error:
            # Of other settings, or damaged: what it has recorded is known all the same.
            tell({"event": "problem", "words": f"the policy in service cannot be judged, only its returns: {error}"})
            return return_gate(candidate, float(returns.mean()), returns, s.return_margin)
        return return_gate(candidate, judge(service), returns, s.return_margin)

    def _verdict(self) -> dict[str, Any]:
        passed = len(self._gates) == 4 and all(gate.passed for gate in self._gates)
        gates = [asdict(gate) for gate in self._gates]
        told: dict[str, Any] = {"event": "judged", "round": self.rounds, "passed": passed, "gates": gates}
        if passed and self._pending is not None:
            provenance = {
                "algorithm": "ssql",
                "live": self.progress(),
                "gates": gates,
                "settings": asdict(self.ssql_settings),
            }
            path = self.folder / "offered" / f"round_{self.rounds:03d}.safetensors"
            saved = save_bundle(with_probes(replace(self._pending, provenance=provenance), self.contract), path)
            told |= {"path": str(path), "bundle_id": saved.id}
        self._pending, self._shadow = None, []
        return told

    def export(self) -> dict[str, Any]:
        """Write what was learned so far as a bundle, judged or not; say where."""
        if self.algorithm is None:
            return {"event": "exported", "path": "", "words": "nothing is learned yet"}
        networks = self.algorithm.networks()
        bundle = Bundle(
            self.contract.id,
            self.shield.epsilon,
            self.shield.gamma_safe,
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
            "steps": self.replay.added + sum(len(chunk) for chunk in self.held_out),
            "updates": self.updates,
            "rounds": self.rounds,
            "critic_loss": self.loss,
            "incidents": self.incidents,
            "breaches": self.breaches,
            "overridden": self.overridden,
            "paused": self.paused,
            "refused_chunks": len(self.buffer.refused),
            "waits_for_shadow": self._pending is not None,
        }


def _whole(chunk: Chunk, gamma: float, left: float = 0.1) -> np.ndarray:
    """Return which steps (N,) see all but `left` of their discounted rest before their episode, or chunk, ends."""
    n = len(chunk)
    remaining = np.zeros(n)
    for i in range(n - 1, -1, -1):
        ends = i + 1 == n or chunk.first[i + 1] > 0
        remaining[i] = np.inf if chunk.incident[i] else (1.0 if ends else 1.0 + remaining[i + 1])
    return remaining >= np.log(left) / np.log(gamma)


def tell(message: dict[str, Any]) -> None:
    """Write one line on standard output."""
    print(json.dumps({k: None if v != v else v for k, v in message.items()}), flush=True)


def _command(timeout: float) -> str | None:
    """Return a word from standard input, "" where none came in `timeout` s, None at its end."""
    if not select.select([sys.stdin], [], [], timeout)[0]:
        return ""
    line = sys.stdin.readline()
    return line.strip() if line else None


def serve(worker: LiveWorker) -> None:
    """Learn until told to stop."""
    parent, looked = os.getppid(), time.monotonic()
    while True:
        new = worker.take_in()
        told = worker.step()
        for message in told:
            tell(message)
        if new and not told:
            tell(worker.progress())
        word = _command(0.0 if told else IDLE)
        if time.monotonic() - looked > PARENT_CHECK:
            looked = time.monotonic()
            if os.getppid() != parent:
                word = None
        if word is None or word == "stop":
            worker.save()
            return
        if word in ("pause", "resume"):
            worker.paused = word == "pause"
            tell(worker.progress())
        elif word == "train":
            worker.asked = True
        elif word == "export":
            tell(worker.export())
        elif word:
            tell({"event": "problem", "words": f"unknown command {word!r}"})


def main() -> int:
    """Run the worker."""
    torch.set_num_threads(1)
    with contextlib.suppress(OSError):
        os.nice(10)  # what drives the robot comes first
    folder = Path(sys.argv[1])
    try:
        worker = LiveWorker(folder, read_settings(folder / "live.json"))
    except (ValueError, OSError) as error:
        tell({"event": "problem", "words": str(error)})
        return 2
    serve(worker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
