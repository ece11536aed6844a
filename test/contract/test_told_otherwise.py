"""A contract of the same vectors, told in other messages: what may differ, what must not, and bundles that follow."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from ssql_ros.cli.main import main
from ssql_ros.contract import ContractError, find_contract, load_contract, told_otherwise
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.shipped import find_shipped_bundle

OWN = load_contract(find_contract("boat"))
TWIST = {
    "command": {"topic": "cmd_vel", "type": "geometry_msgs/msg/Twist"},
    "parts": [{"name": "linear.x", "sum": {"x": 1.0}}, {"name": "linear.y", "sum": {"y": 1.0}}],
}


def written(folder: Path, action: dict, **top: object) -> Path:
    document = yaml.safe_load(Path(OWN.path).read_text()) | top
    kept = {name: value for name, value in document["action"].items() if name != "joints" or "parts" not in action}
    path = folder / "boat.yaml"
    path.write_text(yaml.safe_dump({**document, "action": {**kept, **action}}))
    return path


def test_another_message_is_another_id_and_the_same_vectors(tmp_path):
    contract = told_otherwise(OWN, str(written(tmp_path, TWIST, command_timeout=0.25)))
    assert contract.id != OWN.id
    assert contract.commanded.raw_topic == "cmd_vel_raw"
    assert told_otherwise(OWN, "") is OWN


@pytest.mark.parametrize(
    ("action", "top", "words"),
    [
        ({**TWIST, "parts": [TWIST["parts"][0], {"name": "linear.y", "sum": {"y": 0.5}}]}, {}, "offset and sum"),
        ({**TWIST, "parts": TWIST["parts"][::-1]}, {}, "offset and sum"),
        ({**TWIST}, {"safe_action": [0.0, 1.0]}, "safe_action differ"),
        ({**TWIST}, {"control_period": 0.01}, "control_period differ"),
        (
            {"command": {"topic": "a", "type": "sensor_msgs/msg/JointState", "field": "position", "unit": "rad"}},
            {},
            "the command's field differ",
        ),
    ],
)
def test_what_means_something_else_is_refused_by_its_name(tmp_path, capsys, action, top, words):
    path = written(tmp_path, action, **top)
    with pytest.raises(ContractError, match=words):
        told_otherwise(OWN, str(path))
    bundle, out = find_shipped_bundle("boat"), tmp_path / "never.safetensors"
    assert main(["bundle", "transfer", str(bundle), "--contract", str(path), "--out", str(out)]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_transferred_bundle_judges_as_before_and_says_what_it_was(tmp_path):
    path, out = written(tmp_path, TWIST), tmp_path / "twist.safetensors"
    told = ["bundle", "transfer", str(find_shipped_bundle("boat")), "--contract", str(path), "--out", str(out)]
    assert main(told) == 0
    before, after = load_bundle(find_shipped_bundle("boat"), OWN), load_bundle(out, load_contract(path))
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (5, 2))
    scores = [SafetyCritic(each).logits(np.array([-1.5, 0.4]), actions) for each in (before, after)]
    assert np.array_equal(*scores)
    assert (after.critic.delta, after.critic.certificate) == (before.critic.delta, before.critic.certificate)
    assert after.provenance["contract_before"] == OWN.id
    assert main(told) == 2  # what is there is not replaced
