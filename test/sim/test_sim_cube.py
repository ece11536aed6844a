"""The hand and its cube: the model that is generated, the cup that holds, drops, goals, and replay."""

import itertools
import math
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from ssql_ros.contract import find_contract, load_contract
from ssql_sim import hand_model
from ssql_sim.cube import GOALS, CubeEnv, drop_margin
from ssql_sim.hand_joints import COMMANDS, COUPLED, CUP, JOINTS
from ssql_sim.hand_world import STARTS

CONTRACT = load_contract(find_contract("shadow_hand"))


@pytest.fixture(scope="module")
def env():
    made = CubeEnv()
    yield made
    made.close()


def test_the_model_has_the_real_hands_joints_and_its_licence_lies_beside_it():
    model = hand_model.hand_model()
    assert sorted(model.limits) == list(JOINTS)
    assert len(JOINTS) == 24
    assert len(COMMANDS) == 20
    assert model.limits["rh_WRJ2"] == hand_model.Limits(-0.489, 0.14, 4.785)
    assert model.limits["rh_FFJ3"] == hand_model.Limits(0.0, 1.571, 0.9)
    assert model.limits["rh_FFJ1"].effort == model.limits["rh_FFJ2"].effort
    assert "Apache License" in (model.path.parent / "LICENSE.md").read_text()
    for inertia in ElementTree.parse(model.path).iter("inertia"):
        assert min(float(inertia.get(axis, "0")) for axis in ("ixx", "iyy", "izz")) >= hand_model.MIN_INERTIA


def test_the_model_is_made_once_in_the_users_cache_and_nothing_else_is_left_there(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = hand_model.hand_model().path
    assert path.is_relative_to(tmp_path)
    assert sorted(found.name for found in path.parent.iterdir()) == ["LICENSE.md", "shadow_hand.urdf"]
    made = path.stat().st_mtime_ns
    assert hand_model.hand_model().path.stat().st_mtime_ns == made


def test_a_missing_description_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(hand_model, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps gymnasium-robotics"):
        hand_model.hand_model()


def test_turns_of_the_description_become_roll_pitch_yaw():
    element = ElementTree.fromstring('<body axisangle="0 1 0 0.785"/>')
    assert hand_model._rpy(element) == pytest.approx((0.0, 0.785, 0.0))
    element = ElementTree.fromstring('<body quat="0.707 0.707 0 0"/>')
    assert hand_model._rpy(element) == pytest.approx((math.pi / 2, 0.0, 0.0))
    with pytest.raises(ValueError, match="about one axis"):
        hand_model._rpy(ElementTree.fromstring('<body euler="1 1 0"/>'))


def test_the_cup_holds_the_cube_still_at_every_start(env):
    for start in range(STARTS):
        env.reset(seed=0)
        env.world.reset(env.physics, start)
        begin = np.array(env.world.now.position)
        for _ in range(25):
            env.world.step(CUP)
        assert np.linalg.norm(np.array(env.world.now.position) - begin) < 0.01
        assert drop_margin(env.world.now.position)[0] < -0.015


def test_world_and_contract_say_the_same_of_an_action_and_of_a_drop(env):
    rng = np.random.default_rng(0)
    assert CONTRACT.commanded.joint_names == COMMANDS
    assert CONTRACT.commanded.coupled == COUPLED
    np.testing.assert_allclose(CONTRACT.safe_action, env.cup, atol=1e-4)
    for action in rng.uniform(-1.0, 1.0, (20, 20)):
        np.testing.assert_allclose(CONTRACT.joint_command(action), env._centre + env._half * action, atol=1e-12)
    observation, _ = env.reset(seed=1)
    for position in rng.uniform(-0.2, 0.2, (50, 3)):
        frame = observation[: CONTRACT.frame_size].copy()
        frame[24:27] = position
        assert CONTRACT.margin(frame)[0] == pytest.approx(drop_margin(position)[0])


def test_a_hand_that_flails_drops_the_cube_and_that_is_an_incident_with_its_cause(env):
    rng, drops = np.random.default_rng(0), 0
    for seed in range(4):
        env.reset(seed=seed)
        ended = False
        for _ in range(env.max_steps):
            observation, reward, ended, _, info = env.step(np.sign(rng.uniform(-1.0, 1.0, 20)))
            margin, cause = drop_margin(observation[24:27])
            assert (info["margin"], info["cause"], info["incident"]) == (margin, cause, margin > 0.0)
            if ended:
                break
        drops += ended
        assert ended == info["incident"]
        assert not ended or (reward < -env.drop_penalty and not info["success"] and cause in CONTRACT.frame_names)
    assert drops


def test_goals_are_turns_about_one_axis_and_count_in_the_reward(env):
    for goal, turn in itertools.product(GOALS, (1.5, 2.2)):
        env.goals, env.turn = (goal,), turn
        observation, info = env.reset(seed=3)
        expected = np.zeros(3)
        expected["xyz".index(goal[0])] = turn if goal[1] == "+" else -turn
        np.testing.assert_allclose(observation[30:33], expected, atol=1e-12)
        assert abs(info["error"] - turn) < 0.5
        observation, reward, *_ = env.step(env.cup)
        apart = np.abs(observation[27:30] - expected)
        assert reward == pytest.approx(-7.0 * np.linalg.norm(np.minimum(apart, 2 * math.pi - apart)))
    env.goals, env.turn = GOALS, 1.5


def test_commands_of_a_driver_are_the_actions(env):
    rng = np.random.default_rng(2)
    actions = np.clip(env.cup + rng.uniform(-0.2, 0.2, (10, 20)), -1.0, 1.0)
    seen = []
    for command in (env.step, lambda action: env.step_joint_positions(CONTRACT.joint_command(action))):
        env.reset(seed=5)
        seen.append(np.array([command(action)[0] for action in actions]))
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-9)


@pytest.mark.parametrize("randomise", [None, "physics"])
def test_a_seed_and_its_actions_give_the_same_bits_again_and_in_a_fresh_world_and_where_it_is_seen(randomise):
    def episode(world, seed):
        rng = np.random.default_rng(seed)
        record = [world.reset(seed=seed)[0]]
        for _ in range(30):
            observation, reward, ended, _, _ = world.step(np.clip(world.cup + rng.uniform(-0.8, 0.8, 20), -1, 1))
            record += [observation, [reward]]
            if ended:
                break
        return np.concatenate(record).tobytes()

    used, fresh = CubeEnv(randomise=randomise), CubeEnv(randomise=randomise, render_mode="rgb_array")
    first, other, again = episode(used, 0), episode(used, 1), episode(used, 0)
    assert first == again == episode(fresh, 0)
    assert first != other
    assert fresh.render().shape == (240, 320, 3)
    assert len(np.unique(fresh.render().reshape(-1, 3), axis=0)) > 50
    used.close()
    fresh.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goals": ("y+",)}, "y\\+"),
        ({"turn": 0.0}, "turn"),
        ({"randomise": "all"}, "all"),
        ({"max_steps": 0}, "max_steps"),
        ({"drop_penalty": math.inf}, "drop_penalty"),
        ({"render_mode": "human"}, "human"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CubeEnv(**options)


def test_actions_that_are_none_are_refused(env):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"\(20,\)"):
        env.step(np.zeros(24))
    with pytest.raises(ValueError, match="finite"):
        env.step(np.full(20, np.nan))


@pytest.mark.slow
def test_wild_actions_neither_break_the_physics_nor_push_the_cube_through_the_palm():
    rng = np.random.default_rng(0)
    env = CubeEnv()
    for episode in range(15):
        env.reset(seed=episode)
        for _ in range(100):
            observation, _, ended, _, _ = env.step(rng.uniform(-1.0, 1.0, 20))
            assert np.isfinite(observation).all()
            x, y, z = observation[24:27]
            # Above the palm's box it cannot be below its surface.
            assert not (-0.02 < x < 0.04 and 0.03 < y < 0.08 and z < 0.0111 + 0.8 * 0.025), (x, y, z)
            if ended:
                break
    env.close()


def test_importing_the_world_needs_no_mujoco():
    assert "gymnasium_robotics" not in sys.modules
