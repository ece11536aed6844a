"""Serves a bundle's policy: answers every whole observation with a proposal, and takes better ones as it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ssql_ros.model.bundle import Bundle, load_bundle
from ssql_ros.model.policy import ServedPolicy, make_policy
from ssql_ros.model.probes import check_policy, check_probes
from ssql_ros.model.shipped import bundle_folder
from ssql_ros.nodes.answering import OUTPUT, AnsweringNode
from ssql_ros.nodes.answering import PARAMETERS as ANSWERING
from ssql_ros.ros import model_receiver
from ssql_ros.ros.model_receiver import Inspected, ModelReceiver, Served, rest
from ssql_ros.ros.parameters import Parameter
from ssql_ros.ros.process import raise_priority, run_node

PARAMETERS = (
    *ANSWERING,
    Parameter("bundle", "", "path of the bundle with the policy; empty: ROBOT_ssql, as it is shipped", fixed=True),
    replace(OUTPUT, default="proposal"),
    Parameter("realtime_priority", 0, "SCHED_FIFO priority of the node; 0: normal", low=0, high=99, fixed=True),
    *model_receiver.PARAMETERS,
)


class PolicyNode(AnsweringNode):
    """Serves a bundle's policy, and then those that are announced."""

    def __init__(self) -> None:
        super().__init__("policy_node", PARAMETERS)
        bundle_id = self._source.removeprefix("policy ")
        self._receiver: ModelReceiver | None = ModelReceiver(
            self,
            self.contract,
            Inspected("policy"),
            self._serve,
            self._put_in_force,
            self._report,
            Served(bundle_id, (bundle_id, self._policy)),
            self.value_of,
        )
        if priority := self.value_of("realtime_priority"):
            raise_priority(self, priority)
            self._receiver.raise_priority(priority)
        self.get_logger().info(f"{self._source} for {self.contract.id}")

    def close(self) -> None:
        """Take no more models."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()

    def _load(self) -> tuple[ServedPolicy, str]:
        robot = self.contract.robot
        path = self.value_of("bundle") or bundle_folder(robot) / f"{robot}_ssql.safetensors"
        bundle = load_bundle(path, self.contract)
        check_probes(bundle)
        return make_policy(bundle), f"policy {bundle.id}"

    def _report(self) -> None:
        super()._report()
        if receiver := getattr(self, "_receiver", None):
            receiver.report()

    def _serve(self, bundle: Bundle) -> tuple[tuple[str, ServedPolicy], str]:
        """Return the policy of an announced bundle, verified and tried. In the receiver's thread."""
        policy = make_policy(bundle)
        rest()
        check_policy(policy, bundle)
        rest()
        observation, rng = bundle.probes["observation"][0].astype(float), np.random.default_rng(0)
        # The best of a few: what the machine is busy with beside it does not count against the policy.
        seconds = min(_seconds(lambda: policy.propose(observation, rng)) for _ in range(5))
        if not seconds <= self._limit:
            raise ValueError(f"{bundle.path}: an answer takes {seconds:.4f} s, at most {self._limit:g} s are there")
        return (bundle.id, policy), ""

    def _put_in_force(self, model: tuple[str, ServedPolicy]) -> None:
        """Serve another policy from the next observation on: in the same stride, or as in a new episode."""
        with self._lock:
            before = self._policy
            bundle_id, self._policy = model
            self._source = f"policy {bundle_id}"
            if not _carry_on(self._policy, before):
                self._episode = -1


def _carry_on(policy: ServedPolicy, before: ServedPolicy) -> bool:
    """Let a policy go on where another stands; False: they do not keep to the same behaviour policy.

    A gait that started over in the middle of a stride would be a jump that nobody has learned to take. How likely an
    episode begins with which gait may differ: that counts from the next one on.
    """
    old, new = (getattr(each, "behaviour", None) for each in (before, policy))
    if old is None or new is None:
        return old is new  # neither remembers anything
    descriptions = [{**each.describe(), "weights": None} for each in (old, new)]
    if descriptions[0] != descriptions[1]:
        return False
    policy.behaviour = old  # type: ignore[attr-defined]
    return True


def _seconds(act: Callable[[], Any]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def main() -> int:
    """Run the node."""
    sys.setswitchinterval(0.0005)
    return run_node(PolicyNode)
