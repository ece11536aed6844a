"""The domain of a critic: how far observations lie from its training data, and how a bundle carries and verifies it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.model.bundle import BundleError, load_bundle, save_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.domain import FLOOR, MOST_FEATURES, Domain, fitted_domain
from ssql_ros.model.probes import check_critic, with_probes
from support.toy_robot import resealed, toy_bundle, toy_contract

CONTRACT = toy_contract()
N = CONTRACT.observation_size


def gaussian(rows: int, seed: int, n: int = N) -> np.ndarray:
    """Observations whose features depend on each other, the last one on all others alone."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, n - 1)) @ (np.eye(n - 1) + 0.5 * np.random.default_rng(7).random((n - 1, n - 1)))
    return np.concatenate([mixed, mixed.sum(axis=1, keepdims=True)], axis=1)


DOMAIN = fitted_domain(gaussian(4000, 0), gaussian(4000, 1))


def test_limit_holds_for_as_many_new_observations_as_it_says():
    beyond = DOMAIN.distances(gaussian(20000, 2)) > DOMAIN.limit
    # The tail of 4,000 has four beyond the limit, more or less two.
    assert 0.0002 < beyond.mean() < 0.003
    assert (DOMAIN.quantile, DOMAIN.rows, DOMAIN.held_out) == (0.999, 4000, 4000)


def test_distance_is_mahalanobis_of_what_varies():
    data = gaussian(4000, 0)[:, :-1]
    domain = fitted_domain(data, data)
    apart = data[5] - data.mean(axis=0)
    expected = math.sqrt(apart @ np.linalg.solve(np.cov(data.T, bias=True), apart))
    assert domain.distance(data[5]) == pytest.approx(expected, rel=1e-3)


def test_what_is_unlike_the_data_is_outside_though_each_feature_is_usual():
    data = gaussian(4000, 0)
    usual = data.mean(axis=0)
    usual[-1] += data[:, -1].std()  # the sum, but none of its parts
    assert DOMAIN.distance(usual) > 1.5 * DOMAIN.limit
    # A direction in which the data never varies counts with FLOOR, not for ever.
    assert DOMAIN.distance(usual) < 1.1 / math.sqrt(FLOOR)


@given(st.lists(st.floats(-1e6, 1e6), min_size=N, max_size=N))
def test_one_and_many_give_the_same(values):
    observation = np.array(values)
    one, many = DOMAIN.distance(observation), DOMAIN.distances(observation[np.newaxis])[0]
    assert one == pytest.approx(many, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_infinitely_far(value):
    observation = np.zeros(N)
    observation[3] = value
    with np.errstate(invalid="ignore"):
        assert DOMAIN.distance(observation) == math.inf


def test_long_observations_are_whitened_feature_by_feature():
    rng, n = np.random.default_rng(0), MOST_FEATURES + 1
    data = 3.0 * rng.standard_normal((50, n))
    domain = fitted_domain(data, data)
    assert domain.whitening.shape == (n,)
    assert domain.distance(data[3]) == pytest.approx(domain.distances(data)[3], rel=1e-4)
    assert domain.distance(data[3]) == pytest.approx(math.sqrt(n), rel=0.2)


def test_no_observations_teach_no_domain():
    with pytest.raises(ValueError, match="expected observations, got 1 and 1 held out"):
        fitted_domain(np.zeros((1, 3)), np.zeros((1, 3)))


# In a bundle


@pytest.fixture
def path(tmp_path):
    bundle = toy_bundle(CONTRACT)
    path = tmp_path / "toy.safetensors"
    save_bundle(with_probes(replace(bundle, critic=replace(bundle.critic, domain=DOMAIN)), CONTRACT), path)
    return path


def test_bundle_keeps_it_and_a_bundle_without_one_still_loads(path, tmp_path):
    found = load_bundle(path, CONTRACT).critic.domain
    assert found.header() == DOMAIN.header()
    assert np.array_equal(found.whitening, DOMAIN.whitening)
    check_critic(SafetyCritic(load_bundle(path, CONTRACT)))
    save_bundle(toy_bundle(CONTRACT), tmp_path / "old.safetensors")
    assert load_bundle(tmp_path / "old.safetensors", CONTRACT).critic.domain is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"limit": 0.0}, "domain.limit: expected a number above 0, got 0.0"),
        ({"limit": "far"}, "domain.limit: expected float, got 'far'"),
        ({"quantile": 1.0}, "domain.quantile: expected a number between 0 and 1, got 1.0"),
        ({"rows": 0.5}, "domain.rows: expected int, got 0.5"),
        ({"more": 1}, "domain: expected limit, quantile, rows, held_out, got"),
    ],
)
def test_numbers_that_are_none_are_refused(change, error):
    with pytest.raises(ValueError, match=error):
        Domain.read({**DOMAIN.header(), **change}, DOMAIN.centre, DOMAIN.whitening)


def test_arrays_of_the_wrong_shape_are_refused_with_their_name(path, tmp_path):
    bundle = load_bundle(path, CONTRACT)
    wide = replace(DOMAIN, centre=np.zeros(N + 1, np.float32), whitening=np.ones(N + 1, np.float32))
    save_bundle(replace(bundle, critic=replace(bundle.critic, domain=wide)), tmp_path / "wide.safetensors")
    with pytest.raises(
        BundleError, match=rf"critic.domain.centre: expected {N} float32 rows, got float32 \({N + 1},\)"
    ):
        load_bundle(tmp_path / "wide.safetensors", CONTRACT)
    with pytest.raises(ValueError, match=r"domain\.whitening: expected"):
        replace(DOMAIN, whitening=np.ones((2, N), np.float32))


def test_one_that_the_header_does_not_name_and_one_without_arrays_are_refused(path, tmp_path):
    data = path.read_bytes()
    for old, new, error in (
        (b'\\"domain\\"', b'\\"domane\\"', "unknown array 'critic.domain.centre'"),
        (b'"critic.domain.centre"', b'"critic.domain.centra"', "array 'critic.domain.centre' is missing"),
    ):
        assert data.count(old) == 1
        damaged = tmp_path / "damaged.safetensors"
        damaged.write_bytes(resealed(data.replace(old, new)))
        with pytest.raises(BundleError, match=error):
            load_bundle(damaged, CONTRACT)


def test_served_domain_that_differs_from_its_probes_is_refused(path):
    bundle = load_bundle(path, CONTRACT)
    critic = SafetyCritic(replace(bundle, probes={**bundle.probes, "domain": bundle.probes["domain"] + 1.0}))
    with pytest.raises(BundleError, match=r"the domain gives .* where the bundle's probe"):
        check_critic(critic)
    without = {name: array for name, array in bundle.probes.items() if name != "domain"}
    with pytest.raises(BundleError, match="has no probes of its domain"):
        check_critic(SafetyCritic(replace(bundle, probes=without)))
