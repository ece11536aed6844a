"""The command line: its help, its errors, and what it says where something is missing."""

import argparse
import os
import subprocess
import sys

import numpy as np
import pytest

from ssql_ros.cli import main as cli
from ssql_ros.cli.main import main
from ssql_ros.evaluation.bundle_evaluation import read_starts
from ssql_ros.robots.tasks import find_task, tasks


def parsers(parser: argparse.ArgumentParser, name: str = "ssql"):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, sub in action.choices.items():
                yield from parsers(sub, f"{name} {verb}")


@pytest.fixture(scope="module")
def verbs() -> dict[str, argparse.ArgumentParser]:
    made = []

    class Kept(cli._Parser):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    original, cli._Parser = cli._Parser, Kept
    try:
        with pytest.raises(SystemExit):
            main(["--version"])
    finally:
        cli._Parser = original
    return dict(parsers(made[0]))


def test_every_help_text_reads_as_it_is_meant(verbs):
    assert {"ssql run", "ssql eval policy", "ssql train sac", "ssql bag convert"} <= set(verbs)
    for name, parser in verbs.items():
        text = parser.format_help()
        assert "%%" not in text, name
        assert "%(" not in text, name
        assert "==" not in text, name
    assert "95 %:" in verbs["ssql eval policy"].format_help()


def test_every_task_option_lists_the_tasks(verbs):
    for name, parser in verbs.items():
        if any("--task" in action.option_strings for action in parser._actions):
            text = parser.format_help().replace("\n", " ")
            assert all(task in text for task in tasks()), name


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("ssql ")


NEEDED = {"train critic": ["--out", "x"], "bag info": ["x"]}


@pytest.mark.parametrize("words", [["eval", "shield"], ["train", "critic"], ["run"], ["bag", "info"]], ids=" ".join)
def test_error_of_a_verb_shows_the_usage_of_the_verb(verbs, capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(
            [*words, *(["x"] if words[0] == "bag" else []), *(["--out", "x"] if words[0] == "train" else []), "--bogus"]
        )
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: ssql {' '.join(words)} ")
    assert f"ssql {' '.join(words)}: error: unrecognized arguments: --bogus" in error


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/nowhere/below"])
@pytest.mark.parametrize("verb", [["collect", "--task", "boat", "--episodes", "3"], ["demo"], ["demo", "learn"]])
def test_folder_that_cannot_be_written_is_named_first(tmp_path, monkeypatch, capsys, verb, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert main([*verb, "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --out {out}: ")
    assert error.count("\n") == 1
    assert "Errno" not in error
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]


def test_check_of_a_folder_leaves_no_trace(tmp_path, capsys):
    out = tmp_path / "a" / "b"
    assert main(["collect", "--task", "spider", "--episodes", "0", "--out", str(out)]) == 2
    assert main(["collect", "--task", "swimmer_velocity", "--bag", "--out", str(out)]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("X,Y,Index\n0.5,-1,0\n1,2,1\n", [[0.5, -1.0], [1.0, 2.0]]),
        ("\ufeffx,y\r\n0.5,-1\r\n", [[0.5, -1.0]]),
        ("x, y\n0.5, -1\n", [[0.5, -1.0]]),
        (" y ,x \n-1,0.5\n", [[0.5, -1.0]]),
        ("\ufeffIndex, Y , X\n3, -1, 0.5\n", [[0.5, -1.0]]),
    ],
    ids=repr,
)
def test_initial_states_of_many_kinds_of_csv(tmp_path, text, rows):
    path = tmp_path / "starts.csv"
    path.write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(read_starts(path, find_task("boat").contract()), rows)


def test_initial_states_without_a_column_are_refused_with_the_header_that_was_found(tmp_path):
    path = tmp_path / "starts.csv"
    for text, error in (
        ("lat,lon\n1,2\n", "expected a column x, but it is missing: the header has lat, lon"),
        ("X,X ,y\n1,2,3\n", "expected a column x, but X and X  could both be it"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=error):
            read_starts(path, find_task("boat").contract())


WITHOUT_ROS = """
import sys
class Away:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rclpy", "sensor_msgs", "rcl_interfaces") or name == "ssql_ros.msg":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Away())
sys.argv = ["ssql", *sys.argv[1:]]
from ssql_ros.cli.main import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["demo"],
        ["demo", "learn"],
        ["collect", "--task", "boat", "--bag", "--out", "bag"],
        ["bundle", "announce", str(find_task("minitaur").bundle_path())],
        ["bench", "ros"],
    ],
    ids=" ".join,
)
def test_without_ros_one_line_says_so_and_how_to_get_it(tmp_path, words):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROS, *words], capture_output=True, text=True, timeout=100, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert " needs ROS 2: " in done.stderr
    assert "make setup" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_spellings_of_before_say_what_replaces_them(capsys):
    for before, now in (
        ("export served", "bundle export"),
        ("announce X", "bundle announce"),
        ("eval rivals", "rivals"),
    ):
        assert main(before.split()) == 2
        assert f"is `ssql {now}` now" in capsys.readouterr().err


def test_contract_is_checked_and_said_in_words(capsys, tmp_path):
    assert main(["contract", "check", "boat"]) == 0
    said = capsys.readouterr().out
    assert "odom: nav_msgs/msg/Odometry" in said
    assert "begins frames" in said
    assert main(["contract", "check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_critics_of_margins_are_certified_and_others_calibrated(capsys):
    assert main(["calibrate", str(find_task("boat").bundle_path()), "--dry-run", "--quiet"]) == 2
    assert "`ssql certify`" in capsys.readouterr().err
    assert main(["certify", str(find_task("minitaur").bundle_path()), "--dry-run", "--quiet", "--states", "10"]) == 2
    assert "`ssql calibrate`" in capsys.readouterr().err


def test_demo_names_the_robots_that_it_can_show(capsys):
    assert main(["demo", "--robot", "nobody"]) == 2
    assert "--robot nobody: expected a robot with a simulated world: boat, " in capsys.readouterr().err
