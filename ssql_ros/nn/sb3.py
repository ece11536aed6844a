"""A policy of stable-baselines3 as a bundle's: the weights of its zip are read, and none of the pickles beside them.

The zip holds `data`, JSON whose objects are base64 of pickles, which are never opened, and texts beside them, which
say their parts; and `policy.pth`, the weights, which torch reads with `weights_only`: tensors and their names, no code.
SAC's actor is a squashed Gaussian as ours; that of TD3 and DDPG is one of hardly any spread. PPO's and A2C's is a
Gaussian whose draws are clipped: its mean is served, a function of the state. Actions are in [-1, 1], over their
world's bounds.
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

from ssql_ros.contract import Contract
from ssql_ros.model.bundle import Layer, Network
from ssql_ros.model.served_network import LOG_STD_LOW

MAX_BYTES = 1 << 30
# Nothing is clipped there.
NO_CLIP = 1e6
# By the name of the first layer's weights without its number: what the actor of an algorithm is, and its default.
PPO, SAC, TD3 = "mlp_extractor.policy_net", "actor.latent_pi", "actor.mu"
DEFAULTS = {PPO: "Tanh", SAC: "ReLU", TD3: "ReLU"}
ACTIVATIONS = {"ReLU": "relu", "Tanh": "tanh", "ELU": "elu", "GELU": "gelu"}
KINDS = {PPO: "one_step_flow", SAC: "squashed_gaussian", TD3: "squashed_gaussian"}
AVERAGES = ("mean", "var", "epsilon", "clip")


def read_policy(path: Path, contract: Contract, averages: Path | None = None) -> tuple[Network, str, dict[str, Any]]:
    """Return the policy of an SB3 zip as a network, its kind (`Bundle.policy_kind`), and what it says of itself.

    A policy of one observation less than the contract has never saw the margin behind it: it counts for nothing.

    Args:
        averages: an .npz of what VecNormalize made of observations, `AVERAGES`; None: they came as they are.

    Raises:
        ValueError: the file cannot be read, is of another algorithm or activation, or its spaces are not the
            contract's.
    """
    weights, told = _content(path)
    actor = next((name for name in (PPO, SAC, TD3) if f"{name}.0.weight" in weights), "")
    _check_form(weights, told, actor, path)
    _check_bounds(told, contract, path)
    found = sorted(int(at[1]) for name in weights if (at := re.fullmatch(rf"{re.escape(actor)}\.(\d+)\.weight", name)))
    layers = [_layer(weights, f"{actor}.{number}", path) for number in found]
    n, m = contract.observation_size, contract.action_size
    if actor == SAC:
        mean, spread = (_layer(weights, f"actor.{name}", path) for name in ("mu", "log_std"))
        layers.append(Layer(np.hstack([mean.weight, spread.weight]), np.append(mean.bias, spread.bias)))
    elif actor == TD3:
        last = layers.pop()
        narrow = np.full(len(last.bias), LOG_STD_LOW, np.float32)
        layers.append(Layer(np.hstack([last.weight, np.zeros_like(last.weight)]), np.append(last.bias, narrow)))
    else:
        layers.append(_layer(weights, "action_net", path))
    seen, acts = len(layers[0].weight), len(layers[-1].bias) // (1 if actor == PPO else 2)
    if acts != m or seen not in (n, n - 1):
        raise ValueError(
            f"{path}: expected a policy of {n} observations (or {n - 1}, without the margin) and {m} actions, as "
            f"{contract.path} has, got {seen} and {acts}; train it in a world of the contract's vectors, or name the "
            "contract that it was trained on"
        )
    # What it never saw: the margin, and the noise of a flow.
    unseen = n - seen + (m if actor == PPO else 0)
    first = np.vstack([layers[0].weight, np.zeros((unseen, layers[0].weight.shape[1]), np.float32)])
    layers[0] = Layer(first, layers[0].bias)
    standardised = _averages(averages, seen, n) if averages else (np.zeros(n), np.ones(n), NO_CLIP)
    centre, scale, clip = standardised
    about = {"stable_baselines3": told["version"], "activation": _activation(told, actor), "sde": told.get("use_sde")}
    between = ACTIVATIONS[about["activation"]]
    network = Network(centre.astype(np.float32), scale.astype(np.float32), clip, (tuple(layers),), between)
    return network, KINDS[actor], about


def _check_form(weights: dict[str, torch.Tensor], told: dict[str, Any], actor: str, path: Path) -> None:
    """Raise ValueError where the policy is of a form that is not read here."""
    extracted = [name for name in weights if re.match(r"(actor\.|pi_)?features_extractor\.", name)]
    if not actor or extracted or "mlp_extractor.shared_net.0.weight" in weights:
        listed = ", ".join(sorted(extracted or weights)[:4])
        raise ValueError(
            f"{path}: expected the actor of PPO, A2C, SAC, TD3 or DDPG (MlpPolicy), got weights {listed}, ...; other "
            "algorithms' policies, and those with a features extractor, have another form"
        )
    options = _options(told)
    if actor == PPO and "log_std" not in weights:
        raise ValueError(f"{path}: expected a Gaussian over a Box of actions, got none in it; its actions are discrete")
    if (actor == SAC and "actor.mu.weight" not in weights) or options.get("squash_output"):
        raise ValueError(f"{path}: use_sde: squashes the mean in a way of its own, which is not read; train without")
    if (activation := _activation(told, actor)) not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{path}: activation_fn: expected one of {known}; got {activation}, which is not served here")


def _options(told: dict[str, Any]) -> dict[str, Any]:
    options = told.get("policy_kwargs")
    return options if isinstance(options, dict) else {}


def _activation(told: dict[str, Any], actor: str) -> str:
    # Of what is pickled the text beside it alone is read, such as <class 'torch.nn.modules.activation.ReLU'>.
    found = re.search(r"(\w+)'?>?$", str(_options(told).get("activation_fn", "")))
    return found[1] if found else DEFAULTS[actor]


def _check_bounds(told: dict[str, Any], contract: Contract, path: Path) -> None:
    """Raise ValueError where actions are not what an element of the contract means, as far as the zip says."""
    space, commanded = told.get("action_space"), contract.commanded
    for side, wanted in (("low", commanded.low), ("high", commanded.high)):
        text = space.get(side) if isinstance(space, dict) else None
        if not isinstance(text, str) or "..." in text:
            continue
        bounds = [float(word) for word in re.findall(r"-?inf|[-+]?[\d.]+(?:e[-+]?\d+)?", text)]
        if len(bounds) == len(wanted) and not np.allclose(bounds, wanted, atol=1e-6):
            raise ValueError(
                f"{path}: action_space.{side}: expected {wanted.tolist()}, as the elements of {contract.path} have, "
                f"got {bounds}; train it in gymnasium.wrappers.RescaleAction of the world, -1 to 1"
            )


def _averages(path: Path, seen: int, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return mean and scale (n,) of observations and their clip. Raises ValueError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            mean, var, epsilon, clip = (np.asarray(stored[name], float) for name in AVERAGES)
    except Exception as error:  # NumPy raises many kinds of what is damaged
        raise ValueError(f"{path}: expected an .npz with {', '.join(AVERAGES)}: {error}") from error
    numbers = np.isfinite(mean).all() and np.isfinite(var).all() and (var >= 0.0).all()
    if mean.shape != (seen,) or var.shape != (seen,) or not (numbers and epsilon > 0.0 and clip > 0.0):
        raise ValueError(f"{path}: expected finite mean and var of {seen} observations, got {mean.shape}, {var.shape}")
    unseen = n - seen
    return np.append(mean, np.zeros(unseen)), np.append(np.sqrt(var + epsilon), np.ones(unseen)), float(clip)


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
    """Return the weights by name, and `data` with the `version` of stable-baselines3. Raises ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.namelist()
            if "data" in listed and "policy.pth" not in listed:
                raise ValueError("it has no policy.pth; SBX keeps weights in a pickle, and that is not opened")
            for name in ("data", "policy.pth"):
                if archive.getinfo(name).file_size > MAX_BYTES:
                    raise ValueError(f"{name} has more than {MAX_BYTES} bytes")
            told = json.loads(archive.read("data"))
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
            version = (
                archive.read("_stable_baselines3_version").decode() if "_stable_baselines3_version" in listed else ""
            )
    except Exception as error:  # torch and zipfile raise many kinds of what is damaged
        raise ValueError(f"{path}: cannot be read as a zip of stable-baselines3: {error}") from error
    if not isinstance(weights, dict) or not isinstance(told, dict):
        raise ValueError(f"{path}: expected weights by name and settings by name, got something else")
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    return tensors, {**told, "version": version}
