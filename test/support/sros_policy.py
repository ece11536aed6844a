"""Reads a policy of SROS 2 by the rules of its schema 0.2.0, and expands its names as SROS 2 does. Nothing of sros2."""

import re
from xml.etree import ElementTree

GROUPS = {"topics": ("topic", {"publish", "subscribe"}), "services": ("service", {"reply", "request"})}
NAME = re.compile(r"(/|~/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
Allowed = dict[str, set[str]]  # by rule, the full names


def _only(element: ElementTree.Element, required: set[str], children: set[str], least: int = 1) -> None:
    assert set(element.attrib) == required, (element.tag, element.attrib)
    assert {child.tag for child in element} <= children, element.tag
    assert len(element) >= least, f"{element.tag}: the schema wants {children}"
    assert children == set() or not (element.text or "").strip(), element.tag


def full_name(name: str, namespace: str, node: str) -> str:
    """What SROS 2 makes of a name in a profile."""
    assert NAME.fullmatch(name), f"{name!r}: in permissions this is a pattern, or nothing that ROS knows"
    if name.startswith("/"):
        return name
    space = namespace.rstrip("/")
    return f"{space}/{node}{name[1:]}" if name.startswith("~") else f"{space}/{name}"


def parsed(text: str) -> dict[str, dict[str, Allowed]]:
    """By enclave and full name of a node, what is allowed; raises AssertionError where the schema is not kept to."""
    root = ElementTree.fromstring(text)
    assert root.tag == "policy"
    assert root.get("version") == "0.2.0"
    _only(root, {"version"}, {"enclaves"})
    (enclaves,) = root
    _only(enclaves, set(), {"enclave"})
    found: dict[str, dict[str, Allowed]] = {}
    for enclave in enclaves:
        _only(enclave, {"path"}, {"profiles"})
        path = enclave.attrib["path"]
        assert re.fullmatch(r"(/[A-Za-z_]\w*)+", path, re.ASCII), path
        assert path not in found, f"{path} is told twice"
        nodes = found[path] = {}
        for profiles in enclave:
            _only(profiles, set(), {"profile"})
            for profile in profiles:
                _only(profile, {"ns", "node"}, set(GROUPS), least=0)
                space, node = profile.attrib["ns"], profile.attrib["node"]
                rules = nodes.setdefault(f"{space.rstrip('/')}/{node}", {})
                for group in profile:
                    one, known = GROUPS[group.tag]
                    _only(group, set(group.attrib), {one})
                    assert group.attrib
                    assert set(group.attrib) <= known
                    assert set(group.attrib.values()) == {"ALLOW"}, "what is not named is denied; no rule need say so"
                    for rule in group.attrib:
                        names = [full_name(each.text or "", space, node) for each in group]
                        assert len(set(names)) == len(names)
                        assert not rules.get(rule, set()) & set(names)
                        rules.setdefault(rule, set()).update(names)
    return found
