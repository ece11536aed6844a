"""Zips as stable-baselines3 saves them, without it."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import torch


class Trap:
    """What a pickle can do: anything."""

    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


def sb3_zip(path: Path, weights: dict[str, torch.Tensor], activation: str = "", **told: object) -> Path:
    """Write a zip whose pickles must not be opened; no activation: it is not said. `told`: more of its data."""
    stored, trap = io.BytesIO(), pickle.dumps(Trap()).hex()
    torch.save(weights, stored)
    options = {":type:": "<class 'dict'>", ":serialized:": trap}
    if activation:
        options["activation_fn"] = f"<class 'torch.nn.modules.activation.{activation}'>"
    data = {"policy_kwargs": options, "policy_class": {":serialized:": trap}, **told}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", stored.getvalue())
        archive.writestr("_stable_baselines3_version", "2.9.2")
    return path


def gaussian_actor(n: int, m: int) -> dict[str, torch.Tensor]:
    """Random weights of PPO's or A2C's policy, actions beyond the bounds among what they say."""
    shapes = {"mlp_extractor.policy_net.0": (16, n), "mlp_extractor.policy_net.2": (16, 16), "action_net": (m, 16)}
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"{name}.{part}": torch.randn(shape if part == "weight" else shape[:1], generator=generator)
        for name, shape in shapes.items()
        for part in ("weight", "bias")
    }
    return {"log_std": torch.zeros(m), **weights}


def seeking_actor(goal: tuple[float, float]) -> dict[str, torch.Tensor]:
    """PPO's policy of a point that heads for its goal, whatever lies between: 10 tanh(0.1 (goal - position))."""
    return {
        "log_std": torch.zeros(2),
        "mlp_extractor.policy_net.0.weight": -0.1 * torch.eye(2),
        "mlp_extractor.policy_net.0.bias": 0.1 * torch.tensor(goal),
        "action_net.weight": 10.0 * torch.eye(2),
        "action_net.bias": torch.zeros(2),
    }
