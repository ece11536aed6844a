"""The peer of `ssql bench sim --task cube`: steps gymnasium-robotics' HandManipulateBlock, and says how long it took.

Run as a program: `python hand_worker.py gymnasium_robotics`. It reads a number of control steps per line and answers
each with seconds, after a line `ready`; `python hand_worker.py probe` ends with status 0 where it could. It imports
nothing of this package. The hand holds a pose, as ours does; episodes are as long as ours.
"""

import sys

# Beside this program.
from update_worker import serve

NEWEST_MUJOCO = (3, 10)  # later ones crash the package
EPISODE = 500
WARM_UP = 50


def make():
    """Return the peer's world. Raises ImportError: it is not there, or MuJoCo is too new for it."""
    import contextlib
    import io

    import mujoco

    if tuple(map(int, mujoco.__version__.split(".")[:2])) > NEWEST_MUJOCO:
        raise ImportError(f"MuJoCo {mujoco.__version__} is too new for gymnasium-robotics")
    with contextlib.redirect_stdout(io.StringIO()):
        import gymnasium
        import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    return gymnasium.make("HandManipulateBlock-v1").unwrapped


def steps():
    """Return a function that makes control steps."""
    import numpy as np

    env, made = make(), 0
    action = np.zeros(env.action_space.shape, np.float32)
    env.reset(seed=0)

    def step(count):
        nonlocal made
        for _ in range(count):
            env.step(action)
        made += count
        if made >= EPISODE:
            env.reset()
            made = 0

    return step


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        make()
    else:
        serve(steps(), WARM_UP)
