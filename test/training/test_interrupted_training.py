"""Ctrl-C and SIGTERM in every training: a checkpoint stays, and the same command ends as an unbroken run does."""

import contextlib
import io
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ssql_ros.cli.main import main

# A second thread costs networks as small as these far more than it gains.
torch.set_num_threads(1)

SMALL = "hidden=[16,16]"


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("logs")
    for task, episodes in (("boat", "12"), ("spider", "12")):
        out = str(folder / task)
        assert main(["collect", "--task", task, "--episodes", episodes, "--out", out, "--quiet"]) == 0
    return {task: str(folder / task) for task in ("boat", "spider")}


TRAININGS = {
    "sac": ["sac", "--task", "spider", "--steps", "400", "--set", SMALL, "batch=32", "initial_steps=50"],
    "ssql": ["ssql", "--task", "spider", "--steps", "300", "--set", SMALL, "warm_up=50", "final_updates=20"],
    "cpo": ["cpo", "--task", "spider", "--steps", "2000", "--set", SMALL, "batch_steps=500"],
    "grid": ["dqn", "--task", "gridworld", "--steps", "600"],
    "cql": ["cql", "--data", "spider", "--task", "spider", "--steps", "100", "--set", SMALL, "batch=32"],
    "safefql": ["safefql", "--data", "boat", "--task", "boat", "--steps", "60", "--set", SMALL, "actor_hidden=[16,16]"],
    "behaviour": ["behaviour", "--data", "spider", "--task", "spider", "--steps", "100", "--set", SMALL],
}
TRAININGS["ssql"] += ["extraction_updates=20"]
CRITIC = ["critic", "--episodes", "3", "--rounds", "1", "--masked-episodes", "2", "--updates", "40"]
CRITIC += ["--held-out", "1", "--seed", "1"]


def words_of(name: str, logs: dict[str, str], out: Path) -> list[str]:
    subject, *words = TRAININGS[name]
    if "--data" in words:
        at = words.index("--data") + 1
        words[at] = logs[words[at]]
    if name in ("sac", "ssql", "cpo", "grid", "cql"):
        words = ["--episodes", "2", *words]
    # Before --set, which takes all that follows.
    return ["train", subject, "--out", str(out), *words]


class Interrupting(io.StringIO):
    """What a command writes to; at the first sight of `sign` a signal comes."""

    def __init__(self, sign: str, number: int) -> None:
        super().__init__()
        self._sign, self._number, self._came = sign, number, False

    def write(self, text: str) -> int:
        written = super().write(text)
        if not self._came and self._sign in self.getvalue():
            self._came = True
            signal.raise_signal(self._number)
        return written


def interrupted(words: list[str], sign: str, number: int) -> str:
    """Run a command until it has written `sign`, and then a signal comes; return all that it wrote."""
    with contextlib.redirect_stderr(Interrupting(sign, number)) as written:
        assert main(words) == 128 + number, written.getvalue()
    return written.getvalue()


def says_how_to_go_on(said: str, checkpoint: Path, words: list[str]) -> None:
    last = said.splitlines()[-1]
    assert last.startswith("interrupted; ")
    assert str(checkpoint) in last
    assert last.endswith(f"; go on with the same command: {shlex.join(['ssql', *words])}")


def assert_same(one: Path, other: Path) -> None:
    if one.suffix == ".csv":
        assert one.read_bytes() == other.read_bytes()
        return
    found, expected = load_file(one), load_file(other)
    assert found.keys() == expected.keys()
    for part in found:
        assert np.array_equal(found[part], expected[part]), part


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_interrupted_training_goes_on_with_the_same_command(tmp_path, logs, monkeypatch, capsys, name):
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    result = "policy.csv" if name == "grid" else "bundle.safetensors"
    words = words_of(name, logs, run)
    monkeypatch.setattr(sys, "argv", ["ssql", *words])
    # The bar's first line: the first step is under way.
    said = interrupted(words, "0/", signal.SIGTERM if name == "sac" else signal.SIGINT)
    says_how_to_go_on(said, run / "checkpoint.safetensors", words)
    assert (run / "checkpoint.safetensors").exists()
    assert not (run / result).exists()
    assert main(words) == 0
    # Not from the beginning.
    assert re.search(r"\d+/", capsys.readouterr().err)[0] != "0/"
    assert main(words_of(name, logs, unbroken)) == 0
    assert_same(run / result, unbroken / result)


@pytest.mark.long
def test_critic_goes_on_wherever_it_was_interrupted_and_another_training_never_from_its_checkpoint(
    tmp_path, monkeypatch, capsys
):
    out, unbroken = tmp_path / "bundle.safetensors", tmp_path / "other.safetensors"
    checkpoint = tmp_path / "bundle.safetensors.checkpoint"
    words = ["train", *CRITIC, "--out", str(out)]
    # A process of its own: its workers, which collect, end with it.
    command = [sys.executable, "-m", "ssql_ros.cli.main", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr is not None
        said = b""
        while b"1/3" not in said:
            byte = process.stderr.read(1)
            assert byte, said
            said += byte
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
        assert process.wait(200) == 128 + signal.SIGTERM, said
    says_how_to_go_on(said.decode(), checkpoint, words)
    assert not out.exists()

    before = checkpoint.read_bytes()
    assert main([*words, "--updates", "41"]) == 2
    assert "bundle.safetensors.checkpoint: is of another training" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before

    monkeypatch.setattr(sys, "argv", ["ssql", *words])
    for sign in ("first critic:", "round 1: masked rollouts:", "round 1: critic:", "held out: policy:"):
        says_how_to_go_on(interrupted(words, sign, signal.SIGINT), checkpoint, words)
    assert main(words) == 0
    assert not checkpoint.exists()
    assert main(["train", *CRITIC, "--out", str(unbroken)]) == 0
    assert_same(out, unbroken)
