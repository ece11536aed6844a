"""Serves a bundle's policy: a proposal for an observation. NumPy alone: no torch where a robot runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy, make_behaviour
from ssql_ros.behaviour.support import Support
from ssql_ros.model.activation import ACTIVATION
from ssql_ros.model.bundle import Bundle, BundleError
from ssql_ros.model.proposal import Proposal
from ssql_ros.model.served_network import mean_and_std, outputs, perceptron, q_values, standardised


class ServedPolicy:
    """A policy out of a bundle, or a controller. Actions are in [-1, 1]. Here it draws and remembers nothing."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy for an observation (n_observation,), and move on by one step."""
        return Proposal(self.best(observation), 0.0)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable action (n_action,), and move on by one step."""
        raise NotImplementedError

    def context(self) -> np.ndarray:
        """Return what the policy knows beside the observation (n_context,), at this step."""
        return np.zeros(0)


class BesideBehaviour(ServedPolicy):
    """A policy that keeps to a behaviour policy's support, and begins and remembers what that does."""

    def __init__(self, behaviour: BehaviourPolicy) -> None:
        self.behaviour = behaviour

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode, as the behaviour policy does."""
        self.behaviour.reset(rng)

    def context(self) -> np.ndarray:
        """Return the behaviour policy's context (n_context,)."""
        return self.behaviour.context()

    def _state(self, observation: np.ndarray) -> np.ndarray:
        return np.concatenate([observation, self.behaviour.context()])


def make_policy(bundle: Bundle) -> ServedPolicy:
    """Return the policy of a bundle, by its kind.

    Raises:
        BundleError: the bundle has no policy, or one of a kind that is not served, or its behaviour is not known.
    """
    kinds: dict[str, Callable[[Bundle], ServedPolicy]] = {
        "squashed_gaussian": Policy,
        "supported_gaussian": SupportedPolicy,
        "supported_flow": SupportedFlow,
        "behaviour": lambda found: ActingBehaviour(behaviour_of(found)),
        "one_step_flow": OneStepFlow,
    }
    if bundle.policy_kind not in kinds:
        raise BundleError(f"{bundle.path}: policy_kind: expected one of {', '.join(kinds)}, got {bundle.policy_kind!r}")
    return kinds[bundle.policy_kind](bundle)


def supported_policy(bundle: Bundle) -> SupportedPolicy:
    """Return a bundle's policy where it is one that keeps to a support.

    Raises:
        BundleError: it is of another kind, or the bundle has none.
    """
    return (SupportedFlow if bundle.policy_kind == "supported_flow" else SupportedPolicy)(bundle)


class Policy(ServedPolicy):
    """The squashed Gaussian policy of one bundle: the action is tanh(u), u ~ N(mean, std).

    Raises:
        BundleError: the bundle has no policy, or one of another kind.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._network = perceptron(bundle, "policy", "squashed_gaussian")

    def distribution(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std (n_action,) of u for an observation (n_observation,)."""
        return mean_and_std(self._network, observation)

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy."""
        mean, std = self.distribution(observation)
        u = mean + std * rng.standard_normal(len(mean))
        return Proposal(np.tanh(u), 0.0, mean, std, squashed=True)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable u's action (n_action,)."""
        return np.tanh(self.distribution(observation)[0])


class SupportedPolicy(BesideBehaviour):
    """A Gaussian squashed into the support of a behaviour policy: no action leaves it (see algorithms/extraction.py).

    Raises:
        BundleError: the bundle has no such policy, or its behaviour policy is not known here.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._network = perceptron(bundle, "policy", "supported_gaussian")
        super().__init__(behaviour_of(bundle))
        self._n_action = self._network.members[0][-1].bias.size // 2

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy."""
        return self._propose(observation, rng.standard_normal(self._n_action))

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the action (n_action,) of the most probable noise."""
        return self._propose(observation, np.zeros(self._n_action)).action

    def _propose(self, observation: np.ndarray, z: np.ndarray) -> Proposal:
        proposal = self.at(observation, self.behaviour.context(), z)
        self.behaviour.advance()
        return proposal

    def at(self, observation: np.ndarray, context: np.ndarray, z: np.ndarray) -> Proposal:
        """Return the proposal for standard normal z (n_action,) in a state, wherever the policy's own clock stands."""
        state = np.concatenate([observation, context])
        mean, std = mean_and_std(self._network, state)
        action, low, high = self._supported(state, mean + std * z)
        return Proposal(action, 0.0, mean, std, squashed=True, low=low, high=high)

    def _supported(self, state: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the action of u, and low and high of the box that it is squashed into, each (n_action,)."""
        support = self.behaviour.support(state[np.newaxis])
        low, high = (edge[0] for edge in support.hull())
        action = low + 0.5 * (high - low) * (1.0 + np.tanh(u))
        # Several boxes leave gaps in their hull.
        return support.project(action[np.newaxis, np.newaxis])[0, 0], low, high


class SupportedFlow(SupportedPolicy):
    """A one-step flow squashed into the support of a behaviour policy (see algorithms/flow_extraction.py).

    Raises:
        BundleError: the bundle has no such policy, or its behaviour policy is not known here.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._network = bundle.need("policy")
        if bundle.policy_kind != "supported_flow":
            raise BundleError(f"{bundle.path}: expected a policy supported_flow; got {bundle.policy_kind}")
        self.behaviour = behaviour_of(bundle)
        self._n_action = self._network.members[0][-1].bias.size

    def at(self, observation: np.ndarray, context: np.ndarray, z: np.ndarray) -> Proposal:
        """Return the proposal for standard normal z (n_action,) in a state, wherever the policy's own clock stands."""
        state = np.concatenate([observation, context])
        x = np.concatenate([standardised(self._network, state), z], dtype=np.float32)
        action, low, high = self._supported(state, z + outputs(self._network, x).mean(axis=0, dtype=float))
        return Proposal(action, 0.0, low=low, high=high)


class OneStepFlow(ServedPolicy):
    """mu(s, z), z ~ N(0, I): one forward pass to an action, which is clipped (see algorithms/safefql.py).

    Raises:
        BundleError: the bundle has no such policy.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._network = network = bundle.need("policy")
        if bundle.policy_kind != "one_step_flow":
            raise BundleError(f"{bundle.path}: expected a policy one_step_flow; got {bundle.policy_kind}")
        self._n_action = network.members[0][-1].bias.size
        self._mean, self._scale = network.observation_mean.astype(float), network.observation_scale.astype(float)
        self._between = ACTIVATION[network.activation]

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return the action of a draw of z."""
        return Proposal(self.at(observation, rng.standard_normal(self._n_action)), 0.0)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the action (n_action,) of z = 0, the most probable z."""
        return self.at(observation, np.zeros(self._n_action))

    def at(self, observation: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the actions (..., n_action) of observations (..., n_observation) and noise z (..., n_action)."""
        bound = self._network.observation_clip
        state = np.minimum(np.maximum((observation - self._mean) / self._scale, -bound), bound)
        x = np.concatenate([state, z], axis=-1).astype(np.float32)
        total = 0.0
        for member in self._network.members:
            y = x @ member[0].weight + member[0].bias
            for layer in member[1:]:
                y = self._between(y) @ layer.weight + layer.bias
            total = total + y
        # Ensembles of policies are averaged in what they put out.
        return np.minimum(np.maximum(total / len(self._network.members), -1.0), 1.0).astype(float)


class ActingBehaviour(BesideBehaviour):
    """The behaviour policy itself, as a robot begins before anything is learned."""

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from b; candidates in its place keep to its support."""
        low, high = self._support(observation).hull()
        return Proposal(self.behaviour.act(observation, rng), 0.0, low=low[0], high=high[0])

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the middle of b's support, or what is near it where the support has a gap there."""
        support = self._support(observation)
        low, high = support.hull()
        self.behaviour.advance()
        return support.project(0.5 * (low + high)[:, np.newaxis])[0, 0]

    def _support(self, observation: np.ndarray) -> Support:
        return self.behaviour.support(self._state(observation)[np.newaxis])


class InducedPolicy(BesideBehaviour):
    """pi*(a|s) ~ b(a|s) exp(Q(s,a) / lambda) itself: draws of b, one of them kept by weight. Its support is b's.

    Args:
        temperature: lambda.
        samples: M, draws of b for each action.

    Raises:
        BundleError: the bundle has no reward critics, or its behaviour policy is not known here.
    """

    def __init__(self, bundle: Bundle, temperature: float, samples: int) -> None:
        if not (temperature > 0.0 and samples >= 1):
            raise ValueError(f"expected temperature above 0 and at least 1 sample, got {temperature} and {samples}")
        self._critics = bundle.need("reward")
        self.behaviour = behaviour_of(bundle)
        self._temperature, self._samples = temperature, samples

    def weigh(self, observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return M draws of b (M, n_action), their Q (M,), and their probabilities under pi* (M,)."""
        state = self._state(observation)
        actions = self.behaviour.support(state[np.newaxis]).sample(self._samples, rng)[0]
        q = q_values(self._critics, np.repeat(state[np.newaxis], len(actions), axis=0), actions).mean(axis=0)
        weights = np.exp((q - q.max()) / self._temperature)
        return actions, q, weights / weights.sum()

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy."""
        actions, _, weights = self.weigh(observation, rng)
        self.behaviour.advance()
        return Proposal(actions[int(rng.choice(len(actions), p=weights))], 0.0)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the mean action, brought back into the support; from one fixed sequence of draws."""
        actions, _, weights = self.weigh(observation, np.random.default_rng(0))
        state = self._state(observation)[np.newaxis]
        self.behaviour.advance()
        return self.behaviour.support(state).project((weights @ actions)[np.newaxis, np.newaxis])[0, 0]


def behaviour_of(bundle: Bundle) -> BehaviourPolicy:
    """Return the behaviour policy that a bundle tells of.

    Raises:
        BundleError: it tells of none, or of one that is not known here.
    """
    try:
        return make_behaviour(bundle.behaviour)
    except ValueError as error:
        raise BundleError(f"{bundle.path}: {error}") from error
