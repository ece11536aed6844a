"""Wrong inputs of everything that is read from outside, some of each; `ssql bench fuzz` tries as many as one likes."""

import json

import pytest

from bench.fuzz_targets import TARGETS
from bench.fuzz_worker import try_inputs
from ssql_ros.cli.main import main

INPUTS = {"contract": 300, "contract_text": 40, "message": 500, "bundle": 40, "announcement": 40, "bag": 20, "key": 200}


@pytest.mark.parametrize("target", sorted(INPUTS))
def test_wrong_inputs_are_refused_in_words_or_accepted(target):
    told = try_inputs(target, 1, 0, INPUTS[target])
    assert [fault for fault in told["faults"] if not fault["fault"].endswith(" s")] == []
    assert told["refused"] > told.get("accepted", 0) / 3
    assert told["refused"] + told.get("accepted", 0) == INPUTS[target]


@pytest.mark.ros
@pytest.mark.parametrize("target", ["request", pytest.param("checkpoint", marks=pytest.mark.long)])
def test_the_command_counts_what_came_of_each_target(target, capfd):
    few = ["bench", "fuzz", "--targets", target, "--inputs", "60", "--quiet", "--json"]
    assert main(few) == 0
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])["figures"]
    assert figures["all_inputs"] == 60
    assert figures["all_refused"] + figures["all_accepted"] == 60
    assert figures["faults"] == figures["all_crashes"] == figures["all_ended"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--inputs", "0"], "--inputs: expected at least 1"), (["--targets", "x"], "--targets: 'x' is unknown")],
)
def test_what_cannot_be_tried_is_refused(options, message, capsys):
    assert main(["bench", "fuzz", *options]) == 2
    assert message in capsys.readouterr().err
    assert set(INPUTS) < set(TARGETS)
