"""docs/tutorials/before_your_controller.md, done as it says: programs that know no shield, over real processes."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.side import PEERS
from ssql_ros.cli.main import main
from ssql_ros.contract import load_contract
from ssql_ros.graph.processes import Graph
from support.documented import shown_section
from support.sb3_zip import sb3_zip, seeking_actor

ROOT = Path(__file__).resolve().parents[2]
PAGE = "tutorials/before_your_controller.md"
# What is typed for each kind of controller: lines of the contract, and commands.
MOST_LINES = 10
HEADINGS = (
    "A forward command controller",
    "Teleoperation by Twist",
    "A trajectory streamer",
    "A policy of stable-baselines3",
)
CHANGED = {"resampled", "least_risk", "backup"}
FOREIGN = sorted((ROOT / "examples").glob("foreign_*.py"))
FOREIGN = [path for path in FOREIGN if path.suffixes == [".py"] and path.stem != "foreign_driver"]


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.stem)
def test_program_imports_nothing_of_the_package(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not [name for name in modules if name.startswith(("ssql_ros", "bench", "support"))]
    assert path.with_name(f"{path.stem}.launch.py").is_file()


def write_contract(folder: Path, name: str, lines: str) -> None:
    """Write a copy of a shipped contract with the page's lines in place of its own."""
    own = yaml.safe_load((ROOT / "config" / name.partition("_")[0] / "contract.yaml").read_text())
    given = yaml.safe_load(lines)
    action = given.pop("action", {})
    if "parts" in action:
        del own["action"]["joints"]
    (folder / name).write_text(yaml.safe_dump({**own, **given, "action": {**own["action"], **action}}))
    load_contract(folder / name)


def train(words: list[str]) -> None:
    """Train as the page says where stable-baselines3 is; elsewhere a policy as good, saved as it would save it."""
    here = importlib.util.find_spec("stable_baselines3") is not None
    python = sys.executable if here else str(ROOT / PEERS)
    if Path(python).exists():
        subprocess.run([python, *words], check=True)
    else:
        sb3_zip(Path(words[-1]), seeking_actor((1.5, 0.0)))


@pytest.mark.long
@pytest.mark.ros
@pytest.mark.parametrize("heading", HEADINGS)
def test_lines_of_the_page_put_the_shield_before_a_program_that_does_not_know_it(
    heading, domain, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("config", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    files, commands = shown_section(PAGE, heading)
    typed = [line for text in files.values() for line in text.splitlines()]
    # A page may go on behind the account, with evaluations.
    commands = commands[: commands.index(["ssql", "watch", "--json"]) + 1]
    assert len(typed) + len(commands) <= MOST_LINES
    for name, lines in files.items():
        write_contract(tmp_path, name, lines)
    with Graph(tmp_path / "logs") as graph:
        for words in commands:
            if words[:2] == ["ssql", "bundle"]:
                assert main(words[1:]) == 0
            elif words[-1].endswith(".zip") and words[0] == "python":
                train(words[1:])
            elif words[0] == "ssql":
                read = {"stdout": subprocess.PIPE} if words[1] == "watch" else {}
                graph.run(words[1], [str(Path(sys.executable).with_name("ssql")), *words[1:]], **read)
            else:
                graph.run("program", [sys.executable, *words[1:]])
        heard = set()
        for line in graph.processes["watch"].stdout:
            graph.check()
            account = json.loads(line)
            heard |= set(account["decisions"])
            if "passed" in heard and heard & CHANGED:
                break
        assert account["mode"] == "enforce"
        # The run's summary says how many it changed.
        graph.stop("run")
    said = (tmp_path / "logs" / "run.log").read_text()
    assert " decisions, " in said.splitlines()[-2], said
