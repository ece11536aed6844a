"""A robot of another package: an entry point, a contract and a world are all that the commands need to find it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssql_ros.contract import load_contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.model.bundle import save_bundle
from ssql_ros.model.probes import with_probes
from support.toy_robot import toy_bundle

MODULE = '''
"""A crawler on a line of 2 m, which a controller pushes off its end."""

from pathlib import Path

import gymnasium
import numpy as np

from ssql_ros.behaviour.policy import UniformBox
from ssql_ros.robots.noise import Noise, Scripted
from ssql_ros.robots.plug import Robot
from ssql_ros.robots.tasks import Task


class Line(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, max_steps=40):
        self.max_steps = max_steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._steps = float(self.np_random.uniform(-0.2, 0.2)), 0
        return np.array([self._x]), {"incident": False}

    def step(self, action):
        self._x += 0.1 * float(action[0])
        self._steps += 1
        fell = abs(self._x) > 1.0
        return np.array([self._x]), -abs(self._x), fell, self._steps == self.max_steps, {"incident": fell}


class Push(Scripted):
    def __init__(self, contract):
        self._push = np.full(contract.action_size, 0.9)

    def best(self, observation):
        return self._push


class Slow(UniformBox):
    def __init__(self, most):
        super().__init__([-most], [most])
        self.most = most

    def describe(self):
        return {"kind": "slow", "most": self.most, "context": 0}


ROBOT = Robot(
    name="crawler",
    make_world=Line,
    tasks=(Task("crawl", "crawler", untrusted=Noise("push", sigma=0.05), behaviour={"kind": "slow", "most": 0.02}),),
    config=Path(__file__).parent / "config" / "crawler",
    behaviours={"slow": Slow},
    controllers={"push": Push},
    episodes=5,
)
'''
CONTRACT = """
robot: crawler
control_period: 0.05
command_timeout: 0.1
inputs: {odometry: {topic: odom, type: nav_msgs/msg/Odometry, max_age: 0.1}}
observation:
  trigger: odometry
  max_skew: 0.01
  episode_gap: 0.2
  frame: [{name: x, input: odometry, field: position.x, unit: m}]
  vector: [{block: frame}]
action:
  elements: [{name: x, low: -1.0, high: 1.0}]
  command: {topic: joint_commands, type: sensor_msgs/msg/JointState, field: velocity, unit: rad/s}
  joints: [{name: drive, offset: 0.0, sum: {x: 2.0}}]
incident: [{feature: x, below: -1.0, above: 1.0, unit: m}]
safe_action: [0.0]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the package is installed, and another one whose plug cannot be loaded."""
    folder = tmp_path_factory.mktemp("site")
    for name, plug in (("crawler", "crawler:ROBOT"), ("broken", "nowhere:ROBOT")):
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[ssql_ros.robots]\n{name} = {plug}\n")
    (folder / "crawler.py").write_text(MODULE)
    config = folder / "config" / "crawler"
    config.mkdir(parents=True)
    (config / "contract.yaml").write_text(CONTRACT)
    (config / "nodes.yaml").write_text("/**/behaviour_node:\n  ros__parameters:\n    sigma: 0.05\n")
    contract = load_contract(config / "contract.yaml")
    save_bundle(with_probes(toy_bundle(contract), contract), folder / "critic.safetensors")
    return folder


def begin(site: Path, *arguments: str, **options):
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "ssql_ros.cli.main", *arguments]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}, **options)


def ssql(site: Path, *arguments: str) -> tuple[dict, str]:
    """The figures of a command that must succeed, and what it said."""
    process = begin(site, *arguments, "--quiet", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return json.loads(printed.splitlines()[-1])["figures"], said


def test_collect_drives_it_by_its_own_kind_of_behaviour(site, tmp_path):
    figures, said = ssql(site, "collect", "--task", "crawl", "--out", str(tmp_path / "log"))
    assert (figures["episodes"], figures["safe_episodes"]) == (5, 1.0)
    rows = DataSet(tmp_path / "log")
    assert len(rows) == 5 * 40
    assert rows.manifest["contract_id"] == load_contract(site / "config/crawler/contract.yaml").id
    assert "robot broken: nowhere:ROBOT cannot be loaded: ModuleNotFoundError" in said


def test_eval_judges_a_shield_and_the_behaviour_on_it(site):
    bundle = str(site / "critic.safetensors")
    figures, _ = ssql(site, "eval", "shield", "--task", "crawl", "--bundle", bundle, "--episodes", "3")
    assert figures["falls_monitor"] == 3
    assert 8 <= figures["length_monitor"] <= 15
    figures, _ = ssql(site, "eval", "behaviour", "--task", "crawl", "--episodes", "2")
    assert figures["all_incidents"] == 0


def test_run_starts_its_nodes(site, domain, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        bundle = str(site / "critic.safetensors")
        run = begin(
            site,
            "run",
            "--task",
            "crawl",
            "--bundle",
            bundle,
            "--mode",
            "monitor",
            "--lock-step",
            stdout=file,
            stderr=file,
        )
    try:
        end = time.monotonic() + 120
        while "episode   2" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            assert run.poll() is None, log.read_text()
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
    finally:
        run.kill()
    assert "incident (x 1." in log.read_text()


def test_what_it_lacks_is_said_with_who_has_it(site):
    done = begin(site, "eval", "promise", "--task", "swimmer_velocity", stderr=subprocess.PIPE, text=True)
    _, said = done.communicate(timeout=120)
    assert done.returncode == 2
    assert "task 'swimmer_velocity' has no safe behaviour policy; these have one: crawl, minitaur" in said


def test_what_serves_a_robot_imports_no_simulator_and_no_torch():
    code = """
import sys
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.nodes import behaviour_node, policy_node, recorder_node, shield_node
from ssql_ros.robots.plug import find_behaviour
for robot in ("boat", "minitaur", "spider"):
    find_behaviour("", load_contract(find_contract(robot)))
print({"torch", "pybullet", "gymnasium", "matplotlib", "ssql_sim"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"


def test_pilots_know_the_box_and_the_rocks_of_the_boats_world():
    from ssql_ros.contract import find_contract
    from ssql_ros.robots.boat.pilots import HIGH, LOW, Chart
    from ssql_sim import boat

    chart = Chart.of(load_contract(find_contract("boat")))
    assert (chart.goal, chart.rocks, LOW, HIGH) == (boat.GOAL, boat.ROCKS, boat.LOW, boat.HIGH)
