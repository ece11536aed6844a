"""The half cheetah with a speed limit (needs MuJoCo: pip install 'ssql_ros[mujoco]')."""

from ssql_ros.robots.velocity import limited

ROBOT = limited("half_cheetah", "half_cheetah_safefql.safetensors")
