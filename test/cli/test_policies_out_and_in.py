"""Policies for other runtimes and from stable-baselines3: what is written is what is served, and no pickle is run."""

import json
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
from support.sb3_zip import Trap, gaussian_actor, sb3_zip


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
        (actor(2, 2), "SiLU", "activation_fn: expected one of ReLU, Tanh, ELU, GELU; got SiLU"),
        ({"q_net.q_net.0.weight": torch.zeros(2, 2)}, "ReLU", "expected the actor of PPO, A2C, SAC, TD3 or DDPG"),
        ({"mlp_extractor.policy_net.0.weight": torch.zeros(2, 2)}, "Tanh", "its actions are discrete"),
        (gaussian_actor(2, 3), "Tanh", "and 2 actions, as "),
        (
            {**gaussian_actor(2, 2), "pi_features_extractor.cnn.0.weight": torch.zeros(1)},
            "Tanh",
            "got weights pi_features_extractor.cnn.0.weight",
        ),
        (
            {name: value for name, value in actor(2, 2).items() if ".mu." not in name},
            "ReLU",
            "use_sde: squashes the mean in a way of its own",
        ),
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


@pytest.mark.parametrize("activation", ["", "Tanh", "ELU", "GELU"])
def test_the_mean_of_ppo_is_served_clipped_and_exported_alike(tmp_path, activation):
    weights = gaussian_actor(2, 2)
    source, out = sb3_zip(tmp_path / "ppo.zip", weights, activation), tmp_path / "ppo.safetensors"
    assert main(told(source, out)) == 0
    bundle = load_bundle(out, find_task("boat").contract())
    states = torch.tensor([[0.3, -0.7], [-2.5, 1.9]])
    x, between = states, getattr(torch.nn, activation or "Tanh")()
    for name in ("0", "2"):
        name = f"mlp_extractor.policy_net.{name}"
        x = between(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
    expected = (x @ weights["action_net.weight"].T + weights["action_net.bias"]).clamp(-1.0, 1.0)
    policy, rng = make_policy(bundle), np.random.default_rng(0)
    np.testing.assert_allclose([policy.best(state) for state in states.double().numpy()], expected, atol=1e-5)
    # Nothing is drawn.
    state = states[0].double().numpy()
    assert np.array_equal(policy.propose(state, rng).action, policy.best(state))
    for form in ("onnx", "torchscript"):
        assert main(["bundle", "export", "policy", str(out), "--format", form, "--out", str(tmp_path / form)]) == 0


def test_averages_of_observations_stand_before_the_policy(tmp_path, capsys):
    weights, mean, var = gaussian_actor(2, 2), np.array([-1.0, 0.5]), np.array([2.0, 0.25])
    source, out, averages = sb3_zip(tmp_path / "ppo.zip", weights), tmp_path / "ppo.safetensors", tmp_path / "obs.npz"
    np.savez(averages, mean=mean, var=var, epsilon=1e-8, clip=0.5)
    assert main(told(source, out, "--normalise", str(averages))) == 0
    assert main(told(source, tmp_path / "plain.safetensors")) == 0
    contract = find_task("boat").contract()
    normal, plain = (make_policy(load_bundle(path, contract)) for path in (out, tmp_path / "plain.safetensors"))
    state = np.array([0.3, 0.6])
    seen = np.clip((state - mean) / np.sqrt(var + 1e-8), -0.5, 0.5)
    np.testing.assert_allclose(normal.best(state), plain.best(seen), atol=1e-5)
    for other in ({"mean": mean[:1]}, {"var": -var}, {"clip": np.nan}, {"mean": np.array([None, None])}):
        np.savez(averages, **{"mean": mean, "var": var, "epsilon": 1e-8, "clip": 0.5, **other})
        assert main(told(source, out, "--normalise", str(averages), "--overwrite")) == 2
        assert f"{averages}: expected" in capsys.readouterr().err


def test_actions_of_another_range_are_refused_with_what_helps(tmp_path, capsys):
    space = {"low": "[-2. -2.]", "high": "[2. 2.]"}
    source = sb3_zip(tmp_path / "ppo.zip", gaussian_actor(2, 2), action_space=space)
    assert main(told(source, tmp_path / "never.safetensors")) == 2
    said = capsys.readouterr().err
    assert "action_space.low: expected [-1.0, -1.0]" in said
    assert "got [-2.0, -2.0]; train it in gymnasium.wrappers.RescaleAction" in said


def test_a_zip_without_weights_says_why(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "sbx.zip", "w") as archive:
        archive.writestr("data", "{}")
    assert main(told(tmp_path / "sbx.zip", tmp_path / "never.safetensors")) == 2
    assert "SBX keeps weights in a pickle" in capsys.readouterr().err


def test_a_policy_is_named_by_its_zip_where_it_is_evaluated(tmp_path, capsys):
    source = sb3_zip(tmp_path / "ppo.zip", gaussian_actor(2, 2))
    told = ["eval", "policy", "--task", "boat", "--bundle", f"sb3:{source}", "--episodes", "2", "--json", "--quiet"]
    assert main(told) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["episodes"] == 2
    assert main(["run", "--task", "minitaur", "--policy", f"sb3:{source}"]) == 2
    assert f"{source}: expected a policy of 120 observations" in capsys.readouterr().err
