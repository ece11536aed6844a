"""The Minitaur on a plane in a PyBullet world of its own, stepped by joint position targets."""

import math
import re
import weakref
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import pybullet_data

from ssql_sim import leg_model
from ssql_sim.engine import pybullet
from ssql_sim.motor import SUBSTEP, Motors
from ssql_sim.physics import Physics

SUBSTEPS = 6  # a control step
GRAVITY = 10.0  # m/s^2, as PyBullet's own Minitaur environments have it
SOLVER_ITERATIONS = 50
START_POSITION = (0.0, 0.0, 0.2)  # m
OUT_OF_REACH = (0.0, 0.0, 50.0)  # m
FOLDED_MOTOR_ANGLE = math.pi / 2  # rad, pose in which the robot is dropped
FOLDED_KNEE_ANGLE = -2.1834  # rad
FOLDED_SUBSTEPS = 100
STANDING_SUBSTEPS = 150
# The two lower links of a leg share a foot: where on the short and on the long one, m.
SHORT_LINK_END = (0.0, 0.0045, 0.100)
LONG_LINK_END = (0.0, 0.0045, 0.088)


class BaseState(NamedTuple):
    """The base link in the world frame."""

    position: tuple[float, float, float]  # m
    orientation: tuple[float, float, float, float]  # quaternion x, y, z, w
    velocity: tuple[float, float, float]  # m/s
    angular_velocity: tuple[float, float, float]  # rad/s


class State(NamedTuple):
    """Everything of the robot that is ever observed, at one time."""

    joints: tuple[tuple, ...]  # eight (position rad, velocity rad/s, ...), URDF joint coordinates
    torques: tuple[float, ...]  # (8,) N m, joint torques of the substep that led here
    base: BaseState


class World:
    """One robot, its motors, its ground.

    `now` is the state after the last control step, `sensed` the one that the robot knows of, as old as the control
    latency. Every world has a physics client of its own, so several live in one process; `close()` frees it.
    """

    def __init__(self) -> None:
        self.client = pybullet.connect(pybullet.DIRECT)
        if self.client < 0:
            raise RuntimeError("PyBullet gave no physics client: too many worlds are open; close() some")
        self._call = {"physicsClientId": self.client}
        # Also when the world is merely forgotten: PyBullet has room for a limited number of clients.
        self.close = weakref.finalize(self, pybullet.disconnect, **self._call)
        self._configure()
        self._load()
        self._settled: tuple[Physics, int, tuple] | None = None
        # Bound once: attribute look-ups and keyword dictionaries cost in a loop of 300 Hz.
        self._substep = partial(pybullet.stepSimulation, **self._call)
        self._read_joints = partial(pybullet.getJointStates, self.robot, self.motor_ids, **self._call)
        self._set_torques = partial(
            pybullet.setJointMotorControlArray, self.robot, self.motor_ids, pybullet.TORQUE_CONTROL, **self._call
        )
        self._read_pose = partial(pybullet.getBasePositionAndOrientation, self.robot, **self._call)
        self._read_velocity = partial(pybullet.getBaseVelocity, self.robot, **self._call)
        self._dropped = pybullet.saveState(**self._call)

    def reset(self, physics: Physics) -> None:
        """Put the robot, with these parameters, at rest in its standing pose at the origin.

        Settling takes 250 substeps; the settled state of the physics used last is kept and restored.
        """
        if self._settled is None or self._settled[0] != physics:
            self._settle(physics)
            return
        _, saved, (self.now, self.sensed, self._previous_joints, heat) = self._settled
        pybullet.restoreState(stateId=saved, **self._call)
        self.motors.set_heat(heat)

    def step(self, target: Sequence[float]) -> None:
        """Drive the joints towards the targets (8, rad) for one control step of six substeps."""
        # The control latency is exactly one control step: what the robot senses after it is the state before.
        self.sensed = self.now
        self.now = self._drive(target, SUBSTEPS)

    def _drive(self, target: Sequence[float], substeps: int) -> State:
        motor_torques, substep = self.motors.torques, self._substep
        read_joints, set_torques = self._read_joints, self._set_torques
        joints, previous = self.now.joints, self._previous_joints
        for _ in range(substeps):
            torques = motor_torques(target, joints, previous)
            set_torques(forces=torques)
            substep()
            previous, joints = joints, read_joints()
        self._previous_joints = previous
        return State(joints, tuple(torques), BaseState(*self._read_pose(), *self._read_velocity()))

    def _settle(self, physics: Physics) -> None:
        self._set_physics(physics)
        # A saved state lacks what the engine remembers of touching bodies. Far from all others it forgets that.
        pybullet.resetBasePositionAndOrientation(self.robot, OUT_OF_REACH, (0.0, 0.0, 0.0, 1.0), **self._call)
        pybullet.performCollisionDetection(**self._call)
        pybullet.restoreState(stateId=self._dropped, **self._call)
        self._previous_joints = self._read_joints()
        self.now = State(self._previous_joints, (0.0,) * 8, BaseState(*self._read_pose(), *self._read_velocity()))
        folded = [direction * FOLDED_MOTOR_ANGLE for direction in leg_model.MOTOR_DIRECTION]
        self.now = self._drive(folded, FOLDED_SUBSTEPS)
        standing = leg_model.joint_targets([0.0] * 8)
        # PyBullet's own environment reads its sensors twice at the end of this: so they are a substep younger.
        self.sensed = self.now = self._drive(standing, STANDING_SUBSTEPS - SUBSTEPS + 1)
        self.now = self._drive(standing, SUBSTEPS - 1)
        self._previous_joints = self.now.joints
        if self._settled is not None:
            pybullet.removeState(self._settled[1], **self._call)
        snapshot = (self.now, self.sensed, self._previous_joints, self.motors.heat())
        self._settled = (physics, pybullet.saveState(**self._call), snapshot)

    def _set_physics(self, physics: Physics) -> None:
        self.motors = Motors(physics.voltage, physics.viscous_damping)
        for link in self.foot_links:
            pybullet.changeDynamics(self.robot, link, lateralFriction=physics.foot_friction, **self._call)
        factors = physics.leg_masses or (1.0,) * len(self.leg_links)
        for link, factor in [
            *((link, physics.base_mass) for link in self.base_links),
            *zip(self.leg_links, factors, strict=True),
        ]:
            # The inertia is given too, or Bullet would replace the model's by that of the collision shape.
            mass, inertia = self._model_inertia[link]
            pybullet.changeDynamics(
                self.robot,
                link,
                mass=factor * mass,
                localInertiaDiagonal=[factor * i for i in inertia],
                **self._call,
            )

    def _configure(self) -> None:
        pybullet.setGravity(0.0, 0.0, -GRAVITY, **self._call)
        pybullet.setTimeStep(SUBSTEP, **self._call)
        # Without deterministic pairs a restored state does not lead to the same bits as the saved one.
        pybullet.setPhysicsEngineParameter(
            numSolverIterations=SOLVER_ITERATIONS,
            enableConeFriction=0,
            deterministicOverlappingPairs=1,
            **self._call,
        )

    def _load(self) -> None:
        data = pybullet_data.getDataPath()
        self.ground = pybullet.loadURDF(f"{data}/plane.urdf", **self._call)
        self.robot = pybullet.loadURDF(
            f"{data}/quadruped/minitaur_rainbow_dash.urdf",
            flags=pybullet.URDF_USE_SELF_COLLISION_EXCLUDE_PARENT,
            **self._call,
        )
        ids = {
            pybullet.getJointInfo(self.robot, i, **self._call)[1].decode(): i
            for i in range(pybullet.getNumJoints(self.robot, **self._call))
        }
        self.motor_ids = [ids[name] for name in leg_model.JOINT_NAMES]
        self.foot_links = [i for name, i in ids.items() if name.startswith("knee_")]
        self.base_links = [-1, *(i for name, i in ids.items() if re.match(r"chassis\D*center", name))]
        self.leg_links = sorted(set(ids.values()) - set(self.base_links))
        self._model_inertia = {
            link: pybullet.getDynamicsInfo(self.robot, link, **self._call)[0:3:2] for link in (-1, *ids.values())
        }
        for body in (self.ground, self.robot):
            pybullet.changeDynamics(body, -1, linearDamping=0.0, angularDamping=0.0, **self._call)
        # The start position means the base's centre of mass; loadURDF took it for the link's frame.
        pybullet.resetBasePositionAndOrientation(self.robot, START_POSITION, (0.0, 0.0, 0.0, 1.0), **self._call)
        for leg, direction in zip(leg_model.LEGS, leg_model.MOTOR_DIRECTION[::2], strict=True):
            self._fold_leg(leg, direction, ids)

    def _fold_leg(self, leg: str, direction: float, ids: dict[str, int]) -> None:
        """Pose a leg, free its joints of PyBullet's default brakes, and join its two knees' links at the foot."""
        for side in "LR":
            for joint, angle in (("motor", FOLDED_MOTOR_ANGLE), ("knee", FOLDED_KNEE_ANGLE)):
                index = ids[f"{joint}_{leg}{side}_joint"]
                pybullet.resetJointState(self.robot, index, direction * angle, 0.0, **self._call)
                pybullet.setJointMotorControl2(
                    self.robot, index, pybullet.VELOCITY_CONTROL, targetVelocity=0.0, force=0.0, **self._call
                )
        ends = (SHORT_LINK_END, LONG_LINK_END) if direction < 0 else (LONG_LINK_END, SHORT_LINK_END)
        pybullet.createConstraint(
            self.robot,
            ids[f"knee_{leg}R_joint"],
            self.robot,
            ids[f"knee_{leg}L_joint"],
            pybullet.JOINT_POINT2POINT,
            [0, 0, 0],
            *ends,
            **self._call,
        )
