"""The launch files, where ROS 2's launch is installed; it is on no package registry."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros
LAUNCH = Path(__file__).resolve().parents[2] / "launch"
EXAMPLES = LAUNCH.with_name("examples")
REASON = "launch and launch_ros are not installed: the launch files are NOT tested here; run this in a ROS 2 install"
launch = pytest.importorskip("launch", reason=REASON)
pytest.importorskip("launch_ros", reason=REASON)
ros2 = pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command: launch files are NOT started here")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "shield",
            {"contract", "bundle", "mode", "epsilon", "record", "output", "flight", "markers"}
            | {"commands_in", "commands_out"},
        ),
        ("policy", {"contract", "bundle", "best", "output", "seed", "bundle_folder", "commands_out"}),
        (
            "robot",
            {"task", "bundle", "mode", "epsilon", "record", "output", "flight", "simulator", "real_time", "controller"},
        ),
        ("learn", {"contract", "bundle", "folder", "goal", "announce", "settings"}),
    ],
)
def test_launch_file_loads_and_declares_its_arguments(name, arguments):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH / f"{name}.launch.py"))
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert arguments | {"namespace", "use_sim_time", "params_file"} <= set(declared)
    assert all(argument.description for argument in declared.values())


@pytest.mark.parametrize("name", [path.name.removesuffix(".launch.py") for path in EXAMPLES.glob("*.launch.py")])
def test_launch_file_of_an_example_loads_and_takes_the_arguments_of_a_shield(name):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(EXAMPLES / f"{name}.launch.py"))
    declared = {argument.name for argument in description.get_launch_arguments()}
    assert {"contract", "bundle", "mode", "namespace", "use_sim_time", "params_file"} <= declared


WRONG = [
    ("robot", "epsilon:=abc", "argument epsilon:=abc: epsilon: expected above 0 and below 1"),
    ("robot", "epsilon:=nan", "argument epsilon:=nan: epsilon: expected above 0 and below 1"),
    ("robot", "use_sim_time:=maybe", "argument use_sim_time: expected true or false, got 'maybe'"),
    ("robot", "mode:=foo", "argument mode: expected one of enforce, monitor; got 'foo'"),
    ("robot", "bundle:=/nope", "argument bundle:=/nope: /nope: cannot be read"),
    ("robot", "seed:=1.5", "argument seed: expected a whole number, got '1.5'"),
    ("robot", "sigma:=-1", "argument sigma: expected at least 0"),
    ("robot", "simulator:=2", "argument simulator: expected true or false, got '2'"),
    ("robot", "commands_in:=/mine", "argument commands_in: is unknown"),
    ("robot", "task:=fly", "argument task:=fly: task 'fly' is unknown; known: "),
    ("robot", "sed:=3", "argument sed: is unknown; did you mean seed?"),
    ("shield", "contract:=bot", "argument contract:=bot: no contract 'bot'"),
    ("shield", "contract:=swimmer", "no bundle with a safety critic of swimmer is shipped"),
    ("shield", "commands_in:=a b", "argument commands_in: expected a topic name"),
    ("shield", "epsilon:=0", "argument epsilon:=0: epsilon: expected above 0 and below 1"),
    ("shield", "params_file:=/nope", "argument params_file:=/nope: /nope: cannot be read"),
    ("robot", "params_file:=/dev/null", "argument params_file:=/dev/null: /dev/null: the file: expected node names"),
    ("policy", "best:=maybe", "argument best: expected true or false"),
    ("policy", "bundle:=/nope", "argument bundle:=/nope: /nope: cannot be read"),
    ("learn", "", "argument bundle: expected the path of a bundle, got none"),
    ("learn", "bundle:=/nope", "argument bundle:=/nope: /nope: cannot be read"),
]


@ros2
@pytest.mark.parametrize(("name", "argument", "text"), WRONG)
def test_wrong_argument_is_named_before_anything_starts(domain, name, argument, text):
    command = ["ros2", "launch", str(LAUNCH / f"{name}.launch.py"), *filter(None, [argument])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert text in printed
    assert "process started" not in printed


def begin(log, name, *arguments):
    with log.open("wb") as file:
        command = ["ros2", "launch", str(LAUNCH / f"{name}.launch.py"), *arguments]
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"})


def wait_for(pattern, log):
    end = time.monotonic() + 90
    while not (found := re.search(pattern, log.read_text())):
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return found


@ros2
def test_end_of_a_required_node_ends_the_launch_with_an_error(domain, tmp_path):
    log = tmp_path / "log"
    launched = begin(log, "robot")
    try:
        wait_for("shield_node]: bundle ", log)
        os.kill(int(wait_for(r"\[sim_node-\d+\]: process started with pid \[(\d+)\]", log)[1]), signal.SIGKILL)
        assert launched.wait(90) == 1
    finally:
        launched.kill()
    text = log.read_text()
    assert "sim_node has ended, and this launch with it" in text
    for node in ("shield_node", "behaviour_node"):
        assert re.search(rf"{node}-\d+\]: process has finished cleanly", text)


@ros2
def test_parameter_file_goes_to_the_nodes_and_an_argument_goes_before_it(domain, tmp_path):
    file, log = tmp_path / "mine.yaml", tmp_path / "log"
    file.write_text("shield_node:\n  ros__parameters: {mode: monitor, candidates: 7}\n")
    launched = begin(log, "shield", "contract:=boat", f"params_file:={file}", "mode:=enforce", "namespace:=one")
    try:
        wait_for("shield_node]: bundle .* for boat-", log)
        for name, value in (("candidates", "7"), ("mode", "enforce")):
            command = ["ros2", "param", "get", "--hide-type", "/one/shield_node", name]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.stdout.split() == [value], done.stderr
        launched.send_signal(signal.SIGINT)
        assert launched.wait(90) == 0
    finally:
        launched.kill()


@ros2
def test_shield_of_the_boat_finds_the_shipped_bundle_and_ends_with_ctrl_c(domain, tmp_path):
    log = tmp_path / "log"
    launched = begin(log, "shield", "contract:=boat", "mode:=monitor")
    try:
        wait_for("shield_node]: bundle .* for boat-", log)
        launched.send_signal(signal.SIGINT)
        assert launched.wait(90) == 0
    finally:
        launched.kill()
    assert "has ended, and this launch with it" not in log.read_text()
