"""What the learner has announced, and what each receiver made of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssql_ros.contract.topics import PROPOSAL_TOPIC
from ssql_ros.live.offers import answers_path
from ssql_ros.model.announcement import Offer
from ssql_ros.msg import ModelStatus
from ssql_ros.processes.files import write_atomically
from ssql_ros.ros.announcer import Announcer

FOLLOWED = 16  # newest offers whose answers are heard
WORDS = {
    ModelStatus.ACCEPTED: "accepted",
    ModelStatus.REFUSED: "refused",
    ModelStatus.IGNORED: "ignored",
    ModelStatus.ROLLED_BACK: "rolled back",
}


@dataclass
class _Announced:
    round: int
    path: Path
    offer: Offer
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)  # by node: what it made of it, and why


@dataclass
class _Refusal:
    """Refusals of one node for one reason, without an acceptance in between."""

    kind: str
    reason: str
    rounds: list[int]


class Offers:
    """Announces rounds, and hears the answers.

    A receiver that has refused several rounds in a row for the same reason is not asked again with each: the more it
    has refused, the more rounds are left out before the next is announced.

    Args:
        node: whose log is used, and who is asked which nodes publish proposals: those serve policies.
        announcer: its executor must be spun.

    Attributes:
        announced: how many rounds were.
    """

    def __init__(self, node: Any, announcer: Announcer, contract_id: str) -> None:
        self.announced = 0
        self._node, self._announcer, self._contract_id = node, announcer, contract_id
        self._offers: list[_Announced] = []
        self._refusals: dict[str, _Refusal] = {}
        self._left_out = 0
        self._fault = ""

    def offer(self, number: int, path: Path, with_data: bool, summary: str) -> None:
        """Announce the bundle of a round, or leave it out, and say so."""
        self.hear()
        if self._left_out > 0:
            self._left_out -= 1
            self._node.get_logger().warning(
                f"round {number} has passed but is not announced, because {self.refused()}; it lies at {path}. Setting "
                "parameter announce to true announces the next"
            )
            return
        try:
            offer = self._announcer.announce(path, self._contract_id, with_data, summary)
        except (OSError, ValueError) as error:
            self._fault = f"round {number} cannot be announced: {error}"
            self._node.get_logger().error(self._fault)
            return
        self._fault = ""
        self.announced += 1
        self._offers = [*self._offers, _Announced(number, path, offer)][-FOLLOWED:]

    def ask_again(self) -> None:
        """Forget refusals: the next round is announced."""
        self._refusals.clear()
        self._left_out = 0

    def hear(self) -> None:
        """Take in the answers that have come since the last call, to whichever round."""
        for announced in self._offers:
            for name, status in self._announcer.answers(announced.offer).items():
                answer = (WORDS.get(status.status, "answered"), str(status.reason))
                if announced.answers.get(name) != answer:
                    announced.answers[name] = answer
                    self._on_answer(announced, name.lstrip("/"), *answer)
                    self._keep(announced)

    def _on_answer(self, announced: _Announced, name: str, what: str, reason: str) -> None:
        words = f"{name} has {what} round {announced.round} (bundle {announced.offer.bundle_id}): {reason}"
        if what != "refused":
            self._node.get_logger().info(words)
            if what == "accepted":
                self._refusals.pop(name, None)
                self._left_out = 0 if not self._refusals else self._left_out
            return
        self._node.get_logger().warning(words)
        kind, before = re.sub(r"[0-9a-f]{6,}|[0-9.]+", "#", reason), self._refusals.get(name)
        rounds = [*before.rounds, announced.round] if before is not None and before.kind == kind else [announced.round]
        self._refusals[name] = _Refusal(kind, reason, rounds)
        # None after the first, then 2, 6, 14.
        self._left_out = max(self._left_out, min(2 ** len(rounds), 16) - 2)

    def _keep(self, announced: _Announced) -> None:
        """Write down whether whoever serves policies has refused a round: then it does not act, and is no measure."""
        proposing = {
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(PROPOSAL_TOPIC))
        }
        answers = announced.answers
        refused = {name for name, (what, _) in answers.items() if what == "refused"}
        taken = any(what == "accepted" for what, _ in answers.values())
        document = {
            "round": announced.round,
            "refused": bool(refused & proposing) or (bool(refused) and not taken),
            "answers": {name: {"answer": what, "reason": reason} for name, (what, reason) in answers.items()},
        }
        try:
            write_atomically(answers_path(announced.path), json.dumps(document, indent=1).encode())
        except ValueError as error:
            self._node.get_logger().error(str(error))

    def refused(self) -> str:
        """Return in words who refuses; empty: nobody."""
        return "; ".join(
            f"{name} has refused round{'s' if len(one.rounds) > 1 else ''} {', '.join(map(str, one.rounds))}: "
            f"{one.reason}"
            for name, one in sorted(self._refusals.items())
        )

    def describe(self) -> dict[str, str]:
        """Return values for /diagnostics."""

        def answered(what: str) -> str:
            latest: dict[str, str] = {}
            for announced in self._offers:
                latest |= {
                    name.lstrip("/"): f"round {announced.round}" + (f": {reason}" if what == "refused" else "")
                    for name, (given, reason) in announced.answers.items()
                    if given == what
                }
            return "; ".join(f"{name} ({words})" for name, words in sorted(latest.items()))

        return {
            "announced": str(self.announced),
            "accepted_by": answered("accepted"),
            "refused_by": answered("refused"),
            "rounds_left_out": str(self._left_out),
        }

    @property
    def fault(self) -> str:
        """Return why the newest round was not announced; empty: it was."""
        return self._fault
