"""What each topic of a bag is to a contract, and how its messages become stamped numbers: one by one, or in blocks."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssql_ros.bags.blocks import BlockReader, command_blocks, input_blocks, place_blocks
from ssql_ros.bags.definitions import BagError
from ssql_ros.bags.reader import TopicInfo
from ssql_ros.contract import Contract, ContractError
from ssql_ros.contract.fields import JOINT_STATE
from ssql_ros.contract.messages import CommandReader, InputReader, field_reader, stamp_of
from ssql_ros.contract.serialised import reader_of, taken_over
from ssql_ros.contract.topics import ACCOUNT_TOPIC, EPISODE_TOPIC, PROPOSAL_TOPIC
from ssql_ros.data.transitions import COMMAND, CONTEXT, ENDING, INTERVENTION, PLACE, Reward

ACCOUNT = "ssql_ros/msg/ShieldedAction"  # on ACCOUNT_TOPIC, and so on
PROPOSAL = "ssql_ros/msg/Proposal"
EPISODE = "ssql_ros/msg/Episode"

Reader = Callable[[bytes], tuple[int, np.ndarray]]


@dataclass(frozen=True)
class Role:
    """What a topic is to the contract.

    Attributes:
        name: of an input, or one of the constants above.
        place: of COMMAND, which of `Commanded.topics` it is, where each joint has its own; None: it has them all.
    """

    name: str
    type: str
    place: int | None = None


@dataclass(frozen=True)
class _Wanted:
    role: Role
    topic: str


def match_topics(
    contract: Contract, topics: Mapping[str, TopicInfo], reward: Reward | None, namespace: str | None = None
) -> dict[str, list[Role]]:
    """Return the roles of a bag's topics; topics without one are left out.

    A contract's topic is relative; in a bag it stands with a namespace, the same for all. Where nothing was recorded on
    the command topic, the shield's account says what was executed.

    Args:
        namespace: of the robot's topics; None: the one in which all that the contract needs is found.

    Raises:
        BagError: a topic that is needed is missing or of another type, or several namespaces have them all; the text
            lists what the bag has.
    """
    needed = [
        _Wanted(Role(name, contract.inputs[name].type), contract.inputs[name].topic) for name in _inputs(contract)
    ]
    if reward is not None:
        source = contract.inputs[reward.input]
        needed.append(_Wanted(Role(PLACE, source.type), source.topic))
    commanded = contract.commanded
    commands = [
        _Wanted(Role(COMMAND, commanded.type, place if commanded.apart else None), topic)
        for place, topic in enumerate(commanded.topics)
    ]
    account = [_Wanted(Role(COMMAND, ACCOUNT), ACCOUNT_TOPIC)]
    spaces = [f"/{namespace.strip('/')}".rstrip("/")] if namespace is not None else _namespaces(topics, needed)
    complete = []
    for space in spaces:
        told = commands if all(_name(space, wanted.topic) in topics for wanted in commands) else account
        if all(_name(space, wanted.topic) in topics for wanted in (*needed, *told)):
            complete.append((space, told))
    if len(complete) > 1:
        raise BagError(
            f"several robots: all that the contract needs is there under {_listed(s or '/' for s, _ in complete)}; "
            "say which with --namespace"
        )
    if not complete:
        missing = _fewest_missing(spaces, [*needed, *commands], topics)
        raise BagError(f"has no topic {missing}, which the contract needs; the bag has {_listed(topics)}")
    ((space, told),) = complete
    optional = [_Wanted(Role(CONTEXT, PROPOSAL), PROPOSAL_TOPIC), _Wanted(Role(ENDING, EPISODE), EPISODE_TOPIC)]
    takeovers = [topics.get(_name(space, topic)) for topic in commanded.takeover_topics]
    if any(
        takeover is not None and takeover.count for takeover in takeovers
    ):  # without an operator, accounts need not be read
        optional.append(_Wanted(Role(INTERVENTION, ACCOUNT), ACCOUNT_TOPIC))
    roles: dict[str, list[Role]] = {}
    for wanted in (*needed, *told, *optional):
        name = _name(space, wanted.topic)
        if name not in topics:
            continue
        if not topics[name].has(wanted.role.type):
            if wanted in optional:  # somebody else's topic of that name
                continue
            raise BagError(
                f"{name}: expected type {wanted.role.type}, the bag has {topics[name].type}{_advice(topics[name].type)}"
            )
        roles.setdefault(name, []).append(wanted.role)
    return roles


def _advice(kind: str) -> str:
    """Return what to do about messages that are not in the encoding of ROS 2."""
    if kind.endswith((" as ros1", " as ros1msg")):
        return ": a bag of ROS 1; `rosbags-convert` makes one of ROS 2 of it"
    if " as " in kind:
        return "; only messages serialised by ROS 2 (cdr) can be read: record the topics of ROS 2 themselves"
    return ""


def _inputs(contract: Contract) -> tuple[str, ...]:
    return contract.observed_inputs


def _name(space: str, topic: str) -> str:
    return topic if topic.startswith("/") else f"{space}/{topic}"


def _namespaces(topics: Iterable[str], needed: Iterable[_Wanted]) -> list[str]:
    """Return the namespaces in which any of the relative topics stands, the root first."""
    found = {""}
    for wanted in needed:
        if not wanted.topic.startswith("/"):
            found |= {name[: -len(wanted.topic) - 1] for name in topics if name.endswith(f"/{wanted.topic}")}
    return sorted(found)


def _fewest_missing(spaces: Iterable[str], needed: Iterable[_Wanted], topics: Iterable[str]) -> str:
    there, wanted = set(topics), list(needed)
    missing = [[name for one in wanted if (name := _name(space, one.topic)) not in there] for space in spaces]
    return _listed(sorted(missing, key=len)[0])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "no topic"


def reader_for(role: Role, contract: Contract, reward: Reward | None) -> Reader:
    """Return what reads the bytes of a message in its role: stamp in ns (0: not set), and values.

    The values of an input are its features, of COMMAND the action that was executed (n_action,), of PLACE the reward's
    fields, of CONTEXT the context (n_context,), of ENDING nothing, of INTERVENTION whether an operator had the robot.
    The function raises ContractError. Commands of which each joint has a topic are read by `ExecutedReader`.
    """
    if role.name == INTERVENTION:
        return _taken_over
    parse = reader_of(role.type, refuse)
    values = _values_of(role, contract, reward)

    def read(data: bytes) -> tuple[int, np.ndarray]:
        message = parse(data)
        return stamp_of(message), values(message)

    return read


def _values_of(role: Role, contract: Contract, reward: Reward | None) -> Callable[[Any], np.ndarray]:
    if role.name == COMMAND and role.type == ACCOUNT:
        return _executed(contract)
    if role.name == COMMAND:
        command = CommandReader(contract, contract.commanded.topic)
        return lambda message: contract.clip(command.joint_state(message))
    if role.name == PLACE:
        assert reward is not None
        return field_reader(role.type, reward.fields, contract.inputs[reward.input].topic)
    if role.name == CONTEXT:
        return _context(contract)
    if role.name == ENDING:
        return lambda message: np.empty(0)
    return InputReader(contract, contract.inputs[role.name])


def _executed(contract: Contract) -> Callable[[Any], np.ndarray]:
    """Return what reads the action that went to the robot from the shield's account."""

    def read(message: Any) -> np.ndarray:
        action = np.array(message.action if message.enforced else message.proposal)
        if action.shape != (contract.action_size,) or not np.isfinite(action).all():
            raise ContractError(
                f"{ACCOUNT_TOPIC}: expected {contract.action_size} finite numbers, got {action.tolist()}"
            )
        return contract.clip(action)

    return read


def _context(contract: Contract) -> Callable[[Any], np.ndarray]:
    def read(message: Any) -> np.ndarray:
        if message.contract_id and message.contract_id != contract.id:
            raise ContractError(f"{PROPOSAL_TOPIC}: made for contract {message.contract_id}, this is {contract.id}")
        return np.array(message.context, dtype=float)

    return read


def block_reader_for(role: Role, contract: Contract, reward: Reward | None) -> BlockReader | None:
    """Return what reads blocks of messages in this role; None where only `reader_for` does."""
    if role.name == COMMAND:
        return command_blocks(contract) if role.type == JOINT_STATE else None
    if role.name == PLACE:
        return place_blocks(reward.fields) if reward is not None else None
    return None if role.name in (CONTEXT, ENDING, INTERVENTION) else input_blocks(contract, contract.inputs[role.name])


def _taken_over(data: bytes) -> tuple[int, np.ndarray]:
    try:
        return stamp_of(reader_of(ACCOUNT, refuse)(data)), np.array([taken_over(data)])
    except struct.error as error:
        raise ContractError(f"{ACCOUNT_TOPIC}: {len(data)} bytes are no whole {ACCOUNT}: {error}") from error


def refuse(data: bytes) -> Any:
    """Raise ContractError: bytes are in another encoding than all that is read here."""
    raise ContractError(f"expected little-endian CDR, got the header {data[:4].hex()}")
