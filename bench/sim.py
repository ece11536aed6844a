"""Benchmark of the simulated worlds: speed against the bare physics, reset, and replay to the last bit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np
from tqdm import tqdm

from ssql_ros.robots.noise import Noise, blind_actions
from ssql_ros.robots.tasks import Task, find_task
from ssql_sim.engine import pybullet
from ssql_sim.world import SUBSTEPS

BLOCK = 50  # control steps in one block ratio
NOISE = Noise("A", sigma=0.05)
EPISODE = 500
REPLAY = 200


def bench_sim(task: str = "minitaur", seconds: float = 20.0, seed: int = 0) -> dict[str, float]:
    """Measure an environment.

    `ratio_to_substeps` compares `env.step` with what the physics alone allows: motor torques set once, then the
    control step's six calls of stepSimulation. Both start from the very same states, those of a noisy trot: before
    every control step the world's state is saved, the bare substeps are timed, the state is restored, and the
    environment's step is timed; which of the two goes first alternates. The ratio is the median over blocks of
    50 steps, each block's from its summed times, so that a change of the machine's speed hits both sides.

    Args:
        task: "minitaur".
        seconds: how long to run the comparison of speed; the rest takes about two more.
        seed: of the actions.

    Returns:
        ratio_to_substeps; steps_per_s and substeps_only_steps_per_s (control steps per s, medians over blocks);
        reset_ms (median); replay_identical: 1.0 if a seed and its actions, with randomised physics, give the same
        bits again after another episode and in a fresh environment, else 0.0.

    Raises:
        ValueError: no such task.
    """
    chosen = find_task(task)
    return {
        **_speed(chosen, seconds, seed),
        "reset_ms": _reset_ms(chosen, seed),
        "replay_identical": float(_replay_identical(chosen, seed)),
    }


def _speed(task: Task, seconds: float, seed: int) -> dict[str, float]:
    env = task.make()
    controller = task.controller(NOISE)
    blocks: list[tuple[float, float]] = []
    begin = time.perf_counter()
    with tqdm(total=round(seconds), desc="simulation speed", unit="s", leave=False) as bar:
        while (elapsed := time.perf_counter() - begin) < seconds or not blocks:
            bar.update(int(elapsed) - bar.n)
            if len(blocks) % (EPISODE // BLOCK) == 0:
                env.reset()
                trot = blind_actions(controller, seed + len(blocks))
            whole = bare = 0.0
            for step in range(BLOCK):
                whole_s, bare_s = _time_step(env, next(trot), whole_first=step % 2 == 0)
                whole, bare = whole + whole_s, bare + bare_s
            blocks.append((whole, bare))
    env.close()
    return {
        "ratio_to_substeps": statistics.median(bare / whole for whole, bare in blocks),
        "steps_per_s": BLOCK / statistics.median(whole for whole, _ in blocks),
        "substeps_only_steps_per_s": BLOCK / statistics.median(bare for _, bare in blocks),
    }


def _time_step(env: gymnasium.Env, action: np.ndarray, whole_first: bool) -> tuple[float, float]:
    """Return the seconds of env.step and of the bare substeps from one state; the env's step is what remains."""
    world = env.world
    torques = world.now.torques
    here = pybullet.saveState(physicsClientId=world.client)

    def whole() -> None:
        env.step(action)

    def bare() -> None:
        pybullet.setJointMotorControlArray(
            world.robot,
            world.motor_ids,
            pybullet.TORQUE_CONTROL,
            forces=torques,
            physicsClientId=world.client,
        )
        for _ in range(SUBSTEPS):
            pybullet.stepSimulation(physicsClientId=world.client)

    def timed(run: Callable[[], None]) -> float:
        # Restored before both, so that neither gains by warm caches of contacts.
        pybullet.restoreState(stateId=here, physicsClientId=world.client)
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    if whole_first:
        whole_s = timed(whole)
        there = pybullet.saveState(physicsClientId=world.client)
        bare_s = timed(bare)
        pybullet.restoreState(stateId=there, physicsClientId=world.client)
        pybullet.removeState(there, physicsClientId=world.client)
    else:
        bare_s = timed(bare)
        whole_s = timed(whole)
    pybullet.removeState(here, physicsClientId=world.client)
    return whole_s, bare_s


def _reset_ms(task: Task, seed: int, resets: int = 50) -> float:
    env = task.make()
    env.reset(seed=seed)
    trot, times = blind_actions(task.controller(NOISE), 0), []
    for _ in range(resets):
        for _ in range(5):
            env.step(next(trot))
        begin = time.perf_counter()
        env.reset()
        times.append(time.perf_counter() - begin)
    env.close()
    return 1e3 * statistics.median(times)


def _replay_identical(task: Task, seed: int) -> bool:
    env = task.make(randomise="physics")
    first = _replay(task, env, seed)
    other = _replay(task, env, seed + 1)
    again = _replay(task, env, seed)
    env.close()
    fresh_env = task.make(randomise="physics")
    fresh = _replay(task, fresh_env, seed)
    fresh_env.close()
    return first == again == fresh and first != other


def _replay(task: Task, env: gymnasium.Env, seed: int) -> bytes:
    """Return every bit of the observations and rewards of one seeded episode."""
    trot = blind_actions(task.controller(NOISE), seed)
    observation, _ = env.reset(seed=seed)
    record = [observation]
    for _ in range(REPLAY):
        observation, reward, terminated, _, _ = env.step(next(trot))
        record += [observation, np.array([reward])]
        if terminated:
            break
    return np.concatenate(record).tobytes()
