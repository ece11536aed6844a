"""The learners' equations: densities, targets, losses and gradients against figures worked out apart from torch."""

import copy
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ssql_ros.algorithms.esac import ESAC, ESACSettings
from ssql_ros.algorithms.rs import RS
from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.algorithms.sqrl import SQRLSettings
from ssql_ros.algorithms.sqrl_finetuning import SQRLFineTuning
from ssql_ros.algorithms.wcpg import SERVED_LEVEL, WCPG, WCPGSettings, tail
from ssql_ros.model.bundle import Bundle
from ssql_ros.model.policy import Policy
from ssql_ros.nn.squashed_gaussian import log_probability
from support.learners import COMMON, FLOAT32, N_ACTION, N, close, drawn, judged, made, sigmoid, some_batch, standardised

# The policy


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.2, 0.3), (-0.4, 0.05), (0.3, 4.0)])
def test_log_probability_is_that_of_tanh_of_a_normal(mean, std):
    # The density is the slope of P(tanh(u) <= a) = Phi((artanh(a) - mean) / std).
    a, h = np.tanh(mean + std * np.linspace(-1.5, 1.5, 7)), 1e-6
    a = a[np.abs(a) < 0.999]
    cdf = [[NormalDist(mean, std).cdf(math.atanh(x)) for x in a + side] for side in (h, -h)]
    u = torch.tensor(np.arctanh(a)).unsqueeze(1)
    log_std = torch.full_like(u, math.log(std))
    found = log_probability(u, (u - mean) / std, log_std)
    np.testing.assert_allclose(found.exp().numpy(), (np.array(cdf[0]) - cdf[1]) / (2 * h), rtol=1e-4)


def test_density_of_actions_integrates_to_one_and_dimensions_multiply():
    u = torch.linspace(-9.0, 9.0, 20_001, dtype=torch.float64).unsqueeze(1)
    log_std = torch.full_like(u, math.log(0.7))
    density = log_probability(u, (u - 0.4) / 0.7, log_std).exp()
    assert torch.trapezoid(density, torch.tanh(u[:, 0])).item() == pytest.approx(1.0, abs=1e-6)
    pair = log_probability(u.expand(-1, 2), ((u - 0.4) / 0.7).expand(-1, 2), log_std.expand(-1, 2))
    torch.testing.assert_close(pair, 2.0 * density.log())


def test_log_probability_far_out_is_exact_where_tanh_rounds_to_one():
    u = torch.tensor([[60.0], [-60.0]])
    # log(1 - tanh(u)^2) = 2 log 2 - 2 |u| there.
    expected = -0.5 * math.log(2.0 * math.pi) - 2.0 * math.log(2.0) + 120.0
    close(log_probability(u, torch.zeros_like(u), torch.zeros_like(u)), [expected] * 2)


# SAC


@pytest.mark.parametrize("kind", [SAC, ESAC, RS])
def test_target_is_the_pessimistic_soft_value_and_ends_at_terminals(kind):
    chosen = {SAC: SACSettings(**COMMON), ESAC: ESACSettings(**COMMON), RS: SQRLSettings(**COMMON, initial_nu=2.5)}
    learner, batch = made(kind, chosen[kind]), some_batch()
    next_observation = standardised(batch.next_observation)
    noise = learner.noise(N)
    action, log_pi = drawn(learner, next_observation, noise["next_observation"])
    q = judged(learner.target, next_observation, action)
    value = np.percentile(q, 30.0, axis=0) if kind is ESAC else q.min(axis=0)
    y = batch.reward.numpy() + 0.9 * (1.0 - batch.terminal.numpy()) * (value - 0.3 * log_pi)
    if kind is RS:
        risk = sigmoid(judged(learner.safety, standardised(batch.observation), batch.action.numpy())[0])
        # Dual ascent comes first: Adam's first step is one learning rate long.
        y -= 2.5 * math.exp(math.copysign(1e-3, risk.mean() - 0.1)) * risk
    close(learner.target_value(learner.standardise(batch.next_observation), batch, noise), y)


def test_sac_losses_and_gradients():
    learner, batch = made(SAC, SACSettings(**COMMON)), some_batch()
    state, rows = learner.standardise(batch.observation), standardised(batch.observation)
    y = np.linspace(-1.0, 1.0, N)
    noise = learner.noise(N)
    critic_loss = learner.critic_loss(state, batch, torch.tensor(y, dtype=FLOAT32), noise)
    q = judged(learner.critics, rows, batch.action.numpy())
    close(critic_loss, 0.5 * ((q - y) ** 2).mean(axis=1).sum())
    action, log_pi = drawn(learner, rows, noise["state"])
    actor_loss, returned = learner.actor_loss(state, noise)
    close(returned, log_pi)
    close(actor_loss, (0.3 * log_pi - judged(learner.critics, rows, action).min(axis=0)).mean())
    # H = -n_action; alpha rises where entropy is under it.
    temperature_loss = learner.temperature_loss(returned)
    close(temperature_loss, -math.log(0.3) * (log_pi.mean() - N_ACTION))
    (actor_loss + temperature_loss).backward()
    close(learner.temperature.log.grad, [-(log_pi.mean() - N_ACTION)])
    assert [parameter.grad for parameter in learner.critics.parameters()] == [None]
    assert [parameter.grad is None for parameter in learner.actor.parameters()] == [False]


def test_update_moves_the_target_networks_by_tau():
    learner = made(SAC, SACSettings(**COMMON, tau=0.25))
    before = [parameter.clone() for parameter in learner.target.parameters()]
    losses = learner.update(some_batch())
    for old, average, online in zip(before, learner.target.parameters(), learner.critics.parameters(), strict=True):
        torch.testing.assert_close(average.data, 0.75 * old + 0.25 * online.data)
    assert set(losses) == {"critic_loss", "actor_loss", "alpha"}


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        (SAC, SACSettings(**COMMON)),
        (ESAC, ESACSettings(**COMMON)),
        (WCPG, WCPGSettings(**COMMON)),
        (SQRLFineTuning, SQRLSettings(**COMMON, initial_nu=4.0)),
    ],
)
def test_actors_gradient_is_the_slope_of_its_loss(kind, chosen):
    learner = made(kind, chosen)
    # Many states: the kinks of ReLU and of the order of critics are spread.
    observations = torch.randn((4000, 2), generator=torch.Generator().manual_seed(4))
    if kind is WCPG:
        learner._level = torch.linspace(0.1, 1.0, 4000)
    states, noise = learner.standardise(observations), learner.noise(4000)

    def loss_at(distance: float) -> tuple[float, float]:
        """Loss, and its gradient along one direction, some way along it; every call draws the same actions."""
        moved = copy.deepcopy(learner)
        (parameter,) = moved.actor.parameters()
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            parameter.add_(direction, alpha=distance)
        loss, _ = moved.actor_loss(states, noise)
        loss.backward()
        return loss.item(), float((parameter.grad * direction).sum())

    h = 1e-3
    slope = (loss_at(h)[0] - loss_at(-h)[0]) / (2 * h)
    assert abs(slope) > 0.05
    assert loss_at(0.0)[1] == pytest.approx(slope, rel=0.01)


# E-SAC


@settings(deadline=None)
@given(
    q=arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.floats(-8, 8, width=32)),
    percentile=st.floats(0.0, 1.0),
)
def test_percentile_of_critics_is_numpys(q, percentile):
    learner = made(ESAC, ESACSettings(**COMMON, percentile=percentile))
    close(learner.pessimistic(torch.tensor(q)), np.percentile(q, 100.0 * percentile, axis=0))


def test_percentile_has_gradients_for_its_two_neighbours_of_each_sample():
    q = torch.tensor([[5.0, 1.0], [2.0, 2.0], [9.0, 8.0], [4.0, 0.0]], requires_grad=True)
    # 0.3 (4 - 1) = 0.9: one tenth of the least, nine tenths of the second.
    made(ESAC, ESACSettings(**COMMON)).pessimistic(q).sum().backward()
    close(q.grad, [[0.0, 0.9], [0.1, 0.0], [0.0, 0.0], [0.9, 0.1]])


# WCPG


@pytest.mark.parametrize("level", [0.05, 0.1, 0.3, 0.75])
def test_tail_is_the_mean_of_the_worst_fraction_of_a_normal(level):
    x = np.linspace(-12.0, NormalDist().inv_cdf(level), 100_001)
    density = np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
    worst = np.trapezoid(x * density, x) / level
    assert tail(torch.tensor([level])).item() == pytest.approx(-worst, rel=1e-4)
    assert tail(torch.ones(1)).item() == pytest.approx(0.0, abs=1e-4)


def wcpg_of(mean: float, variance: float) -> WCPG:
    """WCPG with critics that say the same everywhere, and no entropy."""
    learner = made(WCPG, WCPGSettings(**{**COMMON, "initial_temperature": 1e-9}))
    with torch.no_grad():
        for ensemble in (learner.critics, learner.target):
            for parameter in ensemble.parameters():
                parameter.zero_()
            ensemble.biases[-1].copy_(torch.tensor([mean, math.log(math.expm1(variance))]))
    return learner


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4])
def test_true_moments_are_the_fixed_point_of_wcpgs_loss(factor):
    # For ever a reward of 2 +- 1: the return has mean 2 / (1 - gamma) and variance 1 / (1 - gamma^2).
    mean, variance = 2.0 / 0.1, 1.0 / (1.0 - 0.81)
    learner, batch = wcpg_of(mean, factor * variance), some_batch()
    batch.reward.copy_(torch.tensor([1.0, 3.0] * (N // 2)))
    batch.terminal.zero_()
    noise = learner.noise(N)
    y, added = target = learner.target_value(learner.standardise(batch.next_observation), batch, noise)
    close(y, batch.reward.numpy() + 0.9 * mean)
    assert y.mean().item() == pytest.approx(mean, rel=1e-6)
    close(added, np.full(N, 0.81 * factor * variance))

    def loss_at(change: float) -> float:
        moved = copy.deepcopy(learner)
        with torch.no_grad():
            moved.critics.biases[-1][..., 1].add_(change)
        return moved.critic_loss(moved.standardise(batch.observation), batch, target, noise).item()

    slope = (loss_at(0.05) - loss_at(-0.05)) / 0.1
    # Off the fixed point the variance is pulled towards it.
    expected = 1.0 - math.sqrt((1.0 + 0.81 * factor * variance) / (factor * variance))
    assert slope == pytest.approx(expected * -math.expm1(-factor * variance), abs=2e-4)
    assert np.sign(np.round(expected, 9)) == np.sign(factor - 1.0)


def test_wcpgs_terminals_add_neither_value_nor_variance():
    learner, batch = wcpg_of(7.0, 3.0), some_batch()
    batch.terminal.fill_(1.0)
    y, added = learner.target_value(learner.standardise(batch.next_observation), batch, learner.noise(N))
    assert (y.tolist(), added.tolist()) == (batch.reward.tolist(), [0.0] * N)


def test_bundles_policy_of_wcpg_is_the_learners_at_the_served_level():
    learner = made(WCPG, WCPGSettings(**COMMON))
    served = Policy(Bundle("none", None, policy=learner.networks()["policy"]))
    observations = np.random.default_rng(0).normal(size=(20, 2))
    best = np.array([learner.best(observation) for observation in observations])
    np.testing.assert_allclose([served.best(observation) for observation in observations], best, atol=1e-6)
    # The level matters: at another one the policy is another.
    learner._episode_level = SERVED_LEVEL + 0.5
    assert np.abs(np.tanh(learner.act(observations[0])[0]) - best[0]).max() > 1e-3
