"""Makes the reference pages of the site from the code that they describe; nothing of it is written to docs/."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

API = {
    "contract": "ssql_ros.contract",
    "model": "ssql_ros.model",
    "shield": "ssql_ros.shield",
    "behaviour": "ssql_ros.behaviour",
    "data": "ssql_ros.data",
    "drivers": "ssql_ros.drivers",
    "bags": "ssql_ros.bags",
    "algorithms": "ssql_ros.algorithms",
    "training": "ssql_ros.training",
    "evaluation": "ssql_ros.evaluation",
    "ros": "ssql_ros.ros",
    "ssql_sim": "ssql_sim",
}
QOS = {
    "COMMAND": "reliable, depth 1",
    "EVENT": "reliable, depth 50",
    "LATCHED": "reliable, transient local, depth 1",
    "ANSWERS": "reliable, transient local, depth 10",
    "10": "reliable, depth 10",
}
FIELD = re.compile(r"^(?P<type>[\w/]+(?:\[\d*\])?)\s+(?P<name>\w+)(?:=(?P<value>\S+))?\s*(?:#\s*(?P<comment>.*))?$")


def pages(root: Path) -> Iterator[tuple[str, str]]:
    """Yield every page of the reference: its path in docs/, its Markdown."""
    yield "reference/index.md", _index()
    yield "reference/command_line.md", command_line()
    yield "reference/parameters.md", parameters(root)
    yield "reference/settings.md", settings()
    yield "reference/messages.md", messages(root)
    yield "reference/contract.md", contract()
    yield "reference/bundle.md", bundle(root)
    for name, module in API.items():
        yield f"reference/api/{name}.md", f"# {module}\n\n::: {module}\n    options:\n      show_root_heading: false\n"


def _index() -> str:
    return """# Reference

These pages are made from the code when the site is built, so they say what this version does.

- [Command line](command_line.md): every verb of `ssql` with its options.
- [Node parameters](parameters.md): type, default, bounds, and whether a running node takes a change.
- [Settings of learning](settings.md): what `--set` and a robot's learning.yaml can change, with bounds.
- [Topics and messages](messages.md): topics, services, and the fields of our messages with their units.
- [Contract](contract.md): the keys of a robot's contract.
- [Bundle](bundle.md): the file that carries networks, thresholds and where they come from.
- Python API: [contract](api/contract.md), [model](api/model.md), [shield](api/shield.md),
  [behaviour](api/behaviour.md), [data](api/data.md), [drivers](api/drivers.md), [bags](api/bags.md),
  [algorithms](api/algorithms.md), [training](api/training.md), [evaluation](api/evaluation.md), [ros](api/ros.md),
  [ssql_sim](api/ssql_sim.md).
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """Return the help of every verb."""
    from ssql_ros.cli.main import make_parser

    os.environ["COLUMNS"] = "100"  # what argparse wraps its help to
    parts = [
        "# Command line",
        "`ssql VERB --help` prints the same. Exit status: 0 done, 1 failed, 2 wrong use or bad input, "
        "128 + a signal's number; [bags](../how_to/bags.md) have 3 for damage.",
    ]
    for path, parser in verbs(make_parser()):
        heading = "#" * min(len(path) + 1, 4)
        parts += [f"{heading} {' '.join(path)}", f"```text\n{parser.format_help().rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def verbs(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words of every verb with its parser, the command's own first."""
    path = path or (parser.prog,)
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from verbs(inner, (*path, name))


def parameters(root: Path) -> str:
    """Return every node's table of parameters, and what its launch file says."""
    parts = [
        "# Node parameters",
        "A parameter that a node does not know, a value of another type or out of bounds, and NaN are refused, at "
        "start and by `ros2 param set`. `use_sim_time` and `qos_overrides` work as everywhere.",
    ]
    for path in sorted((root / "ssql_ros/nodes").glob("*_node.py")):
        module = importlib.import_module(f"ssql_ros.nodes.{path.stem}")
        rows = [
            (
                f"`{p.name}`",
                _type(p.default),
                _default(p.default),
                p.allowed.lstrip(", "),
                "at start" if p.fixed else "any time",
                p.description,
            )
            for p in getattr(module, "PARAMETERS", ())
        ]
        parts += [
            f"## {path.stem}",
            (module.__doc__ or "").strip(),
            table(("Parameter", "Type", "Default", "Values", "Set", ""), rows),
        ]
    parts.append("## Launch files\n\n`ros2 launch ssql_ros FILE --show-args` lists the arguments of each.")
    for path in sorted((root / "launch").glob("*.launch.py")):
        parts += [f"### {path.name}", ast.get_docstring(ast.parse(path.read_text())) or ""]
    return "\n\n".join(parts) + "\n"


def settings() -> str:
    """Return every algorithm's table of settings."""
    from ssql_ros.training.described_settings import described
    from ssql_ros.training.settings import SETTINGS

    parts = [
        "# Settings of learning",
        "`--set NAME=VALUE` of `ssql train` and a robot's `learning.yaml` change them; a default is the algorithm's. "
        "`ssql train ALGORITHM --task TASK --settings` says which values count for a task.",
    ]
    for algorithm, kind in SETTINGS.items():
        rows = [(f"`{s.name}`", f"`{json.dumps(s.default)}`", s.expected, s.text) for s in described(kind)]
        parts += [f"## {algorithm}", table(("Setting", "Default", "Expected", ""), rows)]
    return "\n\n".join(parts) + "\n"


def _type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "double", str: "string", list: "string[]"}
    return "" if value is None else names[type(value)]


def _default(value: Any) -> str:
    if value is None:
        return "not set"
    return "empty" if value in ("", [""]) else f"`{json.dumps(value)}`" if isinstance(value, bool) else f"`{value}`"


def messages(root: Path) -> str:
    """Return topics, services, and every message with its comments."""
    parts = [
        "# Topics and messages",
        "All names are relative unless they begin with `/`: namespaces and remapping work. Beside those below a node "
        "hears and sends what the robot's [contract](contract.md) names: its inputs, and its command topic. Sensors "
        "are subscribed best effort.",
        "## Topics",
        table(("Topic", "Type", "Published by", "QoS"), _published(root)),
        "## Services",
        table(("Service", "Type", "Of"), _services(root)),
        "## Messages",
    ]
    for path in sorted((root / "msg").glob("*.msg")):
        parts += [f"### {path.stem}", *_message(path.read_text())]
    return "\n\n".join(parts) + "\n"


def _calls(root: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, Any, Any]]:
    """Yield file, module and every call of a method of one of these names in nodes/ and ros/."""
    for path in sorted([*(root / "ssql_ros/nodes").glob("*.py"), *(root / "ssql_ros/ros").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
                yield path, importlib.import_module(f"ssql_ros.{path.parent.name}.{path.stem}"), node


def _name(module: Any, argument: Any) -> str | None:
    """Return a topic's name where it is a text or a constant of the module."""
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    value = getattr(module, argument.id, None) if isinstance(argument, ast.Name) else None
    return value if isinstance(value, str) else None


def _full_type(module: Any, argument: Any) -> str:
    kind = getattr(module, ast.unparse(argument), None)
    if kind is None:
        return f"`{ast.unparse(argument)}`"
    return f"{kind.__module__.split('.')[0]}/{kind.__name__}"


def _published(root: Path) -> list[tuple[str, str, str, str]]:
    rows: dict[tuple[str, str, str], list[str]] = {}
    for path, module, call in _calls(root, ("create_publisher", "create_lifecycle_publisher")):
        if (name := _name(module, call.args[1])) is not None:
            kind, qos = _full_type(module, call.args[0]), ast.unparse(call.args[2])
            rows.setdefault((f"`{name}`", kind, QOS.get(qos, qos)), []).append(path.stem)
    return [(name, kind, _owners(owners), qos) for (name, kind, qos), owners in sorted(rows.items())]


def _services(root: Path) -> list[tuple[str, str, str]]:
    rows: dict[tuple[str, str], list[str]] = {}
    for path, module, call in _calls(root, ("create_service",)):
        names = [_name(module, call.args[1])]
        if isinstance(call.args[1], ast.JoinedStr):  # f"~/{name}" in a loop over names
            names = [f"~/{name}" for name in _looped(ast.parse(path.read_text()), call)]
        for name in filter(None, names):
            rows.setdefault((f"`{name}`", _full_type(module, call.args[0])), []).append(path.stem)
    return [(name, kind, _owners(owners)) for (name, kind), owners in sorted(rows.items())]


def _looped(tree: ast.Module, call: ast.Call) -> list[str]:
    for node in ast.walk(tree):
        loops = node.generators if isinstance(node, ast.ListComp) else [node] if isinstance(node, ast.For) else []
        for loop in loops:
            inside = any(isinstance(n, ast.Call) and n.lineno == call.lineno for n in ast.walk(node))
            if inside and isinstance(loop.iter, ast.Tuple):
                return [str(n.value) for n in loop.iter.elts if isinstance(n, ast.Constant)]
    return []


def _owners(modules: list[str]) -> str:
    said = {
        "flight_watch": "recorder_node",
        "shield_control": "shield_node",
        "shield_report": "shield_node",
        "model_receiver": "shield_node, policy_node",
        "announcer": "learner_node, `ssql bundle announce`",
        "diagnostics": "every node that has something to tell",
    }
    return ", ".join(dict.fromkeys(said.get(name, name) for name in modules))


def _message(text: str) -> Iterator[str]:
    head, constants, fields = [], [], []
    for line in text.splitlines():
        if line.startswith("#"):
            head.append(line.lstrip("# "))
        elif match := FIELD.match(line):
            row = (f"`{match['name']}`", f"`{match['type']}`", match["comment"] or "")
            if match["value"] is not None:
                constants.append((row[0], match["value"], row[2]))
            else:
                fields.append(row)
        elif line:
            raise ValueError(f"a line of a message that is no field and no comment: {line!r}")
    yield " ".join(head)
    yield table(("Field", "Type", ""), fields)
    if constants:
        yield table(("Constant", "Value", ""), constants)


def contract() -> str:
    """Return the keys of a contract, and the fields and units that it may name."""
    from ssql_ros.contract.fields import MESSAGE_FIELDS, UNITS
    from ssql_ros.contract.keys import SECTIONS

    parts = [
        "# Contract",
        "One YAML file a robot: what an observation and an action vector mean, which states are incidents, and what "
        "is safe when nothing can be decided on. Every key is checked, and an unknown one is refused; an error names "
        "file, key, what was expected and what came. Networks carry the contract's id: a change of meaning changes "
        "it, a change of topics or time-outs does not. How to write one: "
        "[shield my controller](../how_to/shield_my_controller.md).",
    ]
    for section in SECTIONS:
        rows = [
            (f"`{key.name}`", key.kind, key.unit, "" if key.optional else "yes", key.description)
            for key in section.keys
        ]
        heading = f"`{section.place}`" if section.place and "," not in section.place else section.place or "Top level"
        parts += [f"## {heading}", section.description, table(("Key", "Value", "Unit", "Needed", ""), rows)]
    parts += ["## Message types and their fields", "In SI units, as REP-103 has them."]
    parts.append(
        table(
            ("Type", "Fields"),
            [(f"`{t}`", ", ".join(f"`{f}` ({u})" for f, u in fields.items())) for t, fields in MESSAGE_FIELDS.items()],
        )
    )
    parts += ["## Units", table(("Unit", "Of SI unit"), [(f"`{u}`", f"`{si}`") for u, (si, _) in UNITS.items()])]
    return "\n\n".join(parts) + "\n"


def bundle(root: Path) -> str:
    """Return the format of a bundle, with what lies in a shipped one."""
    from ssql_ros.contract import find_contract, load_contract
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.model.bundle_content import ACTIVATIONS, POLICIES, Rule
    from ssql_ros.model.bundle_file import FORMAT, MAX_BYTES, MAX_DEPTH, MAX_HEADER, READABLE, opened

    path = root / "config/bundles/minitaur_ssql.safetensors"
    document, arrays = opened(path.read_bytes(), path)
    loaded = load_bundle(path, load_contract(find_contract("minitaur")))
    shown = {name: _short(value) for name, value in document.items()}
    limits = [
        ("format written", str(FORMAT)),
        ("formats read", ", ".join(map(str, READABLE))),
        ("largest file", f"{MAX_BYTES // 2**20} MiB"),
        ("largest header", f"{MAX_HEADER // 2**10} KiB"),
        ("deepest nesting of its JSON", str(MAX_DEPTH)),
        ("rules of a critic", ", ".join(rule.name.lower() for rule in Rule if rule)),
        ("kinds of policy", ", ".join(POLICIES)),
        ("activations", ", ".join(ACTIVATIONS)),
    ]
    types = ("Bundle", "Network", "ProbabilityCritic", "MarginCritic")
    parts = [
        "# Bundle",
        "A bundle is one safetensors file: float32 arrays, and in the metadata under the key `ssql_ros` one JSON "
        "document. Nothing in it is run. It is written under a temporary name, synced and renamed. Its id is the "
        "first 16 hex digits of the SHA-256 of the file. The digest in the document is the SHA-256 of the whole file "
        "with the digest's own 64 digits as zeros, so that one changed bit anywhere is refused "
        "([hot swap and signing](../how_to/hot_swap.md#damage-to-bundle-files)).",
        table(("", ""), limits),
        "## Arrays",
        "`NETWORK.observation_mean`, `NETWORK.observation_scale`; `NETWORK.MEMBER.LAYER.weight` (n_in, n_out) and "
        "`.bias` (n_out); NETWORK is `critic`, `policy` or `reward`. `probes.NAME`: inputs, and what the networks "
        "made of them where the file was saved. `critic.domain.centre`, `critic.domain.whitening`: of a critic that "
        f"says where it was trained ([`Domain`][ssql_ros.model.domain.Domain]). Those of `{path.name}`, bundle "
        f"`{loaded.id}`:",
        table(("Array", "Shape"), [(f"`{name}`", str(arrays[name].shape)) for name in sorted(arrays)]),
        "## Document",
        f"That of the same file, shortened:\n\n```yaml\n{yaml.safe_dump(shown, width=100)}```",
        "## Types",
        "\n".join(f"- [`{name}`][ssql_ros.model.bundle_content.{name}]" for name in types),
    ]
    return "\n\n".join(parts) + "\n"


def _short(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with its long parts left out."""
    if isinstance(value, dict):
        if depth > 1:
            return "..."
        return {name: _short(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return "..." if depth > 1 else [_short(inner, depth + 1) for inner in value]
    if isinstance(value, str) and len(value) > 90:
        return value[:87] + "..."
    return value
