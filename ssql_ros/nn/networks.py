"""Networks that the learners share.

Several multilayer perceptrons of one shape are evaluated together by batched products. Where the processor multiplies
bfloat16 natively, the hidden layers do so (the weights that Adam moves stay float32, products are summed in float32,
inputs are split in two so that they keep 16 bits, the last layer is float32): four times the rate of float32 there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from ssql_ros.model.bundle import Layer, Network
from ssql_ros.nn import native

# Below this width conversions cost more than the products gain.
LEAST_BFLOAT16_WIDTH = 128


def native_precision(device: torch.device, hidden: Sequence[int]) -> torch.dtype:
    """Return the type that layers of such widths are multiplied in: bfloat16 where that is faster, else float32."""
    if min(hidden) < LEAST_BFLOAT16_WIDTH:
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # Without the instructions bfloat16 is emulated, many times slower than float32.
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


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


class _Perceptrons(torch.autograd.Function):
    """The products of `Ensemble`, forward and backward in one node each: autograd's own cost would be a third."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, shape: _Shape, precision: torch.dtype) -> torch.Tensor:
        ctx.shape, ctx.precision, ctx.shared, ctx.n_in = shape, precision, x.dim() == 2, x.shape[-1]
        exact_weights, exact_biases = shape.views(flat)
        weights, biases = shape.views(flat.to(precision))
        if precision != torch.float32:
            # x = high + low, each of 8 bits: the input's own rounding must not make the network a staircase.
            high = x.to(precision)
            x = torch.cat([high, (x - high).to(precision)], dim=-1)
            weights[0] = torch.cat([weights[0], weights[0]], dim=1)
        inputs = [x.expand(shape.members, *x.shape[-2:])]
        for i in range(len(weights) - 1):
            inputs.append(_relu_(torch.baddbmm(biases[i], inputs[i], weights[i])))
        last = inputs[-1].float()
        ctx.save_for_backward(*inputs, last, *weights[:-1], exact_weights[-1])
        if exact_weights[-1].shape[-1] == 1:
            # Batched products with a single column are slow.
            return (last * exact_weights[-1].transpose(1, 2)).sum(dim=-1, keepdim=True) + exact_biases[-1]
        return torch.baddbmm(exact_biases[-1], last, exact_weights[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        shape, n_layers = ctx.shape, len(ctx.shape.weights)
        saved = ctx.saved_tensors
        inputs, last, weights = saved[:n_layers], saved[n_layers], saved[n_layers + 1 :]
        learns = ctx.needs_input_grad[1]
        if learns:
            found = torch.empty(shape.total, dtype=ctx.precision, device=gradient.device)
            to_weights, to_biases = shape.views(found)
        single = gradient.shape[-1] == 1
        for i in reversed(range(n_layers)):
            if learns:
                # The low part of a split input changes the gradient by less than its rounding.
                entering = last if i == n_layers - 1 else inputs[i][..., : shape.sizes[i]]
                if i == n_layers - 1:
                    if single:
                        to_weights[i].copy_((entering * gradient).sum(dim=1).unsqueeze(-1))
                    else:
                        to_weights[i].copy_(torch.bmm(entering.transpose(1, 2), gradient))
                    to_biases[i].copy_(gradient.sum(dim=1, keepdim=True))
                else:
                    torch.bmm(entering.transpose(1, 2), gradient, out=to_weights[i])
                    torch.sum(gradient, dim=1, keepdim=True, out=to_biases[i])
            if i == 0:
                break
            weight = weights[i].transpose(1, 2)
            below = gradient * weight if i == n_layers - 1 and single else torch.bmm(gradient, weight)
            gradient = torch.ops.aten.threshold_backward(below.to(ctx.precision), inputs[i], 0.0)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.bmm(gradient, weights[0][:, : ctx.n_in].transpose(1, 2)).float()
            to_x = to_x.sum(dim=0) if ctx.shared else to_x
        return to_x, found.float() if learns else None, None, None


def _relu_(x: torch.Tensor) -> torch.Tensor:
    """Set negatives to 0 in place."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        # The sign bit of a bfloat16 is that of an int16, and the maximum of integers is four times as fast.
        x.view(torch.int16).clamp_min_(0)
        return x
    return x.relu_()


class Ensemble(nn.Module):
    """M multilayer perceptrons of one shape, evaluated together by batched products.

    Args:
        sizes: widths from input to output, e.g. (128, 256, 256, 1).
        members: M.
        generator: seeds the weights (uniform, Kaiming for ReLU).
        precision: of the hidden products; the default is float32.
        activation: between the layers, "relu", or "gelu", which torch multiplies in float32 whatever the precision.
        twice: gradients of gradients are wanted, which only torch's own GELU has.

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
        twice: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.precision, self.activation = _Shape(sizes, members), precision, activation
        self._twice = twice
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
        if not self._twice and native.serves(x, flat):
            half, gelu = self.precision == torch.bfloat16, self.activation == "gelu"
            return native.perceptrons(x, flat, self.shape.sizes, self.shape.members, half, gelu)
        if self.activation == "relu":
            return _Perceptrons.apply(x, flat, self.shape, self.precision)
        weights, biases = self.shape.views(flat)
        x = x.expand(self.shape.members, *x.shape[-2:])
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.baddbmm(bias, nn.functional.gelu(x) if i else x, weight)
        return x

    @torch.no_grad()
    def load(self, network: Network) -> None:
        """Take the weights of a bundle's network.

        Raises:
            ValueError: its layers are of other shapes.
        """
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
        if native.serves(average, parameter):
            native.average(average, parameter, tau)
        else:
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
