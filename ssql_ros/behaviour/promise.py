"""Checks a behaviour policy's promise online: no action outside of its support, no incident. Every breach counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy


@dataclass(frozen=True)
class Breach:
    """One breach. `step` counts from 0 over the whole run, `episode` from 0 too."""

    step: int
    episode: int
    what: str


@dataclass
class PromiseMonitor:
    """Watches what a behaviour policy does.

    Attributes:
        steps, episodes: seen so far.
        actions, incidents: breaches of either kind.
        first: the first breach; None: the promise has held.
    """

    behaviour: BehaviourPolicy
    steps: int = 0
    episodes: int = 0
    actions: int = 0
    incidents: int = 0
    first: Breach | None = None
    _begun: bool = field(default=False, repr=False)

    @property
    def breaches(self) -> int:
        """Return how many steps broke the promise, an action and an incident counting one each."""
        return self.actions + self.incidents

    def reset(self) -> None:
        """Begin an episode."""
        self.episodes += self._begun
        self._begun = True

    def watch(self, state: np.ndarray, action: np.ndarray, incident: bool) -> list[Breach]:
        """Take in one step: the state (n_observation + n_context,) and action (n_action,) and what came of it."""
        self._begun = True
        found = []
        if not self.behaviour.support(state[np.newaxis]).contains(action[np.newaxis, np.newaxis]).all():
            self.actions += 1
            found.append(Breach(self.steps, self.episodes, "an action outside of the support"))
        if incident:
            self.incidents += 1
            found.append(Breach(self.steps, self.episodes, "an incident"))
        self.first = self.first or (found[0] if found else None)
        self.steps += 1
        return found

    def state(self) -> dict[str, int | list[int | str]]:
        """Return what a checkpoint must hold."""
        counts = {name: getattr(self, name) for name in ("steps", "episodes", "actions", "incidents")}
        first = [] if self.first is None else [self.first.step, self.first.episode, self.first.what]
        return {**counts, "first": first, "begun": int(self._begun)}

    def restore(self, state: dict[str, int | list[int | str]]) -> None:
        """Take the state of a checkpoint."""
        for name in ("steps", "episodes", "actions", "incidents"):
            setattr(self, name, state[name])
        first = state["first"]
        self.first = Breach(*first) if isinstance(first, list) and first else None  # type: ignore[arg-type]
        self._begun = bool(state["begun"])
