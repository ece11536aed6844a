"""What receivers answer to the learner's offers, over real ROS: told, written down, and not asked for blindly."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node

from ssql_ros.live.offers import answers_path, in_service
from ssql_ros.msg import ModelAnnouncement, ModelStatus, Proposal
from ssql_ros.nodes.offers import Offers
from ssql_ros.ros.announcer import Announcer
from ssql_ros.ros.process import ANSWERS, COMMAND, LATCHED


class Stand:
    """A learner's side of offering, and receivers that answer as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rclpy.init()
        self.learner, self.other = Node("learner"), Node("policy_node")
        self._executor = EventsExecutor()
        for node in (self.learner, self.other):
            self._executor.add_node(node)
        self.offers = Offers(self.learner, Announcer(self.learner, "learner"), "minitaur-1")
        self.announced: list[ModelAnnouncement] = []
        self.other.create_subscription(ModelAnnouncement, "model_announcements", self.announced.append, LATCHED)
        self._status = self.other.create_publisher(ModelStatus, "model_status", ANSWERS)
        self.proposals = self.other.create_publisher(Proposal, "joint_proposals", COMMAND)
        self.until(lambda: self.learner.count_publishers("joint_proposals") == 1)

    def until(self, condition) -> None:
        end = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < end, self.offers.describe()
            self._executor.spin_once(timeout_sec=0.05)
            self.offers.hear()

    def offer(self, number: int) -> bool:
        """Offer a round; return whether it was announced."""
        path = self.folder / "offered" / f"round_{number:03d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"round %d" % number)
        before = self.offers.announced
        self.offers.offer(number, path, True, "")
        if self.offers.announced == before:
            return False
        self.until(lambda: len(self.announced) and bytes(self.announced[-1].data) == path.read_bytes())
        return True

    def answer(self, node: str, status: int, reason: str, announcement: int = -1) -> None:
        message = ModelStatus(node=node, status=status, reason=reason)
        message.header.stamp = self.announced[announcement].header.stamp
        self._status.publish(message)


@pytest.fixture
def stand(tmp_path: Path, domain: int) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    for node in (made.learner, made.other):
        made._executor.remove_node(node)
    made._executor.shutdown()
    for node in (made.learner, made.other):
        node.destroy_node()
    rclpy.try_shutdown()


def test_who_took_it_and_who_refused_it_is_told_and_written_down(stand: Stand, tmp_path: Path) -> None:
    assert stand.offer(1)
    stand.answer("/policy_node", ModelStatus.ACCEPTED, "in force")
    stand.answer("/shield_node", ModelStatus.ACCEPTED, "in force")
    stand.until(lambda: "policy_node (round 1); shield_node (round 1)" in stand.offers.describe()["accepted_by"])
    assert stand.offer(2)
    stand.answer("/policy_node", ModelStatus.REFUSED, "an answer takes 0.0071 s, at most 0.005 s are there")
    stand.until(lambda: "policy_node (round 2: an answer takes" in stand.offers.describe()["refused_by"])
    assert "policy_node has refused round 2" in stand.offers.refused()
    # Who drives has refused it: the round before acts on.
    path = tmp_path / "offered" / "round_002.safetensors"
    assert json.loads(answers_path(path).read_text())["refused"]
    assert in_service(tmp_path) == tmp_path / "offered" / "round_001.safetensors"
    # An answer to the round before, which comes late, is heard too.
    stand.answer("/late_node", ModelStatus.ACCEPTED, "in force", announcement=0)
    stand.until(lambda: "late_node (round 1)" in stand.offers.describe()["accepted_by"])


def test_a_refusal_is_not_repeated_blindly(stand: Stand) -> None:
    def refused(number: int) -> None:
        assert stand.offer(number)
        stand.answer("/policy_node", ModelStatus.REFUSED, f"an answer takes 0.00{number} s, at most 0.005 s are there")
        stand.until(lambda: f"{number}: an answer takes 0.00{number}" in stand.offers.refused())

    refused(1)
    refused(2)
    assert [stand.offer(3), stand.offer(4)] == [False, False]
    refused(5)
    assert not stand.offer(6)
    # Whoever has seen to it asks again; an acceptance clears the record.
    stand.offers.ask_again()
    assert stand.offer(7)
    stand.answer("/policy_node", ModelStatus.ACCEPTED, "in force")
    stand.until(lambda: "policy_node (round 7)" in stand.offers.describe()["accepted_by"])
    assert stand.offers.refused() == ""
    assert stand.offer(8)


def test_a_file_that_is_gone_is_told(stand: Stand, tmp_path: Path) -> None:
    stand.offers.offer(1, tmp_path / "gone.safetensors", True, "")
    assert "round 1 cannot be announced" in stand.offers.fault
