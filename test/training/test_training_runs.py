"""Runs of `ssql train`: killed and gone on with, they end as if nothing had been; what cannot begin says why."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ssql_ros.cli.main import main
from ssql_ros.evaluation.bundle_evaluation import calibrate, evaluate_policy
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.nn.checkpoint import load_checkpoint
from ssql_ros.robots.tasks import find_task

# A second thread costs networks as small as these far more than it gains.
torch.set_num_threads(1)

TINY = [
    "hidden=[16,16]",
    "batch=32",
    "warm_up=100",
    "off_policy_steps=200",
    "safety_updates=5",
    "rollouts=2",
    "mask_from=0.3",
    "final_safety_updates=20",
]
COMMON = ["--seed", "3", "--threads", "1", "--quiet", "--episodes", "3", "--checkpoint-every", "300"]


def ssql(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ssql_ros.cli.main", *map(str, arguments)]


def train(algorithm: str, folder: Path, *more: object, settings: list[str] = TINY) -> list[str]:
    return ssql("train", algorithm, "--task", "spider", "--out", folder, *COMMON, *more, "--set", *settings)


def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def outcome(folder: Path) -> tuple[str, dict, list[np.ndarray]]:
    bundle = load_bundle(folder / "bundle.safetensors", find_task("spider").contract())
    layers = [layer.weight for network in bundle.networks().values() for m in network.members for layer in m]
    figures = json.loads((folder / "figures.json").read_text())["figures"]
    return (folder / "episodes.csv").read_text(), figures, layers


def assert_same(first: Path, second: Path) -> None:
    (rows, figures, layers), (other_rows, other_figures, other_layers) = outcome(first), outcome(second)
    assert rows == other_rows
    assert figures == other_figures
    for layer, other in zip(layers, other_layers, strict=True):
        np.testing.assert_array_equal(layer, other)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(train("sqrl", folder, "--steps", 1400)[3:]) == 0
    return folder


def killed_after_its_first_checkpoint(command: list[str], checkpoint: Path) -> None:
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.01)  # the training has the processor
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.long
@pytest.mark.slow
def test_killed_pretraining_ends_as_if_unbroken(unbroken, tmp_path):
    command = train("sqrl", tmp_path / "killed", "--steps", 1400)
    killed_after_its_first_checkpoint(command, tmp_path / "killed" / "checkpoint.safetensors")
    assert not (tmp_path / "killed" / "figures.json").exists()
    assert main(command[3:]) == 0
    assert_same(unbroken, tmp_path / "killed")


def test_bundle_of_a_run_serves_is_judged_and_calibrated(unbroken):
    task = find_task("spider")
    path = unbroken / "bundle.safetensors"
    bundle = load_bundle(path, task.contract())
    assert SafetyCritic(bundle).logits(np.array([0.5, 3.5]), np.zeros((3, 2), np.float32)).shape == (3,)
    figures = evaluate_policy(task, bundle, task.world("finetune"), 5, seed=0, shielded=True)
    assert figures["episodes"] == 5
    assert 0 <= figures["falls"] <= 5
    found = calibrate(path, task, task.world("finetune"), 5, seed=0, show=False).provenance["calibration"]
    assert {"ece", "auc", "bias", "deciles"} <= set(found)
    assert sum(row[3] for row in found["deciles"]) == found["n"]


@pytest.mark.long
@pytest.mark.slow
def test_disk_that_fills_leaves_the_last_checkpoint_whole(tmp_path):
    folder = tmp_path / "full"
    command = train("sac", folder, "--steps", 100_000, settings=TINY[:3])
    killed_after_its_first_checkpoint(command, folder / "checkpoint.safetensors")
    before = load_checkpoint(folder / "checkpoint.safetensors")
    size = (folder / "checkpoint.safetensors").stat().st_size

    def limit() -> None:
        # A file that grows beyond this fails with an error, as on a full disk, and not with a signal.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, size + 1000))

    done = run(command, preexec_fn=limit)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{folder / 'checkpoint.safetensors'}: cannot be written" in done.stderr
    after = load_checkpoint(folder / "checkpoint.safetensors")
    assert before["step"] <= after["step"]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


BAD = {
    "unknown task": (["--task", "mars"], "task 'mars' is unknown; known: "),
    "zero steps": (["--task", "spider", "--steps", "0"], "steps: expected at least 1, got 0"),
    "no bundle": (["--task", "spider", "--phase", "finetune"], "name it with --from"),
    "pre-training from": (["--task", "spider", "--from", "x"], "--from is for --phase finetune"),
    "missing bundle": (["--task", "spider", "--phase", "finetune", "--from", "nowhere"], "nowhere: cannot be read"),
    "unknown setting": (["--task", "spider", "--set", "epsilom=1"], "sqrl has no setting 'epsilom'; it has: "),
    "no value": (["--task", "spider", "--set", "epsilon"], "--set 'epsilon': expected NAME=VALUE"),
    "epsilon off": (["--task", "spider", "--set", "epsilon=0"], "setting epsilon: expected a number between 0 and 1"),
    "no layers": (["--task", "spider", "--set", "hidden=[]"], "setting hidden: expected a list of whole numbers"),
    "half a batch": (["--task", "spider", "--set", "batch=1.5"], "setting batch: expected a whole number"),
}


@pytest.mark.parametrize(("arguments", "text"), BAD.values(), ids=BAD)
def test_what_cannot_begin_says_why_and_leaves_nothing(tmp_path, capsys, arguments, text):
    assert main(["train", "sqrl", "--out", str(tmp_path / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert not (tmp_path / "run").exists()


def test_bundle_of_another_robot_is_refused(unbroken, tmp_path, capsys):
    more = ["--task", "minitaur_velocity", "--phase", "finetune", "--from", str(unbroken)]
    assert main(["train", "sqrl", *more, "--out", str(tmp_path / "run")]) == 2
    assert "trained for contract spider-" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [("--task", "spider_threshold"), ("--steps", "1401")], ids=["task", "steps"])
def test_folder_of_another_run_is_refused_and_unharmed(unbroken, capsys, changed):
    before = outcome(unbroken)[0]
    command = train("sqrl", unbroken, "--steps", 1400)[3:]
    command[command.index(changed[0]) + 1] = changed[1]
    assert main(command) == 2
    assert "use another folder" in capsys.readouterr().err
    assert outcome(unbroken)[0] == before


def test_settings_that_changed_since_the_run_began_are_refused(unbroken, capsys):
    config = json.loads((unbroken / "config.json").read_text())
    changed = {**config, "settings": {**config["settings"], "tau": 0.5}}
    (unbroken / "config.json").write_text(json.dumps(changed))
    try:
        assert main(train("sqrl", unbroken, "--steps", 1400)[3:]) == 2
    finally:
        (unbroken / "config.json").write_text(json.dumps(config))
    assert "holds a run with tau 0.5, not 0.01" in capsys.readouterr().err


def test_checkpoint_of_something_else_is_refused(unbroken, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text((unbroken / "config.json").read_text())
    (folder / "checkpoint.safetensors").write_bytes((unbroken / "learned.safetensors").read_bytes())
    assert main(train("sqrl", folder, "--steps", 1400)[3:]) == 2
    assert "is not a checkpoint of this run: 'step'" in capsys.readouterr().err


def test_damaged_checkpoint_is_named(unbroken, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text((unbroken / "config.json").read_text())
    (folder / "checkpoint.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    assert main(train("sqrl", folder, "--steps", 1400)[3:]) == 2
    assert f"{folder / 'checkpoint.safetensors'}: is not a whole checkpoint" in capsys.readouterr().err
