"""Holds predicted against observed: is Q_safe the discounted frequency of incidents that it claims to be?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ssql_ros.algorithms.safety_critic import policy_run
from ssql_ros.data.episode import Episode
from ssql_ros.data.replay import Transition
from ssql_ros.evaluation.intervals import ranks

# What an incident beyond the horizon may count for.
NEGLIGIBLE = 0.01
# Figures of a calibration that are shown: an error says little without the base rate beside it.
SHOWN = ("n", "incidents", "base_rate", "bias", "pessimism", "ece", "skill", "auc")
# Steps after which an episode without an incident counts as safe: gamma_safe^60 is below 0.05 for 0.95.
HORIZON = 60


@dataclass(frozen=True)
class Outcomes:
    """Steps with a known outcome: gamma^(steps to the incident), or 0 where none came within the horizon."""

    observations: np.ndarray
    actions: np.ndarray
    discounted_incident: np.ndarray


def policy_outcomes(episodes: Iterable[Episode], gamma_safe: float) -> Outcomes:
    """Return the outcomes of steps after which pi alone acted: to the incident, or for the whole horizon.

    This is what Q_safe^pi means, without any assumption: one free action, then pi.
    """

    def known(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        run, left = policy_run(episode), len(episode) - 1 - np.arange(len(episode))
        fell = episode.incident & (run >= left)
        return fell | (run >= HORIZON), fell

    return _outcomes(episodes, gamma_safe, known)


def masked_outcomes(episodes: Iterable[Episode], gamma_safe: float) -> Outcomes:
    """Return the outcomes of steps of the masked policy, followed by the masked policy.

    Q_safe^pi is not this policy's value, but the states are those that a shield serves on: the difference is the
    shield's bias in service.
    """

    def known(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        left = len(episode) - 1 - np.arange(len(episode))
        fell = episode.incident & (left < HORIZON)
        return fell | (left >= HORIZON), fell

    return _outcomes(episodes, gamma_safe, known)


def driven_outcomes(episodes: Iterable[Sequence[Transition]], gamma_safe: float) -> Outcomes:
    """Return the outcomes of steps of whatever drove: gamma_safe^(steps to the incident), 0 where none came.

    Known is what ended in an incident or a success, and what went on for a horizon beyond which an incident would
    count for less than `NEGLIGIBLE`.
    """
    horizon = math.ceil(math.log(NEGLIGIBLE) / math.log(gamma_safe))
    observations, actions, outcomes = [], [], []
    for episode in episodes:
        end = episode[-1]
        for i, transition in enumerate(episode):
            left = len(episode) - 1 - i
            if end.terminal or left >= horizon:
                observations.append(transition.observation)
                actions.append(transition.action)
                outcomes.append(gamma_safe**left if end.incident else 0.0)
    return Outcomes(np.array(observations), np.array(actions), np.array(outcomes))


def _outcomes(
    episodes: Iterable[Episode],
    gamma_safe: float,
    known: Callable[[Episode], tuple[np.ndarray, np.ndarray]],
) -> Outcomes:
    observations, actions, outcomes = [], [], []
    for episode in episodes:
        keep, fell = known(episode)
        left = len(episode) - 1.0 - np.arange(len(episode))
        observations.append(episode.observations[:-1][keep])
        actions.append(episode.actions[keep])
        outcomes.append(np.where(fell, gamma_safe**left, 0.0)[keep])
    return Outcomes(np.concatenate(observations), np.concatenate(actions), np.concatenate(outcomes))


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counted half (Mann-Whitney).

    NaN where there is not at least one of each.

    Args:
        scores: (N,).
        positive: (N,) bool.
    """
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    of_positive = (ranks(scores)[positive] + 1.0).sum()
    return float((of_positive - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def calibration(predicted: np.ndarray, observed: np.ndarray, bins: int = 10) -> dict[str, float | list[list[float]]]:
    """Return figures of predicted (N,) against observed (N,) discounted incidents.

    Returns:
        n, incidents: steps and how many of them ended in an incident; bias: mean predicted minus observed;
        ece: expected calibration error, |predicted - observed| per decile of the prediction, weighted by its size;
        auc: predicted against "an incident came"; deciles: [lowest, mean predicted, mean observed, size] each.
        base_rate: mean observed; pessimism: mean predicted over mean observed; brier: mean squared difference; skill: 1
        - brier over that of who always says the base rate: 1 is perfect, 0 no better. NaN where nothing was observed,
        and of no step at all, as where episodes end before an outcome is known.
    """
    if not len(predicted):
        return {**dict.fromkeys((*SHOWN, "brier"), math.nan), "n": 0.0, "incidents": 0.0, "deciles": []}
    order = np.array_split(np.argsort(predicted, kind="stable"), bins)
    groups = [group for group in order if len(group)]
    gaps = [abs(predicted[group].mean() - observed[group].mean()) * len(group) for group in groups]
    rows = [
        [float(predicted[g].min()), float(predicted[g].mean()), float(observed[g].mean()), float(len(g))]
        for g in groups
    ]
    base_rate, spread = float(observed.mean()), float(observed.var())
    brier = float(((predicted - observed) ** 2).mean())
    return {
        "base_rate": base_rate,
        "pessimism": float(predicted.mean()) / base_rate if base_rate else math.nan,
        "brier": brier,
        "skill": 1.0 - brier / spread if spread else math.nan,
        "n": float(len(predicted)),
        "incidents": float((observed > 0).sum()),
        "bias": float((predicted - observed).mean()),
        "ece": float(sum(gaps) / len(predicted)),
        "auc": area_under_curve(predicted, observed > 0),
        "deciles": rows,
    }
