"""The Shadow Hand, palm up, with a cube, in a PyBullet world of its own, stepped by joint position targets."""

import math
import weakref
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ssql_sim.engine import pybullet
from ssql_sim.hand_joints import CUP, FOLLOWS, JOINTS
from ssql_sim.hand_model import hand_model, touching_pairs
from ssql_sim.hand_physics import HandPhysics

SUBSTEP = 1 / 250  # s
SUBSTEPS = 10  # a control step
SOLVER_ITERATIONS = 50
RESIDUAL = 1e-4  # the solver stops before its last iteration where it has come as near as this
GRAVITY = 9.81  # m/s^2
SETTLING = 0.05  # s, time constant of the joints' position control: a stiffer one kicks the cube away
CUBE_HALF = 0.025  # m
CUBE_DENSITY = 567.0  # kg/m^3
# The palm's frame: that of the wrist's second joint, turned so that x is across the palm towards the first finger,
# y along the fingers and z out of the palm. At a straight wrist its axes are the world's.
PALM_TURN = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))  # quaternion x, y, z, w
LET_GO = (0.0, 0.085, 0.045)  # m, in that frame: where the cube begins, before it is at rest
LET_GO_SPREAD = (0.004, 0.004, 0.1)  # m, m, rad: along x and y and about z, either way
STARTS = 16  # at rest in the cup; an episode begins at one of them
SETTLE_STEPS = 12  # control steps
OUT_OF_REACH = (0.0, 0.0, 50.0)  # m
# The faces towards -x, x, -y, y, -z, z, RGB.
FACES = ((0.9, 0.5, 0.1), (0.85, 0.2, 0.2), (0.2, 0.55, 0.3), (0.2, 0.4, 0.85), (0.95, 0.85, 0.3), (0.96, 0.96, 0.96))

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class HandState(NamedTuple):
    """Everything that is ever observed, at one time; the cube is seen in the palm's frame."""

    joints: tuple[tuple, ...]  # of JOINTS: (position rad, velocity rad/s, reaction forces, motor torque N m)
    position: Vector  # m, of the cube's centre
    orientation: Quaternion  # x, y, z, w, of the cube


class HandWorld:
    """One hand, one cube. Every world has a physics client of its own; `close()` frees it.

    Args:
        seen: load what a camera sees too.

    Raises:
        ModuleNotFoundError: the hand's description is not installed.
        RuntimeError: too many worlds are open.
    """

    def __init__(self, seen: bool = False) -> None:
        model, pairs = hand_model(), touching_pairs()
        self.client = pybullet.connect(pybullet.DIRECT)
        if self.client < 0:
            raise RuntimeError("PyBullet gave no physics client: too many worlds are open; close() some")
        self._call = {"physicsClientId": self.client}
        # Also when the world is merely forgotten: PyBullet has room for a limited number of clients.
        self.close = weakref.finalize(self, pybullet.disconnect, **self._call)
        self._seen, self._physics = seen, HandPhysics()
        self._starts: dict[int, int] = {}  # states that are saved, by number
        self._apart = -1  # one in which nothing touches
        self._configure()
        # Without the inertias of the file Bullet takes those of the collision shapes, and the cube is thrown off.
        flags = pybullet.URDF_USE_INERTIA_FROM_FILE | pybullet.URDF_USE_SELF_COLLISION
        self.hand = pybullet.loadURDF(
            str(model.path),
            (0.0, 0.0, 0.0),
            PALM_TURN,
            useFixedBase=True,
            flags=flags if seen else flags | pybullet.URDF_IGNORE_VISUAL_SHAPES,
            **self._call,
        )
        infos = [pybullet.getJointInfo(self.hand, i, **self._call) for i in range(len(JOINTS))]
        joints = {info[1].decode(): info[0] for info in infos}
        self._links = {info[12].decode(): info[0] for info in infos}
        self.joint_ids = [joints[name] for name in JOINTS]
        self._efforts = [model.limits[name].effort for name in JOINTS]
        self._collide(pairs)
        # Bound once: keyword dictionaries cost in a loop.
        self._substep = partial(pybullet.stepSimulation, **self._call)
        self._read_joints = partial(pybullet.getJointStates, self.hand, self.joint_ids, **self._call)
        palm = self._links["palm"]
        self._read_palm = partial(pybullet.getLinkState, self.hand, palm, computeForwardKinematics=True, **self._call)
        self.cube = -1
        self._put_cube_in()

    def reset(self, physics: HandPhysics, start: int) -> None:
        """Put the cube, with these parameters, into the cup, at rest.

        The starts of the physics used last are kept, and restored.

        Args:
            start: which of the STARTS: each is another place and turn about the vertical, the same in every world.
        """
        if physics != self._physics:
            self._physics = physics
            self._put_cube_in()
        if start not in self._starts:
            self._settle(start)
        self._restore(self._starts[start])
        self.now = self._read()

    def step(self, target: Sequence[float]) -> None:
        """Drive the joints towards the commands' targets (20, rad) for one control step of ten substeps."""
        self.set_targets(target)
        substep = self._substep
        for _ in range(SUBSTEPS):
            substep()
        self.now = self._read()

    def set_targets(self, target: Sequence[float]) -> None:
        """Give the joints' position control its targets, (20,) rad, in the order of hand_joints.COMMANDS."""
        pybullet.setJointMotorControlArray(
            self.hand,
            self.joint_ids,
            pybullet.POSITION_CONTROL,
            targetPositions=[share * target[i] for i, share in FOLLOWS],
            positionGains=self._gains,
            forces=self._efforts,
            **self._call,
        )

    def _read(self) -> HandState:
        palm = self._read_palm()
        place, turn = pybullet.invertTransform(palm[4], palm[5])
        at, facing = pybullet.getBasePositionAndOrientation(self.cube, **self._call)
        at, facing = pybullet.multiplyTransforms(place, turn, at, facing)
        position, orientation = pybullet.multiplyTransforms((0.0, 0.0, 0.0), PALM_TURN, at, facing)
        return HandState(self._read_joints(), position, orientation)

    def _restore(self, state: int) -> None:
        # A saved state lacks what the engine remembers of touching bodies. Where nothing touches, it forgets that.
        pybullet.restoreState(stateId=self._apart, **self._call)
        pybullet.performCollisionDetection(**self._call)
        if state != self._apart:
            pybullet.restoreState(stateId=state, **self._call)

    def _settle(self, start: int) -> None:
        """Let the cube come to rest in the cup, and keep that."""
        self._restore(self._apart)
        for joint, (i, share) in zip(self.joint_ids, FOLLOWS, strict=True):
            pybullet.resetJointState(self.hand, joint, share * CUP[i], 0.0, **self._call)
        draws = np.random.default_rng(start).uniform(-1.0, 1.0, 3) * LET_GO_SPREAD
        palm = self._read_palm()[4]
        at = [float(o + a + b) for o, a, b in zip(palm, LET_GO, (draws[0], draws[1], 0.0), strict=True)]
        turn = pybullet.getQuaternionFromEuler((0.0, 0.0, float(draws[2])))
        pybullet.resetBasePositionAndOrientation(self.cube, at, turn, **self._call)
        for _ in range(SETTLE_STEPS):
            self.step(CUP)
        self._starts[start] = pybullet.saveState(**self._call)

    def _put_cube_in(self) -> None:
        """Make the cube of this physics, in the place of the one before; forget the starts of that."""
        physics = self._physics
        if self.cube >= 0:
            for state in (self._apart, *self._starts.values()):
                pybullet.removeState(state, **self._call)
            pybullet.removeBody(self.cube, **self._call)
        half = CUBE_HALF * physics.cube_size
        shape = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=[half] * 3, **self._call)
        mass = CUBE_DENSITY * (2 * CUBE_HALF) ** 3 * physics.cube_mass
        self.cube = pybullet.createMultiBody(mass, shape, self._faces(half), OUT_OF_REACH, **self._call)
        self._gains = [SUBSTEP / SETTLING * physics.gain] * len(JOINTS)
        for body, links in ((self.hand, (-1, *self._links.values())), (self.cube, (-1,))):
            for link in links:
                pybullet.changeDynamics(body, link, lateralFriction=physics.friction, **self._call)
                pybullet.changeDynamics(
                    body, link, linearDamping=0.0, angularDamping=0.0, jointDamping=0.0, **self._call
                )
        for joint in self.joint_ids:
            pybullet.resetJointState(self.hand, joint, 0.0, 0.0, **self._call)
        self._apart = pybullet.saveState(**self._call)
        self._starts = {}

    def _faces(self, half: float) -> int:
        """Make what a camera sees of the cube: a coloured plate on each face. Returns -1 where nobody looks."""
        if not self._seen:
            return -1
        plates, places = [], []
        for face in range(6):
            axis, side = face // 2, 2 * (face % 2) - 1
            plates.append([0.1 * half if i == axis else 0.97 * half for i in range(3)])
            places.append([0.9 * side * half if i == axis else 0.0 for i in range(3)])
        return pybullet.createVisualShapeArray(
            [pybullet.GEOM_BOX] * 6,
            halfExtents=plates,
            visualFramePositions=places,
            rgbaColors=[[*colour, 1.0] for colour in FACES],
            **self._call,
        )

    def _collide(self, pairs: list[tuple[str, str]]) -> None:
        """Let those pairs of links collide with each other, and no others of the hand."""
        links = (-1, *self._links.values())
        for i, one in enumerate(links):
            for other in links[i + 1 :]:
                pybullet.setCollisionFilterPair(self.hand, self.hand, one, other, 0, **self._call)
        for a, b in pairs:
            pybullet.setCollisionFilterPair(self.hand, self.hand, self._links[a], self._links[b], 1, **self._call)

    def _configure(self) -> None:
        pybullet.setGravity(0.0, 0.0, -GRAVITY, **self._call)
        pybullet.setTimeStep(SUBSTEP, **self._call)
        # Without deterministic pairs a restored state does not lead to the same bits as the saved one.
        pybullet.setPhysicsEngineParameter(
            numSolverIterations=SOLVER_ITERATIONS,
            solverResidualThreshold=RESIDUAL,
            deterministicOverlappingPairs=1,
            **self._call,
        )
