"""The bundle: networks, contract id, thresholds and provenance of a trained shield or policy in one safetensors file.

A safetensors file is a JSON header and raw arrays: reading one runs no code. The header's metadata carries one JSON
document under the key `ssql_ros`. Loading checks every shape and the contract before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as deserialise
from safetensors.numpy import save as serialise

from ssql_ros.spec.contract import Contract

FORMAT = 3
READABLE = (1, 2, 3)  # format 1 has a safety critic only; 2 knows one kind of policy and of safety critic
# What a policy network puts out, and what a safety critic does (see Bundle).
POLICIES = ("squashed_gaussian", "supported_gaussian", "one_step_flow", "behaviour", "supported_flow")
RULES = ("probability", "margin")
ACTIVATIONS = ("relu", "gelu")
_KEY = "ssql_ros"
_PROBES = "probes."


class BundleError(ValueError):
    """A bundle file cannot be used; the text names the file, what was expected and what came."""


@dataclass(frozen=True)
class Layer:
    """One affine layer: y = x @ weight + bias, weight (n_in, n_out), bias (n_out,), float32."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Network:
    """Perceptrons of one state: it is standardised, joined with the action where one is judged or refined.

    output = f([clip((s - mean) / scale, -clip, clip), a]) of each member.

    Attributes:
        observation_mean, observation_scale: (n_observation,), or (n_observation + n_context,) where the network sees
            the behaviour policy's context too.
        observation_clip: bound on the standardised values, so that one wild sensor cannot push the network far
            outside of what it was trained on.
        members: the ensemble, each a sequence of layers.
        activation: between the layers, "relu" or "gelu" (the exact one, not its tanh approximation).
    """

    observation_mean: np.ndarray
    observation_scale: np.ndarray
    observation_clip: float
    members: tuple[tuple[Layer, ...], ...]
    activation: str = "relu"


@dataclass(frozen=True)
class Bundle:
    """What a bundle file holds.

    Attributes:
        contract_id: id of the contract that the networks were trained against.
        epsilon: threshold on Q_safe, 0 < epsilon < 1.
        gamma_safe: discount of the safety critic.
        critic: the safety critic, one number. None: this bundle cannot shield. By `rule` it is
            "probability": a logit, Q_safe(s, a) = sigmoid of the mean over members, safe where Q_safe <= epsilon;
            "margin": Q_c(s, a), the worst signed margin to come, the maximum over members, safe where Q_c < delta.
        provenance: how it was trained and on what: command, seed, versions, data, held-out figures.
        policy: by `policy_kind`
            "squashed_gaussian": mean and log std (2 n_action) of u; the action is tanh(u) over the action's range;
            "supported_gaussian": the same of u, the action is tanh(u) over the box that the behaviour policy supports;
            "supported_flow": f (n_action) for noise z ~ N(0, I) that is joined to the state; the action is tanh(z + f)
                over the same box;
            "behaviour": the behaviour policy itself acts, and there is no network;
            "one_step_flow": the action (n_action) for noise z ~ N(0, I) that is joined to the state, clipped.
        reward: the reward critics, one value each, to go on learning from.
        behaviour: the behaviour policy whose support the policy keeps to: `kind` and what it is made from; empty: none.
            `context` is how many numbers it adds to the observation (such as the phase of a gait).
        delta: threshold of a critic of margins.
        certificate: what is promised of the thresholds, and on what data (see `ssql calibrate`); empty: nothing.
        probes: inputs and what the served networks made of them when it was saved, by name (see `ssql_ros.probes`):
            "observation" (n, n_observation), "action" (n, n_action), "critic" (n, n), "policy" (n, any); empty: none.
        id: first 16 hex digits of the file's SHA-256; empty for one not saved yet.
    """

    contract_id: str
    epsilon: float
    gamma_safe: float
    critic: Network | None
    provenance: dict[str, Any] = field(default_factory=dict)
    policy: Network | None = None
    reward: Network | None = None
    policy_kind: str = POLICIES[0]
    behaviour: dict[str, Any] = field(default_factory=dict)
    rule: str = RULES[0]
    delta: float = 0.0
    certificate: dict[str, Any] = field(default_factory=dict)
    probes: dict[str, np.ndarray] = field(default_factory=dict)
    id: str = ""
    path: str = ""

    @property
    def n_context(self) -> int:
        """Return how many numbers the behaviour policy adds to the observation."""
        return int(self.behaviour.get("context", 0))

    def networks(self) -> dict[str, Network]:
        """Return the networks that it has, by name."""
        named = {"critic": self.critic, "policy": self.policy, "reward": self.reward}
        return {name: network for name, network in named.items() if network is not None}

    def need(self, name: str) -> Network:
        """Return a network by name.

        Raises:
            BundleError: the bundle has none.
        """
        networks = self.networks()
        if name not in networks:
            found = ", ".join(networks) or "nothing"
            raise BundleError(f"{self.path or 'bundle'}: expected a network {name!r}, found {found}")
        return networks[name]


def save_bundle(bundle: Bundle, path: str | os.PathLike[str]) -> Bundle:
    """Write `bundle` to `path` whole or not at all; return it with its id and path.

    Raises:
        BundleError: the folder cannot be written, or the disk is full. A file that was there before is unharmed.
    """
    tensors: dict[str, np.ndarray] = {}
    headers: dict[str, Any] = {}
    for name, network in bundle.networks().items():
        headers[name] = {
            "members": len(network.members),
            "observation_clip": float(network.observation_clip),
            "activation": network.activation,
        }
        tensors[f"{name}.observation_mean"] = network.observation_mean
        tensors[f"{name}.observation_scale"] = network.observation_scale
        for m, member in enumerate(network.members):
            for i, layer in enumerate(member):
                tensors[f"{name}.{m}.{i}.weight"] = layer.weight
                tensors[f"{name}.{m}.{i}.bias"] = layer.bias
    tensors |= {f"{_PROBES}{name}": array for name, array in bundle.probes.items()}
    document = {
        "format": FORMAT,
        "contract_id": bundle.contract_id,
        "epsilon": float(bundle.epsilon),
        "gamma_safe": float(bundle.gamma_safe),
        "networks": headers,
        "policy_kind": bundle.policy_kind,
        "behaviour": bundle.behaviour,
        "rule": bundle.rule,
        "delta": float(bundle.delta),
        "certificate": bundle.certificate,
        "provenance": bundle.provenance,
    }
    arrays = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()}
    data = serialise(arrays, metadata={_KEY: json.dumps(document, sort_keys=True)})
    write_whole(Path(path), data)
    return Bundle(**{**bundle.__dict__, "id": bundle_id(data), "path": str(path)})


def bundle_id(data: bytes) -> str:
    """Return the id of a bundle file's content."""
    return hashlib.sha256(data).hexdigest()[:16]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, sync it, rename it: readers see the old one or the new one, never half.

    Raises:
        BundleError: the folder cannot be written, or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_bundle(path: str | os.PathLike[str], contract: Contract) -> Bundle:
    """Read a bundle and check it against `contract`.

    Raises:
        BundleError: the file is missing, truncated, not safetensors, of another format or contract, or an array is
            missing, of the wrong shape or not finite.
    """
    path = Path(path)
    try:
        # Read once: id, metadata and arrays are of one file, also when another is put in its place meanwhile.
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    return parse_bundle(data, contract, path)


def parse_bundle(data: bytes, contract: Contract, path: str | os.PathLike[str]) -> Bundle:
    """Return the bundle of a file's content, checked against `contract`. `path`: what error texts call it.

    Raises:
        BundleError: as `load_bundle` does.
    """
    path = Path(path)
    try:
        arrays = deserialise(data)
    except SafetensorError as error:
        raise BundleError(f"{path}: is not a whole safetensors file: {error}") from error
    except (KeyError, AttributeError, TypeError) as error:
        # What safetensors itself raises for a type of number that NumPy does not have.
        raise BundleError(f"{path}: has an array of a type that is not read here: {error}") from error
    document = _document(_metadata(data), path)
    if document["contract_id"] != contract.id:
        raise BundleError(
            f"{path}: trained for contract {document['contract_id']}, but {contract.path} is {contract.id}"
        )
    probes = _probes(arrays, contract, path)
    networks = _networks(arrays, document, contract, path)
    return Bundle(
        contract_id=document["contract_id"],
        epsilon=_fraction(document, "epsilon", path),
        gamma_safe=_fraction(document, "gamma_safe", path),
        critic=networks.get("critic"),
        policy=networks.get("policy"),
        reward=networks.get("reward"),
        policy_kind=document["policy_kind"],
        behaviour=document["behaviour"],
        rule=document["rule"],
        delta=document["delta"],
        certificate=document["certificate"],
        provenance=document["provenance"],
        probes=probes,
        id=bundle_id(data),
        path=str(path),
    )


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return how a bundle was made, without a contract to check it against.

    Raises:
        BundleError: the file cannot be read, or is not a bundle.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        deserialise(data)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, KeyError, AttributeError, TypeError) as error:
        raise BundleError(f"{path}: is not a whole safetensors file: {error}") from error
    return _document(_metadata(data), path)["provenance"]


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that was deserialised: 8 bytes with the header's length, the header."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__") or {}


def _document(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    if _KEY not in metadata:
        raise BundleError(f"{path}: is a safetensors file, but not a bundle of ssql_ros (no metadata {_KEY!r})")
    try:
        document = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: the metadata {_KEY!r} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") not in READABLE:
        found = document.get("format") if isinstance(document, dict) else document
        raise BundleError(
            f"{path}: bundle format {found!r}, this version reads formats {', '.join(map(str, READABLE))}"
        )
    if document["format"] == 1:
        document["networks"] = {"critic": document.get("critic")}
    if document["format"] < 3:
        document |= {"policy_kind": POLICIES[0], "behaviour": {}, "rule": RULES[0], "delta": 0.0, "certificate": {}}
    for key, kind in _EXPECTED.items():
        if not isinstance(document.get(key), kind):
            raise BundleError(f"{path}: metadata {key!r}: expected {kind.__name__}, got {document.get(key)!r}")
    for key, known in (("policy_kind", POLICIES), ("rule", RULES)):
        if document[key] not in known:
            raise BundleError(f"{path}: {key}: expected one of {', '.join(known)}, got {document[key]!r}")
    if not math.isfinite(document["delta"]):
        raise BundleError(f"{path}: delta: expected a finite number, got {document['delta']!r}")
    context = document["behaviour"].get("context", 0)
    if type(context) is not int or context < 0:
        raise BundleError(f"{path}: behaviour.context: expected a whole number of at least 0, got {context!r}")
    return document


_EXPECTED = {
    "contract_id": str,
    "epsilon": float,
    "gamma_safe": float,
    "networks": dict,
    "provenance": dict,
    "policy_kind": str,
    "behaviour": dict,
    "rule": str,
    "delta": float,
    "certificate": dict,
}


def _fraction(document: dict[str, Any], key: str, path: Path) -> float:
    value = document[key]
    if not (math.isfinite(value) and 0.0 < value < 1.0):
        raise BundleError(f"{path}: {key}: expected a number between 0 and 1, got {value!r}")
    return value


def _probes(arrays: dict[str, np.ndarray], contract: Contract, path: Path) -> dict[str, np.ndarray]:
    """Take the probes out of `arrays`; all have as many rows as there are probe observations."""
    found = {key.removeprefix(_PROBES): arrays.pop(key) for key in sorted(arrays) if key.startswith(_PROBES)}
    if not found:
        return {}
    n = len(found["observation"]) if "observation" in found and found["observation"].ndim else 0
    known = {"observation": contract.observation_size, "action": contract.action_size, "critic": n, "policy": None}
    for name, array in found.items():
        width = known.get(name)
        fits = array.dtype == np.float32 and array.ndim == 2 and len(array) == n > 0 and width in (None, array.shape[1])
        if name not in known or not fits or not np.isfinite(array).all():
            expected = f"finite float32 ({n}, {width or 'any'})" if name in known else f"one of {', '.join(known)}"
            raise BundleError(f"{path}: {_PROBES}{name}: expected {expected}, got {array.dtype} {array.shape}")
    if missing := {"observation", "action"} - set(found):
        raise BundleError(f"{path}: array '{_PROBES}{min(missing)}' is missing")
    return found


def _networks(
    arrays: dict[str, np.ndarray], document: dict[str, Any], contract: Contract, path: Path
) -> dict[str, Network]:
    """Return the networks by name; every array must be named by a header, and have the shape that follows from it."""
    n, m = contract.observation_size, contract.action_size
    state = n + document["behaviour"].get("context", 0)
    policies = {
        "squashed_gaussian": (n, n, 2 * m),
        "supported_gaussian": (state, state, 2 * m),
        "supported_flow": (state, state + m, m),
        "behaviour": (n, n, 2 * m),
        "one_step_flow": (n, n + m, m),
    }
    # What a network standardises, what enters it, what it puts out.
    widths = {
        "critic": (n, n + m, 1),
        "policy": policies[document["policy_kind"]],
        "reward": (state, state + m, 1),
    }
    headers = document["networks"]
    if unknown := sorted(set(headers) - set(widths)):
        raise BundleError(f"{path}: unknown network {unknown[0]!r}; known: {', '.join(widths)}")
    arrays = dict(arrays)
    networks = {name: _network(arrays, name, header, *widths[name], path) for name, header in headers.items()}
    if arrays:
        raise BundleError(f"{path}: unknown array {min(arrays)!r}")
    return networks


def _network(
    arrays: dict[str, np.ndarray], name: str, header: Any, n_observation: int, n_in: int, n_out: int, path: Path
) -> Network:
    """Take one network's arrays out of `arrays`."""

    def take(key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        key = f"{name}.{key}"
        if key not in arrays:
            raise BundleError(f"{path}: array {key!r} is missing")
        array = arrays.pop(key)
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        fits = len(array.shape) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.float32:
            raise BundleError(f"{path}: {key}: expected float32 ({wanted}), got {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise BundleError(f"{path}: {key}: has values that are not finite")
        return array

    header = header if isinstance(header, dict) else {}
    n_members, clip = header.get("members"), header.get("observation_clip")
    if not isinstance(n_members, int) or n_members < 1:
        raise BundleError(f"{path}: {name}.members: expected a whole number of at least 1, got {n_members!r}")
    if not isinstance(clip, float) or not clip > 0:
        raise BundleError(f"{path}: {name}.observation_clip: expected a number above 0, got {clip!r}")
    activation = header.get("activation", ACTIVATIONS[0])
    if activation not in ACTIVATIONS:
        raise BundleError(f"{path}: {name}.activation: expected {' or '.join(ACTIVATIONS)}, got {activation!r}")
    size = (n_observation,)
    mean, scale = take("observation_mean", size), take("observation_scale", size)
    if not (scale > 0).all():
        raise BundleError(f"{path}: {name}.observation_scale: expected numbers above 0")
    members = []
    for i in range(n_members):
        width, layers = n_in, list[Layer]()
        while f"{name}.{i}.{len(layers)}.weight" in arrays:
            weight = take(f"{i}.{len(layers)}.weight", (width, None))
            layers.append(Layer(weight, take(f"{i}.{len(layers)}.bias", (weight.shape[1],))))
            width = weight.shape[1]
        if len(layers) < 2 or width != n_out:
            raise BundleError(
                f"{path}: {name}.{i}: expected at least 2 layers down to {n_out} output(s), got {len(layers)}"
            )
        members.append(tuple(layers))
    return Network(mean, scale, clip, tuple(members), activation)
