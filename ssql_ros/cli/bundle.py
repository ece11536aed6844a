"""`ssql bundle`: what a bundle file holds and whether it is complete; exports, keys, signatures, announcements."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli import announce, export, import_policy
from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_seed, contract_of

if TYPE_CHECKING:
    from ssql_ros.model.bundle import Bundle


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("bundle", help="check, export, import, sign and announce bundle files")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    verify = kinds.add_parser(
        "verify",
        help="is a bundle file whole, and by whom is it signed?",
        description="Checks digest, format, contract and probes. With --key also a detached signature, FILE.sig. "
        "Exit status 0: all of it holds.",
    )
    verify.add_argument("bundle", type=Path, help="a .safetensors file")
    verify.add_argument("--contract", default="", help="robot or contract YAML (default: the bundle's task)")
    verify.add_argument("--key", type=Path, help="public key that FILE.sig must be of")
    verify.add_argument("--signature", type=Path, help="(default: FILE.sig)")
    add_json(verify)
    verify.set_defaults(run=_verify)
    keygen = kinds.add_parser("keygen", help="make a key pair: KEY, which nobody else may read, and KEY.pub")
    keygen.add_argument("key", type=Path)
    keygen.set_defaults(run=_keygen)
    sign = kinds.add_parser("sign", help="write FILE.sig, a detached signature of a bundle file")
    sign.add_argument("bundle", type=Path, help="a .safetensors file")
    sign.add_argument("--key", type=Path, required=True, help="private key")
    sign.add_argument("--contract", default="", help="robot or contract YAML (default: the bundle's task)")
    sign.set_defaults(run=_sign)
    upgrade = kinds.add_parser(
        "upgrade",
        help="save bundles of older formats anew, with a digest",
        description="What a bundle does stays as it is; its id changes. The old one is kept in its provenance.",
    )
    upgrade.add_argument("bundles", type=Path, nargs="+", help=".safetensors files")
    upgrade.add_argument("--contract", default="", help="robot or contract YAML (default: each bundle's task)")
    upgrade.set_defaults(run=_upgrade)
    domain = kinds.add_parser(
        "domain",
        help="tell a critic where it was trained, from the data set that it was trained on",
        description="Adds mean and covariance of the data set's observations to the critic, and the distance that "
        "99.9 % of those held out lie within: a shield then says when its robot has left them. What the critic does "
        "stays as it is; the bundle's id changes.",
    )
    domain.add_argument("bundle", type=Path, help="a .safetensors file")
    domain.add_argument("--data", type=Path, required=True, metavar="DATASET", help="observations it was trained on")
    domain.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write the bundle")
    domain.add_argument("--contract", default="", help="robot or contract YAML (default: the bundle's task)")
    domain.add_argument("--held-out", type=float, default=0.2, help="share of the episodes (default: 0.2)")
    add_seed(domain, "of the choice of episodes that are held out")
    add_json(domain)
    domain.set_defaults(run=_domain)
    transfer = kinds.add_parser(
        "transfer",
        help="take a bundle to a contract of the same vectors whose commands are told in another message",
        description="A robot that is told by Twist or Float64MultiArray in place of JointState needs a contract of "
        "another id, and a bundle that names it. Observation, action and incident must be the same; that the numbers "
        "mean the same motion, m/s of a Twist as rad/s of a drive, is for you to know.",
        epilog="example: ssql bundle transfer BUNDLE --contract my_robot_by_twist.yaml --out by_twist.safetensors",
    )
    transfer.add_argument("bundle", type=Path, help="a .safetensors file")
    transfer.add_argument("--contract", required=True, metavar="FILE", help="contract YAML to take it to")
    transfer.add_argument("--of", default="", metavar="FILE", help="its own contract (default: the bundle's task's)")
    transfer.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write the bundle")
    transfer.set_defaults(run=_transfer)
    export.add_parser(kinds)
    import_policy.add_parser(kinds)
    announce.add_parser(kinds)


def _loaded(path: Path, robot: str) -> tuple[Bundle, Any]:
    """Return a bundle and its contract, its probes checked."""
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.model.probes import check_probes

    contract = contract_of(path, robot)
    bundle = load_bundle(path, contract)
    check_probes(bundle)
    return bundle, contract


def _statement(path: Path, contract_id: str) -> bytes:
    """Return what a detached signature is of: no time, and no purpose, as an announcement has."""
    import hashlib

    from ssql_ros.model.signing import statement

    return statement(0, hashlib.sha256(path.read_bytes()).hexdigest(), contract_id, 0)


def _verify(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import MarginCritic, ProbabilityCritic
    from ssql_ros.model.signing import holds, key_id, read_public_key

    bundle, contract = _loaded(options.bundle, options.contract)
    figures, notes = dict[str, float](), [f"bundle {bundle.id} for {contract.id}, rule {bundle.rule.name.lower()}"]
    if isinstance(bundle.critic, ProbabilityCritic):
        figures["epsilon"] = bundle.critic.epsilon
    if isinstance(bundle.critic, MarginCritic):
        figures["delta"] = float("nan") if bundle.critic.delta is None else bundle.critic.delta
        notes.append("certified" if bundle.critic.certified else "not certified: nothing is promised below its delta")
    if bundle.critic is not None:
        domain = bundle.critic.domain
        notes.append("domain: not told" if domain is None else f"domain: {domain.words()}")
    notes.append(f"probes: {', '.join(sorted(bundle.probes)) or 'none'}")
    if options.key:
        key, path = read_public_key(options.key), options.signature or Path(f"{options.bundle}.sig")
        if not holds(key, path.read_bytes(), _statement(options.bundle, contract.id)):
            raise ValueError(f"{path}: is not the signature of {options.bundle} by key {key_id(key)}")
        notes.append(f"signed by key {key_id(key)}")
    report(figures, 0, options.json, notes=notes)
    return 0


def _domain(options: argparse.Namespace) -> int:
    from ssql_ros.data.data_set import DataSet
    from ssql_ros.data.domain import domain_of
    from ssql_ros.data.held_out import parts_of
    from ssql_ros.model.bundle import save_bundle
    from ssql_ros.model.probes import with_probes

    if not 0.0 < options.held_out < 1.0:
        raise ValueError(f"--held-out: expected a number between 0 and 1, got {options.held_out}")
    if options.out.exists():
        raise ValueError(f"--out: {options.out} is there already; give another file")
    bundle, contract = _loaded(options.bundle, options.contract)
    data = DataSet(options.data)
    data.check_contract(contract.id)
    domain = domain_of(data, parts_of(data, options.held_out, options.seed))
    facts = {**bundle.provenance, "saved_before_as": bundle.id, "domain": str(options.data)}
    critic = replace(bundle.safety_critic(), domain=domain)
    saved = save_bundle(with_probes(replace(bundle, critic=critic, provenance=facts), contract), options.out)
    report(domain.header(), 0, options.json, notes=[f"bundle {bundle.id} is {saved.id} in {options.out}"])
    return 0


def _transfer(options: argparse.Namespace) -> int:
    from ssql_ros.contract import told_otherwise
    from ssql_ros.model.bundle import save_bundle
    from ssql_ros.model.probes import with_probes

    if options.out.exists():
        raise ValueError(f"--out: {options.out} is there already; give another file")
    bundle, own = _loaded(options.bundle, options.of)
    contract = told_otherwise(own, options.contract)
    facts = {**bundle.provenance, "saved_before_as": bundle.id, "contract_before": own.id}
    moved = replace(bundle, contract_id=contract.id, provenance=facts)
    saved = save_bundle(with_probes(moved, contract), options.out)
    print(f"bundle {bundle.id} of {own.id} is {saved.id} of {contract.id} in {options.out}")
    return 0


def _keygen(options: argparse.Namespace) -> int:
    from ssql_ros.model.signing import key_id, write_keys

    print(f"key {key_id(write_keys(options.key))}: {options.key} signs, {options.key}.pub is for announcement_keys")
    return 0


def _sign(options: argparse.Namespace) -> int:
    from ssql_ros.model.signing import key_id, read_private_key
    from ssql_ros.processes.files import write_atomically

    key, (bundle, contract) = read_private_key(options.key), _loaded(options.bundle, options.contract)
    path = Path(f"{options.bundle}.sig")
    write_atomically(path, key.sign(_statement(options.bundle, contract.id)))
    print(f"{path}: signature of bundle {bundle.id} by key {key_id(key.public_key())}")
    return 0


def _upgrade(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import save_bundle
    from ssql_ros.model.bundle_file import FORMAT, format_of
    from ssql_ros.model.probes import with_probes

    for path in options.bundles:
        bundle, contract = _loaded(path, options.contract)
        if format_of(path) == FORMAT:
            print(f"{path}: is of format {FORMAT} already")
            continue
        provenance = {**bundle.provenance, "saved_before_as": bundle.id}
        made = replace(bundle, provenance=provenance)
        saved = save_bundle(made if bundle.probes else with_probes(made, contract), path)
        print(f"{path}: bundle {bundle.id} is {saved.id} now")
    return 0
