"""Holds every command and every proposal of a run with swaps against the bundles that were in force."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, islice
from typing import Any

import numpy as np

from bench.swap_driver import Record
from ssql_ros.contract import Contract, ObservationAssembler
from ssql_ros.contract.messages import InputReader, stamp_of
from ssql_ros.model.bundle import Bundle
from ssql_ros.model.critic import SafetyCritic, logit, sigmoid
from ssql_ros.model.policy import make_policy
from ssql_ros.shield.decision import Decision

WINDOW = 24  # frames that an observation is made anew from: more than any history holds
HISTORIES = 200  # of those that a node may have had, how many are tried
NEAR = 1e-5  # of a logit: how far two ways of computing it on one machine may lie apart


class Judge:
    """What each bundle makes of an observation.

    An observation is made anew from what was sent and from the shield's own account of what was executed. A node may
    have missed a frame that it never answered, and the policy a command: every such history counts as possible.
    """

    def __init__(self, bundles: list[Bundle], contract: Contract, record: Record) -> None:
        self._contract = contract
        self.critics = {bundle.id: SafetyCritic(bundle) for bundle in bundles}
        self.policies = {bundle.id: make_policy(bundle) for bundle in bundles}
        self.epsilon = {bundle.id: bundle.probability_critic().epsilon for bundle in bundles}
        self._readers = {name: InputReader(contract, contract.inputs[name]) for name in contract.observed_inputs}
        self.place = {stamp: i for i, (_, stamp, _) in enumerate(record.observations)}
        self._sent = [
            (stamp, {"imu": step.imu, "joint_states": step.joint_states}) for _, stamp, step in record.observations
        ]
        self._executed: dict[int, list[np.ndarray]] = {}
        for account in record.accounts:
            self._executed.setdefault(stamp_of(account), []).append(np.array(account.action))
        self._held = {stamp_of(account) for account in record.accounts if account.decision == Decision.HELD}

    def observations(self, stamp: int, answered: set[int], follows: bool) -> Iterator[np.ndarray]:
        """Yield observations (n_observation,) that a node may have had at `stamp`, the likeliest first, not all.

        Args:
            answered: stamps that the node has seen for certain.
            follows: the node hears by topic what was executed, so that the last of it may have been late.
        """
        last = self.place[stamp]
        window = self._sent[max(0, last - WINDOW) : last + 1]
        doubtful = [sent for sent, _ in window if sent not in answered and sent != stamp]
        before = [sent for sent, _ in window if sent in self._executed and sent != stamp][-1:]
        heard = [None, *self._executed[before[0]][:-1], np.empty(0)] if follows and before else [None]
        # All of them lost, or none: then whatever lies between.
        sizes = sorted(range(len(doubtful) + 1), key=lambda n: min(len(doubtful) - n, n))
        for last_action in heard:
            for lost in islice((lost for n in sizes for lost in combinations(doubtful, n)), HISTORIES):
                seen = [(sent, messages) for sent, messages in window if sent not in lost]
                yield self._assembled(seen, before, last_action)

    def _assembled(self, seen: list[Any], before: list[int], last_action: np.ndarray | None) -> np.ndarray:
        """Return what frames make, where the action executed for frame `before` was another one; empty: unknown."""
        assembler = ObservationAssembler(self._contract)
        for sent, messages in seen:
            for name in self._readers:
                assembler.read(name, sent, 0.0, self._readers[name](messages[name]))
            actions = self._executed.get(sent, [])[-1:]
            if last_action is not None and sent in before:
                actions = [last_action] if last_action.size else []
            for action in actions:
                assembler.executed(action)
        return assembler.vector()

    def able(self, account: Any, answered: set[int]) -> set[str]:
        """Return the bundles that could have given an account."""
        for observation in self.observations(stamp_of(account), answered, follows=False):
            if found := {name for name in self.critics if self._explains(name, account, observation)}:
                return found
        return set()

    def _explains(self, name: str, account: Any, observation: np.ndarray) -> bool:
        """Tell whether scores, threshold and decision are a bundle's."""
        pairs = [(account.proposal, account.q_safe_proposal), (account.action, account.q_safe_action)]
        for action, q_safe in pairs:
            clipped = self._contract.clip(np.array(action))
            if not _near(float(self.critics[name].logits(observation, clipped[np.newaxis])[0]), q_safe):
                return False
        epsilon, passes = self.epsilon[name], account.q_safe_proposal <= self.epsilon[name]
        backup = self.critics[name].backup
        right = {
            Decision.BACKUP: backup is not None and np.allclose(account.action, self._contract.clip(backup.action)),
            Decision.PASSED: passes and list(account.action) == list(account.proposal),
            Decision.RESAMPLED: not passes and account.q_safe_action <= epsilon,
            Decision.LEAST_RISK: not passes and account.q_safe_action > epsilon,
        }
        return account.epsilon == epsilon and right.get(account.decision, False)

    def certain(self, stamp: int, answered: set[int], follows: bool) -> bool:
        """Tell whether a node can have had only one history at `stamp`; arguments as of `observations`.

        A safe action that was held between two frames has the time at which it was sent, which no account tells.
        """
        last = self.place[stamp]
        past = [sent for sent, _ in self._sent[max(0, last - WINDOW) : last]]
        whole = all(sent in answered and sent not in self._held for sent in past)
        return whole and (not follows or all(len(self._executed.get(sent, [])) == 1 for sent in past))

    def proposes(self, proposal: Any, answered: set[int]) -> bool:
        """Tell whether the policy that a proposal names gives it."""
        policy = self.policies.get(proposal.source.removeprefix("policy "))
        return policy is not None and any(
            np.allclose(policy.best(observation), proposal.action, rtol=0.0, atol=1e-5)
            for observation in self.observations(stamp_of(proposal), answered, follows=True)
        )


def _near(score: float, q_safe: float) -> bool:
    """Tell whether a probability is that of a logit. As logits, as those still differ where both are near 1."""
    if not 0.0 < q_safe < 1.0:
        return sigmoid(score) == q_safe
    return abs(logit(q_safe) - score) <= NEAR * max(1.0, abs(score))


def judged(record: Record, bundles: list[Bundle], contract: Contract) -> dict[str, float]:
    """Return the counts of `bench_swap` (see there)."""
    judge = Judge(bundles, contract, record)
    # What was seen before the record began is in the first histories.
    begun = set(list(judge.place)[WINDOW:])
    accounts = [account for account in record.accounts if stamp_of(account) in begun]
    proposals = [proposal for proposal in record.proposals if stamp_of(proposal) in begun]
    decided = [account for account in accounts if account.decision != Decision.HELD]
    shield_saw, policy_saw = ({stamp_of(m) for m in heard} for heard in (record.accounts, record.proposals))
    joints: dict[int, list[list[float]]] = {}
    for _, command in record.commands:
        joints.setdefault(stamp_of(command), []).append(list(command.position))
    foreign = unclear = apart = 0
    for account in decided:
        able = judge.able(account, shield_saw)
        wanted = contract.joint_command(np.array(account.action)).tolist()
        # A command may be on its way still when the record ends.
        sent = any(
            np.allclose(command, wanted, rtol=0.0, atol=1e-9) for command in joints.get(stamp_of(account), [wanted])
        )
        strange = account.bundle_id not in able or not sent
        certain = judge.certain(stamp_of(account), shield_saw, follows=False)
        foreign += strange and certain
        unclear += strange and not certain
        apart += len(able) == 1
    odd = [stamp_of(proposal) for proposal in proposals if not judge.proposes(proposal, policy_saw)]
    known = [judge.certain(stamp, shield_saw & policy_saw, follows=True) for stamp in odd]
    taken = sum(all(answer.status == answer.ACCEPTED for answer in answers) for *_, answers in record.swaps)
    return {
        "swaps": taken,
        "foreign_commands": foreign,
        "unclear_commands": unclear,
        "foreign_proposals": sum(known),
        "unclear_proposals": len(odd) - sum(known),
        "told_apart": apart / max(1, len(decided)),
        "commands": len(record.commands),
        "held": len(accounts) - len(decided),
        "unanswered": len(begun - shield_saw),
    }
