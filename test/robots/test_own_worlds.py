"""Worlds that are not of this package: by an id or an entry point, no file of ours touched, through every verb."""

import json
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from ssql_ros.cli.main import main
from ssql_ros.contract import load_contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.model.bundle import load_bundle
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.settings import initial_hold
from ssql_sim.foreign import ForeignEnv

torch.set_num_threads(1)

# What a user writes: a world of somebody else, and five lines that say what must not happen.
MODULE = '''
import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    """A point with inertia between two walls."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2.0, 4.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v, self.steps = float(self.np_random.uniform(-0.3, 0.3)), 0.0, 0
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action):
        self.v += 0.1 * float(action[0])
        self.x += 0.1 * self.v
        self.steps += 1
        return np.array([self.x, self.v], np.float32), self.v, False, self.steps == 40, {}


class Walls(gymnasium.Wrapper):
    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, {**info, "cost": float(abs(observation[0]) > 1.0)}


class Margins(gymnasium.Wrapper):
    def reset(self, **options):
        observation, info = self.env.reset(**options)
        return observation, {"margin": abs(observation[0]) - 1.0}

    def step(self, action):
        observation, reward, _, truncated, info = self.env.step(action)
        margin = abs(observation[0]) - 1.0
        return observation, reward, bool(margin > 0.0), truncated, {"margin": margin}


def corridor():
    return Walls(Corridor())


def silent():
    return Corridor()


def late():
    world = Margins(Corridor())
    world.reset = world.env.reset
    return world


def margins():
    world = Corridor()
    world.max_steps = 40
    return Margins(world)


def nothing():
    return 3


def pictures():
    world = Corridor()
    world.observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    return world


def buttons():
    world = Corridor()
    world.action_space = gymnasium.spaces.Discrete(3)
    return world


def endless():
    world = Corridor()
    world.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    return world


gymnasium.register("strangers/Corridor-v0", entry_point=corridor, max_episode_steps=25)
'''
SAC = ["hidden=[16,16]", "batch=32", "initial_steps=60", "warm_up=60"]
SQRL = [*SAC, "off_policy_steps=100", "safety_updates=5", "rollouts=1", "mask_from=0.3"]
FQL = ["hidden=[16,16]", "actor_hidden=[16,16]", "batch=32", "actor_batch=32"]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module, which the commands are run in."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "strange_worlds.py").write_text(MODULE)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setattr(sys, "path", [*sys.path, ""])
    yield folder
    patch.undo()


def run(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    assert main([*map(str, arguments), "--quiet", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["figures"]


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_world_keeps_the_api_and_shows_its_margin(strangers):
    env = ForeignEnv(world="strange_worlds:margins")
    check_env(env, skip_render_check=True)
    observation, info = env.reset(seed=1)
    assert observation[-1] == info["margin"] < 0.0
    # 1 spans the world's own bounds: the largest action is 4, the least -2.
    for action, speed in ((1.0, 0.4), (-1.0, -0.2), (3.0, 0.4)):
        env.reset(seed=1)
        assert env.step(np.array([action]))[0][1] == pytest.approx(speed)
    ended = False
    while not ended:
        observation, _, ended, _, info = env.step(np.array([1.0]))
    assert info["incident"]
    assert observation[-1] == pytest.approx(abs(observation[0]) - 1.0)
    assert (observation[-1] > 0.0) == (find_task("env:strange_worlds:margins").contract().margin(observation)[0] > 0.0)


def test_ids_and_their_limits_are_found(strangers):
    assert ForeignEnv(world="strange_worlds:strangers/Corridor-v0").max_steps == 25
    assert ForeignEnv(world="ssql/Boat-v0").max_steps == 400
    assert ForeignEnv(world="strange_worlds:corridor").max_steps == 1000


def test_its_contract_is_one_that_a_shield_reads(strangers, capsys):
    assert main(["contract", "init", "--env", "strange_worlds:corridor"]) == 0
    read, told = load_contract("env_strange_worlds_corridor.yaml"), find_task("env:strange_worlds:corridor").contract()
    assert read.id == told.id
    assert read.joint_command(np.array([1.0])) == 4.0
    assert read.joint_command(read.safe_action) == pytest.approx(0.0)
    assert initial_hold(told.robot) == 1


def test_sqrl_learns_in_it_and_its_bundle_is_judged_there(strangers, capsys):
    world = ("--env", "strange_worlds:corridor")
    learned = run(capsys, "train", "sqrl", *world, "--steps", 240, "--episodes", 2, "--out", "sqrl", "--set", *SQRL)
    assert learned["episodes"] == 6
    assert learned["incidents"] > 0
    contract = load_contract("sqrl/contract.yaml")
    bundle = load_bundle(Path("sqrl/bundle.safetensors"), contract)
    assert bundle.critic is not None
    assert run(capsys, "eval", "policy", *world, "--bundle", bundle.path, "--episodes", 2)["episodes"] == 2
    assert main(["bundle", "verify", bundle.path, "--contract", "sqrl/contract.yaml"]) == 0


def test_a_bundle_does_not_choose_the_code_that_is_run(strangers, capsys):
    text = refused(capsys, "certify", "sqrl/bundle.safetensors")
    assert "says that it was made in the world strange_worlds:corridor" in text
    assert "--env strange_worlds:corridor" in text


def test_safefql_and_ssql_learn_from_what_was_collected_in_it(strangers, capsys):
    world = ("--env", "strange_worlds:margins")
    # Three learners of 40 steps an episode; those that end early are more.
    collected = run(capsys, "collect", *world, "--episodes", 12, "--out", "log")
    data = DataSet(Path("log"))
    assert collected["transitions"] == len(data) > 100
    np.testing.assert_allclose(data["margin"], data["observation"][:, -1])
    log = ("--data", "log", *world, "--episodes", 1)
    fql = run(capsys, "train", "safefql", *log, "--steps", 20, "--out", "fql", "--set", *FQL)
    # Cut-off episodes have no n steps at their ends.
    assert 0.9 * len(data) < fql["transitions"] <= len(data)
    run(capsys, "train", "behaviour", "--data", "log", *world, "--steps", 30, "--out", "b", "--set", "hidden=[16,16]")
    ssql = ("--behaviour", "b/bundle.safetensors", "--steps", 20, "--out", "ssql")
    small = ["hidden=[16,16]", "batch=32", "extraction_updates=20", "samples=4", "extraction_samples=4"]
    found = run(capsys, "train", "ssql", *log, *ssql, "--set", *small)
    assert 0.0 <= found["final_incident_rate"] <= 1.0
    assert load_bundle(Path("ssql/bundle.safetensors"), load_contract("ssql/contract.yaml")).behaviour


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ("strange_worlds:silent", "its info does not say what must not happen: expected 'margin'"),
        ("strange_worlds:late", "info of step() has a margin, info of reset() none"),
        ("strange_worlds:nothing", "expected it to make a gymnasium.Env, got a builtins.int"),
        ("strange_worlds:pictures", "expected the observation space to be a Box of shape (n,), got Box(0, 255"),
        ("strange_worlds:buttons", "expected the action space to be a Box of shape (n,), got Discrete(3)"),
        ("strange_worlds:endless", "expected an action space with finite bounds"),
        ("strange_worlds:missing", "strange_worlds has no 'missing'"),
        ("no_such_module:world", "there is no module 'no_such_module'"),
        ("NoSuchWorld-v0", "expected a registered id"),
    ],
)
def test_a_world_that_cannot_be_learned_in_says_why(strangers, capsys, world, words):
    text = refused(capsys, "train", "sac", "--env", world, "--steps", 50, "--out", "never", "--quiet")
    assert words in text
    assert world in text
    assert not Path("never").exists()


@pytest.mark.parametrize("name", ["Minitaur", "Spider", "Boat", "Grid"])
def test_our_worlds_are_registered(name):
    env = gymnasium.make(f"ssql/{name}-v0")
    assert not env.reset(seed=0)[1].get("incident", False)
    env.close()
