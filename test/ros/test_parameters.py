"""Node parameters: what is out of bounds is refused by name, at start and later, and changes nothing."""

import importlib
import math
import subprocess

import pytest
import rclpy
from rclpy.parameter import Parameter as RosParameter

from ssql_ros.graph.processes import NODES, executable
from ssql_ros.ros.parameters import Parameter, declare
from support.nodes import run_main

TABLE = (
    Parameter("epsilon", 0.1, "threshold", low=0.0, high=1.0),
    Parameter("candidates", 100, "how many", low=1, high=1000),
    Parameter("mode", "enforce", "what to do", choices=("enforce", "monitor")),
    Parameter("least", 1.0, "bounded on one side", low=1.0),
    Parameter("nearest", False, "a switch"),
    Parameter("robot", "minitaur", "only at start", fixed=True),
)


@pytest.fixture
def started(domain):
    """Makes nodes with parameters given at start."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    nodes = []

    def start(**given):
        overrides = [RosParameter(name, value=value) for name, value in given.items()]
        node = rclpy.create_node("node", context=context, parameter_overrides=overrides, start_parameter_services=False)
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def together(values):
    return "epsilon: too high for monitor" if values["mode"] == "monitor" and values["epsilon"] > 0.5 else ""


def test_defaults_and_values_given_at_start(started):
    node = started(epsilon=0.2, mode="monitor")
    value_of = declare(node, TABLE, together)
    values = [value_of(parameter.name) for parameter in TABLE]
    assert values == [0.2, 100, "monitor", 1.0, False, "minitaur"]
    described = node.describe_parameter("epsilon")
    assert described.description == "threshold"
    assert (described.floating_point_range[0].from_value, described.floating_point_range[0].to_value) == (0.0, 1.0)
    assert node.describe_parameter("mode").additional_constraints == "one of: enforce, monitor"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"epsilon": 1.5}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"epsilon": "high"}, "epsilon"),
        ({"candidates": 0}, "candidates"),
        ({"candidates": 1.5}, "candidates"),
        ({"mode": "off"}, "mode: expected one of enforce, monitor; got 'off'"),
        ({"mode": False}, "mode: expected a text, got False; write it in quotes"),
        ({"nearest": 1}, "nearest: expected true or false, got 1"),
        ({"epsilon": 1}, "epsilon: expected a number with a decimal point, got 1; write 1.0"),
        ({"robots": "spider"}, "robots: is unknown; did you mean robot[?]"),
        ({"zzz": 1}, "zzz: is unknown; known: epsilon, candidates, mode, least, nearest, robot, use_sim_time"),
        ({"least": 0.5}, "least: expected at least 1, got 0.5"),
        ({"least": math.inf}, "least: expected a finite number, got inf"),
        ({"mode": "monitor", "epsilon": 0.9}, "epsilon: too high for monitor"),
    ],
    ids=repr,
)
def test_value_out_of_bounds_at_start_is_an_error_that_names_it(started, given, text):
    with pytest.raises(ValueError, match=f"^parameter {text}"):
        declare(started(**given), TABLE, together)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epsilon": 1.5}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"epsilon": "high"}, "Wrong parameter type"),
        ({"candidates": 0}, "candidates"),
        ({"mode": "off"}, "mode: expected one of"),
        ({"least": math.nan}, "least: expected a finite number"),
        ({"robot": "spider"}, "read"),
        ({"mode": "monitor", "epsilon": 0.9}, "epsilon: too high for monitor"),
        ({"epsilon": 0.3, "candidates": 0}, "candidates"),
    ],
    ids=repr,
)
def test_change_that_is_refused_changes_nothing(started, change, text):
    node = started()
    value_of = declare(node, TABLE, together)
    result = node.set_parameters_atomically([RosParameter(name, value=value) for name, value in change.items()])
    assert not result.successful
    assert text in result.reason
    assert [value_of(parameter.name) for parameter in TABLE] == [parameter.default for parameter in TABLE]


def test_change_in_bounds_is_made(started):
    node = started()
    value_of = declare(node, TABLE, together)
    changes = [RosParameter("epsilon", value=0.05), RosParameter("mode", value="monitor")]
    assert node.set_parameters_atomically(changes).successful
    assert (value_of("epsilon"), value_of("mode")) == (0.05, "monitor")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["-p", "epsilon:=0.0"], "parameter epsilon: "),
        (["-p", "epsilon:=-0.5"], "parameter epsilon: "),
        (["-p", "epsilon:=.nan"], "parameter epsilon: "),
        (["-p", "epsilon:=2.0"], "parameter epsilon: "),
        (["-p", "candidates:=many"], "parameter candidates: expected a whole number, got 'many'"),
        (["-p", "mod:=monitor"], "parameter mod: is unknown; did you mean mode?"),
        (["-p", "mode"], "Couldn't parse parameter override rule: '-p mode'"),
        (["-p", "candidates:=[1"], "Couldn't parse parameter override rule: '-p candidates:=[1'"),
        (["--params-file", "/nowhere.yaml"], "--params-file: there is no file /nowhere.yaml"),
        (["--params-file", "FILE"], "parameter mod: is unknown; did you mean mode?"),
        (["--mode", "monitor"], "unknown ROS argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_node_with_a_wrong_parameter_ends_with_one_line_and_no_traceback(domain, tmp_path, capfd, given, text):
    file = tmp_path / "shield.yaml"
    file.write_text("shield_node:\n  ros__parameters: {mod: monitor}\n")
    words = [str(file) if word == "FILE" else word for word in given]
    status, _, error = run_main("shield_node", capfd, "--ros-args", *words)
    assert status == 2
    assert error.startswith(f"error: {text}")
    assert error.count("\n") == 1


def test_process_of_a_node_ends_with_one_line_and_status_2(domain):
    command = [executable("shield_node"), "--ros-args", "-p", "epsilon:=2.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: parameter epsilon: ")


@pytest.mark.parametrize("node", NODES)
def test_node_refuses_words_that_it_does_not_know(node, capfd):
    status, _, error = run_main(node, capfd, "--sed", "3", "--ros-args", "-p", "use_sim_time:=true")
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith("error: unknown argument --sed; parameters are given ")


def test_node_shows_how_a_word_is_said_as_a_parameter(capfd):
    for words in (["--mode", "monitor"], ["--mode=monitor"], ["mode:=monitor"]):
        assert run_main("shield_node", capfd, *words)[2].endswith("like this: --ros-args -p mode:=monitor\n")


@pytest.mark.parametrize("node", NODES)
def test_help_lists_every_parameter_with_type_default_and_bounds(node, capfd):
    status, told, error = run_main(node, capfd, "--help")
    assert (status, error) == (0, "")
    assert told.startswith(f"usage: ros2 run ssql_ros {node} ")
    for parameter in importlib.import_module(f"ssql_ros.nodes.{node}").PARAMETERS:
        head = f"  {parameter.name} ({parameter.kind}, default {parameter.default!r}{parameter.allowed})"
        assert f"{head}\n      {parameter.description}" in told
    assert "  use_sim_time " in told
    assert " -r __ns:=/" in told


def test_names_of_ros_itself_are_known(started):
    declare(started(**{"use_sim_time": True, "qos_overrides./clock.subscription.depth": 3}), TABLE)
