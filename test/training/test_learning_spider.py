"""Learning happens: seconds on an easy spider give a better return, and a mask that prevents incidents."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.sac import Mask
from ssql_ros.data.rollout import EpisodeRow
from ssql_ros.evaluation.driver import Driver, evaluate
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.learner import Learner
from ssql_ros.training.registry import Start, make_learner
from ssql_ros.training.settings import SETTINGS, settings_of
from ssql_ros.training.world_training import WorldTraining
from ssql_sim.spider import SpiderEnv

# A second thread costs networks as small as these far more than it gains.
torch.set_num_threads(1)

pytestmark = pytest.mark.slow
STEPS, UNIFORM = 2500, 1000
TASK = find_task("spider")
CONTRACT = TASK.contract()
SMALL = {"hidden": (32, 32), "learning_rate": 3e-3, "batch": 64, "update_every": 2, "initial_temperature": 1.0}


def easy() -> SpiderEnv:
    """The goal lies on the bridge, three steps away; the lava lies beside it."""
    return SpiderEnv(goal=(3.5, 3.5), action_noise=0.1, max_steps=12)


def trained(algorithm: str, seed: int, **changed: float) -> WorldTraining:
    known = {field.name for field in fields(SETTINGS[algorithm])}
    settings = settings_of(algorithm, "easy", {name: v for name, v in {**SMALL, **changed}.items() if name in known})
    centre, spread = np.array(TASK.centre), np.array(TASK.spread)
    start = Start(centre, spread, CONTRACT.action_size, CONTRACT.id, "easy", "pretrain", STEPS, seed)
    training = WorldTraining(make_learner(algorithm, start, settings), easy, CONTRACT, STEPS, seed)
    for _ in training.run():
        pass
    return training


def mean(rows: list[EpisodeRow], name: str) -> float:
    return float(np.mean([getattr(row, name) for row in rows]))


def played(learner: Learner, mask: Mask | None, episodes: int) -> list[EpisodeRow]:
    """Draws from the policy, the same proposals' seeds with and without a mask."""
    driver, rows = Driver(easy(), CONTRACT, np.random.default_rng(5), "collect"), []
    for _ in range(episodes):
        driver.episode(learner, mask, 0)
        rows.append(driver.row(0))
    return rows


def test_sac_learns_to_reach_the_goal():
    training = trained("sac", seed=0, target_entropy=-1.0)
    uniform, last = [row for row in training.rows if row.step <= UNIFORM], training.rows[-50:]
    assert mean(uniform, "total_reward") < 0.0
    assert mean(uniform, "incident") > 0.8
    assert mean(last, "total_reward") > 20.0
    assert mean(last, "incident") < 0.3
    judged = evaluate(training.learner, easy(), CONTRACT, None, 20, seed=0)
    assert mean(judged, "success") >= 0.9


@pytest.fixture(scope="module")
def bold() -> WorldTraining:
    """A policy that is kept so random that it goes on falling into the lava, and the safety critic that watched it."""
    return trained("sqrl", 0, target_entropy=1.0, gamma_safe=0.3, epsilon=0.2, mask_from=1.0, off_policy_steps=250)


@pytest.mark.long
def test_sqrls_mask_prevents_most_incidents_of_the_same_policy(bold):
    mask = bold.learner.mask(STEPS)
    alone, masked = played(bold.learner, None, 150), played(bold.learner, mask, 150)
    assert mean(alone, "incident") > 0.3
    assert mean(masked, "incident") < 0.5 * mean(alone, "incident")
    assert mean(masked, "intervened") > 0.5
    assert mean(alone, "intervened") == 0.0


def test_safety_critic_knows_the_lava(bold):
    critic = bold.learner.mask(STEPS).critic
    right, ahead, back = np.array([[0.0, 1.0]]), np.array([[0.3, 0.0]]), np.array([[-1.0, 0.0]])
    # On the bridge, 0.2 m from the pool at its right; and 0.3 m from the edge of the map, which is behind.
    beside, edge = np.array([2.5, 3.8]), np.array([0.3, 3.5])
    for place, deadly in ((beside, right), (edge, back)):
        assert critic.logits(place, deadly)[0] > 0.0
        assert critic.logits(place, ahead)[0] < critic.logits(place, deadly)[0] - 1.0
