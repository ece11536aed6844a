"""A behaviour policy learned from data: it is the density that the data has, and nothing leaves what it promises."""

import copy
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssql_ros.algorithms.behaviour_density import (
    DensityLearner,
    DensitySettings,
    Fit,
    MixtureDensity,
    conformal_floor,
    split,
)
from ssql_ros.behaviour.learned import LearnedDensity, encoded
from ssql_ros.behaviour.policy import make_behaviour
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.cli.main import main
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.policy import make_policy
from ssql_ros.robots.tasks import find_task

torch.set_num_threads(1)
K, N_STATE = 3, 2


def learn_density(
    states: np.ndarray, actions: np.ndarray, episode: np.ndarray, settings: DensitySettings, updates: int, seed: int
) -> Fit:
    """Make all updates of a `DensityLearner` in one go; return what came of it."""
    learner = DensityLearner(states, actions, episode, settings, updates, seed)
    for number in range(updates):
        learner.step(number)
    return learner.fit()


def random_policy(rng: np.random.Generator, n_action: int, floor: float, size: float = 1.0) -> LearnedDensity:
    widths = (N_STATE, 8, K * (1 + 2 * n_action))
    layers = [
        encoded(size * rng.normal(size=pair), size * rng.normal(size=pair[1])) for pair in itertools.pairwise(widths)
    ]
    return LearnedDensity(layers, [0.0] * N_STATE, [1.0] * N_STATE, 10.0, K, floor, 0.1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_action=st.integers(1, 4), floor=st.floats(-6.0, 3.0), size=st.floats(0.1, 4.0))
# Between two means the density is higher than at either, and reaches the floor where none of them does.
@example(seed=18333, n_action=2, floor=1.0, size=1.0)
def test_what_is_drawn_or_projected_reaches_the_floor_in_the_hull_and_the_rest_has_no_density(
    seed: int, n_action: int, floor: float, size: float
) -> None:
    rng = np.random.default_rng(seed)
    support = random_policy(rng, n_action, floor, size).support(rng.normal(size=(6, N_STATE)))
    low, high = support.hull()
    assert ((low >= -1.0) & (low <= high) & (high <= 1.0)).all()
    wild = rng.uniform(-1.5, 1.5, (6, 30, n_action))
    for actions in (support.sample(20, rng), support.project(wild)):
        assert (np.abs(actions) <= 1.0).all()
        # Where no action is known that keeps the promise, none is said to.
        assert (support.contains(actions) == support.somewhere[:, None]).all()
        assert (support.level(actions)[support.somewhere] >= floor).all()
        assert ((actions >= low[:, None] - 1e-9) & (actions <= high[:, None] + 1e-9)).all()
        assert np.allclose(support.project(actions), actions)
        assert (np.isfinite(support.log_density(actions)) == support.contains(actions)).all()
    assert np.isneginf(support.log_density(wild)[~support.contains(wild)]).all()
    reached = (np.abs(wild) <= 1.0).all(axis=2) & (support.level(wild) >= floor) & support.somewhere[:, None]
    assert ((wild >= low[:, None] - 1e-9) & (wild <= high[:, None] + 1e-9))[reached].all()
    assert not support.contains(np.full_like(wild, math.nan)).any()


def test_draws_have_the_density_that_is_told() -> None:
    rng = np.random.default_rng(3)
    support = random_policy(rng, 1, -1.2).support(np.array([[0.3, -0.4]]))
    axis = (np.arange(-1000, 1000) + 0.5) / 1000.0
    mass = np.exp(support.level(axis[np.newaxis, :, np.newaxis])[0]) / 1000.0
    assert mass.sum() == pytest.approx(1.0, abs=1e-3)
    mass = np.where(support.contains(axis[np.newaxis, :, np.newaxis])[0], mass, 0.0)
    draws = support.sample(40_000, rng)[0, :, 0]
    found = np.histogram(draws, np.linspace(-1.0, 1.0, 41))[0] / len(draws)
    expected = mass.reshape(40, 50).sum(axis=1) / mass.sum()
    assert np.abs(found - expected).max() < 0.008


def known(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two normals whose means go with the state in opposite senses: 0.3 N(0.5 s, 0.1), 0.7 N(-0.5 s - 0.1, 0.15)."""
    states = rng.uniform(-1.0, 1.0, (n, 1))
    first = rng.random((n, 1)) < 0.3
    mean = np.where(first, 0.5 * states, -0.5 * states - 0.1)
    return states, np.clip(mean + np.where(first, 0.1, 0.15) * rng.standard_normal((n, 1)), -1, 1), np.arange(n) // 20


def true_log_density(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    def normal(mean: np.ndarray, std: float) -> np.ndarray:
        return np.exp(-0.5 * ((actions - mean) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))

    return np.log(0.3 * normal(0.5 * states, 0.1) + 0.7 * normal(-0.5 * states - 0.1, 0.15))


@pytest.mark.slow
def test_a_known_mixture_is_recovered_and_its_floor_keeps_its_share() -> None:
    rng = np.random.default_rng(0)
    states, actions, episode = known(rng, 12_000)
    own = DensitySettings(components=4, quantile=0.1, hidden=(32, 32), learning_rate=3e-3)
    fit = learn_density(states, actions, episode, own, updates=1500, seed=0)
    new_states, new_actions, _ = known(rng, 4000)
    support = fit.policy.support(new_states)
    learned = support.level(new_actions[:, np.newaxis])[:, 0]
    truth = true_log_density(new_states, new_actions)[:, 0]
    # KL of the truth to what was learned, estimated on draws of the truth.
    assert (truth - learned).mean() < 0.03
    assert np.abs(truth - learned)[truth > -0.5].mean() < 0.15
    # And the draws: mean and spread in states at either end, where the components are apart.
    for s in (-0.8, 0.8):
        drawn = fit.policy.support(np.full((1, 1), s)).sample(4000, rng)[0, :, 0]
        expected = 0.3 * 0.5 * s + 0.7 * (-0.5 * s - 0.1)
        assert drawn.mean() == pytest.approx(expected, abs=0.05)
    breached = ~support.contains(new_actions[:, np.newaxis])[:, 0]
    assert breached.mean() == pytest.approx(0.1, abs=0.02)
    assert fit.figures["below_floor"] == pytest.approx(0.1, abs=0.04)


def test_the_monitor_counts_actions_that_the_density_does_not_support() -> None:
    policy = random_policy(np.random.default_rng(1), 1, 0.0)
    monitor, state = PromiseMonitor(policy), np.zeros(N_STATE)
    axis = np.linspace(-1.0, 1.0, 101)
    level = policy.support(state[np.newaxis]).level(axis[np.newaxis, :, np.newaxis])[0]
    assert 0 < (level < 0.0).sum() < 101
    for action in axis:
        monitor.watch(state, np.array([action]), False)
    assert monitor.breaches == (level < -1e-3).sum()


def test_the_served_density_is_the_learned_one() -> None:
    network = MixtureDensity(np.array([0.5, -1.0]), np.array([2.0, 0.3]), 2, DensitySettings(hidden=(16,)), 3)
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(50, 2)), rng.uniform(-1.0, 1.0, (50, 2))
    expected = network.log_density(torch.as_tensor(states).float(), torch.as_tensor(actions).float())
    policy = make_behaviour(network.policy(-3.0).describe())
    assert isinstance(policy, LearnedDensity)
    found = policy.support(states).level(actions[:, np.newaxis])[:, 0]
    assert np.allclose(found, expected.detach().numpy(), atol=1e-4)


def test_parts_are_whole_episodes_and_one_long_episode_is_cut_into_blocks() -> None:
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(20), 7)
    parts = split(episode, rng)
    assert sorted(np.concatenate(parts).tolist()) == list(range(140))
    assert [len(np.unique(episode[part])) for part in parts] == [14, 2, 2, 2]
    assert sum(len(set(episode[part].tolist())) for part in parts) == 20
    parts = split(np.zeros(4000, int), rng)
    assert sorted(np.concatenate(parts).tolist()) == list(range(4000))
    assert all(len(part) % 200 == 0 for part in parts)
    with pytest.raises(ValueError, match="at least 10 episodes, or as many blocks of 200 steps, got 5"):
        split(np.zeros(1000, int), rng)


def test_the_floor_is_the_conformal_quantile() -> None:
    values = np.arange(99.0)
    # 0.05 * 100 = 5: the fifth lowest.
    assert conformal_floor(values[::-1].copy(), 0.05) == 4.0
    with pytest.raises(ValueError, match="at least 19 held-out steps, got 18"):
        conformal_floor(np.arange(18.0), 0.05)
    # A new value of the same kind lies below with probability of at most quantile.
    rng = np.random.default_rng(0)
    below = np.mean([rng.normal() < conformal_floor(rng.normal(size=39), 0.1) for _ in range(20_000)])
    assert below == pytest.approx(4 / 40, abs=0.008)


def test_a_description_that_was_tampered_with_is_refused() -> None:
    good = random_policy(np.random.default_rng(0), 2, 0.0).describe()

    def changed(**parts: object) -> dict:
        return {**copy.deepcopy(good), **parts}

    for description, expected in (
        (changed(floor=math.nan), "finite floor"),
        (changed(quantile=0.0), "0 < quantile < 1"),
        (changed(scale=[1.0, 0.0]), "scale above 0"),
        (changed(components=4), "4 times"),
        (changed(layers=good["layers"][1:]), "expected 2 inputs, got 8"),
        (changed(layers=[{**good["layers"][0], "bias": "AAAA"}, good["layers"][1]]), "bias: expected 8 float32"),
        (changed(layers=[{**good["layers"][0], "weight": "?"}, good["layers"][1]]), "base64"),
        (changed(layers=[{"shape": [2, 8]}, good["layers"][1]]), "shape, weight and bias"),
    ):
        with pytest.raises(ValueError, match=expected):
            make_behaviour(description)


def test_actions_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[-1, 1\], got up to 2"):
        learn_density(np.zeros((100, 1)), np.full((100, 1), 2.0), np.arange(100), DensitySettings(), 1, 0)


@pytest.mark.slow
def test_from_a_log_to_a_policy_that_keeps_to_what_was_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> dict[str, float]:
        assert main([*arguments, "--quiet", "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]

    data, learned, out = (str(tmp_path / name) for name in ("data", "b", "ssql"))
    common = ("--task", "spider_timeless")
    logged = run("collect", *common, "--episodes", "60", "--out", data)
    assert logged["safe_episodes"] == 1
    fitted = run("train", "behaviour", *common, "--data", data, "--steps", "150", "--out", learned)
    assert fitted["steps"] == logged["transitions"]
    assert fitted["below_floor"] < 0.2
    bundle = f"{learned}/bundle.safetensors"
    acting = make_policy(load_bundle(bundle, find_task("spider").contract()))
    b = acting.behaviour
    assert isinstance(b, LearnedDensity)
    at = np.array([[0.5, 3.5]])
    assert b.support(at).contains(acting.best(at[0])[None, None]).all()
    watched = run("eval", "promise", *common, "--bundle", bundle, "--steps", "300")
    # Of its own actions none is out of its support; that states are safe it never promised.
    assert watched["promise_breaches"] == watched["training_incidents"]
    small = ("--set", "extraction_updates=40", "hidden=[16]", "batch=32", "samples=4")
    offline = ("--data", data, "--behaviour", bundle, "--steps", "40", "--episodes", "3")
    figures = run("train", "ssql", *common, *offline, *small, "--out", out)
    assert (figures["transitions"], figures["left_out"]) == (logged["transitions"], 0)
    assert figures["log_incidents"] == 0
    # The floor was drawn at 5 % of what is held out.
    assert 0 < figures["outside_support"] < 0.15 * logged["transitions"]
    policy = make_policy(load_bundle(f"{out}/bundle.safetensors", find_task("spider").contract()))
    rng = np.random.default_rng(0)
    states = rng.uniform([0.2, 0.2], [1.8, 6.8], (50, 2))
    actions = np.array([policy.propose(state, rng).action for state in states])
    support = b.support(states)
    assert (support.contains(actions[:, None])[:, 0] == support.somewhere).all()
    # Of the task's own behaviour policy nothing in the log is a breach.
    figures = run("train", "ssql", *common, *offline[:2], *offline[4:], *small, "--out", str(tmp_path / "own"))
    assert figures["outside_support"] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ssql", "--behaviour", "b.safetensors"], "name it with --data"),
        (["ssql", "--data", "nowhere", "--behaviour", "b"], "manifest"),
        (["behaviour", "--data", "nowhere"], "manifest"),
    ],
)
def test_learning_from_data_that_cannot_begin_says_why(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--task", "spider", "--quiet"]) == 2
    assert text in capsys.readouterr().err
