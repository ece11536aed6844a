"""CQL and IQL: their losses against closed forms, and runs of both on what a behaviour policy collects."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.cql import CQL, CQLSettings
from ssql_ros.algorithms.iql import IQL, IQLSettings
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.data.replay import Batch
from ssql_ros.evaluation.bundle_evaluation import calibrate
from ssql_ros.model.bundle import load_bundle
from ssql_ros.nn.checkpoint import load_checkpoint, save_checkpoint
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.plan import Plan
from ssql_ros.training.registry import Start, make_learner
from ssql_ros.training.run import run
from ssql_ros.training.settings import settings_of
from ssql_ros.training.world_training import WorldTraining

torch.set_num_threads(1)
CPU, FLOAT32 = torch.device("cpu"), torch.float32
SMALL = {"hidden": (16, 16), "batch": 64, "learning_rate": 3e-3, "tau": 0.05}


def bandit(rng: np.random.Generator, size: int = 64) -> Batch:
    """One state, actions logged in [-0.5, 0.5] alone, the reward is the action, and all ends there."""
    action = torch.as_tensor(rng.uniform(-0.5, 0.5, (size, 1)), dtype=torch.float32)
    state = torch.zeros(size, 1)
    return Batch(state, action, action[:, 0], state, torch.zeros(size), torch.ones(size))


@pytest.mark.long
@pytest.mark.slow
def test_iql_comes_to_the_expectile_and_to_weights_by_advantage() -> None:
    settings = IQLSettings(expectile=0.8, sharpness=4.0, **SMALL)  # type: ignore[arg-type]
    iql, rng = IQL(np.zeros(1), np.ones(1), 1, settings, 0, CPU, FLOAT32), np.random.default_rng(0)
    for _ in range(1500):
        iql.update(bandit(rng))
    # The 0.8-expectile e of U(-1/2, 1/2): 0.8 (1/2 - e)^2 = 0.2 (1/2 + e)^2.
    assert float(iql.values(torch.zeros(1, 1))[0, 0, 0].detach()) == pytest.approx(0.5 / 3.0, abs=0.05)
    actions = torch.tensor([[-0.4], [0.0], [0.4]])
    q = iql.critics(torch.cat([torch.zeros(3, 1), actions], dim=1))[..., 0].detach()
    assert torch.allclose(q, actions[:, 0].expand_as(q), atol=0.05)
    # Advantage-weighted likelihood: the mean of a ~ exp(4 a) on the log's range is coth(2) / 2 - 1 / 4.
    mean, _ = iql.actor.distribution(torch.zeros(1, 1))
    assert float(torch.tanh(mean).detach()) == pytest.approx(0.5 / np.tanh(2.0) - 0.25, abs=0.08)


@pytest.mark.long
@pytest.mark.slow
def test_cql_presses_down_what_the_log_does_not_have() -> None:
    q = {}
    for weight in (0.0, 1.0):
        settings = CQLSettings(conservative_weight=weight, **SMALL)  # type: ignore[arg-type]
        cql, rng = CQL(np.zeros(1), np.ones(1), 1, settings, 0, CPU, FLOAT32), np.random.default_rng(0)
        for _ in range(400):
            cql.update(bandit(rng))
        pairs = torch.tensor([[0.0, 0.2], [0.0, 0.95]])
        q[weight] = cql.critics(pairs)[..., 0].detach().mean(dim=0)
    # SAC's critic goes on with the slope that it has seen.
    assert float(q[0.0][1]) > float(q[0.0][0]) + 0.2
    assert float(q[1.0][1]) < float(q[1.0][0]) - 0.2


def test_the_conservative_term_is_the_equation() -> None:
    settings = CQLSettings(conservative_weight=2.0, conservative_samples=512, **SMALL)  # type: ignore[arg-type]
    cql = CQL(np.zeros(1), np.ones(1), 1, settings, 0, CPU, FLOAT32)
    with torch.no_grad():
        cql.critics.flat.zero_()
        # Q(s, a) = 2 a: the first hidden units pass a on, split by sign.
        for unit, sign in enumerate((1.0, -1.0)):
            cql.critics.weights[0][:, 1, unit] = sign
            cql.critics.weights[1][:, unit, unit] = 1.0
            cql.critics.weights[2][:, unit, 0] = 2.0 * sign
    batch = bandit(np.random.default_rng(0))
    q = 2.0 * batch.action[:, 0]
    with torch.no_grad():
        loss = float(cql.critic_loss(torch.zeros(64, 1), batch, torch.zeros(64), cql.noise(64)))
    # Both critics are the same; the sum over actions of exp(2 a) on [-1, 1] is sinh(2).
    expected = 2.0 * (0.5 * q.square() + 2.0 * (np.log(np.sinh(2.0)) - q)).mean()
    assert loss == pytest.approx(float(expected), abs=0.1)


@pytest.mark.parametrize("algorithm", ["cql", "iql"])
def test_a_run_collects_by_the_behaviour_policy_and_ends_in_a_bundle_that_is_judged(
    tmp_path: Path, algorithm: str
) -> None:
    small = {"final_updates": 60, "hidden": [8], "batch": 16}
    plan = Plan(algorithm, "spider_timeless", 1200, 0, settings=small, evaluation=5)
    figures = run(plan, tmp_path / "run", {}, show=False)
    assert figures["training_steps"] == 1200
    assert figures["training_incidents"] == figures["promise_breaches"] == figures["incidents"] == 0
    task, path = find_task("spider_timeless"), tmp_path / "run" / "bundle.safetensors"
    bundle = load_bundle(path, task.contract())
    assert (bundle.policy_kind, bundle.behaviour) == ("squashed_gaussian", {})
    found = calibrate(path, task, task.world("pretrain"), 3, seed=0, show=False).provenance["q_calibration"]
    assert found["alpha"] == pytest.approx(figures["alpha"])
    assert np.isfinite([found["q_bias"], found["q_rmse"], found["q_rank"]]).all()


@pytest.mark.parametrize("algorithm", ["cql", "iql"])
def test_a_run_that_goes_on_from_a_checkpoint_learns_the_same(tmp_path: Path, algorithm: str) -> None:
    task, path = find_task("spider"), tmp_path / "checkpoint.safetensors"

    def training(seed: int) -> WorldTraining:
        settings = settings_of(algorithm, task.robot, {"hidden": [8], "batch": 16})
        start = Start(
            np.array(task.centre), np.array(task.spread), 2, "none", task.robot, "pretrain", 300, seed,
            PromiseMonitor(task.behaviour_policy()),
        )  # fmt: skip
        made = make_learner(algorithm, start, settings)
        return WorldTraining(made, lambda: task.make(**task.world("pretrain")), task.contract(), 300, seed)

    def finish(run: WorldTraining) -> list[torch.Tensor]:
        for _ in run.run():
            if run.can_stop and run.step >= 100 and not path.exists():
                save_checkpoint(path, run.state())
        for work in run.learner.finish():
            for _ in range(20):
                work.step()
        state = run.learner.learned()["algorithm"]
        nested = state["networks"].values() if isinstance(state["networks"], dict) else [state["networks"]]
        return [flat.detach().clone() for flats in nested for flat in flats]

    whole, resumed = training(0), training(7)
    expected = finish(whole)
    resumed.restore(load_checkpoint(path))
    found = finish(resumed)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert whole.learner.figures() == resumed.learner.figures()


def test_a_behaviour_policy_with_a_context_is_refused() -> None:
    task = find_task("minitaur_trots")
    monitor = PromiseMonitor(task.behaviour_policy())
    start = Start(np.zeros(4), np.ones(4), 8, "none", "minitaur", "pretrain", 10, 0, monitor)
    with pytest.raises(ValueError, match="without a context, but this one has 8"):
        make_learner("cql", start, settings_of("cql", "minitaur", {}))
    with pytest.raises(ValueError, match="behaviour policy"):
        make_learner("iql", Start(np.zeros(2), np.ones(2), 2, "", "boat", "pretrain", 10, 0), IQLSettings())
