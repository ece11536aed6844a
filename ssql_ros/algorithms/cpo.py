"""CPO: constrained policy optimisation (Achiam et al. 2017, 1705.10528). The cost of a step is its incident, I(s').

With g and b the gradients of the expected advantage of reward and of cost, H the Fisher matrix of the policy, and c how
far the cost is above its limit, each batch moves the parameters by the solution x of

    max g^T x   where   c + b^T x <= 0,   1/2 x^T H x <= delta                                               (eq. 11)

which its dual gives (eq. 12, `solve_dual`). Where no x within delta meets the constraint, x lowers the cost alone:
x = -sqrt(2 delta / b^T H^-1 b) H^-1 b (eq. 14). What is true of the linear model need not be true of the policy: a
line search shortens x until the KL divergence and the cost of the batch agree (section 6).

The policy is the squashed Gaussian of the other learners. Ratios and divergences are those of u, a = tanh(u): tanh
changes neither. On-policy: each batch serves one update, nothing is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.base import Unmasked, check_found, restore_to, state_of, take
from ssql_ros.algorithms.on_policy import OnPolicyBuffer, Steps, generalised_advantage
from ssql_ros.data.replay import Transition
from ssql_ros.model.bundle import Network
from ssql_ros.model.proposal import Proposal
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.networks import Ensemble, default_device, exported
from ssql_ros.nn.squashed_gaussian import SquashedGaussian
from ssql_ros.nn.trust_region import FLAT, GaussianPolicy, conjugate_gradient


@dataclass(frozen=True)
class CPOSettings:
    """How CPO learns; the defaults are the paper's where it has one network of this size for it.

    Attributes:
        hidden: widths of the hidden layers.
        batch_steps: steps of collection between two updates.
        gamma: discount of the reward.
        cost_limit: d, incidents an episode that are allowed.
        delta: bound on the mean KL divergence of an update, nats.
        damping: added to the diagonal of H.
        gradient_iterations: of conjugate gradients.
        backtracks, shortening: how often the line search shortens a step at most, and by which factor.
        gae_decay, cost_gae_decay: lambda of the advantages of reward and of cost.
        learning_rate, value_updates: of the two value functions, steps of Adam on each batch.
        observation_clip: bound on standardised observations.
    """

    hidden: tuple[int, ...] = (64, 32)
    batch_steps: int = 4000
    gamma: float = 0.99
    gae_decay: float = 0.95
    cost_gae_decay: float = 0.95
    cost_limit: float = 0.1
    delta: float = 0.01
    damping: float = 1e-5
    gradient_iterations: int = 10
    backtracks: int = 15
    shortening: float = 0.8
    learning_rate: float = 1e-3
    value_updates: int = 80
    observation_clip: float = 10.0


def solve_dual(q: float, r: float, s: float, c: float, delta: float) -> tuple[float, float] | None:
    """Return lambda and nu of the optimum x = H^-1 (g - nu b) / lambda; None: no x within delta meets c + b^T x <= 0.

    They minimise (q - 2 r nu + s nu^2) / (2 lambda) + lambda delta - nu c over lambda, nu >= 0 (eq. 12, theorem 2).

    Args:
        q, r, s: g^T H^-1 g, g^T H^-1 b, b^T H^-1 b.
    """
    least = 1e-12
    if s <= FLAT or c * c / s > 2.0 * delta:
        # The constraint cannot be reached within delta: it is broken everywhere, or met everywhere.
        return None if c > 0.0 else (max(math.sqrt(q / (2.0 * delta)), least), 0.0)
    # By nu = (r + lambda c) / s where that is positive, else 0, the dual is a function of lambda on two intervals.
    edge = -r / c if c else (math.inf if r <= 0.0 else 0.0)
    below, above = (0.0, max(edge, 0.0)), (max(edge, 0.0), math.inf)
    active, slack = (above, below) if c >= 0.0 else (below, above)
    across = max(q - r * r / s, 0.0)
    spare = 2.0 * delta - c * c / s
    on = _projected(math.sqrt(across / max(spare, least)), active)
    off = _projected(math.sqrt(q / (2.0 * delta)), slack)
    value_on = 0.5 * across / max(on, least) + 0.5 * on * spare - r * c / s
    value_off = 0.5 * q / max(off, least) + off * delta
    if value_on <= value_off:
        return max(on, least), max((r + on * c) / s, 0.0)
    return max(off, least), 0.0


def _projected(x: float, interval: tuple[float, float]) -> float:
    return min(max(x, interval[0]), interval[1])


class CPO(Unmasked):
    """The learner.

    Args:
        mean, scale: (n_observation,), the standardisation of observations.
        seed: of the weights.
        device: default: the GPU where there is one.
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        n_action: int,
        settings: CPOSettings,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        self.settings, self.device = settings, device or default_device()
        self.mean, self.scale = (torch.as_tensor(x, dtype=torch.float64, device=self.device) for x in (mean, scale))
        weights, n = torch.Generator().manual_seed(seed), len(mean)
        self.actor = SquashedGaussian(n, n_action, settings.hidden, weights).to(self.device)
        # V of the reward and V of the cost, one network each.
        self.values = Ensemble((n, *settings.hidden, 1), 2, weights).to(self.device)
        self.optimiser = Adam(self.values.parameters(), settings.learning_rate)
        self.buffer = OnPolicyBuffer(settings.batch_steps, n, n_action)

    def standardise(self, observation: np.ndarray) -> torch.Tensor:
        """Return observations (T, n_observation) as the networks see them, float64."""
        rows = torch.as_tensor(observation, dtype=torch.float64, device=self.device)
        bound = self.settings.observation_clip
        return ((rows - self.mean) / self.scale).clamp_(-bound, bound)

    def update(self, steps: Steps) -> dict[str, torch.Tensor]:
        """Make one step of the policy, then fit the value functions; return what happened."""
        state, advantages, returns = self.advantages(steps)
        losses = self.move(state, torch.as_tensor(steps.u, device=self.device), advantages, steps)
        return {**losses, "value_loss": self._fit(state.float(), returns.float())}

    @torch.no_grad()
    def advantages(self, steps: Steps) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return states (T, n_observation), advantages (2, T) of reward and cost, and what V shall be there (2, T)."""
        s = self.settings
        state = self.standardise(steps.observation)
        values, next_observation = (
            self.values(x.float())[..., 0].double().cpu().numpy()
            for x in (state, self.standardise(steps.next_observation))
        )
        found = np.stack(
            [
                generalised_advantage(signal, value, after, steps.terminal, steps.begins, s.gamma, decay)
                for signal, value, after, decay in (
                    (steps.reward, values[0], next_observation[0], s.gae_decay),
                    (steps.incident, values[1], next_observation[1], s.cost_gae_decay),
                )
            ]
        )
        centred = found - found.mean(axis=1, keepdims=True)
        # The reward's unit is free; the cost's is not: the limit is in it.
        centred[0] /= found[0].std() + 1e-8
        return state, torch.as_tensor(centred, device=self.device), torch.as_tensor(found + values, device=self.device)

    def move(
        self, state: torch.Tensor, u: torch.Tensor, advantages: torch.Tensor, steps: Steps
    ) -> dict[str, torch.Tensor]:
        """Solve eq. 11 for one batch, search along the solution, and take what is found."""
        s, policy = self.settings, GaussianPolicy(self.actor, state)
        start = self.actor.flat.detach().double()
        with torch.no_grad():
            before, log_before = policy.distribution(start), policy.log_probability(start, u)

        def expected(flat: torch.Tensor) -> torch.Tensor:
            """Return E (pi / pi_k) A of reward and cost (2,)."""
            return (advantages * (policy.log_probability(flat, u) - log_before).exp()).mean(dim=1)

        g, b = torch.func.jacrev(expected)(start)
        # J_C rises by T E A_C, T the length of an episode: in the unit of one step the excess is c / T.
        excess = (float(steps.incident.sum()) / steps.episodes - s.cost_limit) * steps.episodes / len(steps.u)
        x, recovers = self.direction(policy.fisher(start, s.damping), g, b, excess)
        now, kl, taken = expected(start), 0.0, 0.0
        with torch.no_grad():
            for i in range(s.backtracks):
                length = s.shortening**i
                flat = start + length * x
                reward, cost = (expected(flat) - now).tolist()
                kl = float(policy.divergence(flat, before))
                # NaN fails every comparison.
                if kl <= s.delta and cost <= max(-excess, 0.0) and (recovers or reward >= 0.0):
                    self.actor.flat.copy_(flat)
                    taken = length
                    break
            else:
                kl = 0.0
        found = {"kl": kl, "step_length": taken, "cost_excess": excess, "recovers": float(recovers)}
        return {name: torch.tensor(value) for name, value in found.items()}

    def direction(
        self, fisher: Callable[[torch.Tensor], torch.Tensor], g: torch.Tensor, b: torch.Tensor, excess: float
    ) -> tuple[torch.Tensor, bool]:
        """Return x of eq. 11, or of eq. 14 and True where there is none."""
        s = self.settings
        to_g, to_b = (conjugate_gradient(fisher, v, s.gradient_iterations) for v in (g, b))
        q, r, curve = (float(v) for v in (g.dot(to_g), g.dot(to_b), b.dot(to_b)))
        dual = solve_dual(q, r, curve, excess, s.delta)
        if dual is None:
            # Where nothing changes the cost either, the policy stays.
            return -math.sqrt(2.0 * s.delta / curve) * to_b if curve > FLAT else torch.zeros_like(b), True
        multiplier, nu = dual
        return (to_g - nu * to_b) / multiplier, False

    def _fit(self, state: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
        loss = torch.zeros(())
        for _ in range(self.settings.value_updates):
            loss = (self.values(state)[..., 0] - returns).square().mean(dim=1).sum()
            self.optimiser.descend(loss)
        return loss.detach()

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std (n_action,) of u for one observation (n_observation,); the action is tanh(u)."""
        mean, log_std = self.actor.distribution(self.standardise(observation[np.newaxis]).float())
        return mean[0].double().cpu().numpy(), log_std[0].exp().double().cpu().numpy()

    # What the training loop asks of a learner.

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self.buffer.begin()

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy."""
        mean, std = self.act(observation)
        u = mean + std * rng.standard_normal(len(mean))
        return Proposal(np.tanh(u), 0.0, mean, std, squashed=True)

    def observe(self, transition: Transition) -> None:
        """Keep the step for the batch."""
        self.buffer.add(transition)

    def learn(self) -> dict[str, torch.Tensor]:
        """Make one update where the batch is complete; an episode that goes on is cut there."""
        return self.update(self.buffer.take()) if self.buffer.full else {}

    def figures(self) -> dict[str, float]:
        """Return nothing: the log of episodes says all."""
        return {}

    def arithmetic(self) -> dict[str, Any]:
        """Return how it computes: a batch is one update, which is not compiled."""
        return {"precision": "float32", "compiled_from": None}

    def behaviour_description(self) -> dict[str, Any]:
        """Return that its policy keeps to no behaviour policy."""
        return {}

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from the policy of a bundle; a bundle has no value functions of states.

        Raises:
            ValueError: it is missing or of another shape.
        """
        check_found(["policy"], networks)
        self.actor.load(networks["policy"])

    def load_pretrained(self, learned: dict[str, Any]) -> None:
        """Begin from what a run of CPO learned.

        Raises:
            ValueError: a network is missing or of another shape.
        """
        take(self._named(), learned.get("networks", {}))

    def learned(self) -> dict[str, Any]:
        """Return what fine-tuning can begin from."""
        return state_of({"networks": self._named()})

    def _named(self) -> dict[str, list[Ensemble]]:
        return {"policy": [self.actor], "values": [self.values]}

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds: the policy."""
        mean, scale = self.mean.cpu().numpy(), self.scale.cpu().numpy()
        return {"policy": exported(self.actor, mean, scale, self.settings.observation_clip)}

    def _parts(self) -> dict[str, Any]:
        return {"networks": self._named(), "optimiser": self.optimiser, "buffer": self.buffer}

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold; the steps of the batch that is not complete too."""
        return state_of(self._parts())

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.load_pretrained(state)
        restore_to(self._parts(), state)
