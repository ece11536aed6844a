"""What masking by a safety critic promises, in MDPs small enough to be solved: the bounds, and where they end.

The numbers of the counterexamples are in their docstrings; gamma_safe is 0.7 and epsilon 0.1, the paper's (table 1).
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.finite_mdp import (
    FiniteMDP,
    NoFixedPoint,
    accumulated_bound,
    bellman,
    discounted_incident,
    incident_probability,
    masked,
    masked_fixed_point,
    q_safe,
)

GAMMA = 0.7
EPSILON = 0.1
TOLERANCE = 1e-9
CAUTIOUS, RISKY = 0, 1


def walkway(p: float) -> FiniteMDP:
    """State 0, in which CAUTIOUS stays for sure and RISKY has an incident (state 1) with probability p."""
    transitions = np.zeros((2, 2, 2))
    transitions[0, CAUTIOUS] = [1.0, 0.0]
    transitions[0, RISKY] = [1.0 - p, p]
    transitions[1, :, 1] = 1.0
    return FiniteMDP(transitions, np.array([False, True]))


def taking(risky: float, n_states: int = 2) -> np.ndarray:
    """The policy that takes RISKY with this probability in every state."""
    return np.tile([1.0 - risky, risky], (n_states, 1))


def walkway_value(p: float, risky: float) -> float:
    """V_safe of taking(risky) in walkway(p): a geometric series of the hazard p * risky of each step."""
    hazard = p * risky
    return hazard / (1.0 - GAMMA * (1.0 - hazard))


# Closed forms


def test_q_safe_of_the_walkway_is_the_geometric_series():
    q = q_safe(walkway(0.3), taking(0.5), GAMMA)
    value = walkway_value(0.3, 0.5)
    assert q[0] == pytest.approx([GAMMA * value, 0.3 + 0.7 * GAMMA * value], abs=1e-14)
    assert q[1] == pytest.approx([1.0, 1.0])
    assert discounted_incident(walkway(0.3), taking(0.5), GAMMA) == pytest.approx([value, 1.0], abs=1e-14)


def test_a_certain_incident_n_steps_away_weighs_gamma_safe_to_the_n_minus_1():
    n = 5
    mdp = FiniteMDP(np.eye(n + 1)[[*range(1, n + 1), n]][:, np.newaxis], np.arange(n + 1) == n)
    q = q_safe(mdp, np.ones((n + 1, 1)), GAMMA)[:, 0]
    assert q[:-1] == pytest.approx(GAMMA ** np.arange(n - 1, -1, -1))


def test_next_to_an_incident_the_house_says_1_and_eq_2_says_gamma_safe():
    assert q_safe(walkway(1.0), taking(1.0), GAMMA)[0, RISKY] == pytest.approx(1.0)
    # Eq. 2 written out: sum over t' > t of gamma_safe^(t'-t) Pr(I(s_t') = 1).
    assert GAMMA * q_safe(walkway(0.3), taking(1.0), GAMMA)[0, RISKY] == pytest.approx(
        sum(GAMMA**n * 0.3 * 0.7 ** (n - 1) for n in range(1, 200))
    )


def test_incident_probability_within_n_steps_and_ever():
    assert incident_probability(walkway(0.2), taking(0.5), 0) == pytest.approx([0.0, 1.0])
    assert incident_probability(walkway(0.2), taking(0.5), 7) == pytest.approx([1.0 - 0.9**7, 1.0])
    assert incident_probability(walkway(0.2), taking(0.5)) == pytest.approx([1.0, 1.0])
    assert incident_probability(walkway(0.2), taking(0.0)) == pytest.approx([0.0, 1.0])
    # However small the probability is: 1 - 1e-17 rounds to 1.
    assert incident_probability(walkway(1e-17), taking(1.0)) == pytest.approx([1.0, 1.0])
    # One step that ends in an incident with 0.3, else in safety for ever.
    transitions = np.zeros((3, 1, 3))
    transitions[0, 0] = [0.0, 0.7, 0.3]
    transitions[1, 0, 1] = transitions[2, 0, 2] = 1.0
    mdp = FiniteMDP(transitions, np.array([False, False, True]))
    assert incident_probability(mdp, np.ones((3, 1))) == pytest.approx([0.3, 0.0, 1.0])
    # The gambler's ruin: from i of 5, fair, ruin has probability 1 - i / 5.
    walk = 0.5 * (np.eye(6, k=1) + np.eye(6, k=-1))
    walk[5] = np.eye(6)[5]
    walk[0] = np.eye(6)[0]
    mdp = FiniteMDP(walk[:, np.newaxis], np.arange(6) == 0)
    assert incident_probability(mdp, np.ones((6, 1))) == pytest.approx(1.0 - np.arange(6) / 5.0)


def test_masked_is_eq_3():
    policy = np.array([[0.2, 0.3, 0.5]] * 4 + [[0.0, 0.0, 1.0]])
    q = np.array(
        [
            [0.05, 0.1, 0.2],  # at the threshold: kept
            [0.2, np.nan, 0.0],  # a score that is not a number: not kept
            [0.3, 0.2, 0.4],  # none kept: the least
            [-np.inf, 0.2, np.nan],  # the least of the finite ones
            [0.05, 0.01, 0.2],  # kept, but without probability: the least
        ]
    )
    assert masked(policy, q, 0.1) == pytest.approx(
        np.array([[0.4, 0.6, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    )


def test_masked_renormalises_the_smallest_probabilities():
    tiny = np.array([[5e-324, 1.0 - 5e-324]])
    assert masked(tiny, np.array([[0.0, 1.0]]), 0.1).tolist() == [[1.0, 0.0]]


# What is refused

GOOD = walkway(0.3)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shape", {"transitions": np.ones((2, 2, 3)) / 3}),
        ("shape", {"transitions": np.ones((0, 2, 0))}),
        ("sum to 1", {"transitions": GOOD.transitions * 0.9}),
        ("finite", {"transitions": np.full((2, 2, 2), np.nan)}),
        ("at least 0", {"transitions": np.tile([1.5, -0.5], (2, 2, 1))}),
        ("incident", {"incident": np.array([False, True, True])}),
        ("incident", {"incident": np.array([0.0, 1.0])}),
        ("reward", {"reward": np.zeros((2, 3))}),
        ("reward", {"reward": np.array([[0.0, np.inf], [0.0, 0.0]])}),
        ("gamma", {"gamma": 1.5}),
        ("gamma", {"gamma": math.nan}),
    ],
)
def test_an_mdp_that_is_none_is_refused(name, change):
    with pytest.raises(ValueError, match=name):
        FiniteMDP(**({"transitions": GOOD.transitions, "incident": GOOD.incident} | change))


@pytest.mark.parametrize(
    "call",
    [
        lambda: q_safe(GOOD, taking(0.5), 1.0),
        lambda: q_safe(GOOD, taking(0.5, 3), GAMMA),
        lambda: q_safe(GOOD, taking(0.5) * 0.5, GAMMA),
        lambda: bellman(GOOD, taking(0.5), GAMMA, np.zeros((2, 3))),
        lambda: bellman(GOOD, taking(0.5), GAMMA, np.full((2, 2), np.nan)),
        lambda: incident_probability(GOOD, taking(0.5), -1),
        lambda: masked(taking(0.5), np.zeros((2, 3)), EPSILON),
        lambda: masked(taking(0.5), np.zeros((2, 2)), 0.0),
        lambda: masked(taking(0.5), np.zeros((2, 2)), math.nan),
        lambda: masked(taking(0.5), np.full((2, 2), np.nan), EPSILON),
        lambda: masked(taking(0.5) * 0.5, np.zeros((2, 2)), EPSILON),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ValueError, match=r"expected|no finite score"):
        call()


# What holds, in random MDPs


@dataclass(frozen=True)
class Case:
    mdp: FiniteMDP
    base: np.ndarray
    other: np.ndarray
    gamma_safe: float
    epsilon: float
    rng: np.random.Generator


def random_policy(rng: np.random.Generator, n_states: int, n_actions: int) -> np.ndarray:
    """From near deterministic to near uniform, some rows without full support."""
    policy = rng.dirichlet(np.full(n_actions, rng.choice([0.2, 1.0, 10.0])), n_states)
    certain = np.eye(n_actions)[rng.integers(n_actions, size=n_states)]
    return np.where(rng.random((n_states, 1)) < 0.3, certain, policy)


def mixed_rows(rng: np.random.Generator, n_states: int, n_actions: int) -> np.ndarray:
    return rng.dirichlet(np.full(n_states, rng.choice([0.1, 1.0])), (n_states, n_actions))


@st.composite
def cases(draw: st.DrawFn, hazards: str = "any") -> Case:
    """Random MDPs.

    "any": no assumption at all.
    "small": action 0 never has an incident at the next step, the others have with up to 1.5 epsilon, and `base` is so
    close to action 0 that Q_base(s, 0) <= epsilon in every safe state.
    "assumption 2": the same, but those probabilities are 0 or above epsilon.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_states, n_actions = draw(st.integers(2, 7)), draw(st.integers(1 if hazards == "any" else 2, 4))
    gamma_safe, epsilon = draw(st.sampled_from([0.0, 0.3, 0.7, 0.95, 0.99])), draw(st.sampled_from([0.02, 0.1, 0.4]))
    transitions, incident = mixed_rows(rng, n_states, n_actions), rng.random(n_states) < 0.3
    base, other = (random_policy(rng, n_states, n_actions) for _ in range(2))
    if hazards != "any":
        incident = np.arange(n_states) == n_states - 1
        if hazards == "small":
            hazard = rng.uniform(0.0, 1.5 * epsilon, (n_states, n_actions))
        else:
            risky = rng.random((n_states, n_actions)) < 0.5
            hazard = np.where(risky, rng.uniform(epsilon + 0.01, 1.0, risky.shape), 0.0)
        hazard[:, 0] = 0.0
        safe = mixed_rows(rng, n_states - 1, n_actions)
        safe = np.concatenate([safe, safe[:1]])  # the row of the incident state is never used
        transitions = np.concatenate([safe * (1.0 - hazard[..., np.newaxis]), hazard[..., np.newaxis]], axis=2)
        # It risks `share` a step at most, so V_base <= share / (1 - gamma_safe) = epsilon.
        share = epsilon * (1.0 - gamma_safe)
        base = share * base + (1.0 - share) * np.eye(n_actions)[0]
    return Case(FiniteMDP(transitions, incident), base, other, gamma_safe, epsilon, rng)


def judged(case: Case, q: np.ndarray) -> np.ndarray:
    """The safe states (S,) in which some action has q <= epsilon."""
    return ~case.mdp.incident & (q <= case.epsilon).any(axis=1)


def assert_bound(case: Case, mask: np.ndarray, q: np.ndarray) -> None:
    """Where some action has q <= epsilon: every action taken has Q <= epsilon, under the mask itself, and so has V."""
    states = judged(case, q)
    own = q_safe(case.mdp, mask, case.gamma_safe)
    assert (own[states][mask[states] > 0.0] <= case.epsilon + TOLERANCE).all()
    assert (discounted_incident(case.mdp, mask, case.gamma_safe)[states] <= case.epsilon + TOLERANCE).all()


def riskiest_q(mdp: FiniteMDP, gamma_safe: float) -> np.ndarray:
    """Q_safe (S, A) of the riskiest policy, by policy iteration."""
    policy = np.eye(mdp.transitions.shape[1])[np.zeros(len(mdp.incident), int)]
    for _ in range(100):
        q = q_safe(mdp, policy, gamma_safe)
        better = q.max(axis=1) > (policy * q).sum(axis=1) + 1e-12
        if not better.any():
            return q
        policy = np.where(better[:, np.newaxis], np.eye(q.shape[1])[q.argmax(axis=1)], policy)
    raise AssertionError("policy iteration did not end")


@given(cases())
@settings(deadline=None)
def test_q_safe_solves_its_equation_and_is_a_discounted_probability(case):
    q = q_safe(case.mdp, case.base, case.gamma_safe)
    assert q == pytest.approx(bellman(case.mdp, case.base, case.gamma_safe, q), abs=TOLERANCE)
    assert ((q >= -TOLERANCE) & (q <= 1.0 + TOLERANCE)).all()


@given(cases())
@settings(deadline=None)
def test_v_safe_is_the_discounted_sum_over_the_time_of_the_first_incident(case):
    within = np.array([incident_probability(case.mdp, case.base, n) for n in range(61)])
    value = discounted_incident(case.mdp, case.base, case.gamma_safe)
    terms = case.gamma_safe ** np.arange(60.0)[:, np.newaxis] * np.diff(within, axis=0)
    gap = value - within[0] - terms.sum(axis=0)
    assert (gap >= -TOLERANCE).all()
    assert (gap <= case.gamma_safe**60 + TOLERANCE).all()
    ever = incident_probability(case.mdp, case.base)
    assert (within[-1] <= ever + TOLERANCE).all()
    assert (ever <= 1.0 + TOLERANCE).all()


@given(cases())
@settings(deadline=None)
def test_a_masked_policy_is_a_policy_without_probability_on_masked_actions(case):
    q = q_safe(case.mdp, case.base, case.gamma_safe)
    q[case.rng.random(q.shape) < 0.1] = np.nan
    q[:, 0] = np.nan_to_num(q[:, 0], nan=1.0)  # a finite score in every state
    mask = masked(case.other, q, case.epsilon)
    assert np.isfinite(mask).all()
    assert mask.sum(axis=1) == pytest.approx(np.ones(len(mask)))
    kept = q <= case.epsilon
    supported = (kept & (case.other > 0.0)).any(axis=1)
    assert (mask[kept.any(axis=1)][~kept[kept.any(axis=1)]] == 0.0).all()
    # The kept ones stay in the proportion of the policy.
    proportion = mask * np.where(kept, case.other, 0.0).sum(axis=1, keepdims=True)
    assert proportion[supported] == pytest.approx(np.where(kept, case.other, 0.0)[supported])
    assert (mask[~supported].max(axis=1) == 1.0).all()
    assert (q[~supported][mask[~supported] == 1.0] == np.nanmin(q[~supported], axis=1)).all()


@given(cases())
@settings(deadline=None)
def test_masking_a_policy_by_its_own_exact_q_bounds_its_risk_and_never_raises_it(case):
    q = q_safe(case.mdp, case.base, case.gamma_safe)
    mask = masked(case.base, q, case.epsilon)
    assert (q_safe(case.mdp, mask, case.gamma_safe) <= q + TOLERANCE).all()
    assert_bound(case, mask, q)


@given(cases(), st.floats(0.0, 0.5))
@settings(deadline=None)
def test_a_critic_too_high_by_a_constant_keeps_the_bound(case, excess):
    q = q_safe(case.mdp, case.base, case.gamma_safe) + excess
    assert_bound(case, masked(case.base, q, case.epsilon), q)


@given(cases(), st.floats(0.0, 0.3))
@settings(deadline=None)
def test_a_critic_no_lower_than_its_own_bellman_target_bounds_any_policy(case, excess):
    # The riskiest policy's q plus anything in [gamma_safe, 1] * excess is such a critic, in any order of the actions.
    riskiest = riskiest_q(case.mdp, case.gamma_safe)
    q = riskiest + excess * case.rng.uniform(case.gamma_safe, 1.0, riskiest.shape)
    mask = masked(case.other, q, case.epsilon)
    assert (bellman(case.mdp, mask, case.gamma_safe, q) <= q + TOLERANCE).all()
    assert (q_safe(case.mdp, mask, case.gamma_safe) <= q + TOLERANCE).all()
    assert_bound(case, mask, q)


@given(cases())
@settings(deadline=None)
def test_another_policy_is_bounded_where_its_mean_q_is_no_higher_than_the_base_policys(case):
    # `other` where its masked mean is no higher, the masked base elsewhere.
    q = q_safe(case.mdp, case.base, case.gamma_safe)
    mask = masked(case.other, q, case.epsilon)
    worse = (mask * q).sum(axis=1) > (case.base * q).sum(axis=1)
    mask[worse] = masked(case.base, q, case.epsilon)[worse]
    assert_bound(case, mask, q)


@given(cases(), st.booleans())
@settings(deadline=None)
def test_a_fixed_point_of_the_mask_is_bounded_by_its_own_q(case, from_zero):
    start = np.zeros_like(case.base) if from_zero else q_safe(case.mdp, case.base, case.gamma_safe)
    try:
        mask, q = masked_fixed_point(case.mdp, case.base, case.gamma_safe, case.epsilon, start)
    except NoFixedPoint:
        return  # there may be none
    assert (masked(case.base, q, case.epsilon) == mask).all()
    assert (q == q_safe(case.mdp, mask, case.gamma_safe)).all()
    assert_bound(case, mask, q)


@given(cases("small"))
@settings(deadline=None)
def test_any_policy_masked_by_anothers_exact_q_risks_epsilon_a_step(case):
    q = q_safe(case.mdp, case.base, case.gamma_safe)
    assert judged(case, q)[:-1].all()
    mask = masked(case.other, q, case.epsilon)
    value = discounted_incident(case.mdp, mask, case.gamma_safe)[:-1]
    assert (value <= accumulated_bound(case.epsilon, case.gamma_safe) + TOLERANCE).all()
    for n in (1, 5, 50):
        within = incident_probability(case.mdp, mask, n)[:-1]
        assert (within <= 1.0 - (1.0 - case.epsilon) ** n + TOLERANCE).all()


@given(cases("assumption 2"))
@settings(deadline=None)
def test_with_assumption_2_and_a_safe_action_everywhere_any_masked_policy_never_has_an_incident(case):
    q = q_safe(case.mdp, case.base, case.gamma_safe)
    assert judged(case, q)[:-1].all()
    assert (incident_probability(case.mdp, masked(case.other, q, case.epsilon))[:-1] == 0.0).all()


@given(cases(), st.integers(1, 20))
@settings(deadline=None)
def test_v_safe_bounds_the_probability_within_n_steps_by_v_over_gamma_safe_to_the_n_minus_1(case, n):
    safe = ~case.mdp.incident
    value = discounted_incident(case.mdp, case.base, case.gamma_safe)[safe]
    within = incident_probability(case.mdp, case.base, n)[safe]
    assert (within * case.gamma_safe ** (n - 1) <= value + TOLERANCE).all()


# Where the bound ends: one broken assumption each


def test_assumption_1_broken_by_a_critic_that_is_too_low():
    """Incident probability 0.3, taken half of the time: V = 0.370. A critic at a fifth of Q lets all of it through."""
    mdp, policy = walkway(0.3), taking(0.5)
    q = q_safe(mdp, policy, GAMMA)
    assert q[0] == pytest.approx([0.2593, 0.4815], abs=1e-4)
    assert discounted_incident(mdp, masked(policy, q, EPSILON), GAMMA)[0] == 0.0
    too_low = masked(policy, q / 5.0, EPSILON)
    assert (too_low == policy)[0].all()
    assert discounted_incident(mdp, too_low, GAMMA)[0] == pytest.approx(0.3704, abs=1e-4)


def test_assumption_1_broken_by_a_critic_that_is_nowhere_too_low_but_favours_the_riskier_action():
    """Q = (0.004, 0.094); the critic says (0.2, 0.094), removes CAUTIOUS, and V rises from 0.006 to 0.248."""
    mdp, policy = walkway(0.09), taking(0.02)
    q = q_safe(mdp, policy, GAMMA)
    assert q[0] == pytest.approx([0.0042, 0.0938], abs=1e-4)
    too_high = q.copy()
    too_high[0, CAUTIOUS] = 0.2
    mask = masked(policy, too_high, EPSILON)
    assert discounted_incident(mdp, policy, GAMMA)[0] == pytest.approx(0.0060, abs=1e-4)
    assert discounted_incident(mdp, mask, GAMMA)[0] == pytest.approx(0.2479, abs=1e-4)


def test_assumption_3_broken_by_a_target_task_with_other_transitions():
    """Learned at 0.02 a step, where both actions are kept; the target's 0.4 a step gives V = 0.455."""
    policy = taking(0.5)
    q = q_safe(walkway(0.02), policy, GAMMA)
    assert q[0] == pytest.approx([0.0228, 0.0423], abs=1e-4)
    mask = masked(policy, q, EPSILON)
    assert discounted_incident(walkway(0.02), mask, GAMMA)[0] == pytest.approx(0.0326, abs=1e-4)
    assert discounted_incident(walkway(0.4), mask, GAMMA)[0] == pytest.approx(0.4545, abs=1e-4)


def test_assumption_3_broken_by_a_state_that_the_data_does_not_hold():
    """Exact on all that pre-training saw, and 0.02, a network's prior, behind a door it never took: V = 0.464."""
    transitions = np.zeros((3, 2, 3))
    transitions[0, CAUTIOUS, 0] = 1.0
    transitions[0, RISKY, 1] = 1.0  # the door
    transitions[1] = [0.5, 0.0, 0.5]
    transitions[2, :, 2] = 1.0
    mdp = FiniteMDP(transitions, np.array([False, False, True]))
    q = q_safe(mdp, taking(0.0, 3), GAMMA)
    assert q[0, RISKY] == pytest.approx(GAMMA * 0.5)
    q[0, RISKY] = q[1] = 0.02
    mask = masked(taking(1.0, 3), q, EPSILON)
    assert discounted_incident(mdp, mask, GAMMA)[0] == pytest.approx(0.4636, abs=1e-4)


def trap(fall: float) -> FiniteMDP:
    """State 0: CAUTIOUS stays, RISKY ends in state 1 with probability `fall`, where 99 of 100 end in 2, an incident.

    Fulfils assumption 2 (0.99 > epsilon) and 4 (state 1 reaches state 0 with probability 0.01).
    """
    transitions = np.zeros((3, 2, 3))
    transitions[0, CAUTIOUS, 0] = 1.0
    transitions[0, RISKY] = [1.0 - fall, fall, 0.0]
    transitions[1] = [0.01, 0.0, 0.99]
    transitions[2, :, 2] = 1.0
    return FiniteMDP(transitions, np.array([False, False, True]))


def test_assumption_4_is_fulfilled_by_a_state_without_any_safe_action():
    """In the trap every action has Q > 0.99, so V there is above epsilon, though the critic is exact and its own."""
    mdp, policy = trap(0.135), taking(0.02, 3)
    mask, q = masked_fixed_point(mdp, policy, GAMMA, EPSILON, q_safe(mdp, policy, GAMMA))
    assert q[1].min() > 0.99
    value = discounted_incident(mdp, mask, GAMMA)
    assert value[0] <= EPSILON
    assert value[1] > 0.99


# Theorem 1 says: all policies masked by the one critic. All of its assumptions hold in the next two tests.


def test_theorem_1_fails_for_another_policy_masked_by_the_critic_of_the_masked_policy():
    """The critic is exact and made for pi-bar, and yet the masked fine-tuned policy has V = 0.238.

    pi-bar takes RISKY twice in a hundred: Q(RISKY) = 0.097 counts on CAUTIOUS after it. A fine-tuned policy that
    always takes RISKY meets that risk at each step. In the paper's units (eq. 7): 0.166, above 0.1 again. In state 1
    no action is safe; eq. 5 would divide by 0 there, and assumptions 3 and 4 do not exclude it.
    """
    mdp, pre_trained, fine_tuned = trap(0.135), taking(0.02, 3), taking(1.0, 3)
    pi_bar, q = masked_fixed_point(mdp, pre_trained, GAMMA, EPSILON, q_safe(mdp, pre_trained, GAMMA))
    assert (pi_bar == pre_trained)[0].all()
    assert discounted_incident(mdp, pi_bar, GAMMA)[0] == pytest.approx(0.0062, abs=1e-4)
    assert q[0, RISKY] == pytest.approx(0.0973, abs=1e-4)
    value = discounted_incident(mdp, masked(fine_tuned, q, EPSILON), GAMMA)[0]
    assert value == pytest.approx(0.2375, abs=1e-4)
    assert pytest.approx(0.1663, abs=1e-4) == GAMMA * value


def test_theorem_1_fails_in_the_papers_own_units_with_a_safe_action_everywhere():
    """An incident probability of 0.12 > epsilon fulfils assumption 2, but eq. 2 scores it 0.087 and keeps it: 0.219.

    It would take P > epsilon / gamma_safe to be removed.
    """
    mdp, pre_trained, fine_tuned = walkway(0.12), taking(0.02), taking(1.0)
    q = GAMMA * q_safe(mdp, pre_trained, GAMMA)[:1]
    assert q[0] == pytest.approx([0.0039, 0.0874], abs=1e-4)
    # The mask removes nothing, so the pre-trained policy is its own masked policy, and q is its critic.
    assert (masked(pre_trained[:1], q, EPSILON) == pre_trained[:1]).all()
    mask = np.concatenate([masked(fine_tuned[:1], q, EPSILON), fine_tuned[1:]])
    assert GAMMA * discounted_incident(mdp, mask, GAMMA)[0] == pytest.approx(0.2188, abs=1e-4)


def test_without_assumption_2_the_critic_of_the_safest_policy_admits_the_most_and_attains_the_accumulated_bound():
    """Q of always CAUTIOUS: RISKY scores epsilon and is kept. Always RISKY: V = 0.270; 0.917 at gamma_safe 0.99."""
    mdp = walkway(EPSILON)
    for gamma_safe, expected in ((GAMMA, 0.2703), (0.99, 0.9174)):
        q = q_safe(mdp, taking(0.0), gamma_safe)
        assert q[0].tolist() == [0.0, EPSILON]
        value = discounted_incident(mdp, masked(taking(1.0), q, EPSILON), gamma_safe)[0]
        assert value == pytest.approx(accumulated_bound(EPSILON, gamma_safe))
        assert value == pytest.approx(expected, abs=1e-4)


def test_the_paper_s_masked_critic_need_not_exist():
    """RISKY scores 0.09 while removed and 0.176 while kept: no mask at 0.1 agrees with its own Q."""
    mdp, policy = walkway(0.09), taking(0.5)
    removed, kept = q_safe(mdp, taking(0.0), GAMMA), q_safe(mdp, policy, GAMMA)
    assert removed[0] == pytest.approx([0.0, 0.09])
    assert kept[0] == pytest.approx([0.0950, 0.1764], abs=1e-4)
    # CAUTIOUS is kept under either, so these two masks are all there are.
    for start in (removed, kept):
        with pytest.raises(NoFixedPoint, match="cycles with period 2"):
            masked_fixed_point(mdp, policy, GAMMA, EPSILON, start)
    with pytest.raises(NoFixedPoint, match="within 1 iterations"):
        masked_fixed_point(mdp, policy, GAMMA, EPSILON, removed, limit=1)
    # Masked by the Q of the bare policy it is safe (appendix D).
    assert discounted_incident(mdp, masked(policy, kept, EPSILON), GAMMA)[0] == 0.0


def test_a_discounted_bound_says_little_of_a_long_episode():
    """Masked by its own exact Q = 0.064; yet of episodes of 500 steps, the Minitaur's, 0.99996 have an incident."""
    mdp, policy = walkway(0.02), taking(1.0)
    q = q_safe(mdp, policy, GAMMA)
    # CAUTIOUS is kept too, but the policy never takes it.
    mask = masked(policy, q, EPSILON)
    assert discounted_incident(mdp, mask, GAMMA)[0] == pytest.approx(0.0637, abs=1e-4)
    assert incident_probability(mdp, mask, 500)[0] == pytest.approx(1.0 - 0.98**500)
    assert incident_probability(mdp, mask)[0] == pytest.approx(1.0)
