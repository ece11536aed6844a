"""A process beside a node that hears announcements and verifies them, so that the node's own has no work with them.

Whatever the size and number of announcements, the node takes in only what is verified: the one network that it serves.
Standard input: one line of JSON with the settings, then the node's answers. Standard output: one line of JSON for each
report; one of a verified bundle is followed by a bundle file of `size` bytes, reduced to what the node serves.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from ssql_ros.contract import load_contract
from ssql_ros.model.announcement import Offer, Purpose, Refused, TakenBefore, Trust, Turns, bundle_of
from ssql_ros.model.announcement_message import read_offer
from ssql_ros.model.bundle import Bundle, bundle_bytes
from ssql_ros.model.bundle_content import POLICIES
from ssql_ros.model.critic import SafetyCritic, shielding_critic
from ssql_ros.model.policy import make_policy
from ssql_ros.model.probes import check_critic, check_policy
from ssql_ros.msg import ModelAnnouncement
from ssql_ros.ros.executor import executor_for

# Room for a flood while this process, of low priority, waits for its turn: one announcement in it may be good.
WAITING = QoSProfile(
    depth=100,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
NICE = 10
REPORTS, REPORTS_PER_SECOND = 20, 5.0  # refusals that are told at once, and then on average
# After messages of this size the process is made anew: what was once taken for them is not given back.
MAX_MEMORY = 2**30


class Inspector:
    """Judges one announcement after the other, and tells the node.

    Args:
        settings: node, namespace, enclave, topic, contract (path), network ("critic" or "policy"), folder, keys,
            max_bytes, max_age (s), newest (stamp by signer), sizes (candidates that a decision scores at once), limit
            (s).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._contract = load_contract(settings["contract"])
        self._trust = Trust.of(settings["folder"], settings["keys"])
        self._turns = Turns(settings["newest"], settings["max_age"])
        self._network = settings["network"]
        self._allowance, self._since, self._untold = float(REPORTS), time.monotonic(), 0
        self.done = False

    def receive(self, data: bytes) -> None:
        """Take in a serialised announcement."""
        arrival = time.monotonic()
        try:
            offer = read_offer(data)
        except Refused as error:
            self._tell("refused", Offer(0, "", "", ""), str(error), arrival)
            return
        try:
            self._deal_with(offer, arrival)
        except TakenBefore as error:
            self._tell("ignored", offer, str(error), arrival)
        except Exception as error:  # whatever it is, the announcer must hear of it, and the next one its turn
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            self._tell("refused", offer, reason, arrival)

    def _deal_with(self, offer: Offer, arrival: float) -> None:
        if offer.purpose not in (Purpose.CRITIC, Purpose.POLICY, Purpose.BOTH):
            raise Refused(f"purpose: expected CRITIC (1), POLICY (2) or BOTH (3), got {offer.purpose}")
        if not offer.purpose & Purpose[self._network.upper()]:
            self._tell("ignored", offer, f"is not meant to replace a {self._network}", arrival)
            return
        limit = self._settings["max_bytes"]
        if len(offer.data) > limit:
            raise Refused(f"has {len(offer.data)} bytes, at most {limit} are taken")
        signer, now = self._trust.signer_of(offer), time.time_ns()
        self._turns.check(offer, signer, now)
        bundle = bundle_of(offer, self._contract, limit, self._trust)
        if self._network not in bundle.serves():
            has = ", ".join(bundle.networks()) or "nothing"
            self._tell("ignored", offer, f"has no {self._network}, only {has}", arrival)
            return
        self._hand_over(self._tried(bundle), offer, signer, now, arrival)

    def _tried(self, bundle: Bundle) -> Bundle:
        """Return what of a bundle the node serves, tried here and held against its probes. Raises ValueError."""
        if self._network == "critic":
            critic = shielding_critic(bundle)
            check_critic(critic)
            self._time(bundle, critic)
            served = replace(bundle, policy=None, policy_kind=POLICIES[0], behaviour={})
        else:
            check_policy(make_policy(bundle), bundle)
            served = replace(bundle, critic=None)
        kept = {"observation", "action", self._network}
        probes = {name: array for name, array in bundle.probes.items() if name in kept}
        return replace(served, reward=None, provenance={}, probes=probes)

    def _time(self, bundle: Bundle, critic: SafetyCritic) -> None:
        """Refuse a critic that is far too slow: the node itself, which must not stall, times what passes."""
        observation, seconds = np.zeros(self._contract.observation_size), []
        for _ in range(3):
            # Of this thread alone, which has the lowest priority.
            start = time.thread_time()
            for k in self._settings["sizes"]:
                critic.logits(observation, np.tile(self._contract.safe_action, (k, 1)))
            seconds.append(time.thread_time() - start)
        if min(seconds) > self._settings["limit"]:
            limit = self._settings["limit"]
            raise Refused(f"scoring takes {min(seconds):.4f} s a decision, at most {limit:g} s are there")

    def _hand_over(self, bundle: Bundle, offer: Offer, signer: str, now: int, arrival: float) -> None:
        content = bundle_bytes(bundle)
        self._write({**_report("verified", offer, "", arrival), "size": len(content), "signer": signer}, content)
        answer = sys.stdin.readline()
        if not answer:
            self.done = True
        elif json.loads(answer)["taken"]:
            self._turns.taken(offer, signer, now)
            self._write({"event": "turn", "newest": self._turns.newest})

    def _tell(self, event: str, offer: Offer, reason: str, arrival: float) -> None:
        """Report what was not taken. In a flood of such announcements only some of it: the node has other work."""
        now = time.monotonic()
        self._allowance = min(float(REPORTS), self._allowance + (now - self._since) * REPORTS_PER_SECOND)
        self._since = now
        if self._allowance < 1.0:
            self._untold += 1
            return
        self._allowance -= 1.0
        self._write({**_report(event, offer, reason, arrival), "untold": self._untold})
        self._untold = 0

    def _write(self, report: dict[str, Any], content: bytes = b"") -> None:
        try:
            sys.stdout.buffer.write(json.dumps(report).encode() + b"\n" + content)
            sys.stdout.buffer.flush()
        except OSError:
            self.done = True


def _report(event: str, offer: Offer, reason: str, arrival: float) -> dict[str, Any]:
    said = {"stamp": offer.stamp, "bundle_id": offer.bundle_id[:64], "source": offer.source[:256]}
    return {"event": event, **said, "reason": reason[:2000], "arrival": arrival}


def _memory() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Serve the node that started this until it ends."""
    # Ctrl-C in a terminal reaches this too; the node ends it, by closing its standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(NICE)
    settings = json.loads(sys.stdin.readline())
    inspector = Inspector(settings)
    # In the node's own enclave: where SROS 2 is in force, another one has no keys.
    enclave = ["--ros-args", "--enclave", settings["enclave"]]
    rclpy.init(args=enclave, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = Node(
        f"{settings['node']}_inspector",
        namespace=settings["namespace"],
        start_parameter_services=False,
        enable_rosout=False,
    )
    executor = executor_for(node)
    node.create_subscription(ModelAnnouncement, settings["topic"], inspector.receive, WAITING, raw=True)
    while not inspector.done and _memory() < MAX_MEMORY:
        executor.spin_once(timeout_sec=0.2)
        # Nothing is said here but by a reply: what can be read now is the end.
        if select.select([sys.stdin], [], [], 0.0)[0]:
            break
    executor.remove_node(node)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
