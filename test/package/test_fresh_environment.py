"""The shield alone: what it needs is what setup.py asks for without extras, and who lacks more is told what."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.processes import missing
from support import fresh_environment
from support.robots import CONTRACT, Robot

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.ros]
LEFT_OUT = ("torch", "pybullet", "gymnasium", "matplotlib", "tensorboardX", "mujoco")


def extras() -> dict[str, list[str]]:
    """What each extra of setup.py asks for, without versions."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    named = {node.targets[0].id: node.value for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    listed = ast.literal_eval(named["EXTRAS"])
    return {extra: [name.partition(">")[0].partition("[")[0] for name in names] for extra, names in listed.items()}


def test_extra_that_is_advised_brings_the_module_that_is_missing():
    known = extras()
    for module, extra in missing.EXTRAS.items():
        assert module.partition("_")[0] in known[extra]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment with the shield's dependencies and ROS alone."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    return fresh_environment.make(folder, fresh_environment.ros_at_run_time(ROOT / "requirements.in"))


def run(python, *words, folder):
    # Nothing of this environment, whose paths a variable may hold.
    kept = ("PATH", "HOME", "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")
    env = {name: value for name, value in os.environ.items() if name in kept}
    return subprocess.run([python, *words], capture_output=True, text=True, timeout=100, cwd=folder, env=env)


def test_nothing_but_the_shields_needs_is_there(python, tmp_path):
    program = f"import importlib.util as u; print([name for name in {LEFT_OUT} if u.find_spec(name)])"
    done = run(python, "-c", program, folder=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_shield_alone_commands_a_robot(python, domain, tmp_path):
    log = tmp_path / "log"
    env = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "AMENT_PREFIX_PATH")}
    with log.open("wb") as file:
        words = [python, Path(sys.prefix) / "lib/ssql_ros/shield_node"]
        shield = subprocess.Popen(words, stdout=file, stderr=file, cwd=tmp_path, env=env)
    robot = Robot()
    try:
        robot.until(lambda: len(robot.commands) >= 5, robot.command([0.01] * len(CONTRACT.commanded.joint_names)))
        loaded = Path(f"/proc/{shield.pid}/maps").read_text()
    finally:
        robot.close()
        shield.terminate()
        assert shield.wait(20) == 0, log.read_text()
    assert "/onnxruntime/" in loaded
    assert not [name for name in LEFT_OUT if f"/{name}/" in loaded]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("train critic --task minitaur --out critic.safetensors", "ssql train needs torch, which is not installed; "),
        ("train sqrl --task spider", "ssql train needs torch, which is not installed; pip install 'ssql_ros[learn]'"),
        ("train behaviour --task minitaur --data log", "ssql train needs torch, which is not installed; "),
        (
            "eval shield --task minitaur",
            "ssql eval needs gymnasium, which is not installed; pip install 'ssql_ros[sim]'",
        ),
        ("collect --task minitaur --out data", "ssql collect needs gymnasium, which is not installed; "),
        ("run", "ssql run needs gymnasium, which is not installed; pip install 'ssql_ros[sim]'"),
        ("demo", "ssql demo needs gymnasium, which is not installed; pip install 'ssql_ros[sim]'"),
        ("demo learn", "ssql demo needs gymnasium, which is not installed; pip install 'ssql_ros[sim]'"),
        ("report", "ssql report needs matplotlib, which is not installed; pip install 'ssql_ros[report]'"),
    ],
)
def test_verb_without_its_extra_says_in_one_line_which(python, tmp_path, words, text):
    done = run(python, "-m", "ssql_ros.cli.main", *words.split(), folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {text}")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ("sim_node", "sim_node needs gymnasium, which is not installed; pip install 'ssql_ros[sim]'"),
        ("learner_node", "learner_node needs torch, which is not installed; pip install 'ssql_ros[learn]'"),
    ],
)
def test_node_without_its_extra_says_in_one_line_which(python, domain, tmp_path, node, text):
    # Through the launcher, as `ros2 run` starts it.
    done = run(python, Path(sys.prefix) / "lib/ssql_ros" / node, folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {text}\n")


@pytest.mark.parametrize("node", ["shield_node", "policy_node", "recorder_node", "behaviour_node", "driver_node"])
def test_node_that_serves_a_robot_needs_no_extra(python, tmp_path, node):
    done = run(python, Path(sys.prefix) / "lib/ssql_ros" / node, "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "parameters:" in done.stdout


@pytest.mark.parametrize("words", ["--help", "bag info {bag}", "bundle verify {bundle}", "bag convert --help"])
def test_verbs_of_bags_and_bundles_need_no_extra(python, tmp_path, walk, words):
    words = words.format(bag=walk, bundle=find_shipped_bundle("minitaur"))
    done = run(python, "-m", "ssql_ros.cli.main", *words.split(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
