"""From a rosbag to transitions: aligns topics by stamp to the control period, and cuts where an episode ends.

Each message of the contract's trigger begins a period. Other inputs are held: the newest one that is not later than the
period's stamp plus `max_skew`, and not older than its `max_age`. The action is the command that answers the period
(stamped in it), else the one before where that is not older than the driver's time-out. Nothing waits for ever: what is
`WINDOW` behind the newest stamp is decided on. Everything that is left out is counted.
"""

from __future__ import annotations

import heapq
import warnings
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.bags.blocks import BlockReader, command_blocks, input_blocks, place_blocks
from ssql_ros.bags.definitions import BagError
from ssql_ros.bags.reader import TopicInfo, UnfinishedBagWarning, raw_messages, topics_of
from ssql_ros.spec import Contract, ContractError, ObservationAssembler
from ssql_ros.spec.contract import JOINT_STATE
from ssql_ros.spec.messages import CommandReader, InputReader, stamp_of
from ssql_ros.spec.observation import NANOSECONDS
from ssql_ros.spec.serialised import reader_of
from ssql_ros.transitions import REMEMBERED, Reward

WINDOW = round(0.5 * NANOSECONDS)
# A step back by more than this is a clock that was set, or a simulation begun anew; by less, a late message.
JUMP = 4 * WINDOW
COMMAND, PLACE = "command", "place"
BLOCK = 4096  # messages read at once


def match_topics(contract: Contract, topics: Mapping[str, TopicInfo], reward: Reward | None) -> dict[str, list[str]]:
    """Return what each topic of a bag is to the contract: names of inputs, COMMAND, PLACE.

    A contract's topic is relative; in a bag it stands with its namespace.

    Raises:
        BagError: a topic that is needed is not there, there are several, or it is of another type; the text lists what
            the bag has.
    """
    needed = {name: contract.inputs[name] for name in contract.observed_inputs}
    roles: dict[str, list[str]] = {}
    wanted = [(name, source.topic, source.type) for name, source in needed.items()]
    wanted.append((COMMAND, contract.commanded.topic, JOINT_STATE))
    if reward is not None:
        source = contract.inputs[reward.input]
        wanted.append((PLACE, source.topic, source.type))
    for role, topic, kind in wanted:
        found = [name for name in topics if name == topic or name.endswith(f"/{topic.lstrip('/')}")]
        if len(found) != 1:
            have = ", ".join(sorted(topics)) or "no topic"
            raise BagError(
                f"expected one topic {topic!r} for the contract's {role}, found {len(found)}; the bag has {have}"
            )
        if topics[found[0]].type != kind:
            raise BagError(f"{found[0]}: expected type {kind}, the bag has {topics[found[0]].type}")
        roles.setdefault(found[0], []).append(role)
    return roles


@dataclass
class _Held:
    """Stamped values of one topic, in the order of stamps."""

    stamps: list[int]
    values: list[np.ndarray]

    def add(self, stamp: int, value: np.ndarray) -> bool:
        """Put in a value; return False where its stamp is there already."""
        if not self.stamps or stamp > self.stamps[-1]:
            self.stamps.append(stamp)
            self.values.append(value)
            return True
        at = bisect_right(self.stamps, stamp)
        if self.stamps[at - 1] == stamp and at:
            return False
        insort(self.stamps, stamp)
        self.values.insert(at, value)
        return True

    def until(self, stamp: int) -> tuple[int, np.ndarray] | None:
        """Return the newest value not later than `stamp`; forget what is older than that."""
        at = bisect_right(self.stamps, stamp)
        if not at:
            return None
        if at > 1:
            del self.stamps[: at - 1], self.values[: at - 1]
        return self.stamps[0], self.values[0]


class Converter:
    """Makes rows (see dataset.transition_columns) of messages in any order that is not too far off.

    Args:
        reward: None: rewards are 0.
        sink: takes each row.

    Attributes:
        counts: rows, episodes, incidents, periods, and what was left out: duplicates, late, unreadable, unanswered
            (periods without an action), unobserved (without an input), after_incident, clock_jumps.
    """

    def __init__(self, contract: Contract, reward: Reward | None, sink: Callable[[dict[str, Any]], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._contract, self._reward, self._sink = contract, reward, sink
        self._period = round(contract.control_period * NANOSECONDS)
        self._skew = round(contract.observed.max_skew * NANOSECONDS)
        self._timeout = round(contract.command_timeout * NANOSECONDS)
        self._trigger = contract.observed.trigger
        self._others = [name for name in contract.observed_inputs if name != self._trigger]
        self._max_age = {name: round(contract.inputs[name].max_age * NANOSECONDS) for name in contract.inputs}
        self._assembler = ObservationAssembler(contract)
        self._episode = -1
        self._newest = 0
        self._clear()

    def _clear(self) -> None:
        self._frames: list[int] = []
        self._triggers: dict[int, np.ndarray] = {}
        self._held = {name: _Held([], []) for name in (*self._others, COMMAND, PLACE)}
        self._done: int | None = None
        self._before: dict[str, Any] | None = None
        self._actions: list[np.ndarray] = []
        self._ended = False

    def feed(self, role: str, stamp: int, values: np.ndarray) -> None:
        """Take in one message: of an input by name, a command's action, or what the reward reads."""
        if stamp < self._newest - JUMP:
            self.finish()
            self.counts["clock_jumps"] += 1
            self._newest = stamp
        if self._done is not None and stamp <= self._done and role == self._trigger:
            self.counts["late"] += 1
            return
        self._newest = max(self._newest, stamp)
        if role == self._trigger:
            if stamp in self._triggers:
                self.counts["duplicates"] += 1
                return
            self._triggers[stamp] = values
            heapq.heappush(self._frames, stamp)
        elif not self._held[role].add(stamp, values):
            if role == COMMAND:
                # The newest command for one observation is what the robot went on with.
                held = self._held[role]
                held.values[bisect_right(held.stamps, stamp) - 1] = values
            else:
                self.counts["duplicates"] += 1
        while self._frames and self._newest - self._frames[0] > WINDOW:
            self._decide(heapq.heappop(self._frames))

    def finish(self) -> None:
        """Decide on what is left, as nothing more will come before a new beginning."""
        while self._frames:
            self._decide(heapq.heappop(self._frames))
        self._clear()

    def _decide(self, stamp: int) -> None:
        """Judge one period: it ends the row before it, and begins another."""
        self._done = stamp
        trigger, before = self._triggers.pop(stamp), self._before
        self._before = None
        self.counts["periods"] += 1
        episode = self._assembler.episode
        for name in self._others:
            reading = self._held[name].until(stamp + self._skew)
            if reading is None or stamp - reading[0] > self._max_age[name]:
                self.counts["unobserved"] += 1
                self._actions.clear()
                return
            # Held to this period: the assembler joins what has one stamp.
            self._assembler.read(name, stamp, 0.0, reading[1])
        self._assembler.read(self._trigger, stamp, 0.0, trigger)
        if self._assembler.episode != episode:
            self._ended = False
            self._actions.clear()
            before = None
        if self._ended:
            self.counts["after_incident"] += 1
            return
        observation, margin = self._assembler.vector(), self._contract.margin(self._assembler.frame)[0]
        place = self._place(stamp)
        if before is not None and stamp - before["stamp"] <= 1.5 * self._period:
            self._emit(before, observation, margin > 0.0, place)
        elif before is not None:
            self._actions.clear()
        self._ended = margin > 0.0
        command = self._held[COMMAND].until(stamp + self._period // 2)
        if command is None or stamp - command[0] > self._timeout or (self._reward is not None and place is None):
            self.counts["unanswered"] += not self._ended
            self._actions.clear()
            return
        self._assembler.executed(command[1])
        if not self._ended:
            self._before = {
                "stamp": stamp,
                "observation": observation,
                "action": command[1],
                "margin": margin,
                "place": place,
                "first": before is None,
            }

    def _place(self, stamp: int) -> np.ndarray | None:
        if self._reward is None:
            return None
        found = self._held[PLACE].until(stamp + self._skew)
        limit = self._max_age[self._reward.input]
        return None if found is None or stamp - found[0] > limit else found[1]

    def _emit(self, before: dict[str, Any], following: np.ndarray, incident: bool, place: np.ndarray | None) -> None:
        self._actions = [before["action"], *self._actions][:REMEMBERED]
        reward = 0.0
        if self._reward is not None:
            if place is None:
                self.counts["unanswered"] += 1
                return
            reward = self._reward(before["place"], place, self._actions)
        if before["first"]:
            self._episode += 1
            self.counts["episodes"] += 1
        self.counts["rows"] += 1
        self.counts["incidents"] += incident
        self._sink(
            {
                "observation": before["observation"],
                "action": before["action"],
                "reward": reward,
                "following": following,
                "margin": before["margin"],
                "incident": incident,
                "terminal": incident,
                "episode": self._episode,
                "stamp": before["stamp"],
            }
        )


def convert(
    bags: Iterable[Path],
    contract: Contract,
    reward: Reward | None,
    sink: Callable[[dict[str, Any]], None],
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Counter[str], list[str]]:
    """Feed bags to a converter; return its counts, and what was wrong with files and messages, in words.

    Args:
        sink: takes each row.
        progress: told how many messages were read since.

    Raises:
        BagError: a bag is not there, has no readable message, or lacks a topic that the contract needs.
    """
    problems: list[str] = []
    converter = Converter(contract, reward, sink)
    for bag in bags:
        try:
            roles = match_topics(contract, topics_of(bag), reward)
        except BagError as error:
            raise BagError(error if str(bag) in str(error) else f"{bag}: {error}") from error
        topics = {
            topic: [_Topic(role, _reader(role, contract, reward), _block_reader(role, contract)) for role in found]
            for topic, found in roles.items()
        }
        count = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UnfinishedBagWarning)
            try:
                block: list[tuple[str, bytes]] = []
                for topic, _, _, data in raw_messages(bag, roles.keys()):
                    count += 1
                    block.append((topic, data))
                    if len(block) == BLOCK:
                        _feed(converter, topics, block, bag, problems)
                        block = []
                        progress(BLOCK)
            except BagError as error:
                problems.append(str(error))
            _feed(converter, topics, block, bag, problems)
        problems += [str(warning.message) for warning in caught if warning.category is UnfinishedBagWarning]
        progress(count % BLOCK)
        converter.finish()
        if not count:
            raise BagError(
                f"{bag}: no message of {', '.join(roles)} could be read" + "".join(f"; {p}" for p in problems)
            )
        converter.counts["messages"] += count
    return converter.counts, problems


@dataclass
class _Topic:
    """One role of a topic, and how its messages are read: one by one, and many at once."""

    role: str
    read: Callable[[bytes], tuple[int, np.ndarray]]
    read_block: BlockReader


def _feed(
    converter: Converter,
    topics: Mapping[str, list[_Topic]],
    block: Sequence[tuple[str, bytes]],
    bag: Path,
    problems: list[str],
) -> None:
    """Read a block of messages (topic, bytes) topic by topic, and feed them in the order they have."""
    data: dict[str, list[bytes]] = {}
    for topic, message in block:
        data.setdefault(topic, []).append(message)
    ready: dict[str, list[tuple[str, Iterator[tuple[int, np.ndarray] | None]]]] = {}
    for topic, messages in data.items():
        ready[topic] = []
        for one in topics[topic]:
            found = one.read_block(messages)
            if found is not None:
                ready[topic].append((one.role, zip(found[0].tolist(), found[1], strict=True)))
                continue
            slowly: list[tuple[int, np.ndarray] | None] = []
            for message in messages:
                try:
                    slowly.append(one.read(message))
                except ContractError as error:
                    slowly.append(None)
                    converter.counts["unreadable"] += 1
                    if converter.counts["unreadable"] == 1:
                        problems.append(f"{bag}: {topic}: {error}")
            ready[topic].append((one.role, iter(slowly)))
    for topic, _ in block:
        for role, readings in ready[topic]:
            reading = next(readings)
            if reading is not None:
                converter.feed(role, *reading)


def _block_reader(role: str, contract: Contract) -> BlockReader:
    if role == COMMAND:
        return command_blocks(contract)
    return place_blocks() if role == PLACE else input_blocks(contract, contract.inputs[role])


def _reader(role: str, contract: Contract, reward: Reward | None) -> Callable[[bytes], tuple[int, np.ndarray]]:
    """Return what reads one topic's bytes for a role: stamp in ns, and values."""
    if role == COMMAND:
        parse, command = reader_of(JOINT_STATE, _refuse), CommandReader(contract, contract.commanded.topic)

        def read_command(data: bytes) -> tuple[int, np.ndarray]:
            message = parse(data)
            return stamp_of(message), contract.clip(command.joint_state(message))

        return read_command
    name = reward.input if role == PLACE and reward is not None else role
    source = contract.inputs[name]
    parse = reader_of(source.type, _refuse)
    if role == PLACE:

        def read_place(data: bytes) -> tuple[int, np.ndarray]:
            message = parse(data)
            values = np.array([message.pose.pose.position.x])
            if not np.isfinite(values).all():
                raise ContractError(f"{source.topic}: position.x is not finite")
            return stamp_of(message), values

        return read_place
    reader = InputReader(contract, source)

    def read_input(data: bytes) -> tuple[int, np.ndarray]:
        message = parse(data)
        return stamp_of(message), reader(message)

    return read_input


def _refuse(data: bytes) -> Any:
    raise ContractError(f"expected little-endian CDR, got the header {data[:4].hex()}")
