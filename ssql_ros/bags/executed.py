"""Reads what a robot was told from its command topics, live or of a bag, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.command_assembly import CommandAssembly
from ssql_ros.contract.messages import CommandReader, stamp_of


class ExecutedReader:
    """Makes stamped actions of the bytes on one sender's command topics.

    Args:
        topics: see `CommandAssembly`.
        parse: reads the bytes of a message.
    """

    def __init__(self, contract: Contract, topics: Sequence[str], parse: Callable[[bytes], Any]) -> None:
        self._contract, self._parse = contract, parse
        # Who begins to listen, or to record, hears some joints before the others.
        self._assembly = CommandAssembly(contract, topics, silence_told=False)
        self._command = CommandReader(contract, contract.commanded.topic)

    def __call__(self, place: int, data: bytes, now: float) -> tuple[int, np.ndarray] | None:
        """Return stamp (ns, 0: not set) and action (n_action,), clipped, of the command that a message completes.

        Args:
            place: of the message's topic; `now`: s, when it came.

        Returns:
            None where joints of it are still to come.

        Raises:
            ContractError: as of `CommandAssembly.take` and `CommandReader.joint_state`.
        """
        message = self._assembly.take(place, lambda: self._parse(data), now)
        if message is None:
            return None
        return stamp_of(message), self._contract.clip(self._command.joint_state(message))
