"""What is read of a zip of stable-baselines3 acts as stable-baselines3 does, where that is installed (`make peers`)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.side import PEERS
from ssql_ros.cli.import_policy import imported
from ssql_ros.model.policy import make_policy
from ssql_ros.robots.tasks import find_task

ROOT = Path(__file__).resolve().parents[2]
HERE = importlib.util.find_spec("stable_baselines3") is not None
PYTHON = sys.executable if HERE else str(ROOT / PEERS)
pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason="no stable-baselines3 (`make peers`): no parity here")
# Weights beyond those of a fresh policy, so that clipping and squashing are seen.
PROGRAM = """
import sys, gymnasium, numpy as np, torch, stable_baselines3
from pathlib import Path
class World(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-3.0, 3.0, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
folder = Path(sys.argv[1])
model = stable_baselines3.ALGORITHM("MlpPolicy", World(), seed=0, device="cpu", **OPTIONS)
with torch.no_grad():
    for name, parameter in model.policy.named_parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
model.save(folder / "policy.zip")
states = np.random.default_rng(0).uniform(-3.0, 3.0, (64, 2))
np.savez(folder / "said.npz", states=states, actions=model.predict(states, deterministic=True)[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("PPO", "{}"),
        ("PPO", "dict(use_sde=True, policy_kwargs=dict(activation_fn=torch.nn.ELU, net_arch=[32]))"),
        ("A2C", "{}"),
        ("SAC", "{}"),
        ("TD3", "dict(policy_kwargs=dict(activation_fn=torch.nn.GELU))"),
        ("DDPG", "{}"),
    ],
)
def test_an_imported_policy_acts_as_stable_baselines3_does(tmp_path, algorithm, options):
    program = PROGRAM.replace("ALGORITHM", algorithm).replace("OPTIONS", options)
    subprocess.run([PYTHON, "-c", program, str(tmp_path)], check=True, timeout=240)
    policy = make_policy(imported(tmp_path / "policy.zip", "boat", find_task("boat").contract()))
    said = np.load(tmp_path / "said.npz")
    assert np.ptp(said["actions"]) > 1.0
    # GELU is served to 1.5e-7 a unit (model.activation).
    np.testing.assert_allclose([policy.best(state) for state in said["states"]], said["actions"], atol=1e-5)
