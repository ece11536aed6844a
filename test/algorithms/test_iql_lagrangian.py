"""IQL with a Lagrangian: the price against closed forms; that it learns, what it serves, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.dual_ascent import ascended
from ssql_ros.algorithms.iql_lagrangian import IQLLagrangian, IQLLagrangianSettings, discounted_budget
from ssql_ros.cli.main import main
from ssql_ros.data.logged_steps import Log, OfflineBatch, OfflineData, save_log
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.policy import make_policy
from ssql_ros.robots.boat.truth import boat_log
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.log_training import reopened
from ssql_ros.training.plan import Plan
from ssql_ros.training.run import run
from ssql_ros.training.settings import settings_of
from support.offline import whole_and_broken

torch.set_num_threads(1)
CPU = torch.device("cpu")
CONTRACT = find_task("boat").contract()
TINY = {"hidden": [32, 32], "actor_hidden": [32, 32], "batch": 64, "starts": 16}
BETA, GAMMA = 3.0, 0.9


def two_actions() -> OfflineData:
    """One state, one step: action 1/2 pays 1 and ends in a failure, action -1/2 neither. Both as often in the log."""
    action = np.tile([0.5, -0.5], 50)
    dares = (action > 0.0).astype(float)
    observation, safe = np.zeros((100, 1)), -np.ones(100)
    log = Log(observation, action[:, None], dares, safe, np.ones(100), np.arange(100), np.where(dares > 0.0, 1.0, -1.0))
    return OfflineData(log, n_step=1, gamma=GAMMA, device=CPU)


def bandit_learner(price: float = 0.0, **changed) -> IQLLagrangian:
    small = {"hidden": (16, 16), "actor_hidden": (16, 16), "batch": 64, "learning_rate": 3e-3, "tau": 0.1, "starts": 1}
    problem = {"gamma": GAMMA, "sharpness": BETA, "expectile": 0.7, "most_price": 5.0}
    settings = IQLLagrangianSettings(**{**small, **problem, **changed})
    made = IQLLagrangian(np.zeros(1), np.ones(1), 1, settings, 0, CPU)
    made.price = price
    return made


@pytest.mark.parametrize(("cost", "limit", "goes"), [(0.3, 0.1, 1.2), (0.1, 0.3, 0.8), (0.2, 0.2, 1.0)])
def test_the_price_rises_above_the_limit_falls_below_it_and_rests_on_it(cost, limit, goes):
    assert ascended(torch.tensor(1.0), torch.tensor(cost), limit, rate=1.0, most=10.0).item() == pytest.approx(goes)


def test_the_price_stays_between_nothing_and_its_ceiling():
    assert ascended(torch.tensor(0.05), torch.tensor(0.0), 0.3, rate=1.0, most=10.0) == 0.0
    assert ascended(torch.tensor(9.9), torch.tensor(0.3), 0.0, rate=1.0, most=10.0) == 10.0


def test_the_budget_is_discounted_as_the_cost_is():
    """b / H failures expected at each of H steps have this discounted sum."""
    expected = sum(0.97**t * 3.0 / 50 for t in range(50))
    assert discounted_budget(3.0, 50, 0.97) == pytest.approx(expected)
    assert discounted_budget(3.0, 50, 1.0) == 3.0
    assert discounted_budget(0.0, 50, 0.97) == 0.0


@pytest.mark.long
def test_dual_ascent_comes_to_the_constrained_optimum_of_two_actions():
    """Of all p = P(1/2), p - KL(p || 1/2) / beta is greatest under gamma p <= b at p = b / gamma, where b binds.

    There the policy ~ exp(beta (r - lambda c)) has p = sigma(beta (1 - lambda gamma)), hence lambda.
    """
    budget = 0.27
    p = budget / GAMMA
    expected = (1.0 - np.log(p / (1.0 - p)) / BETA) / GAMMA
    made, data = bandit_learner(cost_budget=budget, price_rate=5e-3, decay_from=0.5), two_actions()
    prices = []
    for step in range(3000):
        told = made.learn(step, 3000, data)
        prices.append(made.price)
    assert np.mean(prices[-500:]) == pytest.approx(expected, rel=0.05)
    assert float(told["discounted_cost"]) == pytest.approx(budget, rel=0.1)
    # The policy's own mean of its two actions.
    mean, _ = made.actor.distribution(torch.zeros(1, 1))
    assert float(torch.tanh(mean).detach()) < 0.0
    pairs = torch.tensor([[0.0, 0.5], [0.0, -0.5]])
    q_c, q = made.q_c(pairs)[0, :, 0].detach(), made.q(pairs)[:, :, 0].detach()
    assert q_c.tolist() == pytest.approx([GAMMA, 0.0], abs=0.05)
    assert q[0].tolist() == pytest.approx([1.0 - expected * GAMMA, 0.0], abs=0.08)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("budget", "price", "ends"), [(0.95, 1.0, 0.0), (0.0, 0.0, 5.0)])
def test_a_budget_that_does_not_bind_costs_nothing_and_one_of_nothing_all(budget, price, ends):
    made, data = bandit_learner(price, cost_budget=budget, price_rate=0.05), two_actions()
    for step in range(1200):
        made.learn(step, 1200, data)
    assert made.price == pytest.approx(ends, abs=0.05)


@pytest.mark.slow
def test_the_cost_critic_evaluates_the_policy_not_the_log():
    """At a fixed price V_c is what pi ~ b exp(beta A) costs: gamma sigma(beta (1 - lambda gamma)), not gamma / 2."""
    price, data = 2.0, two_actions()
    made = bandit_learner(price, cost_budget=0.5, decay_from=0.5)
    for step in range(1200):
        made.learn(step, 1200, data)
        made.price = price
    expected = GAMMA / (1.0 + np.exp(-BETA * (1.0 - price * GAMMA)))
    assert expected < 0.1
    assert float(made.v_c(torch.zeros(1, 1)).detach()) == pytest.approx(expected, abs=0.03)


def test_costs_over_n_steps_are_counted_in_the_failure_set_and_at_the_end():
    margin = np.array([-1.0, 0.0, 2.0, -1.0, 1.0])
    rows = np.arange(5.0)
    log = Log(
        rows[:, None],
        np.zeros((5, 1)),
        rows,
        margin,
        np.array([0.0, 0, 0, 0, 1]),
        np.zeros(5),
        np.array([0, 0, 0, 0, 3.0]),
    )
    batch = OfflineData(log, n_step=2, gamma=0.5, device=CPU).draw(300, torch.Generator().manual_seed(0))
    found = {float(o): float(c) for o, c in zip(batch.observation[:, 0], batch.cost, strict=True)}
    # l = 0 is no failure. What ended it counts one step on.
    assert found == {0.0: 0.0, 1.0: 0.5, 2.0: 1.0, 3.0: 0.5 + 0.25, 4.0: 1.0 + 0.5}
    data = OfflineData(replace(log, terminal=np.zeros(5), episode=np.array([0, 0, 1, 2, 2])), 1, 0.5, CPU)
    # The second of three episodes begins in a failure.
    assert (data.starts[:, 0].tolist(), data.length) == ([0.0, 3.0], pytest.approx(5 / 3))


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "boat"
    save_log(boat_log(60, seed=0), folder, {"contract_id": CONTRACT.id})
    return folder


@pytest.mark.slow
def test_it_learns_what_rocks_cost_in_seconds():
    small = {"hidden": [64, 64], "batch": 128, "learning_rate": 2e-3, "sharpness": 3.0, "gamma": 0.99}
    settings = settings_of("iql_lagrangian", "boat", {**TINY, **small})
    made = IQLLagrangian(np.array([-0.5, 0.0]), np.array([1.4, 1.1]), 2, settings, 0, CPU)
    data = OfflineData(boat_log(60, seed=0), settings.n_step, settings.gamma, CPU)
    for step in range(700):
        told = made.learn(step, 1400, data)
    with torch.no_grad():
        state = made.standardise(torch.tensor([[-0.5, 0.5], [-1.1, 1.7], [1.5, 0.0], [-2.5, 0.0]]))
        inside, beside, goal, far = made.v_c(state)[0, :, 0].tolist()
        v = made.v(state)[0, :, 0].tolist()
    assert inside > max(beside, goal, far) + 0.1  # five steps
    assert v[2] > v[3]
    assert float(told["price"]) > 0.0


def test_a_run_ends_in_a_policy_and_goes_on_from_its_checkpoint_to_the_same(data_set, tmp_path, capsys):
    def plan(steps: int = 30) -> Plan:
        return Plan("iql_lagrangian", "boat", steps, 1, data=str(data_set), settings=dict(TINY), checkpoint_every=10)

    whole, again = whole_and_broken(IQLLagrangian, plan, tmp_path)
    assert again == whole
    assert whole["price"] > 0.0
    bundle = load_bundle(tmp_path / "whole" / "bundle.safetensors", CONTRACT)
    assert (bundle.policy_kind, bundle.critic, bundle.behaviour) == ("squashed_gaussian", None, {})
    assert np.abs(make_policy(bundle).best(np.zeros(2))).max() <= 1.0
    with pytest.raises(ValueError, match="expected a run of safefql, got one of iql_lagrangian"):
        reopened(tmp_path / "whole")
    # Of another algorithm the folder is another run.
    with pytest.raises(ValueError, match="holds a run with"):
        run(Plan("safefql", "boat", 30, 1, data=str(data_set)), tmp_path / "whole", {}, show=False)
    judged = ["eval", "policy", "--task", "boat", "--bundle", str(bundle.path), "--episodes", "2"]
    assert main([*judged, "--unshielded", "--quiet", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert figures["episodes"] == 2
    assert np.isfinite([figures["return_mean"], figures["cost_mean"]]).all()


def test_one_command_learns_from_a_data_set(data_set, tmp_path, capsys):
    command = ["train", "iql_lagrangian", "--data", str(data_set), "--task", "boat", "--out", str(tmp_path / "run")]
    small = ["--steps", "20", "--set", "hidden=[16,16]", "actor_hidden=[16,16]", "cost_budget=0"]
    assert main([*command, *small, "--quiet", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert (figures["steps"], figures["discounted_budget"]) == (20, 0.0)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["plan"]["algorithm"], config["settings"]["cost_budget"]) == ("iql_lagrangian", 0.0)
    assert main([*command, "--set", "cost_budget=-1", "--quiet"]) == 2
    assert "setting cost_budget: expected a number from 0 on, got -1" in capsys.readouterr().err


def test_what_cannot_be_learned_is_refused(data_set, tmp_path):
    for changed, said in (
        ({"safety_weight": 1.0}, "iql_lagrangian has no setting 'safety_weight'"),
        ({"price_rate": 0.0}, "price_rate: expected a number above 0"),
        ({"most_price": float("nan")}, "most_price: expected a number above 0"),
        ({"starts": 0}, "starts: expected a whole number"),
        ({"expectile": 2.0}, "expectile: expected a number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=said):
            settings_of("iql_lagrangian", "boat", changed)
    with pytest.raises(ValueError, match="sac does not learn from a log; these do: ssql, cql, iql, safefql"):
        Plan("sac", "boat", 1, 0, data=str(data_set))
    log = boat_log(2, seed=0)
    save_log(replace(log, margin=np.ones_like(log.margin)), tmp_path / "failed", {"contract_id": CONTRACT.id})
    with pytest.raises(ValueError, match="every episode begins in the failure set"):
        run(Plan("iql_lagrangian", "boat", 1, 0, data=str(tmp_path / "failed")), tmp_path / "run", {}, False)
    assert not (tmp_path / "run").exists()


def test_shapes_and_numbers_of_the_losses_are_the_equations():
    """With networks that are zero every loss has a closed form."""
    made = bandit_learner(price=2.0, expectile=0.7)
    with torch.no_grad():
        for ensemble in made._parts()["networks"].values():
            ensemble.flat.zero_()
    zero, ones = torch.zeros((4, 1)), torch.ones(4)
    batch = OfflineBatch(zero, zero, ones, -ones, zero, 0.0 * ones, 3.0 * ones)
    losses = {name: float(loss.detach()) for name, loss in made.losses(batch).items()}
    # w = 1, of a standard normal at 0; y = 1 - 2 * 3, of two critics.
    expected = {"v": 0.0, "q": 2 * 25.0, "actor": 0.5 * np.log(2 * np.pi), "v_c": 0.0, "q_c": 9.0}
    assert losses == pytest.approx(expected, abs=1e-5)
