"""The gate on the return: what a policy is worth by fitted Q evaluation, and what the gate makes of it."""

import math

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.ssql import SSQL, SSQLSettings, policy_kind
from ssql_ros.behaviour.policy import UniformBox
from ssql_ros.data.replay import Batch
from ssql_ros.live.gates import return_gate
from ssql_ros.live.policy_value import drawn_by_behaviour, drawn_by_policy, fitted_value, taken_from
from ssql_ros.model.bundle import Bundle
from ssql_ros.model.policy import supported_policy

torch.set_num_threads(1)
GAMMA, SLOPE = 0.5, 2.0


def learner(extraction: str = "forward") -> SSQL:
    own = SSQLSettings(hidden=(16, 16), batch=64, gamma=GAMMA, learning_rate=3e-3, extraction=extraction)
    return SSQL(np.zeros(1), np.ones(1), 1, own, 0, UniformBox([-0.5], [0.5]), torch.device("cpu"), torch.float32)


def leaning(u: float, extraction: str = "forward") -> Bundle:
    """A policy whose action lies about 0.5 tanh(u)."""
    made = learner(extraction)
    with torch.no_grad():
        made.actor.flat.mul_(0.01)
        made.actor.biases[-1][0, 0, 0] = u
        if extraction == "forward":
            made.actor.biases[-1][0, 0, 1] = -2.0
    networks = made.networks()
    behaviour = made.behaviour.describe()
    kind = policy_kind(made.settings)
    return Bundle(
        "none",
        None,
        policy=networks["policy"],
        reward=networks["reward"],
        policy_kind=kind,
        behaviour=behaviour,
    )


def batches(rng: np.random.Generator):
    """Every step pays SLOPE times the action, whatever the state, and goes on for ever."""

    def draw() -> Batch:
        state, next_observation = (torch.as_tensor(rng.normal(size=(64, 1)), dtype=torch.float32) for _ in range(2))
        action = torch.as_tensor(rng.uniform(-0.5, 0.5, (64, 1)), dtype=torch.float32)
        return Batch(state, action, SLOPE * action[:, 0], next_observation, torch.zeros(64), torch.zeros(64))

    return draw


@pytest.mark.slow
@pytest.mark.parametrize(("extraction", "u"), [("forward", 1.0), ("forward", -1.0), ("flow", 1.0)])
def test_the_fitted_value_is_the_closed_form(extraction: str, u: float) -> None:
    algorithm, bundle, rng = learner(extraction), leaning(u, extraction), np.random.default_rng(0)
    served = supported_policy(bundle)
    mean = np.mean([served.propose(np.zeros(1), rng).action[0] for _ in range(3000)])
    states = torch.as_tensor(rng.normal(size=(300, 1)), dtype=torch.float32)
    draw = drawn_by_policy(taken_from(bundle, algorithm, 0))
    assert float(draw(states).mean()) == pytest.approx(mean, abs=0.03)
    before = algorithm.critics.flat.clone()
    # v = SLOPE E a (1 + gamma + gamma^2 + ...)
    found = fitted_value(algorithm, draw, batches(rng), 500, states)
    assert found == pytest.approx(SLOPE * mean / (1.0 - GAMMA), abs=0.1)
    assert torch.equal(before, algorithm.critics.flat)
    found = fitted_value(algorithm, drawn_by_behaviour(algorithm), batches(rng), 500, states)
    assert found == pytest.approx(0.0, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("candidate", "service", "passes"), [(1.0, None, True), (-0.7, None, False), (0.3, 1.0, False)]
)
def test_a_policy_that_is_worse_than_what_acts_is_refused(
    candidate: float, service: float | None, passes: bool
) -> None:
    algorithm, rng = learner(), np.random.default_rng(1)
    states = torch.as_tensor(rng.normal(size=(200, 1)), dtype=torch.float32)
    draws = [drawn_by_policy(taken_from(leaning(candidate), algorithm, 0)), drawn_by_behaviour(algorithm)]
    if service is not None:
        draws[1] = drawn_by_policy(taken_from(leaning(service), algorithm, 0))
    found = [fitted_value(algorithm, draw, batches(rng), 400, states) for draw in draws]
    acts = rng.uniform(-0.5, 0.5, 4000) if service is None else np.full(4000, 0.5 * math.tanh(service))
    recorded = np.convolve(SLOPE * acts, GAMMA ** np.arange(20))[19:-19]
    # What is recorded of a policy that hardly varies has hardly a range.
    gate = return_gate(*found, np.append(recorded, [-2.0, 2.0]))
    assert gate.passed == passes
    assert gate.figures["estimate"] == pytest.approx(gate.figures["recorded"] + found[0] - found[1])


def test_the_return_gate_says_what_it_cannot_know() -> None:
    returns = np.linspace(0.0, 10.0, 101)
    assert return_gate(5.0, 5.0, returns).passed
    # As much worse as the margin allows, and more.
    assert return_gate(4.6, 5.0, returns).passed
    assert not return_gate(4.4, 5.0, returns).passed
    assert return_gate(4.4, 5.0, returns, margin=0.1).passed
    # The fit's own error on the policy in service is taken off; where it is large, nothing is known.
    assert return_gate(7.0, 7.0, returns).figures["fit_error"] == pytest.approx(2.0)
    assert return_gate(7.0, 7.0, returns).passed
    assert not return_gate(9.0, 9.0, returns).passed
    assert not return_gate(math.nan, 5.0, returns).passed
    assert not return_gate(5.0, math.nan, returns).passed
    refused = return_gate(5.0, 5.0, np.zeros(0))
    assert not refused.passed
    assert "no whole return" in refused.words
