"""The shield with a critic of margins: the same decision, safe where Q_c < delta."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ssql_ros.model.bundle import Bundle, BundleError, Layer, MarginCritic, Network, ProbabilityCritic, Rule
from ssql_ros.model.critic import SafetyCritic, shielding_critic
from ssql_ros.model.proposal import Proposal
from ssql_ros.robots.tasks import find_task
from ssql_ros.shield.decision import Decision, Observation, ShieldSettings, decide

CONTRACT = find_task("boat").contract()
AGES = {"max_observation_age": 1.0, "max_proposal_age": 1.0}


class Margins:
    """Q_c = a function of the action; float32 as the served one's."""

    rule = Rule.MARGIN

    def __init__(self, delta, of):
        self.settings, self.of = ShieldSettings(None, delta=delta, **AGES), of

    def logits(self, observation, actions):
        return np.array([self.of(action) for action in actions], np.float32)


def judged(critic, action=(0.5, 0.0)):
    proposal = Proposal(np.array(action), 0.0)
    seen, rng = Observation(np.zeros(2), 0.0), np.random.default_rng(0)
    return decide(seen, proposal, critic, CONTRACT, critic.settings, 0.0, rng)


@pytest.mark.parametrize(
    ("margin", "delta", "passes"),
    [
        (-0.1, 0.0, True),
        (0.0, 0.0, False),  # delta itself is not below delta
        (-0.25, -0.25, False),
        (np.nextafter(np.float32(-0.25), np.float32(-1.0)), -0.25, True),
        (math.nan, 0.0, False),
        (-math.inf, 0.0, False),
        (math.inf, 0.0, False),
        (-1e30, 0.0, True),
    ],
)
def test_accepts_only_finite_margins_below_delta(margin, delta, passes):
    assert (judged(Margins(delta, lambda _: margin)).decision is Decision.PASSED) == passes


def test_account_carries_the_margin_and_says_so():
    verdict = judged(Margins(-0.05, lambda action: 0.1 - 0.4 * abs(action[1])))
    assert verdict.decision is Decision.RESAMPLED
    assert verdict.q_proposal == pytest.approx(0.1)
    assert verdict.q_action < -0.05
    assert "margin 0.1 of the proposal is not below delta -0.05" in verdict.reason
    least = judged(Margins(-5.0, lambda action: float(action[0])))
    assert least.decision is Decision.LEAST_RISK
    assert least.q_action == pytest.approx(float(least.action[0]))
    assert least.q_action < -0.5


def test_critic_of_probabilities_is_judged_as_before():
    class Logits(Margins):
        rule = Rule.PROBABILITY

        def __init__(self, of):
            self.settings, self.of = ShieldSettings(0.5, **AGES), of

    assert judged(Logits(lambda _: 0.0)).q_proposal == 0.5
    assert judged(Logits(lambda _: 0.0)).decision is Decision.PASSED
    assert judged(Logits(lambda _: 0.01)).decision is Decision.LEAST_RISK


def test_scores_are_never_held_against_the_threshold_of_the_other_rule():
    critic = Margins(0.0, lambda _: -1.0)
    critic.settings = ShieldSettings(0.5, **AGES)
    with pytest.raises(ValueError, match="critic of rule MARGIN, but the threshold is of PROBABILITY"):
        judged(critic)
    for epsilon, delta in ((None, None), (0.5, 0.0)):
        with pytest.raises(ValueError, match="expected epsilon or delta"):
            ShieldSettings(epsilon, delta=delta, **AGES)


def two_members(activation: str, kind: type = MarginCritic, **rule: object) -> Bundle:
    rng = np.random.default_rng(0)

    def member() -> tuple[Layer, ...]:
        return tuple(
            Layer(rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[1]).astype(np.float32))
            for shape in ((4, 8), (8, 8), (8, 1))
        )

    network = Network(np.zeros(2), np.ones(2), 10.0, (member(), member()), activation)
    rule = rule or {"delta": -0.2, "gamma_safe": 0.9}
    return Bundle(CONTRACT.id, kind.of(network, **rule))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_served_margin_is_the_largest_of_the_ensemble_a_probability_the_mean(activation):
    bundle = two_members(activation)
    alone = [
        SafetyCritic(replace(bundle, critic=replace(bundle.critic, members=(member,))))
        for member in bundle.critic.members
    ]
    both, mean = (
        SafetyCritic(bundle),
        SafetyCritic(two_members(activation, ProbabilityCritic, epsilon=0.5, gamma_safe=0.9)),
    )
    assert (both.rule, mean.rule) == (Rule.MARGIN, Rule.PROBABILITY)
    actions = np.random.default_rng(1).uniform(-1, 1, (5, 2))
    for few in (actions, actions[:1]):  # onnxruntime, and NumPy
        scores = np.stack([critic.logits(np.ones(2), few).copy() for critic in alone])
        assert both.logits(np.ones(2), few) == pytest.approx(scores.max(axis=0), abs=1e-5)
        assert mean.logits(np.ones(2), few) == pytest.approx(scores.mean(axis=0), abs=1e-5)


def test_a_shield_refuses_a_bundle_of_which_nothing_is_certified():
    nothing = {"below": 0, "delta": None, "statement": "No threshold could be certified."}
    bundle = two_members("relu", delta=None, gamma_safe=0.9, certificate=nothing)
    with pytest.raises(BundleError, match=r"No threshold could be certified.*--states"):
        shielding_critic(bundle)
    # One that was never calibrated, or has a threshold, serves.
    for certificate in ({}, {"below": 3, "delta": -0.1}):
        served = two_members("relu", delta=-0.2, gamma_safe=0.9, certificate=certificate)
        assert shielding_critic(served).rule is Rule.MARGIN
        assert served.critic.certified == bool(certificate)


@pytest.mark.parametrize("promised", [-0.3, None, math.nan, -math.inf, "0", True])
def test_delta_looser_than_its_certificate_is_no_margin_critic(promised):
    with pytest.raises(ValueError, match="delta: expected at most"):
        two_members("relu", delta=-0.2, gamma_safe=0.9, certificate={"below": 3, "delta": promised})


@pytest.mark.parametrize(("name", "value"), [("delta", math.nan), ("delta", math.inf), ("gamma_safe", 1.0)])
def test_margin_critic_has_finite_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        two_members("relu", **{"delta": -0.2, "gamma_safe": 0.9, name: value})
