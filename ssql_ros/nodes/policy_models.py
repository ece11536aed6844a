"""Which policy a policy node serves: its own bundle's, and those that are announced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.messages import fill, set_stamp
from ssql_ros.model.bundle import Bundle, load_bundle
from ssql_ros.model.policy import ServedPolicy, make_policy
from ssql_ros.model.probes import check_policy, check_probes
from ssql_ros.model.proposal import Proposal as Draw
from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.msg import Proposal
from ssql_ros.ros.model_receiver import rest

# A policy must answer within this share of a control period: so long an answer waits for the command before it, too.
SHARE = 0.25
REPEATS = 5


def load_policy(path: str, contract: Contract) -> tuple[str, ServedPolicy]:
    """Return id and policy of a bundle; `path`: empty: the robot's shipped one.

    Raises:
        ValueError, OSError: it cannot be loaded, or has no policy that is served here; the text says why.
    """
    bundle = load_bundle(path or find_shipped_bundle(contract.robot, part="policy"), contract)
    check_probes(bundle)
    return bundle.id, make_policy(bundle)


def announced_policy(bundle: Bundle, contract: Contract) -> tuple[tuple[str, ServedPolicy], str]:
    """Return id and policy of an announced bundle, verified and measured, and nothing to say of it.

    Raises:
        ValueError: it gives other outputs than its probes say, or takes too long.
    """
    policy = make_policy(bundle)
    rest()
    check_policy(policy, bundle)
    rest()
    observation, rng = bundle.probes["observation"][0].astype(float), np.random.default_rng(0)
    # The best of a few: what the machine is busy with beside it does not count against the policy.
    seconds = min(_seconds(lambda: policy.propose(observation, rng)) for _ in range(REPEATS))
    limit = SHARE * contract.control_period
    if not seconds <= limit:
        raise ValueError(f"{bundle.path}: an answer takes {seconds:.4f} s, at most {limit:g} s are there")
    return (bundle.id, policy), ""


def proposal_message(contract_id: str, draw: Draw, context: np.ndarray, source: str, stamp: int) -> Proposal:
    """Return a draw of a policy as a message: with its distribution, and b's context (n_context,) of that moment."""
    known = {name: getattr(draw, name) for name in ("mean", "std", "low", "high")}
    proposal = fill(
        Proposal(),
        contract_id=contract_id,
        source=source,
        action=draw.action,
        context=context,
        squashed=draw.squashed,
        **{name: value for name, value in known.items() if value is not None},
    )
    set_stamp(proposal, stamp)
    return proposal


def carry_on(policy: ServedPolicy, before: ServedPolicy) -> bool:
    """Let a policy go on where another stands; False: they do not keep to the same behaviour policy.

    A gait that started over in the middle of a stride would be a jump that nobody has learned to take. How likely an
    episode begins with which gait may differ: that counts from the next one on.
    """
    old, new = (getattr(each, "behaviour", None) for each in (before, policy))
    if old is None or new is None:
        return old is new  # neither remembers anything
    descriptions = [{**each.describe(), "weights": None} for each in (old, new)]
    if descriptions[0] != descriptions[1]:
        return False
    policy.behaviour = old  # type: ignore[attr-defined]
    return True


def _seconds(act: Callable[[], Any]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start
