"""The benchmark of the simulator: what it says, never how fast it was."""

import pytest

from bench.sim import bench_sim


@pytest.mark.slow
def test_replays_are_identical_and_the_ratio_is_that_of_the_two_speeds():
    figures = bench_sim("minitaur", seconds=3.0)
    assert figures["replay_identical"] == 1.0
    assert figures["ratio_to_substeps"] == pytest.approx(
        figures["steps_per_s"] / figures["substeps_only_steps_per_s"], rel=0.2
    )


def test_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unicycle"):
        bench_sim("unicycle")
