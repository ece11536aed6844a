"""Every offline learner on the same data: what a behaviour policy's run has seen, the same networks, the same updates.

Judged is what each then does in the world, unshielded: its return, its incidents, and whether its Q is the return of
its own objective under its own policy: r - lambda KL(pi*||b) for SSQL, r - alpha log pi for SAC and CQL, r for IQL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ssql_ros.algorithms.cql import CQL, CQLSettings
from ssql_ros.algorithms.iql import IQL, IQLSettings
from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.algorithms.ssql import SSQL, SSQLSettings, policy_kind
from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.data.replay import Replay
from ssql_ros.evaluation.judged_policies import JudgedGaussian, JudgedInduced, Rollout, roll_out
from ssql_ros.evaluation.q_calibration import compared
from ssql_ros.model.bundle import Bundle, Network
from ssql_ros.model.policy import InducedPolicy, supported_policy
from ssql_ros.nn.checkpoint import load_checkpoint
from ssql_ros.robots.tasks import Task
from ssql_ros.training.settings import settings_of

METHODS = ("ssql", "sac", "cql", "iql")


@dataclass(frozen=True)
class Data:
    """What a run of SSQL has seen: transitions of states (observation and context), and their standardisation."""

    replay: Replay
    mean: np.ndarray
    scale: np.ndarray
    behaviour: BehaviourPolicy
    n_action: int


def data_of(run: Path, task: Task) -> Data:
    """Return the transitions in the checkpoint of a run of SSQL.

    Raises:
        ValueError: there is none, or it is of another task.
    """
    behaviour, contract = task.behaviour_policy(), task.contract()
    rows = load_checkpoint(run / "checkpoint.safetensors")["learner"]["replay"]["rows"]
    n, m = contract.observation_size + behaviour.n_context, contract.action_size
    if rows.shape[1] != 2 * n + m + 3:
        raise ValueError(f"{run}: expected transitions of {2 * n + m + 3} numbers for {task.name}, got {rows.shape[1]}")
    replay = Replay(len(rows), n, m)
    replay.restore({"rows": rows, "added": torch.tensor([len(rows)])})
    states = rows[:, :n].numpy()
    return Data(replay, states.mean(axis=0), np.maximum(states.std(axis=0), 0.02), behaviour, m)


def learn_and_judge(
    method: str, data: Data, task: Task, updates: int, episodes: int, seed: int, changed: dict[str, Any], show: bool
) -> dict[str, float]:
    """Return the figures of one learner on the data.

    Args:
        changed: settings that differ from SSQL's for the robot; all methods take width, rate and discount of that.

    Raises:
        ValueError: no such method.
    """
    own = settings_of("ssql", task.robot, changed, task.name)
    assert isinstance(own, SSQLSettings)
    shared = {name: getattr(own, name) for name in ("hidden", "batch", "gamma", "tau", "learning_rate")}
    draws = torch.Generator().manual_seed(seed)

    def train(step: Callable[..., Any], count: int, device: torch.device) -> None:
        for _ in tqdm(range(count), unit="update", desc=method, disable=not show):
            step(data.replay.draw(own.batch, draws, device))

    shape = (data.mean, data.scale, data.n_action)
    if method == "ssql":
        ssql = SSQL(*shape, own, seed, data.behaviour)
        train(ssql.update, updates, ssql.device)
        train(ssql.extract, own.extraction_updates, ssql.device)
        return _judged_ssql(ssql, data, task, own, episodes, seed)
    if method == "iql":
        iql = IQL(*shape, IQLSettings(**shared), seed)
        train(iql.update, updates, iql.device)
        return _judged(iql.networks(), 0.0, data, task, own.gamma, episodes, seed)
    kinds: dict[str, tuple[type[SAC], type[SACSettings]]] = {"sac": (SAC, SACSettings), "cql": (CQL, CQLSettings)}
    if method not in kinds:
        raise ValueError(f"method {method!r} is unknown; known: {', '.join(METHODS)}")
    kind, settings = kinds[method]
    sac = kind(*shape, settings(**shared), seed)
    train(sac.update, updates, sac.device)
    return _judged(sac.networks(), float(sac.alpha), data, task, own.gamma, episodes, seed)


def _judged_ssql(ssql: SSQL, data: Data, task: Task, own: SSQLSettings, episodes: int, seed: int) -> dict[str, float]:
    networks = ssql.networks()
    bundle = Bundle(
        "comparison",
        None,
        policy=networks["policy"],
        reward=networks["reward"],
        policy_kind=policy_kind(own),
        behaviour=data.behaviour.describe(),
    )
    env = task.make(**task.world("pretrain"))
    policy, rng = supported_policy(bundle), np.random.default_rng([seed, 8])
    parts = [_episode(lambda o: policy.propose(o, rng).action, policy.behaviour, env, rng) for _ in range(episodes)]
    figures = _outcomes([part[0] for part in parts], [part[2] for part in parts], [part[3] for part in parts])
    if own.temperature > 0.0:
        induced = InducedPolicy(bundle, own.temperature, own.samples)
        rollouts, totals = roll_out(JudgedInduced(induced), env, episodes, seed, show=False)
        figures |= _calibrated(rollouts, own.gamma, own.temperature)
        figures["induced_return_mean"] = float(np.mean(totals))
        figures["kl_mean"] = float(np.concatenate([rollout.cost for rollout in rollouts]).mean())
    env.close()
    return figures


def _judged(
    networks: dict[str, Network], alpha: float, data: Data, task: Task, gamma: float, episodes: int, seed: int
) -> dict[str, float]:
    """Judge a squashed Gaussian policy over the whole action range, in states with b's context."""
    env, behaviour, rng = task.make(**task.world("pretrain")), data.behaviour, np.random.default_rng([seed, 8])
    judged = JudgedGaussian(networks["policy"], networks["reward"], behaviour)
    totals, incidents, speeds, rollouts = [], [], [], []
    for _ in range(episodes):
        q: list[float] = []
        cost: list[float] = []

        def act(observation: np.ndarray, q: list[float] = q, cost: list[float] = cost) -> np.ndarray:
            action, value, log_pi = judged.step(observation, rng)
            q.append(value)
            cost.append(log_pi)
            return action

        total, rewards, incident, speed = _episode(act, behaviour, env, rng)
        totals.append(total)
        incidents.append(incident)
        speeds.append(speed)
        rollouts.append(Rollout(np.array(q), np.array(rewards), np.array(cost), incident))
    env.close()
    return {**_outcomes(totals, incidents, speeds), **_calibrated(rollouts, gamma, alpha)}


def _episode(
    act: Callable[[np.ndarray], np.ndarray], behaviour: BehaviourPolicy, env: Any, rng: np.random.Generator
) -> tuple[float, list[float], bool, float]:
    """Run one episode; return its return, rewards, whether it ended in an incident, and the mean velocity in m/s."""
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    behaviour.reset(rng)
    rewards, speeds = [], []
    terminated = truncated = False
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = env.step(act(observation))
        rewards.append(float(reward))
        speeds.append(float(info.get("velocity", np.nan)))
    return float(np.sum(rewards)), rewards, bool(info["incident"]), float(np.mean(speeds))


def _outcomes(totals: list[float], incidents: list[bool], speeds: list[float]) -> dict[str, float]:
    return {
        "return_mean": float(np.mean(totals)),
        "incident_rate": float(np.mean(incidents)),
        "velocity_mean": float(np.mean(speeds)),
    }


def _calibrated(rollouts: list[Rollout], gamma: float, price: float) -> dict[str, float]:
    figures = compared(rollouts, gamma, price)
    return {name: figures[name] for name in ("q_bias", "q_rmse", "q_rank")}
