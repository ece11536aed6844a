"""Every form that rosbag2 gives a bag converts to the same transitions, whoever named its topics."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer

from ssql_ros.bags import BagError, open_bag, raw_messages, survey
from ssql_ros.bags.conversion import convert
from ssql_ros.cli.main import main
from ssql_ros.data.rewards import reward_of
from support.bag_forms import (
    FORMS,
    MCAP,
    MYSTERY,
    SQLITE,
    Form,
    converted,
    write_as,
)
from support.bags import make_store


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_a_bag_gives_the_same_transitions(
    walk: Path, walk_rows: list[dict], tmp_path: Path, form: Form
) -> None:
    bag = write_as(form, walk, tmp_path / "bag")
    rows, outcome = converted(bag)
    assert outcome.problems == []
    assert len(rows) == len(walk_rows)
    for mine, its in zip(rows, walk_rows, strict=True):
        assert all(np.array_equal(mine[name], value) for name, value in its.items())
    seen = survey(bag)
    assert sum(topic.count for topic in seen.topics.values()) == 2000
    assert seen.problem == ""


@pytest.mark.parametrize("storage", [SQLITE, MCAP])
def test_a_type_that_nobody_knows_stands_in_no_one_s_way(
    walk: Path, walk_rows: list[dict], tmp_path: Path, storage: StoragePlugin, capsys
) -> None:
    bag = write_as(Form(storage), walk, tmp_path / "bag", namespace="/robot", strangers=True)
    rows, outcome = converted(bag)
    assert (len(rows), outcome.problems) == (len(walk_rows), [])
    assert main(["bag", "info", str(bag), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["topics"]["/mystery"] == {"type": MYSTERY, "messages": 1}
    # Where the contract needs the topic, it is refused by name.
    with Writer(tmp_path / "odd", version=9, storage_plugin=storage) as writer:
        for topic in ("/joint_states", "/imu/data", "/joint_commands", "/odom"):
            odd = writer.add_connection(topic, MYSTERY, msgdef="float64 x", rihs01="RIHS01_" + "0" * 64)
            writer.write(odd, 0, b"\x00\x01\x00\x00" + bytes(8))
    with pytest.raises(BagError, match=f"expected type .*, the bag has {MYSTERY}"):
        converted(tmp_path / "odd")


def test_topics_that_the_contract_s_yaml_names_serve_as_any(walk: Path, walk_rows: list[dict], tmp_path: Path) -> None:
    from ssql_ros.contract import find_contract, load_contract

    # Somebody's robot, recorded by `ros2 bag record`: other names, absolute and relative, in a namespace.
    store, bag = make_store(), tmp_path / "bag"
    names = {
        "/joint_states": "/dog/motors/state",
        "/imu/data": "/dog/vectornav/imu",
        "/joint_commands": "/dog/motors/command",
        "/odom": "/tracker/odometry",
    }
    with open_bag(walk) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    with Writer(bag, version=9, storage_plugin=SQLITE) as writer:
        topics = {topic: writer.add_connection(names[topic], kind, typestore=store) for topic, kind in kinds.items()}
        for topic, _, time, data in raw_messages(walk, kinds):
            writer.write(topics[topic], time, data)
    document = yaml.safe_load(find_contract("minitaur").read_text())
    by_old = {old.lstrip("/"): new.removeprefix("/dog/") for old, new in names.items()}
    for source in document["inputs"].values():
        source["topic"] = by_old[source["topic"]]
    document["action"]["command"]["topic"] = by_old[document["action"]["command"]["topic"]]
    path = tmp_path / "dog.yaml"
    path.write_text(yaml.safe_dump(document))
    contract = load_contract(path)
    rows: list[dict] = []
    outcome = convert([bag], contract, reward_of(contract), rows.append)
    assert (len(rows), outcome.problems) == (len(walk_rows), [])
    assert all(np.array_equal(a["observation"], b["observation"]) for a, b in zip(rows, walk_rows, strict=True))


def test_of_several_robots_in_a_bag_one_must_be_named(walk: Path, walk_rows: list[dict], tmp_path: Path) -> None:
    store, bag = make_store(), tmp_path / "bag"
    with open_bag(walk) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    with Writer(bag, version=9, storage_plugin=MCAP) as writer:
        topics = {
            f"{space}{topic}": writer.add_connection(f"{space}{topic}", kind, typestore=store)
            for space in ("/a", "/b")
            for topic, kind in kinds.items()
        }
        for topic, _, time, data in raw_messages(walk, kinds):
            for space in ("/a", "/b"):
                writer.write(topics[f"{space}{topic}"], time, data)
    with pytest.raises(BagError, match=r"several robots: .* under /a, /b; say which with --namespace"):
        converted(bag)
    rows, _ = converted(bag, namespace="a")
    assert len(rows) == len(walk_rows)
    with pytest.raises(BagError, match="has no topic /c/imu/data"):
        converted(bag, namespace="/c/")
