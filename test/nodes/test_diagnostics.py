"""What the nodes say on /diagnostics, against the analyzers that group it (config/diagnostics.yaml)."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray

from ssql_ros.contract import config_folder
from ssql_ros.graph.processes import FLIGHT, Graph
from ssql_ros.ros.client import Client

GAITS = config_folder() / "bundles" / "minitaur_trots.safetensors"
GROUP, GENERIC = "diagnostic_aggregator/AnalyzerGroup", "diagnostic_aggregator/GenericAnalyzer"
# The keys that GenericAnalyzer::init reads, with the types that it asks rclcpp for.
LISTS = ("find_and_remove_prefix", "remove_prefix", "startswith", "contains", "expected", "regex")
TYPES = {**dict.fromkeys(LISTS, list), "type": str, "path": str, "timeout": float, "num_items": int}


def analyzers(settings: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and settings of every analyzer that matches names, in the group or in those within it."""
    for name, value in settings.items():
        if not isinstance(value, dict):
            continue
        assert {"type", "path"} <= set(value), f"{name}: is skipped without type and path"
        if value["type"] == GROUP:
            yield from ((f"{value['path']}/{path}", each) for path, each in analyzers(value["analyzers"]))
        else:
            yield value["path"], value


def matches(analyzer: dict[str, Any], name: str) -> bool:
    """The rule of GenericAnalyzer::match; `expected` says what is missing, and matches nothing by itself."""
    begins = analyzer.get("find_and_remove_prefix", analyzer.get("startswith", []))
    return (
        any(re.fullmatch(pattern, name) for pattern in analyzer.get("regex", []))
        or any(name.startswith(begin) for begin in begins)
        or any(part in name for part in analyzer.get("contains", []))
    )


@pytest.fixture(scope="module")
def file() -> list[tuple[str, dict[str, Any]]]:
    """The analyzers of the file that is installed."""
    settings = yaml.safe_load((config_folder() / "diagnostics.yaml").read_text())
    assert list(settings) == ["analyzers"], "the aggregator's node is named analyzers"
    return list(analyzers(settings["analyzers"]["ros__parameters"]))


def test_analyzers_have_the_keys_and_types_that_the_aggregator_reads(file):
    paths = [path for path, _ in file]
    assert len(set(paths)) == len(paths) >= 5
    for path, analyzer in file:
        assert analyzer["type"] == GENERIC
        for key, value in analyzer.items():
            assert type(value) is TYPES[key], f"{path}: {key}"
            assert type(value) is not list or all(type(each) is str for each in value)
        assert any(key in analyzer for key in ("find_and_remove_prefix", "startswith", "contains", "regex")), path


@pytest.mark.ros
@pytest.mark.long
@pytest.mark.parametrize("space", ["", "/lab/one"])
def test_every_status_of_the_nodes_has_one_analyzer(file, domain: int, tmp_path: Path, space: str) -> None:
    where = {"__ns": space} if space else {}
    started: dict[str, dict[str, object]] = {
        "shield_node": {},
        "policy_node": {"bundle": str(GAITS)},
        "behaviour_node": {},
        "learner_node": {"behaviour": str(GAITS), "folder": str(tmp_path / "learner")},
        "recorder_node": {"output": str(tmp_path / "bag")},
        FLIGHT: {"output": str(tmp_path / "flight"), "flight": True},
    }
    heard: dict[str, str] = {}  # hardware id by name

    def take(array: DiagnosticArray) -> None:
        heard.update({status.name: status.hardware_id for status in array.status})

    with Graph(tmp_path / "logs") as graph, Client("aggregator") as client:
        client.node.create_subscription(DiagnosticArray, "/diagnostics", take, 100)
        for name, given in started.items():
            remap = {**where, "__node": name} if name == FLIGHT else where
            graph.start("recorder_node" if name == FLIGHT else name, None, remap, contract="minitaur", **given)
        end = time.monotonic() + 60.0
        # Shield and policy also tell of announced models.
        while set(heard.values()) != set(started) or len(heard) < len(started) + 2:
            assert time.monotonic() < end, f"only {heard} was heard"
            graph.check()
            client.spin(0.2)
    found = {name: [path for path, analyzer in file if matches(analyzer, name)] for name in heard}
    assert {name: paths for name, paths in found.items() if len(paths) != 1} == {}
    assert {path for paths in found.values() for path in paths} == {path for path, _ in file}, "an analyzer of nothing"
    prefix = f"{space.lstrip('/')}/" if space else ""
    assert all(name.startswith(f"{prefix}{heard[name]}: ") for name in heard)
