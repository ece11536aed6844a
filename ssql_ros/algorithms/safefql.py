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

from dataclasses import dataclass
from typing import Any

import torch

from ssql_ros.algorithms.base import Algorithm, Settings, averaged
from ssql_ros.data.logged_steps import OfflineBatch, OfflineData
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.update import Update


@dataclass(frozen=True)
class SafeFQLSettings(Settings):
    """How SafeFQL learns; the defaults are the authors'.

    Attributes:
        actor_hidden, actor_batch: widths of the actors' layers, transitions of a step; `hidden`, `batch`: the critics'.
        gamma_safe: discount of reachability.
        n_step: steps that one target looks ahead.
        expectile, safety_expectile: above 0.5; 1 is the best action of the log.
        alpha: weight of the distillation.
        safety_weight: w, of max(0, Q_c) in the actor's loss.
        gate: m; states are left to the reward only where they can stay this far from the failure set.
        flow_steps: Euler steps of the teacher.
        reward_scale: on rewards, so that Q_r is of the order of 1.
        critic_activation, activation: between the layers of critics and actors, "relu" or "gelu".
        actor_from: share of the steps after which the actors begin: the critics do not need them.
        decay_from: share of the steps after which the learning rate falls, linearly to 0.
    """

    actor_hidden: tuple[int, ...] = (512, 512, 512, 512)
    critic_activation: str = "relu"
    activation: str = "gelu"
    actor_batch: int = 1024
    gamma_safe: float = 0.99
    n_step: int = 1
    expectile: float = 0.9
    safety_expectile: float = 0.9
    alpha: float = 10.0
    safety_weight: float = 100.0
    gate: float = 0.0
    flow_steps: int = 10
    reward_scale: float = 1.0
    actor_from: float = 0.0
    decay_from: float = 1.0


def expectile_loss(u: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the mean of |tau - 1{u < 0}| u^2: its minimiser over a shift is the tau-expectile."""
    return (torch.where(u < 0.0, 1.0 - tau, tau) * u.square()).mean()


def reachability_target(
    margin: torch.Tensor, next_observation: torch.Tensor, terminal: torch.Tensor, gamma: float
) -> torch.Tensor:
    """Return (1 - gamma) l + gamma max(l, V_c(s')), and l at terminals; all (batch,)."""
    worst = torch.where(terminal > 0.0, margin, torch.maximum(margin, next_observation))
    return (1.0 - gamma) * margin + gamma * worst


class SafeFQL(Algorithm):
    """The learner: networks, and one gradient step on each."""

    settings: SafeFQLSettings

    def _build(self) -> None:
        s, n, m = self.settings, len(self.mean), self.n_action

        def critic(n_in: int, members: int) -> Ensemble:
            return self._perceptron(n_in, 1, members, activation=s.critic_activation)

        def actor(n_in: int) -> Ensemble:
            return self._perceptron(n_in, m, hidden=s.actor_hidden, activation=s.activation)

        self.q_r, self.q_c, self.v_r, self.v_c = critic(n + m, 2), critic(n + m, 2), critic(n, 1), critic(n, 1)
        self.q_r_target, self.q_c_target = averaged(self.q_r), averaged(self.q_c)
        self.teacher, self.actor = actor(n + m + 1), actor(n + m)
        self._critic_optimiser = self._adam(self.q_r, self.q_c, self.v_r, self.v_c)
        self._actor_optimiser = self._adam(self.teacher, self.actor)
        self._update_critics = Update(self._critics_updated, [self._critic_optimiser], self.arithmetic)
        self._update_actors = Update(self._actors_updated, [self._actor_optimiser], self.arithmetic)

    def _widths(self) -> tuple[int, ...]:
        return self.settings.hidden + self.settings.actor_hidden

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
        self._decay(step, steps, self._critic_optimiser, self._actor_optimiser)
        losses = self.update_critics(data.draw(settings.batch, self.generator))
        if step >= settings.actor_from * steps:
            losses |= self.update_actors(data.draw(settings.actor_batch, self.generator))
        return losses

    def _parts(self) -> dict[str, Any]:
        names = ("q_r", "q_c", "v_r", "v_c", "q_r_target", "q_c_target", "teacher", "actor")
        optimisers = [self._critic_optimiser, self._actor_optimiser]
        networks = {name: getattr(self, name) for name in names}
        return {"networks": networks, "optimisers": optimisers, "generator": self.generator}

    def _served(self) -> dict[str, Ensemble]:
        """Return the one-step actor, the safety critic, the reward critics."""
        return {"policy": self.actor, "critic": self.q_c, "reward": self.q_r}

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
