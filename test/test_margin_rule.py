"""The shield with a critic of margins: the same decision, safe where Q_c < delta."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ssql_ros.bundle import Bundle, BundleError, Layer, Network
from ssql_ros.critic import SafetyCritic, shielding_critic
from ssql_ros.shield import Decision, Observation, Proposal, ShieldSettings, decide
from ssql_ros.tasks import find_task

CONTRACT = find_task("boat").contract()
SETTINGS = ShieldSettings(epsilon=0.5, max_observation_age=1.0, max_proposal_age=1.0)


class Margins:
    """Q_c = a function of the action; float32 as the served one's."""

    def __init__(self, delta, of):
        self.delta, self.of = delta, of

    def logits(self, observation, actions):
        return np.array([self.of(action) for action in actions], np.float32)


def judged(critic, action=(0.5, 0.0)):
    proposal = Proposal(np.array(action), 0.0)
    return decide(Observation(np.zeros(2), 0.0), proposal, critic, CONTRACT, SETTINGS, 0.0, np.random.default_rng(0))


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
        pass

    assert judged(Logits(None, lambda _: 0.0)).q_proposal == 0.5
    assert judged(Logits(None, lambda _: 0.0)).decision is Decision.PASSED
    assert judged(Logits(None, lambda _: 0.01)).decision is Decision.LEAST_RISK


def two_members(activation: str, rule: str) -> Bundle:
    rng = np.random.default_rng(0)

    def member() -> tuple[Layer, ...]:
        return tuple(
            Layer(rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[1]).astype(np.float32))
            for shape in ((4, 8), (8, 8), (8, 1))
        )

    network = Network(np.zeros(2), np.ones(2), 10.0, (member(), member()), activation)
    return Bundle(CONTRACT.id, 0.5, 0.9, network, rule=rule, delta=-0.2)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_served_margin_is_the_largest_of_the_ensemble_a_probability_the_mean(activation):
    bundle = two_members(activation, "margin")
    alone = [
        SafetyCritic(replace(bundle, critic=replace(bundle.critic, members=(member,))))
        for member in bundle.critic.members
    ]
    both, mean = SafetyCritic(bundle), SafetyCritic(replace(bundle, rule="probability"))
    assert both.delta == -0.2
    assert mean.delta is None
    actions = np.random.default_rng(1).uniform(-1, 1, (5, 2))
    for few in (actions, actions[:1]):  # onnxruntime, and NumPy
        scores = np.stack([critic.logits(np.ones(2), few).copy() for critic in alone])
        assert both.logits(np.ones(2), few) == pytest.approx(scores.max(axis=0), abs=1e-5)
        assert mean.logits(np.ones(2), few) == pytest.approx(scores.mean(axis=0), abs=1e-5)


def test_a_shield_refuses_a_bundle_of_which_nothing_is_certified():
    nothing = {"below": 0, "statement": "No threshold could be certified."}
    bundle = replace(two_members("relu", "margin"), certificate=nothing, delta=-1e9)
    with pytest.raises(BundleError, match=r"No threshold could be certified.*--states"):
        shielding_critic(bundle)
    # One that was never calibrated, or has a threshold, serves.
    for certificate in ({}, {"below": 3}):
        assert shielding_critic(replace(bundle, certificate=certificate)).delta == -1e9
