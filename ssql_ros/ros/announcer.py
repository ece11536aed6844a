"""Announces bundles to the nodes that serve them, and hears what each made of it."""

from __future__ import annotations

import array
import time
from pathlib import Path
from typing import Any

from ssql_ros.contract.messages import fill, set_stamp, stamp_of
from ssql_ros.contract.topics import ANNOUNCEMENTS, STATUS
from ssql_ros.model.announcement import Offer, Purpose
from ssql_ros.model.signing import read_private_key
from ssql_ros.msg import ModelAnnouncement, ModelStatus
from ssql_ros.ros.client import Client
from ssql_ros.ros.process import ANSWERS, LATCHED


class Announcer:
    """A node's side of announcing. The newest announcement stays on offer for as long as this lives.

    Args:
        node: whose topics are used; its executor must be spun for answers to be heard.
        source: who announces, for the records.
        key: path of the private key that signs; empty or None: not signed, which does where receivers have a folder.

    Raises:
        ValueError: there is no such key.
    """

    def __init__(self, node: Any, source: str, key: str | Path | None = None) -> None:
        self._node, self._source = node, source
        self._key = read_private_key(Path(key)) if key else None
        self._publisher = node.create_publisher(ModelAnnouncement, ANNOUNCEMENTS, LATCHED)
        self._answers: dict[int, dict[str, ModelStatus]] = {}
        self._closed: dict[str, ModelStatus] = {}
        self._subscription = node.create_subscription(ModelStatus, STATUS, self._on_status, ANSWERS)
        self._stamp = 0

    def announce(
        self, path: Path, contract_id: str, with_data: bool, summary: str = "", purpose: Purpose | None = None
    ) -> Offer:
        """Announce a bundle file; the receivers check it, this does not. Raises OSError: it cannot be read.

        Args:
            with_data: the file goes along in the message, for receivers that cannot read `path`.
            purpose: whose model it is to replace; None: the policy where it has one, else the critic.
        """
        # Receivers take nothing that is not newer than what they have.
        self._stamp = max(time.time_ns(), self._stamp + 1)
        offer = Offer.of_file(path, contract_id, self._stamp, with_data, purpose, self._key, self._source, summary)
        self.publish(offer)
        return offer

    def publish(self, offer: Offer) -> None:
        """Publish an announcement as it is."""
        texts = ("bundle_id", "sha256", "contract_id", "key_id", "path", "source", "summary")
        message = fill(ModelAnnouncement(), purpose=offer.purpose, **{name: getattr(offer, name) for name in texts})
        message.data, message.signature = array.array("B", offer.data), array.array("B", offer.signature)
        set_stamp(message, offer.stamp)
        self._answers[offer.stamp] = {}
        self._publisher.publish(message)

    def answers(self, offer: Offer) -> dict[str, ModelStatus]:
        """Return the answers to an announcement so far, by the name of the node that gave it.

        Nodes that take no announcements at all have refused this one too.
        """
        return self._closed | self._answers.get(offer.stamp, {})

    def receivers(self) -> list[str]:
        """Return the names of the nodes in reach that answer announcements, once for each."""
        name = self._node.resolve_topic_name(STATUS)
        found = self._node.get_publishers_info_by_topic(name)
        # An endpoint is heard of before its node's name is.
        known = [info for info in found if info.node_name and not info.node_name.startswith("_NODE_NAME_UNKNOWN")]
        return sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in known})

    def _on_status(self, message: ModelStatus) -> None:
        stamp = stamp_of(message)
        if not stamp and message.status == ModelStatus.REFUSED:
            self._closed[message.node] = message
        elif stamp in self._answers:
            self._closed.pop(message.node, None)
            self._answers[stamp][message.node] = message


class AnnouncerNode(Client):
    """An announcer with a node and an executor of its own. Use as a context manager."""

    def __init__(self, source: str, key: str | Path | None = None) -> None:
        super().__init__("announcer")
        self.announcer = Announcer(self.node, source, key)
