"""Behaviour policies: what they promise of their actions, property by property."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.behaviour.policy import BehaviourPolicy, Gaussian, Mixture, UniformBox, make_behaviour
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.behaviour.rooms import Rooms
from ssql_ros.behaviour.support import Support
from ssql_ros.cli.main import main
from ssql_ros.robots.minitaur.trot_mixture import TrotMixture
from ssql_ros.robots.spider import ROOMS
from ssql_ros.robots.tasks import find_task, tasks

POLICIES: dict[str, tuple[BehaviourPolicy, int]] = {
    "uniform": (UniformBox([-0.5, 0.0], [0.5, 0.2]), 2),
    "gaussian": (Gaussian([0.9, 0.0], [0.2, 0.05]), 2),
    "mixture": (Mixture([UniformBox([-1, -1], [-0.5, -0.5]), Gaussian([0.5, 0.5], [0.1, 0.1])], [1.0, 3.0]), 2),
    "rooms": (Rooms(ROOMS, 0.05), 2),
    "trots": (TrotMixture(bound=0.1), 5 + 8),
}


def states_of(policy: BehaviourPolicy, size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    states = rng.uniform(-1.0, 1.0, (n, size))
    if isinstance(policy, Rooms):
        room = policy.rooms[rng.integers(len(policy.rooms), size=n)]
        states = rng.uniform(room[:, :, 0], room[:, :, 1])
    return states


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_draws_are_supported_bounded_and_have_a_density(name: str, seed: int) -> None:
    policy, size = POLICIES[name]
    rng = np.random.default_rng(seed)
    support = policy.support(states_of(policy, size, 7, rng))
    actions = support.sample(20, rng)
    assert support.contains(actions).all()
    assert (np.abs(actions) <= 1.0 + 1e-12).all()
    assert np.isfinite(support.log_density(actions)).all()
    assert np.allclose(support.project(actions), actions)
    low, high = support.hull()
    assert ((actions >= low[:, None] - 1e-9) & (actions <= high[:, None] + 1e-9)).all()


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_projected_is_supported_and_what_is_outside_has_no_density(name: str, seed: int) -> None:
    policy, size = POLICIES[name]
    rng = np.random.default_rng(seed)
    support = policy.support(states_of(policy, size, 5, rng))
    wild = rng.uniform(-3.0, 3.0, (5, 30, support.low.shape[2]))
    assert support.contains(support.project(wild)).all()
    outside = ~support.contains(wild)
    assert np.isneginf(support.log_density(wild)[outside]).all()
    assert not support.contains(np.full_like(wild, math.nan)).any()


@pytest.mark.parametrize("name", ["uniform", "gaussian", "mixture"])
def test_the_density_integrates_to_one(name: str) -> None:
    policy, size = POLICIES[name]
    support = policy.support(np.zeros((1, size)))
    axis = np.linspace(-1.0, 1.0, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(1, -1, 2)
    # The middle of each cell, so that edges are met by half of their cells.
    cells = grid + 0.5 * (axis[1] - axis[0])
    total = np.exp(support.log_density(cells)).sum() * (axis[1] - axis[0]) ** 2
    assert total == pytest.approx(1.0, abs=0.01)


def test_draws_of_a_truncated_normal_have_its_moments() -> None:
    policy = Gaussian([0.2], [0.3], cut=2.0)
    draws = policy.support(np.zeros((1, 0))).sample(100_000, np.random.default_rng(0))
    assert draws.mean() == pytest.approx(0.2, abs=0.005)
    # Of a normal cut at two standard deviations: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
    assert draws.std() == pytest.approx(0.3 * 0.8796, abs=0.003)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_survives_its_description(name: str) -> None:
    policy, size = POLICIES[name]
    rng = np.random.default_rng(3)
    states = states_of(policy, size, 4, rng)
    again = make_behaviour(policy.describe())
    for mine, its in zip(vars(policy.support(states)).values(), vars(again.support(states)).values(), strict=True):
        assert np.array_equal(mine, its)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"kind": "magic"}, "unknown; known"),
        ({"kind": "uniform", "low": [0.5], "high": [0.0], "context": 0}, "expected -1 <= low <= high <= 1"),
        ({"kind": "uniform", "lo": [0.5]}, "'uniform'"),
        ({"kind": "trot_mixture", "gaits": ["Z"], "context": 8}, "gait 'Z' is unknown"),
        ({"kind": "trot_mixture", "bound": 0.1, "context": 0}, "expected a context of 8, got 0"),
        ({"kind": "rooms", "rooms": [[[0, 0.1], [0, 1]]], "disturbance": 0.1, "context": 0}, "wider than twice"),
        ({"kind": "gaussian", "mean": [0.0], "std": [0.0], "context": 0}, "above 0"),
        ({"kind": "mixture", "policies": [], "weights": [], "context": 0}, "weights above 0"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(description: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make_behaviour(description)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_spider_never_leaves_its_rooms(seed: int) -> None:
    task = find_task("spider")
    env, behaviour, rng = task.make(**task.world("pretrain")), task.behaviour_policy(), np.random.default_rng(seed)
    monitor = PromiseMonitor(behaviour)
    for episode in range(5):
        observation, _ = env.reset(seed=seed % 1000 + episode)
        monitor.reset()
        ended = False
        while not ended:
            action = behaviour.act(observation, rng)
            next_observation, _, terminated, truncated, info = env.step(action)
            monitor.watch(observation, action, info["incident"])
            observation, ended = next_observation, terminated or truncated
    assert monitor.breaches == 0
    assert monitor.steps > 50


@pytest.mark.parametrize("dishonest", ["bound", "incident"])
def test_a_broken_promise_is_told_in_its_first_episode(dishonest: str) -> None:
    behaviour = TrotMixture(bound=0.05)
    monitor, rng = PromiseMonitor(behaviour), np.random.default_rng(0)
    lying = TrotMixture(bound=0.5, gaits=behaviour.gaits)
    behaviour.reset(rng)
    lying.reset(rng)
    monitor.reset()
    state = np.concatenate([np.zeros(120), lying.context()])
    if dishonest == "bound":
        found = monitor.watch(state, lying.act(state[:120], rng), incident=False)
    else:
        found = monitor.watch(state, lying.context(), incident=True)
    assert len(found) == 1
    assert monitor.breaches == 1
    assert monitor.first is not None
    assert (monitor.first.step, monitor.first.episode) == (0, 0)
    assert monitor.first.what == ("an action outside of the support" if dishonest == "bound" else "an incident")
    # The count survives a checkpoint.
    other = PromiseMonitor(behaviour)
    other.restore(monitor.state())
    assert other.first == monitor.first
    assert other.breaches == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["spider", "minitaur_trots", "gridworld", "spider_grid"])
def test_the_command_tells_honest_from_dishonest(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", "promise", "--task", task, "--steps", "600", "--quiet", "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)["figures"]
    assert (told["training_steps"], told["training_incidents"], told["promise_breaches"]) == (600, 0, 0)
    assert main([*arguments, "--dishonest"]) == 0
    told = json.loads(capsys.readouterr().out)["figures"]
    assert told["promise_breaches"] > 0
    assert told.get("first_breach_episode", 0) == 0


def test_a_trot_mixture_begins_with_each_of_its_gaits_as_often_as_it_weighs() -> None:
    policy, rng = TrotMixture(("A", "G4"), weights=[1.0, 3.0]), np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        policy.reset(rng)
        drawn.append(policy.gait)
    assert drawn.count("G4") / len(drawn) == pytest.approx(0.75, abs=0.03)
    chosen = policy.with_start_weights(np.array([0.0, 1.0]))
    for _ in range(20):
        chosen.reset(rng)
        assert chosen.gait == "G4"


def test_every_task_with_a_behaviour_policy_has_a_whole_one() -> None:
    names = [name for name, task in tasks().items() if task.behaviour]
    assert {"spider", "minitaur_trots"} <= set(names)
    for name in names:
        assert find_task(name).behaviour_policy().promise
    support = Support(*(np.zeros((1, 1)), *(np.zeros((1, 1, 2)),) * 4))
    assert not support.contains(np.zeros((1, 1, 2))).any()


def test_what_a_room_holds_goes_straight_and_each_action_is_still_a_draw_from_b() -> None:
    trembling, held = (Rooms([((0.0, 60.0), (0.0, 60.0))], 0.1, hold=hold) for hold in (1, 8))
    rng = np.random.default_rng(0)
    middle = np.array([30.0, 30.0])
    actions = {}
    for policy in (trembling, held):
        policy.reset(rng)
        actions[policy.hold] = np.array([policy.act(middle, rng) for _ in range(20_000)])
    for found in actions.values():
        assert (np.abs(found) <= 1.0).all()
        np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=0.05)
        np.testing.assert_allclose(found.std(axis=0), 1.0 / math.sqrt(3.0), rtol=0.03)
    same = {hold: (np.diff(found, axis=0) == 0.0).all(axis=1).mean() for hold, found in actions.items()}
    assert same[1] == 0.0
    # Lengths 1 to 8, each as likely: 7 of 9 steps go on with what was.
    assert same[8] == pytest.approx(7.0 / 9.0, abs=0.02)
    # Near a wall the place in the box is held, not the action.
    held.reset(rng)
    for row in np.linspace(0.0, 60.0, 50):
        state = np.array([row, 30.0])
        assert held.support(state[np.newaxis]).contains(held.act(state, rng)[np.newaxis, np.newaxis]).all()
    with pytest.raises(ValueError, match="hold: expected a whole number"):
        Rooms(ROOMS, 0.1, hold=0)
