"""ssql_sim: simulated worlds on the gymnasium API; needs no ROS and no learning library.

Importing it registers the gymnasium id `ssql/Minitaur-v0`.
"""

from gymnasium.envs.registration import register

from ssql_sim.minitaur import MinitaurEnv
from ssql_sim.physics import Physics
from ssql_sim.sensors import Sensors

__all__ = ["MinitaurEnv", "Physics", "Sensors"]

# No max_episode_steps: the environment counts its own steps and truncates.
register(id="ssql/Minitaur-v0", entry_point="ssql_sim.minitaur:MinitaurEnv")
