"""Bags that are made to cost time or memory, or to end the program: what they pack, describe and define."""

import pytest
import yaml
from backports import zstd

from bench.fuzz_bags import DEFINITIONS, KIND, ODD, _mcap
from ssql_ros.bags import bounds
from ssql_ros.bags.bounds import bounded_yaml, unpacked, unpacked_message
from ssql_ros.bags.definitions import BagError
from ssql_ros.bags.reader import read_messages, survey


def test_no_more_is_unpacked_than_a_chunk_says_it_has():
    packed = zstd.compress(bytes(10**6))
    assert unpacked(packed, "zstd", 10**6) == bytes(10**6)
    with pytest.raises(ValueError, match="expected 10 bytes, got more"):
        unpacked(packed, "zstd", 10)
    with pytest.raises(ValueError, match="bytes unpacked, at most"):
        unpacked(packed, "zstd", 2**60)


def test_a_message_is_not_unpacked_beyond_the_bound(monkeypatch):
    monkeypatch.setattr(bounds, "MAX_PACKED", 1000)
    assert unpacked_message(zstd.compress(bytes(1000))) == bytes(1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        unpacked_message(zstd.compress(bytes(1001)))


@pytest.mark.parametrize("text", ["[" * 10_000, "a: " + "x" * 2**22])
def test_metadata_that_nests_or_is_endless_is_given_up_on(text):
    with pytest.raises(yaml.YAMLError, match=r"nests more|at most"):
        bounded_yaml(text)


# The first is whole, and the last two are nothing but their name.
@pytest.mark.parametrize("text", DEFINITIONS[1:-2], ids=lambda text: text[:24])
def test_definitions_of_types_cannot_run_or_grow(text, tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(_mcap(ODD, text, "zstd", b"\0\1\0\0" + bytes(64)))
    try:
        list(read_messages(path))
    except BagError as error:
        assert len(str(error)) < 1500  # noqa: PT017 (whether it is one is not the question)


@pytest.mark.parametrize("kind", ["1odd/msg/Odd", 'x"]; import os; y["', "odd_msgs/msg/Odd\nint32 z"])
def test_names_of_types_are_names(kind, tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(_mcap(kind, "int32 x\n", "none", b"\0\1\0\0" + bytes(4)))
    with pytest.raises(BagError, match="definition"):
        list(read_messages(path))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_whole_bags_of_chunks_are_read(compression, tmp_path):
    from ssql_ros.bags.definitions import Definitions

    path = tmp_path / "bag.mcap"
    path.write_bytes(_mcap(KIND, Definitions().definition(KIND).text, compression))
    assert len(list(read_messages(path))) == 6
    assert not survey(path).problem
