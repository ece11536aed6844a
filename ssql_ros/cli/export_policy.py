"""`ssql bundle export policy`: a bundle's policy for those who serve by ONNX or TorchScript, its contract beside it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_robot, task_of

FORMATS = {"onnx": "policy.onnx", "torchscript": "policy.pt"}
STATES = 1000
# float32 sums in another order; another network differs by far more.
TOLERANCE = 1e-4


def add_subject(subjects: Any) -> argparse.ArgumentParser:
    """Add the subject; return its parser."""
    parser = subjects.add_parser(
        "policy",
        help="a policy as ONNX or TorchScript, with its contract",
        description="Writes a folder: policy.onnx or policy.pt (observation [batch, n] -> the most probable action, in "
        "[-1, 1]), of ONNX also critic.onnx where the bundle has a safety critic, contract.yaml, which says what both "
        "vectors mean, and export.json. What was written is run and held against the policy as it is served here: the "
        f"largest difference over {STATES} states is told; above {TOLERANCE:g} nothing is written. A policy of SSQL, "
        "which asks its behaviour policy at each step, is no such graph and is refused.",
        epilog="example: ssql bundle export policy runs/boat/bundle.safetensors --format onnx --out exported",
    )
    parser.add_argument("bundle", type=Path, metavar="FROM", help="bundle to read")
    add_robot(parser, "which world (default: the one that the bundle was made for)")
    parser.add_argument("--format", choices=tuple(FORMATS), required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to make")
    add_json(parser)
    parser.set_defaults(run=_run, needs=())
    return parser


def _run(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.model.critic import critic_model
    from ssql_ros.model.onnx_graph import policy_model, policy_network
    from ssql_ros.model.policy import make_policy
    from ssql_ros.model.probes import check_probes
    from ssql_ros.processes.files import write_atomically

    if options.out.exists():
        raise ValueError(f"--out {options.out}: is there already; name another")
    task = task_of(options.bundle, options.contract or options.task)
    contract = task.contract()
    bundle = load_bundle(options.bundle, contract)
    check_probes(bundle)
    network = policy_network(bundle)
    states = _states(network, np.random.default_rng(0))
    if options.format == "onnx":
        content = policy_model(bundle)
        got = _run_onnx(content, states)
    else:
        from ssql_ros.nn.torchscript import policy_script, run_script

        content = policy_script(bundle)
        got = run_script(content, states)
    policy = make_policy(bundle)
    apart = np.abs(got - np.array([policy.best(state) for state in states.astype(float)]))
    figures = {"states": float(len(states)), "parity_max": float(apart.max()), "parity_mean": float(apart.mean())}
    if not figures["parity_max"] <= TOLERANCE:
        raise ValueError(
            f"{options.bundle}: the exported policy differs by {figures['parity_max']:.3g} from the one that is served "
            f"here (at most {TOLERANCE:g}); nothing is written"
        )
    files = {FORMATS[options.format]: content, "contract.yaml": _contract_text(task, contract).encode()}
    if options.format == "onnx" and bundle.critic is not None:
        files["critic.onnx"] = critic_model(bundle.critic, len(bundle.critic.observation_mean), bundle.rule)
    told = {"bundle": bundle.id, "contract_id": contract.id, "policy_kind": bundle.policy_kind, **figures}
    files["export.json"] = json.dumps(told | _threshold(bundle), indent=1).encode()
    options.out.mkdir(parents=True)
    for name, data in files.items():
        write_atomically(options.out / name, data)
    report(figures, 0, options.json, notes=(f"{', '.join(files)} are in {options.out}",))
    return 0


def _states(network: Any, rng: np.random.Generator) -> np.ndarray:
    """Return observations (N, n) as the network met them, every fourth far outside, so that the clip is tried too."""
    wide = np.where(np.arange(STATES) % 4 == 3, 8.0, 1.0)[:, np.newaxis]
    drawn = rng.standard_normal((STATES, len(network.observation_mean)))
    return (network.observation_mean + wide * network.observation_scale * drawn).astype(np.float32)


def _run_onnx(content: bytes, states: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["action"], {"observation": states})[0]


def _contract_text(task: Any, contract: Any) -> str:
    return task.contract_text() or Path(contract.path).read_text(encoding="utf-8")


def _threshold(bundle: Any) -> dict[str, Any]:
    """Return what a score of critic.onnx is held against."""
    if bundle.critic is None:
        return {}
    told = {name: getattr(bundle.critic, name) for name in ("epsilon", "delta") if hasattr(bundle.critic, name)}
    return {"critic": {"rule": bundle.rule.name.lower(), **told}}
