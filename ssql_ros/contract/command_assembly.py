"""Makes whole commands of what is heard on the command topics: one message, or a number for each joint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.message_kinds import Header, Stamp, kinds
from ssql_ros.contract.schema import ContractError
from ssql_ros.contract.serialised import JointState

# Where the joints of a command lay this much closer together than those of the one before, it was made of two.
CLOSER = 0.5


class CommandAssembly:
    """Assembles the commands of one sender, and says which joints it leaves out.

    Where each joint has a topic of its own, a command is whole as soon as every joint has been heard since the one
    before, none of them longer ago than the time-out; the newest number of each counts. A sender whose first message is
    lost would be read a period apart for ever after, the last joint with the others of before: where all joints lie
    closer together than in the command before, the next one is waited for whole. No two such waits follow each other.

    Args:
        topics: of the contract's commands, as they come or with a suffix: see `Commanded.topics`.
        timeout: s; None: the contract's command time-out.
        silence_told: False: of joints that fall silent no command is made, and that is all.
    """

    def __init__(
        self, contract: Contract, topics: Sequence[str], timeout: float | None = None, silence_told: bool = True
    ) -> None:
        told = contract.commanded
        self._topics, self._joints, self._field, self._apart = topics, list(told.joint_names), told.field, told.apart
        self._timeout = contract.command_timeout if timeout is None else timeout
        self._readers = [kinds()[told.type].reader(["data"], topic) for topic in topics] if self._apart else []
        self._values = [0.0] * len(topics)
        self._heard = [-math.inf] * len(topics)  # s, when the newest number of each came
        self._new: set[int] = set()  # which of them are of no command yet
        self._newest = self._began = -math.inf  # s, the newest message, and the first one after all were silent
        self._spread = 0.0  # s, between the oldest and the newest number of the command before
        self._waits, self._silence_told = False, silence_told

    def take(self, place: int, parse: Callable[[], Any], now: float) -> Any | None:
        """Take in a message of `topics[place]`; return the whole command that it completes, None where it does not.

        Args:
            parse: gives the message, and raises ContractError where it is none.
            now: s, when it came, on any clock that goes on.

        Returns:
            What `CommandReader.joint_command` reads.

        Raises:
            ContractError: it cannot be read, or other joints have been silent for the time-out, which it names.
        """
        if not self._apart:
            return parse()
        if now - self._newest > self._timeout:
            self._began = now
        self._newest = now
        self._new.discard(place)
        self._values[place] = self._number(place, parse)
        self._heard[place] = now
        self._new.add(place)
        self._new = {one for one in self._new if now - self._heard[one] <= self._timeout}
        spread = now - min(self._heard)
        if len(self._new) == len(self._topics):
            self._new.clear()
            self._spread, self._waits = spread, False
            empty: tuple[float, ...] = ()
            values = {"position": empty, "velocity": empty, "effort": empty, self._field: tuple(self._values)}
            return JointState(Header(Stamp(0, 0)), self._joints, **values)
        if spread < CLOSER * self._spread and not self._waits:
            self._new.clear()
            self._waits = True
        if self._silence_told:
            self._check_silent(now)
        return None

    def _number(self, place: int, parse: Callable[[], Any]) -> float:
        topic = self._topics[place]
        try:
            (value,) = self._readers[place](parse())
        except ContractError as error:
            raise ContractError(f"{topic}: {str(error).removeprefix(f'{topic}: ')}") from error
        if not math.isfinite(value):
            raise ContractError(f"{topic}: is {value}, expected a finite number")
        return value

    def _check_silent(self, now: float) -> None:
        """Raise ContractError where joints have not been heard for the time-out while others were."""
        late = now - self._timeout
        silent = [
            topic for topic, heard in zip(self._topics, self._heard, strict=True) if max(heard, self._began) < late
        ]
        if silent:
            raise ContractError(
                f"commands come on {len(self._topics)} topics, one for each joint; nothing for {self._timeout:g} s "
                f"on {', '.join(silent)}"
            )
