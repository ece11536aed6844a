"""The package as it is built and installed: messages, executables, metadata, and what set-up says when it cannot."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = sorted(path.stem for path in (ROOT / "msg").glob("*.msg"))
NODES = ["sim_node", "driver_node", "behaviour_node", "policy_node", "shield_node", "recorder_node", "learner_node"]
NODES += ["marker_node"]


@pytest.fixture(scope="module")
def prefix() -> Path:
    """Where the package is installed."""
    from ament_index_python import get_package_prefix

    return Path(get_package_prefix("ssql_ros"))


def filled(message: object) -> object:
    """`message` with a value other than the default in every scalar, string and numeric array field."""
    for name, kind in message.get_fields_and_field_types().items():
        if kind == "sequence<double>":
            setattr(message, name, [0.1, -2.5, 1e300])
        elif kind == "sequence<boolean>":
            setattr(message, name, [True, False])
        elif kind == "sequence<uint8>":
            setattr(message, name, [0, 7, 255])
        elif kind in ("double", "float"):
            setattr(message, name, -0.625)
        elif kind == "boolean":
            setattr(message, name, True)
        elif kind == "string":
            setattr(message, name, f"{name} κ")
        elif kind.startswith("uint"):
            setattr(message, name, 2 ** int(kind[4:]) - 1)
        else:
            assert kind == "std_msgs/Header", f"no test value for {name} of type {kind}"
            message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id = 12, 999_999_999, "base"
    return message


@pytest.mark.parametrize("name", MESSAGES)
def test_message_survives_the_wire(name):
    from rclpy.serialization import deserialize_message, serialize_message

    import ssql_ros.msg

    kind = getattr(ssql_ros.msg, name)
    message = filled(kind())
    assert message != kind()
    assert deserialize_message(serialize_message(message), kind) == message


def test_messages_that_are_built_are_those_of_msg():
    listed = re.findall(r"^\s*msg/(\w+)\.msg$", (ROOT / "CMakeLists.txt").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == MESSAGES


def test_sources_and_messages_share_one_package():
    import ssql_ros
    import ssql_ros.msg
    import ssql_sim

    assert ssql_ros.__version__
    assert ssql_sim.__name__ == "ssql_sim"


@pytest.mark.parametrize("path", [*(f"lib/ssql_ros/{node}" for node in NODES), "bin/ssql"])
def test_executable_is_installed(prefix, path):
    executable = prefix / path
    assert os.access(executable, os.X_OK)
    first, *rest = executable.read_text().splitlines()
    assert first in (f"#!{prefix}/bin/python", "#!/usr/bin/env python3")
    module = "ssql_ros.cli.main" if path == "bin/ssql" else f"ssql_ros.nodes.{executable.name}"
    assert f"from {module} import main" in map(str.strip, rest)


@pytest.mark.parametrize("folder", ["config", "launch"])
def test_shared_files_are_installed(prefix, folder):
    wanted = {path.name for path in (ROOT / folder).iterdir()} - {"__pycache__"}
    assert {path.name for path in (prefix / "share/ssql_ros" / folder).iterdir()} >= wanted


def test_package_xml_is_well_formed_and_versions_agree():
    import ssql_ros

    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.tag == "package"
    assert package.get("format") == "3"
    assert package.findtext("name") == "ssql_ros"
    assert package.findtext("license") == "Apache-2.0"
    assert package.findtext("member_of_group") == "rosidl_interface_packages"
    assert package.findtext("export/build_type") == "ament_cmake"
    version = package.findtext("version")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert ssql_ros.__version__ == version
    command = [sys.executable, "setup.py", "--version"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.split()[-1] == version


def test_lock_pins_every_package_and_names_no_host():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 100
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin), pin
    assert "torch==2.13.0" in pins
    assert not [pin for pin in pins if pin.startswith(("nvidia-", "triton"))]


@pytest.fixture
def run_setup(tmp_path):
    """`make setup` into a temporary folder, with only the commands of this machine that `without` leaves."""

    def run(without: str = "", **variables: str) -> subprocess.CompletedProcess:
        commands = tmp_path / "commands"
        commands.mkdir()
        for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
            for command in Path(folder).iterdir() if Path(folder).is_dir() else ():
                if not (without and re.fullmatch(without, command.name)) and not (commands / command.name).exists():
                    (commands / command.name).symlink_to(command)
        for name, text in variables.pop("stubs", {}).items():
            (commands / name).unlink(missing_ok=True)
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        # Should a check let a fault through, nothing is downloaded.
        folders = {"VENV": f"{tmp_path}/venv", "BUILD": f"{tmp_path}/build", "PIP_ARGS": "--no-index"}
        variables = {**folders, **variables}
        return subprocess.run(
            ["make", "setup", *(f"{name}={value}" for name, value in variables.items())],
            cwd=ROOT,
            env={"PATH": str(commands), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


# The interpreter that made this environment: right version, wherever it lies.
GOOD_PYTHON = os.path.realpath(sys.executable)
NO_CXX = r"([\w-]+-)?(g\+\+|clang\+\+|c\+\+)(-\d+)?"

FAULTS = {
    "named Python is missing": ({"PYTHON": "/nonexistent/python"}, "is not CPython 3.11", "make setup PYTHON="),
    "named Python is no CPython 3.11": ({"PYTHON": "/bin/false"}, "is not CPython 3.11", "make setup PYTHON="),
    "no Python": ({"without": r"(python|pypy).*"}, "no CPython 3.11 found", "apt-get install python3.11"),
    "no C++ compiler": ({"without": NO_CXX, "PYTHON": GOOD_PYTHON}, "no C++ compiler found", "apt-get install g++"),
    "named compiler is missing": ({"CXX": "/none/g++", "PYTHON": GOOD_PYTHON}, "CXX=/none/g++", "unset CXX"),
    "no cmake": ({"without": "cmake", "PYTHON": GOOD_PYTHON}, "no cmake found", "apt-get install cmake"),
    "old cmake": (
        {"stubs": {"cmake": "#!/bin/sh\necho cmake version 3.16.3\n"}, "PYTHON": GOOD_PYTHON},
        "cmake 3.16.3 is too old",
        "install 3.21 or later",
    ),
    "other processor": ({"stubs": {"uname": "#!/bin/sh\necho aarch64\n"}}, "Linux x86_64 only", "colcon"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_setup_names_what_is_missing_and_the_fix_in_one_line(run_setup, tmp_path, fault):
    arguments, what, fix = FAULTS[fault]
    result = run_setup(**arguments)
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(errors) == 1, result.stderr
    assert errors[0].startswith("error: ")
    assert what in errors[0]
    assert fix in errors[0]
    assert not (tmp_path / "venv").exists()


SHELLS = {
    "empty": {},
    "of another environment": {
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
        "LD_LIBRARY_PATH": "/other/lib",
        "AMENT_PREFIX_PATH": "/other",
    },
    "of a sourced ROS": {"PYTHONPATH": "{other_ros}"},
}


@pytest.mark.parametrize("shell", SHELLS)
def test_environment_finds_its_own_ros_from_any_shell(prefix, tmp_path, shell):
    if not (prefix / "pyvenv.cfg").exists():
        pytest.skip("installed by colcon, not in a virtual environment")
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy/__init__.py").write_text("raise ImportError('another ROS')")
    env = {name: value.format(other_ros=tmp_path) for name, value in SHELLS[shell].items()}
    program = (
        "import rclpy, os, ssql_ros.msg; from ament_index_python import get_package_prefix as p;"
        "print(p('ssql_ros'), rclpy.__file__); ssql_ros.msg.Proposal.__class__.__import_type_support__()"
    )
    command = [prefix / "bin/python", "-c", program]
    result = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    assert result.stdout.split()[0] == str(prefix)
    assert result.stdout.split()[1].startswith(str(prefix))
