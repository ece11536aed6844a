"""A behaviour policy that was learned from data: a mixture density whose low tail is cut off. NumPy alone.

A perceptron gives weights, means and standard deviations of K normals for every state (Bishop 1994, mixture density
networks), truncated to [-1, 1]. Its support is where its log density reaches a floor, which a stated share quantile of
held-out actions of the data did not reach (see algorithms/behaviour_density.py, which fits it).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssql_ros.behaviour.level_support import LevelSupport
from ssql_ros.behaviour.policy import BehaviourPolicy

# Of the components' standard deviations, in action units: finer is not resolved, wider is uniform.
LOG_STD_LOW, LOG_STD_HIGH = math.log(0.01), math.log(4.0)


class LearnedDensity(BehaviourPolicy):
    """The policy.

    Args:
        layers: of the perceptron, each with the shape (n_in, n_out), and weights and biases as base64 of little-endian
            float32, row by row; ReLU in between.
        mean, scale: (n_state,), the standardisation of states, which are clipped to +-clip after it.
        components: K; the last layer puts out K logits, K n_action means before tanh, as many log deviations before
            a sigmoid from log 0.01 to log 4.
        floor: of the log density.
        quantile: share of held-out actions that may lie below.

    Raises:
        ValueError: layers that do not fit each other, or a number outside of its range.
    """

    def __init__(
        self,
        layers: Sequence[dict[str, Any]],
        mean: Sequence[float],
        scale: Sequence[float],
        clip: float,
        components: int,
        floor: float,
        quantile: float,
    ) -> None:
        self.mean, self.scale = np.asarray(mean, float), np.asarray(scale, float)
        if self.mean.shape != self.scale.shape or self.mean.ndim != 1 or not (self.scale > 0.0).all():
            raise ValueError("learned: expected mean and scale of one length, scale above 0")
        if not (0.0 < quantile < 1.0 and math.isfinite(floor) and clip > 0.0 and np.isfinite(self.mean).all()):
            raise ValueError(f"learned: expected 0 < quantile < 1 and a finite floor, got {quantile} and {floor}")
        self.clip, self.components, self.floor, self.quantile = float(clip), components, float(floor), float(quantile)
        self.layers, width = [], len(self.mean)
        for i, layer in enumerate(layers):
            weight, bias = _decoded(layer, width, i)
            self.layers.append((weight, bias))
            width = weight.shape[1]
        per = width / components if type(components) is int and components >= 1 and self.layers else 0.0
        if per < 3 or per % 2 != 1.0:
            raise ValueError(
                f"learned: expected {components} times (1 + 2 n_action) outputs of the last layer, got {width}"
            )
        self.n_action = (int(per) - 1) // 2
        self.promise = (
            f"actions of log density {floor:.4g} and above, which a share of {quantile:g} of held-out actions of the "
            "data did not reach; of states nothing"
        )

    def support(self, states: np.ndarray) -> LevelSupport:
        """Return b(.|s) for states (N, n_state)."""
        y = np.clip((states - self.mean) / self.scale, -self.clip, self.clip)
        for i, (weight, bias) in enumerate(self.layers):
            y = (y if i == 0 else np.maximum(y, 0.0)) @ weight + bias
        k, shape = self.components, (len(states), self.components, self.n_action)
        logits, mean, spread = y[:, :k], y[:, k : k + k * self.n_action], y[:, k + k * self.n_action :]
        weight = np.exp(logits - logits.max(axis=1, keepdims=True))
        std = np.exp(LOG_STD_LOW + (LOG_STD_HIGH - LOG_STD_LOW) / (1.0 + np.exp(-np.clip(spread, -50.0, 50.0))))
        one = np.ones(shape)
        return LevelSupport(
            weight / weight.sum(axis=1, keepdims=True),
            -one,
            one,
            np.tanh(mean).reshape(shape),
            std.reshape(shape),
            self.floor,
        )

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        return {
            "kind": "learned",
            "layers": [encoded(weight, bias) for weight, bias in self.layers],
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "clip": self.clip,
            "components": self.components,
            "floor": self.floor,
            "quantile": self.quantile,
            "context": 0,
        }


def encoded(weight: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    """Return a layer, weight (n_in, n_out) and bias (n_out,), in JSON's types."""
    texts = {"weight": weight, "bias": bias}
    data = {name: base64.b64encode(array.astype("<f4").tobytes()).decode() for name, array in texts.items()}
    return {"shape": list(weight.shape), **data}


def _decoded(layer: dict[str, Any], n_in: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    shape = layer["shape"] if isinstance(layer, dict) and set(layer) == {"shape", "weight", "bias"} else None
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n >= 1 for n in shape)):
        raise ValueError(f"learned: layer {number}: expected shape, weight and bias")
    if shape[0] != n_in:
        raise ValueError(f"learned: layer {number}: expected {n_in} inputs, got {shape[0]}")
    arrays = []
    for name, count in (("weight", shape[0] * shape[1]), ("bias", shape[1])):
        # binascii's error is a ValueError.
        data = base64.b64decode(layer[name], validate=True)
        if len(data) != 4 * count:
            raise ValueError(f"learned: layer {number}: {name}: expected {count} float32, got {len(data)} bytes")
        arrays.append(np.frombuffer(data, "<f4").astype(float))
        if not np.isfinite(arrays[-1]).all():
            raise ValueError(f"learned: layer {number}: {name}: has values that are not finite")
    return arrays[0].reshape(shape), arrays[1]
