"""Policies for other runtimes and from stable-baselines3: what is written is what is served, and no pickle is run."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ssql_ros.cli.main import main
from ssql_ros.contract import load_contract
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.policy import make_policy
from ssql_ros.model.shipped import bundle_folder
from ssql_ros.robots.tasks import find_task


def shipped(name: str) -> Path:
    return bundle_folder(name.partition("_")[0]) / f"{name}.safetensors"


@pytest.mark.parametrize("name", ["boat_safefql", "spider_sqrl"])
@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_an_exported_policy_acts_as_the_one_that_is_served(tmp_path, capsys, name, form):
    path, out = shipped(name), tmp_path / "out"
    assert main(["bundle", "export", "policy", str(path), "--format", form, "--out", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures["parity_max"] <= 1e-4
    contract = load_contract(out / "contract.yaml")
    bundle = load_bundle(path, contract)
    states = bundle.probes["observation"]
    if form == "onnx":
        session = onnxruntime.InferenceSession(out / "policy.onnx")
        got = session.run(None, {"observation": states})[0]
        scores = onnxruntime.InferenceSession(out / "critic.onnx").run(
            None, {"observation": states[:1], "actions": bundle.probes["action"]}
        )[0]
        served = SafetyCritic(bundle).logits(states[0].astype(float), bundle.probes["action"].astype(float))
        np.testing.assert_allclose(scores, served, atol=1e-4)
    else:
        got = torch.jit.load(str(out / "policy.pt"))(torch.as_tensor(states)).numpy()
    policy = make_policy(bundle)
    np.testing.assert_allclose(got, [policy.best(state) for state in states.astype(float)], atol=1e-4)


def test_a_policy_that_no_graph_holds_is_refused(tmp_path, capsys):
    path = shipped("minitaur_ssql")
    told = ["bundle", "export", "policy", str(path), "--format", "onnx", "--out", str(tmp_path / "never")]
    assert main(told) == 2
    assert "policy_kind: expected squashed_gaussian or one_step_flow" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


class Trap:
    """What a pickle can do: anything."""

    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


def sb3_zip(path: Path, weights: dict[str, torch.Tensor], activation: str = "ReLU") -> Path:
    """A zip as stable-baselines3 saves it, whose pickles must not be opened."""
    stored, trap = io.BytesIO(), pickle.dumps(Trap()).hex()
    torch.save(weights, stored)
    kind = f"<class 'torch.nn.modules.activation.{activation}'>"
    options = {":type:": "<class 'dict'>", ":serialized:": trap, "activation_fn": kind}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps({"policy_kwargs": options, "policy_class": {":serialized:": trap}}))
        archive.writestr("policy.pth", stored.getvalue())
        archive.writestr("_stable_baselines3_version", "2.9.2")
    return path


def actor(n: int, m: int) -> dict[str, torch.Tensor]:
    shapes = {"latent_pi.0": (16, n), "latent_pi.2": (16, 16), "mu": (m, 16), "log_std": (m, 16)}
    torch.manual_seed(0)
    return {
        f"actor.{name}.{part}": torch.randn(shape if part == "weight" else shape[:1])
        for name, shape in shapes.items()
        for part in ("weight", "bias")
    }


def told(source: Path, out: Path, *more: str) -> list[str]:
    return ["bundle", "import", str(source), "--task", "boat", "--out", str(out), *more]


def test_an_sb3_policy_stands_behind_a_shield_and_its_pickles_stay_shut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = actor(2, 2)
    source = sb3_zip(tmp_path / "sac.zip", weights)
    assert main(told(source, Path("sac.safetensors"), "--critic", str(shipped("boat_safefql")))) == 0
    assert not Path("trapped").exists()
    bundle = load_bundle("sac.safetensors", find_task("boat").contract())
    assert bundle.critic is not None
    state = torch.tensor([[0.3, -0.7]])
    x = state
    for name in ("latent_pi.0", "latent_pi.2"):
        x = torch.relu(x @ weights[f"actor.{name}.weight"].T + weights[f"actor.{name}.bias"])
    expected = torch.tanh(x @ weights["actor.mu.weight"].T + weights["actor.mu.bias"])[0]
    np.testing.assert_allclose(make_policy(bundle).best(state[0].numpy().astype(float)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "activation", "words"),
    [
        (actor(5, 2), "ReLU", "expected a policy of 2 observations (or 1, without the margin) and 2 actions"),
        (actor(2, 2), "Tanh", "activation_fn: expected ReLU, got Tanh"),
        ({"mlp_extractor.policy_net.0.weight": torch.zeros(2, 2)}, "ReLU", "expected the actor of SAC, TD3 or DDPG"),
        ({"actor.latent_pi.0.weight": Trap()}, "ReLU", "cannot be read as a zip of stable-baselines3"),
    ],
)
def test_another_policy_is_refused_by_what_it_is(tmp_path, monkeypatch, capsys, weights, activation, words):
    monkeypatch.chdir(tmp_path)
    source = sb3_zip(tmp_path / "other.zip", weights, activation)
    assert main(told(source, Path("never.safetensors"))) == 2
    assert words in capsys.readouterr().err
    assert not Path("trapped").exists()
    assert not Path("never.safetensors").exists()
