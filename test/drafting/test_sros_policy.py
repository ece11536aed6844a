"""A policy by the schema of SROS 2: who may publish what, whatever the contract and the names of its nodes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.cli.main import main
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.contract.plugs import plugs
from ssql_ros.drafting.access import ROLES, accesses
from ssql_ros.drafting.sros_policy import policy_xml
from support.sros_policy import parsed

CONTRACTS = {name: load_contract(find_contract(name)) for name in plugs()}
BOAT = CONTRACTS["boat"]


def owners(policy: dict, rule: str, name: str) -> set[str]:
    """The enclaves that a rule allows a name to."""
    return {path for path, nodes in policy.items() for node in nodes.values() if name in node.get(rule, ())}


@pytest.mark.parametrize("robot", sorted(CONTRACTS))
def test_only_the_shield_commands_only_drivers_sense_and_only_announcers_announce(robot):
    contract = CONTRACTS[robot]
    policy = parsed(policy_xml(accesses(contract), "lab"))
    assert set(policy) == {f"/lab/{role}" for role in ROLES}
    told = contract.commanded
    assert owners(policy, "publish", f"/lab/{told.topic}") == {"/lab/shield_node"}
    assert owners(policy, "publish", "/lab/forward_commands") == set()
    for source in contract.inputs.values():
        assert owners(policy, "publish", f"/lab/{source.topic}") == {"/lab/driver_node", "/lab/sim_node"}
    assert owners(policy, "publish", "/clock") == {"/lab/sim_node"}
    assert owners(policy, "publish", "/lab/model_announcements") == {"/lab/learner_node", "/lab/announcer"}
    # The process beside a node takes them, and no other of that node's.
    hears = {n for ns in policy.values() for n, node in ns.items() if "/lab/model_announcements" in node["subscribe"]}
    assert hears == {"/lab/shield_node_inspector", "/lab/policy_node_inspector", "/lab/operator"}
    for own in ("state", "shielded_action", "interventions", "transition_event"):
        assert owners(policy, "publish", f"/lab/shield_node/{own}") == {"/lab/shield_node"}
    for service in ("enable", "reload", "reset_fault", "rollback", "change_state", "set_parameters"):
        assert owners(policy, "reply", f"/lab/shield_node/{service}") == {"/lab/shield_node"}
        assert owners(policy, "request", f"/lab/shield_node/{service}") == {"/lab/operator"}
    assert {path for path, nodes in policy.items() if any(node.get("request") for node in nodes.values())} == {
        "/lab/operator"
    }


def test_a_controller_proposes_and_does_nothing_else():
    names = {"controller": "walker", "driver_node": "leg_driver"}
    policy = parsed(policy_xml(accesses(BOAT, ("shield_node", "controller", "driver_node"), names), "/a/b/"))
    assert set(policy) == {"/a/b/shield_node", "/a/b/walker", "/a/b/leg_driver"}
    common = {"/rosout", "/parameter_events"}
    walker = policy["/a/b/walker"]["/a/b/walker"]
    assert walker["publish"] - common == {
        "/a/b/joint_commands_raw",
        "/a/b/joint_proposals",
        "/a/b/forward_commands_raw",
    }
    assert policy["/a/b/leg_driver"]["/a/b/leg_driver"]["publish"] - common == {"/a/b/odom"}


def test_what_a_graph_remaps_is_remapped_for_everybody():
    policy = parsed(policy_xml(accesses(BOAT, ("shield_node", "driver_node"), remap={"joint_commands": "/arm/told"})))
    assert owners(policy, "publish", "/arm/told") == {"/shield_node"}
    assert owners(policy, "subscribe", "/arm/told") == {"/driver_node"}
    assert owners(policy, "publish", "/joint_commands") == set()


@given(topic=st.text(max_size=12), name=st.text(max_size=8), namespace=st.text(max_size=8))
def test_no_name_becomes_a_pattern_or_breaks_the_xml(topic, name, namespace):
    told = replace(BOAT.commanded, topic=topic)
    try:
        text = policy_xml(accesses(replace(BOAT, commanded=told), names={"controller": name}), namespace, name)
    except ValueError:
        return
    assert owners(parsed(text), "publish", "*") == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "shield"], "nodes: shield: expected some of shield_node"),
        (["--controller", "wal*er"], "controller: expected the name of a node, got 'wal*er'"),
        (["--controller", "shield_node"], "have one name"),
        (["--namespace", "a b"], "namespace: expected names with / between, got 'a b'"),
        (["--remap", "joint_commands:=*"], "shield_node: publish: expected the name of a topic or service, got '*'"),
        (["--remap", "joint_commands"], "--remap: expected FROM:=TO, got 'joint_commands'"),
    ],
)
def test_what_ros_cannot_name_is_refused(options, message, capsys):
    assert main(["contract", "policy", "boat", *options]) == 2
    assert message in capsys.readouterr().err


def test_the_command_writes_the_policy(tmp_path, capsys):
    out = tmp_path / "policy.xml"
    assert main(["contract", "policy", "boat", "--nodes", "shield_node", "operator", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 2 enclaves: shield_node, operator\n"
    policy = parsed(out.read_text())
    assert main(["contract", "policy", "boat", "--nodes", "shield_node", "operator"]) == 0
    assert parsed(capsys.readouterr().out) == policy
