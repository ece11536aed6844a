"""Contracts that are made to cost time or memory, or to end the program, are refused in a few words."""

from pathlib import Path

import pytest

from bench.fuzz_base import everything
from ssql_ros.contract import ContractError
from ssql_ros.contract.contract_file import read_contract
from ssql_ros.contract.schema import MAX_BYTES, parse_yaml, read_yaml

LAUGHS = ", ".join(["&a0 [x, x]", *(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"robot: [{LAUGHS}]", "more than 200000 values"),
        ("robot: " + "[" * 20_000, "nests more than 32 levels deep"),
        ("robot: " + "{a: " * 20_000, "nests more than 32 levels deep"),
        ("".join(f"{' ' * i}a:\n" for i in range(100)), "nests more than 32 levels deep"),
    ],
)
def test_yaml_that_grows_or_nests_is_given_up_on(text, message):
    with pytest.raises(ContractError, match=message) as caught:
        parse_yaml(text.encode(), Path("f"))
    assert len(str(caught.value)) < 300


def test_a_file_without_end_is_not_read(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 10))
    with pytest.raises(ContractError, match="at most"):
        read_yaml(path)
    with pytest.raises(ContractError, match="at most"):
        read_yaml(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("control_period",), 2**20000, "expected a finite number, got a whole number of 20001 bits"),
        (("control_period",), 5e-324, "expected a time from 1e-09 to 1e"),
        (("observation", "episode_gap"), 1e300, "expected a time from 1e-09 to 1e"),
        (("robot",), ["x" * 10**6] * 1000, "expected a name, got"),
        (
            ("observation", "vector"),
            [{"block": "past_frames", "count": 10**12}],
            "numbers, at most 262144",
        ),
        (("inputs",), {1: {"topic": "t", "type": "std_msgs/msg/Float64"}}, "expected names of inputs, got 1"),
    ],
    ids=["digits", "period", "gap", "robot", "count", "name"],
)
def test_values_that_no_robot_has_are_refused_in_a_few_words(keys, value, message):
    document = everything()
    holder = document
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    with pytest.raises(ContractError, match=message) as caught:
        read_contract(document, "f")
    assert len(str(caught.value)) < 1500


def test_a_table_of_sums_is_no_larger_than_can_be_checked():
    document = everything()
    document["action"]["elements"] = [{"name": f"x{i}", "low": -1.0, "high": 1.0} for i in range(600)]
    document["action"]["joints"] = [{"name": f"j{i}", "sum": {f"x{i}": 1.0}} for i in range(600)]
    with pytest.raises(ContractError, match="600 sums of 600 numbers, at most 262144"):
        read_contract(document, "f")
