"""From a bag to a bundle by one command: SSQL, CQL, IQL and SafeFQL, on what a walk's recorder has written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ssql_ros.bags.data_set import Source, data_set_of
from ssql_ros.behaviour.policy import make_behaviour
from ssql_ros.cli.main import main
from ssql_ros.data.data_set import DataSet
from ssql_ros.data.logged_transitions import LoggedTransitions
from ssql_ros.data.rewards import reward_of
from ssql_ros.model.bundle import Rule, load_bundle
from ssql_ros.model.policy import make_policy
from ssql_ros.training.log_training import TransitionTraining
from ssql_ros.training.plan import Plan
from ssql_ros.training.run import repeat
from support.logs import TASK, record_trots

torch.set_num_threads(1)
EPISODES, STEPS = 3, 100
SMALL = ["hidden=[16,16]", "batch=64", "learning_rate=0.003", "tau=0.05"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    path = tmp_path_factory.mktemp("bags") / "trots"
    return path, record_trots(path, EPISODES, STEPS)


@pytest.fixture
def bag(recorded: tuple[Path, list[float]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded[0], tmp_path / "trots"))


def train(algorithm: str, bag: Path, out: Path, *more: str) -> list[str]:
    command = ["train", algorithm, "--bag", str(bag), "--task", TASK.name, "--out", str(out), "--quiet", "--json"]
    return [*command, *more]


def figures_of(text: str) -> dict[str, float]:
    return json.loads(text.splitlines()[-1])["figures"]


@pytest.mark.slow
def test_ssql_learns_from_a_bag_by_one_command(bag: Path, recorded, tmp_path: Path, capfd) -> None:
    small = ["--set", *SMALL, "extraction_updates=100", "samples=4", "extraction_samples=4"]
    command = train("ssql", bag, tmp_path / "run", "--steps", "300", "--episodes", "1", *small)
    assert main(command) == 0
    told = capfd.readouterr()
    figures = figures_of(told.out)
    assert (figures["transitions"], figures["left_out"]) == (EPISODES * (STEPS - 1), EPISODES)
    assert figures["log_incidents"] == figures["outside_support"] == 0
    assert f"{EPISODES * STEPS} transitions in {EPISODES} episodes, 0 ended by an incident" in told.err
    # The rewards are those of the task's world, by its goal of 0.4 m/s.
    data = DataSet(bag.with_name("trots_transitions"))
    assert np.allclose(data["reward"], recorded[1], atol=1e-6)
    # What was learned drives the robot inside of b's support.
    bundle = load_bundle(tmp_path / "run" / "bundle.safetensors", TASK.contract())
    assert bundle.policy_kind == "supported_gaussian"
    assert bundle.provenance["data"]["sources"] == data.manifest["sources"]
    policy, behaviour, rng = make_policy(bundle), TASK.behaviour_policy(), np.random.default_rng(0)
    policy.reset(rng)
    for row in range(20):
        context, observation = policy.context(), np.asarray(data["observation"][row], float)
        state = np.concatenate([observation, context])
        action = policy.propose(observation, rng).action
        assert behaviour.support(state[np.newaxis]).contains(action[np.newaxis, np.newaxis]).all()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["cql", "iql"])
def test_cql_and_iql_learn_from_a_bag_without_a_behaviour_policy(bag: Path, tmp_path: Path, algorithm, capfd) -> None:
    assert main(train(algorithm, bag, tmp_path / "run", "--steps", "100", "--episodes", "1", "--set", *SMALL)) == 0
    figures = figures_of(capfd.readouterr().out)
    assert (figures["transitions"], figures["left_out"], figures["outside_support"]) == (EPISODES * STEPS, 0, 0)
    bundle = load_bundle(tmp_path / "run" / "bundle.safetensors", TASK.contract())
    assert (bundle.policy_kind, bundle.behaviour) == ("squashed_gaussian", {})
    assert bundle.need("policy").observation_mean.shape == (120,)


def test_safefql_learns_from_a_bag_by_one_command(bag: Path, tmp_path: Path, capfd) -> None:
    small = ["hidden=[16,16]", "actor_hidden=[16,16]", "batch=32", "actor_batch=32"]
    assert main(train("safefql", bag, tmp_path / "run", "--steps", "60", "--set", *small)) == 0
    assert figures_of(capfd.readouterr().out)["transitions"] > EPISODES * STEPS / 2
    assert load_bundle(tmp_path / "run" / "bundle.safetensors", TASK.contract()).rule is Rule.MARGIN


@pytest.mark.parametrize("stopped_at", [50, 90])
def test_a_run_that_was_stopped_goes_on_from_its_checkpoint_and_learns_the_same(
    bag: Path, tmp_path, stopped_at
) -> None:
    contract = TASK.contract()
    data = data_set_of(Source((bag,), contract, reward_of(contract)), tmp_path / "set", {})
    small = {"hidden": (16, 16), "batch": 32, "extraction_updates": 40, "samples": 4, "extraction_samples": 4}

    def training(seed: int) -> TransitionTraining:
        return TransitionTraining(Plan("ssql", TASK.name, 60, seed, data=str(data.path), settings=small))

    whole, first, second = training(0), training(0), training(1)
    step = first.learner.step

    def stopped(number: int) -> dict[str, torch.Tensor]:
        if number == stopped_at:
            raise KeyboardInterrupt
        return step(number)

    first.learner.step = stopped
    assert whole.steps == 100
    repeat(whole, tmp_path / "whole", 40, "", show=False)
    with pytest.raises(KeyboardInterrupt):
        repeat(first, tmp_path / "stopped", 40, "", show=False)
    # Its own beginning counts for nothing: everything is in the checkpoint, of stage 1 at 50, of stage 2 at 90.
    repeat(second, tmp_path / "stopped", 40, "", show=False)
    whole, second = whole.learner, second.learner
    for name, network in whole.algorithm.networks().items():
        for mine, its in zip(second.algorithm.networks()[name].members, network.members, strict=True):
            assert all(np.array_equal(a.weight, b.weight) for a, b in zip(mine, its, strict=True))
    assert second.behaviour_description() == whole.behaviour_description()


def test_only_rows_whose_context_is_known_are_drawn(bag: Path, tmp_path: Path) -> None:
    contract, behaviour = TASK.contract(), TASK.behaviour_policy()
    data = data_set_of(Source((bag,), contract, reward_of(contract)), tmp_path / "set", {})
    log = LoggedTransitions(data, behaviour)
    # Nobody proposed anything for an episode's last observation: what follows its last row is not known.
    lasts = [episode.stop - 1 for episode in data.episodes()]
    assert np.array_equal(log.rows, np.setdiff1d(np.arange(len(data)), lasts))
    batch = log.draw(2000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert batch.observation.shape == batch.next_observation.shape == (2000, 128)
    assert all(torch.isfinite(column).all() for column in vars(batch).values())
    assert len(np.unique(batch.reward.numpy())) > 0.9 * len(log)
    mean, scale = log.spread()
    states = log.states(log.rows).astype(float)
    assert np.allclose(mean, states.mean(axis=0))
    assert np.allclose(scale, np.maximum(states.std(axis=0), 0.02))
    assert log.outside == 0
    # Of a narrower policy many are no choice.
    narrow = make_behaviour({**TASK.behaviour, "bound": 0.05})
    assert LoggedTransitions(data, narrow).outside > 0.5 * len(log)


def test_what_cannot_be_learned_from_is_said(bag: Path, tmp_path: Path, capfd) -> None:
    def error_of(*command: str) -> str:
        assert main([*command, "--quiet"]) == 2
        assert not (tmp_path / "run").exists()
        return capfd.readouterr().err

    run = tmp_path / "run"
    # A bag without proposals: SSQL does not know b's context in it.
    silent = tmp_path / "silent"
    record_trots(silent, 1, 20, proposals=False)
    told = error_of(*train("ssql", silent, run))
    assert "context: expected 8 numbers a row, as the behaviour policy has, got 0; it is recorded from joint" in told
    assert "there is no such bag" in error_of(*train("ssql", tmp_path / "nothing", run))
    assert "key 'reward' is missing" in error_of(
        "train", "cql", "--bag", str(bag), "--task", "spider", "--out", str(run)
    )
    assert "--goal: is for --bag" in error_of("train", "ssql", "--task", TASK.name, "--goal", "1", "--out", str(run))
    told = error_of(*train("ssql", bag, run, "--phase", "finetune", "--from", "x"))
    assert "a log is learned from as it is" in told
    # Another goal, another data set: never mistaken for the one that is there.
    assert "holds a data set with another reward" in error_of(*train("ssql", bag, run, "--goal", "0.2"))
    # Another robot's data set.
    data = str(bag.with_name("trots_transitions"))
    told = error_of("train", "iql", "--data", data, "--task", "spider", "--out", str(run))
    assert "was made by contract minitaur-" in told
