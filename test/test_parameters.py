"""Node parameters: what is out of bounds is refused by name, at start and later, and changes nothing."""

import math
import os
import random
import subprocess

import pytest
import rclpy
from rclpy.parameter import Parameter as RosParameter

from ssql_ros.graph import executable
from ssql_ros.nodes.parameters import Parameter, declare

TABLE = (
    Parameter("epsilon", 0.1, "threshold", low=0.0, high=1.0),
    Parameter("candidates", 100, "how many", low=1, high=1000),
    Parameter("mode", "enforce", "what to do", choices=("enforce", "monitor")),
    Parameter("least", 1.0, "bounded on one side", low=1.0),
    Parameter("nearest", False, "a switch"),
    Parameter("robot", "minitaur", "only at start", fixed=True),
)


@pytest.fixture
def started(monkeypatch):
    """Makes nodes with parameters given at start."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=random.SystemRandom().randint(1, 101))
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
    "given", ["epsilon:=0.0", "epsilon:=-0.5", "epsilon:=.nan", "epsilon:=2.0", "candidates:=many"]
)
def test_node_with_a_wrong_parameter_ends_with_one_line_and_no_traceback(given):
    environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": "101"}
    command = [executable("shield_node"), "--ros-args", "-p", given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: parameter {given.split(':=')[0]}: ")
    assert done.stderr.count("\n") == 1
