"""The launch files, where ROS 2's launch is installed; it is on no package registry."""

from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
REASON = "launch and launch_ros are not installed: the launch files are NOT tested here; run this in a ROS 2 install"
launch = pytest.importorskip("launch", reason=REASON)
pytest.importorskip("launch_ros", reason=REASON)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shield", {"contract", "bundle", "mode", "epsilon", "namespace", "use_sim_time", "record", "commands_in"}),
        ("policy", {"contract", "bundle", "best", "output", "seed", "bundle_folder", "namespace", "use_sim_time"}),
        ("minitaur", {"bundle", "mode", "epsilon", "namespace", "use_sim_time", "record", "simulator", "real_time"}),
    ],
)
def test_launch_file_loads_and_declares_its_arguments(name, arguments):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH / f"{name}.launch.py"))
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert arguments <= set(declared)
    assert all(argument.description for argument in declared.values())
