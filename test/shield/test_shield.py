"""The shield's decision: what passes, what replaces it, what holds the robot, and the account of each."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.model.critic import logit, sigmoid
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.decision import Decision, Observation, ShieldSettings, Verdict, decide
from support.toy_robot import FormulaCritic, toy_contract

CONTRACT = toy_contract(3, low=-2.0, high=1.0)
VECTOR = np.zeros(CONTRACT.observation_size)
FRESH = Observation(VECTOR, 0.0)
SETTINGS = ShieldSettings(epsilon=0.1, max_observation_age=0.04, max_proposal_age=0.04, candidates=20, rounds=3)
THRESHOLD = logit(0.1)
SAFE, UNSAFE = FormulaCritic(lambda a: np.full(len(a), -9.0)), FormulaCritic(lambda a: np.full(len(a), 9.0))


def judged(
    proposal: Proposal | None,
    critic: FormulaCritic,
    settings: ShieldSettings = SETTINGS,
    observation: Observation | None = FRESH,
    now: float = 0.0,
    seed: int = 0,
) -> Verdict:
    return decide(observation, proposal, critic, CONTRACT, settings, now, np.random.default_rng(seed))


def proposed(action=(0.0, 0.0, 0.0), **distribution) -> Proposal:
    return Proposal(np.array(action, float), 0.0, **{name: np.array(v, float) for name, v in distribution.items()})


class ScriptedCritic(FormulaCritic):
    """Scores drawn from a pool, whatever the action; remembers what it said of which."""

    def __init__(self, pool: list[float], seed: int):
        rng = np.random.default_rng(seed)
        super().__init__(lambda actions: rng.choice(np.array(pool, np.float32), len(actions)))
        self.said: list[tuple[np.ndarray, float]] = []

    def logits(self, observation, actions):
        scores = super().logits(observation, actions)
        self.said += [(action.copy(), float(score)) for action, score in zip(actions, scores, strict=True)]
        return scores


below, above = np.nextafter(np.float32(THRESHOLD), np.float32(-9)), np.nextafter(np.float32(THRESHOLD), np.float32(9))
never_safe = [math.nan, math.inf, -math.inf]
scores = st.one_of(st.sampled_from([*never_safe, THRESHOLD, float(below), float(above)]), st.floats(-30, 30, width=32))
any_action = st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3).map(np.array)


@settings(max_examples=400, deadline=None)
@given(st.lists(scores, min_size=1, max_size=6), any_action, st.integers(0, 2**32), st.booleans())
def test_every_decision_follows_from_the_scores(pool, action, seed, nearest):
    critic = ScriptedCritic(pool, seed)
    chosen = ShieldSettings(0.1, 0.04, 0.04, candidates=12, rounds=2, nearest=nearest)
    verdict = judged(Proposal(action, 0.0), critic, chosen, seed=seed)

    said = critic.said
    safe = [math.isfinite(score) and score <= THRESHOLD for _, score in said]
    finite = [score for _, score in said if math.isfinite(score)]
    assert np.isfinite(verdict.action).all()
    assert (verdict.action >= -2.0).all()
    assert (verdict.action <= 1.0).all()
    assert all((a >= -2.0).all() and (a <= 1.0).all() for a, _ in said), "an action outside the bounds was scored"
    assert said[0][0].tolist() == np.clip(action, -2.0, 1.0).tolist()
    first = said[0][1]
    assert verdict.q_proposal == sigmoid(first) if math.isfinite(first) else math.isnan(verdict.q_proposal)
    assert (verdict.scored, verdict.safe) == (len(said), sum(safe))
    if safe[0]:
        assert verdict.decision == Decision.PASSED
        assert verdict.action.tolist() == said[0][0].tolist()
        assert (verdict.scored, verdict.q_action) == (1, verdict.q_proposal)
    elif any(safe):
        assert verdict.decision == Decision.RESAMPLED
        replacement, score = said[safe.index(True)]
        assert verdict.action.tolist() == replacement.tolist()
        assert verdict.q_action == sigmoid(score) <= 0.1 + 1e-9
    elif finite:
        assert verdict.decision == Decision.LEAST_RISK
        assert verdict.scored == 1 + 2 * 12
        assert verdict.q_action == sigmoid(min(finite)) > 0.1
        assert any(a.tolist() == verdict.action.tolist() and score == min(finite) for a, score in said)
    else:
        assert verdict.decision == Decision.HELD
        assert verdict.action.tolist() == [0.25] * 3
        assert verdict.reason == "none of 25 scores of the critic is finite"
    # Safe by accident never: only these two may call themselves safe.
    assert (verdict.decision in (Decision.PASSED, Decision.RESAMPLED)) == any(safe)


@pytest.mark.parametrize("score", never_safe)
def test_score_that_is_not_finite_is_never_accepted(score):
    critic = FormulaCritic(lambda actions: np.full(len(actions), score))
    verdict = judged(proposed(), critic)
    assert verdict.decision == Decision.HELD
    assert math.isnan(verdict.q_proposal)
    # The proposal's alone: another candidate is taken, and the account says why.
    critic = FormulaCritic(lambda actions: np.full(len(actions), score if len(actions) == 1 else -9.0))
    verdict = judged(proposed(), critic)
    assert verdict.decision == Decision.RESAMPLED
    assert math.isnan(verdict.q_proposal)
    assert verdict.reason == f"the critic's score of the proposal is {score}"


def test_score_is_held_against_epsilon_unrounded():
    # As float32 the threshold may round up: the next number below it is safe, the next above is not.
    for epsilon in (0.02, 0.05, 0.1, 0.3, 0.7):
        threshold = logit(epsilon)
        for score in np.nextafter(np.float32(threshold), [np.float32(-99), np.float32(threshold), np.float32(99)]):
            critic = FormulaCritic(lambda actions, score=score: np.full(len(actions), score))
            verdict = judged(proposed(), critic, ShieldSettings(epsilon, 0.04, 0.04))
            assert (verdict.decision == Decision.PASSED) == (float(score) <= threshold)
            # Of a replacement too.
            critic = FormulaCritic(lambda actions, score=score: np.full(len(actions), score if len(actions) > 1 else 9))
            verdict = judged(proposed(), critic, ShieldSettings(epsilon, 0.04, 0.04))
            assert (verdict.decision == Decision.RESAMPLED) == (float(score) <= threshold)


def test_safe_proposal_passes_unchanged_and_unexplained():
    verdict = judged(proposed((0.3, -1.5, 1.0)), SAFE)
    assert (verdict.decision, verdict.action.tolist(), verdict.reason) == (Decision.PASSED, [0.3, -1.5, 1.0], "")
    assert (verdict.scored, verdict.safe, verdict.q_action) == (1, 1, sigmoid(-9.0))


def test_proposal_beyond_the_bounds_is_clipped_before_it_is_scored_and_says_so():
    critic = FormulaCritic(lambda actions: np.full(len(actions), -9.0))
    verdict = judged(proposed((5.0, -5.0, 0.0)), critic)
    assert (verdict.decision, verdict.reason) == (Decision.PASSED, "clipped to the action bounds")
    assert verdict.action.tolist() == critic.scored[0][0].tolist() == [1.0, -2.0, 0.0]
    verdict = judged(proposed((5.0, -5.0, 0.0)), UNSAFE)
    assert verdict.reason.startswith("clipped to the action bounds; q_safe 1 of the proposal is above epsilon 0.1; no")


@given(st.lists(st.floats(-2.0, 2.0), min_size=8, max_size=8).map(np.array))
def test_rounding_on_the_way_through_joint_positions_does_not_count_as_clipped(action):
    contract = load_contract(find_contract("minitaur"))
    saturated = contract.clip(action)
    returned = contract.action_of(contract.joint_command(saturated))
    observation = Observation(np.zeros(contract.observation_size), 0.0)
    verdict = decide(observation, Proposal(returned, 0.0), SAFE, contract, SETTINGS, 0.0, np.random.default_rng(0))
    assert (verdict.decision, verdict.reason) == (Decision.PASSED, "")
    np.testing.assert_allclose(verdict.action, saturated, rtol=0, atol=1e-13)


def test_least_risk_may_be_the_proposal_itself():
    critic = FormulaCritic(lambda actions: 5.0 + np.linalg.norm(actions, axis=1))
    verdict = judged(proposed(), critic)
    assert (verdict.decision, verdict.action.tolist(), verdict.q_action) == (Decision.LEAST_RISK, [0, 0, 0], sigmoid(5))
    assert verdict.reason == "q_safe 0.993 of the proposal is above epsilon 0.1; no safe one among 61 candidates"


def test_least_risk_is_kept_over_all_rounds():
    # Rounds spread wider and wider; the lowest score lies far out, so the last round mostly has it.
    critic = ScriptedCritic([1.0], 0)
    critic.formula = lambda actions: 5.0 + actions[:, 0]
    verdict = judged(proposed((0.5, 0.0, 0.0)), critic)
    best = min(critic.said, key=lambda said: said[1])
    assert verdict.decision == Decision.LEAST_RISK
    assert verdict.action.tolist() == best[0].tolist()
    assert verdict.q_action == sigmoid(best[1])


# What cannot be decided on

NAN, SHORT, LONG = [0.0, math.nan, 0.0], [0.0] * 2, [0.0] * 4
FAULTS = {
    "no observation": ({"observation": None}, "no observation yet"),
    "no proposal": ({"proposal": None}, "no proposal yet"),
    "nothing": ({"observation": None, "proposal": None}, "no observation yet"),
    "stale observation": (
        {"observation": Observation(VECTOR, -0.05), "now": 0.0},
        "observation is stale: 0.050 s old, limit 0.04 s",
    ),
    "stale proposal": (
        {"observation": Observation(VECTOR, 0.05), "now": 0.05},
        "proposal is stale: 0.050 s old, limit 0.04 s",
    ),
    "observation of no time": ({"observation": Observation(VECTOR, math.nan)}, "observation is stale: nan s old"),
    "proposal of no time": ({"proposal": Proposal(np.zeros(3), math.nan)}, "proposal is stale: nan s old"),
    "NaN observed": ({"observation": Observation(VECTOR * math.nan, 0.0)}, "observation is not finite"),
    "inf observed": ({"observation": Observation(VECTOR + math.inf, 0.0)}, "observation is not finite"),
    "short observation": ({"observation": Observation(VECTOR[:-1], 0.0)}, "observation has 22 values, expected 23"),
    "NaN proposed": ({"proposal": proposed(NAN)}, "proposal is not finite"),
    "inf proposed": ({"proposal": proposed((math.inf, 0, 0))}, "proposal is not finite"),
    "short proposal": ({"proposal": proposed(SHORT)}, "proposal has 2 values, expected 3"),
    "long proposal": ({"proposal": proposed(LONG)}, "proposal has 4 values, expected 3"),
    "empty proposal": ({"proposal": proposed(())}, "proposal has 0 values, expected 3"),
    "NaN mean": ({"proposal": proposed(mean=NAN)}, "proposal mean is not finite"),
    "short mean": ({"proposal": proposed(mean=SHORT)}, "proposal mean has 2 values, expected 3"),
    "NaN std": ({"proposal": proposed(std=NAN)}, "proposal std is not finite"),
    "inf std": ({"proposal": proposed(std=[math.inf] * 3)}, "proposal std is not finite"),
    "long std": ({"proposal": proposed(std=LONG)}, "proposal std has 4 values, expected 3"),
}


@pytest.mark.parametrize(("changes", "reason"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("critic", [SAFE, UNSAFE], ids=["safe", "unsafe"])
def test_safe_action_is_held_with_a_reason(changes, reason, critic):
    verdict = judged(**{"proposal": proposed(), "critic": critic, **changes})
    assert (verdict.decision, verdict.action.tolist()) == (Decision.HELD, [0.25] * 3)
    assert verdict.reason.startswith(reason)
    assert (verdict.scored, verdict.safe) == (0, 0)
    assert math.isnan(verdict.q_proposal)
    assert math.isnan(verdict.q_action)


def test_ages_at_the_limit_are_not_stale():
    assert judged(proposed(), SAFE, now=0.04).decision == Decision.PASSED
    assert judged(proposed(), SAFE, now=np.nextafter(0.04, 1.0)).decision == Decision.HELD


# Settings, repeatability, purity


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epsilon", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf]),
        ("candidates", [0, -1, math.nan]),
        ("rounds", [0, -1, math.nan]),
        ("growth", [0.99, 0.0, -1.0, math.nan, math.inf]),
        ("spread", [0.0, -0.1, math.nan, math.inf]),
        ("max_observation_age", [0.0, -1.0, math.nan, math.inf]),
        ("max_proposal_age", [0.0, -1.0, math.nan, math.inf]),
    ],
)
def test_setting_out_of_range_is_refused_by_name(name, values):
    fine = {"epsilon": 0.1, "max_observation_age": 0.04, "max_proposal_age": 0.04}
    for value in values:
        with pytest.raises(ValueError, match=rf"shield setting {name}: .* is out of range"):
            ShieldSettings(**{**fine, name: value})


def test_same_seed_gives_the_same_verdict_and_another_seed_another():
    critic = FormulaCritic(lambda actions: 20.0 * actions[:, 0])
    first, again, other = (judged(proposed(), critic, seed=seed) for seed in (1, 1, 2))
    assert first.decision == again.decision == other.decision == Decision.RESAMPLED
    assert first.action.tolist() == again.action.tolist() != other.action.tolist()
    assert (first.q_action, first.scored, first.safe) == (again.q_action, again.scored, again.safe)


def test_verdict_shares_no_memory_with_what_it_was_made_of():
    proposal, held = proposed((0.5, 0.5, 0.5)), judged(None, SAFE)
    for verdict in (judged(proposal, SAFE), judged(proposal, UNSAFE), held):
        verdict.action[:] = 9.0
    assert proposal.action.tolist() == [0.5] * 3
    assert CONTRACT.safe_action.tolist() == [0.25] * 3
    assert VECTOR.tolist() == [0.0] * 23
