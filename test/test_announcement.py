"""What is announced is taken only when every bit of it is what the announcement says."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_robot import toy_bundle, toy_contract

from ssql_ros.announcement import Offer, Refused, bundle_of
from ssql_ros.bundle import BundleError, save_bundle
from ssql_ros.probes import with_probes

CONTRACT = toy_contract()
LIMIT = 10**6


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("offered") / "bundle.safetensors"
    save_bundle(with_probes(toy_bundle(CONTRACT), CONTRACT), path)
    return path


def offer_of(path: Path, with_data: bool = False) -> Offer:
    return Offer.of_file(path, CONTRACT.id, 1, with_data, source="test")


def reason(offer: Offer, limit: int = LIMIT) -> str:
    with pytest.raises((Refused, BundleError)) as caught:
        bundle_of(offer, CONTRACT, limit)
    return str(caught.value)


@pytest.mark.parametrize("with_data", [False, True], ids=["path", "data"])
def test_what_verifies_is_loaded_from_the_path_or_from_the_message(file, with_data):
    offer = offer_of(file, with_data)
    assert len(offer.data) == (file.stat().st_size if with_data else 0)
    assert bundle_of(offer, CONTRACT, LIMIT).id == offer.bundle_id


def test_data_counts_where_the_path_is_of_another_machine(file):
    offer = replace(offer_of(file, True), path="/nowhere/at/all")
    assert bundle_of(offer, CONTRACT, LIMIT).id == offer.bundle_id


@settings(max_examples=300, deadline=None)
@given(fraction=st.floats(0.0, 1.0, exclude_max=True), flip=st.integers(1, 255))
def test_any_flipped_byte_is_refused(file, fraction, flip):
    data = bytearray(file.read_bytes())
    data[int(fraction * len(data))] ^= flip
    assert "sha256: announced" in reason(replace(offer_of(file), data=bytes(data)))


@settings(max_examples=100, deadline=None)
@given(fraction=st.floats(0.0, 1.0, exclude_max=True))
def test_content_cut_off_anywhere_is_refused(file, fraction):
    data = file.read_bytes()
    offer = replace(offer_of(file), data=data[: int(fraction * len(data))], path="")
    assert "sha256: announced" in reason(offer) if offer.data else "neither path nor data" in reason(offer)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=1, max_size=300))
def test_random_bytes_under_their_own_hash_are_refused(data):
    sha256 = hashlib.sha256(data).hexdigest()
    assert "in the announcement: " in reason(Offer(1, sha256[:16], sha256, CONTRACT.id, data=data))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"contract_id": "spider-0123"}, "is for contract 'spider-0123', this node serves toy-"),
        ({"contract_id": ""}, "is for contract ''"),
        ({"sha256": ""}, "sha256: expected 64 hex digits"),
        ({"sha256": "Z" * 64}, "sha256: expected 64 hex digits"),
        ({"sha256": "0" * 64, "bundle_id": "0" * 16}, "sha256: announced 0000"),
        ({"bundle_id": "0" * 16}, "bundle_id: expected the first 16 digits of sha256"),
        ({"path": ""}, "has neither path nor data"),
        ({"path": "bundle.safetensors"}, "path: expected an absolute path"),
        ({"path": "/tmp/\0"}, "path: expected an absolute path"),
        ({"path": "/nowhere/bundle"}, "path: /nowhere/bundle: No such file or directory"),
        ({"path": "/dev/zero"}, "path: /dev/zero: is not a regular file"),
        ({"path": "/dev/null"}, "path: /dev/null: is not a regular file"),
        ({"path": "/"}, "path: /: is not a regular file"),
        ({"path": "/proc/self/status"}, "sha256: announced"),
        ({"path": "/" + "x" * 5000}, "File name too long"),
    ],
    ids=repr,
)
def test_announcement_that_does_not_verify_is_refused_by_name(file, change, text):
    assert text in reason(replace(offer_of(file), **change))


def test_pipe_and_link_to_a_device_are_not_opened(file, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        assert "is not a regular file" in reason(replace(offer_of(file), path=str(tmp_path / name)))


def test_huge_file_is_not_read(file, tmp_path):
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, 2**40)
    assert f"has {2**40} bytes, at most {LIMIT} are taken" in reason(replace(offer_of(file), path=str(huge)))


@pytest.mark.parametrize("with_data", [False, True], ids=["path", "data"])
def test_size_limit_is_exact(file, with_data):
    size, offer = file.stat().st_size, offer_of(file, with_data)
    assert bundle_of(offer, CONTRACT, size).id == offer.bundle_id
    assert f"has {size} bytes, at most {size - 1} are taken" in reason(offer, size - 1)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.sampled_from([np.nan, np.inf, -np.inf]), layer=st.integers(0, 2), member=st.integers(0, 1))
def test_weights_that_are_not_finite_are_refused_also_under_their_own_hash(tmp_path, value, layer, member):
    bundle = toy_bundle(CONTRACT)
    bundle.critic.members[member][layer].weight[0, 0] = value
    path = tmp_path / "bad.safetensors"
    save_bundle(bundle, path)
    assert f"critic.{member}.{layer}.weight: has values that are not finite" in reason(offer_of(path, True))


def test_bundle_of_another_contract_under_a_false_contract_id_is_refused(tmp_path):
    other = toy_contract(2)
    path = tmp_path / "other.safetensors"
    save_bundle(with_probes(toy_bundle(other), other), path)
    assert f"trained for contract {other.id}" in reason(offer_of(path))
