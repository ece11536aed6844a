"""What is announced is taken only when every bit of it is what the announcement says."""

import array
import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message

from ssql_ros.model.announcement import Offer, Purpose, Refused, Trust, Turns, bundle_of
from ssql_ros.model.announcement_message import read_offer
from ssql_ros.model.bundle import BundleError, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.model.signing import key_id, read_private_key, read_public_key, write_keys
from support.toy_robot import toy_bundle, toy_contract

CONTRACT = toy_contract()
NOT_THERE = "there is no such bundle file that this node can read"
LIMIT = 10**6
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUST = Trust(None, {key_id(KEY.public_key()): KEY.public_key()})


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("offered") / "bundle.safetensors"
    save_bundle(with_probes(toy_bundle(CONTRACT), CONTRACT), path)
    return path


def offer_of(path: Path, with_data: bool = False) -> Offer:
    return Offer.of_file(path, CONTRACT.id, 1, with_data, key=KEY, source="test")


def signed(offer: Offer, **changes: object) -> Offer:
    return replace(offer, **changes).signed(KEY)


def reason(offer: Offer, limit: int = LIMIT, trust: Trust = TRUST) -> str:
    with pytest.raises((Refused, BundleError)) as caught:
        bundle_of(offer, CONTRACT, limit, trust)
    return str(caught.value)


@pytest.mark.parametrize("with_data", [False, True], ids=["path", "data"])
def test_what_verifies_is_loaded_from_the_path_or_from_the_message(file, with_data):
    offer = offer_of(file, with_data)
    assert len(offer.data) == (file.stat().st_size if with_data else 0)
    assert bundle_of(offer, CONTRACT, LIMIT, TRUST).id == offer.bundle_id


def test_data_counts_where_the_path_is_of_another_machine(file):
    offer = replace(offer_of(file, True), path="/nowhere/at/all")
    assert bundle_of(offer, CONTRACT, LIMIT, TRUST).id == offer.bundle_id


@settings(max_examples=300, deadline=None)
@given(fraction=st.floats(0.0, 1.0, exclude_max=True), flip=st.integers(1, 255))
def test_any_flipped_byte_is_refused(file, fraction, flip):
    data = bytearray(file.read_bytes())
    data[int(fraction * len(data))] ^= flip
    assert reason(replace(offer_of(file), data=bytes(data))) == "sha256: the content is not what was announced"


@settings(max_examples=100, deadline=None)
@given(fraction=st.floats(0.0, 1.0, exclude_max=True))
def test_content_cut_off_anywhere_is_refused(file, fraction):
    data = file.read_bytes()
    offer = replace(offer_of(file), data=data[: int(fraction * len(data))], path="")
    assert "sha256: the content is not" in reason(offer) if offer.data else "neither path nor data" in reason(offer)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=1, max_size=300))
def test_random_bytes_under_their_own_hash_are_refused(data):
    sha256 = hashlib.sha256(data).hexdigest()
    assert "in the announcement: " in reason(Offer(1, sha256[:16], sha256, CONTRACT.id, data=data).signed(KEY))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"contract_id": "spider-0123"}, "is for contract 'spider-0123', this node serves toy-"),
        ({"contract_id": ""}, "is for contract ''"),
        ({"sha256": ""}, "sha256: expected 64 hex digits"),
        ({"sha256": "Z" * 64}, "sha256: expected 64 hex digits"),
        ({"sha256": "0" * 64, "bundle_id": "0" * 16}, "sha256: the content is not what was announced"),
        ({"bundle_id": "0" * 16}, "bundle_id: expected the first 16 digits of sha256"),
        ({"path": ""}, "has neither path nor data"),
        ({"path": "bundle.safetensors"}, "path: expected an absolute path"),
        ({"path": "/tmp/\0"}, "path: expected an absolute path"),
        ({"path": "/nowhere/bundle"}, NOT_THERE),
        ({"path": "/dev/zero"}, NOT_THERE),
        ({"path": "/dev/null"}, NOT_THERE),
        ({"path": "/"}, NOT_THERE),
        ({"path": "/proc/self/status"}, "sha256: the content is not what was announced"),
        ({"path": "/" + "x" * 5000}, NOT_THERE),
    ],
    ids=repr,
)
def test_announcement_that_does_not_verify_is_refused_by_name(file, change, text):
    assert text in reason(signed(offer_of(file), **change))


def test_pipe_and_link_to_a_device_are_not_opened(file, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        assert NOT_THERE in reason(replace(offer_of(file), path=str(tmp_path / name)))
        inside = Offer.of_file(file, CONTRACT.id, 1, False)
        found = reason(replace(inside, path=str(tmp_path / name)), trust=Trust(tmp_path.resolve()))
        assert ("is not a regular file" if name == "pipe" else "expected a file in this node's bundle_folder") in found


def test_huge_file_is_not_read(file, tmp_path):
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, 2**40)
    assert NOT_THERE in reason(replace(offer_of(file), path=str(huge)))
    offer = replace(Offer.of_file(file, CONTRACT.id, 1, False), path=str(huge))
    assert f"has {2**40} bytes, at most {LIMIT} are taken" in reason(offer, trust=Trust(tmp_path.resolve()))


@pytest.mark.parametrize("with_data", [False, True], ids=["path", "data"])
def test_size_limit_is_exact(file, with_data):
    size, offer = file.stat().st_size, offer_of(file, with_data)
    assert bundle_of(offer, CONTRACT, size, TRUST).id == offer.bundle_id
    assert (f"has {size} bytes, at most {size - 1} are taken" if with_data else NOT_THERE) in reason(offer, size - 1)


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


# Who may announce


def unsigned(path: Path) -> Offer:
    return Offer.of_file(path, CONTRACT.id, 1, False)


def test_what_nobody_has_signed_is_taken_from_the_folder_alone(file, tmp_path):
    folder = Trust(file.parent.resolve())
    assert bundle_of(unsigned(file), CONTRACT, LIMIT, folder).id == unsigned(file).bundle_id
    outside = tmp_path / "copy.safetensors"
    outside.write_bytes(file.read_bytes())
    inside = file.parent / "link.safetensors"
    inside.unlink(missing_ok=True)
    inside.symlink_to(outside)
    same = reason(replace(unsigned(file), path="/nowhere/at/all"), trust=folder)
    ways = [str(outside), str(inside), f"{file.parent}/../{outside.relative_to('/')}", "/etc/shadow", "", "a", "/\0"]
    for path in ways:
        # Alike, whatever lies there: a refusal tells nothing of other files.
        assert reason(replace(unsigned(file), path=path), trust=folder) == same
    # Data that nobody signed is not looked at: the file counts.
    offer = replace(unsigned(file), data=b"anything")
    assert bundle_of(offer, CONTRACT, LIMIT, folder).id == offer.bundle_id
    assert "signature: this node takes only" in reason(unsigned(file))
    assert "signature: this node takes only" in reason(unsigned(file), trust=Trust())


@settings(max_examples=200, deadline=None)
@given(
    change=st.sampled_from(["stamp", "sha256", "contract_id", "purpose", "signature", "key_id"]),
    bit=st.integers(0, 511),
)
def test_changed_statement_or_signature_is_refused(file, change, bit):
    offer = offer_of(file, True)
    value = getattr(offer, change)
    if isinstance(value, int):
        value ^= 1 << bit % 2
    elif isinstance(value, bytes):
        value = bytes(b ^ (1 << bit % 8 if i == bit // 8 else 0) for i, b in enumerate(value))
    else:
        place = bit % len(value)
        value = value[:place] + ("0" if value[place] != "0" else "1") + value[place + 1 :]
    found = reason(replace(offer, **{change: value}))
    assert ("key_id" if change == "key_id" else "signature: does not fit") in found


def test_signature_of_another_key_counts_for_nothing(file):
    offer = Offer.of_file(file, CONTRACT.id, 1, True, key=OTHER)
    assert "is none of this node's announcement_keys" in reason(offer)
    assert "signature: does not fit" in reason(replace(offer, key_id=key_id(KEY.public_key())))
    assert "signature: does not fit" in reason(replace(offer_of(file, True), signature=b""))


# When


NOW = 10**18


def turn(turns: Turns, stamp: int, signer: str = "k", now: int = NOW, sha256: str = "a") -> str:
    """Ask for a turn, and take it where it is given; return why not."""
    offer = Offer(stamp, "", sha256, "")
    try:
        turns.check(offer, signer, now)
    except Refused as error:
        return str(error)
    turns.taken(offer, signer, now)
    return ""


@pytest.mark.parametrize("ahead", [55.0, 1.001, 1e9])
def test_stamp_from_the_future_is_refused_and_keeps_nobody_out(ahead):
    turns = Turns({}, 3600.0)
    assert "ahead of this machine's clock" in turn(turns, NOW + int(ahead * 1e9))
    assert turn(turns, NOW) == ""


def test_stamp_a_little_ahead_is_taken_once_and_keeps_later_ones_not_out():
    turns = Turns({}, 3600.0)
    assert turn(turns, NOW + 900_000_000) == ""
    assert "taken already" in turn(turns, NOW + 900_000_000, now=NOW + 1000)
    assert turn(turns, NOW + 1_000_000, now=NOW + 1_000_000, sha256="b") == ""
    assert "taken already" in turn(turns, NOW + 900_000_000, now=NOW + 2_000_000)


def test_what_was_taken_and_what_is_older_is_refused_for_its_signer_alone():
    turns = Turns({}, 3600.0)
    assert turn(turns, NOW - 10) == ""
    assert "taken already" in turn(turns, NOW - 10)
    assert "s before one that was taken already" in turn(turns, NOW - 11, sha256="b")
    assert turn(turns, NOW - 11, signer="another") == ""
    # Also for the process that is started after this one.
    assert "taken already" in turn(Turns(turns.newest, 3600.0), NOW - 10)
    assert "is 3601 s old, at most 3600 s" in turn(Turns({}, 3600.0), NOW - 3601 * 10**9)


# Keys


def test_keys_are_files_that_openssl_reads_and_are_never_replaced(tmp_path):
    public = write_keys(tmp_path / "folder" / "key")
    private = tmp_path / "folder" / "key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert key_id(read_public_key(Path(f"{private}.pub"))) == key_id(public)
    assert key_id(read_private_key(private).public_key()) == key_id(public)
    with pytest.raises(ValueError, match="is there already"):
        write_keys(private)
    for read, path in ((read_public_key, private), (read_private_key, Path(f"{private}.pub"))):
        with pytest.raises(ValueError, match=r"key(\.pub)?: expected an Ed25519 (public|private) key"):
            read(path)
    for content in (b"", b"-----BEGIN PUBLIC KEY-----\n", bytes(100)):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ValueError, match="bad: expected an Ed25519 public key"):
            Trust.of("", [str(tmp_path / "bad")])
    with pytest.raises(ValueError, match="none: cannot be read: No such file"):
        Trust.of("", [str(tmp_path / "none")])
    with pytest.raises(ValueError, match="parameter bundle_folder: expected a folder"):
        Trust.of(str(tmp_path / "bad"), [])
    assert not Trust.of("", [""])


# The message


def message_of(offer: Offer) -> bytes:
    from ssql_ros.contract.messages import fill, set_stamp
    from ssql_ros.msg import ModelAnnouncement

    texts = ("bundle_id", "sha256", "contract_id", "key_id", "path", "source", "summary")
    message = fill(ModelAnnouncement(), purpose=offer.purpose, **{name: getattr(offer, name) for name in texts})
    message.data, message.signature = array.array("B", offer.data), array.array("B", offer.signature)
    set_stamp(message, offer.stamp)
    return serialize_message(message)


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9), min_size=7, max_size=7
    ),
    data=st.binary(max_size=50),
    signature=st.binary(max_size=70),
    purpose=st.integers(0, 255),
    stamp=st.integers(0, 2**31 * 10**9 - 1),
)
def test_message_is_read_as_it_was_sent(texts, data, signature, purpose, stamp):
    words = dict(zip(("bundle_id", "sha256", "contract_id", "key_id", "path", "source", "summary"), texts, strict=True))
    offer = Offer(stamp, data=data, signature=signature, purpose=purpose, **words)
    read = read_offer(message_of(offer))
    assert replace(read, data=bytes(read.data)) == offer


def test_message_cut_off_anywhere_or_of_random_bytes_is_refused(file):
    whole = message_of(offer_of(file, False))
    for end in range(len(whole) - 4):
        with pytest.raises(Refused, match="cannot be read"):
            read_offer(whole[:end])
    rng = np.random.default_rng(0)
    for _ in range(200):
        with pytest.raises(Refused, match="cannot be read"):
            read_offer(b"\0\1\0\0" + rng.bytes(200))


def test_purpose_follows_from_what_a_bundle_has(file, tmp_path):
    assert unsigned(file).purpose == Purpose.CRITIC
    policy = replace(toy_bundle(CONTRACT), policy_kind="behaviour")
    assert unsigned(Path(save_bundle(policy, tmp_path / "policy").path)).purpose == Purpose.POLICY
    (tmp_path / "garbage").write_bytes(b"garbage")
    assert unsigned(tmp_path / "garbage").purpose == Purpose.BOTH
