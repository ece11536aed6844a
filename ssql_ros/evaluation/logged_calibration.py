"""Holds a bundle against episodes of a log that it did not learn from: nothing is driven.

What a log can show of a safety critic: whether its score foretells the incidents of whoever drove. What it cannot: how
often a policy that was not driven would end in one. So nothing of this is a certificate.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.data.held_out import Parts, parts_of
from ssql_ros.evaluation.calibration import HORIZON, NEGLIGIBLE, area_under_curve, calibration
from ssql_ros.evaluation.conformal import upper_bound
from ssql_ros.model.bundle import Bundle, BundleError, Rule
from ssql_ros.model.critic import SafetyCritic, logit, thresholds_of
from ssql_ros.model.policy import make_policy

NO_CERTIFICATE = (
    "These figures are of the controller that was logged, on episodes that nothing was learned from. They are no "
    "certificate: the policy and the shield of this bundle were not run."
)
RESAMPLES, CONFIDENCE = 400, 0.05


def horizon_of(bundle: Bundle) -> int:
    """Return how far ahead a bundle's critic is held to look, in steps.

    Of probabilities until an incident counts for less than `NEGLIGIBLE`; a margin is of all time to come.
    """
    critic = bundle.safety_critic()
    return HORIZON if critic.rule is Rule.MARGIN else math.ceil(math.log(NEGLIGIBLE) / math.log(critic.gamma_safe))


def scores_of(bundle: Bundle, data: DataSet, rows: np.ndarray) -> np.ndarray:
    """Return Q_safe (N,), 0 to 1, or the margin Q_c, of what was done in rows of a data set."""
    critic = SafetyCritic(bundle)
    pairs = zip(np.asarray(data["observation"])[rows], np.asarray(data["action"])[rows], strict=True)
    found = np.array([critic.logits(s, a[np.newaxis].astype(np.float32))[0] for s, a in pairs], float)
    if critic.rule is Rule.MARGIN:
        return found
    return 1.0 / (1.0 + np.exp(-np.clip(found, logit(1e-12), logit(1.0 - 1e-12))))


def outcomes_of(data: DataSet, segments: list[slice], horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows whose outcome is known, steps to their incident (inf: none), and the number of their segment.

    Known is what an incident or an end for good followed, and what went on for a horizon.
    """
    rows, steps, numbers = [], [], []
    for number, segment in enumerate(segments):
        fell, at = np.asarray(data["incident"][segment], bool), np.arange(segment.stop - segment.start)
        places = np.append(np.flatnonzero(fell), len(fell) + horizon + 1)
        to_incident = places[np.searchsorted(places, at)] - at
        found = to_incident + at < len(fell)
        ended = bool(data["terminal"][segment.stop - 1])
        known = (found & (to_incident <= horizon)) | ended | (len(fell) - at > horizon)
        rows.append(segment.start + at[known])
        steps.append(np.where(found, to_incident, math.inf)[known])
        numbers.append(np.full(int(known.sum()), number))
    return np.concatenate(rows), np.concatenate(steps), np.concatenate(numbers)


def judge_critic(bundle: Bundle, data: DataSet, segments: list[slice]) -> dict[str, Any]:
    """Return figures of a bundle's safety critic on segments of a log.

    Returns:
        episodes, incidents; n: steps of known outcome; base_rate: the mean discounted incident (of margins, the
        share of steps with one within the horizon), what one could say without looking; auc: how often an incident
        within the horizon is ranked above none, with its 95 % interval over episodes; of a critic of probabilities also
        ece, bias, deciles (see `calibration`), brier, and skill = 1 - brier / brier of the base rate: 0 is no better
        than the base rate, 1 is perfect, below 0 is worse; stepped_in: share of steps that the shield would not have
        let pass; caught: share of episodes with an incident that have such a step in the horizon before; lead: the
        median of how many steps before, 0 where it did not; false_alarms: share of such steps among those that no
        incident followed.

    Raises:
        ValueError: no step of known outcome.
        BundleError: the bundle has no safety critic.
    """
    gamma, horizon = bundle.safety_critic().gamma_safe, horizon_of(bundle)
    rows, steps, number = outcomes_of(data, segments, horizon) if segments else (np.empty(0, int), *2 * [np.empty(0)])
    if not len(rows):
        raise ValueError(
            f"{data.path}: expected a held-out step whose outcome is known, got none: episodes are to last for "
            f"{horizon} steps, or to end in an incident"
        )
    score, observed = scores_of(bundle, data, rows), np.where(np.isfinite(steps), gamma**steps, 0.0)
    positive = steps <= horizon
    low, high = _auc_interval(score, positive, number)
    ended = [bool(np.asarray(data["incident"][segment], bool).any()) for segment in segments]
    figures: dict[str, Any] = {
        "episodes": float(len(segments)),
        "incidents": float(sum(ended)),
        "incident_rate_bound": upper_bound(sum(ended), len(ended), CONFIDENCE),
        "n": float(len(rows)),
        "base_rate": float(positive.mean() if bundle.rule is Rule.MARGIN else observed.mean()),
        "auc": area_under_curve(score, positive),
        "auc_low": low,
        "auc_high": high,
    }
    if bundle.rule is Rule.PROBABILITY:
        known = calibration(score, observed)
        figures |= {name: known[name] for name in ("ece", "bias", "deciles", "brier", "skill")}
    threshold = thresholds_of(bundle)
    # Accept only what is known to lie below: what is not a number does not.
    refused = ~(score <= threshold["epsilon"]) if threshold["delta"] is None else ~(score < threshold["delta"])
    figures |= _stepping_in(refused, positive, steps, number)
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in figures.items()}


def _stepping_in(refused: np.ndarray, positive: np.ndarray, steps: np.ndarray, number: np.ndarray) -> dict[str, float]:
    leads = [
        steps[within & refused].max() + 1.0 if (within & refused).any() else 0.0
        for within in (positive & (number == each) for each in np.unique(number[positive]))
    ]
    return {
        "stepped_in": float(refused.mean()),
        "caught": float(np.mean(np.array(leads) > 0.0)) if leads else math.nan,
        "lead": float(np.median(leads)) if leads else math.nan,
        "false_alarms": float(refused[~positive].mean()) if (~positive).any() else math.nan,
    }


def _auc_interval(score: np.ndarray, positive: np.ndarray, number: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the AUC, by a bootstrap over segments: steps of an episode are not independent."""
    groups = [np.flatnonzero(number == each) for each in np.unique(number)]
    rng, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        value = area_under_curve(score[drawn], positive[drawn])
        if not math.isnan(value):
            found.append(value)
    if not found:
        return math.nan, math.nan
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


def judge_policy(bundle: Bundle, data: DataSet, segments: list[slice]) -> dict[str, float]:
    """Return how a bundle's policy differs from what was done in a log: action_distance, the mean |a - a_logged|.

    With a safety critic also q_policy and q_logged, what that says in the mean of either, and feasible: the share of
    steps at which it takes the policy's action for safe. It was not driven: what it would come to is not known.

    Raises:
        ValueError: no segment.
    """
    rows = np.concatenate([np.arange(segment.start, segment.stop) for segment in segments])
    states, done = np.asarray(data["observation"])[rows], np.asarray(data["action"])[rows]
    policy, rng = make_policy(bundle), np.random.default_rng(0)
    policy.reset(rng)
    wanted = np.array([policy.best(state) for state in states.astype(float)])
    figures = {"action_distance": float(np.abs(wanted - done).mean())}
    if bundle.critic is None:
        return figures
    critic, threshold = SafetyCritic(bundle), thresholds_of(bundle)
    score = np.array(
        [
            critic.logits(s, np.stack([a, b]).astype(np.float32)).copy()
            for s, a, b in zip(states, wanted, done, strict=True)
        ]
    )
    limit = threshold["delta"] if threshold["epsilon"] is None else logit(threshold["epsilon"])
    assert limit is not None
    safe = score[:, 0] < limit if threshold["epsilon"] is None else score[:, 0] <= limit
    score = score if threshold["epsilon"] is None else 1.0 / (1.0 + np.exp(-score))
    return figures | {
        "q_policy": float(score[:, 0].mean()),
        "q_logged": float(score[:, 1].mean()),
        "feasible": float(safe.mean()),
    }


def held_out_parts(bundle: Bundle, data: DataSet) -> tuple[Parts, str]:
    """Return which rows of a data set a bundle is judged on, and in words why these.

    Raises:
        BundleError: the bundle learned from all of this data set.
    """
    plan, told = bundle.provenance.get("plan"), bundle.provenance.get("data")
    own = {name: value for name, value in data.manifest.items() if name != "columns"}
    if told != own:
        parts = parts_of(data, 0.0, 0)
        every = Parts(parts.segment, np.ones(len(parts.held), bool), False)
        return every, "all episodes: the bundle has learned from none of this data set"
    plan = plan if isinstance(plan, dict) else {}
    share = float(plan.get("held_out", 0.0))
    if not share:
        raise BundleError(
            f"{bundle.path}: has learned from all of {data.path}: expected episodes that it has not seen; calibrate "
            "with another data set, or train with --held-out-share"
        )
    return parts_of(data, share, int(plan.get("seed", 0))), f"the {share:.0%} of episodes held out in its training"


def calibrate_on_log(bundle: Bundle, data: DataSet, contract: Contract) -> dict[str, Any]:
    """Return the figures of `judge_critic` for a bundle's provenance, with what they are of.

    Raises:
        ValueError: the data set is of another contract, or has nothing to judge on.
        BundleError: the bundle has no safety critic, or has learned from all of the data set.
    """
    data.check_contract(contract.id)
    parts, why = held_out_parts(bundle, data)
    figures = judge_critic(bundle, data, parts.segments())
    unit = "blocks of episodes" if parts.blocks else "episodes"
    return {**figures, "data": str(data.path), "judged_on": why, "unit": unit, "statement": NO_CERTIFICATE}
