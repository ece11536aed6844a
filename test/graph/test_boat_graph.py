"""The boat over ROS 2: pilots drive it, the recorder writes a bag, and the bag says what the world did."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssql_ros.cli.main import main
from ssql_ros.data.data_set import DataSet
from ssql_ros.graph.processes import Graph
from ssql_ros.robots.tasks import find_task
from ssql_ros.ros.conductor import Conductor
from ssql_sim import boat

EPISODES = 4


@pytest.mark.long
@pytest.mark.ros
def test_a_recorded_log_of_pilots_is_the_worlds_own_motion(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bag, data = tmp_path / "bag", tmp_path / "data"
    collect = ["collect", "--task", "boat", "--bag", "--episodes", str(EPISODES), "--seed", "4", "--quiet"]
    assert main([*collect, "--out", str(bag), "--json"]) == 0
    told = json.loads(capfd.readouterr().out.splitlines()[-1])["figures"]
    assert told["transitions"] == EPISODES * boat.MAX_STEPS
    assert main(["bag", "convert", str(bag), "--contract", "boat", "--out", str(data), "--quiet"]) == 0
    rows = DataSet(data)
    # Rows end where the boat is in a rock, and begin again some time after it: those alone may be missing.
    assert len(rows) == EPISODES * boat.MAX_STEPS or told["unsafe_episodes"] > 0
    observation, action = np.array(rows["observation"], float), np.array(rows["action"], float)
    np.testing.assert_allclose(rows["next_observation"], boat.moved(observation, action), atol=1e-6)
    np.testing.assert_allclose(rows["reward"], boat.reward_of(observation), atol=1e-6)
    np.testing.assert_allclose(rows["margin"], boat.margin_of(observation), atol=1e-6)
    assert len(np.unique(rows["episode"])) >= EPISODES


@pytest.mark.ros
def test_the_shipped_boat_bundle_drives_and_is_shielded_over_ros(domain: int, tmp_path: Path) -> None:
    task = find_task("boat")
    bundle = str(task.bundle_path())
    with Graph(tmp_path / "logs") as graph:
        graph.start("sim_node", task="boat", auto_reset=False)
        graph.start("policy_node", contract="boat", bundle=bundle, use_sim_time=True)
        graph.start("shield_node", contract="boat", bundle=bundle, autostart=False, use_sim_time=True)
        with Conductor(graph.check, controller="policy_node") as conductor:
            conductor.configure_shield()
            episodes = list(conductor.episodes("enforce", 3, 2))
    assert [episode.steps for episode in episodes] == [boat.MAX_STEPS] * 2
    assert not any(episode.incident for episode in episodes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task", "half_cheetah_velocity", "--bag"],
            "robot half_cheetah has nothing that drives it",
        ),
        (["--task", "boat", "--bag", "--episodes", "0"], "expected at least 1, got 0"),
        (["--task", "swimmer_velocity", "--episodes", "2"], "at least one for each of 3 learners, got 2"),
    ],
)
def test_what_cannot_be_collected_is_refused(arguments, message, tmp_path, capsys) -> None:
    assert main(["collect", *arguments, "--out", str(tmp_path / "x")]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
