"""SafeFQL's equations against closed forms and exact dynamic programming; what it serves; that it learns."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.safefql import SafeFQL, SafeFQLSettings, expectile_loss, gated_loss, reachability_target
from ssql_ros.data.logged_steps import Log, OfflineBatch, OfflineData, load_log, save_log
from ssql_ros.model.activation import gelu
from ssql_ros.model.bundle import Rule, load_bundle, save_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.policy import OneStepFlow, make_policy
from ssql_ros.model.served_network import q_values
from ssql_ros.robots.boat.truth import boat_log
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.plan import Plan
from ssql_ros.training.run import run
from ssql_ros.training.settings import settings_of
from support.offline import bundle_of, whole_and_broken

torch.set_num_threads(1)
CPU = torch.device("cpu")
CONTRACT = find_task("boat").contract()
TINY = {"hidden": [32, 32], "actor_hidden": [32, 32], "batch": 64, "actor_batch": 64}


def learner(seed: int = 0, **changed) -> SafeFQL:
    return SafeFQL(
        np.array([-0.5, 0.0]),
        np.array([1.4, 1.1]),
        2,
        settings_of("safefql", "boat", {**TINY, **changed}),
        seed,
        CPU,
    )


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_minimiser_of_the_expectile_loss_is_the_expectile(tau):
    """Of two values 0 and 1, equally likely, the tau-expectile is tau."""
    shifts = torch.linspace(0.0, 1.0, 1001)
    losses = torch.stack([expectile_loss(torch.tensor([0.0, 1.0]) - shift, tau) for shift in shifts])
    assert shifts[losses.argmin()] == pytest.approx(tau, abs=1e-3)


def test_reachability_targets_reach_the_dynamic_programmes_values_on_a_chain():
    """Seven states in a row, steps left and right; the left end is a failure, and pulls from the second state on."""
    margin = torch.tensor([1.0, -0.5, -1.0, -2.0, -1.0, -0.4, -1.0])
    next_observation = torch.tensor([[0, 0], [0, 0], [1, 3], [2, 4], [3, 5], [4, 6], [5, 6]])
    # Exact, without discount: V = min over a of max(l, V(s')), from V = l.
    exact = margin.clone()
    for _ in range(20):
        exact = torch.maximum(margin, exact[next_observation].amin(dim=1))
    assert exact.tolist() == pytest.approx([1.0, 1.0, -1.0, -1.0, -1.0, -0.4, -1.0])
    alive = torch.zeros(7)
    for gamma, error in ((0.99, 0.05), (0.999, 0.005)):
        value = margin.clone()
        for _ in range(20_000 if gamma > 0.99 else 3000):
            targets = [reachability_target(margin, value[next_observation[:, a]], alive, gamma) for a in range(2)]
            value = torch.minimum(*targets)
        assert (value - exact).abs().max() <= error
        assert ((value < 0.0) == (exact < 0.0)).all()


def test_terminal_target_is_the_margin():
    margin, ended = torch.tensor([0.3, -0.2]), torch.ones(2)
    found = reachability_target(margin, torch.tensor([9.0, 9.0]), ended, 0.9)
    assert found.tolist() == pytest.approx(margin.tolist())


def test_gate_is_reward_or_safety_never_both():
    q_r, q_c = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([-0.5, 0.4], requires_grad=True)
    loss = gated_loss(q_r, q_c, gate=0.0, weight=10.0)
    assert loss.item() == pytest.approx((-2.0 + 10.0 * 0.4) / 2)
    to_r, to_c = torch.autograd.grad(loss, (q_r, q_c))
    assert to_r.tolist() == [-0.5, 0.0]
    assert to_c.tolist() == [0.0, 5.0]


def test_gate_keeps_its_distance():
    q_c = torch.tensor([-0.01], requires_grad=True)
    loss = gated_loss(torch.tensor([2.0]), q_c, gate=0.05, weight=10.0)
    assert loss.item() == pytest.approx(10.0 * 0.04)
    assert torch.autograd.grad(loss, q_c)[0].item() == 10.0


def log_of(lengths: list[int], terminal_last: bool = False) -> Log:
    n = sum(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    terminal = np.zeros(n)
    if terminal_last:
        terminal[np.cumsum(lengths) - 1] = 1.0
    return Log(
        observation=np.arange(n, dtype=float)[:, None],
        action=np.zeros((n, 1)),
        reward=np.arange(n, dtype=float),
        margin=-np.arange(n, dtype=float),
        terminal=terminal,
        episode=episode,
        ending=np.full(n, 7.0) if terminal_last else None,
    )


def rows_of(data: OfflineData) -> dict[float, dict[str, float]]:
    """The columns of each transition, by the observation that it begins with."""
    batch = data.draw(500, torch.Generator().manual_seed(0))
    names = [name for name in OfflineBatch.__dataclass_fields__ if name != "action"]
    return {
        float(batch.observation[i]): {name: float(getattr(batch, name).reshape(500, -1)[i, 0]) for name in names}
        for i in range(500)
    }


def test_transitions_over_n_steps_do_not_cross_episodes():
    rows = rows_of(OfflineData(log_of([4, 3]), n_step=2, gamma=0.5, device=CPU))
    # Rows 0, 1 of the first and row 4 of the second have a state two steps on.
    assert sorted(rows) == [0.0, 1.0, 4.0]
    assert rows[1.0] == {
        "observation": 1.0,
        "reward": 2.0,
        "margin": -1.0,
        "next_observation": 3.0,
        "terminal": 0.0,
        "cost": 0.0,
    }
    assert rows[4.0]["reward"] == pytest.approx(4.0 + 0.5 * 5.0)


def test_transitions_up_to_a_terminal_are_kept():
    rows = rows_of(OfflineData(log_of([4], terminal_last=True), n_step=3, gamma=1.0, device=CPU))
    assert sorted(rows) == [0.0, 1.0, 2.0, 3.0]
    assert rows[0.0]["terminal"] == 0.0
    # The margin of the state that ended it counts, where it lies within the steps.
    assert (rows[2.0]["terminal"], rows[2.0]["reward"], rows[2.0]["margin"]) == (1.0, 5.0, 7.0)
    assert (rows[1.0]["terminal"], rows[1.0]["margin"]) == (1.0, 7.0)
    assert rows[0.0]["margin"] == 0.0


def test_margins_of_endings_come_from_the_contract(tmp_path):
    """A data set out of a bag has the state that ended an episode, not its margin."""
    log = boat_log(2, seed=0)
    terminal = np.zeros(len(log.reward), bool)
    terminal[[399, 799]] = True
    after = np.full((800, 2), [-0.5, 0.5])
    save_log(replace(log, terminal=terminal, ending=np.zeros(800), next_observation=after), tmp_path / "set", {})
    found = load_log(tmp_path / "set", CONTRACT)[0]
    assert found.ending[[399, 799]] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="margin of every state that ended"):
        replace(found, ending=None)


def test_too_short_episodes_are_refused():
    with pytest.raises(ValueError, match="more than 5 steps"):
        OfflineData(log_of([4, 3]), n_step=5, gamma=0.9, device=CPU)


@pytest.mark.long
@pytest.mark.slow
def test_flow_of_a_known_gaussian_has_its_moments():
    """Trained on a ~ N((0.3, -0.2), 0.1^2) everywhere, the teacher and the one-step actor draw from it."""
    made = learner(alpha=1.0, safety_weight=1e-3, learning_rate=3e-3, flow_steps=10)
    # No word from critics: the actor is the teacher's alone.
    with torch.no_grad():
        for critic in (made.q_r, made.q_c):
            critic.flat.zero_()
    generator, centre = torch.Generator().manual_seed(1), torch.tensor([0.3, -0.2])
    states = torch.zeros((256, 2))
    for _ in range(500):
        action = centre + 0.1 * torch.randn((256, 2), generator=generator)
        made.update_actors(OfflineBatch(states, action, *[torch.zeros(256)] * 2, states, *[torch.zeros(256)] * 2))
    with torch.no_grad():
        noise, state = torch.randn((2000, 2), generator=generator), made.standardise(torch.zeros((2000, 2)))
        for drawn in (made.teach(state, noise), made.act(state, noise)):
            assert drawn.mean(dim=0).tolist() == pytest.approx(centre.tolist(), abs=0.03)
            assert drawn.std(dim=0).tolist() == pytest.approx([0.1, 0.1], abs=0.03)


def test_numpys_gelu_is_torchs():
    x = np.linspace(-8.0, 8.0, 4001, dtype=np.float32)
    assert gelu(x) == pytest.approx(torch.nn.functional.gelu(torch.from_numpy(x)).numpy(), abs=3e-6)


@pytest.fixture
def served(tmp_path):
    made = learner(seed=3)
    with torch.no_grad():
        for ensemble in (made.q_c, made.actor):
            ensemble.flat.add_(0.05 * torch.randn(ensemble.flat.shape, generator=torch.Generator().manual_seed(5)))
    save_bundle(bundle_of(made, CONTRACT, {"task": "boat"}), tmp_path / "b.safetensors")
    return made, load_bundle(tmp_path / "b.safetensors", CONTRACT)


def test_served_policy_and_critic_are_what_was_learned(served):
    made, bundle = served
    rng = np.random.default_rng(0)
    observations, noise = rng.uniform((-3, -2), (2, 2), (40, 2)), rng.standard_normal((40, 2))
    policy, critic = make_policy(bundle), SafetyCritic(bundle)
    assert isinstance(policy, OneStepFlow)
    with torch.no_grad():
        state = made.standardise(torch.as_tensor(observations, dtype=torch.float32))
        action = made.act(state, torch.as_tensor(noise, dtype=torch.float32)).clamp(-1.0, 1.0)
        margin = made.q_c(torch.cat([state, action], dim=1))[..., 0].amax(dim=0).numpy()
    assert policy.at(observations, noise) == pytest.approx(action.numpy(), abs=1e-5)
    assert policy.best(observations[0]) == pytest.approx(policy.at(observations[0], np.zeros(2)))
    assert q_values(bundle.critic, observations, action.numpy()).max(axis=0) == pytest.approx(margin, abs=1e-5)
    # One action by NumPy, several by onnxruntime.
    for observation, one, expected in zip(observations, action.numpy(), margin, strict=True):
        assert float(critic.logits(observation, one[None])[0]) == pytest.approx(expected, abs=1e-5)
        assert critic.logits(observation, np.stack([one, one])) == pytest.approx([expected] * 2, abs=1e-5)


def test_bundle_says_what_it_is(served):
    _, bundle = served
    assert (bundle.policy_kind, bundle.rule, bundle.critic.delta) == ("one_step_flow", Rule.MARGIN, 0.0)
    assert bundle.policy.activation == "gelu"
    with pytest.raises(ValueError, match="one_step_flow"):
        OneStepFlow(replace(bundle, policy_kind="squashed_gaussian"))


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "boat"
    save_log(boat_log(60, seed=0), folder, {"contract_id": CONTRACT.id})
    return folder


@pytest.mark.long
@pytest.mark.slow
def test_learns_where_the_rocks_are_in_seconds(data_set):
    """What lies ahead of the first rock is worse than what lies beside it, and V_r rises towards the goal."""
    made = learner(batch=128, hidden=[64, 64], learning_rate=2e-3)
    data = OfflineData(load_log(data_set, CONTRACT)[0], made.settings.n_step, made.settings.gamma, CPU)
    for step in range(600):
        made.learn(step, 1200, data)  # the critics' part: actors begin later
    with torch.no_grad():
        state = made.standardise(torch.tensor([[-1.1, 0.5], [-1.1, 1.7], [-0.5, 0.5], [1.5, 0.0], [-2.5, 0.0]]))
        ahead, beside, inside, goal, far = made.v_c(state)[0, :, 0].tolist()
        v_r = made.v_r(state)[0, :, 0].tolist()
    assert beside < -0.2
    assert min(ahead, inside) > beside + 0.2
    assert v_r[3] > v_r[4]
    assert max(goal, far) < inside


def test_run_goes_on_from_its_checkpoint_to_the_same_bundle(data_set, tmp_path):
    def plan(steps: int = 30) -> Plan:
        return Plan("safefql", "boat", steps, 1, data=str(data_set), settings=dict(TINY), checkpoint_every=10)

    whole, again = whole_and_broken(SafeFQL, plan, tmp_path)
    assert again == whole
    bundles = [load_bundle(tmp_path / name / "bundle.safetensors", CONTRACT) for name in ("whole", "broken")]
    for one, other in zip(*(b.policy.members[0] for b in bundles), strict=True):
        assert np.array_equal(one.weight, other.weight)
    assert json.loads((tmp_path / "whole" / "figures.json").read_text())["plan"]["steps"] == 30
    with pytest.raises(ValueError, match="holds a run with steps 30, not 31"):
        run(plan(31), tmp_path / "whole", {}, show=False)


def test_settings_are_checked_by_name():
    assert settings_of("safefql", "other", {}) == SafeFQLSettings()
    for changed, said in (
        ({"alhpa": 1.0}, "no setting 'alhpa'"),
        ({"activation": "tanh"}, "relu or gelu"),
        ({"gate": -0.1}, "from 0 on"),
        ({"expectile": 1.5}, "from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=said):
            settings_of("safefql", "boat", changed)


def test_data_set_errors_name_the_file(data_set, tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.json"):
        load_log(tmp_path, CONTRACT)
    for name in ("reward.npy", "margin.npy"):
        broken = tmp_path / name.split(".")[0]
        save_log(boat_log(2, seed=0), broken, {})
        (broken / name).write_bytes(b"\x93NUMPY")
        with pytest.raises(ValueError, match=name):
            load_log(broken, CONTRACT)
    save_log(boat_log(2, seed=0), tmp_path / "other", {"contract_id": "spider-1"})
    with pytest.raises(ValueError, match="was made by contract spider-1"):
        run(Plan("safefql", "boat", 1, 0, data=str(tmp_path / "other")), tmp_path / "run", {}, show=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="never overwrites"):
        save_log(boat_log(2, seed=0), data_set, {})
    log = load_log(data_set, CONTRACT)[0]
    with pytest.raises(ValueError, match="reward: has values that are not finite"):
        replace(log, reward=np.full_like(log.reward, np.nan))
    with pytest.raises(ValueError, match="margin: expected"):
        replace(log, margin=log.margin[:5])


def test_every_offline_learner_reads_what_a_collector_writes_and_an_old_log_says_what_to_do(data_set, tmp_path):
    small = {"hidden": [16, 16], "batch": 32}
    figures = run(Plan("cql", "boat", 3, 0, data=str(data_set), settings=small), tmp_path / "cql", {}, show=False)
    assert figures["transitions"] == 60 * 400
    assert figures["log_incidents"] == np.count_nonzero(boat_log(60, seed=0).incident)
    # Before there was one format, logs of simulated worlds told neither what follows a step nor its incident.
    old = tmp_path / "old"
    shutil.copytree(data_set, old)
    manifest = json.loads((old / "manifest.json").read_text())
    for name in ("next_observation", "incident", "stamp"):
        del manifest["columns"][name]
    (old / "manifest.json").write_text(json.dumps({**manifest, "format": 1, "command": "ssql collect --task boat"}))
    plan = Plan("safefql", "boat", 3, 0, data=str(old), settings={**TINY, "n_step": 4})
    assert run(plan, tmp_path / "safefql", {}, show=False)["steps"] == 3
    with pytest.raises(ValueError, match="collect it again into another folder, by: ssql collect --task boat"):
        run(Plan("cql", "boat", 3, 0, data=str(old), settings=small), tmp_path / "refused", {}, show=False)
    assert not (tmp_path / "refused").exists()
