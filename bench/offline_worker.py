"""One side of `ssql bench offline`: makes as many updates as it is told, and says how long they took.

Run as a program: `python offline_worker.py ours|fql|authors SEED THREADS SHAPE [CLONE]`, SHAPE in JSON (see
`offline.SHAPES`). It imports nothing of this package unless it is `ours`, so that the peers' environment needs none.

    ours     SafeFQL
    fql      FQL in JAX, written here from the paper's equations
    authors  the FQL authors' own program, from a clone of their repository
"""

import json
import os
import sys
from itertools import pairwise

# Beside this program.
from update_worker import keep_to, serve

WARM_UP, STEPS = 4, 20000
LEARNING_RATE, GAMMA, TAU, ALPHA, FLOW_STEPS = 3e-4, 0.99, 0.005, 10.0, 10


def columns(seed, shape):
    """Return a log of noise: observation, action, reward, next_observation, terminal."""
    import numpy as np

    rng = np.random.default_rng(seed)
    observation, next_observation = rng.normal(size=(2, STEPS, shape["observation"])).astype(np.float32)
    action = rng.uniform(-1, 1, (STEPS, shape["action"])).astype(np.float32)
    reward, terminal = rng.normal(size=STEPS).astype(np.float32), (rng.random(STEPS) < 0.01).astype(np.float32)
    return observation, action, reward, next_observation, terminal


def ours(seed, threads, shape):
    """Return a function that makes updates of every network of SafeFQL."""
    import numpy as np
    import torch

    os.environ.setdefault("SSQL_ROS_COMPILE", "1")
    from ssql_ros.algorithms.safefql import SafeFQL, SafeFQLSettings
    from ssql_ros.data.logged_steps import Log, OfflineData

    torch.set_num_threads(threads)
    settings = SafeFQLSettings(
        hidden=tuple(shape["critics"]),
        actor_hidden=tuple(shape["actors"]),
        critic_activation=shape["critic_activation"],
        batch=shape["batch"],
        actor_batch=shape["actor_batch"],
    )
    learner = SafeFQL(np.zeros(shape["observation"]), np.ones(shape["observation"]), shape["action"], settings, seed)
    observation, action, reward, _, terminal = columns(seed, shape)
    log = Log(
        observation=observation,
        action=action,
        reward=reward,
        margin=-np.abs(reward),
        episode=np.cumsum(terminal) - terminal,
        terminal=terminal,
        ending=np.ones(STEPS),
    )
    data = OfflineData(log, settings.n_step, settings.gamma, learner.device)

    def updates(count):
        for step in range(count):
            learner.learn(step, count, data)
        if learner.device.type == "cuda":
            torch.cuda.synchronize()

    return updates


def fql(seed, shape):
    """Return a function that makes updates of FQL, one compiled call each.

    J(Q)  = E mean_i (Q_i(s, a) - [r + gamma (1 - terminal) mean_i Qbar_i(s', mu(s', z))])^2
    J(v)  = E ||v(s, x_t, t) - (a - z)||^2,   x_t = (1 - t) z + t a
    J(mu) = E alpha ||mu(s, z) - teacher(s, z)||^2 - mean_i Q_i(s, mu)
    """
    from functools import partial

    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    n, m = shape["observation"], shape["action"]
    activations = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}
    critic_activation = activations[shape["critic_activation"]]

    def network(key, sizes, members):
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            (jax.nn.initializers.glorot_uniform(batch_axis=0)(k, (members, i, o)), jnp.zeros((members, 1, o)))
            for k, (i, o) in zip(keys, pairwise(sizes), strict=True)
        ]

    def output(layers, x, activation):
        for i, (weight, bias) in enumerate(layers):
            x = (activation(x) if i else x) @ weight + bias
        return x

    def q(layers, state, action):
        return output(layers, jnp.concatenate([state, action], -1), critic_activation)[..., 0]

    def act(layers, *parts):
        return output(layers, jnp.concatenate(parts, -1), jax.nn.gelu)[0]

    def teach(layers, state, z):
        for i in range(FLOW_STEPS):
            z = z + act(layers, state, z, jnp.full((len(state), 1), i / FLOW_STEPS)) / FLOW_STEPS
        return jnp.clip(z, -1, 1)

    def loss(networks, target, key, batch, actor_batch):
        keys = jax.random.split(key, 4)
        state, action, reward, next_observation, terminal = batch
        chosen = jnp.clip(act(networks["actor"], next_observation, jax.random.normal(keys[0], action.shape)), -1, 1)
        y = reward + GAMMA * (1 - terminal) * q(target, next_observation, chosen).mean(0)
        of_critic = ((q(networks["critic"], state, action) - jax.lax.stop_gradient(y)) ** 2).mean()

        state, action = actor_batch
        z, t = jax.random.normal(keys[1], action.shape), jax.random.uniform(keys[2], (len(action), 1))
        velocity = act(networks["teacher"], state, (1 - t) * z + t * action, t)
        of_flow = ((velocity - (action - z)) ** 2).mean()

        z = jax.random.normal(keys[3], action.shape)
        taught, proposed = jax.lax.stop_gradient(teach(networks["teacher"], state, z)), act(networks["actor"], state, z)
        judged = q(jax.lax.stop_gradient(networks["critic"]), state, jnp.clip(proposed, -1, 1)).mean()
        return of_critic + of_flow + ALPHA * ((proposed - taught) ** 2).mean() - judged

    optimiser = optax.adam(LEARNING_RATE)

    @partial(jax.jit, donate_argnums=(0, 1, 2, 3))
    def update(networks, target, moments, key, batch, actor_batch):
        key, drawn = jax.random.split(key)
        gradients = jax.grad(loss)(networks, target, drawn, batch, actor_batch)
        steps, moments = optimiser.update(gradients, moments)
        networks = optax.apply_updates(networks, steps)
        target = jax.tree.map(lambda average, new: average + TAU * (new - average), target, networks["critic"])
        return networks, target, moments, key

    keys = jax.random.split(jax.random.key(seed), 4)
    networks = {
        "critic": network(keys[0], (n + m, *shape["critics"], 1), 2),
        "teacher": network(keys[1], (n + m + 1, *shape["actors"], m), 1),
        "actor": network(keys[2], (n + m, *shape["actors"], m), 1),
    }
    learner = (networks, jax.tree.map(jnp.copy, networks["critic"]), optimiser.init(networks), keys[3])
    log, rng = columns(seed, shape), np.random.default_rng(seed)

    def updates(count):
        nonlocal learner
        for _ in range(count):
            rows, actor_rows = (rng.integers(STEPS, size=shape[name]) for name in ("batch", "actor_batch"))
            learner = update(*learner, [c[rows] for c in log], [c[actor_rows] for c in log[:2]])
        jax.block_until_ready(learner)

    return updates


def authors(seed, shape, clone):
    """Return a function that makes updates by the loop of the authors' main.py: draw, update."""
    import runpy
    import types

    import jax
    import numpy as np

    # Their file of networks has a Gaussian policy too, which FQL does not use, in classes that come from there.
    stand_in = types.ModuleType("distrax")
    vars(stand_in).update(Transformed=object, Distribution=object)
    sys.modules.setdefault("distrax", stand_in)
    sys.path.insert(0, clone)
    # Not as a module of its package, which would import all their algorithms.
    theirs = runpy.run_path(f"{clone}/agents/fql.py")
    from utils.datasets import Dataset

    config = theirs["get_config"]()
    config.actor_hidden_dims, config.value_hidden_dims = tuple(shape["actors"]), tuple(shape["critics"])
    # As in ours.
    config.layer_norm = False
    observation, action, reward, next_observation, terminal = columns(seed, shape)
    data = Dataset.create(
        observations=observation,
        actions=action,
        rewards=reward,
        next_observations=next_observation,
        masks=1 - terminal,
        terminals=terminal,
    )
    # Their draws are of numpy's global generator.
    np.random.seed(seed)  # noqa: NPY002
    agent = theirs["FQLAgent"].create(seed, observation[:1], action[:1], config)

    def updates(count):
        nonlocal agent
        for _ in range(count):
            agent, _ = agent.update(data.sample(shape["batch"]))
        jax.block_until_ready(agent.network.params)

    return updates


def main():
    """Serve updates until the input ends."""
    name, seed, threads, shape, *clone = sys.argv[1:]
    keep_to(int(threads))
    sides = {
        "ours": lambda *given: ours(given[0], int(threads), given[1]),
        "fql": fql,
        "authors": lambda *given: authors(*given, *clone),
    }
    serve(sides[name](int(seed), json.loads(shape)), WARM_UP)


if __name__ == "__main__":
    main()
