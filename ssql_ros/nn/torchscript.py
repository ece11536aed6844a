"""A bundle's policy as TorchScript, for those who serve by torch: the same arrays, the same arithmetic."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from torch import nn

from ssql_ros.model.bundle import Bundle
from ssql_ros.model.onnx_graph import policy_network


class _Policy(nn.Module):
    """Observation [batch, n] -> action [batch, m], the most probable one (see `model.onnx_graph.policy_model`)."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        network = policy_network(bundle)
        n = len(network.observation_mean)
        self.bound, self.squashed = float(network.observation_clip), bundle.policy_kind == "squashed_gaussian"
        self.n_action = network.members[0][-1].bias.size // (2 if self.squashed else 1)
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.as_tensor(np.asarray(network.observation_mean, np.float64)))
        self.register_buffer("scale", torch.as_tensor(np.asarray(network.observation_scale, np.float64)))
        between = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "elu": nn.ELU}[network.activation]
        self.members = nn.ModuleList()
        for member in network.members:
            layers: list[nn.Module] = []
            for i, layer in enumerate(member):
                weight = torch.as_tensor(np.array(layer.weight[:n] if i == 0 else layer.weight, np.float32))
                linear = nn.Linear(*weight.shape)
                linear.weight, linear.bias = nn.Parameter(weight.T), nn.Parameter(torch.as_tensor(layer.bias.copy()))
                layers += [linear] if i == 0 else [between(), linear]
            self.members.append(nn.Sequential(*layers))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Return actions."""
        state = ((observation.double() - self.mean) / self.scale).clamp(-self.bound, self.bound).float()
        total = torch.zeros(1)
        for member in self.members:
            total = total + member(state)
        output = total / len(self.members)
        return torch.tanh(output[:, : self.n_action]) if self.squashed else output.clamp(-1.0, 1.0)


def policy_script(bundle: Bundle) -> bytes:
    """Return the content of a TorchScript file. Raises BundleError: no network alone tells its policy."""
    module = _Policy(bundle).eval()
    n = len(policy_network(bundle).observation_mean)
    content = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # torch calls its own format deprecated; those who serve by it still read it.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(module, torch.zeros(2, n), check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), content)
    return content.getvalue()


def run_script(content: bytes, observations: np.ndarray) -> np.ndarray:
    """Return what the policy of such a file says (N, n_action) of observations (N, n)."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = torch.jit.load(io.BytesIO(content))
        return loaded(torch.as_tensor(observations, dtype=torch.float32)).numpy()
