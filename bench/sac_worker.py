"""One side of `ssql bench train`: makes as many SAC updates as it is told, and says how long they took.

Run as a program: `python sac_worker.py ours|products|sb3|sbx SEED THREADS OBSERVATION ACTION PRECISION`. It reads a
number of updates per line and answers each with seconds, after a line `ready`. It imports nothing of this package
unless it is `ours`, so that the peers' environment needs none of it.

    ours      this package's SAC, compiled from its first update on (SSQL_ROS_COMPILE=0: not compiled)
    products  the matrix products of one such update and nothing else, of the same shapes and types
    sb3, sbx  stable-baselines3's and SBX's SAC
"""

import os
import sys

# Beside this program.
from update_worker import keep_to, serve

WARM_UP = 64
BATCH, HIDDEN, STEPS = 256, (256, 256), 5000
SBX_UPDATES = 32  # a call: what SBX compiles into one


def ours(seed, threads, n_observation, n_action, precision):
    """Return a function that makes updates with this package's learner."""
    import numpy as np
    import torch

    os.environ.setdefault("SSQL_ROS_COMPILE", "1")
    from ssql_ros.algorithms.sac import SAC, SACSettings
    from ssql_ros.data.replay import Replay, Transition

    torch.set_num_threads(threads)
    rng = np.random.default_rng(seed)
    settings = SACSettings(batch=BATCH, hidden=HIDDEN)
    learner = SAC(
        np.zeros(n_observation), np.ones(n_observation), n_action, settings, seed, precision=getattr(torch, precision)
    )
    replay, draws = Replay(STEPS, n_observation, n_action), torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        state, next_observation = rng.normal(size=(2, n_observation))
        replay.add(Transition(state, rng.uniform(-1, 1, n_action), rng.normal(), next_observation, False, False))

    def updates(count):
        for _ in range(count):
            learner.update(replay.draw(BATCH, draws, learner.device))
        if learner.device.type == "cuda":
            torch.cuda.synchronize()

    return updates


def products(seed, threads, n_observation, n_action, precision):
    """Return a function that makes the products of updates: two critics, their targets and the actor.

    Forwards: the actor at s' and at s; targets, critics and critics of the actor's actions. Backwards: the actor and
    the critics to their weights, the critics once more to the actions.
    """
    import torch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(seed)
    half, width, single = getattr(torch, precision), HIDDEN[0], torch.float32

    def filled(*shape, precision=single):
        return torch.randn(shape, generator=generator).to(precision)

    def layers(members, n_in):
        """Return inputs, hidden units and weights of the first two layers, and hidden units in float32."""
        hidden, weight = (filled(members, n, width, precision=half) for n in (BATCH, width))
        return filled(members, BATCH, n_in), hidden, filled(members, n_in, width), weight, hidden.float()

    x, hidden, first, weight, last = layers(1, n_observation)
    out, slope = filled(1, width, 2 * n_action), filled(1, BATCH, 2 * n_action)
    pairs = [(x, first), (hidden, weight), (last, out)] * 2
    pairs += [(last.mT, slope), (slope, out.mT), (hidden.mT, hidden), (hidden, weight.mT), (x.mT, last)]
    x, hidden, first, weight, last = layers(2, n_observation + n_action)
    pairs += [(x, first), (hidden, weight)] * 3
    pairs += [(hidden.mT, hidden), (hidden, weight.mT), (x.mT, last), (hidden, weight.mT), (last, first.mT)]

    def updates(count):
        for _ in range(count):
            for a, b in pairs:
                torch.bmm(a, b)

    return updates


def peer(name, seed, threads, n_observation, n_action, _):
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
    name, *numbers, precision = sys.argv[1:]
    seed, threads, n_observation, n_action = map(int, numbers)
    keep_to(threads)
    make = {"ours": ours, "products": products}.get(name, lambda *shape: peer(name, *shape))
    serve(make(seed, threads, n_observation, n_action, precision), WARM_UP)


if __name__ == "__main__":
    main()
