"""What a contract says of faults: which words it knows, and what it refuses."""

import pytest

from ssql_ros.contract import ContractError, load_contract
from ssql_ros.drafting.json_schema import json_schema
from support.toy_robot import toy_yaml


def loaded(tmp_path, text):
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return load_contract(path)


def test_responses_are_read_and_are_no_part_of_the_contracts_meaning(tmp_path):
    plain = loaded(tmp_path, toy_yaml())
    told = loaded(tmp_path, toy_yaml() + "on_incident: damp\non_out_of_domain: stop\n")
    assert (plain.on_incident, plain.on_out_of_domain) == ("continue", "warn")
    assert (told.on_incident, told.on_out_of_domain) == ("damp", "stop")
    assert told.id == plain.id


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("on_incident: stop", "on_incident: expected one of continue, hold, damp, backup; got 'stop'"),
        ("on_out_of_domain: hold", "on_out_of_domain: expected one of warn, backup, stop; got 'hold'"),
    ],
)
def test_words_that_it_does_not_know_are_refused(tmp_path, line, error):
    with pytest.raises(ContractError, match=error):
        loaded(tmp_path, toy_yaml() + line + "\n")


def test_damping_is_refused_where_nothing_says_where_the_joints_are(tmp_path):
    measured = "field: position, joint: joint0, unit: rad"
    text = toy_yaml().replace(measured, "field: velocity, joint: joint0, unit: rad/s")
    text = text.replace(
        "derived: [{name: lean, sum: {roll: 2.0, q0: -1.0}}]", "derived: [{name: lean, sum: {roll: 2.0}}]"
    )
    with pytest.raises(ContractError, match="damp follows the measured pose, but the frame does not measure"):
        loaded(tmp_path, text + "on_incident: damp\n")


def test_schema_knows_the_words():
    keys = json_schema()["properties"]
    assert keys["on_incident"]["enum"] == ["continue", "hold", "damp", "backup"]
    assert keys["on_out_of_domain"]["enum"] == ["warn", "backup", "stop"]
