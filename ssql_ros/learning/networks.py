"""Networks that the learners share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ssql_ros.bundle import CriticNetwork, Layer


class Ensemble(nn.Module):
    """M multilayer perceptrons of one shape, ReLU between the layers, evaluated together by batched products.

    Args:
        sizes: widths from input to output, e.g. (128, 256, 256, 1).
        members: M.
        generator: seeds the weights (uniform, Kaiming for ReLU).
    """

    def __init__(self, sizes: Sequence[int], members: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in pairwise(sizes):
            bound = 1.0 / math.sqrt(n_in)
            weight = torch.empty(members, n_in, n_out).uniform_(-bound, bound, generator=generator)
            self.weights.append(nn.Parameter(weight * math.sqrt(3.0)))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, n_out)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return outputs (M, batch, n_out) for inputs (batch, n_in), or (M, batch, n_in) where each has its own."""
        x = x.expand(len(self.weights[0]), *x.shape[-2:])
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x if i == 0 else torch.relu(x), weight)
        return x


@torch.no_grad()
def update_average(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the target network towards the online one: target += tau (online - target)."""
    for average, parameter in zip(target.parameters(), online.parameters(), strict=True):
        average.lerp_(parameter, tau)


def exported(ensemble: Ensemble, mean: np.ndarray, scale: np.ndarray, clip: float) -> CriticNetwork:
    """Return the ensemble as plain arrays for a bundle."""
    weights = [weight.detach().cpu().numpy() for weight in ensemble.weights]
    biases = [bias.detach().cpu().numpy() for bias in ensemble.biases]
    members = tuple(
        tuple(Layer(weight[m], bias[m, 0]) for weight, bias in zip(weights, biases, strict=True))
        for m in range(len(weights[0]))
    )
    return CriticNetwork(mean.astype(np.float32), scale.astype(np.float32), float(clip), members)
