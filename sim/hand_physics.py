"""What may differ from one hand and cube to the next: size and mass of the cube, friction, strength of the joints."""

from dataclasses import dataclass

import numpy as np

CUBE_SIZE = (0.95, 1.05)
CUBE_MASS = (0.7, 1.3)
FRICTION = (0.7, 1.3)
GAIN = (0.75, 1.25)

RANDOMISATIONS = (None, "physics")


@dataclass(frozen=True)
class HandPhysics:
    """One hand's and cube's parameters: factors on what is modelled, friction dimensionless."""

    cube_size: float = 1.0
    cube_mass: float = 1.0
    friction: float = 1.0
    gain: float = 1.0


def draw(randomise: str | None, rng: np.random.Generator) -> HandPhysics:
    """The physics of an episode.

    Args:
        randomise: None (as modelled) or "physics" (all of them, uniformly).
        rng: only source of randomness.

    Raises:
        ValueError: unknown `randomise`.
    """
    if randomise is None:
        return HandPhysics()
    if randomise == "physics":
        return HandPhysics(*(float(rng.uniform(*bounds)) for bounds in (CUBE_SIZE, CUBE_MASS, FRICTION, GAIN)))
    raise ValueError(f"randomise is one of {RANDOMISATIONS}, not {randomise!r}")
