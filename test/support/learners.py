"""Small learners for tests, and what their networks put out by NumPy in float64, apart from torch."""

import math

import numpy as np
import torch

from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.algorithms.sqrl import SQRLPretraining
from ssql_ros.data.replay import Batch
from ssql_ros.model.bundle import Network
from ssql_ros.nn.networks import exported

# A second thread costs networks as small as these far more than it gains.
torch.set_num_threads(1)

CPU, FLOAT32 = torch.device("cpu"), torch.float32
MEAN, SCALE, N_ACTION, N = np.array([0.5, -1.0]), np.array([2.0, 0.5]), 2, 6
COMMON = {"hidden": (8, 8), "gamma": 0.9, "initial_temperature": 0.3, "observation_clip": 1.5}
SAFE = {"contract_id": "none", "steps": 1000}


def made(kind: type[SAC], settings: SACSettings, **options: object) -> SAC:
    """A learner whose online and target networks differ, with networks that are not nearly zero."""
    options = {**SAFE, **options} if issubclass(kind, SQRLPretraining) else options
    learner = kind(MEAN, SCALE, N_ACTION, settings, 0, device=CPU, precision=FLOAT32, **options)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for ensemble in (ensemble for ensembles in learner._named().values() for ensemble in ensembles):
            for parameter in ensemble.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=0.3)
    return learner


def some_batch() -> Batch:
    """Transitions of which two are terminal, one with an incident; one observation lies beyond the clip."""
    rng = np.random.default_rng(1)
    observation, next_observation = rng.normal(size=(2, N, 2))
    next_observation[0] = [40.0, -40.0]
    columns = (
        observation,
        rng.uniform(-1, 1, (N, 2)),
        rng.normal(size=N),
        next_observation,
        np.eye(N)[2],
        np.eye(N)[2:4].sum(0),
    )
    return Batch(*(torch.tensor(column, dtype=FLOAT32) for column in columns))


def outputs(network: Network, rows: np.ndarray) -> np.ndarray:
    """What perceptrons put out, (members, N, n_out), in NumPy and float64."""
    found = []
    for member in network.members:
        x = rows
        for i, layer in enumerate(member):
            x = (x if i == 0 else np.maximum(x, 0.0)) @ layer.weight.astype(float) + layer.bias
        found.append(x)
    return np.array(found)


def plain(ensemble: torch.nn.Module) -> Network:
    return exported(ensemble, MEAN, SCALE, 1.5)


def standardised(observation: torch.Tensor) -> np.ndarray:
    return np.clip((observation.double().numpy() - MEAN) / SCALE, -1.5, 1.5)


def drawn(learner: SAC, state: np.ndarray, z: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The action (N, n_action) that the policy draws by z, and its log-probability (N,)."""
    z = z.double().numpy()
    mean, log_std = np.split(outputs(plain(learner.actor), state)[0], 2, axis=1)
    log_std = np.clip(log_std, -5.0, 2.0)
    u = mean + np.exp(log_std) * z
    normal = -0.5 * z**2 - log_std - 0.5 * math.log(2.0 * math.pi)
    return np.tanh(u), (normal - np.log1p(-(np.tanh(u) ** 2))).sum(axis=1)


def judged(ensemble: torch.nn.Module, state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Values (members, N)."""
    return outputs(plain(ensemble), np.concatenate([state, action], axis=1))[..., 0]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def close(found: torch.Tensor, expected: np.ndarray | float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=2e-5, atol=2e-5)
