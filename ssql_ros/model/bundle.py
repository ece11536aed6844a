"""The bundle: networks, contract id, thresholds and provenance of a trained shield or policy in one safetensors file.

Loading checks the file's digest, every shape and the contract before anything is used (see `bundle_file` for the file,
`bundle_content` for what it holds).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.contract.contract import Contract
from ssql_ros.model.backup import Backup
from ssql_ros.model.bundle_content import (
    ACTIVATIONS,
    POLICIES,
    Bundle,
    BundleError,
    Layer,
    MarginCritic,
    Network,
    ProbabilityCritic,
    Rule,
)
from ssql_ros.model.bundle_file import MAX_BYTES, bundle_id, opened, read_file, sealed
from ssql_ros.model.domain import Domain
from ssql_ros.processes.files import WriteError, write_atomically

__all__ = [
    "Bundle",
    "BundleError",
    "Layer",
    "MarginCritic",
    "Network",
    "ProbabilityCritic",
    "Rule",
    "bundle_bytes",
    "bundle_id",
    "load_bundle",
    "parse_bundle",
    "purposes_of",
    "read_provenance",
    "save_bundle",
]
_PROBES = "probes."
_DOMAIN = "critic.domain."


def save_bundle(bundle: Bundle, path: str | os.PathLike[str]) -> Bundle:
    """Write `bundle` to `path` complete or not at all; return it with its id and path.

    Raises:
        BundleError: the folder cannot be written, or the disk is full. A file that was there before is unharmed.
    """
    data = bundle_bytes(bundle)
    try:
        write_atomically(Path(path), data)
    except WriteError as error:
        raise BundleError(str(error)) from error
    return replace(bundle, id=bundle_id(data), path=str(path))


def bundle_bytes(bundle: Bundle) -> bytes:
    """Return the content of a bundle's file. Raises BundleError: its header would be too long."""
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
    if bundle.critic is not None and (domain := bundle.critic.domain) is not None:
        tensors |= {f"{_DOMAIN}centre": domain.centre, f"{_DOMAIN}whitening": domain.whitening}
    tensors |= {f"{_PROBES}{name}": array for name, array in bundle.probes.items()}
    document = {
        "contract_id": bundle.contract_id,
        "critic": _critic_header(bundle.critic),
        "networks": headers,
        "policy_kind": bundle.policy_kind,
        "behaviour": bundle.behaviour,
        "provenance": bundle.provenance,
    }
    return sealed(document, {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()})


def _critic_header(critic: ProbabilityCritic | MarginCritic | None) -> dict[str, Any] | None:
    if critic is None:
        return None
    header: dict[str, Any] = {"rule": critic.rule.name.lower(), "gamma_safe": float(critic.gamma_safe)}
    if critic.backup is not None:
        header["backup"] = critic.backup.header()
    if critic.domain is not None:
        header["domain"] = critic.domain.header()
    if isinstance(critic, ProbabilityCritic):
        return header | {"epsilon": float(critic.epsilon)}
    delta = None if critic.delta is None else float(critic.delta)
    return header | {"delta": delta, "certificate": critic.certificate}


def load_bundle(path: str | os.PathLike[str], contract: Contract, max_bytes: int = MAX_BYTES) -> Bundle:
    """Read a bundle and check it against `contract`.

    Raises:
        BundleError: the file is missing, truncated, damaged, larger than `max_bytes`, not safetensors, of another
            format or contract, or an array is missing, of the wrong shape or not finite.
    """
    path = Path(path)
    return parse_bundle(read_file(path, max_bytes), contract, path)


def parse_bundle(data: bytes, contract: Contract, path: str | os.PathLike[str]) -> Bundle:
    """Return the bundle of a file's content, checked against `contract`. `path`: what error texts call it.

    Raises:
        BundleError: as `load_bundle` does.
    """
    path = Path(path)
    document, arrays = opened(data, path)
    document = _checked(document, path)
    if document["contract_id"] != contract.id:
        raise BundleError(
            f"{path}: trained for contract {document['contract_id']}, but {contract.path} is {contract.id}"
        )
    probes = _probes(arrays, contract, path)
    domain = _domain(arrays, document["critic"], contract, path)
    networks = _networks(arrays, document, contract, path)
    bundle = Bundle(
        contract_id=document["contract_id"],
        critic=_critic(networks.get("critic"), document["critic"], domain, path),
        policy=networks.get("policy"),
        reward=networks.get("reward"),
        policy_kind=document["policy_kind"],
        behaviour=document["behaviour"],
        provenance=document["provenance"],
        probes=probes,
        id=bundle_id(data),
        path=str(path),
    )
    if document["format"] < 4:
        # Without a digest the probes are all that tells of damage. Here: that module imports this one.
        from ssql_ros.model.probes import check_probes

        check_probes(bundle)
    return bundle


def purposes_of(data: bytes, path: str | os.PathLike[str]) -> set[str]:
    """Return which of "critic" and "policy" a file's content has, without a contract. Raises BundleError."""
    document = _checked(opened(data, Path(path))[0], Path(path))
    acts = "policy" in document["networks"] or document["policy_kind"] == "behaviour"
    return {name for name, has in (("critic", document["critic"] is not None), ("policy", acts)) if has}


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return how a bundle was made, without a contract to check it against.

    Raises:
        BundleError: the file cannot be read, or is not a bundle.
    """
    path = Path(path)
    return _checked(opened(read_file(path), path)[0], path)["provenance"]


def _checked(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a file's document with every key that format 4 has, of the right type."""
    document = _updated(document)
    for key, kind in _EXPECTED.items():
        if not isinstance(document.get(key), kind):
            raise BundleError(f"{path}: metadata {key!r}: expected {kind.__name__}, got {document.get(key)!r}")
    if document["policy_kind"] not in POLICIES:
        raise BundleError(
            f"{path}: policy_kind: expected one of {', '.join(POLICIES)}, got {document['policy_kind']!r}"
        )
    if not isinstance(document.get("critic"), dict | None):
        raise BundleError(f"{path}: metadata 'critic': expected dict or null, got {document['critic']!r}")
    if ("critic" in document["networks"]) != (document.get("critic") is not None):
        raise BundleError(
            f"{path}: metadata 'critic': expected a rule where there is a network 'critic', and only there"
        )
    context = document["behaviour"].get("context", 0)
    if type(context) is not int or context < 0:
        raise BundleError(f"{path}: behaviour.context: expected a whole number of at least 0, got {context!r}")
    return document


_EXPECTED = {
    "contract_id": str,
    "networks": dict,
    "provenance": dict,
    "policy_kind": str,
    "behaviour": dict,
}


def _updated(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of any format as one of format 4. Before, thresholds of both rules stood in every bundle."""
    old = dict(document)
    if old["format"] >= 4:
        return old
    if old["format"] == 1:
        old["networks"] = {"critic": old.get("critic")}
    if old["format"] < 3:
        old |= {"policy_kind": POLICIES[0], "behaviour": {}, "rule": "probability", "delta": 0.0, "certificate": {}}
    critic = {name: old.get(name) for name in ("rule", "gamma_safe", "epsilon")}
    if old.get("rule") == "margin":
        certificate = old.get("certificate")
        critic = {"rule": "margin", "gamma_safe": old.get("gamma_safe"), "delta": old.get("delta")}
        if isinstance(certificate, dict) and certificate.get("below") == 0:
            # A delta that nothing is below stood for "nothing is certified".
            critic["delta"], certificate = None, {**certificate, "delta": None}
        critic["certificate"] = certificate
    networks = old.get("networks")
    return old | {"critic": critic if isinstance(networks, dict) and "critic" in networks else None}


def _critic(
    network: Network | None, header: dict[str, Any] | None, domain: Domain | None, path: Path
) -> ProbabilityCritic | MarginCritic | None:
    """Return the safety critic by the rule that its header states; each rule has its own keys and no others."""
    if network is None or header is None:
        return None
    rules: dict[Any, dict[str, Any]] = {
        "probability": {"epsilon": float, "gamma_safe": float},
        "margin": {"delta": float, "gamma_safe": float, "certificate": dict},
    }
    rule = header.get("rule")
    if not isinstance(rule, str) or rule not in rules:
        raise BundleError(f"{path}: critic.rule: expected one of {', '.join(rules)}, got {rule!r}")
    for key, kind in rules[rule].items():
        value = header.get(key)
        if not isinstance(value, kind) and not (key == "delta" and value is None and "delta" in header):
            raise BundleError(f"{path}: critic.{key}: expected {kind.__name__}, got {value!r}")
    if unknown := sorted(set(header) - set(rules[rule]) - {"rule", "backup", "domain"}):
        raise BundleError(f"{path}: critic.{unknown[0]}: a critic of rule {rule} has only {', '.join(rules[rule])}")
    values = {key: header[key] for key in rules[rule]} | {"domain": domain}
    n_action = network.members[0][0].weight.shape[0] - len(network.observation_mean)
    try:
        if "backup" in header:
            values["backup"] = Backup.read(header["backup"], n_action)
        return ProbabilityCritic.of(network, **values) if rule == "probability" else MarginCritic.of(network, **values)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def _domain(
    arrays: dict[str, np.ndarray], header: dict[str, Any] | None, contract: Contract, path: Path
) -> Domain | None:
    """Take the arrays of the critic's domain out of `arrays`; None where its header states none."""
    if header is None or "domain" not in header:
        return None
    found, n = [], contract.observation_size
    for name in ("centre", "whitening"):
        array = arrays.pop(f"{_DOMAIN}{name}", None)
        if array is None:
            raise BundleError(f"{path}: array '{_DOMAIN}{name}' is missing")
        if array.dtype != np.float32 or array.ndim < 1 or len(array) != n:
            raise BundleError(f"{path}: {_DOMAIN}{name}: expected {n} float32 rows, got {array.dtype} {array.shape}")
        found.append(array)
    try:
        return Domain.read(header["domain"], *found)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def _probes(arrays: dict[str, np.ndarray], contract: Contract, path: Path) -> dict[str, np.ndarray]:
    """Take the probes out of `arrays`; all have as many rows as there are probe observations."""
    found = {key.removeprefix(_PROBES): arrays.pop(key) for key in sorted(arrays) if key.startswith(_PROBES)}
    if not found:
        return {}
    n = len(found["observation"]) if "observation" in found and found["observation"].ndim else 0
    known = {
        "observation": contract.observation_size,
        "action": contract.action_size,
        "critic": n,
        "policy": None,
        "domain": 1,
    }
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
        raise BundleError(f"{path}: {name}.activation: expected one of {', '.join(ACTIVATIONS)}; got {activation!r}")
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
