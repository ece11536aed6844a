"""What a report is made of: episodes, runs of them in one mode, and the figures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssql_ros.evaluation.intervals import bootstrap_interval, wilson_interval
from ssql_ros.shield.decision import Decision

MODES = ("monitor", "enforce")
NOT_DECIDED = -1


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode, observation by observation; the last one is that in which it ended.

    Attributes:
        seed: that it was reset with.
        steps: control periods.
        incident: True when it ended in one.
        time: (T,) s since its first observation.
        q_safe: (T,) Q_safe of the proposal, 0 to 1; NaN where none was scored.
        margin: (T,) signed safety margin l(s) in the contract's incident unit, negative is safe; NaN: not known.
        decisions: (T,) of `Decision`; NOT_DECIDED where no action was executed, as in the last observation.
        decision_times: (T,) s; NaN where nothing was decided.
    """

    seed: int
    steps: int
    incident: bool
    time: np.ndarray
    q_safe: np.ndarray
    margin: np.ndarray
    decisions: np.ndarray
    decision_times: np.ndarray

    def __post_init__(self) -> None:
        """Check that the arrays are of one length. Raises ValueError with the one that is not."""
        for name in ("q_safe", "margin", "decisions", "decision_times"):
            array = getattr(self, name)
            if array.shape != self.time.shape:
                raise ValueError(f"episode of seed {self.seed}: {name} is {array.shape}, time is {self.time.shape}")


@dataclass(frozen=True)
class RunRecord:
    """Episodes in one mode: `monitor` (the proposal goes to the robot) or `enforce` (what the shield decides does).

    Attributes:
        epsilon: threshold on q_safe, 0 to 1; NaN where the critic is one of margins.
        delta: threshold of a critic of margins, in the margin's unit; None: of probabilities.
        bundle_id: of the safety critic.
    """

    mode: str
    episodes: Sequence[EpisodeRecord]
    epsilon: float
    bundle_id: str = ""
    delta: float | None = None

    @property
    def threshold(self) -> tuple[str, float]:
        """Return name and value of what scores were held against."""
        return ("epsilon", self.epsilon) if self.delta is None else ("delta", self.delta)

    def __post_init__(self) -> None:
        """Check mode and episodes. Raises ValueError."""
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}; got {self.mode!r}")
        if not self.episodes:
            raise ValueError(f"the run in mode {self.mode} has no episode")


@dataclass(frozen=True)
class Summary:
    """The figures of a run; intervals are at 95 %.

    Attributes:
        falls: episodes that ended in an incident; `fall_interval`: of their fraction, Wilson's.
        mean_steps: of an episode; `steps_interval`: of that mean, by bootstrap.
        interventions_per_step: fraction of decisions other than passed. In monitor mode they were not carried out.
        shares: fraction of each decision.
        decision_times: (N,) s, all of the run.
    """

    episodes: int
    falls: int
    fall_interval: tuple[float, float]
    mean_steps: float
    steps_interval: tuple[float, float]
    interventions_per_step: float
    shares: dict[Decision, float]
    decision_times: np.ndarray

    @classmethod
    def of(cls, run: RunRecord) -> Summary:
        """Return the figures of `run`; those that need decisions are NaN where none is recorded."""
        falls = sum(episode.incident for episode in run.episodes)
        steps = np.array([episode.steps for episode in run.episodes], float)
        decisions = np.concatenate([episode.decisions for episode in run.episodes])
        decisions = decisions[decisions != NOT_DECIDED]
        shares = {kind: float(np.mean(decisions == kind)) if decisions.size else np.nan for kind in Decision}
        times = np.concatenate([episode.decision_times for episode in run.episodes])
        return cls(
            episodes=len(steps),
            falls=falls,
            fall_interval=wilson_interval(falls, len(steps)),
            mean_steps=float(steps.mean()),
            # A fixed seed: the same run gives the same report.
            steps_interval=bootstrap_interval(steps, np.random.default_rng(0)),
            interventions_per_step=1.0 - shares[Decision.PASSED],
            shares=shares,
            decision_times=times[np.isfinite(times)],
        )


def typical_pair(monitor: RunRecord, enforce: RunRecord) -> tuple[EpisodeRecord, EpisodeRecord] | None:
    """Return the two episodes of one seed that show the shield at work; None where the runs share no seed.

    Of the seeds that fell without the shield only (or, failing that, of all) the one of median length without it:
    neither the best nor the worst.
    """
    by_seed = {episode.seed: episode for episode in enforce.episodes}
    pairs = [(episode, by_seed[episode.seed]) for episode in monitor.episodes if episode.seed in by_seed]
    saved = [(before, after) for before, after in pairs if before.incident and not after.incident]
    ordered = sorted(saved or pairs, key=lambda pair: pair[0].steps)
    return ordered[len(ordered) // 2] if ordered else None
