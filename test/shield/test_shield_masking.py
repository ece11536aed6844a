"""The masked policy (SQRL, eq. 3): which candidates are drawn, and which of the safe ones is taken."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.model.critic import logit
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.decision import FIRST_STAGE, STAGE, Decision, Observation, ShieldSettings, Verdict, decide
from support.toy_robot import FormulaCritic, toy_contract

EPSILON = 0.1
WIDE = 50.0  # bounds of the action: far outside of anything drawn
N = 4000
# Kolmogorov-Smirnov: a sample of the stated distribution exceeds this in one of a thousand trials.
KS_LIMIT = 1.95 / math.sqrt(N)


def critic_for(safe: Callable[[np.ndarray], np.ndarray]) -> FormulaCritic:
    """Of actions (k, n): just below epsilon where `safe`, just above where not."""
    return FormulaCritic(lambda actions: logit(EPSILON) + np.where(safe(actions), -0.01, 0.01))


def decided(
    proposal: Proposal, critic: FormulaCritic, rng: np.random.Generator, bound: float = WIDE, **changes: object
) -> Verdict:
    contract = toy_contract(len(proposal.action), -bound, bound)
    chosen = ShieldSettings(EPSILON, 0.04, 0.04, **changes)
    observation = Observation(np.zeros(contract.observation_size), 0.0)
    return decide(observation, proposal, critic, contract, chosen, 0.0, rng)


def resampled(mean: list[float], std: list[float], unsafe: list[float], critic: FormulaCritic, seed: int) -> np.ndarray:
    """N replacements (N, n) of an unsafe proposal that was drawn from N(mean, std^2)."""
    rng = np.random.default_rng(seed)
    proposal = Proposal(np.array(unsafe), 0.0, np.array(mean), np.array(std))
    verdicts = [decided(proposal, critic, rng, candidates=60, rounds=1) for _ in range(N)]
    assert {verdict.decision for verdict in verdicts} == {Decision.RESAMPLED}
    return np.array([verdict.action for verdict in verdicts])


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * (1.0 + math.erf(value / math.sqrt(2.0))) for value in np.ravel(x)])


def distance(sample: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """The Kolmogorov-Smirnov statistic: the largest gap between the sample's distribution function and `cdf`."""
    expected, steps = cdf(np.sort(sample)), np.arange(len(sample) + 1) / len(sample)
    return float(max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])))


def test_replacements_in_one_dimension_are_the_truncated_normal():
    # N(0.5, 0.4^2) given a <= 0.2.
    critic = critic_for(lambda actions: actions[:, 0] <= 0.2)
    sample = resampled([0.5], [0.4], [0.9], critic, seed=1)[:, 0]
    limit = normal_cdf(np.array([(0.2 - 0.5) / 0.4]))[0]
    assert sample.max() <= 0.2
    assert distance(sample, lambda a: normal_cdf((a - 0.5) / 0.4) / limit) < KS_LIMIT
    # And not the untruncated one, nor one of another mean.
    assert distance(sample, lambda a: normal_cdf((a - 0.5) / 0.4)) > 10 * KS_LIMIT
    shifted = normal_cdf(np.array([(0.2 - 0.4) / 0.4]))[0]
    assert distance(sample, lambda a: normal_cdf((a - 0.4) / 0.4) / shifted) > KS_LIMIT


def test_replacements_beside_a_hole_keep_the_weight_of_either_side():
    # Unsafe between -0.5 and 0.2: both tails stay, in the proportion of their probabilities.
    critic = critic_for(lambda actions: (actions[:, 0] < -0.5) | (actions[:, 0] > 0.2))
    sample = resampled([0.0], [0.5], [0.0], critic, seed=2)[:, 0]
    low, high = normal_cdf(np.array([-1.0, 0.4]))

    def cdf(a: np.ndarray) -> np.ndarray:
        full = normal_cdf(a / 0.5)
        return np.where(a <= -0.5, full, low + np.maximum(full - high, 0.0)) / (low + 1.0 - high)

    assert distance(sample, cdf) < KS_LIMIT
    assert not ((sample > -0.5) & (sample < 0.2)).any()


def test_replacements_in_two_dimensions_are_truncated_across_the_edge_and_normal_along_it():
    # Standardised, the half plane u0 + u1 <= 0.5: along the edge nothing changes, across it a truncated normal.
    mean, std = np.array([1.0, -2.0]), np.array([0.5, 2.0])
    critic = critic_for(lambda actions: ((actions - mean) / std).sum(axis=1) <= 0.5)
    u = (resampled(list(mean), list(std), [2.0, 2.0], critic, seed=3) - mean) / std
    across, along = (u[:, 0] + u[:, 1]) / math.sqrt(2.0), (u[:, 0] - u[:, 1]) / math.sqrt(2.0)
    limit = normal_cdf(np.array([0.5 / math.sqrt(2.0)]))[0]
    assert distance(across, lambda a: normal_cdf(a) / limit) < KS_LIMIT
    assert distance(along, normal_cdf) < KS_LIMIT
    assert abs(np.corrcoef(across, along)[0, 1]) < 4.0 / math.sqrt(N)


@pytest.mark.parametrize("nearest", [False, True])
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    candidates=st.sampled_from([1, 2, FIRST_STAGE - 1, FIRST_STAGE, FIRST_STAGE + 1, 2 * FIRST_STAGE, 40]),
    rounds=st.integers(1, 4),
    growth=st.sampled_from([1.0, 1.5, 3.0]),
    limit=st.floats(-4.0, 0.4),
)
def test_search_in_stages_finds_what_scoring_every_candidate_finds(nearest, seed, candidates, rounds, growth, limit):
    mean, std = np.array([0.1, -0.2]), np.array([0.3, 0.6])
    critic = critic_for(lambda actions: actions.sum(axis=1) <= limit)
    proposal = Proposal(np.array([0.8, 0.8]), 0.0, mean, std)
    chosen = {"candidates": candidates, "rounds": rounds, "growth": growth, "nearest": nearest}
    verdict = decided(proposal, critic, np.random.default_rng(seed), bound=2.0, **chosen)

    rng, expected, drawn = np.random.default_rng(seed), None, 0
    for i in range(rounds + 1):
        z = rng.standard_normal((candidates, 2), dtype=np.float32)
        actions = np.clip(mean + std * growth**i * z, -2.0, 2.0)
        if i == rounds:  # the last is a plain command's: a spread of 0.4 of half the action range
            actions = np.clip(proposal.action + np.full(2, 0.4 * 2.0) * growth ** (rounds - 1) * z, -2.0, 2.0)
        safe = actions.sum(axis=1) <= limit
        if safe.any():
            # The log-probability of an unclipped candidate is -|z|^2 / 2 + constant.
            expected = actions[np.where(safe, (z**2).sum(axis=1), np.inf).argmin() if nearest else safe.argmax()]
            break
        drawn += candidates
    if expected is None:
        assert (verdict.decision, verdict.scored) == (Decision.LEAST_RISK, 1 + (rounds + 1) * candidates)
    else:
        assert verdict.decision == Decision.RESAMPLED
        np.testing.assert_allclose(verdict.action, expected, rtol=1e-12, atol=1e-12)
        assert 1 + drawn < verdict.scored <= 1 + drawn + candidates


def test_scoring_stops_at_the_stage_that_has_a_safe_one():
    critic = critic_for(lambda actions: np.arange(len(actions)) == len(actions) - 1)
    critic.formula = lambda actions: np.where(np.arange(len(actions)) == 5, -9.0, 9.0) if len(actions) > 1 else [9.0]
    verdict = decided(Proposal(np.zeros(1), 0.0), critic, np.random.default_rng(0), candidates=100)
    assert [len(actions) for actions in critic.scored] == [1, FIRST_STAGE]
    assert (verdict.scored, verdict.safe) == (1 + FIRST_STAGE, 1)
    assert verdict.action.tolist() == critic.scored[1][5].tolist()


def test_every_round_is_scored_before_the_least_risk_is_taken():
    critic = critic_for(lambda actions: np.zeros(len(actions), bool))
    verdict = decided(Proposal(np.zeros(2), 0.0), critic, np.random.default_rng(0), candidates=100, rounds=3)
    assert [len(actions) for actions in critic.scored] == [1, *[FIRST_STAGE, 100 - FIRST_STAGE] * 3]
    assert (verdict.decision, verdict.scored, verdict.safe) == (Decision.LEAST_RISK, 301, 0)


def test_narrow_distribution_keeps_the_shield_from_no_safe_action_that_is_there():
    """The last round is a plain command's: around the proposal, over the contract's bounds."""
    critic = critic_for(lambda actions: actions[:, 0] <= -0.5)
    for distribution in (
        {"mean": np.array([0.5]), "std": np.array([1e-3])},
        {"mean": np.array([0.5]), "std": np.array([1.0]), "low": np.array([0.4]), "high": np.array([0.6])},
        {"mean": np.array([0.5]), "std": np.array([1e-3]), "squashed": True},
    ):
        verdict = decided(Proposal(np.array([0.5]), 0.0, **distribution), critic, np.random.default_rng(0), bound=1.0)
        assert verdict.decision == Decision.RESAMPLED
        assert verdict.action[0] <= -0.5


def test_decision_that_is_late_scores_no_further_and_takes_the_least_risky_so_far():
    critic = critic_for(lambda actions: np.zeros(len(actions), bool))
    contract, calls = toy_contract(1), []
    late = lambda: bool(calls.append(0)) or len(calls) > 2  # noqa: E731
    chosen = ShieldSettings(EPSILON, 0.04, 0.04, candidates=10_000, rounds=20)
    seen = Observation(np.zeros(contract.observation_size), 0.0)
    verdict = decide(seen, Proposal(np.zeros(1), 0.0), critic, contract, chosen, 0.0, np.random.default_rng(0), late)
    assert verdict.decision == Decision.LEAST_RISK
    assert verdict.scored == 1 + FIRST_STAGE + 2 * STAGE


def test_plain_command_is_searched_around_itself_with_the_settings_spread_growing_by_round():
    critic = critic_for(lambda actions: np.zeros(len(actions), bool))
    action = np.array([0.5, -1.0])
    chosen = {"candidates": 4000, "rounds": 3, "growth": 1.5, "spread": 0.01}
    decided(Proposal(action, 0.0), critic, np.random.default_rng(0), bound=40.0, **chosen)
    for i in range(3):
        drawn = np.concatenate(critic.scored)[1 + 4000 * i : 1 + 4000 * (i + 1)]
        # The spread is a fraction of half the range of 80.
        std = 0.01 * 40.0 * 1.5**i
        np.testing.assert_allclose(drawn.mean(axis=0), action, atol=4 * std / math.sqrt(4000))
        np.testing.assert_allclose(drawn.std(axis=0), std, rtol=4 / math.sqrt(2 * 4000))


def test_plain_command_far_outside_of_the_bounds_is_searched_around_its_clipped_self():
    critic = critic_for(lambda actions: actions.sum(axis=1) <= 0.5)
    verdict = decided(Proposal(np.array([40.0, 9.0]), 0.0), critic, np.random.default_rng(0), bound=1.0)
    assert verdict.decision == Decision.RESAMPLED
    assert len(np.unique(np.concatenate(critic.scored), axis=0)) > FIRST_STAGE


def test_candidates_of_a_distribution_without_width_are_its_mean():
    critic = critic_for(lambda actions: actions[:, 0] < 0.2)
    verdict = decided(Proposal(np.ones(1), 0.0, np.array([0.1]), np.zeros(1)), critic, np.random.default_rng(0))
    assert (verdict.decision, verdict.action.tolist()) == (Decision.RESAMPLED, [0.1])


def test_candidates_are_clipped_before_they_are_scored():
    critic = critic_for(lambda actions: np.zeros(len(actions), bool))
    decided(Proposal(np.array([5.0, -5.0]), 0.0), critic, np.random.default_rng(0), bound=1.0, spread=2.0)
    drawn = np.concatenate(critic.scored)
    assert (np.abs(drawn) <= 1.0).all()
    assert (np.abs(drawn) == 1.0).any()


@pytest.mark.parametrize("std", [1e300, 1e-300])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_distribution_of_absurd_width_still_gives_a_finite_action_in_bounds(std):
    critic = critic_for(lambda actions: np.zeros(len(actions), bool))
    proposal = Proposal(np.zeros(2), 0.0, np.zeros(2), np.full(2, std))
    verdict = decided(proposal, critic, np.random.default_rng(0), bound=1.0, growth=10.0, rounds=20, candidates=10)
    assert verdict.decision == Decision.LEAST_RISK
    assert (np.abs(np.concatenate(critic.scored)) <= 1.0).all()


# Squashed Gaussian policies: the distribution is that of u, the action tanh(u) over the bounds


def squashed_cdf(mean: float, std: float, low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: normal_cdf((np.arctanh(2.0 * (a - low) / (high - low) - 1.0) - mean) / std)


def test_squashed_candidates_are_tanh_of_the_normal_stretched_over_the_bounds_wider_by_round():
    critic = critic_for(lambda actions: np.zeros(len(actions), bool))
    contract = toy_contract(2, -1.0, 3.0)
    chosen = ShieldSettings(EPSILON, 0.04, 0.04, candidates=N, rounds=2, growth=2.0)
    seen = Observation(np.zeros(contract.observation_size), 0.0)
    proposal = Proposal(np.array([0.5, 2.5]), 0.0, np.array([-0.3, 0.8]), np.array([0.6, 0.2]), squashed=True)
    verdict = decide(seen, proposal, critic, contract, chosen, 0.0, np.random.default_rng(4))
    assert verdict.decision == Decision.LEAST_RISK
    for i, growth in enumerate((1.0, 2.0)):
        drawn = np.concatenate(critic.scored)[1 + N * i : 1 + N * (i + 1)]
        assert ((drawn > -1.0) & (drawn < 3.0)).all()
        for column, mean, std in ((drawn[:, 0], -0.3, 0.6), (drawn[:, 1], 0.8, 0.2)):
            assert distance(column, squashed_cdf(mean, growth * std, -1.0, 3.0)) < KS_LIMIT
            # Neither of another width nor unsquashed.
            assert distance(column, squashed_cdf(mean, 1.2 * growth * std, -1.0, 3.0)) > KS_LIMIT
            assert distance(column, lambda a, m=mean, s=growth * std: normal_cdf((a - m) / s)) > 5 * KS_LIMIT


def test_squashed_replacements_are_the_truncated_distribution():
    critic = critic_for(lambda actions: actions[:, 0] <= 0.2)
    rng = np.random.default_rng(6)
    proposal = Proposal(np.array([0.9]), 0.0, np.array([0.4]), np.array([0.7]), squashed=True)
    sample = np.array([decided(proposal, critic, rng, bound=1.0, candidates=60, rounds=1).action for _ in range(N)])[
        :, 0
    ]
    cdf = squashed_cdf(0.4, 0.7, -1.0, 1.0)
    assert sample.max() <= 0.2
    assert distance(sample, lambda a: cdf(a) / cdf(np.array([0.2]))) < KS_LIMIT


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1e300), (40.0, 1.0), (-1e300, 0.0), (0.0, 1e-300)])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_squashed_distribution_of_absurd_width_or_place_stays_in_bounds(mean, std):
    critic = critic_for(lambda actions: np.zeros(len(actions), bool))
    proposal = Proposal(np.zeros(2), 0.0, np.full(2, mean), np.full(2, std), squashed=True)
    verdict = decided(proposal, critic, np.random.default_rng(0), bound=1.0, growth=10.0, rounds=20, candidates=10)
    assert verdict.decision == Decision.LEAST_RISK
    assert (np.abs(np.concatenate(critic.scored)) <= 1.0).all()


# The riskiest safe one: SQRL's pre-training


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    candidates=st.sampled_from([1, FIRST_STAGE, 30]),
    rounds=st.integers(1, 3),
    limit=st.floats(-1.0, 1.0),
    proposed=st.floats(-1.0, 1.0),
)
def test_riskiest_is_the_highest_q_safe_up_to_epsilon_of_a_round_and_never_above(
    seed, candidates, rounds, limit, proposed
):
    critic = FormulaCritic(lambda actions: logit(EPSILON) + (actions[:, 0] - limit))
    proposal = Proposal(np.array([proposed]), 0.0, np.array([0.1]), np.array([0.8]), squashed=True)
    chosen = {"candidates": candidates, "rounds": rounds, "riskiest": True}
    verdict = decided(proposal, critic, np.random.default_rng(seed), bound=1.0, **chosen)
    (first, *drawn), threshold = critic.scored, logit(EPSILON)
    logits = [np.float32(threshold + (actions[:, 0] - limit)) for actions in drawn]
    best = [
        actions[np.where(row <= threshold, row, -np.inf).argmax()] for actions, row in zip(drawn, logits, strict=True)
    ]
    found = [(row <= threshold).any() for row in logits]
    assert first.tolist() == [[proposed]]
    assert [len(actions) for actions in drawn] == [candidates] * len(drawn)
    # The search ends with the first round that has a safe one, and not before.
    assert not any(found[:-1])
    if found[-1]:
        assert (verdict.decision, verdict.action.tolist()) == (Decision.RESAMPLED, best[-1].tolist())
        assert verdict.q_action <= EPSILON * (1.0 + 1e-6)
    elif np.float32(threshold + (proposed - limit)) <= threshold:
        assert (verdict.decision, verdict.action.tolist(), len(drawn)) == (Decision.PASSED, [proposed], rounds)
    else:
        least = min(proposed, *(actions[:, 0].min() for actions in drawn))
        assert (verdict.decision, verdict.action.tolist(), len(drawn)) == (Decision.LEAST_RISK, [least], rounds)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_riskiest_never_takes_a_score_that_is_no_number(score):
    critic = FormulaCritic(lambda actions: np.where(actions[:, 0] > 0.3, score, logit(EPSILON) - 2.0 + actions[:, 0]))
    proposal = Proposal(np.array([0.0]), 0.0, np.array([0.0]), np.array([0.8]))
    verdict = decided(proposal, critic, np.random.default_rng(1), bound=1.0, riskiest=True)
    safe = critic.scored[1][critic.scored[1] <= 0.3]
    assert (verdict.decision, verdict.action.tolist()) == (Decision.RESAMPLED, [safe.max()])
    # Nor where nothing else would be safe.
    critic = FormulaCritic(lambda actions: np.where(actions[:, 0] > 0.3, score, logit(EPSILON) + 2.0 + actions[:, 0]))
    verdict = decided(proposal, critic, np.random.default_rng(1), bound=1.0, riskiest=True)
    assert (verdict.decision, verdict.safe) == (Decision.LEAST_RISK, 0)
    assert verdict.action.tolist() == [min(actions.min() for actions in critic.scored)]


def test_riskiest_passes_a_proposal_that_alone_is_safe_with_its_account():
    critic = critic_for(lambda actions: actions[:, 0] == 0.25)
    verdict = decided(Proposal(np.array([0.25]), 0.0), critic, np.random.default_rng(0), candidates=20, riskiest=True)
    assert (verdict.decision, verdict.action.tolist()) == (Decision.PASSED, [0.25])
    assert (verdict.scored, verdict.safe, verdict.reason) == (1 + 3 * 20, 1, "")
    assert verdict.q_action == verdict.q_proposal == pytest.approx(EPSILON, rel=0.02)
