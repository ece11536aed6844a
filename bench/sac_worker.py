"""One side of `ssql bench train`: makes as many SAC updates as it is told, and says how long they took.

Run as a program: `python sac_worker.py ours|sb3|sbx SEED THREADS OBSERVATION ACTION`. It reads a number of updates per
line and answers each with seconds, after a line `ready`. It imports nothing of this package unless it is `ours`, so
that the peers' environment needs none of it.
"""

import sys

# Beside this program.
from update_worker import keep_to, serve

WARM_UP = 64
BATCH, HIDDEN, STEPS = 256, (256, 256), 5000
SBX_UPDATES = 32  # a call: what SBX compiles into one


def ours(seed, threads, n_observation, n_action):
    """Return a function that makes updates with this package's learner."""
    import numpy as np
    import torch

    from ssql_ros.algorithms.sac import SAC, SACSettings
    from ssql_ros.data.replay import Replay, Transition

    torch.set_num_threads(threads)
    rng = np.random.default_rng(seed)
    settings = SACSettings(batch=BATCH, hidden=HIDDEN)
    learner = SAC(np.zeros(n_observation), np.ones(n_observation), n_action, settings, seed)
    replay, draws = Replay(STEPS, n_observation, n_action), torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        state, following = rng.normal(size=(2, n_observation))
        replay.add(Transition(state, rng.uniform(-1, 1, n_action), rng.normal(), following, False, False))

    def updates(count):
        for _ in range(count):
            learner.update(replay.draw(BATCH, draws, learner.device))
        if learner.device.type == "cuda":
            torch.cuda.synchronize()

    return updates


def peer(name, seed, threads, n_observation, n_action):
    """Return a function that makes updates with stable-baselines3 or SBX."""
    import gymnasium
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    if name == "sbx":
        from sbx import SAC
    else:
        from stable_baselines3 import SAC

    class Noise(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_observation,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (n_action,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.normal(size=n_observation).astype(np.float32), {}

        def step(self, action):
            observation = self.np_random.normal(size=n_observation).astype(np.float32)
            return observation, float(self.np_random.normal()), False, False, {}

    options = {"policy_kwargs": {"net_arch": list(HIDDEN)}, "batch_size": BATCH, "learning_starts": STEPS, "seed": seed}
    per_call = SBX_UPDATES if name == "sbx" else 1
    model = SAC("MlpPolicy", Noise(), train_freq=per_call, gradient_steps=per_call, **options)
    model.learn(STEPS + per_call)

    def updates(count):
        for _ in range(max(count // SBX_UPDATES, 1)):
            model.train(batch_size=BATCH, gradient_steps=SBX_UPDATES)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return updates


def main():
    """Serve updates until the input ends."""
    name, seed, threads, n_observation, n_action = sys.argv[1], *map(int, sys.argv[2:])
    keep_to(threads)
    make = ours if name == "ours" else lambda *shape: peer(name, *shape)
    serve(make(seed, threads, n_observation, n_action), WARM_UP)


if __name__ == "__main__":
    main()
