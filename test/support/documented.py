"""What a page of the documentation shows: files, by the comment that each begins with, and commands."""

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

from ssql_ros.contract import load_contract
from ssql_ros.model.bundle import save_bundle
from ssql_ros.model.probes import with_probes
from support.toy_robot import toy_bundle

DOCS = Path(__file__).resolve().parents[2] / "docs"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# ([\w./]+\.(?:py|yaml|toml))\n")


def shown_files(page: str) -> dict[str, str]:
    """The files that a page shows, by path."""
    blocks = [block for _, block in _FENCE.findall((DOCS / page).read_text())]
    return {named[1]: block[named.end() :] for block in blocks if (named := _NAMED.match(block))}


def shown_commands(page: str) -> list[list[str]]:
    """The commands `ssql` that a page shows, in order, as the words behind it."""
    blocks = [block for language, block in _FENCE.findall((DOCS / page).read_text()) if not language]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("ssql ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def shown_section(page: str, heading: str) -> tuple[dict[str, str], list[list[str]]]:
    """What the part of a page under a heading shows: files by path, and every command, in order, as its words."""
    _, found, text = (DOCS / page).read_text().partition(f"## {heading}\n")
    assert found, f"{page} has no part {heading!r}"
    blocks = _FENCE.findall(text.partition("\n## ")[0])
    files = {named[1]: block[named.end() :] for _, block in blocks if (named := _NAMED.match(block))}
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return files, [shlex.split(line, comments=True) for line in lines]


def write_site(folder: Path) -> Path:
    """Write the crawler's package into a folder, with the metadata that installing it leaves; return the folder."""
    files = shown_files("how_to/add_a_robot.md")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    for group, entries in project["entry-points"].items():
        _install(folder, project["name"], group, entries)
    return folder


def _install(folder: Path, name: str, group: str, entries: dict[str, str]) -> None:
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    listed = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{listed}")


def add_broken_plug(folder: Path) -> None:
    """Install a plug that cannot be loaded."""
    _install(folder, "broken", "ssql_ros.robots", {"broken": "nowhere:ROBOT"})


def save_careless_critic(folder: Path, name: str) -> None:
    """Save a critic of the crawler that minds nothing."""
    contract = load_contract(folder / "crawler/config/contract.yaml")
    bundle = toy_bundle(contract)
    careless = dataclasses.replace(bundle, critic=dataclasses.replace(bundle.critic, epsilon=0.9999))
    save_bundle(with_probes(careless, contract), folder / name)
