"""ssql_sim: simulated worlds on the gymnasium API; needs no ROS and no learning library.

Importing it registers the gymnasium ids `ssql/Minitaur-v0`, `ssql/Spider-v0`, `ssql/Grid-v0`, `ssql/Boat-v0`,
`ssql/Velocity-v0`, which needs MuJoCo (the extra `mujoco`), and `ssql/Cube-v0`, which needs the hand's description (the
extra `hand`).
"""

from gymnasium.envs.registration import register

from ssql_sim.boat import BoatEnv
from ssql_sim.cube import CubeEnv
from ssql_sim.grid import GridEnv
from ssql_sim.minitaur import MinitaurEnv
from ssql_sim.physics import Physics
from ssql_sim.sensors import Sensors
from ssql_sim.spider import SpiderEnv
from ssql_sim.velocity import VelocityEnv

__all__ = ["BoatEnv", "CubeEnv", "GridEnv", "MinitaurEnv", "Physics", "Sensors", "SpiderEnv", "VelocityEnv"]

# No max_episode_steps: the environments count their own steps and truncate.
register(id="ssql/Minitaur-v0", entry_point="ssql_sim.minitaur:MinitaurEnv")
register(id="ssql/Spider-v0", entry_point="ssql_sim.spider:SpiderEnv")
register(id="ssql/Grid-v0", entry_point="ssql_sim.grid:GridEnv")
register(id="ssql/Boat-v0", entry_point="ssql_sim.boat:BoatEnv")
register(id="ssql/Velocity-v0", entry_point="ssql_sim.velocity:VelocityEnv")
register(id="ssql/Cube-v0", entry_point="ssql_sim.cube:CubeEnv")
