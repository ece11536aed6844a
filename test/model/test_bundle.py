"""The bundle file: saved whole, loaded only when everything in it fits, and every misfit named."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from ssql_ros.contract import config_folder, find_contract, load_contract
from ssql_ros.model.bundle import (
    Bundle,
    BundleError,
    Layer,
    Network,
    Rule,
    load_bundle,
    parse_bundle,
    read_provenance,
    save_bundle,
)
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.probes import with_probes
from ssql_ros.processes.files import WriteError, write_atomically
from support.toy_robot import resealed, toy_bundle, toy_contract

CONTRACT = toy_contract()
BUNDLE = toy_bundle(CONTRACT)
ABSENT = object()


def network(n_in: int, n_out: int) -> Network:
    rng = np.random.default_rng(0)
    sizes = ((n_in, 8), (8, n_out))
    layers = tuple(Layer(rng.normal(size=s).astype(np.float32), np.zeros(s[1], np.float32)) for s in sizes)
    zeros = np.zeros(CONTRACT.observation_size, np.float32)
    return Network(zeros, zeros + 1, 5.0, (layers,))


def arrays_of(bundle: Bundle) -> list[np.ndarray]:
    critic = bundle.critic
    layers = [array for member in critic.members for layer in member for array in (layer.weight, layer.bias)]
    return [critic.observation_mean, critic.observation_scale, *layers]


def rewritten(folder: Path, arrays: dict | None = None, raw: str | None = None, **document: object) -> Path:
    """A saved bundle with arrays or entries of its JSON document replaced, or taken out where ABSENT."""
    path = folder / "critic.safetensors"
    save_bundle(BUNDLE, path)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        entries = json.loads(file.metadata()["ssql_ros"])
    for changed, target in ((arrays or {}, tensors), (document, entries)):
        for name, value in changed.items():
            if value is ABSENT:
                del target[name]
            else:
                target[name] = value
    path.write_bytes(resealed(save(tensors, metadata={"ssql_ros": json.dumps(entries) if raw is None else raw})))
    return path


def of_critic(**header: object) -> dict[str, object]:
    """Another header of the critic, for `rewritten`."""
    return {"networks": {"critic": header}}


def rule(**changes: object) -> dict[str, object]:
    """Another rule of the critic, for `rewritten`."""
    header = {"rule": "probability", "epsilon": 0.1, "gamma_safe": 0.7, **changes}
    return {"critic": {name: value for name, value in header.items() if value is not ABSENT}}


def error_of(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path, CONTRACT)
    return str(caught.value)


# Round trip


def test_policy_and_reward_critics_are_kept_beside_the_safety_critic(tmp_path):
    whole = replace(BUNDLE, policy=network(CONTRACT.observation_size, 2 * CONTRACT.action_size), reward=BUNDLE.critic)
    loaded = load_bundle(save_bundle(whole, tmp_path / "whole.safetensors").path, CONTRACT)
    for name, expected in whole.networks().items():
        for member, wanted in zip(loaded.need(name).members, expected.members, strict=True):
            for layer, layer_wanted in zip(member, wanted, strict=True):
                np.testing.assert_array_equal(layer.weight, layer_wanted.weight)


def test_bundle_without_a_safety_critic_cannot_shield(tmp_path):
    bare = save_bundle(replace(BUNDLE, critic=None, reward=BUNDLE.critic), tmp_path / "bare.safetensors")
    with pytest.raises(BundleError, match=r"bare.safetensors: expected a network 'critic', found reward"):
        SafetyCritic(load_bundle(bare.path, CONTRACT))


def test_format_1_is_read(tmp_path):
    critic = {"members": 2, "observation_clip": 3.0}
    old = {"networks": ABSENT, "digest": ABSENT, "critic": critic, "epsilon": 0.2, "gamma_safe": 0.6}
    loaded = load_bundle(rewritten(tmp_path, **old, format=1), CONTRACT)
    assert list(loaded.networks()) == ["critic"]
    assert (loaded.critic.epsilon, loaded.critic.gamma_safe) == (0.2, 0.6)


@pytest.mark.parametrize(
    ("old", "rule", "delta"),
    [
        ({"rule": "margin", "delta": -0.25, "certificate": {}}, Rule.MARGIN, -0.25),
        ({"rule": "margin", "delta": -1e9, "certificate": {"below": 0, "delta": -1e9}}, Rule.MARGIN, None),
        ({"rule": "probability", "delta": 0.0, "certificate": {}}, Rule.PROBABILITY, None),
    ],
)
def test_format_3_is_read_as_the_rule_that_it_means(tmp_path, old, rule, delta):
    old = {"digest": ABSENT, "critic": ABSENT, "epsilon": 0.5, "gamma_safe": 0.6, "format": 3, **old}
    critic = load_bundle(rewritten(tmp_path, **old), CONTRACT).critic
    assert (critic.rule, getattr(critic, "delta", None)) == (rule, delta)
    assert hasattr(critic, "epsilon") == (rule is Rule.PROBABILITY)


def test_format_3_without_a_critic_has_no_rule(tmp_path):
    bare = rewritten(
        tmp_path,
        arrays=dict.fromkeys(tensors_of(BUNDLE), ABSENT),
        networks={},
        format=3,
        digest=ABSENT,
        critic=ABSENT,
        epsilon=0.5,
        gamma_safe=0.6,
        rule="probability",
        delta=0.0,
        certificate={},
    )
    assert load_bundle(bare, CONTRACT).rule is Rule.NONE


def tensors_of(bundle: Bundle) -> list[str]:
    members = bundle.critic.members
    layers = [
        f"critic.{m}.{i}.{part}"
        for m, member in enumerate(members)
        for i in range(len(member))
        for part in ("weight", "bias")
    ]
    return ["critic.observation_mean", "critic.observation_scale", *layers]


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "folder" / "critic.safetensors"
    saved = save_bundle(BUNDLE, path)
    loaded = load_bundle(path, CONTRACT)
    assert saved.id == loaded.id == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert saved.path == loaded.path == str(path)
    assert loaded.contract_id == CONTRACT.id
    assert (loaded.rule, loaded.critic.epsilon, loaded.critic.gamma_safe) == (Rule.PROBABILITY, 0.1, 0.7)
    assert loaded.provenance == {"command": "none", "seed": 3}
    assert loaded.critic.observation_clip == 3.0
    assert [len(member) for member in loaded.critic.members] == [3, 3]
    for sent, came in zip(arrays_of(BUNDLE), arrays_of(loaded), strict=True):
        assert came.dtype == np.float32
        np.testing.assert_array_equal(came, sent)
    assert [entry.name for entry in path.parent.iterdir()] == ["critic.safetensors"]


def test_same_content_has_the_same_id_and_other_content_another(tmp_path):
    first, again = (save_bundle(BUNDLE, tmp_path / name) for name in ("a", "b"))
    other = save_bundle(toy_bundle(CONTRACT, seed=1), tmp_path / "c")
    assert first.id == again.id != other.id


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5)])
def test_numpy_numbers_are_saved_as_what_loads(tmp_path, number):
    critic = replace(BUNDLE.critic, observation_clip=10, epsilon=number, gamma_safe=number)
    save_bundle(Bundle(CONTRACT.id, critic), tmp_path / "bundle")
    critic = load_bundle(tmp_path / "bundle", CONTRACT).critic
    assert (critic.epsilon, critic.gamma_safe, critic.observation_clip) == (0.5, 0.5, 10.0)


def test_shipped_minitaur_critic_fits_its_contract():
    contract = load_contract(find_contract("minitaur"))
    bundle = load_bundle(config_folder() / "bundles" / "minitaur_critic.safetensors", contract)
    assert bundle.contract_id == contract.id
    assert bundle.provenance["command"].startswith("ssql train critic --task minitaur")


# Files that do not fit

weight = BUNDLE.critic.members[0][1].weight
n_observation = CONTRACT.observation_size
MISFITS = {
    "newer format": ({"format": 5}, "bundle format 5, this version reads formats 1, 2, 3, 4"),
    "no format": ({"format": ABSENT}, "bundle format None, this version reads formats 1, 2, 3"),
    "another contract": (
        {"contract_id": "spider-0123"},
        f"trained for contract spider-0123, but {CONTRACT.path} is {CONTRACT.id}",
    ),
    "no contract": ({"contract_id": ABSENT}, "metadata 'contract_id': expected str, got None"),
    "no epsilon": (rule(epsilon=ABSENT), "critic.epsilon: expected float, got None"),
    "epsilon in words": (rule(epsilon="0.1"), "critic.epsilon: expected float, got '0.1'"),
    "epsilon 0": (rule(epsilon=0.0), "epsilon: expected a number between 0 and 1, got 0.0"),
    "epsilon 1": (rule(epsilon=1.0), "epsilon: expected a number between 0 and 1, got 1.0"),
    "epsilon NaN": (rule(epsilon=math.nan), "epsilon: expected a number between 0 and 1, got nan"),
    "epsilon inf": (rule(epsilon=math.inf), "epsilon: expected a number between 0 and 1, got inf"),
    "gamma_safe 1": (rule(gamma_safe=1.0), "gamma_safe: expected a number between 0 and 1, got 1.0"),
    "no rule": ({"critic": None}, "expected a rule where there is a network 'critic', and only there"),
    "unknown rule": (rule(rule="hope"), "critic.rule: expected one of probability, margin, got 'hope'"),
    "rule in numbers": (rule(rule=[1]), "critic.rule: expected one of probability, margin, got [1]"),
    "both thresholds": (rule(delta=0.0), "critic.delta: a critic of rule probability has only epsilon, gamma_safe"),
    "margin without delta": (rule(rule="margin", epsilon=ABSENT, certificate={}), "critic.delta: expected float"),
    "margin without certificate": (rule(rule="margin", epsilon=ABSENT, delta=0.0), "critic.certificate: expected dict"),
    "margin with epsilon": (rule(rule="margin", delta=0.0, certificate={}), "critic.epsilon: a critic of rule margin"),
    "delta inf": (
        rule(rule="margin", epsilon=ABSENT, delta=math.inf, certificate={}),
        "delta: expected a finite number, got inf",
    ),
    "no digest": ({"digest": ABSENT}, "digest: what is in the file is not what was saved in it"),
    "digest in capitals": ({"digest": "A" * 64}, "digest: what is in the file is not what was saved in it"),
    "two digests": (
        {"provenance": {"digest": "0" * 64}},
        "digest: what is in the file is not what was saved in it",
    ),
    "provenance in words": ({"provenance": "good"}, "metadata 'provenance': expected dict, got 'good'"),
    "no members": (
        of_critic(members=0, observation_clip=3.0),
        "critic.members: expected a whole number of",
    ),
    "members in words": (
        of_critic(members="2", observation_clip=3.0),
        "critic.members: expected a whole",
    ),
    "too few members": (
        of_critic(members=1, observation_clip=3.0),
        "unknown array 'critic.1.0.bias'",
    ),
    "too many members": (
        of_critic(members=3, observation_clip=3.0),
        "critic.2: expected at least 2 layers",
    ),
    "clip 0": (
        of_critic(members=2, observation_clip=0.0),
        "critic.observation_clip: expected a number above",
    ),
    "clip NaN": (
        of_critic(members=2, observation_clip=math.nan),
        "critic.observation_clip: expected a number",
    ),
    "no clip": (
        of_critic(members=2),
        "critic.observation_clip: expected a number above 0, got None",
    ),
    "no JSON": ({"raw": "{"}, "the metadata 'ssql_ros' is not JSON"),
    "JSON too deep": ({"raw": "[" * 100_000}, "the metadata 'ssql_ros' is not JSON"),
    "JSON list": ({"raw": "[1]"}, "bundle format [1], this version reads formats 1, 2"),
    "JSON of a huge number": ({"raw": "9" * 10_000}, "the metadata 'ssql_ros' is not JSON"),
    "JSON that nests 33 deep": ({"raw": "[" * 33 + "]" * 33}, "nests 33 levels deep, at most 32 are read"),
    "header of 2 MB": ({"raw": " " * 2**21}, "bytes, at most 1048576 are read"),
    "unknown network": (
        {"networks": {"planner": {}}, "critic": None},
        "unknown network 'planner'; known: critic, policy, reward",
    ),
    "networks in words": ({"networks": "critic"}, "metadata 'networks': expected dict, got 'critic'"),
    "missing mean": ({"arrays": {"critic.observation_mean": ABSENT}}, "array 'critic.observation_mean' is missing"),
    "missing bias": ({"arrays": {"critic.1.2.bias": ABSENT}}, "array 'critic.1.2.bias' is missing"),
    "missing weight": (
        {"arrays": {"critic.1.2.weight": ABSENT}},
        "critic.1: expected at least 2 layers down to 1 output(s), got 2",
    ),
    "unknown array": ({"arrays": {"policy.weight": weight}}, "unknown array 'policy.weight'"),
    "wrong shape": (
        {"arrays": {"critic.0.1.weight": np.ascontiguousarray(weight.T)}},
        "critic.0.1.weight: expected float32 (16, any), got float32 (8, 16)",
    ),
    "another observation": (
        {"arrays": {"critic.observation_mean": np.zeros(120, np.float32)}},
        f"critic.observation_mean: expected float32 ({n_observation}), got float32 (120,)",
    ),
    "flat array": ({"arrays": {"critic.0.1.weight": weight.ravel()}}, "critic.0.1.weight: expected float32 (16, any)"),
    "float64": (
        {"arrays": {"critic.0.1.weight": weight.astype(np.float64)}},
        "critic.0.1.weight: expected float32 (16, any), got float64 (16, 8)",
    ),
    "float16": ({"arrays": {"critic.0.1.weight": weight.astype(np.float16)}}, "got float16 (16, 8)"),
    "NaN weight": (
        {"arrays": {"critic.0.1.weight": np.where(weight == weight.max(), np.nan, weight).astype(np.float32)}},
        "critic.0.1.weight: has values that are not finite",
    ),
    "inf bias": (
        {"arrays": {"critic.1.2.bias": np.array([np.inf], np.float32)}},
        "critic.1.2.bias: has values that are not finite",
    ),
    "scale 0": (
        {"arrays": {"critic.observation_scale": np.zeros(n_observation, np.float32)}},
        "critic.observation_scale: expected numbers above 0",
    ),
}


@pytest.mark.parametrize(("changes", "text"), MISFITS.values(), ids=MISFITS)
def test_misfit_is_named_with_its_file(tmp_path, changes, text):
    path = rewritten(tmp_path, **changes)
    error = error_of(path)
    assert error.startswith(f"{path}: ")
    assert text in error


def test_bundle_of_another_robot_is_refused(tmp_path):
    spider = toy_contract(2)
    path = tmp_path / "spider.safetensors"
    save_bundle(toy_bundle(spider), path)
    assert error_of(path) == f"{path}: trained for contract {spider.id}, but {CONTRACT.path} is {CONTRACT.id}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.0, 1.0, exclude_max=True))
def test_file_cut_off_anywhere_is_refused(tmp_path, fraction):
    path = tmp_path / "cut.safetensors"
    save_bundle(BUNDLE, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    assert error_of(path).startswith(f"{path}: is not a whole safetensors file")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.0, 1.0, exclude_max=True), st.integers(1, 255), st.booleans())
def test_flipped_bits_are_refused(tmp_path, fraction, flip, in_header):
    path = tmp_path / "flipped.safetensors"
    save_bundle(BUNDLE, path)
    data = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(data[:8], "little") if in_header else len(data)
    data[int(fraction * end)] ^= flip
    path.write_bytes(data)
    assert error_of(path).startswith(f"{path}: ")
    with pytest.raises(BundleError):
        read_provenance(path)


@pytest.mark.slow
def test_every_single_bit_of_the_header_is_held_by_the_digest(tmp_path):
    path = tmp_path / "flipped.safetensors"
    save_bundle(with_probes(BUNDLE, CONTRACT), path)
    whole = path.read_bytes()
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            with pytest.raises(BundleError):
                parse_bundle(bytes(data), CONTRACT, path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1), st.integers(28, 31))
def test_bundle_of_an_older_format_is_held_to_its_probes(tmp_path, member, bit):
    """No digest holds it; what makes another critic of it is told by the probes, on every way in."""
    old = {"digest": ABSENT, "critic": ABSENT, "epsilon": 0.1, "gamma_safe": 0.7, "format": 3}
    rule = {"rule": "probability", "delta": 0.0, "certificate": {}}
    probes = {f"probes.{name}": array for name, array in with_probes(BUNDLE, CONTRACT).probes.items()}
    path = rewritten(tmp_path, arrays=probes, **old, **rule)
    assert load_bundle(path, CONTRACT).rule is Rule.PROBABILITY
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata()
    tensors[f"critic.{member}.2.bias"].view(np.uint32)[0] ^= np.uint32(1 << bit)
    path.write_bytes(save(tensors, metadata=metadata))
    assert re.search("the critic gives|not finite", error_of(path))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not a whole safetensors file"),
        (b"\x80\x04\x95 a pickle", "is not a whole safetensors file"),
        (b"PK\x03\x04" + b"\0" * 100, "is not a whole safetensors file"),
        (b"\xff" * 64, "is not a whole safetensors file"),
    ],
    ids=["empty", "pickle", "zip", "ff"],
)
def test_file_that_is_not_safetensors_is_refused(tmp_path, content, text):
    path = tmp_path / "critic.safetensors"
    path.write_bytes(content)
    assert text in error_of(path)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "I64"])
def test_safetensors_file_that_is_no_bundle_is_refused(tmp_path, kind):
    header = json.dumps({"x": {"dtype": kind, "shape": [8 // {"BF16": 2, "F8_E4M3": 1, "I64": 8}[kind]]}})
    header = header[:-2] + ', "data_offsets": [0, 8]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    error = error_of(path)
    assert error.startswith(f"{path}: ")
    assert "not a bundle of ssql_ros" in error


def test_missing_file_and_folder_are_named(tmp_path):
    assert error_of(tmp_path / "none") == f"{tmp_path}/none: cannot be read: No such file or directory"
    assert error_of(tmp_path).startswith(f"{tmp_path}: cannot be read: ")


def test_file_replaced_while_it_is_read_never_gives_one_bundle_s_id_with_another_s_weights(tmp_path, monkeypatch):
    path, other = tmp_path / "critic.safetensors", tmp_path / "other"
    first = save_bundle(BUNDLE, path)
    save_bundle(toy_bundle(CONTRACT, seed=1), other)
    read_bytes = Path.read_bytes

    def read_then_replaced(self: Path) -> bytes:
        data = read_bytes(self)
        other.replace(path)
        return data

    monkeypatch.setattr(Path, "read_bytes", read_then_replaced)
    loaded = load_bundle(path, CONTRACT)
    assert loaded.id == first.id
    for sent, came in zip(arrays_of(BUNDLE), arrays_of(loaded), strict=True):
        np.testing.assert_array_equal(came, sent)


# Writing

FULL_DISK = """
import resource, sys
from pathlib import Path
from ssql_ros.processes.files import WriteError, write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomically(Path(sys.argv[1]), bytes(100_000))
except WriteError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_file_whole_and_no_other(tmp_path):
    path = tmp_path / "critic.safetensors"
    save_bundle(BUNDLE, path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{path}: cannot be written: File too large"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_it_takes_the_old_file_s_place(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(("synced", os.fstat(number).st_size)), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append(("replaced", to.name)), replace(self, to)))
    write_atomically(tmp_path / "file", bytes(100))
    assert done == [("synced", 100), ("replaced", "file")]


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "critic.safetensors"
    with pytest.raises(BundleError, match=r"critic\.safetensors: cannot be written: "):
        save_bundle(BUNDLE, path)


def test_folder_in_the_file_s_place_is_left_alone(tmp_path):
    path = tmp_path / "critic.safetensors"
    path.mkdir()
    with pytest.raises(WriteError, match="cannot be written: Is a directory"):
        write_atomically(path, b"data")
    assert list(tmp_path.iterdir()) == [path]
