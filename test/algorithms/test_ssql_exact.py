"""SSQL on finite MDPs against exact dynamic programming, and its limits."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.algorithms.ssql import induced_log_policy, soft_value
from ssql_ros.algorithms.tabular import Counts, collect, fitted_ssql, q_learning
from ssql_ros.cli.main import main
from ssql_sim.grid import MAPS, GridEnv
from ssql_sim.soft_dp import (
    EpisodicMDP,
    expected_return,
    induced_policy,
    safe_actions,
    soft_optimum,
    uniform_over,
)

TEMPERATURES = (0.0, 0.01, 0.1, 1.0, 10.0, math.inf)
GAMMA = 0.95


def mdp_of(env: GridEnv) -> EpisodicMDP:
    return EpisodicMDP(env.transitions, env.reward, env.terminal, env.unsafe, GAMMA)


def everything_seen(mdp: EpisodicMDP) -> Counts:
    """Data without sampling noise: each pair as often as its probabilities are fractions of a million."""
    often = np.round(mdp.transitions * 1e6)
    rewards = mdp.reward * often.sum(axis=2)
    return Counts(often, rewards, mdp.terminal)


@pytest.mark.parametrize("layout", MAPS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_q_and_the_induced_policy_are_those_of_dynamic_programming(layout: str, temperature: float) -> None:
    mdp = mdp_of(GridEnv(layout=layout))
    behaviour = uniform_over(safe_actions(mdp))
    exact, _ = soft_optimum(mdp, behaviour, temperature)
    q, policy = fitted_ssql(everything_seen(mdp), behaviour, temperature, GAMMA)
    going = ~mdp.terminal
    assert np.abs(q - exact)[going].max() < 1e-6
    # In the limit of 0 the best actions may be equally good, to rounding: what counts is their worth.
    if temperature > 0.0:
        assert np.abs(policy - induced_policy(exact, behaviour, temperature))[going].max() < 1e-6
    else:
        assert (
            np.abs((policy * exact).sum(axis=1) - np.where(behaviour > 0, exact, -9.0).max(axis=1))[going].max() < 1e-6
        )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_no_action_outside_of_the_support_has_any_probability(temperature: float) -> None:
    mdp = mdp_of(GridEnv(layout="spider"))
    allowed = safe_actions(mdp)
    behaviour = uniform_over(allowed)
    _, policy = fitted_ssql(everything_seen(mdp), behaviour, temperature, GAMMA)
    assert (policy[behaviour == 0.0] == 0.0).all()
    assert np.allclose(policy.sum(axis=1), 1.0)


def test_value_rises_from_the_mean_to_the_maximum_as_lambda_falls() -> None:
    mdp = mdp_of(GridEnv())
    behaviour = uniform_over(safe_actions(mdp))
    values = [soft_optimum(mdp, behaviour, t)[1] for t in sorted(TEMPERATURES, reverse=True)]
    for warmer, colder in itertools.pairwise(values):
        assert (colder >= warmer - 1e-9).all()
    assert np.allclose(values[0], expected_return(mdp, behaviour))
    inside = ~mdp.terminal & safe_actions(mdp).any(axis=1)
    greedy = mdp.reward + GAMMA * mdp.transitions @ np.where(mdp.terminal, 0.0, values[-1])
    assert np.allclose(np.where(safe_actions(mdp), greedy, -np.inf).max(axis=1)[inside], values[-1][inside])
    # Close to the limits, the value is close to theirs.
    assert np.abs(soft_optimum(mdp, behaviour, 1e-4)[1] - values[-1]).max() < 5e-3
    assert np.abs(soft_optimum(mdp, behaviour, 1e5)[1] - values[0]).max() < 1e-3


@given(
    q=st.lists(st.floats(-50, 50), min_size=2, max_size=6),
    weights=st.lists(st.floats(0.01, 1.0), min_size=6, max_size=6),
    masked=st.integers(0, 4),
    temperature=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 100.0, math.inf]),
)
def test_soft_value_is_bounded_and_the_policy_sums_to_one(
    q: list[float], weights: list[float], masked: int, temperature: float
) -> None:
    values = torch.tensor(q, dtype=torch.float64)
    b = torch.tensor(weights[: len(q)], dtype=torch.float64)
    b[: min(masked, len(q) - 1)] = 0.0
    b /= b.sum()
    log_b, inside = b.log(), b > 0.0
    v = soft_value(values, log_b, temperature)
    policy = induced_log_policy(values, log_b, temperature).exp()
    assert (policy[~inside] == 0.0).all()
    assert float(policy.sum()) == pytest.approx(1.0)
    assert float((b * values).sum()) - 1e-9 <= float(v) <= float(values[inside].max()) + 1e-9
    if 0.0 < temperature < math.inf:
        # V is the optimum: E_pi Q - lambda KL(pi || b).
        some = policy > 0.0
        kl = (policy[some] * (policy[some].log() - log_b[some])).sum()
        assert float((policy * values).sum() - temperature * kl) == pytest.approx(float(v), abs=1e-6)


@pytest.mark.parametrize("layout", MAPS)
def test_a_safe_behaviour_policy_meets_no_incident_and_a_dishonest_one_is_caught_at_once(layout: str) -> None:
    env = GridEnv(layout=layout)
    mdp = mdp_of(env)
    behaviour = uniform_over(safe_actions(mdp))
    honest = collect(env, behaviour, behaviour, 20_000, np.random.default_rng(0))
    assert (honest.steps, honest.incidents, honest.breaches) == (20_000, 0, 0)
    anything = np.full_like(behaviour, 1.0 / behaviour.shape[1])
    caught = collect(env, anything, behaviour, 50, np.random.default_rng(0))
    assert caught.breaches > 0


@pytest.mark.long
def test_what_is_learned_from_samples_is_near_the_exact_policy_and_reaches_the_goal() -> None:
    env = GridEnv()
    mdp = mdp_of(env)
    behaviour = uniform_over(safe_actions(mdp))
    seen = collect(env, behaviour, behaviour, 60_000, np.random.default_rng(1))
    _, policy = fitted_ssql(seen, behaviour, 0.01, GAMMA)
    exact, _ = soft_optimum(mdp, behaviour, 0.01)
    best = expected_return(mdp, induced_policy(exact, behaviour, 0.01))[env.start]
    assert expected_return(mdp, policy)[env.start] > best - 0.05
    assert best > expected_return(mdp, behaviour)[env.start] + 0.5
    free = q_learning(env, 60_000, GAMMA, np.random.default_rng(1))
    assert free.incidents > 0
    assert seen.incidents == 0


def test_an_mdp_of_the_wrong_shape_is_refused() -> None:
    env = GridEnv()
    with pytest.raises(ValueError, match="expected reward"):
        EpisodicMDP(env.transitions, env.reward[:-1], env.terminal, env.unsafe)
    with pytest.raises(ValueError, match="gamma"):
        EpisodicMDP(env.transitions, env.reward, env.terminal, env.unsafe, gamma=1.0)
    with pytest.raises(ValueError, match="layout"):
        GridEnv(layout="maze")


def test_the_study_of_temperatures_makes_rows_and_a_plot(tmp_path, capsys) -> None:
    arguments = ["temperatures", "--tasks", "gridworld", "--steps", "2000", "--seeds", "2", "--quiet", "--json"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures["gridworld lambda 0.01 training_incidents"] == 0
    assert figures["gridworld q_learning training_incidents"] > 0
    # Colder is better than nearly the behaviour policy.
    assert figures["gridworld lambda 0.01 return_mean"] > figures["gridworld lambda 3 return_mean"] + 0.3
    assert (tmp_path / "ssql_temperatures.png").read_bytes().startswith(b"\x89PNG")
    assert "ssql_lambda_grid,lambda 0.01,gridworld,exact,return_mean" in (tmp_path / "summary.csv").read_text()
