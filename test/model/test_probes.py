"""Probes: what is served is what was saved, or it is refused with the figures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from ssql_ros.contract import config_folder, find_contract, load_contract
from ssql_ros.model.bundle import Bundle, BundleError, Layer, Network, load_bundle, save_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.policy import make_policy
from ssql_ros.model.probes import PROBES, TOLERANCE, check_critic, check_policy, with_probes
from support.toy_robot import resealed, toy_bundle, toy_contract

CONTRACT = toy_contract(2)


def policy_network(seed: int = 0) -> Network:
    rng, n = np.random.default_rng(seed), CONTRACT.observation_size
    sizes = ((n, 8), (8, 2 * CONTRACT.action_size))
    layers = tuple(Layer(rng.normal(0, 0.5, s).astype(np.float32), np.zeros(s[1], np.float32)) for s in sizes)
    return Network(np.zeros(n, np.float32), np.ones(n, np.float32), 5.0, (layers,))


PROBED = with_probes(replace(toy_bundle(CONTRACT), policy=policy_network()), CONTRACT)


def changed(network: Network, member: int, layer: int, change: float) -> Network:
    """The network with one bias of one layer moved."""
    members = [list(layers) for layers in network.members]
    old = members[member][layer]
    bias = old.bias.copy()
    bias[0] += change
    members[member][layer] = Layer(old.weight, bias)
    return replace(network, members=tuple(tuple(layers) for layers in members))


def test_probes_are_saved_with_the_bundle_and_what_is_loaded_passes_them(tmp_path):
    loaded = load_bundle(save_bundle(PROBED, tmp_path / "bundle").path, CONTRACT)
    assert set(loaded.probes) == {"observation", "action", "critic", "policy"}
    assert loaded.probes["critic"].shape == (PROBES, PROBES)
    for name, array in PROBED.probes.items():
        np.testing.assert_array_equal(loaded.probes[name], array)
    check_critic(SafetyCritic(loaded))
    check_policy(make_policy(loaded), loaded)


def test_probes_of_the_same_bundle_are_the_same_and_reach_beyond_the_clip():
    again = with_probes(PROBED, CONTRACT)
    assert all(np.array_equal(again.probes[name], PROBED.probes[name]) for name in PROBED.probes)
    critic = PROBED.critic
    z = (PROBED.probes["observation"] - critic.observation_mean) / critic.observation_scale
    assert (np.abs(z) > critic.observation_clip).any()
    assert (np.abs(z) < critic.observation_clip).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1), st.sampled_from([0.05, -0.05, 1.0, 1e3]))
def test_other_critic_than_the_one_probed_is_refused_with_the_figures(member, change):
    other = replace(PROBED, critic=changed(PROBED.critic, member, -1, change))
    with pytest.raises(
        BundleError, match=r"the critic gives .* where the bundle's probe \d+ says .* \d+ of 256 differ"
    ):
        check_critic(SafetyCritic(other))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.05, -0.05, 1.0]))
def test_other_policy_than_the_one_probed_is_refused_with_the_figures(change):
    other = replace(PROBED, policy=changed(PROBED.policy, 0, -1, change))
    with pytest.raises(BundleError, match=r"the policy gives .* where the bundle's probe"):
        check_policy(make_policy(other), other)


def test_difference_within_the_tolerance_passes():
    moved = {**PROBED.probes, "critic": PROBED.probes["critic"] + np.float32(0.5 * TOLERANCE)}
    check_critic(SafetyCritic(replace(PROBED, probes=moved)))


def test_critic_that_scores_one_action_otherwise_than_many_is_refused(monkeypatch):
    critic = SafetyCritic(PROBED)
    logits = critic.logits
    critic.logits = lambda observation, actions: logits(observation, actions) + (len(actions) == 1)
    with pytest.raises(BundleError, match="the critic of one action gives"):
        check_critic(critic)


def test_output_that_is_not_finite_is_refused():
    critic = SafetyCritic(PROBED)
    critic.logits = lambda observation, actions: np.full(len(actions), np.nan, np.float32)
    with pytest.raises(BundleError, match="the critic gives nan where"):
        check_critic(critic)


@pytest.mark.parametrize("name", ["critic", "policy"])
def test_bundle_without_probes_is_not_verified(name):
    probes = {key: array for key, array in PROBED.probes.items() if key != name}
    bare = replace(PROBED, probes=probes)
    with pytest.raises(BundleError, match=f"has no probes of its {name}"):
        check_critic(SafetyCritic(bare)) if name == "critic" else check_policy(make_policy(bare), bare)


def test_network_of_a_kind_that_is_not_served_gets_no_probes():
    margin = with_probes(replace(toy_bundle(CONTRACT), policy=policy_network(), policy_kind="one_step_flow"), CONTRACT)
    assert set(margin.probes) <= {"observation", "action", "critic"}
    assert with_probes(Bundle(CONTRACT.id, None), CONTRACT).probes == {}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"probes.critic": np.zeros((PROBES, 3), np.float32)}, r"probes.critic: expected finite float32 \(16, 16\)"),
        ({"probes.critic": np.full((PROBES, PROBES), np.nan, np.float32)}, "probes.critic: expected finite float32"),
        ({"probes.action": np.zeros((PROBES, 5), np.float32)}, r"probes.action: expected finite float32 \(16, 2\)"),
        ({"probes.action": np.zeros((PROBES, 2))}, r"probes.action: expected .*, got float64 \(16, 2\)"),
        ({"probes.observation": np.zeros((0, 0), np.float32)}, "expected finite float32"),
        ({"probes.planner": np.zeros((PROBES, 2), np.float32)}, "probes.planner: expected one of observation, action"),
        ({"probes.action": None}, "array 'probes.action' is missing"),
        ({"probes.observation": None}, "probes.action: expected"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_probes_that_do_not_fit_are_refused_by_name(tmp_path, change, text):
    path = tmp_path / "bundle.safetensors"
    save_bundle(PROBED, path)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata()
    arrays = {name: array for name, array in {**arrays, **change}.items() if array is not None}
    path.write_bytes(resealed(save(arrays, metadata=metadata)))
    with pytest.raises(BundleError, match=text):
        load_bundle(path, CONTRACT)


@pytest.mark.parametrize("robot", ["minitaur"])
def test_shipped_bundle_gets_probes_that_it_passes(robot):
    contract = load_contract(find_contract(robot))
    shipped = load_bundle(config_folder() / "bundles" / f"{robot}_critic.safetensors", contract)
    check_critic(SafetyCritic(with_probes(shipped, contract)))
