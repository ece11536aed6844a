"""What the learner hears of a robot: every topic of its contract, as bytes, read as a bag's are, made into rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from ssql_ros.bags.executed import ExecutedReader
from ssql_ros.bags.roles import EPISODE, PROPOSAL, Reader, Role, reader_for, refuse
from ssql_ros.contract import Contract, ContractError
from ssql_ros.contract.messages import stamp_of
from ssql_ros.contract.serialised import reader_of
from ssql_ros.contract.topics import EPISODE_TOPIC, PROPOSAL_TOPIC
from ssql_ros.data.transitions import COMMAND, CONTEXT, ENDING, PLACE, PROPOSED, Reward, TransitionAssembler
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.recorded_topic import message_type

# Best effort hears every publisher, reliable or not, and holds nobody up. Deep: what waits here while the processor is
# busy is not lost.
HEARD = QoSProfile(depth=2000, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


class LearnerInputs:
    """Subscribes to what a contract and a reward name, and hands over rows.

    Args:
        node: whose subscriptions they are.
        n_context: numbers of the behaviour policy's context; rows where it is not known are left out.
        keep: takes each row: the columns of live_buffer.Chunk by name.

    Attributes:
        heard: messages, by topic.
        counts: kept, without_context (rows), unreadable (messages).
    """

    def __init__(
        self,
        node: Any,
        contract: Contract,
        reward: Reward,
        n_context: int,
        guard: Guard,
        keep: Callable[[dict[str, Any]], None],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self._node, self._keep, self._n_context = node, keep, n_context
        self._aligner = TransitionAssembler(contract, reward, self._on_row, n_context, with_proposals=True)
        self._before: int | None = None  # episode of the row before, None after one that was left out
        # By topic: its type, and what takes its bytes.
        topics: dict[str, tuple[str, list[Callable[[bytes], None]]]] = {}

        def hear(topic: str, kind: str, take: Callable[[bytes], None]) -> None:
            topics.setdefault(topic, (kind, []))[1].append(take)

        def feed(topic: str, role: Role) -> None:
            read = reader_for(role, contract, reward)
            # As `conversion` does with the time at which a bag's message came.
            clock = node.get_clock()
            hear(topic, role.type, lambda data: self._aligner.feed(role.name, *read(data), clock.now().nanoseconds))

        for name in contract.observed_inputs:
            source = contract.inputs[name]
            feed(source.topic, Role(name, source.type))
        place = contract.inputs[reward.input]
        feed(place.topic, Role(PLACE, place.type))
        told = contract.commanded

        def feed_commands(topics: tuple[str, ...], role: str) -> None:
            executed, clock = ExecutedReader(contract, topics, reader_of(told.type, refuse)), node.get_clock()

            def take(place: int, data: bytes) -> None:
                command = executed(place, data, time.monotonic())
                if command is not None:
                    self._aligner.feed(role, *command, clock.now().nanoseconds)

            for place, topic in enumerate(topics):
                hear(topic, told.type, partial(take, place))

        feed_commands(told.topics, COMMAND)
        self.needed = list(topics)
        feed(EPISODE_TOPIC, Role(ENDING, EPISODE))
        # First whether the proposal is one of this contract at all.
        proposed = _proposal_reader(contract, n_context)
        hear(PROPOSAL_TOPIC, PROPOSAL, lambda data: self._aligner.feed(PROPOSED, *proposed(data)))
        if n_context:
            feed(PROPOSAL_TOPIC, Role(CONTEXT, PROPOSAL))
        if told.topic != told.raw_topic:
            feed_commands(told.raw_topics, PROPOSED)
        for topic, (kind, takers) in topics.items():
            receive = guard(topic, self._receiver(topic, takers))
            node.create_subscription(message_type(kind), topic, receive, HEARD, raw=True)

    def _receiver(self, topic: str, takers: list[Callable[[bytes], None]]) -> Callable[[bytes], None]:
        def receive(data: bytes) -> None:
            self.heard[topic] += 1
            try:
                for take in takers:
                    take(data)
            except ContractError as error:
                self.counts["unreadable"] += 1
                self._node.get_logger().error(f"{topic}: {error}", throttle_duration_sec=5.0)

        return receive

    def _on_row(self, row: dict[str, Any]) -> None:
        none = np.zeros(0)
        context, next_context = row.get("context", none), row.get("next_context", none)
        if row["incident"]:
            next_context = np.nan_to_num(next_context)  # nothing follows: it does not count
        if not (np.isfinite(context).all() and np.isfinite(next_context).all()):
            self.counts["without_context"] += 1
            self._before = None
            return
        first, self._before = row["episode"] != self._before, row["episode"]
        self.counts["kept"] += 1
        self._keep({**row, "context": context, "next_context": next_context, "first": first})

    def finish(self) -> None:
        """Make rows of what is there: nothing more will come."""
        self._aligner.finish()

    def without_context(self) -> str:
        """Return that transitions lack the behaviour policy's context, where most do, or an empty text."""
        account = self.account
        without = account["without_context"]
        if not without or without < account["kept"]:
            return ""
        return (
            f"{without} transitions without the behaviour policy's context, which joint_proposals tells: none are kept"
        )

    @property
    def account(self) -> dict[str, int]:
        """Return what became of periods and messages, by name."""
        return {"kept": 0, "without_context": 0, "unreadable": 0, "resets": 0, **self._aligner.counts, **self.counts}

    @property
    def first_reset(self) -> str:
        """Return when and how the robot was put elsewhere first, in words; empty: it was not."""
        return self._aligner.first_reset

    def missing(self) -> str:
        """Return in words what is needed and was never heard; empty: nothing."""
        silent = [topic for topic in self.needed if not self.heard[topic]]
        if self._n_context and not self.heard[PROPOSAL_TOPIC]:
            silent.append(PROPOSAL_TOPIC)
        counted = (f"{topic} ({self._node.count_publishers(topic)} publishers)" for topic in silent)
        return f"waiting for {', '.join(counted)}" if silent else ""


def _proposal_reader(contract: Contract, n_context: int) -> Reader:
    def refuse(data: bytes) -> Any:
        raise ContractError(f"expected little-endian CDR, got the header {data[:4].hex()}")

    parse = reader_of(PROPOSAL, refuse)

    def read(data: bytes) -> tuple[int, np.ndarray]:
        message = parse(data)
        action, context = np.asarray(message.action, float), np.asarray(message.context, float)
        if message.contract_id not in ("", contract.id) or action.shape != (contract.action_size,):
            raise ContractError(
                f"expected {contract.action_size} numbers for contract {contract.id}, got {len(action)} for "
                f"{message.contract_id!r}"
            )
        if n_context and len(context) != n_context:
            raise ContractError(f"expected a context of {n_context} numbers, got {len(context)}")
        if not (np.isfinite(action).all() and np.isfinite(context).all()):
            raise ContractError("action or context is not finite")
        return stamp_of(message), action

    return read
