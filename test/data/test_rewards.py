"""What a step is worth: as contracts say it, against the worlds that say the same, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from ssql_ros.contract import ContractError, find_contract, load_contract
from ssql_ros.data.rewards import Distance, ForwardVelocity, reward_of
from ssql_ros.robots.tasks import find_task

BOAT, MINITAUR = (load_contract(find_contract(name)) for name in ("boat", "minitaur"))


def contract_with(folder: Path, robot: str, reward: object) -> Path:
    document = yaml.safe_load(find_contract(robot).read_text())
    document.pop("reward", None)
    if reward is not None:
        document["reward"] = reward
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_boat_s_reward_is_that_of_its_world() -> None:
    reward = reward_of(BOAT)
    assert reward == Distance((1.5, 0.0))
    assert (reward.input, reward.fields) == ("odometry", ("position.x", "position.y"))
    env, rng = find_task("boat").make(), np.random.default_rng(0)
    before, _ = env.reset(seed=0)
    for _ in range(100):
        action = rng.uniform(-1.0, 1.0, 2)
        after, its, *_ = env.step(action)
        assert reward(before, after, [action]) == pytest.approx(its, abs=1e-9)
        before = after
    env.close()


def test_a_goal_in_place_of_the_contract_s_is_for_robots_that_walk(tmp_path: Path) -> None:
    assert reward_of(MINITAUR).goal == 0.3
    assert reward_of(MINITAUR, 0.4) == ForwardVelocity(0.4, 0.02)
    with pytest.raises(ValueError, match=r"reward.goal is a place; a goal in m/s is for robots that walk"):
        reward_of(BOAT, 0.4)
    without = load_contract(contract_with(tmp_path, "boat", None))
    with pytest.raises(ValueError, match="key 'reward' is missing"):
        reward_of(without)
    # What a step is worth says nothing about vectors: the id is the same.
    assert without.id == BOAT.id


@pytest.mark.parametrize(
    ("robot", "reward", "text"),
    [
        ("boat", {"kind": "speed", "input": "odometry", "goal": [0.0]}, "kind"),
        ("boat", {"kind": "distance", "input": "gps", "goal": [0.0]}, "input"),
        ("boat", {"kind": "distance", "input": "odometry", "goal": [0.0] * 4}, "got 4 numbers"),
        ("boat", {"kind": "distance", "input": "odometry"}, "goal"),
        ("boat", {"kind": "distance", "input": "odometry", "goal": [0.0], "limit": 1.0}, "limit"),
        ("boat", {"kind": "distance", "input": "odometry", "goal": [float("nan")]}, "goal"),
        ("minitaur", {"kind": "distance", "input": "imu", "goal": [0.0]}, "imu is a sensor_msgs/msg/Imu"),
        ("minitaur", {"kind": "forward_velocity", "input": "odometry", "goal": 0.3}, "limit"),
        ("minitaur", 3.0, "reward"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, robot: str, reward: object, text: str) -> None:
    path = contract_with(tmp_path, robot, reward)
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    assert str(path) in str(caught.value)
    assert "reward" in str(caught.value)
    assert text in str(caught.value)
