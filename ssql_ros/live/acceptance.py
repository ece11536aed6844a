"""Judges what was learned live: through every gate, the last ones in the states that the robot meets now."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ssql_ros.algorithms.sac import NO_CLOCK
from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.contract import Contract
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.replay import Batch
from ssql_ros.live.algorithms import LiveAlgorithm
from ssql_ros.live.buffer import Chunk
from ssql_ros.live.gates import Gate, calibration_gate, return_gate, returns_of, shadow_gate, support_gate
from ssql_ros.live.offers import in_service
from ssql_ros.live.policy_value import Draw, drawn_by_behaviour, drawn_by_policy, fitted_value, taken_from
from ssql_ros.live.settings import LiveSettings
from ssql_ros.model.bundle import Bundle, load_bundle
from ssql_ros.model.critic import SafetyCritic, thresholds_of
from ssql_ros.model.policy import supported_policy
from ssql_ros.shield.decision import ShieldSettings

GATES = 4
JUDGED_CHUNKS = 8  # newest ones of what is held out


class LiveJudge:
    """Takes one candidate at a time: `begin`, then `see` what the robot does now, then `finish`.

    Args:
        folder: of the learner; what was offered lies in its folder `offered`.
        shield: whose safety critic judges in shadow.
        tell: what becomes of problems, in words.

    Attributes:
        held_out: newest chunks that nothing is learned from.
        pending: the candidate that waits for the states of now; None: there is none.
    """

    def __init__(
        self,
        folder: Path,
        settings: LiveSettings,
        contract: Contract,
        behaviour: BehaviourPolicy,
        shield: Bundle,
        tell: Callable[[str], None],
    ) -> None:
        self.held_out: deque[Chunk] = deque(maxlen=JUDGED_CHUNKS)
        self.pending: Bundle | None = None
        self._folder, self._settings, self._contract, self._behaviour = folder, settings, contract, behaviour
        self._shield, self._critic, self._tell = shield, SafetyCritic(shield), tell
        self._rng = Stream.LIVE_ACCEPTANCE.generator(settings.seed)
        self._gates: list[Gate] = []
        self._shadow: list[Chunk] = []

    def see(self, chunk: Chunk) -> None:
        """Take in what the robot has done, where a candidate waits for it."""
        if self.pending is not None:
            self._shadow.append(chunk)

    @property
    def has_seen_enough(self) -> bool:
        """Return whether the candidate that waits can be judged."""
        return self.pending is not None and sum(len(chunk) for chunk in self._shadow) >= self._settings.shadow_steps

    def begin(self, candidate: Bundle, algorithm: LiveAlgorithm) -> bool:
        """Judge by what is held out; return whether the candidate waits for the other gates now."""
        self._gates = [self._judge_calibration(algorithm)]
        if self.held_out:
            self._gates.append(support_gate(supported_policy(candidate), self._behaviour, self.held_out[-1], self._rng))
        passed = all(gate.passed for gate in self._gates)
        self.pending, self._shadow = candidate if passed else None, []
        return passed

    def finish(self, algorithm: LiveAlgorithm, draw_batch: Callable[[], Batch]) -> Bundle | None:
        """Judge the candidate that waits; return it where it has passed every gate.

        Args:
            draw_batch: returns a batch of what was recorded, for estimates of a policy's value.
        """
        candidate, self.pending = self.pending, None
        assert candidate is not None
        joined = Chunk.joined(self._shadow)
        own = thresholds_of(self._shield)
        shield = ShieldSettings(own["epsilon"], NO_CLOCK, NO_CLOCK, delta=own["delta"])
        policy = supported_policy(candidate)
        self._gates.append(shadow_gate(policy, joined, self._critic, self._contract, shield, self._rng))
        self._gates.append(self._judge_return(candidate, joined, algorithm, draw_batch))
        self._shadow = []
        return candidate if len(self._gates) == GATES and all(gate.passed for gate in self._gates) else None

    @property
    def gates(self) -> list[Gate]:
        """Return the gates that the newest candidate has come to."""
        return self._gates

    def _judge_calibration(self, algorithm: LiveAlgorithm) -> Gate:
        gamma = algorithm.settings.gamma
        q, target, returns, whole = [], [], [], []
        for chunk in self.held_out:
            states = torch.as_tensor(np.concatenate([chunk.observation, chunk.context], axis=1))
            batch = Batch(
                states,
                torch.as_tensor(chunk.action),
                torch.as_tensor(chunk.reward),
                torch.as_tensor(np.concatenate([chunk.next_observation, chunk.next_context], axis=1)),
                torch.as_tensor(chunk.incident),
                torch.as_tensor(chunk.incident),
            )
            batch = Batch(*(part.to(algorithm.device) for part in vars(batch).values()))
            q.append(algorithm.q(batch.observation, batch.action).mean(dim=0).cpu().numpy())
            target.append(algorithm.target_value(batch).cpu().numpy())
            returns.append(returns_of(chunk.reward, chunk.first, chunk.incident, gamma))
            whole.append(_whole(chunk, gamma))
        if not q:
            return Gate("calibration", False, "no data is held out yet")
        parts = [np.concatenate(part) for part in (q, target, returns, whole)]
        return calibration_gate(parts[0], parts[1], parts[2], parts[3])

    def _judge_return(
        self, candidate: Bundle, shadow: Chunk, algorithm: LiveAlgorithm, draw_batch: Callable[[], Batch]
    ) -> Gate:
        """Hold the candidate against what acts now: the newest policy that was offered and not refused, or b."""
        s, gamma = self._settings, algorithm.settings.gamma
        whole = _whole(shadow, gamma)
        if not whole.any():
            return return_gate(0.0, 0.0, np.zeros(0))
        states = np.concatenate([shadow.observation, shadow.context], axis=1)[whole]
        returns = returns_of(shadow.reward, shadow.first, shadow.incident, gamma)[whole]

        def judge(draw: Draw) -> float:
            seen = torch.as_tensor(states, device=algorithm.device)
            return fitted_value(algorithm, draw, draw_batch, s.value_updates, seen)

        estimate = judge(drawn_by_policy(taken_from(candidate, algorithm, s.seed)))
        service = drawn_by_behaviour(algorithm)
        try:
            if (offered := in_service(self._folder)) is not None:
                bundle = load_bundle(offered, self._contract)
                service = drawn_by_policy(taken_from(bundle, algorithm, s.seed))
        except ValueError as error:
            # Of other settings, or damaged: what it has recorded is known all the same.
            self._tell(f"the policy in service cannot be judged, only its returns: {error}")
            return return_gate(estimate, float(returns.mean()), returns, s.return_margin)
        return return_gate(estimate, judge(service), returns, s.return_margin)


def _whole(chunk: Chunk, gamma: float, left: float = 0.1) -> np.ndarray:
    """Return which steps (N,) see all but `left` of their discounted rest before their episode, or chunk, ends."""
    n = len(chunk)
    remaining = np.zeros(n)
    for i in range(n - 1, -1, -1):
        ends = i + 1 == n or chunk.first[i + 1] > 0
        remaining[i] = np.inf if chunk.incident[i] else (1.0 if ends else 1.0 + remaining[i + 1])
    return remaining >= np.log(left) / np.log(gamma)
