"""A policy of stable-baselines3 as a bundle's: the weights of its zip are read, and none of the pickles beside them.

The zip holds `data`, JSON whose objects are base64 of pickles, which are never opened, and `policy.pth`, the weights,
which torch reads with `weights_only`: tensors and their names, no code. SAC's actor is a squashed Gaussian as ours;
that of TD3 and DDPG is one of hardly any spread. Actions of both are in [-1, 1], over their world's bounds.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.model.bundle import Layer, Network
from ssql_ros.model.served_network import LOG_STD_LOW

MAX_BYTES = 1 << 30
# Nothing is clipped there.
NO_CLIP = 1e6


def read_policy(path: Path, n_observation: int, n_action: int) -> tuple[Network, dict[str, Any]]:
    """Return the policy of an SB3 zip as a network of a squashed Gaussian, and what it says of itself.

    Args:
        n_observation: as the contract has it. A policy of one number less never saw the margin behind the observation:
            it counts for nothing.

    Raises:
        ValueError: the file cannot be read, is of another algorithm or activation, or its sizes are not these.
    """
    weights, about = _content(path)
    prefix = next((name for name in ("actor.latent_pi", "actor.mu") if f"{name}.0.weight" in weights), "")
    if not prefix:
        raise ValueError(
            f"{path}: expected the actor of SAC, TD3 or DDPG (MlpPolicy), got weights {', '.join(sorted(weights)[:4])}"
            ", ...; other algorithms' policies have another form"
        )
    if about["activation"] not in ("ReLU", ""):
        raise ValueError(f"{path}: activation_fn: expected ReLU, got {about['activation']}, which is not served here")
    numbers = sorted(int(m[1]) for name in weights if (m := re.fullmatch(rf"{re.escape(prefix)}\.(\d+)\.weight", name)))
    layers = [_layer(weights, f"{prefix}.{number}", path) for number in numbers]
    if prefix == "actor.latent_pi":
        mean, spread = (_layer(weights, f"actor.{name}", path) for name in ("mu", "log_std"))
        layers.append(Layer(np.hstack([mean.weight, spread.weight]), np.append(mean.bias, spread.bias)))
    else:
        last = layers.pop()
        narrow = np.full(len(last.bias), LOG_STD_LOW, np.float32)
        layers.append(Layer(np.hstack([last.weight, np.zeros_like(last.weight)]), np.append(last.bias, narrow)))
    seen, acts = len(layers[0].weight), len(layers[-1].bias) // 2
    if acts != n_action or seen not in (n_observation, n_observation - 1):
        raise ValueError(
            f"{path}: expected a policy of {n_observation} observations (or {n_observation - 1}, without the margin) "
            f"and {n_action} actions, as the contract has, got {seen} and {acts}"
        )
    if seen < n_observation:
        row = np.zeros((1, layers[0].weight.shape[1]), np.float32)
        layers[0] = Layer(np.vstack([layers[0].weight, row]), layers[0].bias)
    zeros, ones = np.zeros(n_observation, np.float32), np.ones(n_observation, np.float32)
    return Network(zeros, ones, NO_CLIP, (tuple(layers),)), about


def _layer(weights: dict[str, torch.Tensor], name: str, path: Path) -> Layer:
    try:
        weight, bias = (weights[f"{name}.{part}"].float().numpy() for part in ("weight", "bias"))
    except KeyError as error:
        raise ValueError(f"{path}: policy.pth: expected {error}, which is missing") from error
    if (
        weight.ndim != 2
        or bias.shape != weight.shape[:1]
        or not (np.isfinite(weight).all() and np.isfinite(bias).all())
    ):
        raise ValueError(f"{path}: policy.pth: {name}: expected a layer of finite weights, got {weight.shape}")
    return Layer(np.ascontiguousarray(weight.T, np.float32), np.ascontiguousarray(bias, np.float32))


def _content(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("data", "policy.pth"):
                if archive.getinfo(name).file_size > MAX_BYTES:
                    raise ValueError(f"{name} has more than {MAX_BYTES} bytes")
            told = json.loads(archive.read("data"))
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
            listed = archive.namelist()
            version = (
                archive.read("_stable_baselines3_version").decode() if "_stable_baselines3_version" in listed else ""
            )
    except Exception as error:  # torch and zipfile raise many kinds of what is damaged
        raise ValueError(f"{path}: cannot be read as a zip of stable-baselines3: {error}") from error
    if not isinstance(weights, dict) or not isinstance(told, dict):
        raise ValueError(f"{path}: expected weights by name and settings by name, got something else")
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    # Of what is pickled the text beside it alone is read, such as <class 'torch.nn.modules.activation.ReLU'>.
    options = told.get("policy_kwargs")
    text = str(options.get("activation_fn", "")) if isinstance(options, dict) else ""
    found = re.search(r"(\w+)'?>?$", text)
    return tensors, {"stable_baselines3": version, "activation": found[1] if found else "", "sde": told.get("use_sde")}
