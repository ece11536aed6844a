"""The boat's ground truth, and logs of it: what only this world lets one know exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from tqdm import tqdm

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.data.logged_steps import Log
from ssql_ros.robots.boat.pilots import PILOTS, Chart, Pilots
from ssql_sim import boat
from ssql_sim.reachability import Grid, Solution, World, rolled, safe_starts, solve

WORLD = World(boat.moved, boat.margin_of, boat.reward_of, boat.LOW, boat.HIGH, boat.MAX_STEPS)


@lru_cache(maxsize=1)
def boat_solution() -> Solution:
    """Return who can stay safe and the best safe return, on 251 x 201 cells; some seconds."""
    return solve(WORLD, Grid())


class BoatTruth:
    """What is known exactly of the boat's world."""

    states = "uniform over the box"

    def safe_starts(self, count: int, seed: int) -> np.ndarray:
        """Return positions (count, 2), uniformly drawn from those from which the boat can stay safe."""
        return safe_starts(boat_solution(), count, seed)

    def initial(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return positions (count, 2), uniform over the box, rocks included."""
        return rng.uniform(WORLD.low, WORLD.high, (count, 2))

    def worst(self, starts: np.ndarray, act: Callable[[np.ndarray], np.ndarray], show: bool) -> np.ndarray:
        """Return the largest margin (N,) of an episode from each start (N, 2), of actions act(positions) (N, 2)."""
        return rolled(WORLD, starts, lambda position, _: act(position), show)[1]


def boat_log(episodes: int, seed: int, show: bool = False) -> Log:
    """Return a mixed log: the pilots in turn, from starts all over the box."""
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    rng = np.random.default_rng([seed, 7])
    position = rng.uniform(WORLD.low, WORLD.high, (episodes, 2))
    pilots = Pilots(Chart.of(load_contract(find_contract("boat"))), np.arange(episodes) % len(PILOTS), rng)
    observations, actions = [], []
    for _ in tqdm(range(WORLD.steps), unit="step", disable=not show):
        observations.append(position)
        # As float32, which is what the log holds: what was recorded is what was done.
        actions.append(pilots.act(position).astype(np.float32))
        position = WORLD.moved(position, actions[-1])
    observation = np.stack(observations, axis=1).reshape(-1, 2)
    return Log(
        observation=observation.astype(np.float32),
        action=np.stack(actions, axis=1).reshape(-1, 2),
        reward=WORLD.reward(observation).astype(np.float32),
        margin=WORLD.margin(observation).astype(np.float32),
        terminal=np.zeros(len(observation), np.float32),
        episode=np.repeat(np.arange(episodes), WORLD.steps),
    )
