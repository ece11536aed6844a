"""Exact resume of every algorithm in both phases: the state between two episodes is the whole state."""

import copy
import json
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from ssql_ros.cli.main import main
from ssql_ros.data.replay import Transition
from ssql_ros.model.bundle import Bundle, ProbabilityCritic, save_bundle
from ssql_ros.nn.checkpoint import load_checkpoint, save_checkpoint
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.learner import Learner
from ssql_ros.training.registry import Start, make_learner
from ssql_ros.training.settings import SETTINGS, settings_of
from ssql_ros.training.world_training import WorldTraining

# A second thread costs networks as small as these far more than it gains.
torch.set_num_threads(1)

TINY = {
    "hidden": (8,),
    "batch": 16,
    "update_every": 4,
    "warm_up": 50,
    "off_policy_steps": 150,
    "rollouts": 2,
    "safety_updates": 5,
    "mask_from": 0.3,
    "rollouts_masked_from": 0.2,
    "keep_rollouts": True,
    "prior": 0.1,  # at epsilon: the mask changes about half of the actions from the first step on
    "online": True,
    "critics": 3,
    "batch_steps": 90,
    "value_updates": 5,
}


def learner_of(algorithm: str, phase: str, steps: int, seed: int = 0, task: str = "spider", **changed) -> Learner:
    """A tiny learner; one of fine-tuning begins from the networks of another seed."""
    found = find_task(task)
    contract, kind = found.contract(), SETTINGS[algorithm]
    known = {field.name for field in fields(kind)}
    settings = {name: value for name, value in {**TINY, **changed}.items() if name in known}
    n = contract.observation_size
    mean, scale = np.array(found.centre or np.zeros(n)), np.array(found.spread or np.ones(n))
    start = Start(mean, scale, contract.action_size, contract.id, found.robot, phase, steps, seed)
    learner = make_learner(algorithm, start, settings_of(algorithm, found.robot, settings))
    if phase == "finetune":
        source = learner_of(algorithm, "pretrain", steps, seed + 100, task, **changed)
        learner.load_pretrained(copy.deepcopy(source.learned()))
    return learner


def training_of(learner: Learner, phase: str, steps: int, seed: int = 0, task: str = "spider") -> WorldTraining:
    found = find_task(task)
    return WorldTraining(learner, lambda: found.make(**found.world(phase)), found.contract(), steps, seed)


def finished(training: WorldTraining) -> tuple[list[tuple], list[np.ndarray]]:
    """Finish a run; return its log and all that it learned."""
    for _ in training.run():
        pass
    return log_of(training), weights_of(training.learner)


def log_of(training: WorldTraining) -> list[tuple]:
    # A velocity that does not exist is NaN, which is not even equal to itself.
    return [tuple(None if value != value else value for value in astuple(row)) for row in training.rows]


def weights_of(learner: Learner) -> list[np.ndarray]:
    learned = learner.learned()
    flats = [flat for flats in learned["networks"].values() for flat in flats]
    # CPO has no temperature.
    flats += [learned["log_alpha"]] if "log_alpha" in learned else []
    return [flat.detach().numpy().copy() for flat in flats]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def saved_at(training: WorldTraining, step: int, path: Path) -> Iterator[None]:
    """Drive a run to its end; save it at the first chance from `step` on."""
    for _ in training.run():
        if training.can_stop and training.step >= step and not path.exists():
            save_checkpoint(path, training.state())
        yield


CASES = [
    *(("spider", algorithm, "pretrain", 1300, 1080) for algorithm in ("sac", "sqrl", "esac", "wcpg")),
    *(("spider", algorithm, "finetune", 400, 160) for algorithm in ("sac", "sqrl", "esac", "wcpg", "rs")),
    *(("spider", "cpo", phase, 500, 210) for phase in ("pretrain", "finetune")),
    ("minitaur_velocity", "sqrl", "finetune", 900, 100),
]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("task", "algorithm", "phase", "steps", "stop"), CASES)
def test_run_that_goes_on_from_a_checkpoint_ends_as_the_unbroken_one(tmp_path, task, algorithm, phase, steps, stop):
    path = tmp_path / "checkpoint.safetensors"
    learner = learner_of(algorithm, phase, steps, task=task)
    begun, training = weights_of(learner), training_of(learner, phase, steps, task=task)
    for _ in saved_at(training, stop, path):
        pass
    # A learner of another seed: all that matters must come out of the file.
    resumed = training_of(learner_of(algorithm, phase, steps, seed=7, task=task), phase, steps, seed=7, task=task)
    resumed.restore(load_checkpoint(path))
    at_stop = weights_of(resumed.learner)
    assert stop <= resumed.step < steps - 50
    assert 0 < len(resumed.rows) < len(training.rows)
    assert not same(at_stop, begun)
    log, weights = finished(resumed)
    assert log == log_of(training)
    assert same(weights, weights_of(training.learner))
    assert not same(weights, at_stop)
    if algorithm == "sqrl":
        assert any(row.intervened for row in training.rows)
        assert any(row.kind == "rollout" for row in training.rows) == (phase == "pretrain")


@pytest.mark.slow
def test_same_seed_is_the_same_run_and_another_seed_another():
    runs = [finished(training_of(learner_of("sqrl", "pretrain", 1100, s), "pretrain", 1100, s)) for s in (0, 0, 1)]
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    assert not same(runs[0][1], runs[2][1])


def test_uniform_actions_come_first_and_are_held():
    learner, rng = learner_of("sac", "pretrain", 10), np.random.default_rng(0)
    learner.reset(rng)
    actions = np.array([learner.propose(np.array([0.5, 3.5]), rng).action for _ in range(8000)])
    changes = np.flatnonzero((np.diff(actions, axis=0) != 0).any(axis=1)) + 1
    lengths = np.bincount(np.diff(changes), minlength=9)
    # The spider holds one for 1 to 8 steps, each as likely.
    assert (lengths[0], len(lengths)) == (0, 9)
    expected = lengths.sum() / 8
    assert ((lengths[1:] - expected) ** 2 / expected).sum() < 24.3  # one of a thousand trials, 7 degrees of freedom
    held = actions[changes]
    assert (np.abs(held) <= 1.0).all()
    np.testing.assert_allclose(held.std(axis=0), 1.0 / np.sqrt(3.0), rtol=0.06)
    # A share of the later episodes is of such actions too.
    learner = learner_of("sac", "pretrain", 10, explore_share=0.5, initial_steps=1)
    learner.observe(Transition(np.zeros(2), np.zeros(2), 0.0, np.zeros(2), False, False))
    uniform = []
    for _ in range(400):
        learner.reset(rng)
        uniform.append(not learner.propose(np.array([0.5, 3.5]), rng).squashed)
    assert 0.4 < np.mean(uniform) < 0.6
    # Fine-tuning begins with the policy.
    assert learner_of("sac", "finetune", 10).propose(np.array([0.5, 3.5]), rng).squashed


# What cannot begin


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """What fine-tuning may be asked to begin from: a bundle of SAC, one of SQRL, garbage, a folder that is empty."""
    folder = tmp_path_factory.mktemp("sources")
    contract = find_task("spider").contract()
    for algorithm in ("sac", "sqrl"):
        learner = learner_of(algorithm, "pretrain", 10)
        parts = {name: network for name, network in learner.networks().items() if name != "critic"}
        critic = learner.networks().get("critic")
        made = Bundle(contract.id, critic and ProbabilityCritic.of(critic, 0.1, 0.65), {}, **parts)
        save_bundle(made, folder / algorithm / "bundle.safetensors")
        save_checkpoint(folder / algorithm / "learned.safetensors", learner.learned())
    (folder / "garbage").write_bytes(b"no bundle at all")
    (folder / "empty").mkdir()
    (folder / "unlearned").mkdir()
    (folder / "unlearned" / "bundle.safetensors").write_bytes((folder / "sqrl" / "bundle.safetensors").read_bytes())
    return folder


TUNED = ["hidden=[8]", "critics=3"]
REFUSED = {
    "garbage": ("sqrl", "garbage", TUNED, "garbage: is not a whole safetensors file"),
    "no bundle in the folder": ("sqrl", "empty", TUNED, "empty/bundle.safetensors: cannot be read"),
    "run that has not learned": ("sqrl", "unlearned", TUNED, "learned.safetensors: is not a whole checkpoint"),
    "run without a safety critic": (
        "sqrl",
        "sac",
        TUNED,
        "does not fit sqrl: expected a network 'critic', found policy",
    ),
    "bundle without a safety critic": (
        "rs",
        "sac/bundle.safetensors",
        TUNED,
        "expected a network 'critic', found policy",
    ),
    "run of other widths": ("sqrl", "sqrl", ["hidden=[9]"], "does not fit sqrl: policy: expected "),
    "bundle of other widths": ("sac", "sac/bundle.safetensors", ["hidden=[9]"], "expected networks of layers"),
    "bundle for wcpg": ("wcpg", "sac/bundle.safetensors", ["hidden=[8]"], "begins from the folder of a run of wcpg"),
    "run of another algorithm": (
        "cpo",
        "sac",
        TUNED[:1],
        "does not fit cpo: expected a network 'values', found policy",
    ),
    "bundle of other widths for cpo": ("cpo", "sac/bundle.safetensors", ["hidden=[9]"], "expected networks of layers"),
    "run of another robot": ("sqrl", "sqrl", TUNED, "trained for contract spider-"),
}


@pytest.mark.parametrize(("algorithm", "source", "settings", "text"), REFUSED.values(), ids=REFUSED)
def test_source_that_does_not_fit_is_refused_in_words(
    sources, tmp_path, capsys, request, algorithm, source, settings, text
):
    task = "minitaur_velocity" if "robot" in request.node.callspec.id else "spider"
    arguments = ["--task", task, "--phase", "finetune", "--from", str(sources / source), "--out", str(tmp_path / "run")]
    assert main(["train", algorithm, *arguments, "--steps", "20", "--set", *settings]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert text in error
    assert not (tmp_path / "run").exists()


BAD = {
    "empty name": ("=3", "sqrl has no setting ''"),
    "text": ("epsilon=much", "--set 'epsilon=much': expected NAME=VALUE with a number"),
    "not a number": ("epsilon=NaN", "setting epsilon: expected a number between 0 and 1, got nan"),
    "endless": ("learning_rate=Infinity", "setting learning_rate: expected a number above 0, got inf"),
    "true": ("batch=true", "setting batch: expected a whole number of at least 1, got True"),
    "width of 0": ("hidden=[8,0]", "setting hidden: expected a list of whole numbers of at least 1, got [8, 0]"),
    "one width": ("hidden=8", "setting hidden: expected a list of whole numbers of at least 1, got 8"),
    "growth that shrinks": ("growth=0.5", "setting growth: expected a number of at least 1, got 0.5"),
    "no room for new episodes": ("offline_share=0.9", "settings offline_share and near_share: expected less than 1"),
}


def test_run_that_began_before_there_was_a_choice_goes_on_with_what_it_had(tmp_path):
    arguments = ["train", "sac", "--task", "spider", "--out", str(tmp_path / "run"), "--steps", "5", "--quiet"]
    tiny = ["--episodes", "1", "--set", "hidden=[8]"]
    assert main([*arguments, *tiny]) == 0
    config = tmp_path / "run" / "config.json"
    there = json.loads(config.read_text())
    del there["settings"]["initial_steps"]
    config.write_text(json.dumps(there))
    assert main([*arguments, *tiny]) == 0
    # But not with another choice.
    config.write_text(json.dumps({**there, "settings": {**there["settings"], "initial_steps": 7}}))
    assert main([*arguments, *tiny]) == 2


@pytest.mark.parametrize(("setting", "text"), BAD.values(), ids=BAD)
def test_setting_that_makes_no_sense_is_refused_at_once(tmp_path, capsys, setting, text):
    arguments = ["train", "sqrl", "--task", "spider", "--out", str(tmp_path / "run"), "--steps", "5", "--set", setting]
    assert main(arguments) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_set_counts_and_threads_are_a_number_of_them(tmp_path, capsys):
    arguments = ["train", "sqrl", "--task", "spider", "--out", str(tmp_path / "run"), "--steps", "5"]
    assert main([*arguments, "--set", "epsilon=2", "--set", "batch=16"]) == 2
    assert "setting epsilon: expected" in capsys.readouterr().err
    assert main([*arguments, "--threads", "-1"]) == 2
    assert capsys.readouterr().err == "error: --threads: expected at least 0, got -1\n"


def test_folder_with_something_else_is_refused_and_unharmed(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "thesis.txt"):
        assert main(["train", "sac", "--task", "spider", "--steps", "5", "--out", str(folder)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("thesis.txt", "mine")]
    (tmp_path / "thesis.txt").unlink()
    (tmp_path / "config.json").write_text("[]")
    assert main(["train", "sac", "--task", "spider", "--steps", "5", "--out", str(tmp_path)]) == 2
    assert "config.json: is not the configuration of a run" in capsys.readouterr().err
