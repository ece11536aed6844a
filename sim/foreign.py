"""Any continuous world on the gymnasium API as ours are: actions in [-1, 1], the margin in the observation.

A world says what must not happen in the `info` of its steps, in the first of these that is there:

margin    number, the signed safety margin: > 0 is inside the failure set; `info` of `reset` has it, too
cost      number, > 0 is an incident; its margin is 1, that of any other step -1
incident  true or false; margins likewise
"""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any, ClassVar

import gymnasium
import numpy as np

# Where a world does not say: steps after which an episode is truncated, and the control period in s.
MAX_STEPS, CONTROL_PERIOD = 1000, 0.05
SAYS = ("margin", "cost", "incident")

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class ForeignEnv(gymnasium.Env):
    """A world that was not written for this package.

    Observation, (n + 1,) float64: the world's, and the margin behind it: what the rule judges must be seen.

    Action, (n_action,) in [-1, 1], clipped: spans the bounds of the world's own.

    `info` is the world's, with incident, margin and cost (1 for an incident where the world has none).

    Args:
        world: a gymnasium id, `module:ID` where importing the module registers it, or `module:attribute`, what makes
            a gymnasium.Env when it is called; modules are also looked for in the current folder.
        max_steps: steps after which an episode is truncated; 0: the world's own limit, else `MAX_STEPS`.

    Attributes:
        low, high: (n_action,), bounds of the world's own actions.
        max_steps: as above.
        control_period: s; the world's `control_period` or `dt`, else 1 / render_fps, else `CONTROL_PERIOD`.

    Raises:
        ValueError: there is no such world, or its spaces or its `info` are not as expected; the text names what came.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, *, world: str, max_steps: int = 0) -> None:
        if max_steps < 0:
            raise ValueError(f"max_steps is at least 0, not {max_steps}")
        self.world = world
        self._env = find_world(world)
        observation, action = self._env.observation_space, self._env.action_space
        self._check_box("observation", observation)
        self._check_box("action", action)
        self.low, self.high = (np.asarray(bound, np.float64) for bound in (action.low, action.high))
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low < self.high).all()):
            raise ValueError(
                f"world {world}: expected an action space with finite bounds, low under high, got {action}; "
                "a wrapper of yours can bound it (gymnasium.wrappers.TransformAction)"
            )
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (observation.shape[0] + 1,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, self.low.shape, np.float32)
        self.max_steps = max_steps or _step_limit(self._env)
        self.control_period = _control_period(self._env)
        self._steps, self._begins_with_margin = 0, False

    def _check_box(self, which: str, space: gymnasium.Space) -> None:
        if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1 and space.shape[0]:
            return
        hint = "gymnasium.wrappers.FlattenObservation makes one of numbers in another form"
        if which == "action":
            hint = "what is learned here acts by continuous numbers"
        raise ValueError(
            f"world {self.world}: expected the {which} space to be a Box of shape (n,), got {space}; {hint}"
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; see gymnasium.Env.reset."""
        super().reset(seed=seed)
        observation, info = self._env.reset(seed=seed, options=options)
        self._steps, self._begins_with_margin = 0, "margin" in info
        margin = self._margin(info) if any(name in info for name in SAYS) else -1.0
        return self._seen(observation, margin), self._told(info, margin)

    def step(self, action: np.ndarray) -> StepResult:
        """Act for one control period; see gymnasium.Env.step."""
        share = 0.5 * (np.clip(np.asarray(action, np.float64), -1.0, 1.0) + 1.0)
        space = self._env.action_space
        step = self._env.step((self.low + share * (self.high - self.low)).astype(space.dtype))
        if len(step) != 5:
            raise ValueError(
                f"world {self.world}: expected gymnasium's 5 values of a step, got {len(step)}; one that returns its "
                "cost apart needs a wrapper that puts it into info['cost']"
            )
        observation, reward, terminated, truncated, info = step
        if "margin" in info and not self._begins_with_margin:
            raise ValueError(f"world {self.world}: info of step() has a margin, info of reset() none; both need it")
        margin = self._margin(info)
        self._steps += 1
        truncated = bool(truncated) or self._steps >= self.max_steps
        return self._seen(observation, margin), float(reward), bool(terminated), truncated, self._told(info, margin)

    def close(self) -> None:
        """Close the world."""
        self._env.close()

    def _seen(self, observation: Any, margin: float) -> np.ndarray:
        seen = np.append(np.asarray(observation, np.float64), margin)
        if seen.shape != self.observation_space.shape or not np.isfinite(seen).all():
            raise ValueError(
                f"world {self.world}: expected an observation of {self.observation_space.shape[0] - 1} finite "
                f"numbers, got {observation!r}"
            )
        return seen

    def _margin(self, info: dict[str, Any]) -> float:
        for name in SAYS:
            if name not in info:
                continue
            value = float(np.asarray(info[name]).item())
            if not math.isfinite(value):
                raise ValueError(f"world {self.world}: info[{name!r}]: expected a finite number, got {value}")
            return value if name == "margin" else 1.0 if value > 0.0 else -1.0
        raise ValueError(
            f"world {self.world}: its info does not say what must not happen: expected 'margin' (> 0: inside the "
            f"failure set), 'cost' (> 0: an incident) or 'incident', got {', '.join(map(repr, info)) or 'nothing'}; a "
            "wrapper of five lines adds one"
        )

    def _told(self, info: dict[str, Any], margin: float) -> dict[str, Any]:
        cost = float(np.asarray(info.get("cost", margin > 0.0)).item())
        return {**info, "incident": margin > 0.0, "margin": margin, "cost": cost}


def find_world(world: str) -> gymnasium.Env:
    """Make a world by its name (see `ForeignEnv`). Raises ValueError: there is none; the text says what was tried."""
    module, colon, name = world.partition(":")
    if not colon:
        return _registered(world)
    if "" not in sys.path and "." not in sys.path:
        sys.path.append("")  # the current folder, behind all that is installed
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # of something that it needs itself
        raise ValueError(
            f"world {world}: there is no module {module!r}, neither installed nor in this folder"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"world {world}: {module!r} cannot be imported: {error}") from error
    if name in gymnasium.registry:
        return _registered(name)
    make = getattr(found, name, None)
    if not callable(make):
        what = f"has no {name!r}" if make is None else f"{name!r} cannot be called"
        raise ValueError(f"world {world}: {module} {what}, and registers no such id; expected what makes an env")
    env = make()
    if not isinstance(env, gymnasium.Env):
        kind = f"{type(env).__module__}.{type(env).__qualname__}"
        raise ValueError(f"world {world}: expected it to make a gymnasium.Env, got a {kind}")
    return env


def _registered(world: str) -> gymnasium.Env:
    try:
        return gymnasium.make(world)
    except gymnasium.error.Error as error:
        raise ValueError(
            f"world {world}: {error}; expected a registered id, `module:ID` where a module registers it, or "
            "`module:attribute`, what makes one"
        ) from error


def _step_limit(env: gymnasium.Env) -> int:
    """Return after how many steps an episode of a world ends at most."""
    told = env.spec.max_episode_steps if env.spec is not None else None
    own = getattr(env.unwrapped, "max_steps", None)
    limits = [limit for limit in (told, own) if isinstance(limit, int) and limit > 0]
    return min(limits, default=MAX_STEPS)


def _control_period(env: gymnasium.Env) -> float:
    for name in ("control_period", "dt"):
        value = getattr(env.unwrapped, name, None)
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0.0:
            return float(value)
    rate = env.metadata.get("render_fps")
    return 1.0 / float(rate) if isinstance(rate, (int, float)) and rate > 0 else CONTROL_PERIOD
