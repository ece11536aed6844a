"""Checks the rules of the house that no other tool knows: names of robots, sizes of files, folders and nodes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ssql_ros.contract.plugs import plugs
from ssql_ros.robots.tasks import tasks

# Where robots and tasks may be named; everybody else is told which one, or asks for `robots.DEFAULT`.
ROBOTS = ("ssql_ros/robots/", "sim/", "config/", "studies/", "bench/", "test/", "examples/", "docs/")
SOURCES = (".py", ".hpp", ".cpp", ".md", ".yaml", ".sh", ".cmake")
FILE_LINES, NODE_LINES, FOLDER_SHARE = 400, 250, 0.12
# Beyond the limits today, with the lines that they have: these may shrink, and never grow.
KNOWN = {
    "test/model/test_bundle.py": 473,
    "test/contract/test_contract.py": 425,
    "test/sim/test_finite_mdp.py": 513,
    "test/shield/test_shield_loop.py": 576,
}


def named(path: Path, names: set[str]) -> Iterator[str]:
    """Yield where a Python file has a text that is the name of a robot or a task."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
            yield f"{path}:{node.lineno}: names {node.value!r}; what is true of one robot belongs into its plug"


def faults() -> Iterator[str]:
    """Yield what breaks a rule, with its place."""
    listed = subprocess.run(["git", "ls-files", *(f"*{end}" for end in SOURCES)], capture_output=True, text=True)
    paths = [path for path in map(Path, listed.stdout.split()) if path.is_file()]
    names, folders = {*plugs(), *tasks()}, Counter[str]()
    for path in paths:
        where, lines = str(path), len(path.read_bytes().splitlines())
        if path.suffix == ".py" and not where.startswith(ROBOTS):
            yield from named(path, names)
        limit = KNOWN.get(where, NODE_LINES if where.startswith("ssql_ros/nodes/") else FILE_LINES)
        if lines > limit:
            yield f"{where}: has {lines} lines, at most {limit} are allowed"
        if path.parts[0] == "ssql_ros" and len(path.parts) > 2:
            folders[path.parts[1]] += lines
    for folder, lines in folders.items():
        if lines > FOLDER_SHARE * folders.total():
            yield f"ssql_ros/{folder}: has {lines / folders.total():.1%} of the package's lines, at most 12 % may be"


if __name__ == "__main__":
    found = list(faults())
    print(*found, sep="\n", end="\n" * bool(found))
    sys.exit(bool(found))
