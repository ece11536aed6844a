"""Builds a report's records from what was recorded: the shield's account, the sensors, and the episodes' ends."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssql_ros.bags import BagError, read_messages
from ssql_ros.contract import Contract, ContractError, ObservationAssembler
from ssql_ros.contract.messages import InputReader, stamp_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.contract.topics import ACCOUNT_TOPIC, EPISODE_TOPIC
from ssql_ros.model.bundle import Rule
from ssql_ros.report.records import NOT_DECIDED, EpisodeRecord, RunRecord


@dataclass
class _Recorded:
    """What a bag holds, by stamp in ns: accounts (ShieldedAction), margins, and episodes' ends (Episode)."""

    accounts: dict[int, Any]
    margins: dict[int, float]
    ends: dict[int, Any]


def records_from_bag(path: str | os.PathLike[str], contract: Contract, namespace: str = "") -> list[RunRecord]:
    """Return the runs that a bag holds, monitor before enforce, with the episodes whose end was recorded.

    The margin is computed from the recorded sensors by the contract's incident rule, independently of who ran the
    episodes. An unfinished bag gives what is readable of it, with an `UnfinishedBagWarning`.

    Args:
        contract: of the robot that was recorded.
        namespace: of the robot's topics.

    Raises:
        BagError: the bag cannot be read, or lacks the shield's account or the episodes' ends.
    """
    recorded = _read(path, contract, f"/{namespace.strip('/')}/".replace("//", "/"))
    period = round(contract.control_period * NANOSECONDS)
    stamps = np.array(sorted({*recorded.accounts, *recorded.margins}), dtype=np.int64)
    runs: dict[tuple[bool, bool, float, str], list[EpisodeRecord]] = defaultdict(list)
    for last, end in recorded.ends.items():
        # Half a period of room, for stamps that are measured and not counted.
        first = last - end.steps * period - period // 2
        inside = stamps[(stamps >= first) & (stamps <= last)].tolist()
        accounts = [recorded.accounts[stamp] for stamp in inside if stamp in recorded.accounts]
        if not accounts:
            continue  # the shield was not there
        enforced = sum(account.enforced for account in accounts) * 2 > len(accounts)
        last = accounts[-1]
        # Accounts of before had one threshold, and no rule.
        margin = getattr(last, "rule", Rule.PROBABILITY) == Rule.MARGIN
        run = (enforced, margin, float(last.delta if margin else last.epsilon), str(last.bundle_id))
        runs[run].append(_episode(end, inside, recorded))
    return [
        RunRecord(
            "enforce" if enforced else "monitor",
            episodes,
            math.nan if margin else threshold,
            bundle_id,
            threshold if margin else None,
        )
        for (enforced, margin, threshold, bundle_id), episodes in sorted(runs.items(), key=lambda item: item[0][0])
    ]


def _read(path: str | os.PathLike[str], contract: Contract, prefix: str) -> _Recorded:
    account, end = f"{prefix}{ACCOUNT_TOPIC}", f"{prefix}{EPISODE_TOPIC}"
    inputs = {f"{prefix}{contract.inputs[name].topic}": name for name in contract.observed_inputs}
    readers = {name: InputReader(contract, contract.inputs[name]) for name in contract.observed_inputs}
    assembler = ObservationAssembler(contract)
    recorded = _Recorded({}, {}, {})
    for topic, time, message in read_messages(path, {account, end, *inputs}):
        if topic == account:
            # A second decision on one observation repeats the first: no new one came within the period.
            recorded.accounts.setdefault(stamp_of(message), message)
        elif topic == end:
            recorded.ends[stamp_of(message)] = message
        else:
            name = inputs[topic]
            try:
                values = readers[name](message)
            except ContractError:
                continue  # what cannot be read has no margin; the shield's account says so
            if assembler.read(name, stamp_of(message), time / NANOSECONDS, values) and assembler.stamp is not None:
                recorded.margins[assembler.stamp] = contract.margin(assembler.frame)[0]
    for topic, found in ((account, recorded.accounts), (end, recorded.ends)):
        if not found:
            raise BagError(f"{path}: holds no message of {topic}; a report needs it")
    return recorded


def _episode(end: Any, stamps: list[int], recorded: _Recorded) -> EpisodeRecord:
    q_safe, margin, decisions, times = [], [], [], []
    for stamp in stamps:
        account = recorded.accounts.get(stamp)
        q_safe.append(account.q_safe_proposal if account is not None else np.nan)
        times.append(account.decision_time if account is not None else np.nan)
        # The last observation is decided upon too, but no action follows.
        executed = account if stamp < stamp_of(end) else None
        decisions.append(executed.decision if executed is not None else NOT_DECIDED)
        margin.append(recorded.margins.get(stamp, np.nan))
    return EpisodeRecord(
        seed=int(end.seed),
        steps=int(end.steps),
        incident=bool(end.incident),
        time=(np.array(stamps, dtype=np.int64) - stamps[0]) / NANOSECONDS,
        q_safe=np.array(q_safe, float),
        margin=np.array(margin, float),
        decisions=np.array(decisions, int),
        decision_times=np.array(times, float),
    )
