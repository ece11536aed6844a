"""The hand over ROS 2: its driver, its tracker and the cup, from the graph into a bag and out of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssql_ros.cli.main import main
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.graph.processes import Graph
from ssql_ros.model.bundle import save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.ros.conductor import Conductor
from support.toy_robot import toy_bundle


@pytest.mark.ros
def test_a_cup_that_holds_is_recorded_and_read_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bag, data = tmp_path / "bag", tmp_path / "data"
    collect = ["collect", "--task", "cube", "--bag", "--episodes", "1", "--seed", "4", "--quiet"]
    assert main([*collect, "--out", str(bag), "--json"]) == 0
    told = json.loads(capfd.readouterr().out.splitlines()[-1])["figures"]
    assert (told["transitions"], told["unsafe_episodes"]) == (100, 0)
    assert main(["bag", "convert", str(bag), "--contract", "shadow_hand", "--out", str(data), "--quiet"]) == 0
    rows = DataSet(data)
    assert len(rows) == 100
    observation = np.array(rows["observation"], float)
    assert np.isfinite(observation).all()
    assert (np.array(rows["margin"]) < -0.015).all()
    # The graph runs the world of fine-tuning, whose goals are further than a quarter turn.
    assert np.abs(observation[:, 30:33]).max(axis=1) == pytest.approx(2.2, abs=1e-5)
    np.testing.assert_allclose(observation[1:, 33:66], observation[:-1, :33], atol=1e-6)


@pytest.mark.ros
def test_the_turning_goes_through_the_shield_to_the_hand(domain: int, tmp_path: Path) -> None:
    contract, bundle = load_contract(find_contract("shadow_hand")), tmp_path / "critic.safetensors"
    save_bundle(with_probes(toy_bundle(contract), contract), bundle)
    robot = {"contract": "shadow_hand", "use_sim_time": True}
    with Graph(tmp_path / "logs") as graph:
        graph.start("sim_node", task="cube", world='{"turn": 1.5, "goals": ["x+"]}', auto_reset=False)
        graph.start("behaviour_node", behaviour="cube", **robot)
        graph.start("shield_node", bundle=str(bundle), autostart=False, **robot)
        with Conductor(graph.check) as conductor:
            conductor.configure_shield()
            (watched,) = conductor.episodes("monitor", 3, 1)
            (shielded,) = conductor.episodes("enforce", 4, 1)
    assert (watched.steps, watched.incident) == (100, False)
    assert len(watched.decisions) >= watched.steps
    assert len(shielded.decisions) >= shielded.steps
