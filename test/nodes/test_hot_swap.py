"""New models for a running shield over real processes: what verifies is taken, what does not changes nothing."""

import copy
import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from ssql_ros.contract.messages import stamp_of
from ssql_ros.graph.processes import Graph
from ssql_ros.model.announcement import Offer, Purpose
from ssql_ros.model.bundle import Bundle, Layer, load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.model.signing import read_private_key, write_keys
from ssql_ros.msg import ModelStatus, ShieldedAction, ShieldState
from ssql_ros.ros.announcer import Announcer
from support.robots import CONTRACT, SAFE_COMMAND, TASK, Robot
from support.toy_robot import toy_bundle, toy_contract

pytestmark = pytest.mark.ros
SHIPPED = load_bundle(TASK.bundle_path(), CONTRACT)


def variant(shift: float, epsilon: float = 0.01) -> Bundle:
    """The shipped critic, its logit moved by `shift` / members: its scores tell it from others."""
    members = [list(member) for member in SHIPPED.critic.members]
    last = members[0][-1]
    members[0][-1] = Layer(last.weight, last.bias + np.float32(shift))
    critic = replace(SHIPPED.critic, members=tuple(map(tuple, members)), epsilon=epsilon)
    return with_probes(replace(SHIPPED, critic=critic), CONTRACT)


class Swapper(Robot):
    """A robot whose graph is offered models."""

    def __init__(self, key: Path):
        super().__init__()
        self.key = read_private_key(key)
        self.announcer = Announcer(self.node, "test", key)
        self.until(self.announcer.receivers)

    def announce(self, path: Path, with_data: bool = False, purpose: Purpose | None = None) -> ModelStatus:
        """Announce a file; return the shield's answer."""
        return self.answer_to(self.announcer.announce(path, CONTRACT.id, with_data, purpose=purpose))

    def publish(self, offer: Offer, sign: bool = True) -> ModelStatus:
        """Announce whatever it is, stamped now; return the shield's answer."""
        offer = replace(offer, stamp=time.time_ns())
        if sign:
            offer = offer.signed(self.key)
        self.announcer.publish(offer)
        return self.answer_to(offer)

    def answer_to(self, offer: Offer) -> ModelStatus:
        answers = lambda: self.announcer.answers(offer)  # noqa: E731
        self.until(lambda: "/shield_node" in answers(), self.command(SAFE_COMMAND))
        return answers()["/shield_node"]

    def call(self, kind, service, request):
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready, self.command(SAFE_COMMAND))
        future = client.call_async(request)
        self.until(future.done, self.command(SAFE_COMMAND))
        self.node.destroy_client(client)
        return future.result()

    def rollback(self):
        return self.call(Trigger, "shield_node/rollback", Trigger.Request())

    def account(self) -> ShieldedAction:
        """The shield's next decision on the safe command; accounts of earlier ones may still be on their way."""
        since = self.node.get_clock().now().nanoseconds

        def wanted(account: ShieldedAction) -> bool:
            return account.decision == ShieldedAction.PASSED and stamp_of(account) > since

        return self.hear(wanted, self.command(SAFE_COMMAND))


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    write_keys(path)
    return path


@contextmanager
def shielded(folder: Path, key: Path, **settings):
    """A shield with these parameters, a robot in front of it, and whoever announces with this key."""
    with Graph(folder / "logs") as graph:
        graph.start("shield_node", **settings)
        robot = Swapper(key)
        robot.graph = graph
        try:
            robot.until(lambda: robot.accounts)
            yield robot
        finally:
            robot.close()


@pytest.fixture
def swapper(domain, tmp_path, key):
    """A shield that takes what is signed."""
    with shielded(tmp_path, key, announcement_keys=[f"{key}.pub"]) as robot:
        yield robot


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [save_bundle(variant(shift), folder / f"{i}.safetensors") for i, shift in enumerate((-1.0, -2.0, -3.0))]


@pytest.mark.parametrize("with_data", [False, True], ids=["path", "data"])
def test_announced_bundle_is_in_force_from_the_next_decision_and_shown_in_the_state(swapper, bundles, with_data):
    before = swapper.account()
    status = swapper.announce(Path(bundles[0].path), with_data)
    assert (status.status, status.bundle_id, status.in_force) == (ModelStatus.ACCEPTED, bundles[0].id, bundles[0].id)
    after = swapper.account()
    assert (before.bundle_id, after.bundle_id) == (SHIPPED.id, bundles[0].id)
    assert after.q_safe_proposal < before.q_safe_proposal
    assert (before.rule, after.rule) == (ShieldedAction.PROBABILITY, ShieldedAction.PROBABILITY)
    assert (before.epsilon, after.epsilon) == (SHIPPED.critic.epsilon, 0.01)
    assert math.isnan(before.delta)
    assert math.isnan(after.delta)
    swapper.until(lambda: swapper.states[-1].bundle_id == bundles[0].id, swapper.command(SAFE_COMMAND))
    state = swapper.states[-1]
    assert (state.rule, state.epsilon, math.isnan(state.delta)) == (ShieldState.PROBABILITY, 0.01, True)


def test_larger_epsilon_of_an_announced_bundle_is_capped_and_said(swapper, tmp_path):
    loose = save_bundle(variant(-1.0, epsilon=0.5), tmp_path / "loose")
    status = swapper.announce(Path(loose.path))
    assert status.status == ModelStatus.ACCEPTED
    assert "epsilon 0.02 in force: its own, 0.5, is more than is allowed" in status.reason
    account = swapper.account()
    assert (account.bundle_id, account.epsilon) == (loose.id, SHIPPED.critic.epsilon)


def test_epsilon_that_was_set_is_the_limit_over_a_swap(swapper, bundles):
    parameters = [Parameter("epsilon", value=0.007).to_parameter_msg()]
    answer = swapper.call(SetParameters, "shield_node/set_parameters", SetParameters.Request(parameters=parameters))
    assert answer.results[0].successful
    swapper.announce(Path(bundles[0].path))
    account = swapper.account()
    assert (account.bundle_id, account.epsilon) == (bundles[0].id, 0.007)


def test_rollback_goes_back_bundle_by_bundle_until_nothing_is_left(swapper, bundles):
    for bundle in bundles:
        assert swapper.announce(Path(bundle.path)).status == ModelStatus.ACCEPTED
    statuses = []
    swapper.node.create_subscription(ModelStatus, "model_status", statuses.append, 10)
    for wanted in (bundles[1].id, bundles[0].id, SHIPPED.id):
        answer = swapper.rollback()
        assert answer.success
        assert wanted in answer.message
        assert swapper.account().bundle_id == wanted
    assert [s.bundle_id for s in statuses if s.status == ModelStatus.ROLLED_BACK][-1] == SHIPPED.id
    assert swapper.account().epsilon == SHIPPED.critic.epsilon
    answer = swapper.rollback()
    assert not answer.success
    assert answer.message.startswith("nothing to roll back to")
    # And what was rolled back can be announced anew.
    assert swapper.announce(Path(bundles[2].path)).status == ModelStatus.ACCEPTED


def test_announcement_told_again_or_older_than_the_last_taken_does_not_undo_a_rollback(swapper, bundles):
    first = swapper.announcer.announce(Path(bundles[0].path), CONTRACT.id, False)
    assert swapper.answer_to(first).status == ModelStatus.ACCEPTED
    assert swapper.rollback().success
    swapper.announcer.publish(first)  # as a connection that comes back does
    assert swapper.answer_to(first).status == ModelStatus.IGNORED
    older = replace(first, stamp=first.stamp - 1).signed(swapper.key)
    swapper.announcer.publish(older)
    assert "before one that was taken already" in swapper.answer_to(older).reason
    swapper.announcer.publish(first)  # with another between
    assert "was taken already" in swapper.answer_to(first).reason
    assert swapper.account().bundle_id == SHIPPED.id


def garbage(folder: Path, good: Bundle):
    """Announcements of which none verifies, with what must be said of each."""
    offer = Offer.of_file(Path(good.path), CONTRACT.id, 0, False, Purpose.CRITIC)
    data = Path(good.path).read_bytes()

    def of(content: bytes, **changes) -> Offer:
        sha256 = hashlib.sha256(content).hexdigest()
        return replace(offer, sha256=sha256, bundle_id=sha256[:16], data=content, **changes)

    def saved(name: str, bundle: Bundle) -> Offer:
        return Offer.of_file(Path(save_bundle(bundle, folder / name).path), CONTRACT.id, 0, True, Purpose.CRITIC)

    nan = copy.deepcopy(SHIPPED)
    nan.critic.members[0][0].weight[:] = np.nan
    mismatch = replace(variant(1.0), probes=variant(0.0).probes)
    first = SHIPPED.critic.members[0]
    narrow = (Layer(first[0].weight[:, :8], first[0].bias[:8]), Layer(first[-1].weight[:8], first[-1].bias))
    uneven = replace(SHIPPED.critic, members=(first, narrow))
    flipped = bytearray(data)
    flipped[len(flipped) // 2] ^= 1
    os.mkfifo(folder / "pipe")
    (folder / "huge").touch()
    os.truncate(folder / "huge", 2**40)
    other = toy_contract()
    return {
        "random bytes": (of(np.random.default_rng(0).bytes(10_000)), "is not a whole safetensors file"),
        "truncated file": (of(data[: len(data) // 2]), "is not a whole safetensors file"),
        "flipped bit": (replace(offer, data=bytes(flipped)), "sha256: the content is not what was announced"),
        "flipped bit under its own hash": (of(bytes(flipped)), "digest: what is in the file"),
        "wrong hash": (replace(offer, sha256="0" * 64, bundle_id="0" * 16), "sha256: the content is not"),
        "no purpose": (replace(offer, purpose=0), "purpose: expected CRITIC (1), POLICY (2) or BOTH (3), got 0"),
        "wrong contract": (replace(offer, contract_id="spider-0123"), "is for contract 'spider-0123'"),
        "contract that lies": (
            replace(saved("toy", with_probes(toy_bundle(other), other)), contract_id=CONTRACT.id),
            f"trained for contract {other.id}",
        ),
        "NaN weights": (saved("nan", nan), "has values that are not finite"),
        "probe mismatch": (saved("mismatch", mismatch), "the critic gives"),
        "no probes": (saved("bare", replace(SHIPPED, probes={})), "has no probes of its critic"),
        "device": (replace(offer, path="/dev/zero"), "there is no such bundle file"),
        "pipe": (replace(offer, path=str(folder / "pipe")), "there is no such bundle file"),
        "huge file": (replace(offer, path=str(folder / "huge")), "there is no such bundle file"),
        "missing file": (replace(offer, path="/nowhere/at/all"), "there is no such bundle file"),
        "nothing": (replace(offer, path=""), "neither path nor data"),
        "no fields": (Offer(0, "", "", "", purpose=1), "is for contract ''"),
        "unservable": (saved("uneven", replace(SHIPPED, critic=uneven)), "expected members of one shape"),
    }


def test_garbage_of_every_kind_is_refused_by_name_and_changes_no_command(swapper, bundles, tmp_path):
    before = swapper.account()
    for name, (offer, reason) in garbage(tmp_path, bundles[0]).items():
        swapper.accounts.clear()
        swapper.commands.clear()
        status = swapper.publish(offer)
        assert status.status == ModelStatus.REFUSED, name
        assert reason in status.reason, name
        assert (status.bundle_id, status.in_force) == (offer.bundle_id, SHIPPED.id), name
        account = swapper.account()
        same = ("bundle_id", "q_safe_proposal", "q_safe_action", "epsilon", "decision", "reason")
        assert [getattr(account, f) for f in same] == [getattr(before, f) for f in same], name
        assert {account.bundle_id for account in swapper.accounts} == {SHIPPED.id}, name
        assert all(command.position.tolist() == SAFE_COMMAND for command in swapper.commands), name
    # The future, and a bundle that this node does not serve.
    offer = Offer.of_file(Path(bundles[0].path), CONTRACT.id, time.time_ns() + 10**12, False, key=swapper.key)
    swapper.announcer.publish(offer)
    assert "ahead of this machine's clock" in swapper.answer_to(offer).reason
    bare = save_bundle(replace(SHIPPED, critic=None, reward=SHIPPED.critic), tmp_path / "reward")
    status = swapper.announce(Path(bare.path), purpose=Purpose.BOTH)
    assert (status.status, status.reason) == (ModelStatus.IGNORED, "has no critic, only reward")
    # After all that it still takes what is good.
    assert swapper.announce(Path(bundles[0].path)).status == ModelStatus.ACCEPTED
    assert swapper.account().bundle_id == bundles[0].id


def test_shield_can_be_disabled_and_enabled_again(swapper):
    for enabled in (False, True, False, True):
        assert swapper.call(SetBool, "shield_node/enable", SetBool.Request(data=enabled)).success
    assert swapper.account().enforced


ANNOUNCE_FOR_EVER = """
import sys
from pathlib import Path
from ssql_ros.ros.announcer import AnnouncerNode
with AnnouncerNode("killed", sys.argv[4]) as node:
    i = 0
    while True:
        node.announcer.announce(Path(sys.argv[1 + i % 2]), sys.argv[3], True)
        node.spin(0.01)
        i += 1
"""


def test_announcer_that_is_killed_midway_leaves_a_whole_model_in_force(swapper, bundles, key):
    names = {bundle.id for bundle in bundles[:2]}
    command = [sys.executable, "-c", ANNOUNCE_FOR_EVER, bundles[0].path, bundles[1].path, CONTRACT.id, key]
    for _ in range(2):
        process = subprocess.Popen(command)
        try:
            swapper.accounts.clear()
            # Both have been in force: it is in the middle of it.
            swapper.until(lambda: names <= {a.bundle_id for a in swapper.accounts}, swapper.command(SAFE_COMMAND))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        account = swapper.account()
        assert account.bundle_id in names
        bundle = next(bundle for bundle in bundles if bundle.id == account.bundle_id)
        assert account.epsilon == bundle.critic.epsilon
    assert swapper.announce(Path(bundles[2].path)).status == ModelStatus.ACCEPTED


def test_node_that_comes_late_gets_the_newest_announcement(domain, bundles, tmp_path, key):
    with Graph(tmp_path / "logs") as graph:
        robot = Robot()
        try:
            announcer = Announcer(robot.node, "test", key)
            offers = [announcer.announce(Path(bundle.path), CONTRACT.id, True) for bundle in bundles]
            graph.start("shield_node", announcement_keys=[f"{key}.pub"])
            robot.until(lambda: announcer.answers(offers[-1]))
            robot.until(lambda: robot.accounts and robot.accounts[-1].bundle_id == bundles[-1].id)
            assert not announcer.answers(offers[0])
        finally:
            robot.close()


@pytest.mark.long
def test_ssql_announce_prints_what_each_node_made_of_it(swapper, bundles, tmp_path, key):
    def ssql(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "ssql_ros.cli.main", "bundle", "announce", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        swapper.until(lambda: process.poll() is not None, swapper.command(SAFE_COMMAND), seconds=60.0)
        return process.returncode, process.stdout.read()

    status, text = ssql(bundles[0].path, "--data", "--key", key)
    assert (status, f"/shield_node: accepted {bundles[0].id}" in text) == (0, True), text
    assert swapper.account().bundle_id == bundles[0].id
    bare = save_bundle(replace(SHIPPED, probes={}), tmp_path / "bare")
    status, text = ssql(bare.path, "--contract", "minitaur", "--key", key)
    assert (status, "/shield_node: refused" in text) == (1, True), text
    status, text = ssql(bundles[1].path)
    assert (status, "/shield_node: refused" in text) == (1, True), text
    (tmp_path / "none").write_bytes(b"nothing")
    status, text = ssql(str(tmp_path / "none"), "--contract", "minitaur")
    assert (status, "is not a whole safetensors file" in text) == (2, True), text
