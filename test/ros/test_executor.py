"""A node is served with the rclpy that is there, whichever executors it has."""

import subprocess
import sys

import pytest

from support.robots import Robot

# An rclpy without EventsExecutor, as of early releases of Jazzy.
OLDER = """
import sys
sys.modules["rclpy.experimental.events_executor"] = None
from ssql_ros.nodes.shield_node import main
sys.exit(main())
"""


@pytest.mark.parametrize(("older", "said"), [(True, 1), (False, 0)])
def test_shield_serves_a_robot_with_either_executor_and_says_in_one_line_where_it_makes_do(
    domain, tmp_path, older, said
):
    program = OLDER if older else "import sys; from ssql_ros.nodes.shield_node import main; sys.exit(main())"
    log = tmp_path / "log"
    with log.open("wb") as file:
        shield = subprocess.Popen([sys.executable, "-c", program], stdout=file, stderr=file)
    robot = Robot()
    try:
        robot.until(lambda: len(robot.commands) >= 5)
    finally:
        robot.close()
        shield.terminate()
        status = shield.wait(20)
    lines = log.read_text().splitlines()
    assert status == 0
    assert len([line for line in lines if "has no EventsExecutor" in line and "[INFO]" in line]) == said, lines
