"""From rosbags to transitions: reads bags block by block, and feeds what they hold to the alignment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.bags.blocks import BlockReader
from ssql_ros.bags.definitions import BagError
from ssql_ros.bags.executed import ExecutedReader
from ssql_ros.bags.reader import Survey, survey
from ssql_ros.bags.roles import CONTEXT, INTERVENTION, Reader, Role, block_reader_for, match_topics, reader_for, refuse
from ssql_ros.contract import Contract, ContractError
from ssql_ros.contract.serialised import reader_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.data.transitions import RECOVERY, Reward, TransitionAssembler

BLOCK = 4096  # messages read at once

Stamped = tuple[str, int, bytes]  # topic, log time in ns, CDR


@dataclass(frozen=True)
class Conversion:
    """What came of bags.

    Attributes:
        counts: see `TransitionAssembler`; messages: those that were read.
        problems: what could not be read, in words; empty: nothing was wrong.
        first_reset: see `TransitionAssembler`.
    """

    counts: Counter[str]
    problems: list[str] = field(default_factory=list)
    first_reset: str = ""


def convert(
    bags: Iterable[Path | Survey],
    contract: Contract,
    reward: Reward | None,
    sink: Callable[[dict[str, Any]], None],
    progress: Callable[[int], None] = lambda _: None,
    namespace: str | None = None,
    n_context: int = 0,
    recovery: float = RECOVERY,
    interventions: bool = False,
) -> Conversion:
    """Make rows of bags, one after the other. What of them cannot be read is told, and the rest is used.

    Args:
        sink: takes each row (see dataset.transition_columns).
        progress: told how many messages were read since.
        namespace: see `roles.match_topics`.
        n_context: see `context_size`.
        recovery: s, interventions: see `TransitionAssembler`, `has_interventions`.

    Raises:
        BagError: none of the bags could be used; the text says why, of each.
    """
    problems: list[str] = []
    aligner = TransitionAssembler(contract, reward, sink, n_context, recovery, with_interventions=interventions)
    used = 0
    for bag in bags:
        try:
            _convert_one(bag, contract, reward, aligner, problems, progress, namespace)
            used += 1
        except BagError as error:
            path = bag.path if isinstance(bag, Survey) else bag
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
        aligner.finish()
    if not used:
        raise BagError("; ".join(problems) or "no bag was given")
    return Conversion(aligner.counts, problems, aligner.first_reset)


def context_size(
    bags: Iterable[Survey], contract: Contract, reward: Reward | None, namespace: str | None = None
) -> int:
    """Return how many numbers of context the proposals in bags carry, by the first that has any; 0: none."""
    for bag in bags:
        try:
            roles = match_topics(contract, bag.topics, reward, namespace)
        except BagError:
            continue  # the conversion tells
        for topic, found in roles.items():
            for role in found:
                if role.name == CONTEXT and (size := _first_size(bag, topic, reader_for(role, contract, reward))):
                    return size
    return 0


def has_interventions(
    bags: Iterable[Survey], contract: Contract, reward: Reward | None, namespace: str | None = None
) -> bool:
    """Tell whether an operator could have had the robot in any of the bags."""
    for bag in bags:
        try:
            roles = match_topics(contract, bag.topics, reward, namespace)
        except BagError:
            continue  # the conversion tells
        if any(role.name == INTERVENTION for found in roles.values() for role in found):
            return True
    return False


def _first_size(seen: Survey, topic: str, read: Reader) -> int:
    for _, _, _, data in seen.bag.raw_messages({topic}) if seen.bag is not None else ():
        try:
            return len(read(data)[1])
        except ContractError:
            continue
    return 0


def _convert_one(
    bag: Path | Survey,
    contract: Contract,
    reward: Reward | None,
    aligner: TransitionAssembler,
    problems: list[str],
    progress: Callable[[int], None],
    namespace: str | None,
) -> None:
    seen = bag if isinstance(bag, Survey) else survey(bag)
    if not seen.topics:
        raise BagError(seen.problem or f"{seen.path}: is empty")
    roles = match_topics(contract, seen.topics, reward, namespace)
    told = contract.commanded
    executed = ExecutedReader(contract, told.topics, reader_of(told.type, refuse))
    topics = {topic: [_topic(role, executed, contract, reward) for role in found] for topic, found in roles.items()}
    assert seen.bag is not None
    for topic, found in roles.items():
        for kind, count in seen.topics[topic].types.items():
            if kind != found[0].type:
                problems.append(
                    f"{seen.path}: {topic}: {count} messages of type {kind} are not used, only those of {found[0].type}"
                )
    types = {topic: found[0].type for topic, found in roles.items()}
    feeder = _Feeder(aligner, topics, seen.path, problems)
    count = 0
    block: list[Stamped] = []
    for topic, kind, time, data in seen.bag.raw_messages(roles.keys()):
        if kind != types[topic]:
            continue
        block.append((topic, time, data))
        if len(block) == BLOCK:
            feeder.feed(block)
            count += BLOCK
            progress(BLOCK)
            block = []
    feeder.feed(block)
    count += len(block)
    # Topics that nobody needs are passed over: all of the bag is done.
    progress(len(block) + sum(topic.count for topic in seen.topics.values()) - count)
    # What reading found is told by the bag's files too.
    problems += [seen.problem] if seen.problem else []
    problems += [told for file in seen.bag.files for told in file.problems if told not in seen.problem]
    aligner.counts["messages"] += count


@dataclass
class _Topic:
    """One role of a topic, and how its messages are read: one by one, and many at once where that can be.

    Attributes:
        read: is given the time too at which a message came, s; None where it completes nothing yet.
    """

    role: str
    read: Callable[[bytes, float], tuple[int, np.ndarray] | None]
    read_block: BlockReader | None


def _topic(role: Role, executed: ExecutedReader, contract: Contract, reward: Reward | None) -> _Topic:
    if (place := role.place) is not None:
        return _Topic(role.name, partial(executed, place), None)
    read = reader_for(role, contract, reward)
    return _Topic(role.name, lambda data, _now: read(data), block_reader_for(role, contract, reward))


class _Feeder:
    """Reads blocks of messages topic by topic, and feeds them in the order that they have in the bag."""

    def __init__(
        self, aligner: TransitionAssembler, topics: Mapping[str, list[_Topic]], bag: Path, problems: list[str]
    ) -> None:
        self._aligner, self._topics, self._bag, self._problems = aligner, topics, bag, problems
        self._told: set[str] = set()

    def feed(self, block: Sequence[Stamped]) -> None:
        """Take in a block of messages in the order of log time."""
        by_topic: dict[str, list[tuple[int, bytes]]] = {}
        for topic, log_time, message in block:
            by_topic.setdefault(topic, []).append((log_time, message))
        ready = {
            topic: [(one.role, self._readings(topic, one, messages)) for one in self._topics[topic]]
            for topic, messages in by_topic.items()
        }
        for topic, log_time, _ in block:
            for role, readings in ready[topic]:
                reading = next(readings)
                if reading is not None:
                    self._give(role, reading, log_time)

    def _give(self, role: str, reading: tuple[int, np.ndarray], log_time: int) -> None:
        """Hand one reading on to the alignment. `log_time`: ns, of the recorder; messages come in the order of it."""
        stamp, values = reading
        try:
            self._aligner.feed(role, stamp, values, log_time)
        except ContractError as error:  # it contradicts another of the same stamp
            if role not in self._told:
                self._told.add(role)
                self._problems.append(f"{self._bag}: {error} The first of such; none of them is used")

    def _readings(
        self, topic: str, one: _Topic, messages: list[tuple[int, bytes]]
    ) -> Iterator[tuple[int, np.ndarray] | None]:
        """Return (stamp, values) of each message; None for one that cannot be read, or completes nothing yet."""
        found = one.read_block([message for _, message in messages]) if one.read_block is not None else None
        if found is not None:
            return zip(found[0].tolist(), found[1], strict=True)
        # Each is read in its turn: those of several topics may make one command.
        return (self._reading(topic, one, message, log_time) for log_time, message in messages)

    def _reading(self, topic: str, one: _Topic, message: bytes, log_time: int) -> tuple[int, np.ndarray] | None:
        try:
            return one.read(message, log_time / NANOSECONDS)
        except ContractError as error:
            self._aligner.counts["unreadable"] += 1
            if topic not in self._told:
                self._told.add(topic)
                self._problems.append(f"{self._bag}: {topic}: {error}; the first that is unreadable")
            return None
