"""Who may change a running shield's model, over real processes: by default nobody."""

import re
import struct
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
from std_srvs.srv import Trigger

from ssql_ros.graph.processes import Graph
from ssql_ros.model.announcement import Offer, Purpose
from ssql_ros.model.bundle import Bundle, Layer, MarginCritic, load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.model.signing import read_private_key, write_keys
from ssql_ros.msg import ModelAnnouncement, ModelStatus, ShieldState
from ssql_ros.ros.announcer import Announcer
from ssql_ros.ros.process import LATCHED
from support.nodes import run_main
from support.robots import CONTRACT, SAFE_COMMAND, TASK, Robot

pytestmark = pytest.mark.ros
SHIPPED = load_bundle(TASK.bundle_path(), CONTRACT)
FLOOD = Path(__file__).with_name("announcement_flood.py")


def variant(shift: float) -> Bundle:
    members = [list(member) for member in SHIPPED.critic.members]
    last = members[0][-1]
    members[0][-1] = Layer(last.weight, last.bias + np.float32(shift))
    return with_probes(replace(SHIPPED, critic=replace(SHIPPED.critic, members=tuple(map(tuple, members)))), CONTRACT)


def margins(delta: float, certificate: dict | None = None) -> Bundle:
    """The shipped network, read as one of margins."""
    return with_probes(replace(SHIPPED, critic=MarginCritic.of(SHIPPED.critic, delta, 0.9, certificate)), CONTRACT)


CERTIFICATE = {"delta": -0.1, "below": 100}


class Peer(Robot):
    """A robot with the means to announce whatever it likes."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.statuses = folder, []
        self.announcer = Announcer(self.node, "peer")
        self.node.create_subscription(ModelStatus, "model_status", self.statuses.append, 10)
        self.until(self.announcer.receivers)

    def answer_to(self, offer: Offer) -> ModelStatus:
        self.announcer.publish(offer)
        self.until(lambda: self.announcer.answers(offer), self.command(SAFE_COMMAND))
        return self.announcer.answers(offer)["/shield_node"]

    def call(self, service, request, kind=Trigger):
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready, self.command(SAFE_COMMAND))
        future = client.call_async(request)
        self.until(future.done, self.command(SAFE_COMMAND))
        self.node.destroy_client(client)
        return future.result()

    def set(self, name, value) -> tuple[bool, str]:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call("shield_node/set_parameters", request, SetParameters).results[0]
        return result.successful, result.reason

    def settled(self) -> ShieldState:
        """The shield's state some decisions from now."""
        self.accounts.clear()
        self.until(lambda: len(self.accounts) > 10, self.command(SAFE_COMMAND))
        self.states.clear()
        self.until(lambda: self.states, self.command(SAFE_COMMAND))
        return self.states[-1]

    def until_in_force(self, bundle_id: str) -> ShieldState:
        self.until(lambda: self.states and self.states[-1].bundle_id == bundle_id, self.command(SAFE_COMMAND))
        return self.states[-1]


@contextmanager
def shielded(folder: Path, **settings):
    with Graph(folder / "logs") as graph:
        graph.start("shield_node", **settings)
        peer = Peer(folder)
        peer.graph = graph
        try:
            peer.until(lambda: peer.accounts, peer.command(SAFE_COMMAND))
            yield peer
        finally:
            peer.close()


@pytest.fixture
def key(tmp_path) -> Path:
    write_keys(tmp_path / "key")
    return tmp_path / "key"


def offer_of(bundle: Bundle, path: Path, **changes: object) -> Offer:
    saved = save_bundle(bundle, path)
    return replace(Offer.of_file(Path(saved.path), CONTRACT.id, time.time_ns(), True, Purpose.BOTH), **changes)


def test_a_peer_changes_nothing_by_default_and_is_told_so(domain, tmp_path, key):
    with shielded(tmp_path) as peer:
        for sign in (False, True):
            offer = offer_of(variant(-1.0), tmp_path / "rogue.safetensors")
            status = peer.answer_to(offer.signed(read_private_key(key)) if sign else offer)
            assert status.status == ModelStatus.REFUSED
            assert "neither bundle_folder nor announcement_keys is set" in status.reason
        assert peer.settled().bundle_id == SHIPPED.id
        topic = peer.node.resolve_topic_name("model_announcements")
        assert not peer.node.get_subscriptions_info_by_topic(topic)  # nobody even listens


def test_only_what_the_key_has_signed_is_taken_once_and_in_order(domain, tmp_path, key):
    private, other = read_private_key(key), tmp_path / "other"
    write_keys(other)
    with shielded(tmp_path, announcement_keys=[f"{key}.pub"]) as peer:
        first, second = (offer_of(variant(-1.0 - i), tmp_path / f"{i}.safetensors") for i in range(2))
        refused = {
            "unsigned": (first, "signature: this node takes only"),
            "wrong key": (first.signed(read_private_key(other)), "is none of this node's announcement_keys"),
            "tampered": (replace(first.signed(private), stamp=first.stamp + 1), "signature: does not fit"),
            "other purpose": (replace(first.signed(private), purpose=1), "signature: does not fit"),
            "other contract": (replace(first, contract_id="spider-0").signed(private), "is for contract 'spider-0'"),
            "tampered data": (
                replace(first, data=first.data[:-1] + b"\0", stamp=first.stamp + 2).signed(private),
                "sha256: the content is not what was announced",
            ),
            "far ahead": (replace(first, stamp=time.time_ns() + 55 * 10**9).signed(private), "ahead of this machine"),
        }
        for name, (offer, reason) in refused.items():
            status = peer.answer_to(offer)
            assert (status.status, status.in_force) == (ModelStatus.REFUSED, SHIPPED.id), name
            assert reason in status.reason, name
        assert peer.settled().bundle_id == SHIPPED.id
        # What lay ahead keeps nobody out, before and after a roll-back.
        taken = [replace(offer, stamp=time.time_ns() + i).signed(private) for i, offer in enumerate((first, second))]
        for offer in taken:
            assert peer.answer_to(offer).status == ModelStatus.ACCEPTED
            peer.until_in_force(offer.bundle_id)
        assert peer.call("shield_node/rollback", Trigger.Request()).success
        assert "before one that was taken already" in peer.answer_to(taken[0]).reason
        told_again = peer.answer_to(taken[1])
        assert (told_again.status, "taken already" in told_again.reason) == (ModelStatus.IGNORED, True)
        again = replace(second, stamp=time.time_ns()).signed(private)
        assert peer.answer_to(again).status == ModelStatus.ACCEPTED
        peer.until_in_force(second.bundle_id)


def test_files_of_the_folder_are_taken_and_no_others(domain, tmp_path):
    folder = tmp_path / "offers"
    folder.mkdir()
    with shielded(tmp_path, bundle_folder=str(folder)) as peer:
        outside = offer_of(variant(-1.0), tmp_path / "outside.safetensors")
        (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
        for path in (outside.path, str(folder / "link.safetensors"), "/etc/passwd", "/nowhere"):
            status = peer.answer_to(replace(outside, path=path, stamp=time.time_ns()))
            assert status.reason == "path: expected a file in this node's bundle_folder, or a signature", path
        inside = offer_of(variant(-2.0), folder / "inside.safetensors")
        wrong = replace(outside, path=inside.path, stamp=time.time_ns())
        reason = peer.answer_to(wrong).reason
        assert reason == "sha256: the content is not what was announced"  # and not what it has
        assert peer.settled().bundle_id == SHIPPED.id
        assert peer.answer_to(replace(inside, stamp=time.time_ns())).status == ModelStatus.ACCEPTED
        peer.until_in_force(inside.bundle_id)


def test_rule_is_not_changed_unless_allowed_and_never_without_a_certificate(domain, tmp_path, key):
    private = read_private_key(key)
    with shielded(tmp_path, announcement_keys=[f"{key}.pub"]) as peer:

        def announced(bundle: Bundle) -> ModelStatus:
            return peer.answer_to(offer_of(bundle, tmp_path / "other.safetensors").signed(private))

        assert (
            "of rule margin, this shield was configured with one of rule probability"
            in announced(margins(-0.2, CERTIFICATE)).reason
        )
        # Neither by ~/reload.
        save_bundle(margins(-0.2, CERTIFICATE), tmp_path / "margin.safetensors")
        assert peer.set("bundle", str(tmp_path / "margin.safetensors"))[0]
        answer = peer.call("shield_node/reload", Trigger.Request())
        assert (answer.success, "allow_rule_change" in answer.message) == (False, True)
        assert peer.settled().rule == ShieldState.PROBABILITY
        assert peer.set("allow_rule_change", True)[0]
        assert "certificate: expected one for delta -0.2" in announced(margins(-0.2)).reason
        status = announced(margins(-0.2, CERTIFICATE))
        assert status.status == ModelStatus.ACCEPTED
        state = peer.until_in_force(status.bundle_id)
        assert (state.rule, state.delta, np.isnan(state.epsilon)) == (ShieldState.MARGIN, -0.2, True)


def test_margin_bundle_shows_delta_and_tightens_but_never_loosens(domain, tmp_path, key):
    private, path = read_private_key(key), tmp_path / "margin.safetensors"
    own = save_bundle(margins(-0.3, CERTIFICATE), path)
    settings = {"bundle": str(path), "delta_margin": 0.25, "announcement_keys": [f"{key}.pub"]}
    with shielded(tmp_path, **settings) as peer:
        state = peer.until_in_force(own.id)
        assert (state.rule, np.isnan(state.epsilon)) == (ShieldState.MARGIN, True)
        assert state.delta == pytest.approx(-0.55)
        account = peer.hear(lambda account: account.rule == ShieldState.MARGIN, peer.command(SAFE_COMMAND))
        assert account.delta == pytest.approx(-0.55)
        assert np.isnan(account.epsilon)
        status = peer.answer_to(offer_of(margins(-0.1, CERTIFICATE), tmp_path / "loose").signed(private))
        assert status.status == ModelStatus.ACCEPTED
        assert "delta -0.55 in force: its own is -0.1" in status.reason
        assert peer.until_in_force(status.bundle_id).delta == pytest.approx(-0.55)
        assert peer.set("delta_margin", 0.5)[0]
        assert peer.settled().delta == pytest.approx(-0.8)
        assert not peer.set("delta_margin", -0.5)[0]
        log = (tmp_path / "logs" / "shield_node.log").read_text()
        assert "delta -0.55, enforce" in log


def test_uncertified_margin_bundle_is_warned_of(domain, tmp_path):
    path = tmp_path / "margin.safetensors"
    save_bundle(margins(0.0), path)
    with shielded(tmp_path, bundle=str(path)) as peer:
        assert peer.settled().delta == 0.0
        log = (tmp_path / "logs" / "shield_node.log").read_text()
        assert f"{path}: delta 0 is not certified" in log


def test_wrong_settings_are_named_at_start(domain, tmp_path, capfd):
    def started(setting: str) -> str:
        status, _, error = run_main("shield_node", capfd, "--ros-args", "-p", setting)
        assert status == 2
        return error

    (tmp_path / "file").write_text("")
    assert "take_announcements: is no more" in started("take_announcements:=true")
    assert "bundle_folder: expected a folder" in started(f"bundle_folder:={tmp_path}/file")
    assert "key.pub: cannot be read" in started("announcement_keys:=[/nowhere/key.pub]")
    for value in ("-1.0", "abc", "1.0", "true", ".nan"):
        assert "epsilon: expected above 0 and below 1, or none for the bundle's own" in started(f"epsilon:={value}")


@pytest.mark.parametrize("place", ["weight", "header"])
def test_damaged_file_is_refused_at_reload_and_at_configure(domain, tmp_path, place):
    path = tmp_path / "bundle.safetensors"
    whole = Path(SHIPPED.path).read_bytes()
    path.write_bytes(whole)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = np.random.default_rng(0)
    with shielded(tmp_path, bundle=str(path)) as peer:
        for _ in range(10):
            low, high = (header, len(whole)) if place == "weight" else (0, header)
            data = bytearray(whole)
            data[rng.integers(low, high)] ^= 1 << rng.integers(8)
            path.write_bytes(data)
            answer = peer.call("shield_node/reload", Trigger.Request())
            assert (answer.success, str(path) in answer.message) == (False, True)
        assert peer.settled().bundle_id == SHIPPED.id
    with Graph(tmp_path / "second") as graph:
        graph.start("shield_node", bundle=str(path))
        log = tmp_path / "second" / "shield_node.log"
        end = time.monotonic() + 60.0
        while "cannot configure" not in log.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert str(path) in log.read_text()


def resident(name: str) -> int:
    """The resident memory in kB of the one process of this executable that this test has started."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", name], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.parametrize(("rate", "size"), [(20, 800_000), (1000, 1000)])
def test_flood_of_garbage_changes_nothing_takes_no_memory_and_keeps_nobody_out(domain, tmp_path, key, rate, size):
    private = read_private_key(key)
    with shielded(tmp_path, announcement_keys=[f"{key}.pub"]) as peer:
        pid = str(peer.graph.processes["shield_node"].pid)
        peer.settled()
        flood = subprocess.Popen([sys.executable, str(FLOOD), str(rate), str(size), CONTRACT.id])
        try:
            publishers = lambda: len(peer.node.get_publishers_info_by_topic("/model_announcements"))  # noqa: E731
            peer.until(lambda: publishers() > 1, peer.command(SAFE_COMMAND), seconds=60.0)
            for _ in range(3):
                assert peer.settled().bundle_id == SHIPPED.id
            before = resident(pid)
            for _ in range(10):
                assert peer.settled().bundle_id == SHIPPED.id
            assert resident(pid) - before < 4000
            good = offer_of(variant(-1.0), tmp_path / "good.safetensors")
            assert peer.answer_to(replace(good, stamp=time.time_ns()).signed(private)).status == ModelStatus.ACCEPTED
            assert flood.poll() is None
        finally:
            flood.kill()
            flood.wait()


def test_huge_announcement_is_refused_by_its_size_and_costs_the_shield_no_memory(domain, tmp_path, key):
    with shielded(tmp_path, announcement_keys=[f"{key}.pub"]) as peer:
        pid = str(peer.graph.processes["shield_node"].pid)
        peer.settled()
        before = resident(pid)
        offer = Offer.of_file(Path(SHIPPED.path), CONTRACT.id, time.time_ns(), False, Purpose.CRITIC)
        status = peer.answer_to(replace(offer, data=bytes(100 * 2**20)).signed(read_private_key(key)))
        assert re.match("has 104857600 bytes, at most 67108864 are taken", status.reason)
        assert resident(pid) - before < 20_000


def test_announcement_is_what_is_on_the_topic(domain, tmp_path, key):
    """A publisher of its own, without this package's announcer."""
    with shielded(tmp_path, announcement_keys=[f"{key}.pub"]) as peer:
        publisher = peer.node.create_publisher(ModelAnnouncement, "model_announcements", LATCHED)
        publisher.publish(ModelAnnouncement(sha256="0" * 64, purpose=1))
        peer.until(lambda: peer.statuses, peer.command(SAFE_COMMAND))
        assert peer.statuses[-1].status == ModelStatus.REFUSED
