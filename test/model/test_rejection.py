"""Policies of several passes: their samplers against known laws, and which candidate they keep."""

import numpy as np
import pytest
import torch

from bench.policy import bench_policy
from ssql_ros.algorithms.safefql import SafeFQL
from ssql_ros.data.logged_steps import OfflineData
from ssql_ros.evaluation.baselines import feasible_weights, train_diffusion
from ssql_ros.model.bundle import Layer, Network
from ssql_ros.model.rejection import betas, by_rejection, diffusion_sampler, flow_sampler
from ssql_ros.robots.boat.truth import boat_log
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.settings import settings_of
from support.offline import bundle_of

torch.set_num_threads(1)
CPU = torch.device("cpu")
TINY = {"hidden": [32, 32], "actor_hidden": [32, 32], "batch": 64, "actor_batch": 128}


def learner(seed: int = 0, **changed) -> SafeFQL:
    settings = settings_of("safefql", "boat", {**TINY, **changed})
    return SafeFQL(np.array([-0.5, 0.0]), np.array([1.4, 1.1]), 2, settings, seed, CPU)


def affine(weight: list[list[float]], bias: list[float], n_observation: int = 1) -> Network:
    """ReLU networks cannot be linear in one layer: h = (x, -x), y = W h_+ - W h_-."""
    w = np.array(weight, np.float32)
    n = len(w)
    split = np.concatenate([np.eye(n), -np.eye(n)], axis=1).astype(np.float32)
    layers = (Layer(split, np.zeros(2 * n, np.float32)), Layer(np.concatenate([w, -w]), np.array(bias, np.float32)))
    return Network(np.zeros(n_observation), np.ones(n_observation), 10.0, (layers,))


def test_flow_sampler_follows_its_field():
    """v = 0.5 everywhere: every draw moves by 0.5, in however many steps."""
    network = affine([[0.0], [0.0], [0.0]], [0.5])
    for steps in (1, 10):
        drawn = flow_sampler(network, steps)(np.zeros((4000, 1)), np.random.default_rng(0))
        noise = np.random.default_rng(0).standard_normal((4000, 1), np.float32)
        assert drawn == pytest.approx(np.clip(noise + 0.5, -1.0, 1.0), abs=1e-5)


def test_flow_sampler_is_the_teachers_own():
    made = learner(seed=2)
    drawn = flow_sampler(made.exported(made.teacher), made.settings.flow_steps)(
        np.zeros((6, 2)), np.random.default_rng(1)
    )
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((6, 2), np.float32))
    with torch.no_grad():
        assert drawn == pytest.approx(made.teach(made.standardise(torch.zeros((6, 2))), noise).numpy(), abs=1e-5)


def test_schedule_forgets_the_action():
    assert (np.diff(betas()) > 0.0).all()
    assert np.prod(1.0 - betas()) < 0.01


def test_candidate_kept_is_the_best_of_the_feasible_ones_or_the_safest():
    candidates = np.array([[-0.8], [-0.1], [0.4], [0.9]], np.float32)
    reward = affine([[0.0], [1.0]], [0.0])  # Q_r = a

    def sample(observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.tile(candidates, (len(observations) // 4, 1))

    def kept(bias: float) -> float:
        critic = affine([[0.0], [1.0]], [bias])  # Q_c = a + bias
        return float(by_rejection(sample, reward, critic, 4)(np.zeros((2, 1)), np.random.default_rng(0))[1, 0])

    assert kept(-0.5) == pytest.approx(0.4)  # 0.9 is not feasible
    assert kept(-2.0) == pytest.approx(0.9)
    assert kept(2.0) == pytest.approx(-0.8)  # none is


def test_fisors_weights_are_none_for_unsafe_actions_in_safe_states():
    made = learner()
    with torch.no_grad():
        for ensemble in (made.q_r, made.q_c, made.v_r, made.v_c):
            ensemble.flat.zero_()
        made.v_c.biases[-1].fill_(-0.1)
        made.q_c.biases[-1].fill_(0.05)
        assert feasible_weights(made, torch.zeros((3, 2)), torch.zeros((3, 2))).tolist() == [0.0] * 3
        made.v_c.biases[-1].fill_(0.05)  # an unsafe state: as good as the best, weight 1
        assert feasible_weights(made, torch.zeros((3, 2)), torch.zeros((3, 2))).tolist() == [1.0] * 3


def test_diffusion_of_a_known_gaussian_has_its_mean():
    log = boat_log(20, seed=0)
    rng = np.random.default_rng(0)
    drawn = (np.array([0.3, -0.2]) + 0.1 * rng.standard_normal(log.action.shape)).astype(np.float32)
    made = learner(learning_rate=3e-3)
    with torch.no_grad():  # equal weights
        for ensemble in (made.q_r, made.q_c, made.v_r, made.v_c):
            ensemble.flat.zero_()
        made.v_c.biases[-1].fill_(0.1)
        made.q_c.biases[-1].fill_(0.1)
    data = OfflineData(type(log)(**{**vars(log), "action": drawn}), 1, 0.99, CPU)
    network = train_diffusion(made, data, 600, seed=0, show=False)
    actions = diffusion_sampler(network)(rng.uniform(-1, 1, (2000, 2)), rng)
    assert actions.mean(axis=0) == pytest.approx([0.3, -0.2], abs=0.08)
    assert actions.std(axis=0).max() < 0.35


def test_bench_gives_its_ratios():
    bundle = bundle_of(learner(), find_task("boat").contract(), {})
    figures = bench_policy(bundle, repeats=5, seed=0)
    assert figures["ratio_to_flow_n1"] == pytest.approx(figures["one_step_us"] / figures["flow_n1_us"])
    assert figures["ratio_to_diffusion_n16"] == pytest.approx(figures["one_step_us"] / figures["diffusion_n16_us"])
    with pytest.raises(ValueError, match="repeats"):
        bench_policy(bundle, repeats=0, seed=0)
