"""`ssql bundle export served`: what a robot needs of a bundle, and nothing else."""

from dataclasses import replace

import numpy as np

from ssql_ros.cli.main import main
from ssql_ros.model.bundle import load_bundle, save_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.robots.tasks import find_task

TASK = find_task("spider")
BUNDLE = find_task("minitaur").bundle_path().parent / "spider_sqrl.safetensors"


def test_served_bundle_acts_and_shields_as_the_whole_one(tmp_path, capsys):
    whole = load_bundle(BUNDLE, TASK.contract())
    out = tmp_path / "served.safetensors"
    assert main(["bundle", "export", "served", str(BUNDLE), "--out", str(out)]) == 0
    served = load_bundle(out, TASK.contract())
    assert served.id in capsys.readouterr().out
    assert whole.reward is not None
    assert served.reward is None
    assert (served.critic.epsilon, served.provenance) == (whole.critic.epsilon, whole.provenance)
    observation, actions = np.array([0.5, 3.0]), np.random.default_rng(0).uniform(-1, 1, (7, 2)).astype(np.float32)
    expected = SafetyCritic(whole).logits(observation, actions).copy()
    np.testing.assert_array_equal(SafetyCritic(served).logits(observation, actions), expected)
    assert out.stat().st_size < 0.8 * BUNDLE.stat().st_size


def test_nothing_is_written_over_and_a_bundle_without_a_policy_or_task_is_refused(tmp_path, capsys):
    out = tmp_path / "served.safetensors"
    out.write_text("mine")
    assert main(["bundle", "export", "served", str(BUNDLE), "--out", str(out)]) != 0
    assert out.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    whole = load_bundle(BUNDLE, TASK.contract())
    for changed, told in ((replace(whole, policy=None), "policy"), (replace(whole, provenance={}), "task")):
        save_bundle(changed, tmp_path / "other.safetensors")
        assert (
            main(["bundle", "export", "served", str(tmp_path / "other.safetensors"), "--out", str(tmp_path / "x")]) != 0
        )
        assert told in capsys.readouterr().err
        assert not (tmp_path / "x").exists()
