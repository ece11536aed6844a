"""Serving the safety critic: the same logits as the equations and as the network that was trained."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.model.bundle import Bundle, Network, ProbabilityCritic, load_bundle, save_bundle
from ssql_ros.model.critic import SafetyCritic, logit, sigmoid
from support.toy_robot import toy_bundle, toy_contract

CONTRACT = toy_contract(3)
CRITIC = SafetyCritic(toy_bundle(CONTRACT))
OBSERVATIONS = np.random.default_rng(0).normal(0.0, 2.0, (5, CONTRACT.observation_size))
ACTIONS = np.random.default_rng(1).uniform(-1.0, 1.0, (40, CONTRACT.action_size))


def forward(network: Network, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Logits (k,) by the equations of `Network`, in float64."""
    state = (observation - network.observation_mean.astype(float)) / network.observation_scale
    state = np.clip(state, -network.observation_clip, network.observation_clip)
    outputs = []
    for member in network.members:
        x = np.hstack([np.tile(state, (len(actions), 1)), actions])
        for i, layer in enumerate(member):
            x = (np.maximum(x, 0.0) if i else x) @ layer.weight.astype(float) + layer.bias
        outputs.append(x[:, 0])
    return np.mean(outputs, axis=0)


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    members=st.integers(1, 4),
    seed=st.integers(0, 1000),
    k=st.integers(1, 40),
)
def test_logits_are_those_of_the_equations(widths, members, seed, k):
    bundle = toy_bundle(CONTRACT, widths=widths, members=members, seed=seed)
    critic = SafetyCritic(bundle)
    for observation in OBSERVATIONS:
        expected = forward(bundle.critic, observation, ACTIONS[:k])
        logits = critic.logits(observation, ACTIONS[:k])
        assert (logits.shape, logits.dtype) == ((k,), np.float32)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("members", [1, 3])
def test_logits_are_those_of_the_network_that_was_trained(tmp_path, members):
    torch = pytest.importorskip("torch")
    from ssql_ros.nn.networks import Ensemble, exported

    n_in = CONTRACT.observation_size + CONTRACT.action_size
    ensemble = Ensemble((n_in, 64, 64, 1), members, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for bias in ensemble.biases:
            bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    mean, scale = OBSERVATIONS.mean(axis=0), OBSERVATIONS.std(axis=0)
    saved = save_bundle(
        Bundle(CONTRACT.id, ProbabilityCritic.of(exported(ensemble, mean, scale, 1.5), 0.1, 0.7)), tmp_path / "bundle"
    )
    critic = SafetyCritic(load_bundle(tmp_path / "bundle", CONTRACT))
    assert critic.id == saved.id
    for observation in OBSERVATIONS:
        state = np.clip((observation - mean) / scale, -1.5, 1.5)
        x = torch.tensor(np.hstack([np.tile(state, (len(ACTIONS), 1)), ACTIONS]), dtype=torch.float32)
        with torch.no_grad():
            expected = ensemble(x).mean(dim=0)[:, 0].numpy()
        assert np.ptp(expected) > 0.01
        np.testing.assert_allclose(critic.logits(observation, ACTIONS), expected, rtol=0, atol=1e-4)


def test_score_does_not_depend_on_its_company_or_on_what_was_scored_before():
    together = CRITIC.logits(OBSERVATIONS[0], ACTIONS).copy()
    alone = [float(CRITIC.logits(OBSERVATIONS[0], action[np.newaxis])[0]) for action in ACTIONS]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
    for k in (8, 32, 8, 1, 40):  # sizes that a decision uses, in turn
        CRITIC.logits(OBSERVATIONS[1], -ACTIONS[:k])
        np.testing.assert_array_equal(CRITIC.logits(OBSERVATIONS[0], ACTIONS), together)


def test_wild_sensor_counts_no_more_than_the_clip():
    network = CRITIC.bundle.critic
    reach = network.observation_clip * network.observation_scale.astype(float)
    at_the_clip = network.observation_mean + np.where(np.arange(CONTRACT.observation_size) % 2, 1, -1) * reach
    wild = network.observation_mean + np.where(np.arange(CONTRACT.observation_size) % 2, 1, -1) * 1e30
    with np.errstate(over="ignore"):
        scores = CRITIC.logits(wild, ACTIONS).copy()
    np.testing.assert_allclose(scores, CRITIC.logits(at_the_clip, ACTIONS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("where", ["observation", "action"])
def test_nan_in_gives_nan_out(where):
    observation, actions = OBSERVATIONS[0].copy(), ACTIONS[:3].copy()
    (observation if where == "observation" else actions[1])[0] = math.nan
    logits = CRITIC.logits(observation, actions)
    assert np.isnan(logits).tolist() == ([True] * 3 if where == "observation" else [False, True, False])


@pytest.mark.parametrize(("n_observation", "n_action"), [(1, 1), (-1, 0), (0, 1), (0, -1)])
def test_wrong_sizes_are_refused(n_observation, n_action):
    observation = np.zeros(CONTRACT.observation_size + n_observation)
    actions = np.zeros((5, CONTRACT.action_size + n_action))
    with pytest.raises(ValueError, match="could not broadcast"):
        CRITIC.logits(observation, actions)


# Closed forms


@given(st.floats(1e-12, 1.0, exclude_max=True))
def test_sigmoid_undoes_logit(probability):
    assert logit(probability) == pytest.approx(math.log(probability / (1.0 - probability)), rel=1e-6, abs=1e-9)
    assert sigmoid(logit(probability)) == pytest.approx(probability, rel=1e-9)


@given(st.floats(-700.0, 700.0))
def test_sigmoid_is_its_closed_form_on_both_sides(x):
    assert sigmoid(x) == pytest.approx(1.0 / (1.0 + math.exp(-x)), rel=1e-12)
    assert sigmoid(-x) == pytest.approx(1.0 - sigmoid(x), abs=1e-15)
    assert 0.0 <= sigmoid(x) <= 1.0


@given(st.floats(-30.0, 30.0), st.floats(-30.0, 30.0))
def test_sigmoid_keeps_the_order_of_logits(x, y):
    assert (x <= y) <= (sigmoid(x) <= sigmoid(y))


def test_sigmoid_at_the_ends():
    assert [sigmoid(x) for x in (0.0, 1e308, -1e308, math.inf, -math.inf)] == [0.5, 1.0, 0.0, 1.0, 0.0]
    assert math.isnan(sigmoid(math.nan))
    assert logit(0.5) == 0.0


def test_serving_loads_neither_torch_nor_ros():
    code = "import sys, ssql_ros.shield.loop; print({'torch', 'rclpy', 'pybullet', 'gymnasium'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
