"""The safety critic from a log alone: Q_safe(s, a) of whoever drove, the discounted probability of an incident to come.

The Bellman equation of safety_critic.py with the actions that the log holds, a' = a_(t+1): on-policy, so that it may be
unrolled along the log up to `lookahead` steps without a bias:

    y = gamma^(k-1) I(s_(t+k)) + (1 - I(s_(t+k))) gamma^k Qbar(s_(t+k), a_(t+k))

What it says of an action is: this one now, and then whoever drove goes on. It knows nothing of actions that the log
does not hold. A fifth of the episodes is not fitted to: on those the best weights are chosen, its logit is scaled to
the probabilities that were seen there (Platt 1999), and the threshold is found.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.safety_critic import CriticSettings, SafetyCriticLearner, Transitions
from ssql_ros.data.data_set import DataSet
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.scores import chosen_epsilon, cross_entropy, platt
from ssql_ros.model.bundle import Network

# Share of the episodes that weights are chosen by; with fewer incidents than this all are fitted to.
CHOSEN_BY, LEAST_INCIDENTS = 0.2, 5


@dataclass(frozen=True)
class LoggedCriticSettings(CriticSettings):
    """How it learns.

    Attributes:
        epsilon: threshold in the bundle; None: as low as `alarms` lets it be.
        alarms: share of the steps that no incident followed at which the shield may step in.
        check_every: updates between two looks at the episodes that weights are chosen by.
    """

    epsilon: float | None = None
    alarms: float = 0.15
    check_every: int = 250

    def __post_init__(self) -> None:
        """Refuse what has no meaning in a log. Raises ValueError."""
        if self.delay != 1.0:
            raise ValueError(f"setting delay: expected 1, as nobody takes over in a log, got {self.delay:g}")


def logged_targets(data: DataSet, segments: list[slice], gamma_safe: float, lookahead: int) -> Transitions:
    """Return the transitions of rows of a data set that follow each other, each unrolled up to `lookahead` steps.

    The last row of a segment that ended in nothing has no target, and is left out.

    Raises:
        ValueError: no row is left, or none of them leads to an incident.
    """
    names = ("observation", "action", "next_observation", "incident", "terminal")
    observation, action, after, incident, terminal = (data[name] for name in names)
    parts: list[tuple[np.ndarray, ...]] = []
    for segment in segments:
        fell, count = np.asarray(incident[segment], bool), segment.stop - segment.start
        stops = fell | np.asarray(terminal[segment], bool)
        steps = np.arange(count)
        stop, to_incident = _next(stops), _next(fell) - steps
        ends = stop - steps < lookahead
        k = np.where(ends, stop - steps + 1, np.minimum(lookahead, count - 1 - steps)).astype(int)
        keep = k > 0
        ending = np.where(ends, stop, 0).astype(int)
        falls = ends & fell[ending]
        # The state that is reached is a row of its own, but for an episode's end, which nothing follows.
        at = np.minimum(steps + k, count - 1)
        reached, answered = np.asarray(observation[segment])[at], np.asarray(action[segment])[at]
        reached[ends] = np.asarray(after[segment])[ending[ends]]
        columns = (
            np.asarray(observation[segment]),
            np.asarray(action[segment]),
            reached,
            answered,
            np.where(falls, gamma_safe ** (k - 1.0), 0.0).astype(np.float32),
            np.where(ends, 0.0, gamma_safe ** k.astype(float)).astype(np.float32),
            to_incident.astype(np.float32),
        )
        parts.append(tuple(column[keep] for column in columns))
    if not sum(len(part[0]) for part in parts):
        raise ValueError(f"{data.path}: expected episodes of at least two steps to learn from, got none")
    found = Transitions(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    if not np.isfinite(found.steps_to_incident).any():
        raise ValueError(
            f"{data.path}: expected an incident in at least one of the {len(segments)} episodes that are learned from, "
            "got none: a log without incidents cannot teach how likely they are; it teaches what was done (`ssql train "
            "behaviour`) and how near the failure set was (`ssql train safefql`)"
        )
    return found


def _next(flags: np.ndarray) -> np.ndarray:
    """Return, of each place (N,), the first one from there on that is flagged; inf: none is."""
    at = np.where(flags, np.arange(len(flags), dtype=float), math.inf)
    return np.minimum.accumulate(at[::-1])[::-1]


class LoggedCritic:
    """Learns Q_safe of whoever drove from segments of a data set.

    Args:
        segments: rows that follow each other, to learn from.
        updates: how many `step`s there will be.

    Attributes:
        targets: what is fitted to; chosen_by: what weights, scale and threshold are chosen by.

    Raises:
        ValueError: none of the segments has an incident, or all are too short.
    """

    def __init__(
        self, data: DataSet, segments: list[slice], settings: LoggedCriticSettings, updates: int, seed: int
    ) -> None:
        self.settings, self._updates = settings, updates
        fitted, apart = _split(data, segments, seed)
        self.targets = logged_targets(data, fitted, settings.gamma_safe, settings.lookahead)
        self.chosen_by = logged_targets(data, apart, settings.gamma_safe, 1) if apart else self.targets
        self._learner = SafetyCriticLearner(self.targets, settings, seed)
        self.arithmetic = self._learner.arithmetic
        self._left: Iterator[float] | None = None
        self._least, self._kept = math.inf, copy.deepcopy(self._parameters())

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter.detach() for parameter in self._learner.online.parameters()]

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Make one update, given its number from 0; return its loss."""
        if self._left is None:  # only now: a checkpoint may have been restored
            self._left = self._learner.fit(self.targets, self._updates)
        loss = next(self._left)
        if (number + 1) % self.settings.check_every == 0 or number + 1 == self._updates:
            error = cross_entropy(self._logits(), self._observed())
            if error < self._least:
                self._least, self._kept = error, copy.deepcopy(self._parameters())
        return {"loss": torch.tensor(loss)}

    def _observed(self) -> np.ndarray:
        return self.settings.gamma_safe ** self.chosen_by.steps_to_incident.astype(float)

    def _logits(self) -> np.ndarray:
        q_safe = self._learner.q_safe(self.chosen_by.observations, self.chosen_by.actions).astype(float)
        return np.log(q_safe.clip(1e-9, 1.0)) - np.log1p(-q_safe.clip(0.0, 1.0 - 1e-9))

    def result(self) -> tuple[Network, float]:
        """Return the best weights so far, with their logit scaled, and the threshold."""
        with torch.no_grad():
            for parameter, kept in zip(self._learner.online.parameters(), self._kept, strict=True):
                parameter.copy_(kept)
        slope, offset = platt(logits := self._logits(), self._observed())
        network, settings = self._learner.network(), self.settings
        members = tuple(
            (*member[:-1], replace(member[-1], weight=slope * member[-1].weight, bias=slope * member[-1].bias + offset))
            for member in network.members
        )
        epsilon = settings.epsilon
        if epsilon is None:
            scaled = 1.0 / (1.0 + np.exp(-(slope * logits + offset)))
            epsilon = chosen_epsilon(scaled, self.chosen_by.steps_to_incident, settings.alarms)
        return replace(network, members=members), epsilon

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        # JSON has no infinity.
        least = self._least if math.isfinite(self._least) else None
        return {"learner": self._learner.state(), "least": least, "kept": self._kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self._learner.restore(state["learner"])
        self._least = math.inf if state["least"] is None else state["least"]
        self._kept = list(state["kept"])


def _split(data: DataSet, segments: list[slice], seed: int) -> tuple[list[slice], list[slice]]:
    """Return the segments to fit to, and those to choose by: of those with an incident and of the others, a share."""
    fell = np.array([bool(np.asarray(data["incident"][segment]).any()) for segment in segments])
    if fell.sum() < LEAST_INCIDENTS:
        return segments, []
    rng, apart = Stream.DENSITY_SPLIT.generator(seed), set[int]()
    for group in (np.flatnonzero(fell), np.flatnonzero(~fell)):
        apart |= set(rng.permutation(group)[: round(CHOSEN_BY * len(group))].tolist())
    return [s for i, s in enumerate(segments) if i not in apart], [segments[i] for i in sorted(apart)]
