"""A Shadow Hand turns a cube as a gymnasium environment: to a goal orientation, without dropping it.

After the cube task of SQRL (Srinivasan et al. 2020, Learning to be Safe: Deep RL with a Safety Critic), which has it in
MuJoCo.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from ssql_sim import hand_physics, rotation
from ssql_sim.camera import Camera, View
from ssql_sim.hand_joints import COMMANDS, COUPLED, CUP, JOINTS
from ssql_sim.hand_model import hand_model
from ssql_sim.hand_world import STARTS, SUBSTEP, SUBSTEPS, HandWorld

CONTROL_PERIOD = SUBSTEP * SUBSTEPS  # s
GOALS = ("x+", "x-", "z+", "z-")  # about which axis of the palm's frame, and which way
REWARD_WEIGHT = 7.0
DROP_PENALTY = 500.0
REACHED = 0.4  # rad, between the cube's orientation and the goal's
# m, of the cube's centre in the palm's frame; outside it is not in the hand any more.
INSIDE = {"cube_x": (-0.07, 0.07), "cube_y": (0.0, 0.17), "cube_z": (0.015, 0.14)}
# rad, both joints of a coupled pair together.
COUPLED_RANGE = (0.0, 3.142)
VIEW = View(distance=0.36, yaw=140.0, pitch=-42.0, field_of_view=40.0)
LOOK_AT = (0.0, 0.36, 0.03)  # m, in the world: above the palm

_JOINTS = len(JOINTS)
_FRAME = _JOINTS + 9
_ACTION = len(COMMANDS)
_SIZE = 2 * _FRAME + _ACTION

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class CubeEnv(gymnasium.Env):
    """A hand of 24 joints and 20 motors, palm up, and a cube of 5 cm, at 25 Hz.

    Observation, (86,) float64: the frame (24 joint angles [rad], the cube's position [m] and roll, pitch, yaw [rad] in
    the palm's frame, roll, pitch, yaw of the goal [rad]); the frame before; the last action. At the begin of an episode
    its first frame and zeros stand in.

    Action, (20,) in [-1, 1], clipped: the joint commands, linearly from the least to the largest angle of each; the
    last two joints of a finger have one command, their sum.

    Reward: -7 |e|, e the differences in roll, pitch and yaw between cube and goal, each wrapped to [-pi, pi]: by a
    turn of 2 pi nothing is worth less, and the goals are far from where roll and yaw lose their meaning (pitch +-pi/2).
    A step that drops the cube costs `drop_penalty` more.

    An incident, l(s) > 0 with l(s) the distance by which the cube's centre is outside of a box in the palm's frame
    [m], is a drop and ends the episode. `info`: margin l(s), incident, cause (its term, "" without one), success (no
    drop, and the goal within 0.4 rad), error [rad] (the angle between cube and goal).

    Attributes:
        world: the physics.
        physics: the parameters of this episode.
        goal: roll, pitch, yaw of the goal, rad.

    Args:
        turn: rad, how far the goals are turned: 1.5, a quarter turn; 2.2 is harder.
        goals: which of GOALS an episode's is drawn from.
        randomise: None or "physics": what every reset draws anew (see ssql_sim.hand_physics).
        drop_penalty: see above.
        max_steps: steps after which an episode is truncated.
        render_mode: None or "rgb_array".
        render_size: width and height of a frame, pixels.

    Raises:
        ValueError: an unknown choice, or a number outside its range.
        ModuleNotFoundError: gymnasium-robotics, which has the hand's description, is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_PERIOD)}

    def __init__(
        self,
        turn: float = 1.5,
        goals: Sequence[str] = GOALS,
        randomise: str | None = None,
        drop_penalty: float = DROP_PENALTY,
        max_steps: int = 100,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (320, 240),
    ):
        if randomise not in hand_physics.RANDOMISATIONS:
            raise ValueError(f"randomise is one of {hand_physics.RANDOMISATIONS}, not {randomise!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is None or 'rgb_array', not {render_mode!r}")
        if max_steps < 1:
            raise ValueError(f"max_steps is at least 1, not {max_steps}")
        if not 0.0 < turn <= math.pi:
            raise ValueError(f"turn is an angle above 0, at most pi, not {turn}")
        if not goals or not set(goals) <= set(GOALS):
            raise ValueError(f"goals are some of {GOALS}, not {goals!r}")
        if not 0.0 <= drop_penalty < math.inf:
            raise ValueError(f"drop_penalty is a number from 0 on, not {drop_penalty}")
        self.turn, self.goals, self.randomise = turn, tuple(goals), randomise
        self.drop_penalty, self.max_steps, self.render_mode = drop_penalty, max_steps, render_mode
        limits = hand_model().limits
        low, high = np.array([COUPLED_RANGE if name in COUPLED else limits[name][:2] for name in COMMANDS]).T
        self._centre, self._half = 0.5 * (low + high), 0.5 * (high - low)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (_ACTION,), np.float64)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (_SIZE,), np.float64)
        self._camera = Camera(*render_size, VIEW)
        self.world = HandWorld(seen=render_mode is not None)
        self.physics = hand_physics.HandPhysics()
        self._observation: np.ndarray | None = None

    @property
    def cup(self) -> np.ndarray:
        """The action (20,) that holds the cube: all fingers bent into a bowl."""
        return (np.array(CUP) - self._centre) / self._half

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode with the cube at rest in the cup; see gymnasium.Env.reset. There are no options."""
        if options:
            raise ValueError(f"there are no reset options, but {sorted(options)} came")
        super().reset(seed=seed)
        self.physics = hand_physics.draw(self.randomise, self.np_random)
        goal = self.goals[int(self.np_random.integers(len(self.goals)))]
        angle = self.turn if goal[1] == "+" else -self.turn
        self._goal = (0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2))
        if goal[0] == "x":
            self._goal = (math.sin(angle / 2), 0.0, 0.0, math.cos(angle / 2))
        self.goal = rotation.roll_pitch_yaw(self._goal)
        self.world.reset(self.physics, int(self.np_random.integers(STARTS)))
        self._steps = 0
        frame = self._frame()
        self._observation = np.array([*frame, *frame, *[0.0] * _ACTION])
        return self._observation.copy(), self._info(frame)

    def step(self, action: np.ndarray) -> StepResult:
        """One control step; see gymnasium.Env.step.

        Raises:
            ValueError: the action has not 20 finite elements.
            RuntimeError: no reset came before.
        """
        action = np.clip(_finite(action, "an action"), -1.0, 1.0)
        return self._step(action, self.targets(action))

    def targets(self, action: np.ndarray) -> list[float]:
        """The joint commands (20,), rad, that an action (20,) means."""
        return (self._centre + self._half * action).tolist()

    def step_joint_positions(self, joint_position: np.ndarray) -> StepResult:
        """The same control step, commanded as a driver is.

        Args:
            joint_position: (20,) targets, rad, in the order of hand_joints.COMMANDS; not clipped.

        Returns, raises: as `step`.
        """
        target = _finite(joint_position, "joint positions")
        return self._step((target - self._centre) / self._half, target.tolist())

    def sensors(self) -> dict[str, dict[str, Any]]:
        """What the hand's driver and a tracker of the cube would publish now, and the goal: vectors in SI units."""
        now = self.world.now
        return {
            "joint_states": {
                "name": JOINTS,
                "position": np.array([joint[0] for joint in now.joints]),
                "velocity": np.array([joint[1] for joint in now.joints]),
                "effort": np.array([joint[3] for joint in now.joints]),
            },
            "cube": {"position": now.position, "orientation": now.orientation},
            "goal": {"position": (0.0, 0.0, 0.0), "orientation": self._goal},
        }

    def render(self) -> np.ndarray | None:
        """A frame, (height, width, 3) uint8, from above the hand; None without a render mode."""
        return None if self.render_mode is None else self._camera.frame(self.world.client, LOOK_AT)

    def close(self) -> None:
        self.world.close()

    def _step(self, action: np.ndarray, target: list[float]) -> StepResult:
        if self._observation is None:
            raise RuntimeError("call reset() before the first step")
        self.world.step(target)
        self._steps += 1
        frame = self._frame()
        self._observation = np.concatenate([frame, self._observation[:_FRAME], action])
        info = self._info(frame)
        reward = -REWARD_WEIGHT * math.hypot(
            *(math.remainder(a - b, 2 * math.pi) for a, b in zip(frame[-6:-3], self.goal, strict=True))
        )
        reward -= self.drop_penalty * info["incident"]
        return self._observation.copy(), reward, info["incident"], self._steps >= self.max_steps, info

    def _frame(self) -> list[float]:
        now = self.world.now
        turned = rotation.roll_pitch_yaw(now.orientation)
        return [*(joint[0] for joint in now.joints), *now.position, *turned, *self.goal]

    def _info(self, frame: list[float]) -> dict[str, Any]:
        margin, cause = drop_margin(frame[_JOINTS : _JOINTS + 3])
        alike = abs(sum(a * b for a, b in zip(self.world.now.orientation, self._goal, strict=True)))
        error = 2.0 * math.acos(min(1.0, alike))
        return {
            "margin": margin,
            "incident": margin > 0.0,
            "cause": cause,
            "error": error,
            "success": margin <= 0.0 and error < REACHED,
        }


def drop_margin(position: Sequence[float]) -> tuple[float, str]:
    """The margin l(s), m, of the cube's centre (3,) in the palm's frame, and what exceeds most ("" if nothing does)."""
    excess = [max(x - high, low - x) for x, (low, high) in zip(position, INSIDE.values(), strict=True)]
    margin = max(excess)
    return margin, list(INSIDE)[excess.index(margin)] if margin > 0.0 else ""


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.shape != (_ACTION,):
        raise ValueError(f"{what} has shape ({_ACTION},), but {values.shape} came")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite, but {values.tolist()} came")
    return values
