"""Every path of the layouts for Foxglove and PlotJuggler leads to a field that somebody publishes."""

import importlib
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from visualization_msgs.msg import MarkerArray

from ssql_ros.contract import config_folder, find_contract, load_contract
from ssql_ros.contract.topics import (
    ACCOUNT_TOPIC,
    DIAGNOSTICS_TOPIC,
    INTERVENTIONS_TOPIC,
    MARKERS,
    OWN_MARKERS,
    SHIELD,
    STATE_TOPIC,
)
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.robots import DEFAULT
from ssql_ros.ros.client import Client

FOLDER = config_folder() / "layouts"
TOLD = load_contract(find_contract(DEFAULT)).commanded
TOPICS = {
    DIAGNOSTICS_TOPIC: DiagnosticArray,
    **{
        f"/{topic}": kind
        for topic, kind in {
            ACCOUNT_TOPIC: ShieldedAction,
            INTERVENTIONS_TOPIC: ShieldedAction,
            STATE_TOPIC: ShieldState,
            OWN_MARKERS.replace("~", MARKERS): MarkerArray,
            TOLD.topic: JointState,
            TOLD.raw_topics[0]: JointState,
        }.items()
    },
}
NUMBERS = {"double", "float", "boolean", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
SERIES = f"{DIAGNOSTICS_TOPIC}/{SHIELD}/{SHIELD}: shield"  # of one status, as PlotJuggler names it


def type_at(kind: Any, path: list[str]) -> str:
    """Type of the field that a path leads to, from a message on; an element of a list counts as such."""
    for i, step in enumerate(path):
        name, index = re.fullmatch(r"(\w+)((?:\[\d+\])?)", step).groups()
        fields = kind.get_fields_and_field_types()
        assert name in fields, f"{kind.__name__} has no {name}; it has {', '.join(fields)}"
        found = fields[name]
        if index:
            listed = re.fullmatch(r"sequence<(.+)>|(.+)\[\d+\]", found)
            assert listed, f"{name} is a {found}, and no list"
            found = listed[1] or listed[2]
        if i + 1 == len(path):
            return found
        package, _, message = found.partition("/")
        kind = getattr(importlib.import_module(f"{package}.msg"), message)
    raise AssertionError("a path without a field")


def panels() -> dict[str, dict[str, Any]]:
    return json.loads((FOLDER / "foxglove.json").read_text())["configById"]


def shown(layout: Any) -> Iterator[str]:
    """The panels of a tree of rows and columns."""
    if isinstance(layout, str):
        yield layout
    else:
        assert layout["direction"] in ("row", "column")
        assert 0 < layout["splitPercentage"] < 100
        for side in ("first", "second"):
            yield from shown(layout[side])


def series() -> list[str]:
    root = ElementTree.parse(FOLDER / "plotjuggler.xml").getroot()
    return [curve.attrib["name"] for curve in root.iter("curve")]


def test_foxglove_shows_every_panel_once():
    layout = json.loads((FOLDER / "foxglove.json").read_text())["layout"]
    assert sorted(shown(layout)) == sorted(panels())
    kinds = {panel.partition("!")[0] for panel in panels()}
    assert kinds == {
        *("Plot", "StateTransitions", "Indicator", "RawMessages", "3D"),
        *("DiagnosticSummary", "DiagnosticStatusPanel"),
    }


@pytest.mark.parametrize("panel", panels())
def test_foxglove_panel_reads_what_is_published(panel):
    config = panels()[panel]
    values = [path["value"] for path in config.get("paths", [])] + [config[key] for key in ("path",) if key in config]
    for value in values:
        if value != "0":  # a line
            topic, *path = value.split(".")
            assert type_at(TOPICS[topic], path) in NUMBERS, value
    topics = [config[key] for key in ("topicPath", "topicToRender") if key in config] + [*config.get("topics", {})]
    assert set(topics) <= set(TOPICS)
    assert values or topics
    if "selectedName" in config:
        assert config["selectedName"] == f"{config['selectedHardwareId']}: shield" == f"{SHIELD}: shield"


@pytest.mark.parametrize("name", series())
def test_plotjuggler_series_is_published(name):
    if name.startswith(f"{SERIES}/"):
        return  # below, of a shield that runs
    topic = max((topic for topic in TOPICS if name.startswith(f"{topic}/")), key=len)
    # Those have series by the names of joints, which are one robot's.
    assert TOPICS[topic] is not JointState
    assert type_at(TOPICS[topic], name.removeprefix(f"{topic}/").split("/")) in NUMBERS


@pytest.mark.ros
def test_plotjuggler_series_of_diagnostics_are_what_a_shield_says(domain: int, tmp_path: Path) -> None:
    said: dict[str, str] = {}

    def take(array: DiagnosticArray) -> None:
        for status in array.status:
            values = {value.key: value.value for value in status.values}
            said.update({f"{DIAGNOSTICS_TOPIC}/{status.hardware_id}/{status.name}/{k}": v for k, v in values.items()})
            said[f"{DIAGNOSTICS_TOPIC}/{status.hardware_id}/{status.name}/level"] = str(status.level[0])

    wanted = {name for name in series() if name.startswith(f"{DIAGNOSTICS_TOPIC}/")}
    end = time.monotonic() + 30.0
    with Graph(tmp_path / "logs") as graph, Client("plots") as client:
        client.node.create_subscription(DiagnosticArray, DIAGNOSTICS_TOPIC, take, 10)
        graph.start(SHIELD)
        while not wanted <= set(said):
            assert time.monotonic() < end, f"nobody says {wanted - set(said)}"
            graph.check()
            client.spin(0.2)
    assert all(math.isfinite(float(said[name])) for name in wanted)


def test_plotjuggler_splits_as_often_as_it_says():
    root = ElementTree.parse(FOLDER / "plotjuggler.xml").getroot()
    splitters = list(root.iter("DockSplitter"))
    assert len(splitters) == len(list(root.iter("Tab"))) == 4
    for splitter in splitters:
        assert len(splitter) == int(splitter.attrib["count"]) == len(splitter.attrib["sizes"].split(";"))
        assert sum(map(float, splitter.attrib["sizes"].split(";"))) == pytest.approx(1.0, abs=1e-5)


def test_both_show_scores_decisions_times_state_and_what_was_proposed():
    account, state = f"/{ACCOUNT_TOPIC}", f"/{STATE_TOPIC}"
    wanted = {"q_safe_proposal", "q_safe_action", "epsilon", "delta", "decision", "decision_time"}
    wanted |= {"proposal[0]", "action[0]"}
    assert {f"{account}/{field}" for field in wanted} | {f"{state}/margin", f"{SERIES}/level"} <= set(series())
    text = (FOLDER / "foxglove.json").read_text()
    assert all(f'"{account}.{field}"' in text for field in wanted)


def test_fields_that_do_not_exist_are_found():
    with pytest.raises(AssertionError, match="ShieldedAction has no q_save"):
        type_at(ShieldedAction, ["q_save"])
    with pytest.raises(AssertionError, match="and no list"):
        type_at(ShieldedAction, ["epsilon[0]"])
    assert type_at(DiagnosticArray, ["status[0]", "level"]) == "octet"
    assert type_at(ShieldState, ["header", "stamp", "nanosec"]) == "uint32"
