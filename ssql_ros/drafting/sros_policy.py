"""A policy of SROS 2 (schema 0.2.0) that allows every node what it needs and nothing else, as XML.

What is not named is denied: of that `ros2 security create_permission` makes the permissions of a DDS participant.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from ssql_ros.drafting.access import Access, check_namespace

VERSION = "0.2.0"
# By rule: the element that holds its names, and the element of one name.
RULES = {
    "publish": ("topics", "topic"),
    "subscribe": ("topics", "topic"),
    "reply": ("services", "service"),
    "request": ("services", "service"),
}


def policy_xml(enclaves: Mapping[str, tuple[Access, ...]], namespace: str = "", comment: str = "") -> str:
    """Return the policy of a graph: an enclave for each process, `NAMESPACE/NAME`, a profile for each node in it.

    Args:
        enclaves: see `access.accesses`.
        namespace: of all nodes.
        comment: what is said at the top.

    Raises:
        ValueError: the namespace is none.
    """
    space = check_namespace(namespace)
    policy = ElementTree.Element("policy", version=VERSION)
    if comment:
        # Two hyphens in a row would end it.
        policy.append(ElementTree.Comment(f" {comment.replace('--', '- -')} "))
    listed = ElementTree.SubElement(policy, "enclaves")
    for name, nodes in enclaves.items():
        enclave = ElementTree.SubElement(listed, "enclave", path=f"{space.rstrip('/')}/{name}")
        profiles = ElementTree.SubElement(enclave, "profiles")
        for node in nodes:
            profile = ElementTree.SubElement(profiles, "profile", ns=space, node=node.node)
            for rule, (group, one) in RULES.items():
                if not (names := getattr(node, rule)):
                    continue  # the schema knows no empty list
                element = ElementTree.SubElement(profile, group, {rule: "ALLOW"})
                for each in sorted(names):
                    ElementTree.SubElement(element, one).text = each
    ElementTree.indent(policy)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(policy, encoding="unicode") + "\n"
