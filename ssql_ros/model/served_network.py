"""Runs the networks of a bundle: NumPy alone, no torch where a robot runs."""

from __future__ import annotations

import numpy as np

from ssql_ros.model.activation import ACTIVATION
from ssql_ros.model.bundle import Bundle, BundleError, Network

LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0


def q_values(network: Network, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Return Q (members, N) of states (N, n_state) and actions (N, n_action)."""
    return outputs(network, np.concatenate([standardised(network, states), actions], axis=-1, dtype=np.float32))[..., 0]


def perceptron(bundle: Bundle, name: str, kind: str) -> Network:
    """Return a network by name. Raises BundleError where the policy is not of this kind."""
    network = bundle.need(name)
    if bundle.policy_kind != kind:
        raise BundleError(f"{bundle.path}: expected a policy {kind}; got {bundle.policy_kind}")
    return network


def standardised(network: Network, states: np.ndarray) -> np.ndarray:
    """Return states (..., n_state) as the network sees them, float32."""
    bound = network.observation_clip
    # In double precision: a joint's mean may be large against its scale.
    z = (states - network.observation_mean.astype(float)) / network.observation_scale.astype(float)
    return z.clip(-bound, bound).astype(np.float32)


def outputs(network: Network, x: np.ndarray) -> np.ndarray:
    """Return what each member puts out, (members, ..., n_out)."""
    found = []
    between = ACTIVATION[network.activation]
    for member in network.members:
        y = x
        for i, layer in enumerate(member):
            y = (y if i == 0 else between(y)) @ layer.weight + layer.bias
        found.append(y)
    return np.array(found)


def mean_and_std(network: Network, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std (n_action,) of u that a Gaussian policy's network gives for a state (n_state,)."""
    # Ensembles of policies are averaged in what they put out.
    mean, log_std = np.split(outputs(network, standardised(network, state)).mean(axis=0, dtype=float), 2)
    return mean, np.exp(np.clip(log_std, LOG_STD_LOW, LOG_STD_HIGH))
