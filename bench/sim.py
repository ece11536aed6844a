"""Benchmark of the simulated worlds: speed against the bare physics and against a peer, reset, and replay to the last
bit."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from bench.side import PEERS, Side, SideProcess
from ssql_ros.robots.noise import Noise, blind_actions
from ssql_ros.robots.tasks import Task, find_task
from ssql_sim import hand_world, world
from ssql_sim.engine import pybullet

BLOCK = 50  # control steps in one block ratio
EPISODE = 500
REPLAY = 200
HAND_WORKER = "hand_worker.py"


@dataclass(frozen=True)
class Bare:
    """What the physics of a robot's control step is without its world.

    Attributes:
        noise: of the controller that drives it.
        command: gives the joints of an environment what an action means, as far as physics alone can know it.
        substeps: calls of stepSimulation in a control step.
        peer: a world of another package that does the same, and the program beside this one that steps it.
    """

    noise: Noise
    command: Callable[[Any, np.ndarray], None]
    substeps: int
    peer: tuple[str, str] | None = None


def _torques(env: Any, _: np.ndarray) -> None:
    # Those that act: what the motors make of an action is the environment's own work.
    walker = env.world
    pybullet.setJointMotorControlArray(
        walker.robot,
        walker.motor_ids,
        pybullet.TORQUE_CONTROL,
        forces=walker.now.torques,
        physicsClientId=walker.client,
    )


def _targets(env: Any, action: np.ndarray) -> None:
    env.world.set_targets(env.targets(action))


ROBOTS = {
    "minitaur": Bare(Noise("A", sigma=0.05), _torques, world.SUBSTEPS),
    "shadow_hand": Bare(Noise("cup", sigma=0.05), _targets, hand_world.SUBSTEPS, ("gymnasium_robotics", HAND_WORKER)),
}


def bench_sim(task: str = "minitaur", seconds: float = 20.0, seed: int = 0) -> dict[str, float]:
    """Measure an environment.

    `ratio_to_substeps` compares `env.step` with what the physics alone allows: the joints' command given once, then the
    control step's calls of stepSimulation. Both start from the very same states, those of a noisy controller: before
    every control step the world's state is saved, the bare substeps are timed, the state is restored, and the
    environment's step is timed; which of the two goes first alternates. The ratio is the median over blocks of
    50 steps, each block's from its summed times, so that a change of the machine's speed hits both sides.

    `ratio_to_gymnasium_robotics` compares the cube's control steps with those of HandManipulateBlock, which last as
    long (0.04 s) and are timed block by block in turn, in a process of their own.

    Args:
        task: of a robot whose world is PyBullet's.
        seconds: how long to run the comparison of speed; the rest takes about two more.
        seed: of the actions.

    Returns:
        ratio_to_substeps; steps_per_s and substeps_only_steps_per_s (control steps per s, medians over blocks);
        ratio_to_gymnasium_robotics and gymnasium_robotics_steps_per_s, for the cube where `python_with_peer` finds one;
        reset_ms (median); replay_identical: 1.0 if a seed and its actions, with randomised physics, give the same
        bits again after another episode and in a fresh environment, else 0.0.

    Raises:
        ValueError: no such task, or one whose physics is not PyBullet's.
    """
    chosen = find_task(task)
    if chosen.robot not in ROBOTS:
        raise ValueError(f"task {task!r} has no physics of PyBullet to compare with; robots: {', '.join(ROBOTS)}")
    return {
        **_speed(chosen, seconds, seed),
        "reset_ms": _reset_ms(chosen, seed),
        "replay_identical": float(_replay_identical(chosen, seed)),
    }


def python_with_peer(worker: str) -> str | None:
    """Return a Python whose packages can run a peer's worker: of the peers' environment, or this one; else None."""
    for python in (str(PEERS), sys.executable):
        if python == str(PEERS) and not PEERS.exists():
            continue
        probe = [python, f"bench/{worker}", "probe"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return python
    return None


def _peer(bare: Bare) -> AbstractContextManager[SideProcess | None]:
    if bare.peer is None:
        return nullcontext()
    name, worker = bare.peer
    python = python_with_peer(worker)
    if python is None:
        print(f"no {name} with a MuJoCo that it runs with (`make peers`): it is not compared with", file=sys.stderr)
        return nullcontext()
    return SideProcess(Side(name, python, worker, []), threads=1)


def _speed(task: Task, seconds: float, seed: int) -> dict[str, float]:
    bare = ROBOTS[task.robot]
    env = task.make()
    controller = task.controller(bare.noise)
    blocks: list[tuple[float, float]] = []
    theirs: list[float] = []
    begin = time.perf_counter()
    with tqdm(total=round(seconds), desc="simulation speed", unit="s", leave=False) as bar, _peer(bare) as peer:
        while (elapsed := time.perf_counter() - begin) < seconds or not blocks:
            bar.update(int(elapsed) - bar.n)
            if len(blocks) % (EPISODE // BLOCK) == 0:
                env.reset()
                actions = blind_actions(controller, seed + len(blocks))
            whole = alone = 0.0
            for step in range(BLOCK):
                whole_s, bare_s = _time_step(env, bare, next(actions), whole_first=step % 2 == 0)
                whole, alone = whole + whole_s, alone + bare_s
            blocks.append((whole, alone))
            if peer is not None:
                theirs.append(peer.seconds(BLOCK))
    env.close()
    figures = {
        "ratio_to_substeps": statistics.median(alone / whole for whole, alone in blocks),
        "steps_per_s": BLOCK / statistics.median(whole for whole, _ in blocks),
        "substeps_only_steps_per_s": BLOCK / statistics.median(alone for _, alone in blocks),
    }
    if peer is not None:
        ratios = [their / whole for their, (whole, _) in zip(theirs, blocks, strict=True)]
        figures[f"ratio_to_{peer.name}"] = statistics.median(ratios)
        figures[f"{peer.name}_steps_per_s"] = BLOCK / statistics.median(theirs)
    return figures


def _time_step(env: gymnasium.Env, bare: Bare, action: np.ndarray, whole_first: bool) -> tuple[float, float]:
    """Return the seconds of env.step and of the bare substeps from one state; the env's step is what remains."""
    client = env.world.client
    here = pybullet.saveState(physicsClientId=client)

    def whole() -> None:
        env.step(action)

    def alone() -> None:
        bare.command(env, action)
        for _ in range(bare.substeps):
            pybullet.stepSimulation(physicsClientId=client)

    def timed(run: Callable[[], None]) -> float:
        # Restored before both, so that neither gains by warm caches of contacts.
        pybullet.restoreState(stateId=here, physicsClientId=client)
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    if whole_first:
        whole_s = timed(whole)
        there = pybullet.saveState(physicsClientId=client)
        bare_s = timed(alone)
        pybullet.restoreState(stateId=there, physicsClientId=client)
        pybullet.removeState(there, physicsClientId=client)
    else:
        bare_s = timed(alone)
        whole_s = timed(whole)
    pybullet.removeState(here, physicsClientId=client)
    return whole_s, bare_s


def _reset_ms(task: Task, seed: int, resets: int = 50) -> float:
    env = task.make()
    env.reset(seed=seed)
    actions, times = blind_actions(task.controller(ROBOTS[task.robot].noise), 0), []
    for _ in range(resets):
        for _ in range(5):
            env.step(next(actions))
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
    actions = blind_actions(task.controller(ROBOTS[task.robot].noise), seed)
    observation, _ = env.reset(seed=seed)
    record = [observation]
    for _ in range(REPLAY):
        observation, reward, terminated, _, _ = env.step(next(actions))
        record += [observation, np.array([reward])]
        if terminated:
            break
    return np.concatenate(record).tobytes()
