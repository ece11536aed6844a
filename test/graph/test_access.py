"""What the policy allows is what the running nodes really do: nothing missing, nothing more."""

import time
from pathlib import Path

import pytest
import rclpy

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.drafting.access import accesses
from ssql_ros.drafting.sros_policy import policy_xml
from ssql_ros.graph.processes import Graph, executable, parameter_text
from ssql_ros.robots.tasks import find_task
from ssql_ros.ros.announcer import AnnouncerNode
from support.sros_policy import parsed

pytestmark = pytest.mark.ros
ROBOT, SPACE = "minitaur", "/lab"
# Heard only by nodes of a simulation; of what it may hear the recorder hears what somebody publishes.
ONLY_IN_SIMULATION = {"/clock"}
GAITS = find_task(ROBOT).bundle_path().with_name("minitaur_trots.safetensors")


def seen(node: rclpy.node.Node, name: str) -> dict[str, set[str]]:
    """What a node of the graph publishes, hears and serves."""
    asked = {
        "publish": node.get_publisher_names_and_types_by_node,
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
    }
    space, _, own = name.rpartition("/")
    try:
        return {rule: {topic for topic, _ in ask(own, space)} for rule, ask in asked.items()}
    except rclpy._rclpy_pybind11.NodeNameNonExistentError:
        return {}


SERVING = ("driver_node", "shield_node", "recorder_node", "marker_node")


@pytest.mark.parametrize("some", [SERVING, pytest.param((), marks=pytest.mark.long)], ids=["serving", "all"])
def test_the_policy_allows_what_the_nodes_do(some: tuple[str, ...], domain: int, tmp_path: Path) -> None:
    folder = str(tmp_path / "offers")
    Path(folder).mkdir()
    learner = {"behaviour": str(GAITS), "folder": str(tmp_path / "learner")}
    started: dict[str, dict[str, object]] = {
        "driver_node": {},
        "sim_node": {"task": ROBOT},
        "shield_node": {"bundle_folder": folder},
        "policy_node": {"bundle": str(GAITS), "bundle_folder": folder},
        "behaviour_node": {},
        "learner_node": learner,
        "marker_node": {},
        "recorder_node": {"output": str(tmp_path / "bag")},
    }
    started = {node: given for node, given in started.items() if not some or node in some}
    roles = (*started, "announcer")
    policy = parsed(policy_xml(accesses(load_contract(find_contract(ROBOT)), roles), SPACE))
    allowed = {name: rules for nodes in policy.values() for name, rules in nodes.items()}
    with Graph(tmp_path / "logs") as graph, AnnouncerNode("test") as announcer:
        for node, given in started.items():
            contract = {} if node in ("sim_node", "marker_node") else {"contract": ROBOT}
            words = [w for k, v in {**contract, **given}.items() for w in ("-p", f"{k}:={parameter_text(v)}")]
            place = ["-r", f"__ns:={SPACE}", "--enclave", f"{SPACE}/{node}"]
            graph.run(node, [str(executable(node)), "--ros-args", *place, *words])
        # The announcer of this process has no namespace.
        allowed["/announcer"] = {
            rule: {name.replace(SPACE, "", 1) for name in names}
            for rule, names in allowed.pop(f"{SPACE}/announcer").items()
        }
        missing: dict[str, object] = {}
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            graph.check()
            announcer.spin(0.05)
            found = {name: seen(announcer.node, name) for name in allowed}
            missing = {name: rules for name, rules in allowed.items() if lacking(rules, found[name], name)}
            if not missing:
                break
        assert not missing, {name: lacking(allowed[name], found[name], name) for name in missing}
        for name, rules in allowed.items():
            for rule, names in found[name].items():
                assert names <= rules.get(rule, set()), f"{name} does what the policy denies: {rule}"
        enclaves = {
            f"{space.rstrip('/')}/{name}": enclave
            for name, space, enclave in announcer.node.get_node_names_and_namespaces_with_enclaves()
        }
        for path, nodes in policy.items():
            if path != f"{SPACE}/announcer":
                assert {enclaves[name] for name in nodes} == {path}, "a process beside a node has its keys"


def lacking(rules: dict[str, set[str]], found: dict[str, set[str]], name: str) -> dict[str, set[str]]:
    """What is allowed that nobody does, where it has to be done."""
    some = "subscribe" if name.endswith("/recorder_node") else ""
    return {
        rule: names - found.get(rule, set())
        for rule, names in rules.items()
        if rule != some and names - found.get(rule, set()) - ONLY_IN_SIMULATION
    }
