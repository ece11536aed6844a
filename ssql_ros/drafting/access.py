"""Who may publish, hear, serve and call what in a graph of a contract: least privilege, as data.

Nodes make their topics and services themselves; a test reads them off a running graph and holds this against them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssql_ros.contract import Contract
from ssql_ros.contract.topics import (
    ACCOUNT_TOPIC,
    ANNOUNCEMENTS,
    CLOCK_TOPIC,
    DIAGNOSTICS_TOPIC,
    EPISODE_TOPIC,
    FORWARD_TOPIC,
    INCIDENT_TOPIC,
    MARKERS,
    OWN_ACCOUNT,
    OWN_INTERVENTIONS,
    OWN_MARKERS,
    OWN_RECORDS,
    OWN_STATE,
    PROPOSAL_TOPIC,
    SHIELD,
    STATE_TOPIC,
    STATUS,
    proposal_topics,
    recorded_topics,
)

# What rclpy gives every node, and every node with a life cycle. /rosout and /parameter_events are everybody's.
COMMON = ("/rosout", "/parameter_events")
PARAMETER_SERVICES = tuple(
    f"~/{name}"
    for name in (
        "describe_parameters",
        "get_parameter_types",
        "get_parameters",
        "list_parameters",
        "set_parameters",
        "set_parameters_atomically",
    )
)
TYPE_SERVICE = "~/get_type_description"
LIFECYCLE = tuple(
    f"~/{name}"
    for name in (
        "change_state",
        "get_available_states",
        "get_available_transitions",
        "get_state",
        "get_transition_graph",
    )
)
TRANSITIONS = "~/transition_event"
OPERATOR, ANNOUNCER = "operator", "announcer"
ROLES = (
    SHIELD,
    "recorder_node",
    "flight_recorder",
    "policy_node",
    "behaviour_node",
    "learner_node",
    MARKERS,
    "driver_node",
    "sim_node",
    "controller",
    ANNOUNCER,
    OPERATOR,
)
# Of a ROS name. In DDS permissions names are patterns: a * in a contract from elsewhere would allow everything.
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TOPIC = re.compile(rf"(?:/|~/)?{_NAME}(?:/{_NAME})*")
_NAMESPACE = re.compile(rf"(?:/{_NAME})*/?")


@dataclass(frozen=True)
class Access:
    """What one node may do; names as the node itself gives them: relative, `~/own` or `/absolute`.

    Attributes:
        reply, request: services that it offers, and that it may call.
    """

    node: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    reply: tuple[str, ...] = ()
    request: tuple[str, ...] = ()


def accesses(
    contract: Contract,
    roles: Sequence[str] = ROLES,
    names: Mapping[str, str] | None = None,
    remap: Mapping[str, str] | None = None,
) -> dict[str, tuple[Access, ...]]:
    """Return by enclave what the nodes in it may do: those of one process, as an enclave is a process.

    Args:
        roles: of `ROLES`: which of them there are.
        names: what the nodes of roles are called; who is not named has the name of the role.
        remap: topics by other names, from and to, for every node.

    Raises:
        ValueError: a role that there is not, or a name of a node or a topic that ROS does not allow.
    """
    if unknown := [role for role in roles if role not in ROLES]:
        raise ValueError(f"nodes: {', '.join(unknown)}: expected some of {', '.join(ROLES)}")
    called = {role: (names or {}).get(role, role) for role in roles}
    for role, name in called.items():
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"{role}: expected the name of a node, got {name!r}")
    found = {called[role]: _of_role(role, called[role], contract) for role in roles if role != OPERATOR}
    if len(found) + (OPERATOR in roles) < len(roles) or called.get(OPERATOR) in found:
        raise ValueError(f"nodes: two of {', '.join(called.values())} have one name")
    if OPERATOR in roles:
        found[called[OPERATOR]] = (_operator(called[OPERATOR], contract, found),)
    return {enclave: tuple(_renamed(each, remap or {}) for each in nodes) for enclave, nodes in found.items()}


def check_namespace(namespace: str) -> str:
    """Return a namespace as a policy has it, from its `/` on. Raises ValueError."""
    full = "/" + namespace.strip("/")
    if not _NAMESPACE.fullmatch(full):
        raise ValueError(f"namespace: expected names with / between, got {namespace!r}")
    return full


def _node(name: str, **more: Sequence[str]) -> Access:
    """Return what every node may do, and more."""
    given = {key: tuple(dict.fromkeys(names)) for key, names in more.items()}
    return Access(
        name,
        publish=(*COMMON, *given.get("publish", ())),
        subscribe=tuple(dict.fromkeys([CLOCK_TOPIC, *given.get("subscribe", ())])),
        reply=(*PARAMETER_SERVICES, TYPE_SERVICE, *given.get("reply", ())),
    )


def _inspector(name: str) -> Access:
    """Return what the process beside a node may do that takes announced models; see `ros.model_inspector`."""
    return Access(f"{name}_inspector", publish=COMMON[1:], subscribe=(ANNOUNCEMENTS,), reply=(TYPE_SERVICE,))


def _of_role(role: str, name: str, contract: Contract) -> tuple[Access, ...]:
    told = contract.commanded
    inputs = [source.topic for source in contract.inputs.values()]
    observed = [contract.inputs[each].topic for each in contract.observed_inputs]
    publish: Sequence[str]
    services: Sequence[str]
    answers = (*told.raw_topics, PROPOSAL_TOPIC, DIAGNOSTICS_TOPIC)
    match role:
        case "shield_node":
            own = (OWN_STATE, OWN_ACCOUNT, OWN_INTERVENTIONS, OWN_RECORDS, TRANSITIONS)
            services = ("~/enable", "~/reload", "~/reset_fault", "~/take_over", "~/rollback", *LIFECYCLE)
            publish = (*told.topics, *own, STATUS, DIAGNOSTICS_TOPIC)
            heard = [*observed, *proposal_topics(contract), *told.takeover_topics]
            return _node(name, publish=publish, subscribe=heard, reply=services), _inspector(name)
        case "policy_node":
            publish, services = (*answers, STATUS), ("~/rollback",)
            node = _node(name, publish=publish, subscribe=[*observed, *told.topics], reply=services)
            return node, _inspector(name)
        case "behaviour_node":
            return (_node(name, publish=answers, subscribe=[*observed, *told.topics]),)
        case "learner_node":
            place = [contract.inputs[contract.reward.input].topic] if contract.reward is not None else []
            heard = [*observed, *place, *told.topics, *told.raw_topics, PROPOSAL_TOPIC, EPISODE_TOPIC, STATUS]
            services = ("~/pause", "~/resume", "~/train", "~/export")
            return (_node(name, publish=(ANNOUNCEMENTS, DIAGNOSTICS_TOPIC), subscribe=heard, reply=services),)
        case "recorder_node" | "flight_recorder":
            services = ("~/snapshot",) if role == "flight_recorder" else ()
            return (_node(name, publish=(DIAGNOSTICS_TOPIC,), subscribe=recorded_topics(contract), reply=services),)
        case "marker_node":
            return (_node(name, publish=(OWN_MARKERS,), subscribe=(ACCOUNT_TOPIC, STATE_TOPIC)),)
        case "driver_node":
            return (_node(name, publish=inputs, subscribe=(*told.topics, FORWARD_TOPIC)),)
        case "sim_node":
            publish = (*inputs, CLOCK_TOPIC, INCIDENT_TOPIC, EPISODE_TOPIC)
            return (_node(name, publish=publish, subscribe=(*told.topics, FORWARD_TOPIC), reply=("~/reset",)),)
        case "announcer":
            return (_node(name, publish=(ANNOUNCEMENTS,), subscribe=(STATUS,)),)
        case _:
            return (_node(name, publish=proposal_topics(contract), subscribe=[*inputs, *told.topics]),)


def _operator(name: str, contract: Contract, others: Mapping[str, tuple[Access, ...]]) -> Access:
    """Return what may call every service of the others, hear everything, and take the robot over."""
    nodes = [node for each in others.values() for node in each]
    services = [service.replace("~", node.node, 1) for node in nodes for service in node.reply]
    own = [topic.replace("~", node.node, 1) for node in nodes for topic in node.publish]
    heard = dict.fromkeys([*recorded_topics(contract), *own])
    taking = contract.commanded.takeover_topics
    return replace(_node(name, publish=taking, subscribe=list(heard)), request=tuple(services))


def _renamed(access: Access, remap: Mapping[str, str]) -> Access:
    lists: dict[str, Any] = {}
    for kind in ("publish", "subscribe", "reply", "request"):
        names = tuple(remap.get(name, name) for name in getattr(access, kind))
        for name in names:
            if not _TOPIC.fullmatch(name):
                raise ValueError(f"{access.node}: {kind}: expected the name of a topic or service, got {name!r}")
        lists[kind] = tuple(dict.fromkeys(names))
    return replace(access, **lists)
