"""Settings of algorithms by robot and task: those that the figures were made with, read strictly."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ssql_ros.robots.tasks import tasks
from ssql_ros.training.settings import SETTINGS, initial_hold, read_learning, settings_of

# By algorithm: its defaults, and by robot what differs from them, as the figures of docs/results were made with.
PINNED = json.loads(Path(__file__).with_name("settings.json").read_text())


@pytest.mark.parametrize("algorithm", SETTINGS)
@pytest.mark.parametrize("task", tasks())
def test_settings_are_those_of_the_figures(algorithm, task):
    robot, pinned = tasks()[task].robot, PINNED[algorithm]
    found = asdict(settings_of(algorithm, robot, {}, task))
    assert json.dumps(found, sort_keys=True) == json.dumps(pinned["default"] | pinned.get(robot, {}), sort_keys=True)


def test_first_actions_of_the_spider_alone_are_held():
    holds = {task.robot: initial_hold(task.robot) for task in tasks().values()}
    assert {robot for robot, hold in holds.items() if hold > 1} == {"spider"}
    assert holds["spider"] == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("initial_hald: 8", "unknown key 'initial_hald'; did you mean 'initial_hold'?"),
        ("initial_hold: 0", "initial_hold: expected a whole number of at least 1, got 0"),
        ("settings: [{tau: 0.1}]", "settings[0]: expected a mapping with `for`, a list of algorithms"),
        ("settings: [{for: [sac, sca]}]", "settings[0].for: 'sca' is no algorithm; known: sac, "),
        ("settings: [{for: [sac], epsilon: 0.1}]", "settings[0]: 'epsilon' is no setting of sac"),
        ("settings: [{for: [sac], tau: 2}]", "settings[0]: setting tau: expected a number from 0 to 1, got 2"),
        ("settings: [{for: [sac], tau: 1e-3}]", "settings[0]: setting tau: expected a number from 0 to 1, got '1e-3'"),
        ("tasks: {jump: [{for: [sac], tau: 0.1}]}", "tasks: unknown key 'jump'; known keys: walk"),
        ("tasks: {walk: [{for: [sac], taw: 0.1}]}", "tasks.walk[0]: 'taw' is no setting of sac"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path, text, message):
    path = tmp_path / "learning.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"learning\.yaml") as raised:
        read_learning(path, ("walk",))
    assert message in str(raised.value)


def test_a_task_differs_from_its_robot_where_its_file_says_so(tmp_path):
    path = tmp_path / "learning.yaml"
    path.write_text(
        "settings: [{for: [sac, sqrl], tau: 0.1, epsilon: 0.2}]\ntasks: {walk: [{for: [sqrl], epsilon: 0.3}]}"
    )
    found = read_learning(path, ("walk",))
    assert found["", "sac"] == {"tau": 0.1}
    assert found["", "sqrl"] == {"tau": 0.1, "epsilon": 0.2}
    assert found["walk", "sqrl"] == {"tau": 0.1, "epsilon": 0.3}
    assert found["walk", "sac"] == {"tau": 0.1}
