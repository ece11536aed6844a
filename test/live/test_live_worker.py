"""The learner's own process: it learns from the buffer, offers what passes, and survives what may happen to it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.data.rewards import reward_of
from ssql_ros.live.buffer import LiveBuffer, recorded_from
from ssql_ros.live.gates import calibration_gate, returns_of, support_gate
from ssql_ros.live.learner import LiveLearner
from ssql_ros.live.settings import read_settings
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.policy import SupportedPolicy
from ssql_ros.robots.tasks import find_task

TASK = find_task("minitaur_trots")
SIZES = (120, 8, 8)
SOURCE = recorded_from(TASK.contract(), TASK.behaviour_policy(), reward_of(TASK.contract(), 0.4))
# A short horizon is learned in seconds.
SMALL = {"hidden": [32, 32], "samples": 4, "batch": 64, "gamma": 0.5, "tau": 0.2, "learning_rate": 3e-3}
SMALL |= {"extraction_updates": 60, "extraction_samples": 8}


def walked(steps: int, seed: int, behaviour: BehaviourPolicy, begin: int = 0) -> list[list[dict]]:
    """Episodes of b in the world itself."""
    env, rng = TASK.make(**TASK.world("pretrain")), np.random.default_rng(seed)
    episodes: list[list[dict]] = []
    made = 0
    while made < steps:
        observation, _ = env.reset(seed=seed)
        behaviour.reset(rng)
        episode: list[dict] = []
        ended = False
        while not ended:
            context = behaviour.context()
            action = behaviour.act(observation, rng)
            next_observation, reward, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            step = {
                "stamp": (begin + made) * 20_000_000,
                "observation": observation,
                "context": context,
                "action": action,
                "reward": float(reward),
                "next_observation": next_observation,
                "next_context": behaviour.context(),
                "incident": bool(info["incident"]),
                "first": not episode,
                "proposal": action,
            }
            episode.append(step)
            observation, made = next_observation, made + 1
        episodes.append(episode)
    env.close()
    return episodes


@pytest.fixture(scope="module")
def episodes() -> list[list[dict]]:
    return walked(2500, 0, TASK.behaviour_policy())


def prepare(folder: Path, **changed: object) -> LiveBuffer:
    settings = {
        "contract": TASK.contract().path,
        "behaviour": TASK.behaviour_policy().describe(),
        "shield": str(TASK.bundle_path()),
        "first_steps": 500,
        "round_updates": 150,
        "shadow_steps": 400,
        "updates_per_step": 20.0,
        "source": SOURCE,
        "settings": SMALL,
        **changed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "live.json").write_text(json.dumps(settings))
    return LiveBuffer(folder / "buffer", SIZES, SOURCE)


class Worker:
    """A worker process and what it says."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "ssql_ros.live.worker", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def told(self) -> Iterator[dict]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, event: str) -> dict:
        for message in self.told():
            if message["event"] == event:
                return message
        raise AssertionError(f"the worker ended with {self.process.wait()} before it told of {event}")

    def stop(self) -> int:
        self.say("stop")
        assert self.process.stdout is not None
        self.process.stdout.read()
        return self.process.wait(30)


@pytest.mark.long
@pytest.mark.slow
def test_it_learns_judges_in_the_states_of_now_and_offers_a_bundle(tmp_path: Path, episodes: list) -> None:
    buffer = prepare(tmp_path)
    for episode in episodes[:4]:
        buffer.append(episode)
    worker = Worker(tmp_path)
    for message in worker.told():
        # Rounds that know too little yet are refused, and say so.
        assert message["event"] in ("progress", "judged")
        assert not message.get("passed")
        if message.get("waits_for_shadow"):
            break
    # What comes after the policy was extracted decides.
    buffer.append(episodes[4])
    judged = worker.until("judged")
    assert [gate["name"] for gate in judged["gates"]] == ["calibration", "support", "shadow", "return"]
    assert judged["gates"][1]["figures"]["outside"] == 0
    assert judged["passed"] == all(gate["passed"] for gate in judged["gates"])
    if judged["passed"]:
        bundle = load_bundle(judged["path"], TASK.contract())
        assert bundle.id == judged["bundle_id"]
        assert bundle.policy_kind == "supported_gaussian"
        assert bundle.provenance["live"]["breaches"] == 0
    worker.say("export")
    exported = worker.until("exported")
    assert SupportedPolicy(load_bundle(exported["path"], TASK.contract())).context().shape == (8,)
    assert worker.stop() == 0


@pytest.mark.long
@pytest.mark.slow
def test_killed_it_goes_on_where_it_saved_and_the_buffer_is_whole(tmp_path: Path, episodes: list) -> None:
    buffer = prepare(tmp_path, shadow_steps=1)
    for episode in episodes[:4]:
        buffer.append(episode)
    first = Worker(tmp_path)
    for message in first.told():
        if message.get("rounds", 0) >= 1:
            break
    first.process.kill()
    first.process.wait()
    again = Worker(tmp_path)
    progress = again.until("progress")
    assert progress["rounds"] >= 1 or (tmp_path / "checkpoint.safetensors").exists()
    assert progress["steps"] == sum(len(episode) for episode in episodes[:4])
    assert again.stop() == 0


@pytest.mark.slow
def test_a_damaged_chunk_is_set_aside_and_counted(tmp_path: Path, episodes: list) -> None:
    buffer = prepare(tmp_path)
    for episode in episodes[:3]:
        buffer.append(episode)
    path = tmp_path / "buffer" / "chunk_000001.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    reader = LiveBuffer(tmp_path / "buffer", SIZES, SOURCE)
    assert [len(chunk) for chunk in reader.unread()] == [500, 500]
    assert list(reader.refused) == ["chunk_000001.safetensors"]
    assert path.exists()
    other = LiveBuffer(tmp_path / "buffer", (119, 8, 8), SOURCE)
    assert list(other.unread()) == []
    assert "expected shape" in other.refused["chunk_000000.safetensors"]
    # A new writer never overwrites.
    reader.append(episodes[3])
    assert (tmp_path / "buffer" / "chunk_000003.safetensors").exists()
    shutil.rmtree(tmp_path / "buffer")


@pytest.mark.slow
def test_a_broken_configuration_is_told_and_ends_the_worker(tmp_path: Path) -> None:
    prepare(tmp_path, surprise=1)
    worker = Worker(tmp_path)
    assert "unknown key 'surprise'" in worker.until("problem")["words"]
    assert worker.process.wait(60) == 2


@pytest.mark.slow
@pytest.mark.parametrize("offered", [None, b"damaged"])
def test_the_return_is_judged_against_what_acts_also_where_that_cannot_be_read(
    tmp_path: Path, episodes: list, offered: bytes | None
) -> None:
    buffer = prepare(tmp_path, value_updates=5)
    for episode in episodes[:3]:
        buffer.append(episode)
    if offered is not None:
        (tmp_path / "offered").mkdir()
        (tmp_path / "offered" / "round_001.safetensors").write_bytes(offered)
    problems: list[str] = []
    learner = LiveLearner(tmp_path, read_settings(tmp_path / "live.json"), problems.append)
    learner.take_in()
    algorithm, judge = learner._algorithm(), learner.judge
    judge.pending = load_bundle(learner.export()["path"], TASK.contract())
    (chunk, *_) = LiveBuffer(tmp_path / "buffer", SIZES, SOURCE).unread()
    judge.see(chunk)
    judge.finish(algorithm, lambda: learner.replay.draw(64, torch.Generator(), algorithm.device))
    gate = judge.gates[-1]
    assert gate.name == "return"
    # Of 500 steps, those that see 90 % of their rest at a discount of 0.5: all but 3.
    assert gate.figures["n"] == 497
    recorded = returns_of(chunk.reward, chunk.first, chunk.incident, 0.5)[:497].mean()
    assert gate.figures["recorded"] == pytest.approx(recorded, abs=1e-5)
    assert (gate.figures["fit_error"] == 0.0) == (offered is not None)
    assert any("cannot be judged" in problem for problem in problems) == (offered is not None)


def test_returns_are_cut_where_episodes_begin_and_at_incidents() -> None:
    reward = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    first, incident = np.array([1.0, 0, 0, 1, 0]), np.array([0.0, 0, 0, 0, 1])
    assert returns_of(reward, first, incident, 0.5).tolist() == [1 + 1 + 1, 2 + 2, 4.0, 8 + 8, 16.0]


def test_the_calibration_gate_refuses_what_no_optimum_can_be() -> None:
    rng = np.random.default_rng(0)
    returns = rng.uniform(0.0, 10.0, 500)
    whole = np.ones(500, bool)
    assert calibration_gate(returns + 0.5, returns + 0.5, returns, whole).passed
    # Below what b itself gets; off its own equation; ranked the wrong way; not finite; nothing to hold it against.
    assert not calibration_gate(returns - 3.0, returns - 3.0, returns, whole).passed
    assert not calibration_gate(returns + 3.0, returns, returns, whole).passed
    assert not calibration_gate(10.0 - returns, 10.0 - returns, returns, whole).passed
    assert not calibration_gate(np.full(500, np.nan), returns, returns, whole).passed
    assert not calibration_gate(returns, returns, returns, ~whole).passed


@pytest.mark.slow
def test_the_support_gate_refuses_a_policy_of_a_wider_support(tmp_path: Path, episodes: list) -> None:
    buffer = prepare(tmp_path)
    buffer.append(episodes[0])
    (chunk,) = LiveBuffer(tmp_path / "buffer", SIZES, SOURCE).unread()
    narrow = find_task("minitaur_trots").behaviour_policy()

    class Wide:
        def at(self, observation: np.ndarray, context: np.ndarray, z: np.ndarray) -> object:
            return type("Proposal", (), {"action": np.clip(context + 0.2 * np.tanh(z), -1.0, 1.0)})

    gate = support_gate(Wide(), narrow, chunk, np.random.default_rng(0))  # type: ignore[arg-type]
    assert not gate.passed
    assert gate.figures["outside"] > 0
