"""Judging a SafeFQL bundle on the boat: from given states, by certificate, against the true feasible set."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.safefql import SafeFQL
from ssql_ros.cli.main import main
from ssql_ros.evaluation.bundle_evaluation import evaluate_policy, read_starts
from ssql_ros.evaluation.certificates import certify, scores_of
from ssql_ros.model.bundle import ProbabilityCritic, load_bundle, save_bundle
from ssql_ros.model.policy import OneStepFlow
from ssql_ros.robots.boat.truth import WORLD, boat_solution
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.settings import settings_of
from ssql_sim.reachability import rolled
from studies.boat import feasible_set, rivals
from support.offline import bundle_of

torch.set_num_threads(1)
TASK = find_task("boat")
CONTRACT = TASK.contract()


@pytest.fixture(scope="module")
def learner():
    """Fitted in seconds to what a log would teach: Q_c the true margin, mu away from the rocks' row."""
    settings = settings_of("safefql", "boat", {"hidden": [64, 64], "actor_hidden": [32, 32], "learning_rate": 3e-3})
    made = SafeFQL(np.array([-0.5, 0.0]), np.array([1.45, 1.15]), 2, settings, 0, torch.device("cpu"))
    solution, rng = boat_solution(), np.random.default_rng(0)
    optimiser = torch.optim.Adam([made.q_c.flat, made.actor.flat], lr=3e-3)
    for _ in range(400):
        positions = rng.uniform(WORLD.low, WORLD.high, (256, 2))
        state = made.standardise(torch.as_tensor(positions, dtype=torch.float32))
        worst = torch.as_tensor(solution.worst_margin(positions), dtype=torch.float32)
        safest = torch.as_tensor(solution.safest(positions, 0, 16), dtype=torch.float32)
        proposed = made.act(state, torch.randn((256, 2)))
        margin = made.q_c(torch.cat([state, proposed.detach().clamp(-1.0, 1.0)], dim=1))[..., 0]
        loss = (margin - worst).square().mean() + (proposed - safest).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return made


@pytest.fixture
def bundle(learner, tmp_path):
    save_bundle(bundle_of(learner, CONTRACT, {"task": "boat"}), tmp_path / "boat.safetensors")
    return load_bundle(tmp_path / "boat.safetensors", CONTRACT)


@pytest.mark.long
@pytest.mark.slow
def test_evaluation_begins_where_it_is_told_and_counts_what_the_world_says(bundle):
    starts = np.array([[-0.5, 0.5], [0.8, 1.5]])  # inside a rock; past both
    figures = evaluate_policy(TASK, bundle, {}, 2, seed=0, shielded=False, starts=starts)
    policy = OneStepFlow(bundle)
    total, worst, cost = rolled(WORLD, starts, lambda p, _: policy.at(p, np.zeros_like(p)))
    assert figures["return_mean"] == pytest.approx(total.mean(), rel=1e-6)
    assert figures["cost_mean"] == cost.mean() > 0.0
    assert figures["safe_episodes"] == 0.5 == np.mean(worst <= 0.0)
    shielded = evaluate_policy(TASK, bundle, {}, 2, seed=0, shielded=True, starts=starts)
    assert shielded["interventions_per_step"] > 0.0  # inside the rock nothing is below delta


@pytest.mark.slow
def test_certificate_is_stored_read_back_and_true(bundle, capsys):
    path = bundle.path
    assert main(["certify", path, "--states", "1500", "--epsilon-s", "0.05", "--quiet", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    found = load_bundle(path, CONTRACT)
    assert found.critic.delta == figures["delta"] <= 0.0
    assert found.critic.certificate["epsilon_s"] == 0.05
    assert "With confidence 0.99" in found.critic.certificate["statement"]
    assert found.critic.certificate["n"] == 1500
    # It holds on states of another seed.
    states = np.random.default_rng(5).uniform(WORLD.low, WORLD.high, (3000, 2))
    states = states[scores_of(found, states) < found.critic.delta]
    policy = OneStepFlow(found)
    worst = rolled(WORLD, states, lambda p, _: policy.at(p, np.zeros_like(p)))[1]
    assert np.mean(worst > 0.0) <= 0.05
    # And in area: who cannot stay safe at all is unsafe under any policy.
    assert feasible_set(found, None, 0)["false_safe_share"] <= 0.05


@pytest.mark.slow
def test_dry_run_leaves_the_bundle(bundle):
    assert main(["certify", bundle.path, "--states", "300", "--epsilon-s", "0.2", "--dry-run", "--quiet"]) == 0
    assert load_bundle(bundle.path, CONTRACT).id == bundle.id


@pytest.mark.slow
def test_certifying_needs_a_critic_of_margins_and_states(bundle):
    with pytest.raises(ValueError, match="at least 1"):
        certify(bundle, TASK, 0, 0.01, 0.01, 0)
    with pytest.raises(ValueError, match="critic of margins"):
        certify(replace(bundle, critic=ProbabilityCritic.of(bundle.critic, 0.1, 0.9)), TASK, 10, 0.01, 0.01, 0)


@pytest.mark.slow
def test_picture_of_one_set_over_the_other(bundle, tmp_path):
    figures = feasible_set(bundle, tmp_path / "sets.png", 0)
    assert (tmp_path / "sets.png").stat().st_size > 10_000
    assert figures["true_safe"] == pytest.approx(0.93, abs=0.005)
    assert figures["learned_safe"] + 1.0 > figures["false_safe_share"] >= 0.0


@pytest.mark.slow
def test_rivals_are_judged_from_the_same_starts(bundle, learner):
    teacher = learner.exported(learner.teacher)
    figures = rivals(bundle, teacher, teacher, [1, 2], episodes=4, seed=0, show=False)
    names = {"safefql_n1", "safeifql_n1", "safeifql_n2", "fisor_like_n1", "fisor_like_n2"}
    assert set(figures) == {f"{name}_{figure}" for name in names for figure in ("return", "cost", "safe")}
    assert all(np.isfinite(value) for value in figures.values())


def test_states_of_a_file(tmp_path):
    path = tmp_path / "states.csv"
    path.write_text("y,x,note\n0.5,-2.0,a\n-1.0,1.25,b\n")
    assert read_starts(path, CONTRACT).tolist() == [[-2.0, 0.5], [1.25, -1.0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,z\n0,0\n", "expected a column y, but it is missing: the header has x, z"),
        ("x,y\n", "at least one line"),
        ("x,y\n0,0\n1,nan\n", "line 3: y: expected a finite number, got 'nan'"),
        ("x,y\n0\n", "line 2: y"),
    ],
)
def test_bad_file_of_states_is_named(tmp_path, text, said):
    path = tmp_path / "states.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        read_starts(path, CONTRACT)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read"):
        read_starts(tmp_path / "none.csv", CONTRACT)


def test_command_evaluates_from_a_file(bundle, tmp_path, capsys):
    path = tmp_path / "states.csv"
    path.write_text("x,y\n0.8,1.5\n0.9,-1.5\n")
    common = ["eval", "policy", "--task", "boat", "--bundle", bundle.path, "--initial-states", str(path), "--quiet"]
    assert main([*common, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert figures["episodes"] == 2
    assert figures["safe_episodes"] == 1.0
    assert main([*common, "--episodes", "3"]) == 2
    assert "has only 2 states" in capsys.readouterr().err
    path.write_text("x,y\n9,9\n")
    assert main(common) == 2
    assert "a position lies in" in capsys.readouterr().err
