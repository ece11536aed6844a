"""Grid worlds with unsafe cells, small enough that everything about them can be computed exactly.

Two maps: a gridworld, and the drunk spider's map in cells. On both the short way passes next to unsafe cells, where a
move may slip into them, and a longer one does not. Unsafe cells end an episode with an incident, the goal with a
success. A move may slip to either side. `model` gives the transitions as arrays, for exact dynamic programming.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

# S start, G goal, # wall, x unsafe, . free; outside of the map is a wall.
GRIDWORLD = (
    "S.....",
    "......",
    ".xx...",
    ".xx...",
    "......",
    "G.....",
)
SPIDER = (
    ".......",
    "...S...",
    "..x.x..",
    "..x.x..",
    "..x.x..",
    "..x.x..",
    "...G...",
    ".......",
)
MAPS = {"gridworld": GRIDWORLD, "spider": SPIDER}
# Maps as tasks of tabular learners, by name.
GRIDS = {"gridworld": "gridworld", "spider_grid": "spider"}
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))  # up, down, left, right, stay
STEP_REWARD, GOAL_REWARD, INCIDENT_REWARD = -0.05, 1.0, -1.0


class GridEnv(gymnasium.Env):
    """A grid of cells. Observation: the cell's number, row by row. Action: one of `MOVES`.

    With probability `slip` a move goes to one of its two sides instead, each as likely; a wall keeps the place. To stay
    never slips. Reward: -0.05 a step, +1 on reaching the goal, -1 on reaching an unsafe cell; both end the episode.
    `info`: incident, success.

    Args:
        layout: name in `MAPS`.
        slip: 0 to 1.
        max_steps: after which an episode is truncated.

    Raises:
        ValueError: an unknown map, or a number outside of its range.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, *, layout: str = "gridworld", slip: float = 0.1, max_steps: int = 50):
        if layout not in MAPS:
            raise ValueError(f"layout is one of {', '.join(MAPS)}, not {layout!r}")
        if not 0.0 <= slip <= 1.0 or max_steps < 1:
            raise ValueError(f"expected slip of 0 to 1 and at least 1 step, got {slip} and {max_steps}")
        self.cells = np.array([list(row) for row in MAPS[layout]])
        self.slip, self.max_steps = float(slip), max_steps
        flat = self.cells.ravel()
        self.start, self.goal = int(np.flatnonzero(flat == "S")[0]), int(np.flatnonzero(flat == "G")[0])
        self.unsafe = flat == "x"
        self.transitions, self.reward = self._model()
        self.observation_space = gymnasium.spaces.Discrete(flat.size)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self._state = self.start
        self._steps: int | None = None  # None while no episode goes on

    def state(self) -> dict[str, Any]:
        """Return where the episode stands and the generator, in JSON's types: see `restore`."""
        return {"cell": self._state, "steps": self._steps, "generator": self.np_random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another world of the same map stood."""
        self._state, self._steps = state["cell"], state["steps"]
        self.np_random.bit_generator.state = state["generator"]

    def _model(self) -> tuple[np.ndarray, np.ndarray]:
        """Return P(s'|s,a) (S, A, S) and the mean reward (S, A)."""
        n, n_actions = self.cells.size, len(MOVES)
        transitions = np.zeros((n, n_actions, n))
        for state in range(n):
            for action, move in enumerate(MOVES):
                transitions[state, action, self._moved(state, move)] += 1.0 - (self.slip if any(move) else 0.0)
                if any(move):
                    for side in (move[::-1], (-move[1], -move[0])):
                        transitions[state, action, self._moved(state, side)] += 0.5 * self.slip
        worth = np.full(n, STEP_REWARD)
        worth[self.goal] += GOAL_REWARD
        worth[self.unsafe] += INCIDENT_REWARD
        return transitions, transitions @ worth

    def _moved(self, state: int, move: tuple[int, int]) -> int:
        row, column = divmod(state, self.cells.shape[1])
        row, column = row + move[0], column + move[1]
        if not (0 <= row < self.cells.shape[0] and 0 <= column < self.cells.shape[1]):
            return state
        return state if self.cells[row, column] == "#" else row * self.cells.shape[1] + column

    @property
    def terminal(self) -> np.ndarray:
        """Return which cells (S,) end an episode."""
        ends = self.unsafe.copy()
        ends[self.goal] = True
        return ends

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Start an episode on the start cell; see gymnasium.Env.reset. There are no options."""
        if options:
            raise ValueError(f"there are no reset options, but {sorted(options)} came")
        super().reset(seed=seed)
        self._state, self._steps = self.start, 0
        return self._state, {"incident": False, "success": False}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move; see gymnasium.Env.step."""
        if self._steps is None:
            raise RuntimeError("the episode has ended or not begun: reset first")
        if not self.action_space.contains(action):
            raise ValueError(f"an action is a whole number of 0 to {len(MOVES) - 1}, not {action!r}")
        ends = np.cumsum(self.transitions[self._state, action])
        self._state = int(np.searchsorted(ends, self.np_random.random() * ends[-1], side="right"))
        self._steps += 1
        incident, success = bool(self.unsafe[self._state]), self._state == self.goal
        reward = STEP_REWARD + GOAL_REWARD * success + INCIDENT_REWARD * incident
        truncated = self._steps >= self.max_steps
        if incident or success or truncated:
            self._steps = None
        return self._state, reward, incident or success, truncated, {"incident": incident, "success": success}
