"""Takes announced bundles for a node: a process beside it verifies each, and what is verified is served and tried here.

Whatever is announced, the node's own process has no work with it until it is verified (see `model_inspector`), and
whoever serves the model waits for one assignment. Whatever is wrong with an announcement, the model in force stays.
By default nothing is taken, and there is no such process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import Trigger

from ssql_ros.contract import Contract
from ssql_ros.contract.messages import fill, set_stamp
from ssql_ros.contract.topics import ANNOUNCEMENTS, STATUS
from ssql_ros.model.announcement import Refused, Trust
from ssql_ros.model.bundle import Bundle, parse_bundle
from ssql_ros.msg import ModelStatus
from ssql_ros.ros.diagnostics import Diagnostics
from ssql_ros.ros.parameters import Parameter
from ssql_ros.ros.process import ANSWERS, raise_priority

HISTORY = 8  # models kept to roll back to
REST = 0.002  # s, between two steps of verifying
RESTART_PAUSE = 2.0  # s, before an inspector that has ended is started again
CLOSED = "takes no announcements: neither bundle_folder nor announcement_keys is set"

PARAMETERS = (
    Parameter(
        "bundle_folder", "", "announced bundle files are taken where they lie in this folder; empty: none", fixed=True
    ),
    Parameter(
        "announcement_keys", [""], "paths of Ed25519 public keys: announcements that they sign are taken", fixed=True
    ),
    Parameter("max_announcement_age", 86400.0, "s; older announcements are not taken", low=1.0, high=1e8, fixed=True),
    Parameter(
        "max_bundle_bytes", 64 * 2**20, "larger bundle files are not read, nor taken", low=2**10, high=2**30, fixed=True
    ),
)


@dataclass(frozen=True)
class Served:
    """A model that is ready to serve, by the id of its bundle."""

    bundle_id: str
    model: Any


@dataclass(frozen=True)
class Inspected:
    """What the inspector must know of what a node serves.

    Attributes:
        network: "critic" or "policy": what of a bundle the node serves.
        sizes: how many actions a decision scores at once, each time; empty: the inspector times nothing.
        limit: s, that this may take.
    """

    network: str
    sizes: tuple[int, ...] = ()
    limit: float = 0.0


def trust_of(node: Any, value_of: Callable[[str], Any]) -> Trust:
    """Return whose announcements a node takes.

    Raises:
        ValueError: a parameter names no folder or no key, or is one of before.
    """
    return Trust.of(value_of("bundle_folder"), list(value_of("announcement_keys")))


class ModelReceiver:
    """One node's way to a new model, and back.

    Args:
        node: whose topics, services, log and parameters (`PARAMETERS`) are used.
        inspected: what of a bundle the node serves.
        serve: makes what is served of a bundle, tried and held against its probes; returns it and what there is to say
            of it. Raises ValueError with what is wrong. Called in the receiver's thread.
        install: puts a model in force. Called in the receiver's thread or the executor's; must be quick.
        report: publishes what the node has to say of itself, `ModelReceiver.report` included; called after each answer.
        first: the model in force.
        value_of: gives a parameter's value by name.

    Raises:
        ValueError: a parameter names no folder or no key.
    """

    def __init__(
        self,
        node: Any,
        contract: Contract,
        inspected: Inspected,
        serve: Callable[[Bundle], tuple[Any, str]],
        install: Callable[[Any], None],
        report: Callable[[], None],
        first: Served,
        value_of: Callable[[str], Any],
    ) -> None:
        self._trust = trust_of(node, value_of)
        self._node, self._contract, self._inspected = node, contract, inspected
        self._serve, self._install, self._report, self._value_of = serve, install, report, value_of
        self._served, self._before = first, deque[Served](maxlen=HISTORY)
        self._counts: Counter[int] = Counter()
        self._last = ""  # answer in words
        self._last_bad = False
        self._newest: dict[str, int] = {}  # by signer, ns, the stamp of what was taken last
        self._rolled_back = 0.0  # s, steady clock
        self._closing = threading.Event()
        self._lock = threading.Lock()  # held while a model is put in force
        self._inspector: subprocess.Popen[bytes] | None = None
        self._status = node.create_publisher(ModelStatus, STATUS, ANSWERS)
        self._diagnostics = Diagnostics(node, f"announced models ({inspected.network})", self._describe)
        self._service = node.create_service(Trigger, "~/rollback", self._on_rollback)
        self._thread: threading.Thread | None = None
        if self._trust:
            self._inspector = self._started()
            self._thread = threading.Thread(target=self._run, name="models", daemon=True)
            self._thread.start()
        else:
            # Latched, and said once: who announces learns of it, and the announcements themselves go unheard.
            self._publish_status(ModelStatus.REFUSED, 0, "", CLOSED, 0.0)

    def raise_priority(self, priority: int) -> None:
        """Schedule the receiver's thread just below SCHED_FIFO `priority`.

        It shares the interpreter with threads of that priority: left behind at normal priority, and pushed off the
        processor in the middle of something, it would keep them waiting.
        """
        if self._thread is not None:
            raise_priority(self._node, max(1, priority - 1), self._thread.native_id or 0)

    def close(self) -> None:
        """Take no more announcements and give up the topics."""
        self._closing.set()
        inspector = self._inspector
        if inspector is not None and inspector.stdin is not None:
            inspector.stdin.close()
        if self._thread is not None:
            self._thread.join(timeout=3.0)
        if inspector is not None and inspector.poll() is None:
            # It may hang on a file of a network that is gone.
            inspector.kill()
            inspector.wait()
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

    # The inspector.

    def _started(self) -> subprocess.Popen[bytes]:
        settings = {
            "node": self._node.get_name(),
            "namespace": self._node.get_namespace(),
            "enclave": _enclave_of(self._node),
            "topic": self._node.resolve_topic_name(ANNOUNCEMENTS),
            "contract": str(self._contract.path),
            "network": self._inspected.network,
            "folder": str(self._trust.folder or ""),
            "keys": [path for path in self._value_of("announcement_keys") if path],
            "max_bytes": self._value_of("max_bundle_bytes"),
            "max_age": self._value_of("max_announcement_age"),
            "newest": self._newest,
            "sizes": self._inspected.sizes,
            "limit": self._inspected.limit,
        }
        command = [sys.executable, "-m", "ssql_ros.ros.model_inspector"]
        inspector = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert inspector.stdin is not None
        inspector.stdin.write(json.dumps(settings).encode() + b"\n")
        inspector.stdin.flush()
        return inspector

    def _run(self) -> None:
        """Hear the inspector, and start it again where it has ended."""
        while not self._closing.is_set():
            try:
                self._hear(self._inspector)
            except Exception as error:  # whatever it is, the model in force stays, and the next one is heard
                self._log_error(f"the inspector of announcements: {type(error).__name__}: {error}")
            if self._inspector is not None and not self._closing.is_set():
                self._inspector.kill()
                self._inspector.wait()
            if self._closing.wait(RESTART_PAUSE):
                return
            self._node.get_logger().warning("the inspector of announcements has ended; it is started again")
            self._inspector = self._started()

    def _hear(self, inspector: Any) -> None:
        while line := inspector.stdout.readline():
            told = json.loads(line)
            if told["event"] == "turn":
                self._newest = told["newest"]
            elif told["event"] == "verified":
                content = inspector.stdout.read(told["size"])
                taken = self._take(told, content)
                inspector.stdin.write(json.dumps({"taken": taken}).encode() + b"\n")
                inspector.stdin.flush()
            else:
                status = ModelStatus.IGNORED if told["event"] == "ignored" else ModelStatus.REFUSED
                untold = f" ({told['untold']} more were not answered before it)" if told["untold"] else ""
                self._answer(status, told, told["reason"] + untold)

    def _take(self, told: dict[str, Any], content: bytes) -> bool:
        """Serve a verified bundle; return whether it is in force now."""
        note = ""
        try:
            bundle_id = told["bundle_id"]
            if bundle_id != self._served.bundle_id:
                bundle = replace(parse_bundle(content, self._contract, f"bundle {bundle_id}"), id=bundle_id)
                rest()
                model, note = self._serve(bundle)
                with self._lock:
                    if self._closing.is_set():
                        return False
                    if told["arrival"] < self._rolled_back:
                        raise Refused("a roll-back was asked for while this was verified")
                    self._put(Served(bundle_id, model))
        except Exception as error:  # whatever it is, it must not be in force, and the announcer must hear of it
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            self._answer(ModelStatus.REFUSED, told, reason)
            return False
        by = f"announced by {told['source'] or 'nobody'}" + (f", key {told['signer']}" if told["signer"] else "")
        self._answer(ModelStatus.ACCEPTED, told, f"in force, {by}" + (f"; {note}" if note else ""))
        return True

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
            self._rolled_back = time.monotonic()
            left = self._served.bundle_id
            if self._before:
                self._install(self._before[-1].model)
                self._served = self._before.pop()
                response.success = True
        if response.success:
            response.message = (
                f"rolled back from {left} to {self._served.bundle_id}; {len(self._before)} more behind it"
            )
            told = {"bundle_id": self._served.bundle_id, "stamp": 0, "arrival": time.monotonic()}
            self._answer(ModelStatus.ROLLED_BACK, told, response.message)
        else:
            response.message = f"nothing to roll back to: no bundle is remembered from before {left}"
        return response

    # Reports.

    def _answer(self, status: int, told: dict[str, Any], reason: str) -> None:
        self._counts[status] += 1
        self._last = f"{NAMES[status]} {told['bundle_id']}: {reason}"
        self._last_bad = status == ModelStatus.REFUSED
        # One call for each: a logger takes one severity from one place in the code.
        if self._last_bad:
            self._log_error(f"bundle {self._last}")
        else:
            self._node.get_logger().info(f"bundle {self._last}")
        self._publish_status(status, told["stamp"], told["bundle_id"], reason, time.monotonic() - told["arrival"])
        self._report()

    def _publish_status(self, status: int, stamp: int, bundle_id: str, reason: str, seconds: float) -> None:
        message = fill(
            ModelStatus(),
            node=self._node.get_fully_qualified_name(),
            status=status,
            bundle_id=bundle_id,
            in_force=self._served.bundle_id,
            reason=reason,
            seconds=seconds,
        )
        set_stamp(message, stamp if 0 <= stamp < 2**31 * 10**9 else 0)
        self._status.publish(message)

    def _log_error(self, text: str) -> None:
        self._node.get_logger().error(text)

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        values = {"in_force": self._served.bundle_id, "behind": str(len(self._before)), "last": self._last}
        values |= {name: str(self._counts[status]) for status, name in NAMES.items()}
        if not self._trust:
            return DiagnosticStatus.OK, CLOSED, values
        level = DiagnosticStatus.WARN if self._last_bad else DiagnosticStatus.OK
        return level, self._last or "nothing announced yet", values


def _enclave_of(node: Any) -> str:
    """Return the enclave of SROS 2 that a node runs in, `/` where it was given none."""
    own = (node.get_name(), node.get_namespace())
    found = [enclave for *names, enclave in node.get_node_names_and_namespaces_with_enclaves() if tuple(names) == own]
    return found[0] if found else "/"


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
