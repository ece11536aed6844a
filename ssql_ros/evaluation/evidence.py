"""What a log can teach and what it cannot, how sure that is, and how much more would make it surer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.evaluation.conformal import MOST_STATES, upper_bound

CONFIDENCE = 0.05  # of each bound, one-sided
# How far above the seen rate of incidents its upper bound may lie, for figures that are to be relied on.
LOOSENESS = 1.5
# The rate below which a controller without any incident is to be bounded.
RARE = 0.01
# Of the range of actions: below this what was done says nothing of what else could be done.
VARIED = 0.02
# Rows that the spread of actions is judged by.
LOOKED_AT = 20_000


@dataclass(frozen=True)
class Evidence:
    """What a data set holds.

    Attributes:
        seconds: of all episodes together.
        low, high: 95 % bounds (Clopper-Pearson, each one-sided) of the share of episodes that end in an incident.
        wanted: further episodes, of the same controller, for what `words` asks for; 0: enough.
        variety: (n_action,), standard deviation of actions that the observation does not explain by a linear map, as a
            share of half the action range.
        words: what can be taught, what cannot, and what is wanted, a sentence each.
    """

    episodes: int
    steps: int
    seconds: float
    incidents: int
    low: float
    high: float
    wanted: int
    variety: np.ndarray
    words: tuple[str, ...]

    @property
    def teaches_risk(self) -> bool:
        """Return whether the probability of an incident can be learned from it."""
        return self.incidents >= 2


def lower_bound(k: int, m: int, beta: float) -> float:
    """Return the p that a probability is at least, with confidence 1 - beta, of which k in m were seen."""
    return 1.0 - upper_bound(m - k, m, beta)


def events_wanted(rate: float, looseness: float = LOOSENESS, beta: float = CONFIDENCE) -> int:
    """Return how many incidents bound their rate to within a factor: upper bound <= looseness * rate.

    Raises:
        ValueError: rate outside (0, 1), or a looseness of at most 1.
    """
    if not 0.0 < rate < 1.0 or not looseness > 1.0:
        raise ValueError(f"expected a rate between 0 and 1 and a looseness above 1, got {rate!r} and {looseness!r}")
    k = 1
    while upper_bound(k, max(round(k / rate), k + 1), beta) > looseness * rate and looseness * rate < 1.0 and k < 1000:
        k += 1
    return k


def episodes_without(rate: float, beta: float = CONFIDENCE) -> int:
    """Return how many episodes without any incident bound its rate by `rate`: (1 - rate)^n <= beta."""
    return min(math.ceil(math.log(beta) / math.log1p(-rate)), MOST_STATES)


def evidence_of(data: DataSet, contract: Contract) -> Evidence:
    """Return what a data set holds. Raises ValueError where it has no row."""
    if not len(data):
        raise ValueError(f"{data.path}: expected at least one row, got none")
    episodes = data.episodes()
    incidents = sum(bool(np.asarray(data["incident"][each]).any()) for each in episodes)
    n = len(episodes)
    low, high = lower_bound(incidents, n, CONFIDENCE), upper_bound(incidents, n, CONFIDENCE)
    variety = _variety(data, contract)
    words = [
        "What was done in which state can be learned from any log: a behaviour policy with its support, and how near "
        "to the failure set it led (a critic of margins)."
    ]
    wanted = 0
    if incidents == 0:
        need = episodes_without(RARE)
        wanted = max(need - n, 0)
        words.append(
            f"No episode of {n} ended in an incident, so how likely one is cannot be learned from it: no Q_safe. "
            f"With 95 % confidence at most {high:.1%} of such episodes do; {need} without one would bound that by "
            f"{RARE:.0%}. A log of a noisier controller, or one that is stopped late in a simulation, teaches more."
        )
    else:
        rate = incidents / n
        need = events_wanted(min(rate, 0.999))
        wanted = max(math.ceil((need - incidents) / rate), 0)
        words.append(
            f"{incidents} of {n} episodes ended in an incident, so how likely one is can be learned"
            f"{'' if incidents > 1 else ', but not judged: one event is no figure'}. With 95 % confidence on either "
            f"side, {low:.1%} to {high:.1%} of such episodes do."
        )
        more = f"about {wanted} more episodes of the same controller" if wanted else "there are enough of them"
        words.append(
            f"For figures to be relied on (an upper bound within {LOOSENESS:g} of the rate) {need} incidents are "
            f"wanted: {more}."
        )
    if still := [name for name, spread in zip(contract.commanded.names, variety, strict=True) if spread < VARIED]:
        words.append(
            f"{', '.join(still)}: the log holds hardly any other action than the one its state explains, so no critic "
            "can tell from it which action is safer. Add noise to the controller where that is harmless."
        )
    words.append(
        "What cannot be learned from a log: what follows an action that nobody took, and how often a policy that was "
        "never driven would end in an incident. No figure of it is a certificate."
    )
    steps = len(data)
    return Evidence(n, steps, steps * contract.control_period, incidents, low, high, wanted, variety, tuple(words))


def _variety(data: DataSet, contract: Contract) -> np.ndarray:
    """Return the standard deviation of actions around their linear fit, as a share of half the range (n_action,)."""
    rows = np.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).astype(int)
    states, actions = (np.asarray(data[name], float)[rows] for name in ("observation", "action"))
    spread = states.std(axis=0)
    inputs = np.column_stack(
        [(states - states.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0), np.ones(len(rows))]
    )
    gram = inputs.T @ inputs + 1e-6 * len(rows) * np.eye(inputs.shape[1])
    rest = actions - inputs @ np.linalg.solve(gram, inputs.T @ actions)
    told = contract.commanded
    return rest.std(axis=0) / (0.5 * (told.high - told.low))
