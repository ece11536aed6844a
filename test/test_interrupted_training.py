"""Ctrl-C and SIGTERM in every training: a checkpoint stays, and the same command ends as an unbroken run does."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ssql_ros.cli.main import main

SSQL = [sys.executable, "-m", "ssql_ros.cli.main"]
SMALL = "hidden=[16,16]"


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("logs")
    for task, episodes in (("boat", "12"), ("spider", "12")):
        out = str(folder / task)
        assert main(["collect", "--task", task, "--episodes", episodes, "--out", out, "--quiet"]) == 0
    return {task: str(folder / task) for task in ("boat", "spider")}


TRAININGS = {
    "sac": ["sac", "--task", "spider", "--steps", "2000", "--episodes", "2", "--set", SMALL, "batch=32"],
    "ssql": ["ssql", "--task", "spider", "--steps", "1200", "--episodes", "2", "--set", SMALL, "extraction_updates=50"],
    "cpo": ["cpo", "--task", "spider", "--steps", "12000", "--episodes", "2", "--set", SMALL],
    "grid": ["dqn", "--task", "gridworld", "--steps", "2500", "--episodes", "2"],
    "cql": ["cql", "--data", "spider", "--task", "spider", "--steps", "1500", "--episodes", "2", "--set", SMALL],
    "safefql": [
        "safefql",
        "--data",
        "boat",
        "--task",
        "boat",
        "--steps",
        "800",
        "--set",
        SMALL,
        "actor_hidden=[16,16]",
    ],
    "behaviour": ["behaviour", "--data", "spider", "--task", "spider", "--steps", "1500", "--set", "hidden=[32,32]"],
    "critic": ["critic", "--episodes", "6", "--rounds", "1", "--masked-episodes", "4", "--updates", "300"],
}
TRAININGS["critic"] += ["--held-out", "3", "--seed", "1"]


def command_of(name: str, logs: dict[str, str], out: Path) -> list[str]:
    words = list(TRAININGS[name])
    if "--data" in words:
        words[words.index("--data") + 1] = logs[words[words.index("--data") + 1]]
    # Before --set, which takes all that follows.
    return [*SSQL, "train", words[0], "--out", str(out), *words[1:]]


def interrupted(command: list[str], number: int, begun, log: Path) -> int:
    """Run a command until `begun()`, then send it a signal; return its exit status."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        end = time.monotonic() + 200
        while not begun(log.read_bytes()) and process.poll() is None:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.01)
        process.send_signal(number)
        return process.wait(200)
    finally:
        process.kill()


def learned(path: Path) -> dict[str, np.ndarray]:
    return load_file(path) if path.suffix == ".safetensors" else {"": np.genfromtxt(path, delimiter=",", names=True)}


@pytest.mark.parametrize("name", TRAININGS)
def test_interrupted_training_goes_on_with_the_same_command(tmp_path, logs, name):
    critic, grid = name == "critic", name == "grid"
    out = tmp_path / ("bundle.safetensors" if critic else "run")
    checkpoint = out.with_name(f"{out.name}.checkpoint") if critic else out / "checkpoint.safetensors"
    result = out if critic else out / ("policy.csv" if grid else "bundle.safetensors")
    command = command_of(name, logs, out)
    number = signal.SIGTERM if name in ("sac", "critic") else signal.SIGINT
    begun = (lambda log: b"1/6" in log) if critic else (lambda _log: (out / "tensorboard").exists())
    status = interrupted(command, number, begun, tmp_path / "log")
    said = (tmp_path / "log").read_text()
    assert status == 128 + number, said
    assert checkpoint.exists()
    assert not result.exists()
    last = said.splitlines()[-1]
    assert last.startswith("interrupted; ")
    assert str(checkpoint) in last
    assert last.endswith(f"; go on with the same command: {shlex.join(['ssql', *command[3:]])}")
    # Once more, where the command has just gone on, and then to the end.
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert result.exists()
    unbroken = tmp_path / ("other.safetensors" if critic else "other")
    subprocess.run(command_of(name, logs, unbroken), capture_output=True, check=True, timeout=280)
    one, other = learned(result), learned(unbroken / result.name if not critic else unbroken)
    assert one.keys() == other.keys()
    for part in one:
        assert np.array_equal(one[part], other[part]), part
    if critic:
        assert not checkpoint.exists()


def test_critic_goes_on_in_the_middle_of_its_updates_and_of_masked_rollouts(tmp_path, logs):
    out, unbroken = tmp_path / "bundle.safetensors", tmp_path / "other.safetensors"
    command = command_of("critic", logs, out)
    for begun in (b"first critic:", b"round 1: masked rollouts:", b"round 1: critic:", b"held out: policy:"):
        status = interrupted(command, signal.SIGINT, lambda log, begun=begun: begun in log, tmp_path / "log")
        assert status == 130, (tmp_path / "log").read_text()
    subprocess.run(command, capture_output=True, check=True, timeout=280)
    subprocess.run(command_of("critic", logs, unbroken), capture_output=True, check=True, timeout=280)
    one, other = learned(out), learned(unbroken)
    assert all(np.array_equal(one[part], other[part]) for part in other)


def test_checkpoint_of_another_training_is_refused_and_unharmed(tmp_path, logs):
    out = tmp_path / "bundle.safetensors"
    command = command_of("critic", logs, out)
    assert interrupted(command, signal.SIGINT, lambda log: b"1/6" in log, tmp_path / "log") == 130
    before = (tmp_path / "bundle.safetensors.checkpoint").read_bytes()
    done = subprocess.run([*command, "--updates", "301"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "bundle.safetensors.checkpoint: is of another training" in done.stderr
    assert (tmp_path / "bundle.safetensors.checkpoint").read_bytes() == before
