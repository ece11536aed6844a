"""A robot of another package: an entry point, a contract and a world are all that the commands need to find it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssql_ros.contract import load_contract
from ssql_ros.data.data_set import DataSet
from support.documented import add_broken_plug, save_careless_critic, write_site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the package of docs/how_to/add_a_robot.md is installed, and another one whose plug cannot be loaded."""
    folder = write_site(tmp_path_factory.mktemp("site"))
    add_broken_plug(folder)
    save_careless_critic(folder, "careless.safetensors")
    return folder


def begin(site: Path, *arguments: str, **options):
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "ssql_ros.cli.main", *arguments]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}, **options)


def ssql(site: Path, *arguments: str) -> tuple[dict, str]:
    """The figures of a command that must succeed, and what it said."""
    process = begin(site, *arguments, "--quiet", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return json.loads(printed.splitlines()[-1])["figures"], said


def test_collect_drives_it_by_its_own_kind_of_behaviour(site, tmp_path):
    figures, said = ssql(site, "collect", "--task", "crawl", "--out", str(tmp_path / "log"))
    assert (figures["episodes"], figures["safe_episodes"]) == (5, 1.0)
    rows = DataSet(tmp_path / "log")
    assert len(rows) == 5 * 80
    assert rows.manifest["contract_id"] == load_contract(site / "crawler/config/contract.yaml").id
    assert "robot broken: nowhere:ROBOT cannot be loaded: ModuleNotFoundError" in said


@pytest.mark.long
def test_eval_judges_a_shield_and_the_behaviour_on_it(site):
    bundle = str(site / "careless.safetensors")
    figures, _ = ssql(site, "eval", "shield", "--task", "crawl", "--bundle", bundle, "--episodes", "3")
    assert figures["falls_monitor"] == 3
    assert 8 <= figures["length_monitor"] <= 15
    figures, _ = ssql(site, "eval", "behaviour", "--task", "crawl", "--episodes", "2")
    assert figures["all_incidents"] == 0


def test_run_starts_its_nodes(site, domain, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        bundle = str(site / "careless.safetensors")
        run = begin(
            site,
            "run",
            "--task",
            "crawl",
            "--bundle",
            bundle,
            "--mode",
            "monitor",
            "--lock-step",
            stdout=file,
            stderr=file,
        )
    try:
        end = time.monotonic() + 120
        while "episode   2" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            assert run.poll() is None, log.read_text()
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
    finally:
        run.kill()
    assert "incident (x 1." in log.read_text()


def test_what_it_lacks_is_said_with_who_has_it(site):
    done = begin(site, "eval", "promise", "--task", "swimmer_velocity", stderr=subprocess.PIPE, text=True)
    _, said = done.communicate(timeout=120)
    assert done.returncode == 2
    assert "task 'swimmer_velocity' has no safe behaviour policy; these have one: crawl, minitaur" in said


def test_what_serves_a_robot_imports_no_simulator_and_no_torch():
    code = """
import sys
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.nodes import behaviour_node, policy_node, recorder_node, shield_node
from ssql_ros.robots.plug import find_behaviour
for robot in ("boat", "minitaur", "spider"):
    find_behaviour("", load_contract(find_contract(robot)))
print({"torch", "pybullet", "gymnasium", "matplotlib", "ssql_sim"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"


def test_pilots_know_the_box_and_the_rocks_of_the_boats_world():
    from ssql_ros.contract import find_contract
    from ssql_ros.robots.boat.pilots import HIGH, LOW, Chart
    from ssql_sim import boat

    chart = Chart.of(load_contract(find_contract("boat")))
    assert (chart.goal, chart.rocks, LOW, HIGH) == (boat.GOAL, boat.ROCKS, boat.LOW, boat.HIGH)
