"""Commands of which each joint has a topic of its own: assembled whole, in whatever order their numbers come."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.contract import Contract, ContractError, load_contract
from ssql_ros.contract.command_assembly import CommandAssembly
from ssql_ros.contract.message_kinds import Header, Stamp, Values
from ssql_ros.contract.messages import CommandReader
from support.toy_robot import toy_contract, toy_yaml

TOGETHER = "topic: joint_commands, type: sensor_msgs/msg/JointState"
APART = "topic: '{joint}_controller/command', type: std_msgs/msg/Float64"
JOINTS = 3
PERIOD, TIMEOUT = 0.02, 0.04


def contract_of(folder: Path, text: str) -> Contract:
    path = folder / "toy.yaml"
    path.write_text(text)
    return load_contract(path)


@pytest.fixture(scope="module")
def apart(tmp_path_factory) -> Contract:
    return contract_of(tmp_path_factory.mktemp("apart"), toy_yaml(JOINTS).replace(TOGETHER, APART))


def number(value: float) -> Values:
    return Values(Header(Stamp(0, 0)), {"data": value})


class Heard:
    """An assembly, and what it made of what."""

    def __init__(self, contract: Contract) -> None:
        self.assembly = CommandAssembly(contract, contract.commanded.raw_topics)
        self.read = CommandReader(contract, "raw")

    def take(self, joint: int, value: float, now: float) -> list[float] | str | None:
        """The command, or what was wrong, or None."""
        try:
            whole = self.assembly.take(joint, lambda: number(value), now)
        except ContractError as error:
            return str(error)
        return None if whole is None else self.read.joint_command(whole).tolist()


def test_each_joint_has_its_topics_and_the_vectors_mean_the_same(apart):
    told = apart.commanded
    assert told.topics == ("joint0_controller/command", "joint1_controller/command", "joint2_controller/command")
    assert told.raw_topics[1] == "joint1_controller/command_raw"
    assert told.takeover_topics[2] == "joint2_controller/command_takeover"
    assert apart.id == toy_contract(JOINTS).id


def test_names_of_topics_may_be_in_small_letters(tmp_path):
    text = toy_yaml(JOINTS).replace(TOGETHER, APART.replace("{joint}", "/hand/{joint_lower}"))
    told = contract_of(tmp_path, text.replace("joint1", "rh_FFJ0")).commanded
    assert told.topics[1] == "/hand/rh_ffj0_controller/command"
    assert told.joint_names[1] == "rh_FFJ0"


def test_the_action_of_the_how_to_loads(tmp_path):
    page = Path(__file__).resolve().parents[2] / "docs/how_to/shield_my_controller.md"
    (action,) = re.findall(r"```yaml\n(action:.*?)```", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"action:.*?(?=incident:)", lambda _: action, toy_yaml(2), flags=re.DOTALL)
    told = contract_of(tmp_path, text).commanded
    assert told.topics[0] == "/sh_rh_ffj3_position_controller/command"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("joint1", "1joint"), "'1joint_controller/command', of joint '1joint', is no name of a topic"),
        (("{joint}", "{joint_lower}"), "'joint1_controller/command' would be that of 2 joints"),
        (("std_msgs/msg/Float64", "sensor_msgs/msg/JointState"), "are for a std_msgs/msg/Float64"),
        (("{joint}", "all"), "has parts, and no joints; with {joint} in its topic, each joint has one"),
    ],
)
def test_topics_that_do_not_give_each_joint_its_own_are_refused(tmp_path, change, says):
    text = toy_yaml(JOINTS).replace(TOGETHER, APART)
    if "lower" in change[1]:
        text = text.replace("joint2", "JOINT1")
    if "all" in change[1]:
        text = text.replace("field: position, unit: rad}\n  joints", "unit: rad}\n  joints")
    with pytest.raises(ContractError, match="action") as refused:
        contract_of(tmp_path, text.replace(*change))
    assert says in str(refused.value)


# Which joint, and how long after the message before, s.
MESSAGES = st.lists(st.tuples(st.integers(0, JOINTS - 1), st.floats(0.0, 0.03)), max_size=60)


@given(MESSAGES)
def test_a_command_is_of_the_newest_numbers_none_of_them_late_or_used_before(apart, messages):
    heard, now = Heard(apart), 100.0
    newest, used = dict[int, tuple[float, float]](), set[float]()
    for value, (joint, wait) in enumerate(messages):
        now += wait
        newest[joint] = (float(value), now)
        made = heard.take(joint, float(value), now)
        if isinstance(made, list):
            assert made == [newest[one][0] for one in range(JOINTS)]
            assert all(now - time <= TIMEOUT for _, time in newest.values())
            assert not used & set(made)
            used |= set(made)


@given(MESSAGES, st.lists(st.permutations(range(JOINTS)), min_size=4, max_size=8), st.lists(st.booleans(), min_size=8))
def test_whole_commands_are_found_again_whatever_came_before(apart, before, rounds, twice):
    """In any order, some numbers twice: from the third on, every command of a sender is made whole and at once."""
    heard, now = Heard(apart), 100.0
    for joint, wait in before:
        now += wait
        heard.take(joint, -1.0, now)
    for i, order in enumerate(rounds):
        now += PERIOD
        made = []
        for joint in order:
            now += 0.0005
            for _ in range(1 + (twice[i] and joint != order[-1])):
                made.append(heard.take(joint, float(10 * i + joint), now))
        if i >= 3:
            assert made[-1] == [float(10 * i + joint) for joint in range(JOINTS)]
            assert made[:-1] == [None] * (len(made) - 1)


@given(MESSAGES)
def test_a_joint_is_called_silent_only_after_the_time_out_and_while_others_are_heard(apart, messages):
    heard, now = Heard(apart), 100.0
    last = dict.fromkeys(range(JOINTS), -math.inf)
    for joint, wait in messages:
        now += wait
        last[joint] = now
        made = heard.take(joint, 0.0, now)
        if isinstance(made, str):
            named = [one for one in range(JOINTS) if f"joint{one}_controller/command_raw" in made]
            assert named
            assert all(now - last[one] > TIMEOUT for one in named)


def test_a_silent_joint_is_named_until_it_speaks_again(apart):
    heard, now = Heard(apart), 100.0
    for _ in range(10):
        now += PERIOD
        made = [heard.take(joint, 1.0, now) for joint in (0, 2)]
    says = "commands come on 3 topics, one for each joint; nothing for 0.04 s on joint1_controller/command_raw"
    assert made == [says, says]
    assert heard.take(1, 2.0, now) == [1.0, 2.0, 1.0]
    # After all were silent, all begin anew.
    assert heard.take(0, 1.0, now + 10.0) is None


def test_bytes_that_are_no_number_leave_the_command_open_and_name_the_topic(apart):
    heard = Heard(apart)
    assert heard.take(0, 1.0, 100.0) is None
    assert heard.take(0, math.nan, 100.001) == "joint0_controller/command_raw: is nan, expected a finite number"
    assert heard.take(1, 1.0, 100.002) is None
    assert heard.take(2, 1.0, 100.003) is None
    assert heard.take(0, 3.0, 100.004) == [3.0, 1.0, 1.0]
