"""Every setting that can be changed says what it is and what it must be."""

import json

import pytest

from ssql_ros.algorithms.discrete import DiscreteSettings
from ssql_ros.cli.main import main
from ssql_ros.training.described_settings import described
from ssql_ros.training.settings import SETTINGS, checked_settings


@pytest.mark.parametrize("kind", [*SETTINGS.values(), DiscreteSettings])
def test_every_setting_is_described_and_keeps_to_its_own_rule(kind):
    found = described(kind)
    assert [setting.name for setting in found] == list(kind.__dataclass_fields__)
    for setting in found:
        assert len(setting.text) > 5
        if setting.default is not None:
            checked_settings("any", kind(), {}, {setting.name: setting.default})
        with pytest.raises(
            ValueError, match=f"setting {setting.name}: expected {setting.expected}, got 'none of them'"
        ):
            checked_settings("any", kind(), {}, {setting.name: "none of them"})


def test_the_command_shows_what_counts_for_a_task_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "sqrl", "--task", "cube", "--settings", "--set", "dual_rate=0.5"]) == 0
    said = capsys.readouterr().out
    assert "epsilon=0.15 (the algorithm's own: 0.1): a number between 0 and 1\n" in said
    assert f"dual_rate={json.dumps(0.5)} (the algorithm's own: 0.001)" in said
    assert main(["train", "ssql", "--task", "gridworld", "--settings"]) == 0
    assert not list(tmp_path.iterdir())
