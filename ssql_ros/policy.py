"""Serves a bundle's policy: mean and standard deviation of u for an observation; the action is tanh(u). No torch."""

from __future__ import annotations

import numpy as np

from ssql_ros.bundle import Bundle, BundleError
from ssql_ros.shield import Proposal

LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0


class Policy:
    """The squashed Gaussian policy of one bundle, for actions in [-1, 1].

    Raises:
        BundleError: the bundle has no policy.
    """

    def __init__(self, bundle: Bundle) -> None:
        network = bundle.need("policy")
        if bundle.policy_kind != "squashed_gaussian" or network.activation != "relu":
            found = f"{bundle.policy_kind}, {network.activation}"
            raise BundleError(f"{bundle.path}: expected a policy squashed_gaussian, relu; got {found}")
        self._mean, self._scale = network.observation_mean.astype(float), network.observation_scale.astype(float)
        self._bound = network.observation_clip
        # Ensembles of policies are averaged in what they put out.
        self._members = network.members

    def distribution(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std (n_action,) of u for an observation (n_observation,)."""
        state = ((observation - self._mean) / self._scale).clip(-self._bound, self._bound).astype(np.float32)
        outputs = []
        for member in self._members:
            x = state
            for i, layer in enumerate(member):
                x = (x if i == 0 else np.maximum(x, 0.0)) @ layer.weight + layer.bias
            outputs.append(x)
        mean, log_std = np.split(np.mean(outputs, axis=0, dtype=float), 2)
        return mean, np.exp(np.clip(log_std, LOG_STD_LOW, LOG_STD_HIGH))

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode: there is nothing to forget."""

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy."""
        mean, std = self.distribution(observation)
        u = mean + std * rng.standard_normal(len(mean))
        return Proposal(np.tanh(u), 0.0, mean, std, squashed=True)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable u's action (n_action,)."""
        return np.tanh(self.distribution(observation)[0])
