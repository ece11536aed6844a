"""SQRL: its safety critic's equation and fixed points, and that the price of risk reaches the actor."""

import copy
import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.rs import RS
from ssql_ros.algorithms.sac import SAC
from ssql_ros.algorithms.sqrl import SQRLPretraining, SQRLSettings
from ssql_ros.algorithms.sqrl_finetuning import SQRLFineTuning
from ssql_ros.data.replay import Replay, Transition
from ssql_ros.model.critic import logit
from support.learners import COMMON, CPU, FLOAT32, N, close, drawn, judged, made, sigmoid, some_batch, standardised

SETTINGS = SQRLSettings(**COMMON)
GAMMA = 0.7


def step(observation, action, next_observation, incident=False, terminal=False) -> Transition:
    state, action, next_observation = (np.array(vector, float) for vector in (observation, action, next_observation))
    return Transition(state, action, 0.0, next_observation, incident, incident or terminal)


def said_everywhere(learner: SQRLPretraining, q_safe: float) -> None:
    """Make the safety critic say the same of every action."""
    with torch.no_grad():
        for parameter in learner.safety.parameters():
            parameter.zero_()
        learner.safety.biases[-1].fill_(logit(q_safe))


# Eq. 2: the safety critic


@pytest.mark.parametrize("ending", ["incident", "success", "none"])
def test_safety_target_is_one_after_an_incident_zero_after_a_success_and_discounted_in_between(ending):
    learner = made(SQRLPretraining, replace(SETTINGS, safety_updates=1, batch=4, gamma_safe=GAMMA))
    taken = step([0.3, -0.8], [0.5, -0.5], [1.0, -1.2], incident=ending == "incident", terminal=ending == "success")
    state, next_observation = (
        standardised(torch.tensor(vector[None])) for vector in (taken.observation, taken.next_observation)
    )
    q = sigmoid(judged(learner.safety, state, taken.action[None])[0])
    before = learner.generator.get_state()
    action, _ = drawn(learner, np.repeat(next_observation, 4, axis=0), learner.safety_noise(4))
    # The update draws the same.
    learner.generator.set_state(before)
    bootstrap = GAMMA * sigmoid(judged(learner.safety_target, np.repeat(next_observation, 4, axis=0), action)[0])
    y = {"incident": np.ones(4), "success": np.zeros(4), "none": bootstrap}[ending]
    found = learner.observe_rollouts([[taken]])["safety_loss"]
    close(found, -(y * np.log(q) + (1.0 - y) * np.log(1.0 - q)).mean())


def learned(episodes: list[list[Transition]], n_observation: int, **changes: object) -> SQRLPretraining:
    """A safety critic that has learned these episodes."""
    small = {"hidden": (16,), "batch": 128, "learning_rate": 3e-3, "safety_updates": 1500, "safety_tau": 0.05}
    settings = SQRLSettings(gamma_safe=GAMMA, **small, **changes)
    shape = (np.zeros(n_observation), np.ones(n_observation), 1, settings, 0)
    learner = SQRLPretraining(*shape, contract_id="none", steps=1, device=CPU, precision=FLOAT32)
    learner.observe_rollouts(episodes)
    return learner


def q_safe(learner: SQRLPretraining, observation: np.ndarray, action: float) -> float:
    rows = learner.standardise(torch.tensor(observation, dtype=FLOAT32).unsqueeze(0))
    return learner.q_safe(rows, torch.tensor([[action]])).item()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("members", "lookahead"), [(1, 1), (3, 1), (2, 3), (1, 10)])
def test_fixed_point_on_a_chain_is_gamma_to_the_steps_before_the_incident(members, lookahead):
    # States 0 to 4 lead one by one to an incident, 5 to 9 to a success; actions change nothing.
    states, rng = np.eye(10), np.random.default_rng(0)
    episodes = []
    for first in (0, 5):
        for _ in range(20):
            walk = [step(states[i], rng.uniform(-1, 1, 1), states[i + 1]) for i in range(first, first + 4)]
            last = step(states[first + 4], rng.uniform(-1, 1, 1), states[first], first == 0, terminal=True)
            episodes.append([*walk, last])
    learner = learned(episodes, 10, safety_members=members, safety_lookahead=lookahead)
    found = [q_safe(learner, states[i], action) for i in range(10) for action in (-0.8, 0.8)]
    expected = np.repeat([GAMMA**4, GAMMA**3, GAMMA**2, GAMMA, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 2)
    np.testing.assert_allclose(found, expected, atol=0.04)


def choice_episodes() -> list[list[Transition]]:
    """After "before" comes "choice", where an action above 0 is an incident, and one below 0 a success."""
    before, choice, rng = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.random.default_rng(0)
    episodes = []
    for action in rng.uniform(-1, 1, 200):
        end = step(choice, [action], before, incident=action > 0, terminal=True)
        episodes.append([step(before, rng.uniform(-1, 1, 1), choice), end])
    return episodes


def test_fixed_point_is_the_risk_of_the_unmasked_policy():
    before, choice = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    learner = learned(choice_episodes(), 2)
    mean, std = (float(value[0]) for value in learner.act(choice))
    rises = 1.0 - NormalDist(mean, std).cdf(0.0)
    assert 0.2 < rises < 0.8
    # The mask would never let an action above 0 pass: behind it the risk before is 0.
    assert learner.mask(1).critic.logits(choice, np.array([[0.7]]))[0] > logit(SETTINGS.epsilon)
    assert q_safe(learner, before, 0.0) == pytest.approx(GAMMA * rises, abs=0.05)
    assert q_safe(learner, choice, 0.7) == pytest.approx(1.0, abs=0.05)
    assert q_safe(learner, choice, -0.7) == pytest.approx(0.0, abs=0.05)


@pytest.mark.long
@pytest.mark.slow
def test_fixed_point_unrolled_along_the_record_is_the_risk_of_what_was_executed():
    before, choice = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    learner = learned(choice_episodes(), 2, safety_lookahead=5)
    # Half of the recorded actions were above 0, whatever the policy would do.
    assert q_safe(learner, before, 0.0) == pytest.approx(GAMMA * 0.5, abs=0.07)
    assert q_safe(learner, choice, 0.7) == pytest.approx(1.0, abs=0.05)
    assert q_safe(learner, choice, -0.7) == pytest.approx(0.0, abs=0.05)


@pytest.mark.long
@pytest.mark.slow
def test_fixed_point_with_more_candidates_is_the_risk_of_the_masked_policy():
    before, choice = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    learner = learned(choice_episodes(), 2, target_candidates=16)
    assert q_safe(learner, before, 0.0) == pytest.approx(0.0, abs=0.05)
    assert q_safe(learner, choice, 0.7) == pytest.approx(1.0, abs=0.05)


@pytest.mark.long
@pytest.mark.slow
def test_fixed_point_with_uniform_draws_does_not_depend_on_the_policy():
    before = np.array([1.0, 0.0])
    learner = learned(choice_episodes(), 2, target_uniform=True)
    # Half of all actions rise, whatever the policy does.
    assert q_safe(learner, before, 0.0) == pytest.approx(GAMMA * 0.5, abs=0.05)
    assert q_safe(learned(choice_episodes(), 2, target_uniform=True, target_candidates=16), before, 0.0) < 0.05


@pytest.mark.long
@pytest.mark.slow
def test_last_fit_teaches_the_mask_what_only_the_replay_has_seen():
    choice, there = np.array([0.0, 1.0]), np.array([0.0, 0.0])
    harmless = [[step(choice, [action], there, terminal=True)] for action in (-0.5, 0.5)]
    learner = learned(harmless, 2, offline_share=0.0, near_share=0.0, final_safety_updates=1500)
    assert q_safe(learner, choice, 0.7) == pytest.approx(0.0, abs=0.05)
    episodes = choice_episodes()
    learner.replay = Replay(400, 2, 1)
    for transition in (transition for episode in episodes for transition in episode):
        learner.replay.add(transition)
    for work in learner.finish():
        for _ in range(work.count):
            work.step()
    assert q_safe(learner, choice, 0.7) == pytest.approx(1.0, abs=0.05)
    assert q_safe(learner, choice, -0.7) == pytest.approx(0.0, abs=0.05)
    served = learner.mask(1).critic.logits(choice, np.array([[0.7], [-0.7]], np.float32))
    assert served[0] > logit(0.9)
    assert served[1] < logit(0.1)
    assert made(SQRLPretraining, SETTINGS).finish() == made(SQRLFineTuning, SETTINGS).finish() == []


def test_critic_behind_the_mask_says_what_the_learned_one_says():
    learner = made(SQRLPretraining, replace(SETTINGS, safety_members=3))
    learner.serve()
    observations, actions = np.random.default_rng(0).uniform(-1, 1, (2, 30, 2))
    rows = learner.standardise(torch.tensor(observations, dtype=FLOAT32))
    expected = torch.logit(learner.q_safe(rows, torch.tensor(actions, dtype=FLOAT32))).numpy()
    served = learner.mask(1000).critic
    found = [served.logits(*pair)[0] for pair in zip(observations, actions[:, None], strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pretraining_masks_from_its_setting_on_and_draws_part_of_the_episodes_at_the_edge():
    settings = replace(SETTINGS, mask_from=0.5, off_policy_steps=100, rollouts=5, risky_share=0.4)
    learner = made(SQRLPretraining, settings, steps=1000)
    assert learner.mask(999) is None  # nothing was learned yet
    learner.serve()
    assert learner.mask(499) is None
    mask = learner.mask(500)
    assert (mask.settings.epsilon, mask.settings.riskiest) == (settings.epsilon, False)
    assert learner.rollouts_due(550) == []
    assert learner.rollouts_due(400) == [None] * 5
    assert [due.settings.riskiest for due in learner.rollouts_due(600)] == [True, True, False, False, False]


def test_episodes_of_the_safety_critic_are_masked_before_collection_is():
    settings = replace(
        SETTINGS, mask_from=0.8, rollouts_masked_from=0.3, off_policy_steps=100, rollouts=2, risky_share=0.5
    )
    learner = made(SQRLPretraining, settings, steps=1000)
    assert learner.rollouts_due(400) == [None] * 2  # nothing was learned yet
    learner.serve()
    assert learner.rollouts_due(200) == [None] * 2
    assert [due.settings.riskiest for due in learner.rollouts_due(300)] == [True, False]
    assert learner.mask(300) is None
    assert learner.mask(800) is not None


@pytest.mark.parametrize("kept", [False, True])
def test_episodes_of_the_safety_critic_go_into_the_replay_where_asked_for(kept):
    learner = made(SQRLPretraining, replace(SETTINGS, keep_rollouts=kept, safety_updates=1, batch=4))
    learner.replay = Replay(10, 2, 2)
    learner.observe_rollouts([[step([0.3, -0.8], [0.5, -0.5], [1.0, -1.2], incident=True)]] * 3)
    assert len(learner.safety_replay) == 3
    assert len(learner.replay) == (3 if kept else 0)


# Eq. 4: fine-tuning


def gradient(learner: SAC, noise: dict[str, torch.Tensor]) -> np.ndarray:
    """Slopes of the actor's loss."""
    moved = copy.deepcopy(learner)
    loss, _ = moved.actor_loss(moved.standardise(some_batch().observation), noise)
    (slopes,) = torch.autograd.grad(loss, list(moved.actor.parameters()))
    return slopes.numpy()


def risk(learner: SQRLFineTuning, noise: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean Q_safe of the actions that `actor_loss` draws, with its graph."""
    state = learner.standardise(some_batch().observation)
    return learner.q_safe(state, learner.actor.sample(state, noise["state"])[0]).mean()


def test_actors_objective_has_the_priced_risk():
    learner = made(SQRLFineTuning, replace(SETTINGS, initial_nu=2.5))
    rows = standardised(some_batch().observation)
    noise = learner.noise(N)
    action, log_pi = drawn(learner, rows, noise["state"])
    q, q_risk = judged(learner.critics, rows, action).min(axis=0), sigmoid(judged(learner.safety, rows, action)[0])
    loss, _ = learner.actor_loss(learner.standardise(some_batch().observation), noise)
    close(loss, (0.3 * log_pi - q - 2.5 * (0.1 - q_risk)).mean())


def test_price_of_risk_reaches_the_actor_and_lowers_the_risk():
    free, priced = (made(SQRLFineTuning, replace(SETTINGS, initial_nu=nu)) for nu in (1e-12, 50.0))
    noise = free.noise(N)
    (slopes,) = torch.autograd.grad(risk(priced, noise), list(priced.actor.parameters()))
    assert slopes.abs().max() > 1e-3
    np.testing.assert_allclose(
        gradient(priced, noise) - gradient(free, noise), 50.0 * slopes.numpy(), rtol=1e-3, atol=1e-4
    )
    # Down the slope of the whole loss, which the price dominates, there is less risk.
    before, downhill = risk(priced, noise).item(), gradient(priced, noise)
    with torch.no_grad():
        for parameter in priced.actor.parameters():
            parameter.sub_(torch.from_numpy(downhill), alpha=0.01)
    assert risk(priced, noise).item() < before - 2e-4


def test_nothing_but_the_actor_learns_from_the_actors_objective():
    learner = made(SQRLFineTuning, SETTINGS)
    loss, _ = learner.actor_loss(learner.standardise(some_batch().observation), learner.noise(N))
    loss.backward()
    untouched = [*learner.safety.parameters(), *learner.critics.parameters()]
    assert [parameter.grad for parameter in untouched] == [None, None]


@pytest.mark.parametrize("kind", [SQRLFineTuning, RS])
@pytest.mark.parametrize(("q_safe_everywhere", "direction"), [(0.3, 1.0), (0.101, 1.0), (0.099, -1.0), (0.01, -1.0)])
def test_price_rises_above_epsilon_and_falls_below(kind, q_safe_everywhere, direction):
    learner = made(kind, replace(SETTINGS, epsilon=0.1, initial_nu=2.0, dual_rate=0.01))
    said_everywhere(learner, q_safe_everywhere)
    learner.update(some_batch())
    # Adam's first step is as long as its rate.
    assert learner.nu.item() == pytest.approx(2.0 * math.exp(direction * 0.01), rel=1e-4)


def test_rs_pays_for_risk_in_its_critics_alone_and_masks_nothing():
    free, priced = (made(RS, replace(SETTINGS, initial_nu=nu)) for nu in (1e-12, 50.0))
    noise = free.noise(N)
    assert gradient(priced, noise).tolist() == gradient(free, noise).tolist()
    priced.serve()
    assert priced.mask(0) is None
    assert priced.rollouts_due(1000) == []


@pytest.mark.parametrize("online", [False, True])
def test_safety_critic_of_finetuning_learns_only_where_it_is_asked_to(online):
    learner = made(SQRLFineTuning, replace(SETTINGS, online=online, off_policy_steps=3, safety_updates=1, batch=4))
    learner.serve()
    before = [parameter.clone() for parameter in learner.safety.parameters()]
    served = learner.mask(0).critic
    for _ in range(3):
        learner.observe(step([0.3, -0.8], [0.5, -0.5], [1.0, -1.2], incident=True))
    learner.update(some_batch())
    unmoved = all(torch.equal(*pair) for pair in zip(before, learner.safety.parameters(), strict=True))
    assert (unmoved, learner.mask(0).critic is served) == (not online, not online)


def test_first_actions_may_be_masked_before_the_policys_are():
    learner = made(
        SQRLPretraining, replace(SETTINGS, initial_steps=200, explore_masked=True, mask_from=0.6), steps=1000
    )
    learner.serve()
    assert [learner.mask(step) is not None for step in (0, 199, 200, 599, 600)] == [True, True, False, False, True]


def test_fine_tuning_may_take_over_the_safety_critic_alone():
    source = made(SQRLPretraining, SETTINGS)
    source.temperature.log.data.fill_(-1.0)
    for way in ("learned", "bundle"):
        learner = made(SQRLFineTuning, replace(SETTINGS, keep_policy=False, keep_critics=False))
        before = learner.actor.flat.detach().clone(), learner.critics.flat.detach().clone(), learner.alpha.clone()
        with torch.no_grad():
            learner.safety.flat.zero_()
        if way == "learned":
            learner.load_pretrained(copy.deepcopy(source.learned()))
        else:
            learner.load_networks(source.networks())
        after = learner.actor.flat.detach(), learner.critics.flat.detach(), learner.alpha
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert torch.equal(learner.safety.flat, source.safety.flat)


@pytest.mark.parametrize("kind", [SQRLPretraining, SQRLFineTuning])
def test_value_behind_the_mask_is_that_of_safe_actions(kind):
    """Q is the action's first element, and what is above 0 is unsafe."""
    settings = replace(SETTINGS, masked_value=True, target_candidates=32, mask_from=0.5)
    learner = made(kind, settings, steps=10)
    batch = some_batch()
    next_observation = learner.standardise(batch.next_observation)
    learner.temperature.log.data.fill_(-30.0)
    learner.target = lambda rows: rows[None, :, 2:3].expand(2, -1, -1)
    learner.safety = lambda rows: 100.0 * rows[None, :, 2:3]
    learner._serving = object()
    learner.mask(9)
    value = learner.target_value(next_observation, batch, learner.noise(N))
    worth = (value - batch.reward)[batch.terminal == 0.0] / settings.gamma
    assert (worth <= 0.0).all()
    assert (worth < -0.05).any()
    # One candidate is the policy's own draw, safe or not.
    learner.settings = replace(settings, target_candidates=1)
    noise = learner.noise(N)
    one = learner.target_value(next_observation, batch, noise)
    learner.settings = replace(settings, masked_value=False)
    torch.testing.assert_close(one, learner.target_value(next_observation, batch, noise))
