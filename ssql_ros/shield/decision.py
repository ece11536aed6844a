"""The shield's decision: given an observation and a proposal, which action goes to the robot, and why.

Masking after SQRL (Srinivasan et al. 2020, eq. 3): candidates with Q_safe(s, a) <= epsilon keep their probability, the
others have none; where none is left, the action of least Q_safe is taken. A critic of margins (SafeFQL) stands in the
same place: Q_c(s, a), in the margin's unit, must be below its delta. Pure: no I/O, no clock, no messages.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ssql_ros.contract.contract import Contract
from ssql_ros.model.bundle import Rule
from ssql_ros.model.critic import logit, sigmoid
from ssql_ros.model.proposal import Proposal

# Candidates are scored in two stages: the first few mostly hold a safe one, and scoring stops there.
FIRST_STAGE = 8
# And the others in no larger pieces than this, so that a decision can end in time.
STAGE = 256
# What turning an action into joint positions and back may add to it, as a fraction of the action range.
ROUNDING = 1e-9


class Decision(enum.IntEnum):
    """What the shield did with a proposal; the values are those of ShieldedAction.msg."""

    PASSED = 0
    RESAMPLED = 1
    LEAST_RISK = 2
    HELD = 3
    BACKUP = 4
    FAULT = 5


class Critic(Protocol):
    """Scores candidate actions.

    Attributes:
        rule: PROBABILITY: scores are logits of Q_safe; MARGIN: they are margins Q_c.
    """

    rule: Rule

    def logits(self, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return scores (k,) for actions (k, n_action) in one observation (n_observation,)."""


@dataclass(frozen=True)
class Observation:
    """The newest observation. `vector` (n_observation,); `time`: s on the clock of `decide`'s `now`, when measured."""

    vector: np.ndarray
    time: float


@dataclass(frozen=True)
class ShieldSettings:
    """How candidates are drawn and judged.

    Attributes:
        epsilon: threshold on Q_safe, 0 < epsilon < 1; None where the critic is one of margins.
        delta: threshold on Q_c, in the margin's unit; None where the critic is one of probabilities.
        candidates: how many actions a round draws (k).
        rounds: how many rounds at most; the scale grows by `growth` from one to the next.
        growth: factor on the standard deviation from round to round, at least 1.
        spread: standard deviation around a plain command, as a fraction of half the action range.
        nearest: True: of the safe candidates of a round the most probable one, which changes a proposal least;
            False: the first in drawing order, which is a draw from the masked policy (eq. 3).
        riskiest: True: of the safe candidates of a round the one of the highest Q_safe, also where the proposal is
            safe: how SQRL's pre-training (section 6) visits the boundary to learn it. Never for a robot.
        max_observation_age, max_proposal_age: s; older ones are stale.
        deadline: share of a control period after which no further candidates are scored.
    """

    epsilon: float | None
    max_observation_age: float
    max_proposal_age: float
    candidates: int = 100
    rounds: int = 3
    growth: float = 1.5
    spread: float = 0.4
    nearest: bool = False
    riskiest: bool = False
    delta: float | None = None
    deadline: float = 0.5

    @property
    def rule(self) -> Rule:
        """Return the rule that the threshold is of."""
        return Rule.MARGIN if self.epsilon is None else Rule.PROBABILITY

    def __post_init__(self) -> None:
        """Check every setting. Raises ValueError with the name, what was expected and what came."""
        checks = {
            "epsilon": self.epsilon is None or 0.0 < self.epsilon < 1.0,
            "delta": self.delta is None or math.isfinite(self.delta),
            "candidates": self.candidates >= 1,
            "rounds": self.rounds >= 1,
            "growth": 1.0 <= self.growth < math.inf,
            "spread": 0.0 < self.spread < math.inf,
            "deadline": 0.0 < self.deadline <= 1.0,
            "max_observation_age": 0.0 < self.max_observation_age < math.inf,
            "max_proposal_age": 0.0 < self.max_proposal_age < math.inf,
        }
        for name, fine in checks.items():
            if not fine:  # NaN fails every comparison above, so it lands here too
                raise ValueError(f"shield setting {name}: {getattr(self, name)!r} is out of range")
        if (self.epsilon is None) == (self.delta is None):
            raise ValueError(f"shield settings: expected epsilon or delta, got {self.epsilon} and {self.delta}")


@dataclass(frozen=True)
class Verdict:
    """A decision with its account.

    Attributes:
        action: (n_action,), inside the bounds, finite.
        q_proposal, q_action: Q_safe, or Q_c, of the proposal and of the action; NaN where not scored.
        scored, safe: how many candidates were scored, the proposal included, and how many of those are safe.
        reason: why, in words; empty for a proposal that passed unchanged.
    """

    decision: Decision
    action: np.ndarray
    q_proposal: float = math.nan
    q_action: float = math.nan
    scored: int = 0
    safe: int = 0
    reason: str = ""


@dataclass
class _Scores:
    """Candidates scored so far, for the least risky one among them."""

    threshold: np.float64
    scored: int = 0
    safe: int = 0
    least: float = math.inf
    least_action: np.ndarray = field(default_factory=lambda: np.empty(0))

    def choose(self, actions: np.ndarray, logits: np.ndarray, riskiest: bool) -> int | None:
        """Take in scores (k,) of actions (k, n_action); return the index of the first or the riskiest safe one."""
        self.scored += len(logits)
        best = int(logits.argmin())
        least = logits.item(best)
        # A NaN is the first that argmin finds, -inf the next: a least one that is finite says that all are numbers.
        if math.isfinite(least) and least > self.threshold:
            if least < self.least:
                self.least, self.least_action = least, actions[best].copy()
            return None
        # A NaN compares false, so a candidate whose score is not a number is never safe; neither is -inf.
        safe = (logits <= self.threshold) & np.isfinite(logits)
        n_safe = int(np.count_nonzero(safe))
        self.safe += n_safe
        if n_safe:
            return int(np.argmax(np.where(safe, logits, -math.inf) if riskiest else safe))
        finite = np.where(np.isfinite(logits), logits, math.inf)
        best = int(np.argmin(finite))
        if finite[best] < self.least:
            self.least, self.least_action = float(finite[best]), actions[best].copy()
        return None


def decide(
    observation: Observation | None,
    proposal: Proposal | None,
    critic: Critic,
    contract: Contract,
    settings: ShieldSettings,
    now: float,
    rng: np.random.Generator,
    late: Callable[[], bool] | None = None,
    search: bool = True,
) -> Verdict:
    """Decide on the action for one control period.

    Args:
        observation: the newest one, None before the first.
        proposal: the newest one, None before the first.
        now: s, on the clock of the observation's and the proposal's times.
        rng: draws the candidates.
        late: tells whether the time for this decision is over: then no further candidates are scored.
        search: False: no candidates are drawn; an unsafe proposal is then the least risky action that is known.

    Returns:
        The verdict. A missing, stale or non-finite observation or proposal, or a critic without one finite score,
        gives the contract's safe action.
    """
    fault = _fault(observation, proposal, contract, settings, now)
    if fault or observation is None or proposal is None:
        return Verdict(Decision.HELD, contract.safe_action.copy(), reason=fault)

    # Clipped before it is scored: what is judged is what the robot gets.
    action = contract.clip(proposal.action)
    clipped = _clipped(proposal.action, action, contract)
    if critic.rule is not settings.rule:
        raise ValueError(f"critic of rule {critic.rule.name}, but the threshold is of {settings.rule.name}")
    epsilon, delta = settings.epsilon, settings.delta
    # In the score's own terms, a logit or a margin; candidates are held against the same (`_Scores.choose`).
    # score < delta is score <= the number before it.
    threshold = math.nextafter(delta, -math.inf) if delta is not None else logit(epsilon or 0.0)
    account = sigmoid if delta is None else float
    score = float(critic.logits(observation.vector, action[np.newaxis])[0])
    # A score that is not finite is none: it must not read as a probability of 0 or 1 in the account.
    q_proposal = account(score) if math.isfinite(score) else math.nan
    safe = math.isfinite(score) and score <= threshold
    if safe and not settings.riskiest:
        return Verdict(Decision.PASSED, action, q_proposal, q_proposal, 1, 1, clipped)

    if safe:
        unsafe = "a riskier safe action is wanted"
    elif math.isfinite(score) and delta is not None:
        unsafe = f"margin {q_proposal:.3g} of the proposal is not below delta {delta:.3g}"
    elif math.isfinite(score):
        unsafe = f"q_safe {q_proposal:.3g} of the proposal is above epsilon {epsilon:g}"
    else:
        unsafe = f"the critic's score of the proposal is {score}"
    if clipped:
        unsafe = f"{clipped}; {unsafe}"
    # float64: a plain float would be rounded to the scores' float32 before the comparison.
    least = score if math.isfinite(score) and not safe else math.inf
    scores = _Scores(np.float64(threshold), 1, int(safe), least, action)
    found = None
    if search:
        found = _search(observation.vector, proposal, critic, contract, settings, rng, scores, late)
    if found is not None:
        chosen, score = found
        return Verdict(Decision.RESAMPLED, chosen, q_proposal, account(score), scores.scored, scores.safe, unsafe)
    if safe:
        return Verdict(Decision.PASSED, action, q_proposal, q_proposal, scores.scored, scores.safe, clipped)
    if not math.isfinite(scores.least):
        reason = f"none of {scores.scored} scores of the critic is finite"
        return Verdict(Decision.HELD, contract.safe_action.copy(), q_proposal, scored=scores.scored, reason=reason)
    reason = f"{unsafe}; no safe one among {scores.scored} candidates"
    return Verdict(
        Decision.LEAST_RISK, scores.least_action, q_proposal, account(scores.least), scores.scored, 0, reason
    )


def _clipped(proposed: np.ndarray, action: np.ndarray, contract: Contract) -> str:
    """Return that the proposal was clipped, in words, or an empty text where only rounding was taken off."""
    if proposed.tolist() == action.tolist():
        return ""
    allowed = ROUNDING * (contract.commanded.high - contract.commanded.low)
    return "" if (np.abs(proposed - action) <= allowed).all() else "clipped to the action bounds"


def _fault(
    observation: Observation | None,
    proposal: Proposal | None,
    contract: Contract,
    settings: ShieldSettings,
    now: float,
) -> str:
    """Return why nothing can be decided, or an empty text."""
    if observation is None:
        return "no observation yet"
    if not now - observation.time <= settings.max_observation_age:
        return f"observation is stale: {now - observation.time:.3f} s old, limit {settings.max_observation_age:g} s"
    if observation.vector.shape != (contract.observation_size,):
        return f"observation has {observation.vector.size} values, expected {contract.observation_size}"
    if not _all_finite(observation.vector):
        return "observation is not finite"
    if proposal is None:
        return "no proposal yet"
    if not now - proposal.time <= settings.max_proposal_age:
        return f"proposal is stale: {now - proposal.time:.3f} s old, limit {settings.max_proposal_age:g} s"
    for name, vector in (
        ("", proposal.action),
        (" mean", proposal.mean),
        (" std", proposal.std),
        (" low", proposal.low),
        (" high", proposal.high),
    ):
        if vector is None:
            continue
        if vector.shape != (contract.action_size,):
            return f"proposal{name} has {vector.size} values, expected {contract.action_size}"
        if not _all_finite(vector):
            return f"proposal{name} is not finite"
    return ""


def _all_finite(vector: np.ndarray) -> bool:
    # The sum of squares is finite only where every term is, and takes a fraction of the time.
    return math.isfinite(vector.dot(vector)) or bool(np.isfinite(vector).all())


def _search(
    observation: np.ndarray,
    proposal: Proposal,
    critic: Critic,
    contract: Contract,
    settings: ShieldSettings,
    rng: np.random.Generator,
    scores: _Scores,
    late: Callable[[], bool] | None,
) -> tuple[np.ndarray, float] | None:
    """Draw candidates round by round until one is safe; return it with its score, or None.

    A proposal's own distribution is searched first, but the last round is a plain command's, over the contract's
    bounds: how narrow a controller is must not keep the shield from a safe action that is there.
    """
    low = contract.commanded.low if proposal.low is None else contract.clip(proposal.low)
    high = contract.commanded.high if proposal.high is None else contract.clip(proposal.high)
    half_range = 0.5 * (high - low)
    # Around the clipped action: candidates drawn far outside of the bounds would all be clipped to one corner.
    mean = contract.clip(proposal.action) if proposal.mean is None else proposal.mean
    std = settings.spread * half_range if proposal.std is None else proposal.std
    own = not settings.riskiest and any(part is not None for part in (proposal.std, proposal.low, proposal.high))
    squashed = proposal.squashed
    for i in range(settings.rounds + own):
        if own and i == settings.rounds:
            low, high, squashed = contract.commanded.low, contract.commanded.high, False
            half_range, mean = 0.5 * (high - low), contract.clip(proposal.action)
            std = settings.spread * half_range
        z = rng.standard_normal((settings.candidates, contract.action_size), dtype=np.float32)
        if settings.nearest:
            # For a normal distribution the log-probability falls with |z|, so this is the order of probability.
            z = z[np.argsort(np.einsum("ij,ij->i", z, z))]
        candidates = settings.growth ** min(i, settings.rounds - 1) * std * z
        candidates += mean
        if squashed:
            candidates = low + half_range * (1.0 + np.tanh(candidates))
        # np.clip checks its arguments anew each time, which costs more than the clipping.
        np.maximum(candidates, low, out=candidates)
        np.minimum(candidates, high, out=candidates)
        for stage in _stages(candidates, settings.riskiest):
            if late is not None and scores.scored > 1 and late():
                return None
            logits = critic.logits(observation, stage)
            index = scores.choose(stage, logits, settings.riskiest)
            if index is not None:
                return stage[index].copy(), float(logits[index])
    return None


def _stages(candidates: np.ndarray, whole: bool) -> Iterator[np.ndarray]:
    """Yield candidates in the pieces in which they are scored: a few first, then no more at once than `STAGE`."""
    if whole:
        yield candidates
        return
    yield candidates[:FIRST_STAGE]
    for begin in range(FIRST_STAGE, len(candidates), STAGE):
        yield candidates[begin : begin + STAGE]
