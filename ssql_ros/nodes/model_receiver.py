"""Takes announced bundles for a node: verifies each in a thread of its own, and hands over what is ready to serve.

The executor only puts an announcement's bytes into a queue, and whoever serves the model waits for one assignment.
Whatever is wrong with an announcement, the model in force stays.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message
from std_srvs.srv import Trigger

from ssql_ros.announcement import Offer, Refused, bundle_of
from ssql_ros.bundle import Bundle
from ssql_ros.msg import ModelAnnouncement, ModelStatus
from ssql_ros.nodes.diagnostics import Diagnostics
from ssql_ros.nodes.parameters import Parameter
from ssql_ros.nodes.process import ANSWERS, LATCHED, raise_priority
from ssql_ros.spec import Contract
from ssql_ros.spec.messages import fill, set_stamp, stamp_of

ANNOUNCEMENTS, STATUS = "model_announcements", "model_status"
HISTORY = 8  # models kept to roll back to
WAITING = 8  # announcements that may wait for their turn; of more the oldest are dropped
REST = 0.002  # s, between two steps of verifying
AHEAD = 60.0  # s, how far an announcement's stamp may lie ahead of this machine's clock

PARAMETERS = (
    Parameter("take_announcements", True, "take bundles that are announced on model_announcements, once verified"),
    Parameter(
        "max_bundle_bytes", 64 * 2**20, "larger bundle files are not read, nor taken", low=2**10, high=2**30, fixed=True
    ),
)


@dataclass(frozen=True)
class Served:
    """A model that is ready to serve, by the id of its bundle."""

    bundle_id: str
    model: Any


class ModelReceiver:
    """One node's way to a new model, and back.

    Args:
        node: whose topics, services, log and parameters (`PARAMETERS`) are used.
        network: "critic" or "policy": what of a bundle the node serves.
        serve: makes what is served of a bundle, tried and held against its probes. Raises ValueError with what is
            wrong. Called in the receiver's thread.
        install: puts a model in force. Called in the receiver's thread or the executor's; must be quick.
        report: publishes what the node has to say of itself, `ModelReceiver.report` included; called after each answer.
        first: the model in force.
        value_of: gives a parameter's value by name.
    """

    def __init__(
        self,
        node: Any,
        contract: Contract,
        network: str,
        serve: Callable[[Bundle], Any],
        install: Callable[[Any], None],
        report: Callable[[], None],
        first: Served,
        value_of: Callable[[str], Any],
    ) -> None:
        self._node, self._contract, self._network = node, contract, network
        self._serve, self._install, self._report, self._value_of = serve, install, report, value_of
        self._served, self._before = first, deque[Served](maxlen=HISTORY)
        self._counts: Counter[int] = Counter()
        self._last = ""  # answer in words
        self._last_bad = False
        self._dealt_with: tuple[int, str] | None = None  # stamp and hash of the announcement before
        self._accepted_stamp = 0  # ns
        self._rollbacks = 0
        self._closed = False
        self._queue: deque[tuple[bytes, float]] = deque(maxlen=WAITING)
        self._wake = threading.Condition()
        self._lock = threading.Lock()  # held while a model is put in force
        self._status = node.create_publisher(ModelStatus, STATUS, ANSWERS)
        self._diagnostics = Diagnostics(node, f"announced models ({network})", self._describe)
        # Raw: a large message is taken apart in the receiver's thread.
        self._subscription = node.create_subscription(
            ModelAnnouncement, ANNOUNCEMENTS, self._on_announcement, LATCHED, raw=True
        )
        self._service = node.create_service(Trigger, "~/rollback", self._on_rollback)
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def raise_priority(self, priority: int) -> None:
        """Schedule the receiver's thread just below SCHED_FIFO `priority`.

        It shares the interpreter with threads of that priority: left behind at normal priority, and pushed off the
        processor in the middle of something, it would keep them waiting.
        """
        raise_priority(self._node, max(1, priority - 1), self._thread.native_id or 0)

    def close(self) -> None:
        """Take no more announcements and give up the topics."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        # It may hang on a file of a network that is gone; what it finds then is not put in force any more.
        self._thread.join(timeout=2.0)
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_service(self._service)
        self._node.destroy_publisher(self._status)
        self._diagnostics.close()

    def replace(self, served: Served) -> None:
        """Put a model in force that came another way; the one before can be rolled back to."""
        with self._lock:
            self._put(served)

    def report(self) -> None:
        """Publish on /diagnostics what has become of the announcements."""
        self._diagnostics.publish()

    def _on_announcement(self, data: bytes) -> None:
        with self._wake:
            self._queue.append((data, time.monotonic()))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                data, arrival = self._queue.popleft()
            try:
                offer = _offer_of(data)
                rest()
                self._deal_with(offer, arrival)
            except Exception as error:  # whatever it is, the next announcement must find this thread alive
                self._node.get_logger().error(f"cannot read an announcement: {type(error).__name__}: {error}")

    def _deal_with(self, offer: Offer, arrival: float) -> None:
        with self._lock:
            rollbacks = self._rollbacks
            # Told again when a connection was lost and came back: that must not undo a roll-back.
            if self._dealt_with == (offer.stamp, offer.sha256):
                return
            self._dealt_with = (offer.stamp, offer.sha256)
        try:
            self._check_turn(offer)
            bundle = bundle_of(offer, self._contract, self._value_of("max_bundle_bytes"))
            offered = _offered(bundle)
            if self._network not in offered:
                has = ", ".join(offered) or "nothing"
                self._answer(ModelStatus.IGNORED, offer, f"has no {self._network}, only {has}", arrival)
                return
            rest()
            served = Served(bundle.id, self._serve(bundle))
            with self._lock:
                if self._closed:
                    return
                if rollbacks != self._rollbacks:
                    raise Refused("a roll-back was asked for while this was verified")
                self._put(served)
                self._accepted_stamp = offer.stamp
        except Exception as error:  # whatever it is, it must not be in force, and the announcer must hear of it
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            self._answer(ModelStatus.REFUSED, offer, reason, arrival)
            return
        self._answer(ModelStatus.ACCEPTED, offer, f"in force, announced by {offer.source or 'nobody'}", arrival)

    def _check_turn(self, offer: Offer) -> None:
        """Raise Refused unless it is this announcement's turn: announcers that last are heard in any order."""
        if not self._value_of("take_announcements"):
            raise Refused("this node takes no announcements: take_announcements is false")
        if offer.stamp <= self._accepted_stamp:
            seconds = (self._accepted_stamp - offer.stamp) * 1e-9
            raise Refused(f"was announced {seconds:.3f} s before one that was taken already")
        ahead = (offer.stamp - time.time_ns()) * 1e-9
        if ahead > AHEAD:
            raise Refused(f"stamp: lies {ahead:.0f} s ahead of this machine's clock")

    def _put(self, served: Served) -> None:
        """Put a model in force. The lock is held."""
        if served.bundle_id == self._served.bundle_id:
            return  # it is in force, and would only be in the way of a roll-back
        self._install(served.model)
        self._before.append(self._served)
        self._served = served

    def _on_rollback(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            # Also where there is nothing to go back to: what is on its way is not wanted.
            self._rollbacks += 1
            left = self._served.bundle_id
            if self._before:
                self._install(self._before[-1].model)
                self._served = self._before.pop()
                response.success = True
        if response.success:
            response.message = (
                f"rolled back from {left} to {self._served.bundle_id}; {len(self._before)} more behind it"
            )
            self._answer(ModelStatus.ROLLED_BACK, None, response.message, time.monotonic())
        else:
            response.message = f"nothing to roll back to: no bundle is remembered from before {left}"
        return response

    def _answer(self, status: int, offer: Offer | None, reason: str, arrival: float) -> None:
        name, bundle_id = NAMES[status], self._served.bundle_id if offer is None else offer.bundle_id
        self._counts[status] += 1
        self._last, self._last_bad = f"{name} {bundle_id[:64]}: {reason}", status == ModelStatus.REFUSED
        # One call for each: a logger takes one severity from one place in the code.
        if self._last_bad:
            self._node.get_logger().error(f"bundle {self._last}")
        else:
            self._node.get_logger().info(f"bundle {self._last}")
        message = fill(
            ModelStatus(),
            node=self._node.get_fully_qualified_name(),
            status=status,
            bundle_id=bundle_id,
            in_force=self._served.bundle_id,
            reason=reason,
            seconds=time.monotonic() - arrival,
        )
        set_stamp(message, 0 if offer is None else offer.stamp)
        self._status.publish(message)
        self._report()

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        values = {"in_force": self._served.bundle_id, "behind": str(len(self._before)), "last": self._last}
        values |= {name: str(self._counts[status]) for status, name in NAMES.items()}
        if not self._value_of("take_announcements"):
            return DiagnosticStatus.OK, "takes no announcements", values
        level = DiagnosticStatus.WARN if self._last_bad else DiagnosticStatus.OK
        return level, self._last or "nothing announced yet", values


def rest() -> None:
    """Let go of the processor between two steps of verifying.

    A thread that computes for milliseconds on end uses its turn up, and is pushed off the processor in the middle of
    something, with the interpreter's lock in its hand: then commands wait for other programs on this machine. One that
    rests in time is not.
    """
    time.sleep(REST)


NAMES = {
    ModelStatus.ACCEPTED: "accepted",
    ModelStatus.REFUSED: "refused",
    ModelStatus.IGNORED: "ignored",
    ModelStatus.ROLLED_BACK: "rolled back to",
}


def _offered(bundle: Bundle) -> list[str]:
    """Return what a bundle has to serve: its networks, and a policy also where its behaviour policy itself acts."""
    acts = ["policy"] if bundle.policy_kind == "behaviour" and bundle.policy is None else []
    return [*bundle.networks(), *acts]


def _offer_of(data: bytes) -> Offer:
    message = deserialize_message(data, ModelAnnouncement)
    return Offer(
        stamp_of(message),
        message.bundle_id,
        message.sha256,
        message.contract_id,
        message.path,
        bytes(message.data),
        message.source,
        message.summary,
    )
