"""Takes the decisions of a recorded shield again, and tells where anything differs.

A record has all that its decision was taken from (see `shield.judgement`), but for the critic and the contract. So what
is compared is the code, the bundle and the arithmetic of this machine against those of the robot's: on a processor of
another kind the last bits of a score may differ.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssql_ros.bags import BagError, Survey, survey
from ssql_ros.contract import Contract, ContractError, find_contract, load_contract
from ssql_ros.contract.topics import RECORDS_TOPIC as TOPIC
from ssql_ros.model.announcement import ID_DIGITS
from ssql_ros.model.bundle import BundleError, load_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.shipped import bundle_folder
from ssql_ros.shield.judgement import judged_again
from ssql_ros.shield.record import Recorded, differences, recorded

TYPE = "ssql_ros/msg/DecisionRecord"
TOLD = 10  # differences that are told one by one


@dataclass
class Replay:
    """What came of taking decisions again.

    Attributes:
        decisions: that were taken again, by the decision of then.
        different: how many of them differ in anything but words.
        scores_only: of those, in nothing but scores.
        told: the first of them, in words.
        missing: decisions that could not be taken again, by the id of the bundle that is not here.
        unreadable: records that say nothing that could be a decision.
        problem: of the bag, in words; empty: it is whole.
    """

    decisions: Counter[str] = field(default_factory=Counter)
    different: int = 0
    scores_only: int = 0
    told: list[str] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    problem: str = ""


class Bundles:
    """Bundles by their id, from files and folders, loaded when they are asked for.

    Raises:
        BundleError: a path is neither a file nor a folder.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths: dict[str, Path] = {}
        self._critics: dict[tuple[str, str], SafetyCritic] = {}
        for path in paths:
            if not path.exists():
                raise BundleError(f"{path}: expected a bundle or a folder of bundles, there is nothing")
            for file in sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]:
                bundle_id = hashlib.sha256(file.read_bytes()).hexdigest()[:ID_DIGITS]
                self._paths.setdefault(bundle_id, file)

    def critic(self, bundle_id: str, contract: Contract) -> SafetyCritic | None:
        """Return the critic of a bundle, None where it is not here. Raises BundleError: it is not the contract's."""
        key = bundle_id, contract.id
        if key not in self._critics:
            if bundle_id not in self._paths:
                return None
            self._critics[key] = SafetyCritic(load_bundle(self._paths[bundle_id], contract))
        return self._critics[key]


def replay(
    path: str | os.PathLike[str],
    bundles: Iterable[Path] = (),
    contract: str | None = None,
    namespace: str | None = None,
    progress: Callable[[Iterator[Any], int], Iterable[Any]] = lambda records, _: records,
) -> Replay:
    """Take every decision of a bag again.

    Args:
        bundles: files and folders to look for bundles in, beside those that are shipped with the robot.
        contract: robot name, or path; None: by the robot's name in the records.
        namespace: of the shield; None: all that were recorded.
        progress: wraps the records, of which it is told the number.

    Raises:
        BagError: the bag cannot be read, or holds no record.
        ContractError: the contract is not here, or not the one that was in force.
        BundleError: a bundle cannot be read.
    """
    found_in = survey(path)
    topics, bag = _topics(found_in, namespace), found_in.bag
    assert bag is not None
    contracts: dict[str, Contract] = {}
    folders = list(bundles)
    found: Bundles | None = None
    result = Replay(problem=found_in.problem)
    count = sum(found_in.topics[topic].count for topic in topics)
    for topic, _, message in progress(bag.messages(topics), count):
        try:
            record = recorded(message)
        except (ValueError, OverflowError) as error:
            result.unreadable += 1
            _tell(result, f"{topic}: a record that is none: {error}")
            continue
        if record.contract_id not in contracts:
            contracts[record.contract_id] = _contract(record.contract_id, contract)
        its = contracts[record.contract_id]
        if found is None:
            shipped = bundle_folder(its.robot)
            found = Bundles([*folders, *([shipped] if shipped.is_dir() else [])])
        _take(result, record, its, found, topic, message)
    return result


def _topics(bag: Survey, namespace: str | None) -> list[str]:
    if namespace is not None:
        wanted = [f"/{namespace.strip('/')}/{TOPIC}".replace("//", "/")]
    else:
        wanted = [name for name in bag.topics if name.endswith(f"/{TOPIC}")]
    topics = [name for name in wanted if name in bag.topics and bag.topics[name].has(TYPE)]
    if not topics:
        listed = ", ".join(sorted(bag.topics)) or "no topic"
        raise BagError(
            f"{bag.path}: expected decisions on {TOPIC} ({TYPE}), the bag has {listed}; recorder_node records them, "
            "`ros2 bag record` where the topic is named"
        )
    return topics


def _contract(contract_id: str, named: str | None) -> Contract:
    contract = load_contract(find_contract(named or contract_id.rpartition("-")[0]))
    if contract.id != contract_id:
        raise ContractError(
            f"{contract.path}: is {contract.id}, the decisions were taken by {contract_id}; name the contract of then "
            "with --contract"
        )
    return contract


def _take(result: Replay, record: Recorded, contract: Contract, bundles: Bundles, topic: str, message: Any) -> None:
    critic = bundles.critic(record.bundle_id, contract)
    if critic is None:
        result.missing[record.bundle_id] += 1
        return
    then = record.verdict
    again = judged_again(record.basis, contract, critic, record.seed, then.scored)
    result.decisions[then.decision.name.lower()] += 1
    if found := differences(then, again):
        result.different += 1
        result.scores_only += all(words.startswith("score") for words in found)
        stamp = message.header.stamp
        _tell(result, f"{topic}, {stamp.sec}.{stamp.nanosec:09d}: {'; '.join(found)}")


def _tell(result: Replay, words: str) -> None:
    if len(result.told) < TOLD:
        result.told.append(words)
