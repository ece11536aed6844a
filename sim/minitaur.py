"""The Minitaur as a gymnasium environment: walk forward at a goal velocity without falling.

After PyBullet's extended Minitaur environment and the task of SQRL (Srinivasan et al. 2020, Learning to be Safe:
Deep RL with a Safety Critic).
"""

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np

from ssql_sim import leg_model, physics, rotation
from ssql_sim.camera import Camera
from ssql_sim.sensors import Sensors
from ssql_sim.world import GRAVITY, World

CONTROL_PERIOD = 0.02  # s
MAX_TILT = 0.3  # rad, of roll and pitch, either way
MAX_FRONT_SWING = 0.8  # rad
MAX_SPEED = 0.8  # m/s, the reward counts no more than this, either way
ACCELERATION_WEIGHT = 0.01
HISTORY = 5  # past frames and past actions in an observation
LOOK_AT_HEIGHT = 0.14  # m, of the camera
INCIDENT_TERMS = ("roll", "pitch", "front_left_swing", "front_right_swing")

_FRAME = 12
_ACTION = 8
_ACTIONS_AT = _FRAME * (1 + HISTORY)
_LEGS_AT = _ACTIONS_AT + _ACTION * HISTORY
_SIZE = _LEGS_AT + 8
_MAX_RATE = 2 * math.pi * 300  # rad/s, one turn a substep: a bound that no motion reaches

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class MinitaurEnv(gymnasium.Env):
    """A Minitaur with 8 motors on a plane, at 50 Hz.

    Observation, (120,) float64: the frame (roll, pitch [rad], roll rate, pitch rate [rad/s, world frame], 8 motor
    angles [rad, within +-pi]), all as old as the control latency of 0.02 s; the 5 frames before, newest first; the
    last 5 scaled actions [rad], newest first; the leg pose (swing x4, extension x4 [rad]) of this frame's motor
    angles. Before an episode is that old its first frame and first action stand in; zeros before any action.

    Action, (8,) in [-1, 1], clipped: swing of front left, back left, front right, back right, then extension;
    half of it, in rad, is added to the standing pose.

    Reward: g - |g - clip(v, -0.8, 0.8)| - 0.01 mean |a_t - 2 a_(t-1) + a_(t-2)|, v the base's true mean forward
    velocity over the step and a the scaled actions.

    An incident, l(s) > 0 with l(s) = max(|roll| - 0.3, |pitch| - 0.3, front swings - 0.8) [rad] of the observed
    values, ends the episode. `info`: margin l(s), incident, cause (its term, "" without one), velocity [m/s].

    Attributes:
        world: the physics, for those who need more than `sensors()`.
        physics: the parameters of this episode's robot.

    Args:
        goal_velocity: g, m/s.
        foot_friction: dimensionless, where it is not drawn.
        base_mass: factor on the base's mass, where it is not drawn.
        randomise: None, "physics" or "friction": what every reset draws anew (see ssql_sim.physics).
        max_steps: steps after which an episode is truncated.
        render_mode: None or "rgb_array".
        render_size: width and height of a frame, pixels.

    Raises:
        ValueError: an unknown choice, or a number outside its range.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(
        self,
        goal_velocity: float = 0.3,
        foot_friction: float = 1.0,
        base_mass: float = 1.0,
        randomise: str | None = None,
        max_steps: int = 500,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (320, 240),
    ):
        if randomise not in physics.RANDOMISATIONS:
            raise ValueError(f"randomise is one of {physics.RANDOMISATIONS}, not {randomise!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is None or 'rgb_array', not {render_mode!r}")
        if max_steps < 1:
            raise ValueError(f"max_steps is at least 1, not {max_steps}")
        if not (math.isfinite(foot_friction) and foot_friction >= 0.0):
            raise ValueError(f"foot_friction is a number from 0 on, not {foot_friction}")
        if not (math.isfinite(base_mass) and base_mass > 0.0):
            raise ValueError(f"base_mass is a number above 0, not {base_mass}")
        if not math.isfinite(goal_velocity):
            raise ValueError(f"goal_velocity is a finite number, not {goal_velocity}")
        self.goal_velocity = goal_velocity
        self.foot_friction, self.base_mass = foot_friction, base_mass
        self.randomise = randomise
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (_ACTION,), np.float64)
        self.observation_space = _observation_space()
        self.physics = physics.Physics(foot_friction, base_mass)
        self._camera = Camera(*render_size)
        self.world = World()
        self._observation: np.ndarray | None = None
        self._past_actions: tuple[list[float], list[float]] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at rest in the standing pose; see gymnasium.Env.reset. There are no options."""
        if options:
            raise ValueError(f"there are no reset options, but {sorted(options)} came")
        super().reset(seed=seed)
        world = self.world
        self.physics = physics.draw(
            self.randomise, self.foot_friction, len(world.leg_links), self.np_random, self.base_mass
        )
        world.reset(self.physics)
        self._steps = 0
        self._velocity = 0.0
        self._velocity_before_sensed = world.sensed.base.velocity
        frame, legs = self._frame()
        self._observation = observation = np.empty(_SIZE)
        observation[:_ACTIONS_AT] = frame * (1 + HISTORY)
        observation[_ACTIONS_AT:_LEGS_AT] = 0.0
        observation[_LEGS_AT:] = legs
        self._past_actions = None
        return observation.copy(), self._info(frame, legs)

    def step(self, action: np.ndarray) -> StepResult:
        """One control step; see gymnasium.Env.step.

        Raises:
            ValueError: the action has not 8 finite elements.
            RuntimeError: no reset came before.
        """
        action = _eight_finite(action, "an action")
        scaled = (leg_model.ACTION_SCALE * np.clip(action, -1.0, 1.0)).tolist()
        return self._step(scaled, leg_model.joint_targets(scaled))

    def step_joint_positions(self, joint_position: np.ndarray) -> StepResult:
        """The same control step, commanded as a driver is.

        Args:
            joint_position: (8,) URDF joint position targets, rad, in the order of leg_model.JOINT_NAMES; not
                clipped. The observation's past actions become those that command these targets.

        Returns, raises: as `step`.
        """
        target = _eight_finite(joint_position, "joint positions").tolist()
        angles = [d * q for d, q in zip(leg_model.MOTOR_DIRECTION, target, strict=True)]
        return self._step(leg_model.pose_to_scaled_action(leg_model.leg_pose(angles)), target)

    def _step(self, scaled_action: list[float], target: list[float]) -> StepResult:
        if self._observation is None:
            raise RuntimeError("call reset() before the first step")
        world = self.world
        self._velocity_before_sensed = world.sensed.base.velocity
        world.step(target)
        self._steps += 1
        self._velocity = (world.now.base.position[0] - world.sensed.base.position[0]) / CONTROL_PERIOD

        frame, legs = self._frame()
        last = self._observation
        self._observation = observation = np.empty(_SIZE)
        observation[:_FRAME] = frame
        observation[_FRAME:_ACTIONS_AT] = last[: _ACTIONS_AT - _FRAME]
        if self._past_actions is None:
            past = (scaled_action, scaled_action)
            observation[_ACTIONS_AT:_LEGS_AT] = scaled_action * HISTORY
        else:
            past = self._past_actions
            observation[_ACTIONS_AT : _ACTIONS_AT + _ACTION] = scaled_action
            observation[_ACTIONS_AT + _ACTION : _LEGS_AT] = last[_ACTIONS_AT : _LEGS_AT - _ACTION]
        observation[_LEGS_AT:] = legs

        reward = self._reward(scaled_action, *past)
        self._past_actions = (scaled_action, past[0])
        info = self._info(frame, legs)
        return observation.copy(), reward, info["incident"], self._steps >= self.max_steps, info

    def sensors(self) -> Sensors:
        """The current reading, of the same age as the observation's."""
        joints, torques, base = self.world.sensed
        now = self.world.now.base
        before = self._velocity_before_sensed
        ax, ay, az = ((v - u) / CONTROL_PERIOD for v, u in zip(base.velocity, before, strict=True))
        return Sensors(
            joint_names=leg_model.JOINT_NAMES,
            joint_position=np.array([joint[0] for joint in joints]),
            joint_velocity=np.array([joint[1] for joint in joints]),
            joint_effort=np.array(torques),
            orientation=np.array(base.orientation),
            angular_velocity=np.array(rotation.to_body(base.orientation, base.angular_velocity)),
            linear_acceleration=np.array(rotation.to_body(base.orientation, (ax, ay, az + GRAVITY))),
            base_position=np.array(now.position),
            base_orientation=np.array(now.orientation),
            base_velocity_world=np.array(now.velocity),
            base_velocity_body=np.array(rotation.to_body(now.orientation, now.velocity)),
        )

    def render(self) -> np.ndarray | None:
        """A frame, (height, width, 3) uint8, from beside the robot; None without a render mode."""
        if self.render_mode is None:
            return None
        x, y, _ = self.world.now.base.position  # not z: the camera would hide the robot's own bounce
        return self._camera.frame(self.world.client, (x, y, LOOK_AT_HEIGHT))

    def close(self) -> None:
        self.world.close()

    def _frame(self) -> tuple[list[float], list[float]]:
        """Frame (12) and leg pose (8) of what the robot senses."""
        joints, _, base = self.world.sensed
        # By way of the body frame, in which an inertial unit measures: so the same bits come out of its messages.
        body_rates = rotation.to_body(base.orientation, base.angular_velocity)
        roll_rate, pitch_rate, _ = rotation.to_world(base.orientation, body_rates)
        angles = [
            leg_model.wrap(direction * joint[0])
            for direction, joint in zip(leg_model.MOTOR_DIRECTION, joints, strict=True)
        ]
        return [*rotation.roll_pitch(base.orientation), roll_rate, pitch_rate, *angles], leg_model.leg_pose(angles)

    def _reward(self, action: list[float], last: list[float], before_last: list[float]) -> float:
        acceleration = sum(abs(a - 2.0 * b + c) for a, b, c in zip(action, last, before_last, strict=True))
        speed = min(max(self._velocity, -MAX_SPEED), MAX_SPEED)
        goal = self.goal_velocity
        return goal - abs(goal - speed) - ACCELERATION_WEIGHT * acceleration / _ACTION

    def _info(self, frame: list[float], legs: list[float]) -> dict[str, Any]:
        margin, cause = incident_margin(frame[0], frame[1], legs[0], legs[2])
        return {"margin": margin, "incident": margin > 0.0, "cause": cause, "velocity": self._velocity}


def incident_margin(roll: float, pitch: float, front_left_swing: float, front_right_swing: float) -> tuple[float, str]:
    """The margin l(s) of observed angles, all in rad, and the term that exceeds its limit most ("" if none does)."""
    terms = (
        abs(roll) - MAX_TILT,
        abs(pitch) - MAX_TILT,
        front_left_swing - MAX_FRONT_SWING,
        front_right_swing - MAX_FRONT_SWING,
    )
    margin = max(terms)
    return margin, INCIDENT_TERMS[terms.index(margin)] if margin > 0.0 else ""


def _eight_finite(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.shape != (_ACTION,):
        raise ValueError(f"{what} has shape (8,), but {values.shape} came")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite, but {values.tolist()} came")
    return values


def _observation_space() -> gymnasium.spaces.Box:
    frame = [math.pi, math.pi, _MAX_RATE, _MAX_RATE, *[math.pi] * 8]
    actions = [leg_model.ACTION_SCALE] * (_ACTION * HISTORY)
    bound = np.array([*frame * (1 + HISTORY), *actions, *[math.pi] * 8])
    return gymnasium.spaces.Box(-bound, bound, dtype=np.float64)
