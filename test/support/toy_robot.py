"""A robot of a few lines for tests: its contract, safety critics in closed form and with random weights."""

import hashlib
import itertools
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ssql_ros.contract import Contract, load_contract
from ssql_ros.model.bundle import Bundle, Layer, Network, ProbabilityCritic, Rule

PERIOD = 0.02
PERIOD_NS = 20_000_000
MAX_SKEW_NS = 5_000_000
EPISODE_GAP_NS = 100_000_000
PAST_FRAMES, PAST_ACTIONS, ACTION_SCALE = 3, 2, 0.5


def toy_yaml(n_action: int = 1, low: float = -1.0, high: float = 1.0) -> str:
    """Joint i stands at 0.1 + 0.5 a_i rad; the frame is roll and the joints, in two topics."""
    frame = [f"{{name: q{i}, input: joints, field: position, joint: joint{i}, unit: rad}}" for i in range(n_action)]
    elements = [f"{{name: a{i}, low: {low}, high: {high}}}" for i in range(n_action)]
    joints = [f"{{name: joint{i}, offset: 0.1, sum: {{a{i}: 0.5}}}}" for i in range(n_action)]
    return f"""
robot: toy
control_period: {PERIOD}
command_timeout: 0.04
inputs:
  joints: {{topic: joint_states, type: sensor_msgs/msg/JointState, max_age: 0.04}}
  imu: {{topic: imu/data, type: sensor_msgs/msg/Imu, max_age: 0.04}}
observation:
  trigger: joints
  max_skew: 0.005
  episode_gap: 0.1
  frame: [{{name: roll, input: imu, field: orientation.roll, unit: rad}}, {", ".join(frame)}]
  derived: [{{name: lean, sum: {{roll: 2.0, q0: -1.0}}}}]
  vector:
    - {{block: frame}}
    - {{block: past_frames, count: {PAST_FRAMES}}}
    - {{block: past_actions, count: {PAST_ACTIONS}, scale: {ACTION_SCALE}}}
    - {{block: derived}}
action:
  elements: [{", ".join(elements)}]
  command: {{topic: joint_commands, type: sensor_msgs/msg/JointState, field: position, unit: rad}}
  joints: [{", ".join(joints)}]
incident: [{{feature: roll, above: 0.3, below: -0.3, unit: rad}}]
safe_action: {[0.25] * n_action}
"""


@lru_cache
def toy_contract(n_action: int = 1, low: float = -1.0, high: float = 1.0) -> Contract:
    """The checked contract of `toy_yaml`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "toy.yaml")
        path.write_text(toy_yaml(n_action, low, high))
        return load_contract(path)


class FormulaCritic:
    """A safety critic given by a formula: logits (k,) of Q_safe from the actions (k, n_action) alone.

    Attributes:
        scored: the actions of every call.
    """

    id = "formula"
    rule = Rule.PROBABILITY

    def __init__(self, formula: Callable[[np.ndarray], np.ndarray]):
        self.formula = formula
        self.scored: list[np.ndarray] = []

    def logits(self, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Scores as a served critic gives them: float32."""
        self.scored.append(actions.copy())
        return np.asarray(self.formula(actions), np.float32)


def toy_network(contract: Contract, widths: Sequence[int] = (16, 8), members: int = 2, seed: int = 0) -> Network:
    """A safety critic with random weights."""
    rng = np.random.default_rng(seed)
    sizes = (contract.observation_size + contract.action_size, *widths, 1)

    def layer(n_in: int, n_out: int) -> Layer:
        weight = rng.normal(0.0, math.sqrt(2.0 / n_in), (n_in, n_out))
        return Layer(weight.astype(np.float32), rng.normal(0.0, 0.1, n_out).astype(np.float32))

    return Network(
        observation_mean=rng.normal(size=contract.observation_size).astype(np.float32),
        observation_scale=rng.uniform(0.1, 2.0, contract.observation_size).astype(np.float32),
        observation_clip=3.0,
        members=tuple(tuple(layer(*size) for size in itertools.pairwise(sizes)) for _ in range(members)),
    )


def toy_bundle(contract: Contract, **network: object) -> Bundle:
    """A bundle around `toy_network`."""
    critic = ProbabilityCritic.of(toy_network(contract, **network), 0.1, 0.7)
    return Bundle(contract.id, critic, {"command": "none", "seed": 3})


def resealed(data: bytes) -> bytes:
    """A file's content with the digest that it would have been saved with."""
    found = re.search(rb'\\"digest\\": \\"([0-9a-f]{64})', data)
    if found is None:
        return data
    start, end = found.span(1)
    zeroed = data[:start] + b"0" * 64 + data[end:]
    return data[:start] + hashlib.sha256(zeroed).hexdigest().encode() + data[end:]
