"""Bags: what is written is read back by two libraries, and what cannot be is refused with its reason."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ssql_ros.bags import BagError, BagWriter, open_bag, qos_profile, read_messages
from ssql_ros.bags.definitions import Definitions
from support.bags import JOINTS, SHIELDED, check_read, header, make_store, write_both

MSG = Path(__file__).resolve().parents[2] / "msg"


@pytest.fixture(scope="module")
def store():
    return make_store()


@pytest.fixture
def bag(tmp_path, store):
    with BagWriter(tmp_path / "runs" / "bag", {"contract_id": "minitaur-1"}) as writer:
        write_both(store, writer, 100)
    return tmp_path / "runs" / "bag"


def test_messages_come_back_as_they_were_written(bag):
    check_read(bag, 100)
    with open_bag(bag) as opened:
        assert {name: (info.type, info.count) for name, info in opened.topics.items()} == {
            "/joint_states": (JOINTS, 100),
            "/shield_node/shielded_action": (SHIELDED, 100),
        }
        assert opened.custom == {"contract_id": "minitaur-1"}
        assert {topic for topic, _, _ in opened.messages(["/joint_states", "/other"])} == {"/joint_states"}
        assert not list(opened.messages([]))


def test_bag_opens_with_rosbags_alone(bag):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Reader(bag) as reader:
        assert reader.message_count == 200
        profiles = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
        assert profiles["/joint_states"] == [qos_profile(reliable=False)]
        assert profiles["/shield_node/shielded_action"] == [qos_profile(transient_local=True, depth=3)]
        (connection,) = [c for c in reader.connections if c.msgtype == SHIELDED]
        # The comments, and with them the units, are in the bag.
        assert "# s, from the complete input to the decision" in connection.msgdef.data
        store.register(get_types_from_msg(connection.msgdef.data, SHIELDED))
        messages = [store.deserialize_cdr(data, SHIELDED) for _, _, data in reader.messages([connection])]
    assert [message.proposal[0] for message in messages] == list(range(100))


def test_bag_opens_with_mcap_ros2_support(bag):
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    with open(bag / "bag.mcap", "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        assert reader.get_summary().statistics.message_count == 200
        decoded = [(channel.topic, message) for _, channel, _, message in reader.iter_decoded_messages()]
    actions = [message for topic, message in decoded if topic == "/shield_node/shielded_action"]
    assert [message.proposal[0] for message in actions] == list(range(100))
    assert all(math.isnan(message.q_safe_proposal) and message.reason == "unsafe: κ" for message in actions)
    states = [message for topic, message in decoded if topic == "/joint_states"]
    assert [list(message.position) for message in states] == [[i, -0.5 * i] for i in range(100)]


def test_metadata_names_the_type_hash_of_the_built_messages(bag):
    import yaml
    from ament_index_python import get_package_share_directory

    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (information["version"], information["storage_identifier"]) == (9, "mcap")
    hashes = {
        topic["topic_metadata"]["type"]: topic["topic_metadata"]["type_description_hash"]
        for topic in information["topics_with_message_count"]
    }
    built = json.loads((Path(get_package_share_directory("ssql_ros")) / "msg/ShieldedAction.json").read_text())
    assert {"type_name": SHIELDED, "hash_string": hashes[SHIELDED]} in built["type_hashes"]


def test_every_message_of_this_package_has_a_definition(store):
    for path in MSG.glob("*.msg"):
        definition = Definitions().definition(f"ssql_ros/msg/{path.stem}")
        assert definition.text.startswith(path.read_text().splitlines()[0])
        assert "MSG: std_msgs/Header\n" in definition.text


def test_bag_without_messages_can_be_read(tmp_path, store):
    with BagWriter(tmp_path / "none"):
        pass
    with BagWriter(tmp_path / "announced") as writer:
        write_both(store, writer, 0)
    assert not list(read_messages(tmp_path / "none"))
    with open_bag(tmp_path / "announced") as opened:
        assert [info.count for info in opened.topics.values()] == [0, 0]
        assert not list(opened.messages())


def test_existing_path_is_not_overwritten(bag, tmp_path):
    before = (bag / "bag.mcap").read_bytes()
    with pytest.raises(BagError, match=r"runs/bag: exists already; a recording never overwrites another"):
        BagWriter(bag)
    assert (bag / "bag.mcap").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="file/bag: the bag cannot be made: Not a directory"):
        BagWriter(tmp_path / "file" / "bag")


def test_topic_must_be_complete(tmp_path, store):
    with BagWriter(tmp_path / "bag") as writer:
        with pytest.raises(BagError, match="/x: needs the QoS of at least one publisher"):
            writer.add_topic("/x", JOINTS, [])
        with pytest.raises(BagError, match="no definition of the type other_msgs/msg/Thing is installed; looked in /"):
            writer.add_topic("/x", "other_msgs/msg/Thing", [qos_profile()])
        with pytest.raises(BagError, match=r"std_srvs/srv/Empty is not a message \(package/msg/Name\)"):
            writer.add_topic("/x", "std_srvs/srv/Empty", [qos_profile()])
        with pytest.raises(BagError, match="/x: was not added"):
            writer.write("/x", 0, b"")


def test_definition_of_another_package_is_found_with_its_parts(tmp_path, store, monkeypatch):
    for name, text in {"Part": "float64 x  # m", "Thing": "Part[] parts\nssql_ros/Proposal proposal"}.items():
        path = tmp_path / "share/other_msgs/msg" / f"{name}.msg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join((str(tmp_path), os.environ.get("AMENT_PREFIX_PATH", ""))))
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/things", "other_msgs/msg/Thing", [qos_profile()])
        kinds = Definitions()
        kinds.add("other_msgs/msg/Thing")
        proposal = kinds.store.types["ssql_ros/msg/Proposal"](header(store, 0), "", "", *[np.ones(2)] * 6, True)
        part = kinds.store.types["other_msgs/msg/Part"](x=1.5)
        thing = kinds.store.types["other_msgs/msg/Thing"](parts=[part], proposal=proposal)
        writer.write("/things", 7, bytes(kinds.store.serialize_cdr(thing, "other_msgs/msg/Thing")))
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    ((topic, time, message),) = read_messages(tmp_path / "bag")
    assert (topic, time, message.parts[0].x, message.proposal.std.tolist()) == ("/things", 7, 1.5, [1.0, 1.0])


def test_bytes_of_serialize_message_are_read(tmp_path):
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import JointState

    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/joint_states", JOINTS, [qos_profile()])
        for count in range(9):
            message = JointState(name=[f"joint{i}" for i in range(count)], position=[0.5] * count)
            writer.write("/joint_states", count, serialize_message(message))
    for count, (_, _, message) in enumerate(read_messages(tmp_path / "bag")):
        assert message.name == [f"joint{i}" for i in range(count)]
        assert message.position.tolist() == [0.5] * count
    assert count == 8


def test_missing_bag_is_named(tmp_path):
    with pytest.raises(BagError, match=r"nowhere: there is no such bag"):
        open_bag(tmp_path / "nowhere")
    with pytest.raises(BagError, match=r"holds neither metadata.yaml nor an .mcap or .db3 file"):
        list(read_messages(tmp_path))


def test_damaged_message_names_topic_and_type(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/joint_states", JOINTS, [qos_profile()])
        writer.write("/joint_states", 0, b"\x00\x01\x00\x00\xff")
    with pytest.raises(BagError, match=r"bag: a message of /joint_states is not a sensor_msgs/msg/JointState"):
        list(read_messages(tmp_path / "bag"))


def test_bag_of_an_unknown_type_names_it(bag):
    file = bag / "bag.mcap"
    data = file.read_bytes()
    # A recorder that stores no definition and a type that nobody has.
    file.write_bytes(data.replace(b"ros2msg", b"unknown").replace(b"msg/ShieldedAction", b"msg/ShieldedActiox"))
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("msg/ShieldedAction", "msg/ShieldedActiox"))
    with pytest.raises(BagError, match=r"no definition of the type ssql_ros/msg/ShieldedActiox is installed"):
        list(read_messages(bag))
