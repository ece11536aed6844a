"""What a bundle holds: networks, the safety critic with its rule, and where it all came from.

A safety critic is one of two types, or there is none: of probabilities (with epsilon), of margins (with delta and a
certificate). A threshold of the one rule has no place in the other.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ssql_ros.model.backup import Backup
from ssql_ros.model.domain import Domain

# What a policy network puts out (see Bundle).
POLICIES = ("squashed_gaussian", "supported_gaussian", "one_step_flow", "behaviour", "supported_flow")
ACTIVATIONS = ("relu", "gelu", "tanh", "elu")


class BundleError(ValueError):
    """A bundle file cannot be used; the text names the file, what was expected and what came."""


class Rule(enum.IntEnum):
    """What a critic's scores are held against; the values are those of ShieldState.msg and ShieldedAction.msg."""

    NONE = 0
    PROBABILITY = 1
    MARGIN = 2


@dataclass(frozen=True)
class Layer:
    """One affine layer: y = x @ weight + bias, weight (n_in, n_out), bias (n_out,), float32."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Network:
    """Perceptrons of one state: it is standardised, joined with the action where one is judged or refined.

    output = f([clip((s - mean) / scale, -clip, clip), a]) of each member.

    Attributes:
        observation_mean, observation_scale: (n_observation,), or (n_observation + n_context,) where the network sees
            the behaviour policy's context too.
        observation_clip: bound on the standardised values, so that one wild sensor cannot push the network far
            outside of what it was trained on.
        members: the ensemble, each a sequence of layers.
        activation: between the layers, of `ACTIVATIONS`; "gelu" is the exact one, not its tanh approximation.
    """

    observation_mean: np.ndarray
    observation_scale: np.ndarray
    observation_clip: float
    members: tuple[tuple[Layer, ...], ...]
    activation: str = "relu"


def _fraction(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0.0 < value < 1.0):
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value!r}")


@dataclass(frozen=True)
class ProbabilityCritic(Network):
    """A logit: Q_safe(s, a) = sigmoid of the mean over members, safe where Q_safe <= epsilon.

    Attributes:
        epsilon: 0 < epsilon < 1.
        gamma_safe: its discount, 0 < gamma_safe < 1.
        backup: what takes over after the action that is judged; None: the controller goes on.
        domain: the observations that it was trained on; None: it does not say.
    """

    rule: ClassVar[Rule] = Rule.PROBABILITY
    epsilon: float = field(kw_only=True)
    gamma_safe: float = field(kw_only=True)
    backup: Backup | None = field(default=None, kw_only=True)
    domain: Domain | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the numbers. Raises ValueError."""
        _fraction("epsilon", self.epsilon)
        _fraction("gamma_safe", self.gamma_safe)

    @classmethod
    def of(
        cls,
        network: Network,
        epsilon: float,
        gamma_safe: float,
        backup: Backup | None = None,
        domain: Domain | None = None,
    ) -> ProbabilityCritic:
        """Return a network as a critic of this rule."""
        return cls(**_parts(network), epsilon=epsilon, gamma_safe=gamma_safe, backup=backup, domain=domain)


@dataclass(frozen=True)
class MarginCritic(Network):
    """Q_c(s, a): the worst signed margin to come, the maximum over members, safe where Q_c < delta.

    Attributes:
        delta: in the margin's unit; None: it was calibrated and no threshold could be certified, so nothing is safe.
        gamma_safe: its discount, 0 < gamma_safe < 1.
        certificate: what is promised below its `delta`, and on what data (see `ssql certify`); empty: nothing.
        backup, domain: as of a critic of probabilities.
    """

    rule: ClassVar[Rule] = Rule.MARGIN
    delta: float | None = field(kw_only=True)
    gamma_safe: float = field(kw_only=True)
    certificate: dict[str, Any] = field(default_factory=dict, kw_only=True)
    backup: Backup | None = field(default=None, kw_only=True)
    domain: Domain | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the numbers. Raises ValueError."""
        _fraction("gamma_safe", self.gamma_safe)
        if self.delta is not None and not math.isfinite(self.delta):
            raise ValueError(f"delta: expected a finite number, got {self.delta!r}")
        if self.delta is not None and self.certificate and not self.certified:
            promised = self.certificate.get("delta")
            raise ValueError(f"delta: expected at most {promised!r}, for which its certificate holds; got {self.delta}")

    @classmethod
    def of(
        cls,
        network: Network,
        delta: float | None,
        gamma_safe: float,
        certificate: dict[str, Any] | None = None,
        backup: Backup | None = None,
        domain: Domain | None = None,
    ) -> MarginCritic:
        """Return a network as a critic of this rule."""
        told = {**_parts(network), "delta": delta, "gamma_safe": gamma_safe, "certificate": certificate or {}}
        return cls(**told, backup=backup, domain=domain)

    @property
    def certified(self) -> bool:
        """Tell whether its certificate holds for its delta."""
        promised, below = (self.certificate.get(name) for name in ("delta", "below"))
        numbers = not isinstance(promised, bool) and isinstance(promised, float | int) and isinstance(below, int)
        if self.delta is None or promised is None or not numbers:
            return False
        return bool(below) and self.delta <= promised < math.inf


def _parts(network: Network) -> dict[str, Any]:
    return {name: getattr(network, name) for name in Network.__dataclass_fields__}


@dataclass(frozen=True)
class Bundle:
    """What a bundle file holds.

    Attributes:
        contract_id: id of the contract that the networks were trained against.
        critic: the safety critic, one number, with its rule and threshold. None: this bundle cannot shield.
        provenance: how it was trained and on what: command, seed, versions, data, held-out figures.
        policy: by `policy_kind`
            "squashed_gaussian": mean and log std (2 n_action) of u; the action is tanh(u) over the action's range;
            "supported_gaussian": the same of u, the action is tanh(u) over the box that the behaviour policy supports;
            "supported_flow": f (n_action) for noise z ~ N(0, I) that is joined to the state; the action is tanh(z + f)
                over the same box;
            "behaviour": the behaviour policy itself acts, and there is no network;
            "one_step_flow": the action (n_action) for noise z ~ N(0, I) that is joined to the state, clipped; where the
                weights of the noise are 0 it is a plain function of the state.
        reward: the reward critics, one value each, to go on learning from.
        behaviour: the behaviour policy whose support the policy keeps to: `kind` and what it is made from; empty: none.
            `context` is how many numbers it adds to the observation (such as the phase of a gait).
        probes: inputs and what the served networks made of them when it was saved, by name (see `model.probes`):
            "observation" (n, n_observation), "action" (n, n_action), "critic" (n, n), "policy" (n, any), "domain"
            (n, 1), of the critic's; empty: none.
        id: first 16 hex digits of the file's SHA-256; empty for one not saved yet.
    """

    contract_id: str
    critic: ProbabilityCritic | MarginCritic | None
    provenance: dict[str, Any] = field(default_factory=dict)
    policy: Network | None = None
    reward: Network | None = None
    policy_kind: str = POLICIES[0]
    behaviour: dict[str, Any] = field(default_factory=dict)
    probes: dict[str, np.ndarray] = field(default_factory=dict)
    id: str = ""
    path: str = ""

    @property
    def rule(self) -> Rule:
        """Return the rule of its critic."""
        return Rule.NONE if self.critic is None else self.critic.rule

    @property
    def n_context(self) -> int:
        """Return how many numbers the behaviour policy adds to the observation."""
        return int(self.behaviour.get("context", 0))

    def networks(self) -> dict[str, Network]:
        """Return the networks that it has, by name."""
        named = {"critic": self.critic, "policy": self.policy, "reward": self.reward}
        return {name: network for name, network in named.items() if network is not None}

    def serves(self) -> set[str]:
        """Return which of "critic" and "policy" it has to serve: also where its behaviour policy itself acts."""
        acts = self.policy is not None or self.policy_kind == "behaviour"
        return {name for name, has in (("critic", self.critic is not None), ("policy", acts)) if has}

    def need(self, name: str) -> Network:
        """Return a network by name.

        Raises:
            BundleError: the bundle has none.
        """
        networks = self.networks()
        if name not in networks:
            found = ", ".join(networks) or "nothing"
            raise BundleError(f"{self.path or 'bundle'}: expected a network {name!r}, found {found}")
        return networks[name]

    def margin_critic(self) -> MarginCritic:
        """Return its critic of margins.

        Raises:
            BundleError: it has none, or one of probabilities.
        """
        critic = self.safety_critic()
        if not isinstance(critic, MarginCritic):
            raise BundleError(f"{self.path or 'bundle'}: expected a critic of margins, found one of probabilities")
        return critic

    def safety_critic(self) -> ProbabilityCritic | MarginCritic:
        """Return its safety critic. Raises BundleError: it has none."""
        self.need("critic")
        assert self.critic is not None
        return self.critic

    def probability_critic(self) -> ProbabilityCritic:
        """Return its critic of probabilities.

        Raises:
            BundleError: it has none, or one of margins.
        """
        critic = self.safety_critic()
        if not isinstance(critic, ProbabilityCritic):
            raise BundleError(f"{self.path or 'bundle'}: expected a critic of probabilities, found one of margins")
        return critic
