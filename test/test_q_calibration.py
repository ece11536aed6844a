"""Q against the return that it stands for: closed forms, and a spoiled Q that is found out."""

import math

import numpy as np
import pytest

from ssql_ros.behaviour.policy import UniformBox
from ssql_ros.bundle import Bundle, Layer, Network
from ssql_ros.learning.q_calibration import Rollout, q_figures, regularised_returns, roll_out
from ssql_ros.policy import InducedPolicy

LAMBDA, GAMMA, SLOPE, SAMPLES = 0.5, 0.8, 2.0, 64


class Slope:
    """Every step pays SLOPE times the action; nothing else happens."""

    def reset(self, seed):
        self.steps = 0
        return np.zeros(1), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1), SLOPE * float(action[0]), False, self.steps >= 80, {}


def linear_bundle(offset: float) -> Bundle:
    """Q(s, a) = SLOPE a + offset, exactly."""
    first = Layer(np.array([[0.0, 0.0], [1.0, -1.0]], np.float32), np.zeros(2, np.float32))
    last = Layer(np.array([[SLOPE], [-SLOPE]], np.float32), np.array([offset], np.float32))
    network = Network(np.zeros(1, np.float32), np.ones(1, np.float32), 10.0, ((first, last),))
    behaviour = UniformBox([-1.0], [1.0]).describe()
    return Bundle("none", 0.1, 0.7, None, reward=network, behaviour=behaviour)


def exact_value() -> float:
    """V of the bandit that goes on forever: (log-mean-exp of SLOPE a) / (1 - gamma)."""
    return LAMBDA * math.log(math.sinh(SLOPE / LAMBDA) / (SLOPE / LAMBDA)) / (1.0 - GAMMA)


@pytest.mark.parametrize("spoiled", [0.0, 1.5])
def test_an_exact_q_has_no_bias_and_a_spoiled_one_has_its_own(spoiled: float) -> None:
    bundle = linear_bundle(GAMMA * exact_value() + spoiled)
    rollouts, _ = roll_out(InducedPolicy(bundle, LAMBDA, SAMPLES), Slope(), 40, 0, show=False)
    pairs = [regularised_returns(rollout, GAMMA, LAMBDA) for rollout in rollouts]
    q = np.concatenate([r.q[whole] for r, (_, whole) in zip(rollouts, pairs, strict=True)])
    returns = np.concatenate([found[whole] for found, whole in pairs])
    figures = q_figures(q, returns)
    # V's estimate from M draws is low by little at this M, and so are the returns of the M-draw policy.
    assert figures["q_bias"] == pytest.approx(spoiled, abs=0.12)
    assert figures["q_rank"] > 0.3
    assert sum(size for _, _, size in figures["q_deciles"]) == figures["q_steps"] == len(q)


def test_the_first_steps_own_kl_is_not_in_its_return_and_a_cut_episode_counts_in_part() -> None:
    reward, kl = np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.2, 0.4])
    found, whole = regularised_returns(Rollout(np.zeros(3), reward, kl, ended=True), 0.5, 10.0)
    # From behind: 4; 2 + 0.5 (4 - 10 * 0.4) = 2; 1 + 0.5 (2 - 10 * 0.2) = 1.
    assert found.tolist() == [1.0, 2.0, 4.0]
    assert whole.all()
    _, whole = regularised_returns(Rollout(np.zeros(8), np.ones(8), np.zeros(8), ended=False), 0.5, 1.0)
    # 0.5^6 is less than 2 %, 0.5^5 is more.
    assert whole.tolist() == [True] * 3 + [False] * 5


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(ValueError, match="discounted rest"):
        q_figures(np.zeros(0), np.zeros(0))
