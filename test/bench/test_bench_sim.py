"""The benchmark of the simulator: what it says, never how fast it was."""

import subprocess
import sys

import mujoco
import pytest

from bench.sim import bench_sim

NEWEST_MUJOCO = (3, 10)


@pytest.mark.long
@pytest.mark.parametrize("task", ["minitaur", "cube"])
def test_replays_are_identical_and_the_ratio_is_that_of_the_two_speeds(task, capfd):
    figures = bench_sim(task, seconds=3.0)
    assert figures["replay_identical"] == 1.0
    assert figures["ratio_to_substeps"] == pytest.approx(
        figures["steps_per_s"] / figures["substeps_only_steps_per_s"], rel=0.2
    )


@pytest.mark.long
def test_a_peer_is_compared_with_where_there_is_one_and_its_absence_is_said(capfd, monkeypatch):
    monkeypatch.setattr("bench.sim.python_with_peer", lambda worker: None)
    figures = bench_sim("cube", seconds=0.1)
    assert "ratio_to_gymnasium_robotics" not in figures
    assert "no gymnasium_robotics with a MuJoCo that it runs with" in capfd.readouterr().err


def test_the_peers_program_says_where_it_cannot_run():
    probe = [sys.executable, "bench/hand_worker.py", "probe"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    newest = tuple(map(int, mujoco.__version__.split(".")[:2])) <= NEWEST_MUJOCO
    assert (done.returncode == 0) == newest, done.stderr


def test_unknown_tasks_and_worlds_of_other_physics_are_refused():
    with pytest.raises(ValueError, match="unicycle"):
        bench_sim("unicycle")
    with pytest.raises(ValueError, match="no physics of PyBullet"):
        bench_sim("boat")
