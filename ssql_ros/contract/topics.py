"""Names of the topics that every graph has, whatever its contract: the one place where they are written down.

Relative names get the namespace of whoever uses them; `~/` is a node's own name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssql_ros.contract.fields import RAW_JOINT_COMMANDS

if TYPE_CHECKING:
    from ssql_ros.contract.contract import Contract

# Of controllers, before the shield; plain joint commands are heard on the contract's `raw_topic`.
PROPOSAL_TOPIC = "joint_proposals"
RAW_FORWARD_TOPIC = "forward_commands_raw"
# What our drivers take beside the contract's own topic.
FORWARD_TOPIC = "forward_commands"
# Of a simulation.
CLOCK_TOPIC = "/clock"
INCIDENT_TOPIC, EPISODE_TOPIC = "incident", "episode"
# Of the shield, as it names them itself.
SHIELD = "shield_node"
OWN_STATE, OWN_ACCOUNT, OWN_INTERVENTIONS = "~/state", "~/shielded_action", "~/interventions"
OWN_RECORDS = "~/decision_records"
# Of the node that draws what the shield does.
MARKERS = "marker_node"
OWN_MARKERS = "~/markers"
# Of models that are exchanged, and of everybody who has something to tell.
ANNOUNCEMENTS, STATUS = "model_announcements", "model_status"
DIAGNOSTICS_TOPIC = "/diagnostics"


def of_shield(own: str) -> str:
    """Return what others call a topic or service of the shield's own, `~/NAME`."""
    return own.replace("~", SHIELD, 1)


ACCOUNT_TOPIC, STATE_TOPIC, INTERVENTIONS_TOPIC = map(of_shield, (OWN_ACCOUNT, OWN_STATE, OWN_INTERVENTIONS))
RECORDS_TOPIC = of_shield(OWN_RECORDS)


def proposal_topics(contract: Contract) -> list[str]:
    """Return where controllers are heard before they are judged."""
    return [*contract.commanded.raw_topics, PROPOSAL_TOPIC, RAW_FORWARD_TOPIC]


def recorded_topics(contract: Contract) -> list[str]:
    """Return the relative names of the topics that a run by this contract is made of."""
    inputs = [source.topic for source in contract.inputs.values()]
    told = contract.commanded
    plain = [*told.topics, *told.raw_topics, *told.takeover_topics]
    commands = [*plain, RAW_JOINT_COMMANDS, PROPOSAL_TOPIC, RAW_FORWARD_TOPIC, FORWARD_TOPIC]
    accounts = [ACCOUNT_TOPIC, STATE_TOPIC, INTERVENTIONS_TOPIC, RECORDS_TOPIC]
    return list(dict.fromkeys([*inputs, *commands, *accounts, INCIDENT_TOPIC, EPISODE_TOPIC, CLOCK_TOPIC]))
