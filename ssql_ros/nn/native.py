"""The learner's own compiled kernels: perceptrons forward and backward, draws of the policy, Adam (src/kernels).

They are used on processors with AVX-512 and bfloat16 where the library was built; everywhere else, and where the
environment variable SSQL_ROS_NATIVE is 0, torch does the same work, and a caller cannot tell but by speed and rounding.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.autograd.function import once_differentiable

# Beside this package's modules, whether CMake put it there or pip (which adds Python's own ending); a program that runs
# in the source tree has the modules from there, and the library where it was installed.
_FOLDERS = [Path(__file__).parents[1], Path(sysconfig.get_path("platlib"), "ssql_ros")]
_PATTERN = "_kernels*.so"
# As src/kernels/perceptrons.cpp has it: a library of older sources is not used.
_INTERFACE = 2
_MOST_LAYERS = 16

_POINTER, _COUNT, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SINGLE, _REAL = ctypes.c_float, ctypes.c_double
_SHAPE = [_POINTER, _COUNT, _COUNT, _COUNT]
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ssql_supported": (_FLAG, []),
    "ssql_interface": (_FLAG, []),
    "ssql_kept": (_COUNT, [*_SHAPE, _FLAG]),
    "ssql_forward": (_FLAG, [*_SHAPE, _COUNT, *[_FLAG] * 3, *[_POINTER] * 4]),
    "ssql_backward": (_FLAG, [*_SHAPE, _COUNT, *[_FLAG] * 3, *[_POINTER] * 6]),
    "ssql_draw": (None, [_COUNT, _COUNT, _POINTER, _POINTER, _SINGLE, _SINGLE, _POINTER, _POINTER]),
    "ssql_draw_backward": (None, [_COUNT, _COUNT, _POINTER, _POINTER, _SINGLE, _SINGLE, *[_POINTER] * 4]),
    "ssql_average": (None, [_COUNT, _POINTER, _POINTER, _SINGLE]),
    "ssql_adam": (None, [_COUNT, *[_POINTER] * 4, *[_REAL] * 5]),
}


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """Return the library; None where it is not built, does not load, or this processor lacks its instructions."""
    if os.environ.get("SSQL_ROS_NATIVE") == "0":
        return None
    for path in (path for folder in _FOLDERS for path in sorted(folder.glob(_PATTERN))):
        try:
            library = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            # Of another machine, or of an older version of this package.
            continue
        if library.ssql_interface() == _INTERFACE and library.ssql_supported():
            return library
    return None


def available() -> bool:
    """Return whether the kernels can be used in this process."""
    return _library() is not None


def serves(*tensors: torch.Tensor) -> bool:
    """Return whether the kernels can work on these tensors: float32 on the CPU."""
    return available() and all(t.is_cpu and t.dtype is torch.float32 for t in tensors)


class _Shape:
    """Several perceptrons, as the library takes them."""

    def __init__(self, sizes: tuple[int, ...], members: int) -> None:
        if not 1 <= len(sizes) - 1 <= _MOST_LAYERS:
            raise ValueError(f"expected 1 to {_MOST_LAYERS} layers, got {len(sizes) - 1}")
        self.sizes, self.members = sizes, members
        self.n_in, self.n_out = sizes[0], sizes[-1]
        self.total = members * sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
        self.described = (_COUNT * len(sizes))(*sizes), len(sizes) - 1, members

    def check(self, x: torch.Tensor, flat: torch.Tensor) -> None:
        """Raise ValueError for inputs or parameters that are not of these perceptrons."""
        inputs, fits = x.shape, x.dim() == 2 or (x.dim() == 3 and len(x) in (1, self.members))
        if not fits or inputs[-1] != self.n_in or flat.shape != (self.total,):
            raise ValueError(
                f"expected {self.n_in} inputs of {self.members} members, and {self.total} parameters, "
                f"got inputs {tuple(inputs)} and parameters {tuple(flat.shape)}"
            )


@lru_cache(maxsize=256)
def _shape(sizes: tuple[int, ...], members: int) -> _Shape:
    return _Shape(sizes, members)


def _check(status: int) -> None:
    if status:
        raise MemoryError("no memory for the products of a network")


def _forward(
    x: torch.Tensor, flat: torch.Tensor, shape: _Shape, half: bool, gelu: bool, kept: torch.Tensor | None
) -> torch.Tensor:
    batch, library = x.shape[-2], _library()
    assert library is not None
    out = torch.empty(shape.members, batch, shape.n_out)
    how = (batch, torch.get_num_threads(), half, gelu, x.dim() == 2)
    room = None if kept is None else kept.data_ptr()
    _check(library.ssql_forward(*shape.described, *how, flat.data_ptr(), x.data_ptr(), out.data_ptr(), room))
    return out


class _Perceptrons(torch.autograd.Function):
    """`perceptrons` where gradients are wanted."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, shape: _Shape, half: bool, gelu: bool) -> torch.Tensor:
        library = _library()
        assert library is not None
        ctx.shape, ctx.half, ctx.gelu = shape, half, gelu
        kept = torch.empty(library.ssql_kept(*shape.described, x.shape[-2], gelu))
        ctx.save_for_backward(x, flat, kept)
        return _forward(x, flat, shape, half, gelu, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        library = _library()
        assert library is not None
        x, flat, kept = ctx.saved_tensors
        shape, shared, gradient = ctx.shape, x.dim() == 2, gradient.contiguous()
        # Each member's own, whether or not they share x, so that they can be found side by side.
        to_x = torch.empty(shape.members, *x.shape[-2:]) if ctx.needs_input_grad[0] else None
        to_flat = torch.empty_like(flat) if ctx.needs_input_grad[1] else None
        how = (x.shape[-2], torch.get_num_threads(), ctx.half, ctx.gelu, shared)
        given = (flat.data_ptr(), x.data_ptr(), kept.data_ptr(), gradient.data_ptr())
        found = (None if tensor is None else tensor.data_ptr() for tensor in (to_flat, to_x))
        _check(library.ssql_backward(*shape.described, *how, *given, *found))
        if to_x is not None and shared:
            to_x = to_x[0] if shape.members == 1 else to_x.sum(dim=0)
        return to_x, to_flat, None, None, None


def perceptrons(
    x: torch.Tensor, flat: torch.Tensor, sizes: Sequence[int], members: int, half: bool, gelu: bool = False
) -> torch.Tensor:
    """Return outputs (M, batch, n_out) of M perceptrons with ReLU between the layers; only where `serves(x, flat)`.

    Args:
        x: (batch, n_in), or (M, batch, n_in) where each has its own.
        flat: their weights, layer after layer, then their biases, as `networks.Ensemble` has them.
        half: layers between the first and the last multiply bfloat16 (sums are float32).
        gelu: GELU in the place of ReLU.

    Raises:
        ValueError: x or flat are of other shapes.
    """
    shape = _shape(tuple(sizes), members)
    shape.check(x, flat)
    if x.dim() == 3 and len(x) != members:
        x = x.expand(members, -1, -1)
    x, flat = x.contiguous(), flat.contiguous()
    if torch.is_grad_enabled() and (x.requires_grad or flat.requires_grad):
        return _Perceptrons.apply(x, flat, shape, half, gelu)
    return _forward(x, flat, shape, half, gelu, None)


class _Draw(torch.autograd.Function):
    """`draw` where gradients are wanted."""

    @staticmethod
    def forward(
        ctx: Any, raw: torch.Tensor, z: torch.Tensor, low: float, high: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        action, log_probability = _draw(raw, z, low, high)
        ctx.bounds = low, high
        ctx.save_for_backward(raw, z, action)
        return action, log_probability

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        library = _library()
        assert library is not None
        raw, z, action = ctx.saved_tensors
        found = torch.empty_like(raw)
        to_action, to_log_probability = (gradient.contiguous() for gradient in gradients)
        given = (tensor.data_ptr() for tensor in (action, to_action, to_log_probability))
        library.ssql_draw_backward(*z.shape, raw.data_ptr(), z.data_ptr(), *ctx.bounds, *given, found.data_ptr())
        return found, None, None, None


def _draw(raw: torch.Tensor, z: torch.Tensor, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    library = _library()
    assert library is not None
    action, log_probability = torch.empty_like(z), torch.empty(len(z))
    places = (action.data_ptr(), log_probability.data_ptr())
    library.ssql_draw(*z.shape, raw.data_ptr(), z.data_ptr(), low, high, *places)
    return action, log_probability


def draw(raw: torch.Tensor, z: torch.Tensor, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return actions tanh(mean + std z) (batch, n_action) and their log-probability (batch,); see `policy`.

    Args:
        raw: (batch, 2 n_action), mean and log std.
        z: (batch, n_action), of a standard normal.
        low, high: bounds on the log std.
    """
    raw, z = raw.contiguous(), z.contiguous()
    if torch.is_grad_enabled() and raw.requires_grad:
        return _Draw.apply(raw, z, low, high)
    return _draw(raw, z, low, high)


@torch.no_grad()
def average(target: torch.Tensor, online: torch.Tensor, tau: float) -> None:
    """Move target += tau (online - target), in place; only where `serves` both, and both are contiguous."""
    library = _library()
    assert library is not None
    library.ssql_average(target.numel(), target.data_ptr(), online.data_ptr(), tau)
    torch.autograd.graph.increment_version(target)


class Adam(torch.optim.Adam):
    """torch's Adam with torch's state; where `serves` says so, a step is one pass over each parameter."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        super().__init__(parameters, lr=lr, fused=True)

    def descend(self, loss: torch.Tensor) -> None:
        """Make one step down the gradient of a loss that depends on every parameter."""
        parameters = [(p, group) for group in self.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(loss, [p for p, _ in parameters])
        if serves(*gradients, *(p for p, _ in parameters)) and all(p.is_contiguous() for p, _ in parameters):
            for (p, group), gradient in zip(parameters, gradients, strict=True):
                self._move(p, gradient.contiguous(), group)
            return
        for (p, _), gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
        self.step()
        self.zero_grad(set_to_none=True)

    def _move(self, p: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        library, state = _library(), self.state[p]
        assert library is not None
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(p, requires_grad=False) for _ in range(2))
        state["step"] += 1
        places = (tensor.data_ptr() for tensor in (p, gradient, state["exp_avg"], state["exp_avg_sq"]))
        library.ssql_adam(p.numel(), *places, state["step"].item(), group["lr"], *group["betas"], group["eps"])
        # Autograd must notice, as it does of torch's own steps.
        torch.autograd.graph.increment_version(p)
