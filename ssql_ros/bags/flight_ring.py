"""The newest messages of a graph in memory: as long as is asked for, and no more bytes than are allowed."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

# B, what Python holds of a message beside its data: the tuple, its times, its places in queues.
MESSAGE_BYTES = 250
# Of a latched topic that keeps many: so many are carried at most.
MOST_CARRIED = 100


class Message(NamedTuple):
    """One message. `time`: ns of the steady clock; `received`: ns of the system clock, as bags have it; `data`: CDR."""

    topic: str
    time: int
    received: int
    data: bytes


class Ring:
    """Holds messages until they are older than is asked for, or memory is full: then the oldest go first.

    Of a latched topic the last messages before that stay, so that what they say is still known. Messages may come a
    little out of order.

    Attributes:
        bytes: what is held, those that are carried included.
        dropped: messages that went for lack of memory.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = self.dropped = 0
        self._max_bytes = max_bytes
        self._messages: deque[Message] = deque()
        self._carried: dict[str, deque[Message]] = {}
        self._dropped_times: deque[int] = deque()

    def __len__(self) -> int:
        """Return how many messages are held, without those that are carried."""
        return len(self._messages)

    @property
    def begin(self) -> int | None:
        """Return the time of the oldest message, None where there is none."""
        return self._messages[0].time if self._messages else None

    def carry(self, topic: str, most: int) -> None:
        """Keep the last `most` messages of a topic, however old they are."""
        self._carried[topic] = deque(maxlen=max(1, min(most, MOST_CARRIED)))

    def put(self, message: Message) -> None:
        """Take in a message."""
        self._messages.append(message)
        self.bytes += _size(message)
        while self.bytes > self._max_bytes and self._messages:
            self.dropped += 1
            self._dropped_times.append(self._messages[0].time)
            self._forget_oldest()

    def forget(self, horizon: int) -> None:
        """Let go of messages that are older than `horizon`."""
        while self._messages and self._messages[0].time < horizon:
            self._forget_oldest()
        while self._dropped_times and self._dropped_times[0] < horizon:
            self._dropped_times.popleft()

    def window(self, begin: int, end: int) -> list[Message]:
        """Return the messages from `begin` to `end`, both included, in the order of time."""
        return sorted((m for m in self._messages if begin <= m.time <= end), key=lambda message: message.time)

    def carried(self, begin: int) -> list[Message]:
        """Return what a subscriber that came at `begin` would have been given: the last messages of latched topics."""
        last = {topic: deque(kept, kept.maxlen) for topic, kept in self._carried.items()}
        for message in self._messages:
            if message.topic in last and message.time < begin:
                last[message.topic].append(message)
        return [message for kept in last.values() for message in kept]

    def short(self, begin: int) -> bool:
        """Tell whether messages from `begin` on went for lack of memory."""
        return bool(self._dropped_times) and self._dropped_times[-1] >= begin

    def missing(self, begin: int, end: int) -> int:
        """Return how many messages from `begin` to `end`, both included, went for lack of memory."""
        return sum(begin <= time <= end for time in self._dropped_times)

    def _forget_oldest(self) -> None:
        message = self._messages.popleft()
        kept = self._carried.get(message.topic)
        if kept is None:
            self.bytes -= _size(message)
            return
        if len(kept) == kept.maxlen:
            self.bytes -= _size(kept[0])
        kept.append(message)


def _size(message: Message) -> int:
    return len(message.data) + MESSAGE_BYTES
