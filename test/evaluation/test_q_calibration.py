"""Q against the return that it stands for: closed forms, and a spoiled Q that is found out."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ssql_ros.behaviour.policy import UniformBox
from ssql_ros.evaluation.judged_policies import JudgedEpisode, JudgedGaussian, JudgedInduced, roll_out
from ssql_ros.evaluation.q_calibration import compared, has_objective, q_figures, regularised_returns, value_bias
from ssql_ros.model.bundle import Bundle, Layer, Network
from ssql_ros.model.policy import InducedPolicy

LAMBDA, GAMMA, SLOPE, SAMPLES = 0.5, 0.8, 2.0, 64


class Slope:
    """Every step pays SLOPE times the action; nothing else happens."""

    def reset(self, seed):
        self.steps = 0
        return np.zeros(1), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1), SLOPE * float(action[0]), False, self.steps >= 80, {"incident": False}


def linear_bundle(offset: float) -> Bundle:
    """Q(s, a) = SLOPE a + offset, exactly."""
    first = Layer(np.array([[0.0, 0.0], [1.0, -1.0]], np.float32), np.zeros(2, np.float32))
    last = Layer(np.array([[SLOPE], [-SLOPE]], np.float32), np.array([offset], np.float32))
    network = Network(np.zeros(1, np.float32), np.ones(1, np.float32), 10.0, ((first, last),))
    behaviour = UniformBox([-1.0], [1.0]).describe()
    return Bundle("none", None, reward=network, behaviour=behaviour)


def exact_value() -> float:
    """V of the bandit that goes on forever: (log-mean-exp of SLOPE a) / (1 - gamma)."""
    return LAMBDA * math.log(math.sinh(SLOPE / LAMBDA) / (SLOPE / LAMBDA)) / (1.0 - GAMMA)


@pytest.mark.parametrize("spoiled", [0.0, 1.5])
def test_an_exact_q_has_no_bias_and_a_spoiled_one_has_its_own(spoiled: float) -> None:
    bundle = linear_bundle(GAMMA * exact_value() + spoiled)
    rollouts, _ = roll_out(JudgedInduced(InducedPolicy(bundle, LAMBDA, SAMPLES)), Slope(), 40, 0, show=False)
    figures = compared(rollouts, GAMMA, LAMBDA)
    # V's estimate from M draws is low by little at this M, and so are the returns of the M-draw policy.
    assert figures["q_bias"] == pytest.approx(spoiled, abs=0.12)
    assert figures["q_rank"] > 0.3
    assert sum(size for _, _, size in figures["q_deciles"]) == figures["q_steps"] == 40 * (80 - 17)
    assert figures["q_share"] == (80 - 17) / 80


@pytest.mark.parametrize("spoiled", [0.0, -2.0])
def test_a_gaussians_q_is_held_against_the_reward_less_alpha_log_pi(spoiled: float) -> None:
    mean, std, alpha = 0.4, 0.5, 0.3
    rng = np.random.default_rng(0)
    u = mean + std * rng.standard_normal(400_000)
    log_pi = -0.5 * ((u - mean) / std) ** 2 - math.log(std * math.sqrt(2.0 * math.pi)) - np.log1p(-(np.tanh(u) ** 2))
    onward = GAMMA * float((SLOPE * np.tanh(u) - alpha * log_pi).mean()) / (1.0 - GAMMA)
    flat = Layer(np.zeros((1, 2), np.float32), np.array([mean, math.log(std)], np.float32))
    policy = Network(np.zeros(1, np.float32), np.ones(1, np.float32), 10.0, ((flat,),))
    judged = JudgedGaussian(policy, linear_bundle(onward + spoiled).need("reward"))
    figures = compared(roll_out(judged, Slope(), 60, 0, show=False)[0], GAMMA, alpha)
    assert figures["q_bias"] == pytest.approx(spoiled, abs=0.12)
    assert figures["q_rank"] > 0.3


def test_v_of_few_draws_is_low_by_as_much_as_it_must_be() -> None:
    bundle = linear_bundle(0.0)
    counts, rng = (1, 8, 512), np.random.default_rng(0)
    behaviour = UniformBox([-1.0], [1.0])
    found = value_bias(bundle.need("reward"), behaviour, np.zeros((20, 1)), LAMBDA, counts, rng)
    exact = (1.0 - GAMMA) * exact_value()
    # V of one draw is the mean of Q under b, which is 0 here.
    assert found[1] == pytest.approx(-exact, abs=0.03)
    draws = SLOPE * rng.uniform(-1.0, 1.0, (200_000, 8)) / LAMBDA
    assert found[8] == pytest.approx(LAMBDA * np.log(np.exp(draws).mean(axis=1)).mean() - exact, abs=0.03)
    assert found[1] < found[8] < found[512] < 0.01


def test_whose_q_has_an_objective() -> None:
    bundle = linear_bundle(0.0)
    assert has_objective(bundle)
    alone = replace(bundle, behaviour={}, policy=bundle.reward)
    assert not has_objective(alone)
    for algorithm, phase, masked, known in (
        ("sac", "pretrain", False, True),
        ("sqrl", "finetune", False, True),
        ("sqrl", "finetune", True, False),
        ("wcpg", "pretrain", False, False),
    ):
        told = {
            "plan": {"algorithm": algorithm, "phase": phase},
            "figures": {"alpha": 0.1},
            "settings": {"masked_value": masked},
        }
        assert has_objective(replace(alone, provenance=told)) == known
    assert not has_objective(replace(alone, provenance={"plan": "sac", "figures": None}))


def test_the_first_steps_own_kl_is_not_in_its_return_and_a_cut_episode_counts_in_part() -> None:
    reward, kl = np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.2, 0.4])
    found, whole = regularised_returns(JudgedEpisode(np.zeros(3), reward, kl, ended=True), 0.5, 10.0)
    # From behind: 4; 2 + 0.5 (4 - 10 * 0.4) = 2; 1 + 0.5 (2 - 10 * 0.2) = 1.
    assert found.tolist() == [1.0, 2.0, 4.0]
    assert whole.all()
    _, whole = regularised_returns(JudgedEpisode(np.zeros(8), np.ones(8), np.zeros(8), ended=False), 0.5, 1.0)
    # 0.5^6 is less than 2 %, 0.5^5 is more.
    assert whole.tolist() == [True] * 3 + [False] * 5


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(ValueError, match="discounted rest"):
        q_figures(np.zeros(0), np.zeros(0))
