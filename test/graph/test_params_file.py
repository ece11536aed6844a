"""Parameter files as the launch files read them."""

import re

import pytest

from ssql_ros.graph.params_file import ParamsFile, ParamsFileError

TWO_ROBOTS = """
shield_node:
  ros__parameters: {mode: monitor, candidates: 50}
/two/shield_node:
  ros__parameters: {candidates: 60}
/**:
  ros__parameters: {candidates: 10, seed: 3}
flight_recorder:
  ros__parameters: {flight_seconds: 60.0}
/two/**:
  ros__parameters: {seed: 4}
three:
  policy_node:
    ros__parameters: {best: true, nested: {deep: [1, 2]}}
"""


@pytest.fixture
def two_robots(tmp_path):
    path = tmp_path / "nodes.yaml"
    path.write_text(TWO_ROBOTS)
    return ParamsFile(path)


@pytest.mark.parametrize(
    ("node", "namespace", "values"),
    [
        ("shield_node", "", {"mode": "monitor", "candidates": 50, "seed": 3}),
        ("shield_node", "/one", {"mode": "monitor", "candidates": 50, "seed": 3}),
        ("shield_node", "two", {"mode": "monitor", "candidates": 60, "seed": 4}),
        ("recorder_node", "", {"candidates": 10, "seed": 3}),
        ("flight_recorder", "", {"candidates": 10, "seed": 3, "flight_seconds": 60.0}),
        ("recorder_node", "/two/arm", {"candidates": 10, "seed": 4}),
        ("policy_node", "/three", {"candidates": 10, "seed": 3, "best": True, "nested": {"deep": [1, 2]}}),
        ("policy_node", "/four", {"candidates": 10, "seed": 3}),
    ],
)
def test_node_gets_what_its_name_and_the_wildcards_say(two_robots, node, namespace, values):
    assert two_robots.values(node, namespace) == values


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the file: expected node names and ros__parameters, got None"),
        ("- 1", r"the file: expected node names and ros__parameters, got \[1\]"),
        ("shield_node: {mode: monitor}", "shield_node/mode: expected node names and ros__parameters, got 'monitor'"),
        ("shield_node: {ros__parameters: 3}", "shield_node: ros__parameters: expected a node's name above"),
        ("ros__parameters: {mode: monitor}", "the file: ros__parameters: expected a node's name above"),
        ("sheild_node: {ros__parameters: {}}", "it has sheild_node; did you mean shield_node?"),
        ("camera: {ros__parameters: {}}", "it has camera; expected one of shield_node, behaviour_node"),
        ("a: [", "is not YAML: while parsing"),
    ],
)
def test_file_that_is_no_parameter_file_is_refused_with_its_name(tmp_path, text, error):
    path = tmp_path / "nodes.yaml"
    path.write_text(text)
    with pytest.raises(ParamsFileError, match=f"^{re.escape(str(path))}: .*{error.replace('?', '[?]')}"):
        ParamsFile(path)


def test_file_that_is_not_there_is_named():
    with pytest.raises(ParamsFileError, match=r"^/nope: cannot be read: No such file"):
        ParamsFile("/nope")
