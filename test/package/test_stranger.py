"""The tutorial's commands, from the bag of a robot that nobody has seen to a shield that spares it most incidents."""

import re
import shlex
from pathlib import Path

import pytest

from ssql_ros.cli.main import main
from support.diff_drive_bag import drive, record

PAGE = Path(__file__).resolve().parents[2] / "docs/tutorials/from_a_bag_to_a_shield.md"
RECORDED, DRIVEN = 200, 30


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_commands_of_the_tutorial_spare_the_robot_two_thirds_of_its_incidents(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(lines) <= 8
    touched = record(Path("drive"), RECORDED)
    for words in lines:
        if words[0] == "ssql":
            more = ["--quiet"] if words[1] == "learn" else []
            assert main([*words[1:], *more]) == 0, words
    said = capsys.readouterr().out
    assert f"{touched} of {RECORDED} episodes ended in an incident" in said
    assert "no certificate" in said
    assert (tmp_path / "learned" / "report.html").stat().st_size > 50_000
    bundle = Path("learned/bundle.safetensors")
    alone, shielded = (drive(Path("cart.yaml"), each, DRIVEN, seed=20_000) for each in (None, bundle))
    assert alone["incidents"] > 0.3
    assert shielded["incidents"] <= alone["incidents"] / 3
    # Not by standing still.
    assert shielded["metres"] > 0.7 * alone["metres"]
