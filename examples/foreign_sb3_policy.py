"""A policy that knows no shield: PPO of stable-baselines3 learns to steer a boat to its goal, in a world of its own.

    python examples/foreign_sb3_policy.py ppo_boat.zip
    ssql run --task boat --policy sb3:ppo_boat.zip

It needs stable-baselines3, in whatever environment. The world below has the boat's observation and action, as
config/boat/contract.yaml says them, and its current; of the two rocks it knows nothing. Seconds of training are enough
to head for the goal. The second line is all that it takes to put the shield before it.
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO

LOW, HIGH = np.array([-3.0, -2.0]), np.array([2.0, 2.0])  # m, the box that it sails in
GOAL = np.array([1.5, 0.0])  # m
PERIOD, STEPS = 0.05, 40  # s, of training, which the robot's 0.005 s would make slow; periods of an episode


class OpenWater(gymnasium.Env):
    """A boat of 1 m/s in a current along x. Observation: x and y, m. Action: the heading, in [-1, 1]."""

    observation_space = gymnasium.spaces.Box(LOW, HIGH, dtype=np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Begin anywhere."""
        super().reset(seed=seed)
        self._position, self._steps = self.np_random.uniform(LOW, HIGH), 0
        return self._position.copy(), {}

    def step(self, action):
        """Sail for a period; the reward is how much nearer the goal is."""
        before = np.linalg.norm(self._position - GOAL)
        heading = action / max(1e-6, float(np.linalg.norm(action)))
        current = np.array([2.0 - 0.5 * self._position[1] ** 2, 0.0])
        self._position = np.clip(self._position + (heading + current) * PERIOD, LOW, HIGH)
        self._steps += 1
        reward = float(before - np.linalg.norm(self._position - GOAL))
        return self._position.copy(), reward, False, self._steps == STEPS, {}


def main(out: Path, steps: int = 10_000) -> None:
    """Train, and save as stable-baselines3 saves."""
    torch.set_num_threads(1)  # networks this small only lose by a second one
    policy = PPO("MlpPolicy", OpenWater(), n_steps=1024, gamma=0.95, seed=0, device="cpu")
    policy.learn(steps)
    policy.save(out)
    print(f"{out}: PPO after {steps} steps")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="zip to write")
    main(parser.parse_args().out)
