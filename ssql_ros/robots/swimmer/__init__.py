"""The swimmer with a speed limit (needs MuJoCo: pip install 'ssql_ros[mujoco]')."""

from ssql_ros.robots.velocity import limited

ROBOT = limited("swimmer")
