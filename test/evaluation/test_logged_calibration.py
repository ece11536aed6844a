"""What a log says of a critic, and of itself: outcomes, bounds, held-out episodes; numbers worked out by hand."""

import math

import numpy as np
import pytest

from ssql_ros.data.data_set import DataSet, DataSetWriter, transition_columns
from ssql_ros.data.held_out import parts_of
from ssql_ros.data.scores import chosen_epsilon, cross_entropy, platt
from ssql_ros.evaluation.conformal import upper_bound
from ssql_ros.evaluation.evidence import episodes_without, events_wanted, evidence_of, lower_bound
from ssql_ros.evaluation.logged_calibration import calibrate_on_log, outcomes_of
from ssql_ros.model.bundle import BundleError
from support.toy_robot import toy_bundle, toy_contract


def log(path, lengths, falls):
    """A data set of episodes of these lengths; those that fall end in an incident."""
    contract = toy_contract()
    rng, stamp = np.random.default_rng(0), 0
    with DataSetWriter(path, transition_columns(contract.observation_size, 1)) as writer:
        for episode, (length, fell) in enumerate(zip(lengths, falls, strict=True)):
            for step in range(length):
                over, stamp = step == length - 1, stamp + 20_000_000
                seen = rng.normal(size=(2, contract.observation_size))
                writer.add(
                    {
                        "observation": seen[0],
                        "action": rng.uniform(-1, 1, 1),
                        "reward": 0.0,
                        "next_observation": seen[1],
                        "margin": -0.1,
                        "incident": over and fell,
                        "terminal": over and fell,
                        "episode": episode,
                        "stamp": stamp,
                    }
                )
        writer.finish({"contract_id": contract.id})
    return DataSet(path)


def test_outcomes_are_those_that_are_known(tmp_path):
    data = log(tmp_path / "log", [4, 6], [True, False])
    rows, steps, number = outcomes_of(data, data.episodes(), horizon=3)
    # Of the second episode only what went on for more than three steps is known to be without an incident.
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert steps.tolist() == [3, 2, 1, 0, math.inf, math.inf, math.inf]
    assert number.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_held_out_episodes_are_whole_and_of_both_kinds(tmp_path):
    data = log(tmp_path / "log", [5] * 20, [True] * 5 + [False] * 15)
    parts = parts_of(data, 0.2, seed=3)
    held = parts.segments()
    assert (len(held), sum(bool(data["incident"][each].any()) for each in held)) == (4, 1)
    assert parts.held.sum() == 20
    assert not (parts.held & parts.learned).any()
    assert np.array_equal(parts.held, parts_of(data, 0.2, seed=3).held)
    assert not parts_of(data, 0.0, seed=3).held.any()


def test_one_long_episode_is_cut_into_blocks(tmp_path):
    data = log(tmp_path / "log", [1000], [False])
    parts = parts_of(data, 0.2, seed=0)
    assert parts.blocks
    assert [each.stop - each.start for each in parts.segments()] == [200]
    with pytest.raises(ValueError, match="expected at least 2 episodes, or more than 200 steps"):
        parts_of(log(tmp_path / "short", [10], [False]), 0.2, seed=0)


def test_bounds_are_those_of_clopper_and_pearson():
    assert math.isclose(lower_bound(5, 5, 0.05), 0.05 ** (1 / 5), rel_tol=1e-9)
    assert episodes_without(0.01) == 299  # 0.99^299 < 0.05 < 0.99^298
    for rate in (0.02, 0.2, 0.5):
        k = events_wanted(rate)
        assert upper_bound(k, round(k / rate), 0.05) <= 1.5 * rate
        assert k == 1 or upper_bound(k - 1, round((k - 1) / rate), 0.05) > 1.5 * rate
    with pytest.raises(ValueError, match="between 0 and 1"):
        events_wanted(0.0)


def test_a_log_without_incidents_says_what_it_cannot_teach(tmp_path):
    evidence = evidence_of(log(tmp_path / "log", [5] * 30, [False] * 30), toy_contract())
    assert (evidence.incidents, evidence.teaches_risk, evidence.wanted) == (0, False, 269)
    assert math.isclose(evidence.high, 1.0 - 0.05 ** (1 / 30), rel_tol=1e-6)
    assert any("no Q_safe" in sentence for sentence in evidence.words)


def test_the_threshold_alarms_at_no_more_than_its_share():
    scores = np.linspace(0.0, 0.2, 101)
    steps = np.full(101, np.inf)
    assert math.isclose(chosen_epsilon(scores, steps, 0.15), 0.17)
    assert chosen_epsilon(np.zeros(3), np.full(3, np.inf), 0.1) == 0.005
    assert chosen_epsilon(np.ones(3), np.full(3, np.inf), 0.1) == 0.5


def test_platt_scaling_finds_the_scale_that_made_the_data():
    logits = np.linspace(-4.0, 4.0, 2001)
    observed = 1.0 / (1.0 + np.exp(-(0.5 * logits - 1.0)))
    slope, offset = platt(logits, observed)
    assert math.isclose(slope, 0.5, abs_tol=1e-3)
    assert math.isclose(offset, -1.0, abs_tol=1e-3)
    assert cross_entropy(slope * logits + offset, observed) <= cross_entropy(logits, observed)


def test_a_bundle_is_not_judged_on_what_it_has_learned_from(tmp_path):
    import dataclasses

    contract = toy_contract()
    data = log(tmp_path / "log", [30] * 20, [True] * 8 + [False] * 12)
    own = {name: value for name, value in data.manifest.items() if name != "columns"}
    bundle = toy_bundle(contract)
    figures = calibrate_on_log(bundle, data, contract)
    assert (figures["episodes"], figures["incidents"]) == (20.0, 8.0)
    assert "no certificate" in figures["statement"]
    learned = dataclasses.replace(bundle, provenance={"data": own, "plan": {"held_out": 0.0, "seed": 0}})
    with pytest.raises(BundleError, match="has learned from all of"):
        calibrate_on_log(learned, data, contract)
    half = dataclasses.replace(bundle, provenance={"data": own, "plan": {"held_out": 0.5, "seed": 0}})
    assert calibrate_on_log(half, data, contract)["episodes"] == 10.0
