"""SafeFQL: safe flow Q-learning from a log, with reachability as the safety critic and a policy of one forward pass.

Reward critics, IQL, an upper expectile tau:
    J(V_r) = E |tau - 1{u < 0}| u^2,   u = min_i Qbar_r,i(s, a) - V_r(s)
    J(Q_r) = E (Q_r,i(s, a) - [r + gamma (1 - terminal) V_r(s')])^2
Safety critics, V_c(s) = min over policies of the max over time of l, a lower expectile tau_c:
    J(V_c) = E |tau_c - 1{u > 0}| u^2,   u = max_i Qbar_c,i(s, a) - V_c(s)
    J(Q_c) = E (Q_c,i(s, a) - y)^2,   y = (1 - gamma_safe) l + gamma_safe max(l, V_c(s')),   y = l at terminals
Flow teacher, the behaviour policy:
    J(v)   = E ||v(s, x_t, t) - (a - z)||^2,   x_t = (1 - t) z + t a,   z ~ N(0, I),   t ~ U(0, 1)
One-step actor with the feasibility gate, q = max_i Q_c,i(s, mu):
    J(mu)  = E alpha ||mu(s, z) - teacher(s, z)||^2 + (-Q_r(s, mu)  where q < -gate,  else  w max(0, q + gate))

Q_c < 0 reads: can stay safe for ever. Over n steps r is their discounted sum, l their maximum, s' the state after them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssql_ros.data.logged_steps import OfflineBatch, OfflineData
from ssql_ros.model.bundle import Network
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.arithmetic import Arithmetic
from ssql_ros.nn.networks import Ensemble, default_device, exported, update_average
from ssql_ros.nn.update import Update


@dataclass(frozen=True)
class SafeFQLSettings:
    """How SafeFQL learns; the defaults are the authors'.

    Attributes:
        hidden, actor_hidden: widths of the critics' and of the actors' layers.
        batch, actor_batch: transitions a step of the critics and of the actors.
        n_step: steps that one target looks ahead.
        tau: of the averages that targets follow.
        expectile, safety_expectile: above 0.5; 1 is the best action of the log.
        alpha: weight of the distillation.
        safety_weight: w.
        gate: m; states are left to the reward only where they can stay this far from the failure set.
        flow_steps: Euler steps of the teacher.
        reward_scale: on rewards, so that Q_r is of the order of 1.
        critic_activation, activation: between the layers of critics and actors, "relu" or "gelu".
        actor_from: share of the steps after which the actors begin: the critics do not need them.
        decay_from: share of the steps after which the learning rate falls, linearly to 0.
    """

    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)
    actor_hidden: tuple[int, ...] = (512, 512, 512, 512)
    critic_activation: str = "relu"
    activation: str = "gelu"
    batch: int = 256
    actor_batch: int = 1024
    gamma: float = 0.99
    gamma_safe: float = 0.99
    n_step: int = 1
    tau: float = 0.005
    expectile: float = 0.9
    safety_expectile: float = 0.9
    alpha: float = 10.0
    safety_weight: float = 100.0
    gate: float = 0.0
    flow_steps: int = 10
    reward_scale: float = 1.0
    actor_from: float = 0.0
    decay_from: float = 1.0
    observation_clip: float = 10.0


def expectile_loss(u: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the mean of |tau - 1{u < 0}| u^2: its minimiser over a shift is the tau-expectile."""
    return (torch.where(u < 0.0, 1.0 - tau, tau) * u.square()).mean()


def reachability_target(
    margin: torch.Tensor, next_observation: torch.Tensor, terminal: torch.Tensor, gamma: float
) -> torch.Tensor:
    """Return (1 - gamma) l + gamma max(l, V_c(s')), and l at terminals; all (batch,)."""
    worst = torch.where(terminal > 0.0, margin, torch.maximum(margin, next_observation))
    return (1.0 - gamma) * margin + gamma * worst


class SafeFQL:
    """The learner: networks, and one gradient step on each.

    Args:
        mean, scale: (n_observation,), the standardisation of observations.
        seed: of the weights and of what the updates draw.
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        n_action: int,
        settings: SafeFQLSettings,
        seed: int,
        device: torch.device | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.settings, self.n_action = settings, n_action
        self.device = device or default_device()
        self.arithmetic = Arithmetic(self.device, settings.hidden + settings.actor_hidden, precision)
        precision = self.arithmetic.precision
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=self.device)
        self.scale = torch.as_tensor(scale, dtype=torch.float32, device=self.device)
        weights = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        n, m = len(self.mean), n_action

        def critic(n_in: int, members: int) -> Ensemble:
            sizes = (n_in, *settings.hidden, 1)
            return Ensemble(sizes, members, weights, precision, settings.critic_activation).to(self.device)

        def actor(n_in: int) -> Ensemble:
            sizes = (n_in, *settings.actor_hidden, m)
            return Ensemble(sizes, 1, weights, precision, settings.activation).to(self.device)

        self.q_r, self.q_c, self.v_r, self.v_c = critic(n + m, 2), critic(n + m, 2), critic(n, 1), critic(n, 1)
        self.q_r_target, self.q_c_target = (copy.deepcopy(q).requires_grad_(False) for q in (self.q_r, self.q_c))
        self.teacher, self.actor = actor(n + m + 1), actor(n + m)
        self._critic_optimiser = self._adam([self.q_r, self.q_c, self.v_r, self.v_c])
        self._actor_optimiser = self._adam([self.teacher, self.actor])
        self._update_critics = Update(self._critics_updated, [self._critic_optimiser], self.arithmetic)
        self._update_actors = Update(self._actors_updated, [self._actor_optimiser], self.arithmetic)

    def _adam(self, ensembles: list[Ensemble]) -> Adam:
        return Adam([e.flat for e in ensembles], self.settings.learning_rate)

    def standardise(self, observation: torch.Tensor) -> torch.Tensor:
        """Return observations (batch, n_observation) as the networks see them."""
        bound = self.settings.observation_clip
        return ((observation - self.mean) / self.scale).clamp(-bound, bound)

    def update_critics(self, batch: OfflineBatch) -> dict[str, torch.Tensor]:
        """Make one step of the critics."""
        return self._update_critics(batch)

    def _critics_updated(self, batch: OfflineBatch) -> dict[str, torch.Tensor]:
        losses = self.critic_losses(batch, self.settings.n_step)
        self._critic_optimiser.descend(torch.stack(list(losses.values())).sum())
        update_average(self.q_r_target, self.q_r, self.settings.tau)
        update_average(self.q_c_target, self.q_c, self.settings.tau)
        return {name: loss.detach() for name, loss in losses.items()}

    def update_actors(self, batch: OfflineBatch) -> dict[str, torch.Tensor]:
        """Make one step of teacher and actor."""
        return self._update_actors(batch.observation, batch.action, self.noise(len(batch.action)))

    def noise(self, count: int) -> dict[str, torch.Tensor]:
        """Return what the actors' update draws: where flows begin (z), and at which time the teacher is asked."""
        return {"flow": self._normal(count), "time": self._uniform(count), "actor": self._normal(count)}

    def _actors_updated(
        self, observation: torch.Tensor, action: torch.Tensor, noise: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        losses = self.actor_losses(self.standardise(observation), action, noise)
        self._actor_optimiser.descend(losses["flow"] + losses["actor"])
        return {name: loss.detach() for name, loss in losses.items()}

    def critic_losses(self, batch: OfflineBatch, n_step: int) -> dict[str, torch.Tensor]:
        """Return J(V_r), J(Q_r), J(V_c), J(Q_c)."""
        s = self.settings
        state, next_observation = self.standardise(batch.observation), self.standardise(batch.next_observation)
        pair = torch.cat([state, batch.action], dim=1)
        with torch.no_grad():
            best = self.q_r_target(pair)[..., 0].amin(dim=0)
            worst = self.q_c_target(pair)[..., 0].amax(dim=0)
            v_r_following, v_c_following = self.v_r(next_observation)[0, :, 0], self.v_c(next_observation)[0, :, 0]
            discount = s.gamma**n_step * (1.0 - batch.terminal)
            y_r = s.reward_scale * batch.reward + discount * v_r_following
            y_c = reachability_target(batch.margin, v_c_following, batch.terminal, s.gamma_safe**n_step)
        return {
            "v_r": expectile_loss(best - self.v_r(state)[0, :, 0], s.expectile),
            "q_r": (self.q_r(pair)[..., 0] - y_r).square().sum(dim=0).mean(),
            # The low side: an expectile of -Q_c.
            "v_c": expectile_loss(self.v_c(state)[0, :, 0] - worst, s.safety_expectile),
            "q_c": (self.q_c(pair)[..., 0] - y_c).square().sum(dim=0).mean(),
        }

    def actor_losses(
        self, state: torch.Tensor, action: torch.Tensor, noise: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return J(v) and J(mu), and what share of states the gate leaves to the reward."""
        s, z, time = self.settings, noise["flow"], noise["time"]
        between = (1.0 - time) * z + time * action
        flow = (self.velocity(state, between, time) - (action - z)).square().mean()

        z = noise["actor"]
        with torch.no_grad():
            taught = self.teach(state, z)
        proposed = self.act(state, z)
        distillation = (proposed - taught).square().mean()
        pair = torch.cat([state, _Inside.apply(proposed)], dim=1)
        q_r = self.q_r.frozen(pair)[..., 0].amin(dim=0)
        q_c = self.q_c.frozen(pair)[..., 0].amax(dim=0)
        gated = gated_loss(q_r, q_c, s.gate, s.safety_weight)
        feasible = (q_c.detach() < -s.gate).float().mean()
        return {
            "flow": flow,
            "actor": s.alpha * distillation + gated,
            "distillation": distillation,
            "feasible": feasible,
        }

    def velocity(self, state: torch.Tensor, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return v(s, x_t, t) (batch, n_action)."""
        return self.teacher(torch.cat([state, x, time], dim=1))[0]

    def teach(self, state: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the teacher's action for noise z (batch, n_action): x from 0 to 1 in Euler steps, then clipped."""
        x, steps = noise, self.settings.flow_steps
        for i in range(steps):
            x = x + self.velocity(state, x, torch.full_like(x[:, :1], i / steps)) / steps
        return x.clamp(-1.0, 1.0)

    def act(self, state: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return mu(s, z) (batch, n_action), before it is clipped."""
        return self.actor(torch.cat([state, noise], dim=1))[0]

    def learn(self, step: int, steps: int, data: OfflineData) -> dict[str, torch.Tensor]:
        """Make update `step`, from 0, of `steps`; return the losses."""
        settings = self.settings
        left = (steps - step) / max(steps * (1.0 - settings.decay_from), 1.0)
        for optimiser in (self._critic_optimiser, self._actor_optimiser):
            optimiser.set_rate(settings.learning_rate * min(1.0, left))
        losses = self.update_critics(data.draw(settings.batch, self.generator))
        if step >= settings.actor_from * steps:
            losses |= self.update_actors(data.draw(settings.actor_batch, self.generator))
        return losses

    def _named(self) -> dict[str, Ensemble]:
        names = ("q_r", "q_c", "v_r", "v_c", "q_r_target", "q_c_target", "teacher", "actor")
        return {name: getattr(self, name) for name in names}

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {
            "networks": {name: ensemble.flat for name, ensemble in self._named().items()},
            "optimisers": [o.state() for o in (self._critic_optimiser, self._actor_optimiser)],
            "generator": self.generator.get_state(),
            "arithmetic": self.arithmetic.state(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint. Raises ValueError where it cannot be computed as it was."""
        self.arithmetic.restore(state.get("arithmetic"), self._named().values())
        for name, ensemble in self._named().items():
            ensemble.flat.copy_(state["networks"][name])
        optimisers = (self._critic_optimiser, self._actor_optimiser)
        for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
            optimiser.restore(values)
        self.generator.set_state(state["generator"])

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds, by name: one-step actor, safety critic, reward critics."""
        mean, scale = self.mean.cpu().numpy(), self.scale.cpu().numpy()
        named = {"policy": self.actor, "critic": self.q_c, "reward": self.q_r}
        return {name: exported(e, mean, scale, self.settings.observation_clip) for name, e in named.items()}

    def _normal(self, count: int) -> torch.Tensor:
        return torch.randn((count, self.n_action), generator=self.generator, device=self.device)

    def _uniform(self, count: int) -> torch.Tensor:
        return torch.rand((count, 1), generator=self.generator, device=self.device)


class _Inside(torch.autograd.Function):
    """Clips actions to [-1, 1], and stops only the gradients that push further out: one on the edge must come back."""

    @staticmethod
    def forward(ctx: Any, action: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(action)
        return action.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (action,), (gradient,) = ctx.saved_tensors, gradients
        # A step goes against the gradient.
        outwards = ((action > 1.0) & (gradient < 0.0)) | ((action < -1.0) & (gradient > 0.0))
        return gradient.masked_fill(outwards, 0.0)


def gated_loss(q_r: torch.Tensor, q_c: torch.Tensor, gate: float, weight: float) -> torch.Tensor:
    """Return the mean of -Q_r where Q_c < -gate, else w max(0, Q_c + gate); never both. All (batch,)."""
    return torch.where(q_c < -gate, -q_r, weight * (q_c + gate).clamp(min=0.0)).mean()
