"""SSQL with networks: both stages against closed forms, the support kept, exact resume, and a spider that learns."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.algorithms.ssql import SSQL, SSQLSettings, policy_kind, soft_value
from ssql_ros.behaviour.policy import BehaviourPolicy, UniformBox
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.behaviour.rooms import Rooms
from ssql_ros.data.replay import Batch
from ssql_ros.model.bundle import Bundle, load_bundle, save_bundle
from ssql_ros.model.policy import InducedPolicy, make_policy
from ssql_ros.nn.checkpoint import load_checkpoint, save_checkpoint
from ssql_ros.robots.minitaur.trot_mixture import TrotMixture
from ssql_ros.robots.spider import ROOMS
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.plan import Plan
from ssql_ros.training.run import run
from ssql_ros.training.ssql_learner import SSQLLearner
from ssql_ros.training.world_training import WorldTraining

torch.set_num_threads(1)
CPU, FLOAT32 = torch.device("cpu"), torch.float32


def learner(behaviour: BehaviourPolicy, n_state: int, n_action: int, **changed: object) -> SSQL:
    own = SSQLSettings(**{"hidden": (16, 16), "critics": 1, **changed})  # type: ignore[arg-type]
    return SSQL(np.zeros(n_state), np.ones(n_state), n_action, own, 0, behaviour, CPU, FLOAT32)


def make_linear(algorithm: SSQL, slope: float) -> None:
    """Make Q(s, a) = slope * a_0, whatever the state: the first hidden units pass a_0 on, split by sign."""
    critics = algorithm.critics
    with torch.no_grad():
        critics.flat.zero_()
        n = len(algorithm.mean)
        for unit, sign in enumerate((1.0, -1.0)):
            critics.weights[0][0, n, unit] = sign
            critics.weights[1][0, unit, unit] = 1.0
            critics.weights[2][0, unit, 0] = sign * slope
        algorithm.target.flat.copy_(critics.flat)


def test_v_of_a_linear_q_is_its_closed_form_from_below_and_nearer_with_more_draws() -> None:
    algorithm = learner(UniformBox([-1.0], [1.0]), 1, 1, temperature=0.5)
    make_linear(algorithm, 3.0)
    states = torch.zeros(4000, 1)
    exact = 0.5 * math.log(math.sinh(3.0 / 0.5) / (3.0 / 0.5))
    bias = [float(algorithm.value(states, samples).detach().mean()) - exact for samples in (1, 4, 16, 256)]
    assert bias[0] < bias[1] < bias[2] < bias[3] < 0.01
    assert abs(bias[3]) < 0.02
    # One draw is b's mean.
    assert bias[0] + exact == pytest.approx(0.0, abs=0.1)


def test_the_target_is_the_equation() -> None:
    algorithm = learner(UniformBox([-1.0], [1.0]), 1, 1, temperature=0.5, samples=64, gamma=0.9)
    make_linear(algorithm, 3.0)
    n = 3000
    batch = Batch(
        torch.zeros(n, 1), torch.zeros(n, 1), torch.full((n,), 2.0), torch.zeros(n, 1), torch.zeros(n),
        torch.tensor([1.0, 0.0, 0.0]).repeat(n // 3),
    )  # fmt: skip
    target = algorithm.target_value(batch)
    assert (target[batch.terminal > 0] == 2.0).all()
    exact = 0.5 * math.log(math.sinh(6.0) / 6.0)
    assert float(target[batch.terminal == 0].mean()) == pytest.approx(2.0 + 0.9 * exact, abs=0.05)


@pytest.mark.long
@pytest.mark.parametrize("extraction", ["forward", "reverse", "flow", "flow_reverse"])
def test_stage_2_comes_to_the_induced_policys_mean_inside_the_box(extraction: str) -> None:
    algorithm = learner(
        UniformBox([-0.2], [0.6]), 1, 1, temperature=0.5, extraction=extraction, extraction_samples=32,
        learning_rate=3e-3,
    )  # fmt: skip
    make_linear(algorithm, 2.0)
    rng = np.random.default_rng(0)
    for _ in range(400):
        states = torch.as_tensor(rng.normal(size=(64, 1)), dtype=torch.float32)
        nothing = torch.zeros(64)
        algorithm.extract(Batch(states, torch.zeros(64, 1), nothing, states, nothing, nothing))
    draws = np.array([algorithm.act(np.zeros(1), rng)[0] for _ in range(4000)])
    assert ((draws >= -0.2) & (draws <= 0.6)).all()
    # pi* ~ exp(4 a) on [-0.2, 0.6].
    a = np.linspace(-0.2, 0.6, 4001)
    weight = np.exp(4.0 * a)
    assert draws.mean() == pytest.approx(float((a * weight).sum() / weight.sum()), abs=0.03)


def make_two_moded(algorithm: SSQL, slope: float) -> None:
    """Make Q(s, a) = slope |a|."""
    make_linear(algorithm, slope)
    with torch.no_grad():
        algorithm.critics.weights[2][0, 1, 0] = slope


@pytest.mark.long
@pytest.mark.parametrize(("extraction", "two_modes"), [("flow", True), ("flow", False), ("flow_reverse", False)])
def test_a_flow_has_the_induced_policys_distribution(extraction: str, two_modes: bool) -> None:
    low, high, temperature, slope = -0.6, 0.8, 0.5, 2.0
    algorithm = learner(
        UniformBox([low], [high]), 1, 1, temperature=temperature, extraction=extraction, extraction_samples=32,
        learning_rate=1e-2, hidden=(32, 32),
    )  # fmt: skip
    (make_two_moded if two_modes else make_linear)(algorithm, slope)
    rng, nothing = np.random.default_rng(0), torch.zeros(64)
    for _ in range(600):
        states = torch.as_tensor(rng.normal(size=(64, 1)), dtype=torch.float32)
        algorithm.extract(Batch(states, torch.zeros(64, 1), nothing, states, nothing, nothing))
    z = torch.as_tensor(rng.normal(size=(4000, 1)), dtype=torch.float32)
    with torch.no_grad():
        squashed = torch.tanh(algorithm.extraction.u(torch.zeros(4000, 1), z))[:, 0].double().numpy()
    draws = np.sort(low + 0.5 * (high - low) * (1.0 + squashed))
    assert low <= draws[0] <= draws[-1] <= high
    # pi* ~ exp(Q / lambda): the largest distance between the two cumulative distributions.
    a = np.linspace(low, high, 4001)
    weight = np.exp(slope * (np.abs(a) if two_modes else a) / temperature)
    exact = np.interp(draws, a, np.cumsum(weight) / weight.sum())
    assert np.abs(exact - np.arange(len(draws)) / len(draws)).max() < 0.06
    if two_modes:
        # Where the Gaussian, squashed, has its one hill, there is a valley.
        assert np.mean(np.abs(draws) < 0.2) < 0.6 * np.mean((draws > 0.4) & (draws < 0.8))


def test_the_flows_determinant_is_that_of_its_map_and_goes_on_straight_behind_the_wall() -> None:
    algorithm = learner(UniformBox([-1.0, -1.0], [1.0, 1.0]), 1, 2, extraction="flow_reverse")
    flow = algorithm.extraction
    state, z = torch.zeros(5, 1), torch.randn((5, 2), generator=torch.Generator().manual_seed(0)).requires_grad_()
    _, found = flow.with_log_determinant(state, z)
    for i in range(5):
        row = lambda x, i=i: flow.u(state[:1], x[None])[0]  # noqa: E731
        expected = torch.linalg.det(torch.autograd.functional.jacobian(row, z[i].detach())).log()
        assert float(found[i].detach()) == pytest.approx(float(expected), abs=1e-5)
    with torch.no_grad():
        # f(z) = -2 z_0 in its first element, by two hidden units that pass on what is far from 0: det = -1.
        flow.actor.flat.zero_()
        for unit, sign in enumerate((1.0, -1.0)):
            flow.actor.weights[0][0, 1, unit] = 100.0 * sign
            flow.actor.weights[1][0, unit, unit] = 1.0
            flow.actor.weights[2][0, unit, 0] = -0.02 * sign
    _, found = flow.with_log_determinant(state, torch.full((5, 2), 1.0).requires_grad_())
    assert float(found[0].detach()) == pytest.approx(math.log(1e-3) + (-1.0 - 1e-3) / 1e-3, rel=1e-3)


def test_the_reverse_kl_is_refused_where_b_is_not_uniform_in_one_box() -> None:
    algorithm = learner(Rooms(ROOMS, 0.05), 2, 2, extraction="flow_reverse")
    states, nothing = torch.full((4, 2), 1.0), torch.zeros(4)
    with pytest.raises(ValueError, match="uniform in one box"):
        algorithm.extract(Batch(states, torch.zeros(4, 2), nothing, states, nothing, nothing))


def test_a_run_by_flow_ends_in_a_bundle_that_is_served_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    small = {"final_updates": 20, "extraction_updates": 40, "extraction_samples": 4, "hidden": [16, 16], "samples": 4}
    plan = Plan("ssql", "spider", 1200, 0, settings={**small, "extraction": "flow"}, evaluation=10)
    figures = run(plan, tmp_path / "run", {}, show=False)
    assert figures["training_incidents"] == figures["promise_breaches"] == figures["final_incident_rate"] == 0
    bundle = load_bundle(tmp_path / "run" / "bundle.safetensors", find_task("spider").contract())
    assert bundle.policy_kind == "supported_flow"
    assert "policy" in bundle.probes
    learned = load_checkpoint(tmp_path / "run" / "learned.safetensors")["algorithm"]
    again = learner(find_task("spider").behaviour_policy(), 2, 2, extraction="flow", hidden=(16, 16), critics=2)
    again.restore(learned)
    assert np.allclose(again.actor.weights[1].detach().numpy()[0], bundle.need("policy").members[0][1].weight)


@pytest.mark.parametrize("extraction", ["forward", "flow"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.floats(0.1, 30.0))
def test_no_policy_of_any_weights_leaves_the_support(extraction: str, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    for behaviour, n_observation, n_action in ((Rooms(ROOMS, 0.05), 2, 2), (TrotMixture(), 3, 8)):
        n = n_observation + behaviour.n_context
        algorithm = learner(behaviour, n, n_action, extraction=extraction)
        with torch.no_grad():
            for ensemble in (algorithm.actor, algorithm.critics):
                ensemble.flat.copy_(torch.as_tensor(size * rng.normal(size=len(ensemble.flat)), dtype=torch.float32))
        networks = algorithm.networks()
        bundle = Bundle(
            "none", None, policy=networks["policy"], reward=networks["reward"],
            policy_kind=policy_kind(algorithm.settings), behaviour=behaviour.describe(),
        )  # fmt: skip
        policies = (make_policy(bundle), InducedPolicy(bundle, 0.1, 8))
        for policy in policies:
            policy.reset(rng)
            for _ in range(5):
                observation = rng.uniform(0.0, 7.0, n_observation)
                state = np.concatenate([observation, policy.context()])[np.newaxis]
                action = policy.propose(observation, rng).action
                assert behaviour.support(state).contains(action[np.newaxis, np.newaxis]).all()
        state = np.concatenate([rng.uniform(0.0, 7.0, n_observation), policies[0].context()])
        action = algorithm.act(state, rng)
        assert behaviour.support(state[np.newaxis]).contains(action[np.newaxis, np.newaxis]).all()


@pytest.mark.parametrize("extraction", ["forward", "flow"])
def test_the_served_policy_is_the_learned_one(extraction: str) -> None:
    behaviour = TrotMixture()
    algorithm = learner(behaviour, 3 + 8, 8, extraction=extraction)
    with torch.no_grad():
        # Far from where it begins, which is near the identity.
        algorithm.actor.flat.mul_(2.0)
    networks = algorithm.networks()
    bundle = Bundle(
        "none", None, policy=networks["policy"], policy_kind=policy_kind(algorithm.settings),
        behaviour=behaviour.describe(),
    )  # fmt: skip
    served = make_policy(bundle)
    served.reset(np.random.default_rng(0))
    observation = np.array([0.3, -0.2, 0.1])
    state = np.concatenate([observation, served.context()])
    expected = algorithm.act(state, np.random.default_rng(5))
    assert np.allclose(served.propose(observation, np.random.default_rng(5)).action, expected, atol=1e-5)


def test_how_an_episode_begins_is_weighed_by_v() -> None:
    behaviour = TrotMixture(("A", "G4"))
    algorithm = learner(behaviour, 1 + 8, 8, temperature=0.1)
    make_linear(algorithm, 0.0)
    assert np.allclose(algorithm.start_weights(np.zeros((3, 1))), 0.5, atol=1e-6)
    with torch.no_grad():
        # Q = 2 * the context's first number, which tells the gaits apart.
        algorithm.critics.weights[0][0, 9, :2] = 0.0
        algorithm.critics.weights[0][0, 1, 0], algorithm.critics.weights[0][0, 1, 1] = 1.0, -1.0
        algorithm.critics.weights[2][0, 0, 0], algorithm.critics.weights[2][0, 1, 0] = 2.0, -2.0
    first = 2.0 * behaviour.starts()[:, 0]
    expected = np.exp((first - first.max()) / 0.1)
    assert np.allclose(algorithm.start_weights(np.zeros((3, 1))), expected / expected.sum(), atol=1e-3)


def small_run(steps: int, seed: int = 0, **changed: object) -> WorldTraining:
    task = find_task("spider")
    monitor = PromiseMonitor(task.behaviour_policy())
    own = SSQLSettings(**{"hidden": (8,), "batch": 16, "warm_up": 50, "policy_share": 0.5, **changed})  # type: ignore[arg-type]
    algorithm = SSQL(np.array(task.centre), np.array(task.spread), 2, own, seed, monitor.behaviour, CPU, FLOAT32)
    made = SSQLLearner(algorithm, monitor, 2, 2, seed, steps, steps)
    return WorldTraining(made, lambda: task.make(**task.world("pretrain")), task.contract(), steps, seed)


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_checkpoint_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    path, whole = tmp_path / "checkpoint.safetensors", small_run(900)
    for _ in whole.run():
        if whole.can_stop and whole.step >= 400 and not path.exists():
            save_checkpoint(path, whole.state())
    resumed = small_run(900, seed=7)
    resumed.restore(load_checkpoint(path))
    assert 400 <= resumed.step < 850
    for _ in resumed.run():
        pass
    first, second = (run.learner.learned()["algorithm"]["networks"] for run in (whole, resumed))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert whole.learner.figures() == resumed.learner.figures()
    assert whole.learner.figures() == {"training_steps": 900, "training_incidents": 0, "promise_breaches": 0}


def test_a_run_ends_in_a_bundle_that_keeps_to_the_behaviour_and_tells_of_no_incident(tmp_path: Path) -> None:
    small = {"final_updates": 50, "extraction_updates": 50, "extraction_samples": 4, "hidden": [16, 16], "samples": 4}
    plan = Plan("ssql", "spider", 1500, 0, settings=small, evaluation=20)
    figures = run(plan, tmp_path / "run", {}, show=False)
    assert figures["training_steps"] == 1500
    assert figures["training_incidents"] == figures["promise_breaches"] == 0
    assert figures["final_incident_rate"] == 0.0
    bundle = load_bundle(tmp_path / "run" / "bundle.safetensors", find_task("spider").contract())
    assert bundle.policy_kind == "supported_gaussian"
    assert bundle.behaviour["kind"] == "rooms"


def test_a_task_without_a_behaviour_policy_is_refused(tmp_path: Path) -> None:
    from ssql_ros.training.registry import Start, make_learner
    from ssql_ros.training.settings import settings_of

    start = Start(np.zeros(2), np.ones(2), 2, "none", "spider", "pretrain", 10, 0)
    with pytest.raises(ValueError, match="behaviour policy"):
        make_learner("ssql", start, settings_of("ssql", "spider", {}))
    with pytest.raises(ValueError, match="extraction: expected forward or reverse or flow or flow_reverse"):
        settings_of("ssql", "spider", {"extraction": "sideways"})
    mixed = Bundle("none", None, policy_kind="behaviour", behaviour={"kind": "magic"})
    path = tmp_path / "b.safetensors"
    save_bundle(mixed, path)
    with pytest.raises(ValueError, match="'magic' is unknown"):
        make_policy(mixed)


def test_soft_value_of_nothing_supported_is_no_number_to_act_on() -> None:
    assert soft_value(torch.tensor([1.0, 2.0]), torch.tensor([-math.inf, -math.inf]), 0.1) == -math.inf
