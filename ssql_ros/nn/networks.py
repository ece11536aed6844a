"""Networks that the learners share.

Several multilayer perceptrons of one shape are evaluated together by batched products. In bfloat16, where that is
wanted, are the products of hidden layers with hidden layers alone: weights, inputs, biases, the first and the last
layer are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ssql_ros.model.bundle import Layer, Network


def default_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Shape:
    """Where each layer's weights and biases lie in the flat vector of an ensemble's parameters."""

    def __init__(self, sizes: Sequence[int], members: int) -> None:
        self.sizes, self.members = tuple(sizes), members
        self.weights = [(members, n_in, n_out) for n_in, n_out in pairwise(sizes)]
        self.biases = [(members, 1, n_out) for n_out in sizes[1:]]
        self._shapes = [*self.weights, *self.biases]
        self._lengths = [math.prod(shape) for shape in self._shapes]
        self.total = sum(self._lengths)

    def views(self, flat: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return weights (members, n_in, n_out) and biases (members, 1, n_out) of each layer, as views of `flat`."""
        parts = [part.view(shape) for part, shape in zip(flat.split(self._lengths), self._shapes, strict=True)]
        return parts[: len(self.weights)], parts[len(self.weights) :]


class Ensemble(nn.Module):
    """M multilayer perceptrons of one shape, evaluated together by batched products.

    Args:
        sizes: widths from input to output, e.g. (128, 256, 256, 1).
        members: M.
        generator: seeds the weights (uniform, Kaiming for ReLU).
        precision: of the products of hidden layers with hidden layers.
        activation: between the layers, "relu" or "gelu".

    Attributes:
        flat: every weight and bias in one vector, so that an optimiser's step is one operation.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        members: int,
        generator: torch.Generator,
        precision: torch.dtype = torch.float32,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.shape, self.precision, self.activation = _Shape(sizes, members), precision, activation
        self.flat = nn.Parameter(torch.zeros(self.shape.total))
        with torch.no_grad():
            for weight in self.weights:
                bound = math.sqrt(3.0 / weight.shape[1])
                weight.uniform_(-bound, bound, generator=generator)

    @property
    def weights(self) -> list[torch.Tensor]:
        """Return the weights (M, n_in, n_out) of each layer, views of `flat`."""
        return self.shape.views(self.flat)[0]

    @property
    def biases(self) -> list[torch.Tensor]:
        """Return the biases (M, 1, n_out) of each layer, views of `flat`."""
        return self.shape.views(self.flat)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return outputs (M, batch, n_out) for inputs (batch, n_in), or (M, batch, n_in) where each has its own."""
        return self._outputs(x, self.flat)

    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same outputs, with gradients for `x` only."""
        return self._outputs(x, self.flat.detach())

    def _outputs(self, x: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        weights, biases = self.shape.views(flat)
        activation = nn.functional.relu if self.activation == "relu" else nn.functional.gelu
        last = len(weights) - 1
        x = x.expand(self.shape.members, *x.shape[-2:])
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = activation(x) if i else x
            if 0 < i < last and self.precision != torch.float32:
                x = torch.bmm(x.to(self.precision), weight.to(self.precision)).to(x.dtype) + bias
            elif weight.shape[-1] == 1:
                # Batched products with a single column are slow.
                x = (x * weight.transpose(1, 2)).sum(dim=-1, keepdim=True) + bias
            else:
                x = torch.bmm(x, weight) + bias
        return x

    @torch.no_grad()
    def load(self, network: Network) -> None:
        """Take the weights of a bundle's network.

        Raises:
            ValueError: its layers are of other shapes, or another activation is between them.
        """
        if network.activation != self.activation:
            raise ValueError(f"expected networks of {self.activation}, got {network.activation}")
        found = [tuple(layer.weight.shape for layer in member) for member in network.members]
        expected = [tuple(tuple(weight.shape[1:]) for weight in self.weights)] * self.shape.members
        if found != expected:
            raise ValueError(f"expected networks of layers {expected}, got {found}")
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight.copy_(torch.from_numpy(np.stack([member[i].weight for member in network.members])))
            bias.copy_(torch.from_numpy(np.stack([member[i].bias for member in network.members])[:, None]))


@torch.no_grad()
def update_average(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the target network towards the online one: target += tau (online - target)."""
    for average, parameter in zip(target.parameters(), online.parameters(), strict=True):
        average.lerp_(parameter, tau)


def exported(ensemble: Ensemble, mean: np.ndarray, scale: np.ndarray, clip: float) -> Network:
    """Return the ensemble as plain arrays for a bundle."""
    weights = [weight.detach().cpu().numpy() for weight in ensemble.weights]
    biases = [bias.detach().cpu().numpy() for bias in ensemble.biases]
    members = tuple(
        tuple(Layer(weight[m], bias[m, 0]) for weight, bias in zip(weights, biases, strict=True))
        for m in range(len(weights[0]))
    )
    return Network(mean.astype(np.float32), scale.astype(np.float32), float(clip), members, ensemble.activation)
