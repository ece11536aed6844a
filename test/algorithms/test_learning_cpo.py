"""CPO: its advantages, dual and trust region against figures worked out in another way, and that it learns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssql_ros.algorithms.cpo import CPO, CPOSettings, solve_dual
from ssql_ros.algorithms.on_policy import OnPolicyBuffer, Steps, generalised_advantage
from ssql_ros.cli.main import main
from ssql_ros.data.replay import Transition
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.policy import Policy
from ssql_ros.nn.squashed_gaussian import SquashedGaussian
from ssql_ros.nn.trust_region import GaussianPolicy, conjugate_gradient
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.world_training import WorldTraining
from ssql_sim.spider import SpiderEnv

# A second thread costs networks as small as these far more than it gains.
torch.set_num_threads(1)

CPU = torch.device("cpu")
CONTRACT = find_task("spider").contract()
CENTRE, SPREAD = np.array([4.0, 3.5]), np.array([2.3, 2.0])

# Advantages


def by_definition(reward, value, next_observation, terminal, begins, gamma, decay):
    """Every A_t as its own sum, episode by episode."""
    ends = [*(np.flatnonzero(begins[1:]) + 1), len(reward)]
    delta = [
        r + gamma * v2 * (1 - d) - v for r, v, v2, d in zip(reward, value, next_observation, terminal, strict=True)
    ]
    found = []
    for t in range(len(reward)):
        end = min(e for e in ends if e > t)
        found.append(sum((gamma * decay) ** (k - t) * delta[k] for k in range(t, end)))
    return found


@given(st.integers(1, 12), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_advantage_is_the_discounted_sum_of_the_errors_to_come_of_its_episode(count, gamma, decay, seed):
    rng = np.random.default_rng(seed)
    reward, value, next_observation = rng.normal(size=(3, count))
    begins = rng.random(count) < 0.3
    # Only what comes last in an episode can be terminal.
    terminal = (np.append(begins[1:], True) & (rng.random(count) < 0.5)).astype(float)
    found = generalised_advantage(reward, value, next_observation, terminal, begins, gamma, decay)
    expected = by_definition(reward, value, next_observation, terminal, begins, gamma, decay)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_with_decay_1_the_advantage_is_the_return_less_the_value_and_time_outs_go_on():
    reward, value = np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.25, 8.0])
    next_observation, begins = np.array([0.25, 10.0, 100.0]), np.array([True, False, True])
    found = generalised_advantage(reward, value, next_observation, np.array([0.0, 0.0, 1.0]), begins, 0.5, 1.0)
    # The first episode was cut off where V was 10, the second one ended.
    np.testing.assert_allclose(found, [1.0 + 0.5 * (2.0 + 0.5 * 10.0) - 0.5, 2.0 + 5.0 - 0.25, 4.0 - 8.0])


def transition(x: float, action: float, terminal: bool = False) -> Transition:
    return Transition(np.full(2, x), np.full(2, action), x, np.full(2, x + 1.0), terminal, terminal)


def test_buffer_knows_what_the_policy_drew_and_where_episodes_begin():
    buffer = OnPolicyBuffer(4, 2, 2)
    buffer.begin()
    u = [-3.0, 0.2, 5.0, 40.0]
    for i, drawn in enumerate(u):
        assert not buffer.full
        if i == 2:
            buffer.begin()
        buffer.add(transition(float(i), math.tanh(drawn), terminal=i == 1))
    assert buffer.full
    with pytest.raises(ValueError, match="expected 4 steps, got one more"):
        buffer.add(transition(0.0, 0.0))
    steps = buffer.take()
    np.testing.assert_allclose(steps.u[:3, 0], u[:3], rtol=1e-9)
    # The action is 1.0 there: any large u does.
    assert 13.0 < steps.u[3, 0] < 20.0
    assert steps.begins.tolist() == [True, False, True, False]
    assert steps.terminal.tolist() == steps.incident.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert steps.episodes == 2
    assert not buffer.full
    # The episode goes on in the next batch.
    buffer.add(transition(9.0, 0.0))
    assert buffer.take().begins.tolist() == [False]


def test_buffer_of_another_size_is_refused():
    one, other = OnPolicyBuffer(2, 2, 2), OnPolicyBuffer(1, 2, 2)
    one.add(transition(0.0, 0.0))
    one.add(transition(1.0, 0.0))
    with pytest.raises(ValueError, match="expected at most 1 rows of 10"):
        other.restore(one.state())


# The dual


def brute_force(g: np.ndarray, b: np.ndarray, c: float, delta: float) -> float | None:
    """The best g^T x over |x|^2 <= 2 delta, b^T x <= -c, in the plane, by looking everywhere; None: there is no x."""
    radius = math.sqrt(2.0 * delta)
    angle = np.linspace(0.0, 2.0 * math.pi, 20_001)
    candidates = [radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.zeros((1, 2))]
    if (norm := np.linalg.norm(b)) > 0.0:
        # The edge of the constraint: its nearest point to 0, and the line along it.
        foot, along = -c * b / norm**2, np.array([-b[1], b[0]]) / norm
        candidates.append(foot + np.linspace(-radius, radius, 20_001)[:, None] * along)
    x = np.concatenate(candidates)
    allowed = x[(np.einsum("ij,ij->i", x, x) <= 2.0 * delta * (1 + 1e-9)) & (x @ b <= -c + 1e-9)]
    return float((allowed @ g).max()) if len(allowed) else None


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 0.5), st.floats(0.01, 0.5), st.sampled_from([1.0, 0.99, -0.99, 0.0]))
def test_dual_gives_the_best_step_in_the_trust_region(seed, c, delta, aligned):
    rng = np.random.default_rng(seed)
    g = rng.normal(size=2)
    # Gradients of reward and cost that point anywhere, or (nearly) along each other.
    b = aligned * g + math.sqrt(1.0 - aligned**2) * rng.normal(size=2) if aligned else rng.normal(size=2)
    s = float(b @ b)
    assume(abs(c * c / s - 2.0 * delta) > 1e-4)
    factor = rng.normal(size=(2, 2)) + 2.0 * np.eye(2)
    # x = F^-1 y turns a trust region of H = F^T F into a circle.
    h, g_x, b_x = factor.T @ factor, factor.T @ g, factor.T @ b
    to_g, to_b = np.linalg.solve(h, g_x), np.linalg.solve(h, b_x)
    found = solve_dual(float(g_x @ to_g), float(g_x @ to_b), float(b_x @ to_b), c, delta)
    best = brute_force(g, b, c, delta)
    assert (found is None) == (best is None)
    if found is None or best is None:
        return
    multiplier, nu = found
    assert nu >= 0.0
    x = (to_g - nu * to_b) / multiplier
    scale = np.linalg.norm(g) * math.sqrt(2.0 * delta)
    if aligned != 1.0:
        # Where both gradients are one, the multiplier is 0 / 0 on the edge: the line search guards that.
        assert 0.5 * x @ h @ x <= delta * (1.0 + 1e-4)
        assert c + b_x @ x <= 1e-4 * math.sqrt(s)
        assert g_x @ x == pytest.approx(best, abs=2e-3 * scale)
    # Weak duality from both sides: the dual's value is the primal's.
    q, r = float(g @ g), float(g @ b)
    value = (q - 2.0 * r * nu + nu * nu * s) / (2.0 * multiplier) + multiplier * delta - nu * c
    assert value == pytest.approx(best, abs=2e-3 * scale)


def test_dual_without_a_cost_is_the_plain_trust_region():
    # No incident in the batch: b = 0, and the limit is kept.
    assert solve_dual(8.0, 0.0, 0.0, -0.1, 0.01) == (20.0, 0.0)
    assert solve_dual(8.0, 0.0, 0.0, 0.1, 0.01) is None


# The trust region


def policy_of(seed: int, count: int = 5) -> tuple[GaussianPolicy, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    actor = SquashedGaussian(2, 2, (4,), generator)
    state = torch.randn((count, 2), generator=generator).double()
    flat = actor.flat.detach().double() + 0.3 * torch.randn(actor.flat.shape, generator=generator).double()
    return GaussianPolicy(actor, state), flat


def test_policy_is_that_of_the_other_learners():
    actor = SquashedGaussian(2, 2, (4, 4), torch.Generator().manual_seed(1))
    state = torch.randn((6, 2), generator=torch.Generator().manual_seed(2))
    found = GaussianPolicy(actor, state.double()).distribution(actor.flat.detach().double())
    for one, other in zip(found, actor.distribution(state), strict=True):
        np.testing.assert_allclose(one.numpy(), other.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_fisher_product_is_that_of_the_hessian_of_the_divergence(seed):
    policy, flat = policy_of(seed)
    before = tuple(part.detach() for part in policy.distribution(flat))
    hessian = torch.autograd.functional.hessian(lambda x: policy.divergence(x, before), flat)
    product = policy.fisher(flat, damping=0.1)
    found = torch.stack([product(v) for v in torch.eye(len(flat), dtype=torch.float64)])
    torch.testing.assert_close(found, hessian + 0.1 * torch.eye(len(flat), dtype=torch.float64))
    assert hessian.abs().max() > 0.1


def test_divergence_is_the_mean_log_ratio_of_draws():
    policy, flat = policy_of(0, count=1)
    mean, log_std = policy.distribution(flat)
    other = flat + 0.05
    before = policy.distribution(other)
    u = mean + log_std.exp() * torch.randn((200_000, 2), generator=torch.Generator().manual_seed(1)).double()
    ratio = policy.log_probability(flat, u) - policy.log_probability(other, u)
    error = float(ratio.std()) / math.sqrt(len(u))
    assert float(policy.divergence(flat, before)) == pytest.approx(float(ratio.mean()), abs=4.0 * error)
    assert float(policy.divergence(flat, policy.distribution(flat))) == pytest.approx(0.0, abs=1e-12)


def test_conjugate_gradient_solves_a_system_in_as_many_steps_as_it_has_unknowns():
    rng = np.random.default_rng(0)
    factor = torch.tensor(rng.normal(size=(6, 6)))
    matrix, right = factor @ factor.T + torch.eye(6), torch.tensor(rng.normal(size=6))
    found = conjugate_gradient(lambda v: matrix @ v, right, 6)
    torch.testing.assert_close(matrix @ found, right)
    assert not conjugate_gradient(lambda v: matrix @ v, torch.zeros(6), 6).any()


# The update, on a robot of one step: reward u_0, an incident where u_0 > 0 or where it is told to


def one_step_batch(learner: CPO, incidents: bool, seed: int = 0) -> Steps:
    """Episodes of one step each: to go up is worth more, and to go up is dangerous."""
    rng, count = np.random.default_rng(seed), learner.settings.batch_steps
    state = rng.uniform(0.0, 7.0, (count, 2))
    mean, log_std = (
        part.detach().double().numpy() for part in learner.actor.distribution(learner.standardise(state).float())
    )
    u = mean + np.exp(log_std) * rng.standard_normal((count, 2))
    incident = (u[:, 0] > 0.0) & incidents
    return Steps(state, u, u[:, 0], state, incident.astype(float), np.ones(count), np.ones(count, bool))


def small(**changed: float) -> CPO:
    settings = CPOSettings(hidden=(16,), batch_steps=400, **changed)
    return CPO(CENTRE, SPREAD, 2, settings, seed=0, device=CPU)


def up(learner: CPO, steps: Steps) -> float:
    """P(u_0 > 0), the mean over the states of a batch."""
    mean, log_std = learner.actor.distribution(learner.standardise(steps.observation).float())
    return float(0.5 * torch.erfc(-mean[:, 0] / log_std[:, 0].exp() / math.sqrt(2.0)).mean().detach())


def test_without_incidents_the_reward_rises_by_a_whole_trust_region():
    learner = small()
    steps = one_step_batch(learner, incidents=False)
    before = up(learner, steps)
    found = learner.update(steps)
    assert 0.5 * learner.settings.delta < found["kl"] <= learner.settings.delta
    assert not found["recovers"]
    assert up(learner, steps) > before + 0.03


def test_far_above_the_limit_only_the_cost_counts():
    learner = small(cost_limit=0.1)
    risks = []
    for i in range(6):
        steps = one_step_batch(learner, incidents=True, seed=i)
        found = learner.update(steps)
        risks.append(up(learner, steps))
        assert found["recovers"]
        assert found["kl"] <= learner.settings.delta
    # Half of all actions were incidents at first.
    assert found["cost_excess"] > 0.0
    assert risks[0] < 0.5
    assert risks[-1] < 0.35


@pytest.mark.slow
def test_reward_is_taken_up_to_the_limit_and_the_limit_is_kept():
    learner = small(cost_limit=0.2, delta=0.05)
    risks, kls = [], []
    for i in range(40):
        steps = one_step_batch(learner, incidents=True, seed=i)
        kls.append(float(learner.update(steps)["kl"]))
        risks.append(up(learner, steps))
    assert max(kls) <= 0.05
    # The reward pulls up, the limit holds: half of the batches estimate too low a risk, by sqrt(0.2 * 0.8 / 400).
    assert np.mean(risks[-10:]) == pytest.approx(0.2, abs=0.03)
    assert max(risks[-20:]) < 0.2 + 0.06


def test_update_that_would_do_harm_is_not_made():
    learner = small()
    steps = one_step_batch(learner, incidents=False)
    before = learner.actor.flat.detach().clone()
    found = learner.update(Steps(**{**vars(steps), "reward": np.full(len(steps.u), np.nan)}))
    assert found["step_length"] == 0.0
    assert torch.equal(learner.actor.flat.detach(), before)


# Learning


@pytest.mark.slow
def test_cpo_learns_to_reach_the_goal_and_to_stay_out_of_the_lava():
    """The goal lies two steps away, the map's edge behind the start, lava beside the goal."""

    def easy() -> SpiderEnv:
        return SpiderEnv(goal=(2.5, 2.0), action_noise=0.1, max_steps=12)

    settings = CPOSettings(hidden=(32,), batch_steps=500, delta=0.05, gamma=0.95, cost_limit=0.1, learning_rate=3e-3)
    training = WorldTraining(CPO(CENTRE, SPREAD, 2, settings, 0, CPU), easy, CONTRACT, 12_000, 0)
    for _ in training.run():
        pass
    first, last = training.rows[:100], training.rows[-100:]
    assert np.mean([row.incident for row in first]) > 0.3
    assert np.mean([row.incident for row in last]) < 0.2
    assert np.mean([row.success for row in last]) > 0.7


def test_cpo_is_a_command_whose_bundle_serves_its_policy(tmp_path):
    tiny = ["--steps", "150", "--episodes", "2", "--quiet", "--set", "hidden=[8]", "batch_steps=60", "value_updates=2"]
    pre, fine = tmp_path / "pre", tmp_path / "fine"
    assert main(["train", "cpo", "--task", "spider", "--out", str(pre), *tiny]) == 0
    finetune = ["train", "cpo", "--task", "spider", "--phase", "finetune"]
    assert main([*finetune, "--from", str(pre), "--out", str(fine), *tiny]) == 0
    # A bundle alone does too: it has the policy.
    assert main([*finetune, "--from", str(pre / "bundle.safetensors"), "--out", str(tmp_path / "other"), *tiny]) == 0
    bundle = load_bundle(fine / "bundle.safetensors", CONTRACT)
    assert list(bundle.networks()) == ["policy"]
    assert bundle.provenance["plan"]["algorithm"] == "cpo"
    assert np.isfinite(Policy(bundle).best(np.array([0.5, 3.5]))).all()
    assert main([*finetune, "--from", str(pre), "--out", str(tmp_path / "bad"), "--set", "cost_limit=0"]) == 2
