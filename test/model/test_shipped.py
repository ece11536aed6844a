"""Which bundle a robot's shield serves where none is named."""

import pytest

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.model.bundle import BundleError, load_bundle
from ssql_ros.model.critic import shielding_critic
from ssql_ros.model.shipped import find_shipped_bundle


@pytest.mark.parametrize(
    ("robot", "name"),
    [
        ("minitaur", "minitaur_critic"),
        ("boat", "boat_safefql"),
        ("half_cheetah", "half_cheetah_safefql"),
        ("spider", "spider_sqrl"),
    ],
)
def test_shipped_bundle_can_shield_its_robot(robot, name):
    path = find_shipped_bundle(robot)
    assert path.stem == name
    shielding_critic(load_bundle(path, load_contract(find_contract(robot))))


def test_robot_without_one_is_told_who_has_one(tmp_path):
    with pytest.raises(
        BundleError, match=r"swimmer is shipped, only of boat, half_cheetah, minitaur, shadow_hand, spider; name one"
    ):
        find_shipped_bundle("swimmer")
    with pytest.raises(BundleError, match="only of nobody"):
        find_shipped_bundle("boat", tmp_path)


def test_damaged_bundle_is_named(tmp_path):
    (tmp_path / "boat_critic.safetensors").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"boat_critic\.safetensors: is not a whole safetensors file"):
        find_shipped_bundle("boat", tmp_path)
