"""SSQL and DQN on grids through the shared networks, against exact dynamic programming."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.discrete import DiscreteQ, DiscreteSettings
from ssql_ros.cli.main import main
from ssql_ros.training.grid_training import GridLearner, GridTraining
from ssql_ros.training.plan import Plan
from ssql_ros.training.run import repeat
from ssql_sim.soft_dp import soft_optimum

torch.set_num_threads(1)


def grid_learner() -> GridLearner:
    plan = Plan("ssql", "gridworld", 10, 0)
    return GridLearner(plan, plan.checked_settings())


def run(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    assert main(["train", *arguments, "--out", str(folder), "--quiet", "--json", "--episodes", "40"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]


@pytest.mark.long
def test_ssql_comes_to_the_exact_return_and_dqn_to_a_higher_one_by_incidents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--task", "gridworld", "--steps", "5000")
    safe = run(tmp_path / "ssql", capsys, "ssql", *common)
    assert (safe["training_steps"], safe["training_incidents"], safe["promise_breaches"]) == (5000, 0, 0)
    assert safe["incidents"] == safe["final_incident_rate"] == 0
    assert safe["return_mean"] == pytest.approx(safe["return_exact"], abs=0.03)
    assert safe["q_error"] < 0.15
    free = run(tmp_path / "dqn", capsys, "dqn", *common)
    assert free["training_incidents"] == free["incidents"] > 20
    # The short way is worth its risk of a slip: only who may take it finds that.
    assert free["return_mean"] == pytest.approx(free["return_exact"], abs=0.1)
    assert free["return_exact"] > safe["return_exact"] + 0.3
    with (tmp_path / "ssql" / "policy.csv").open(newline="") as file:
        policy = np.array([[float(p) for p in row] for row in list(csv.reader(file))[1:]])
    learner = grid_learner()
    assert np.allclose(policy.sum(axis=1), 1.0, atol=1e-4)
    assert (policy[learner.behaviour == 0.0] == 0.0).all()


@pytest.mark.parametrize("temperature", [0.0, 0.1, math.inf])
def test_the_exact_q_is_the_mean_of_its_own_targets(temperature: float) -> None:
    learner = grid_learner()
    mdp, b = learner.mdp, learner.behaviour
    exact, _ = soft_optimum(mdp, b, temperature)
    with np.errstate(divide="ignore"):
        made = DiscreteQ(np.log(b), temperature, DiscreteSettings(), 0)
    with torch.no_grad():
        # One hidden unit for each cell passes it on; the last layer is then the table. Out of the support Q is high.
        made.q.flat.zero_()
        for i in range(len(b)):
            made.q.weights[0][0, i, i] = made.q.weights[1][0, i, i] = 1.0
            made.q.weights[2][0, i] = torch.as_tensor(np.where(b[i] > 0.0, exact[i], 7.0))
        made.target.flat.copy_(made.q.flat)
    every, terminal = torch.arange(len(b)), torch.as_tensor(mdp.terminal).float()
    onward = made.target_value(torch.zeros(len(b)), every, terminal).double().numpy()
    going = (b > 0.0) & ~mdp.terminal[:, np.newaxis]
    assert np.abs(mdp.reward + mdp.transitions @ onward - exact)[going].max() < 1e-5
    assert (made.policy()[b == 0.0] == 0.0).all()


@pytest.mark.parametrize("algorithm", ["ssql", "dqn"])
def test_a_run_that_goes_on_from_a_checkpoint_ends_as_the_unbroken_one(tmp_path: Path, algorithm: str) -> None:
    def training(seed: int) -> GridTraining:
        plan = Plan(algorithm, "spider_grid", 300, seed, settings={"final_updates": 30, "warm_up": 64, "hidden": [8]})
        return GridTraining(plan, plan.checked_settings())

    whole, first, second = training(0), training(0), training(1)
    step = first.learner.step

    def stopped(number: int) -> dict[str, torch.Tensor]:
        if number == 205:
            raise KeyboardInterrupt
        return step(number)

    first.learner.step = stopped
    repeat(whole, tmp_path / "whole", 100, "", show=False)
    with pytest.raises(KeyboardInterrupt):
        repeat(first, tmp_path / "stopped", 100, "", show=False)
    repeat(second, tmp_path / "stopped", 100, "", show=False)
    whole, second = whole.learner, second.learner
    assert np.array_equal(whole.learning.table(), second.learning.table())
    assert [r for r in whole.rows if not math.isnan(r.total_reward)][-1].step == second.rows[-1].step
    assert whole.figures() == second.figures()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["dqn", "--task", "spider"], "task 'spider' is no grid; these are: gridworld, spider_grid"),
        (["sac", "--task", "gridworld"], "sac does not learn on a grid; these do: ssql, dqn"),
        (["ssql", "--task", "gridworld", "--phase", "finetune", "--from", "x"], "from nothing"),
        (["ssql", "--task", "gridworld", "--data", "x"], "learned in the world"),
        (["dqn", "--task", "gridworld", "--set", "temperature=1"], "dqn has no setting 'temperature'"),
        (["dqn", "--task", "gridworld", "--set", "explore_to=2"], "explore_to: expected a number from 0 to 1"),
        (["dqn", "--task", "gridworld", "--steps", "0"], "steps: expected at least 1"),
    ],
)
def test_what_cannot_begin_says_why(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--quiet", "--out", str(tmp_path / "run")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
