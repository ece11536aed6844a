"""docs/how_to/add_a_robot.md, walked through: its files, as another package, and its commands, as they stand."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sensor_msgs.msg import JointState

from ssql_ros.ros.client import Client
from ssql_ros.ros.process import EVENT
from support.documented import save_careless_critic, shown_commands, write_site

PAGE = "how_to/add_a_robot.md"
COMMANDS = shown_commands(PAGE)
PATIENCE = 120.0
BRIEFLY = ("--seconds", "1.5")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a reader of the page works in, with the robot's package installed."""
    folder = write_site(tmp_path_factory.mktemp("crawler"))
    save_careless_critic(folder, "critic.safetensors")
    return folder


def shown(*words: str) -> list[str]:
    """The first command of the page that begins with these words."""
    found = [command for command in COMMANDS if command[: len(words)] == list(words)]
    assert found, f"{PAGE} shows no `ssql {' '.join(words)}`"
    return found[0]


def begin(site: Path, words: list[str], log: Path) -> subprocess.Popen:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "ssql_ros.cli.main", *words]
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=site, env=environment, stdout=file, stderr=file)


def done(site: Path, words: list[str], tmp_path: Path) -> tuple[int, str]:
    """Exit status and output of a command that ends by itself."""
    log = tmp_path / "done.log"
    process = begin(site, words, log)
    try:
        return process.wait(PATIENCE), log.read_text()
    finally:
        process.kill()


@contextmanager
def running(site: Path, words: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A command that runs until Ctrl-C."""
    process = begin(site, words, log)
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130, log.read_text()
    finally:
        process.kill()


class Heard(Client):
    """What is published on the crawler's topics."""

    def __init__(self) -> None:
        super().__init__("heard")
        self.commands: list[float] = []
        self.node.create_subscription(
            JointState, "joint_commands", lambda message: self.commands.append(message.velocity[0]), EVENT
        )

    def until(self, condition, log: Path, process: subprocess.Popen) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, log.read_text()
            assert process.poll() is None, log.read_text()
            self.spin(0.05)

    def published(self, topic: str) -> bool:
        return self.node.count_publishers(topic) > 0


@pytest.fixture
def heard(domain):
    with Heard() as heard:
        yield heard


@pytest.mark.ros
def test_the_shield_runs_on_the_scripted_driver_and_holds_when_it_is_gone(site, heard, tmp_path) -> None:
    status, printed = done(site, shown("contract", "check", "crawler"), tmp_path)
    assert (status, "crawler-" in printed) == (0, True), printed
    driver_log, log = tmp_path / "driver.log", tmp_path / "run.log"
    with running(site, shown("run", "driver"), driver_log) as driver:
        heard.until(lambda: heard.published("odom"), driver_log, driver)
        status, printed = done(site, [*shown("check", "driver", "--robot"), *BRIEFLY], tmp_path)
        assert (status, "the shield can run on it" in printed) == (0, True), printed
        with running(site, shown("run", "--task"), log) as shield:
            # What the untrusted controller wants, as this critic minds nothing.
            heard.until(lambda: any(value > 1.0 for value in heard.commands), log, shield)
            driver.send_signal(signal.SIGINT)
            heard.until(lambda: driver.poll() is not None, log, shield)
            heard.commands.clear()
            heard.until(lambda: heard.commands[-5:] == 5 * [0.0], log, shield)
    assert "shield: enforce, bundle " in log.read_text()


@pytest.mark.ros
def test_a_driver_that_is_wrong_on_purpose_is_found(site, heard, tmp_path) -> None:
    (broken,) = (command for command in COMMANDS if "--set" in command and command[:2] == ["run", "driver"])
    log = tmp_path / "driver.log"
    with running(site, broken, log) as driver:
        heard.until(lambda: heard.published("odom"), log, driver)
        status, printed = done(site, [*shown("check", "driver", "--contract"), *BRIEFLY], tmp_path)
    assert status == 1
    assert "header.stamp is 0" in printed
    assert "`stamps: arrival`" in printed


@pytest.mark.long
def test_what_the_page_learns_keeps_the_crawler_on_its_rail(site, tmp_path) -> None:
    for words in (("eval", "behaviour"), ("train", "critic"), ("eval", "shield")):
        status, printed = done(site, [*shown(*words), *(["--overwrite"] if words[0] == "train" else [])], tmp_path)
        assert status == 0, printed
    assert "watched, 0 shielded" in printed


def test_every_command_of_the_page_is_walked_through() -> None:
    walked = {
        ("contract", "check"), ("contract", "init"), ("run", "driver"), ("check", "driver"), ("run", "--task"),
        ("eval", "behaviour"), ("train", "critic"), ("eval", "shield"),
    }  # fmt: skip
    assert {tuple(command[:2]) for command in COMMANDS} <= walked
