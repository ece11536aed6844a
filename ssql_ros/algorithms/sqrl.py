"""SQRL's pre-training: a safety critic is learned with a policy (Srinivasan et al. 2020, 2010.14603, algorithm 1).

    Q_safe target  y = I(s') + (1 - I(s')) gamma_safe Qbar_safe(s', a'),   a' ~ pi(.|s'), the UNmasked policy   (eq. 2)
    mask           pi-bar(a|s) ~ pi(a|s) 1{Q_safe(s, a) <= epsilon}                                            (eq. 3)

Fine-tuning is in `sqrl_finetuning`. The mask is drawn by the shield that runs on the robot. Risk accumulates: what the
mask of a frozen critic bounds by epsilon is each step, not each episode (see test/support/finite_mdp.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch.nn import functional

from ssql_ros.algorithms.base import averaged
from ssql_ros.algorithms.sac import NO_CLOCK, SAC, Mask, SACSettings
from ssql_ros.algorithms.safety_critic import bellman_target
from ssql_ros.algorithms.work import Work
from ssql_ros.data.replay import Batch, Replay, Transition, Unrolled, joined
from ssql_ros.model.backup import Backup
from ssql_ros.model.bundle import Bundle, Network, ProbabilityCritic
from ssql_ros.model.critic import SafetyCritic, logit
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.squashed_gaussian import log_probability
from ssql_ros.nn.update import Update
from ssql_ros.shield.decision import ShieldSettings


@dataclass(frozen=True)
class SQRLSettings(SACSettings):
    """How SQRL learns; the defaults are the paper's table 1 and the authors' code where it is silent.

    Attributes:
        epsilon, gamma_safe: threshold on Q_safe and its discount.
        off_policy_steps: n_off, steps between two refreshments of D_safe.
        rollouts: k, masked episodes of each.
        safety_updates: gradient steps of the safety critic after each.
        final_safety_updates: gradient steps of the safety critic on D_offline alone, once pre-training has collected
            everything.
        safety_replay: how many steps D_safe keeps.
        offline_share: fraction of each of its batches that comes from D_offline; 0 is the paper's. The target takes
            a' from the policy of today, so old actions are no bias, and they show what the policy no longer does.
        near_share, near_steps: fraction of each batch drawn from the last steps before an incident, which are rare
            otherwise. Where noise decides what follows (s, a), that prefers the bad outcomes, and Q_safe is too high.
        risky_share: fraction of the masked episodes that draw just below epsilon; the others draw by eq. 3.
        safety_tau: of the safety critic's target network.
        safety_members: networks of the safety critic; their logits are averaged.
        target_candidates: 1: a' of the target is drawn from the unmasked policy (appendix D). More: the first of as
            many draws that the target network finds safe, or the least risky one; a' is then the masked policy's, so
            that the mask does not close where the policy alone is bad.
        safety_lookahead: longest k over which the safety critic's target is unrolled along what was executed, like the
            n-step returns of a behaviour; 1 is eq. 2 to the letter, a' of the policy of today.
        target_uniform: these draws are uniform, not the policy's: Q_safe is then that of the masked policy that knows
            nothing else, whatever the actor learns, and risks are those that `spider_grid` solves exactly.
        prior: Q_safe that the network says everywhere before it has learned anything.
        explore_masked: the first, uniform actions of pre-training are masked too: who lives longer sees more.
        mask_from: fraction of pre-training after which collection is masked too.
        rollouts_masked_from: the same of D_safe's own episodes, which are masked as soon as collection is. Earlier: the
            critic learns what follows where the mask steps in, and the policy does not learn to lean on it.
        keep_rollouts: whether D_safe's episodes are put into D_offline as well.
        candidates, rounds, growth: of the mask (see ShieldSettings).
        mask_backup: whether the task's backup stands behind the mask, as in a shield: where nothing that the policy
            draws is safe it is one more candidate, and it takes over where that is so often (see SafetyFilter).
        online: whether the safety critic goes on learning while fine-tuning.
        dual_rate: learning rate of nu.
        initial_nu: where it begins.
        masked_value: once collection is masked, the reward critics' a' is the masked policy's (`target_candidates`
            draws), not the policy's own: what the mask forbids is then worth nothing to the states before it.
    """

    epsilon: float = 0.1
    gamma_safe: float = 0.7
    off_policy_steps: int = 1000
    rollouts: int = 5
    safety_updates: int = 100
    final_safety_updates: int = 0
    safety_replay: int = 5_000
    offline_share: float = 0.5
    near_share: float = 0.1
    near_steps: int = 25
    risky_share: float = 0.5
    safety_tau: float = 0.02
    safety_members: int = 1
    target_candidates: int = 1
    safety_lookahead: int = 1
    target_uniform: bool = False
    prior: float = 0.02
    explore_masked: bool = False
    mask_from: float = 0.5
    rollouts_masked_from: float = 1.0
    keep_rollouts: bool = False
    candidates: int = 50
    rounds: int = 6
    growth: float = 1.5
    mask_backup: bool = False
    online: bool = False
    dual_rate: float = 1e-3
    initial_nu: float = 1.0
    masked_value: bool = False


class SQRLPretraining(SAC):
    """Algorithm 1: SAC, and a safety critic on fresh masked rollouts.

    Args:
        contract_id: of the robot, for the bundle that serves the mask.
        steps: length of the pre-training.
        backup: of the task, for `mask_backup`.

    Raises:
        ValueError: `mask_backup` where the task has no backup.
    """

    settings: SQRLSettings

    def __init__(
        self, *shape_and_settings: Any, contract_id: str, steps: int, backup: Backup | None = None, **options: Any
    ) -> None:
        self._contract_id, self._steps, self._backup = contract_id, steps, backup
        self._serving: SafetyCritic | None = None
        self._masked = False
        super().__init__(*shape_and_settings, **options)

    def _build(self) -> None:
        super()._build()
        s, n = self.settings, len(self.mean)
        if s.mask_backup and self._backup is None:
            raise ValueError("mask_backup: this task has no backup (see ssql_ros.robots.tasks.Task); leave it out")
        weights = torch.Generator().manual_seed(self._seed + 2)
        self.safety = self._perceptron(n + self.n_action, members=s.safety_members, weights=weights)
        with torch.no_grad():
            # Where nothing was seen yet the mask must not close, or nothing ever will be.
            self.safety.weights[-1].mul_(0.1)
            self.safety.biases[-1].fill_(logit(s.prior))
        self.safety_target = averaged(self.safety)
        self.safety_optimiser = self._adam(self.safety)
        self._safety_update = Update(self._safety_updated, [self.safety_optimiser], self.arithmetic)
        self.safety_replay = Replay(s.safety_replay, n, self.n_action)
        self.draws = torch.Generator().manual_seed(self._seed + 3)

    def _shield(self) -> ShieldSettings:
        s = self.settings
        return ShieldSettings(s.epsilon, NO_CLOCK, NO_CLOCK, s.candidates, s.rounds, s.growth)

    def mask(self, step: int) -> Mask | None:
        """Return the mask of collection: none before `mask_from` of the pre-training, but for its first actions."""
        s = self.settings
        begun = step >= s.mask_from * self._steps or (s.explore_masked and step < s.initial_steps)
        self._masked = self._serving is not None and begun
        return self._own_mask() if self._masked else None

    def _own_mask(self) -> Mask | None:
        return None if self._serving is None else Mask(self._serving, self._shield())

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return the masks of the on-policy episodes that D_safe wants after this step, some just below epsilon."""
        s = self.settings
        if step % s.off_policy_steps:
            return []
        mask = self._own_mask() if step >= s.rollouts_masked_from * self._steps else self.mask(step)
        risky = None if mask is None else Mask(mask.critic, replace(mask.settings, riskiest=True))
        n_risky = round(s.risky_share * s.rollouts)
        return [risky] * n_risky + [mask] * (s.rollouts - n_risky)

    def observe_rollouts(self, episodes: list[list[Transition]]) -> dict[str, torch.Tensor]:
        """Add masked episodes to D_safe and learn Q_safe from it."""
        for transition in (transition for episode in episodes for transition in episode):
            self.safety_replay.add(transition)
            if self.settings.keep_rollouts:
                self.replay.add(transition)
        losses = self._fit_safety()
        self.serve()
        return losses

    @property
    def _values_mask(self) -> bool:
        """Return whether a' of the reward critics' target is the masked policy's."""
        return self.settings.masked_value and self._masked

    def noise(self, count: int) -> dict[str, torch.Tensor]:
        """Return what an update draws."""
        if not self._values_mask:
            return super().noise(count)
        return {"next_observation": self._normal(count * self.settings.target_candidates), "state": self._normal(count)}

    @torch.no_grad()
    def target_value(
        self, next_observation: torch.Tensor, batch: Batch, noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return y (batch,), a' of the masked policy where that is wanted."""
        if not self._values_mask:
            return super().target_value(next_observation, batch, noise)
        count = self.settings.target_candidates
        rows = next_observation.repeat_interleave(count, dim=0)
        action, drawn = self._candidates(rows, noise["next_observation"])
        logits = self.safety(torch.cat([rows, action], dim=1))[..., 0].mean(dim=0).view(-1, count)
        chosen = self._first_safe(logits) + count * torch.arange(len(next_observation), device=self.device)
        q = self.target(torch.cat([next_observation, action[chosen]], dim=1))[..., 0]
        # How probable a widened draw is says nothing of the policy's entropy: the policy's own draw does.
        own = drawn.view(-1, count)[:, 0]
        soft = self.pessimistic(q) - self.alpha * own
        return batch.reward + self.settings.gamma * (1.0 - batch.terminal) * soft

    def _fit_safety(self) -> dict[str, torch.Tensor]:
        loss = torch.zeros(())
        for _ in range(self.settings.safety_updates):
            loss = self._learn_safety(self._safety_batch())
        return {"safety_loss": loss}

    def _learn_safety(self, batch: Batch | Unrolled) -> torch.Tensor:
        return self._safety_update(batch, self.safety_noise(len(batch.observation)))["safety_loss"]

    def safety_noise(self, count: int) -> torch.Tensor:
        """Return what an update of Q_safe draws for the candidates of a': uniform actions, or z of the policy's."""
        rows = count * self.settings.target_candidates
        if not self.settings.target_uniform:
            return self._normal(rows)
        return torch.rand((rows, self.n_action), generator=self.generator, device=self.device) * 2.0 - 1.0

    def _safety_updated(self, batch: Batch | Unrolled, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        state = self.standardise(batch.observation)
        with torch.no_grad():
            target = self._safety_target_value(batch, noise)
        logits = self.safety(torch.cat([state, batch.action], dim=1))[..., 0]
        loss = functional.binary_cross_entropy_with_logits(logits, target)
        self.safety_optimiser.descend(loss)
        update_average(self.safety_target, self.safety, self.settings.safety_tau)
        return {"safety_loss": loss.detach()}

    def finish(self) -> list[Work]:
        """Return the last fit of the safety critic to D_offline, where one is wanted, and its way behind the mask."""
        count = self.settings.final_safety_updates
        return [Work("safety critic", count, self._final_safety), Work("mask", 1, self._serve)] if count else []

    def _final_safety(self) -> dict[str, torch.Tensor]:
        return {"safety_loss": self._learn_safety(self._offline_safety_batch())}

    def _serve(self) -> dict[str, torch.Tensor]:
        self.serve()
        return {}

    def _safety_target_value(self, batch: Batch | Unrolled, noise: torch.Tensor) -> torch.Tensor:
        """Return y (M, batch) of eq. 2, unrolled along the record where that is wanted."""
        next_observation, gamma = self.standardise(batch.next_observation), self.settings.gamma_safe
        # A policy that differs from what was executed counts only where nothing is recorded.
        q = self._q_following(next_observation, noise)
        if isinstance(batch, Batch):
            return bellman_target(batch.incident, gamma * (1.0 - batch.terminal), q)
        executed = torch.sigmoid(self.safety_target(torch.cat([next_observation, batch.next_action], dim=1))[..., 0])
        value = batch.incident * gamma ** (batch.steps - 1.0)
        bootstrap = gamma**batch.steps * (1.0 - batch.terminal) * (1.0 - batch.incident)
        return bellman_target(value, bootstrap, torch.where(batch.recorded > 0.0, executed, q))

    def _q_following(self, next_observation: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return Qbar_safe(s', a') (M, batch) of each member."""
        count = self.settings.target_candidates
        rows = next_observation.repeat_interleave(count, dim=0)
        action = noise if self.settings.target_uniform else self._candidates(rows, noise)[0]
        logits = self.safety_target(torch.cat([rows, action], dim=1))[..., 0].view(-1, len(next_observation), count)
        chosen = self._first_safe(logits.mean(dim=0))
        return torch.sigmoid(logits.gather(2, chosen.expand(len(logits), -1).unsqueeze(-1))[..., 0])

    def _candidates(self, rows: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the actions (batch * count, n_action) of z and their log-probability, `count` rows for each state."""
        count = self.settings.target_candidates
        mean, log_std = self.actor.distribution(rows)
        # The scale grows from draw to draw, as the shield's does from round to round.
        wider = self.settings.growth ** torch.linspace(0.0, self.settings.rounds - 1.0, count, device=self.device)
        z = z * wider.repeat(len(rows) // count).unsqueeze(-1)
        u = torch.addcmul(mean, log_std.exp(), z)
        return torch.tanh(u), log_probability(u, z, log_std)

    def _first_safe(self, logits: torch.Tensor) -> torch.Tensor:
        """Return, of candidates' logits (batch, count), the index of the first safe one, or of the least risky one."""
        safe = logits <= logit(self.settings.epsilon)
        # argmax of flags is the first that is set.
        return torch.where(safe.any(dim=1), safe.int().argmax(dim=1), logits.argmin(dim=1))

    def _safety_batch(self) -> Batch | Unrolled:
        s = self.settings
        near = self._near()
        n_offline = round(s.offline_share * s.batch) if len(self.replay) > 1 else 0
        n_safe = s.batch - n_offline - sum(len(index) for _, index in near)
        parts = [(self.safety_replay, self.safety_replay.drawn(n_safe, self.draws))]
        if n_offline:
            parts.append((self.replay, self.replay.drawn(n_offline, self.draws)))
        return self._rows(parts + near)

    def _offline_safety_batch(self) -> Batch | Unrolled:
        near = self._near()
        n_uniform = self.settings.batch - sum(len(index) for _, index in near)
        return self._rows([(self.replay, self.replay.drawn(n_uniform, self.draws)), *near])

    def _near(self) -> list[tuple[Replay, torch.Tensor]]:
        """Return the rows of a batch that come from shortly before incidents; none where there was none."""
        s = self.settings
        near = self.replay.drawn_near(round(s.near_share * s.batch), s.near_steps, self.draws)
        return [] if near is None else [(self.replay, near)]

    def _rows(self, parts: list[tuple[Replay, torch.Tensor]]) -> Batch | Unrolled:
        ahead = self.settings.safety_lookahead
        if ahead > 1:
            return reduce(joined, (of.unrolled(index, ahead, self.device) for of, index in parts))
        return reduce(joined, (of.batch(index, self.device) for of, index in parts))

    def serve(self) -> None:
        """Put the safety critic as it is now behind the mask."""
        s = self.settings
        backup = self._backup if s.mask_backup else None
        critic = ProbabilityCritic.of(self.exported(self.safety), s.epsilon, s.gamma_safe, backup)
        self._serving = SafetyCritic(Bundle(self._contract_id, critic))

    def q_safe(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Return Q_safe (batch,), with gradients for the action only."""
        return torch.sigmoid(self.safety.frozen(torch.cat([state, action], dim=1))[..., 0].mean(dim=0))

    def _named(self) -> dict[str, tuple[Ensemble, ...]]:
        return {**super()._named(), "critic": (self.safety, self.safety_target)}

    def _optimisers(self) -> list[Adam]:
        return [*super()._optimisers(), self.safety_optimiser]

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from the networks of a bundle, its safety critic behind the mask."""
        super().load_networks(networks)
        self.serve()

    def load_pretrained(self, learned: dict[str, Any]) -> None:
        """Begin from what a run learned, its safety critic behind the mask."""
        super().load_pretrained(learned)
        self.serve()

    def _parts(self) -> dict[str, Any]:
        return {**super()._parts(), "safety_replay": self.safety_replay, "draws": self.draws}

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {**super().state(), "serving": self._serving is not None}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        super().restore(state)
        if state["serving"]:
            self.serve()
