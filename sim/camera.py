"""A camera that follows the robot, rendered in software: no display, no graphics card."""

from typing import NamedTuple

import numpy as np

from ssql_sim.engine import pybullet

NEAR, FAR = 0.05, 20.0  # m
SUN = (0.6, -0.5, 3.0)
ZENITH, HORIZON = (150, 185, 225), (228, 236, 244)  # RGB; the renderer itself leaves the sky blank


class View(NamedTuple):
    """Where a camera is, seen from the point that it looks at."""

    distance: float  # m
    yaw: float  # deg
    pitch: float  # deg
    field_of_view: float  # deg, vertical


WALKER = View(0.85, 50.0, -22.0, 50.0)  # ahead of a robot that walks along x, on its right


class Camera:
    """Frames of `width` x `height` pixels.

    Raises:
        ValueError: a width or height below 1.
    """

    def __init__(self, width: int, height: int, view: View = WALKER):
        if width < 1 or height < 1:
            raise ValueError(f"a frame has a positive width and height, not {width} x {height}")
        self.width, self.height, self._view = int(width), int(height), view
        self._projection = pybullet.computeProjectionMatrixFOV(view.field_of_view, self.width / self.height, NEAR, FAR)
        # Above the horizon lie the uppermost rows only: the sky has turned pale there.
        share = np.minimum(np.linspace(0.0, 4.0, self.height), 1.0)[:, None]
        sky = (1.0 - share) * np.array(ZENITH) + share * np.array(HORIZON)
        self._sky = np.repeat(sky.astype(np.uint8)[:, None, :], self.width, axis=1)

    def frame(self, client: int, target: tuple[float, float, float]) -> np.ndarray:
        """A frame, (height, width, 3) uint8, of the world of this physics client around a place (x, y, z), m."""
        view = self._view
        _, _, pixels, depth, _ = pybullet.getCameraImage(
            self.width,
            self.height,
            pybullet.computeViewMatrixFromYawPitchRoll(target, view.distance, view.yaw, view.pitch, 0.0, 2),
            self._projection,
            lightDirection=SUN,
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.45,
            lightSpecularCoeff=0.05,
            shadow=1,
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            physicsClientId=client,
        )
        image = np.reshape(np.asarray(pixels, np.uint8), (self.height, self.width, 4))[:, :, :3]
        background = np.reshape(np.asarray(depth), (self.height, self.width, 1)) >= 1.0
        return np.where(background, self._sky, image)
