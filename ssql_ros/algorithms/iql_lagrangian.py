"""IQL with a Lagrangian: SafeFQL's baseline, to which a failure is a cost with a price (IQL: 2110.06169).

c(s) = 1 where l(s) > 0. IQL's critics of the priced reward:
    J(V)   = E |tau - 1{A < 0}| A^2,   A = min_i Qbar_i(s, a) - V(s)
    J(Q_i) = E (Q_i(s, a) - [r - lambda c + gamma (1 - terminal) V(s')])^2
IQL's policy, a Gaussian squashed to [-1, 1], by advantage-weighted regression:
    J(pi)  = -E w(s, a) log pi(a|s),   w = min(exp(beta A), 100)
What that policy costs: pi ~ w times the log's policy, so the same weights evaluate it on the log's actions alone:
    J(V_c) = E w(s, a) (Qbar_c(s, a) - V_c(s))^2
    J(Q_c) = E (Q_c(s, a) - [c + gamma (1 - terminal) V_c(s')])^2
Dual ascent on the price, from starts s_0 of the log that are not failures already:
    lambda <- clip(lambda + eta (E V_c(s_0) - d), 0, lambda_max),   d = budget / H * (1 - gamma^H) / (1 - gamma)

d is what an episode of H steps may cost, discounted as V_c is: as if its failures were spread evenly over it. Over n
steps r and c are their discounted sums, s' the state after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssql_ros.algorithms.base import Algorithm, Settings, averaged
from ssql_ros.algorithms.dual_ascent import ascended
from ssql_ros.algorithms.iql import EDGE, MOST_WEIGHT
from ssql_ros.algorithms.safefql import expectile_loss
from ssql_ros.data.logged_steps import OfflineBatch, OfflineData
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.squashed_gaussian import log_probability
from ssql_ros.nn.update import Update


@dataclass(frozen=True)
class IQLLagrangianSettings(Settings):
    """How IQL with a Lagrangian learns.

    Attributes:
        actor_hidden: widths of the actor's layers; `hidden`: of the critics'.
        n_step: steps that one target looks ahead.
        expectile: tau of J(V), above 0.5.
        sharpness: beta, of the advantage in the policy's weights.
        cost_budget: steps an episode that may be spent in the failure set, in the mean; 0: none.
        price_rate: eta, of the dual ascent on lambda.
        most_price: lambda_max; what no price can buy must not let it grow for ever.
        starts: that E V_c(s_0) is taken over at each step.
        reward_scale, cost_scale: on r and c, so that Q and Q_c are of the order of 1; lambda is a price in these units.
        decay_from: share of the steps after which the learning rate falls, linearly to 0.
    """

    actor_hidden: tuple[int, ...] = (256, 256)
    n_step: int = 1
    expectile: float = 0.9
    sharpness: float = 3.0
    cost_budget: float = 1.0
    price_rate: float = 1e-3
    most_price: float = 100.0
    starts: int = 256
    reward_scale: float = 1.0
    cost_scale: float = 1.0
    decay_from: float = 1.0


def discounted_budget(budget: float, length: float, gamma: float) -> float:
    """Return d = budget / H * (1 - gamma^H) / (1 - gamma), H = length; without discount it is the budget."""
    return budget if gamma == 1.0 else budget / length * (1.0 - gamma**length) / (1.0 - gamma)


class IQLLagrangian(Algorithm):
    """The learner: networks, the price, and one step on each."""

    settings: IQLLagrangianSettings

    def _build(self) -> None:
        n, m = len(self.mean), self.n_action
        self._price = torch.zeros((), dtype=torch.float64, device=self.device)
        self.q, self.v = self._perceptron(n + m, members=2), self._perceptron(n)
        self.q_c, self.v_c = self._perceptron(n + m), self._perceptron(n)
        self.q_target, self.q_c_target = averaged(self.q), averaged(self.q_c)
        self.actor = self._gaussian(n, self.settings.actor_hidden)
        self._optimiser = self._adam(self.q, self.v, self.q_c, self.v_c, self.actor)
        self._update = Update(self._updated, [self._optimiser], self.arithmetic)

    def _widths(self) -> tuple[int, ...]:
        return self.settings.hidden + self.settings.actor_hidden

    @property
    def price(self) -> float:
        """Return lambda."""
        return float(self._price)

    @price.setter
    def price(self, price: float) -> None:
        self._price.fill_(price)

    def losses(self, batch: OfflineBatch) -> dict[str, torch.Tensor]:
        """Return J(V), J(Q), J(pi), J(V_c), J(Q_c)."""
        s = self.settings
        state, next_observation = self.standardise(batch.observation), self.standardise(batch.next_observation)
        pair, reward, cost = torch.cat([state, batch.action], dim=1), s.reward_scale * batch.reward, batch.cost
        with torch.no_grad():
            best, costs = self.q_target(pair)[..., 0].amin(dim=0), self.q_c_target(pair)[0, :, 0]
            discount = s.gamma**s.n_step * (1.0 - batch.terminal)
            y = reward - (s.cost_scale * self._price).float() * cost + discount * self.v(next_observation)[0, :, 0]
            y_c = s.cost_scale * cost + discount * self.v_c(next_observation)[0, :, 0]
        advantage = best - self.v(state)[0, :, 0]
        weight = (s.sharpness * advantage.detach()).exp().clamp_max(MOST_WEIGHT)
        u = torch.atanh(batch.action.clamp(-EDGE, EDGE))
        mean, log_std = self.actor.distribution(state)
        return {
            "v": expectile_loss(advantage, s.expectile),
            "q": (self.q(pair)[..., 0] - y).square().sum(dim=0).mean(),
            "actor": -(weight * log_probability(u, (u - mean) * (-log_std).exp(), log_std)).mean(),
            "v_c": (weight * (costs - self.v_c(state)[0, :, 0]).square()).mean(),
            "q_c": (self.q_c(pair)[0, :, 0] - y_c).square().mean(),
        }

    def _updated(self, batch: OfflineBatch, starts: torch.Tensor, length: float) -> dict[str, torch.Tensor]:
        """Make one step of critics and policy, then one of the price; return losses, price and cost, both unscaled."""
        losses = self.losses(batch)
        # They have no parameter in common: one step serves all.
        self._optimiser.descend(torch.stack(list(losses.values())).sum())
        update_average(self.q_target, self.q, self.settings.tau)
        update_average(self.q_c_target, self.q_c, self.settings.tau)
        return {name: loss.detach() for name, loss in losses.items()} | self._ascend(starts, length)

    @torch.no_grad()
    def _ascend(self, starts: torch.Tensor, length: float) -> dict[str, torch.Tensor]:
        s = self.settings
        cost = self.v_c(self.standardise(starts))[0, :, 0].mean()
        limit = s.cost_scale * discounted_budget(s.cost_budget, length, s.gamma)
        self._price.copy_(ascended(self._price, cost, limit, s.price_rate, s.most_price))
        return {
            "price": self._price * (s.cost_scale / s.reward_scale),
            "discounted_cost": cost / s.cost_scale,
            "discounted_budget": torch.full_like(cost, limit / s.cost_scale),
        }

    def learn(self, step: int, steps: int, data: OfflineData) -> dict[str, torch.Tensor]:
        """Make update `step`, from 0, of `steps`; return losses, price and cost."""
        s = self.settings
        self._decay(step, steps, self._optimiser)
        batch = data.draw(s.batch, self.generator)
        drawn = torch.randint(len(data.starts), (s.starts,), generator=self.generator, device=self.device)
        return self._update(batch, data.starts[drawn], data.length)

    def _parts(self) -> dict[str, Any]:
        names = ("q", "v", "q_c", "v_c", "q_target", "q_c_target", "actor")
        networks = {name: getattr(self, name) for name in names}
        return {"networks": networks, "optimiser": self._optimiser, "generator": self.generator}

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {**super().state(), "price": self.price}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint. Raises ValueError where it cannot be computed as it was."""
        super().restore(state)
        self.price = float(state["price"])

    def _served(self) -> dict[str, Ensemble]:
        """Return the policy, and the critics of the priced reward."""
        return {"policy": self.actor, "reward": self.q}
