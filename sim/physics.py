"""What may differ from one Minitaur to the next: masses, battery, motor damping, friction of the feet."""

from dataclasses import dataclass

import numpy as np

# Relative errors of mass and the ranges of voltage, damping and friction after PyBullet's MinitaurEnvRandomizer.
MASS_ERROR = (-0.2, 0.2)
VOLTAGE = (14.8, 16.8)  # V
VISCOUS_DAMPING = (0.0, 0.01)  # V s/rad
FOOT_FRICTION = (0.8, 1.5)  # dimensionless
FRICTION_FAMILY = (0.5, 1.25)  # dimensionless, foot friction of the fine-tuning tasks

RANDOMISATIONS = (None, "physics", "friction")


@dataclass(frozen=True)
class Physics:
    """One robot's parameters; masses are factors on the model's own."""

    foot_friction: float = 1.0
    base_mass: float = 1.0
    leg_masses: tuple[float, ...] = ()  # one factor a leg link, in the order of the URDF; empty: all 1
    voltage: float = 16.0  # V
    viscous_damping: float = 0.0  # V s/rad


def draw(
    randomise: str | None, foot_friction: float, leg_links: int, rng: np.random.Generator, base_mass: float = 1.0
) -> Physics:
    """The physics of an episode.

    Args:
        randomise: None (as modelled, with `foot_friction` and `base_mass`), "physics" (masses, battery, damping and
            friction) or "friction" (the friction family alone).
        foot_friction: used where it is not drawn.
        leg_links: how many links of the legs get a mass of their own.
        rng: only source of randomness.

    Raises:
        ValueError: unknown `randomise`.
    """
    if randomise is None:
        return Physics(foot_friction, base_mass)
    if randomise == "friction":
        return Physics(foot_friction=float(rng.uniform(*FRICTION_FAMILY)))
    if randomise == "physics":
        return Physics(
            foot_friction=float(rng.uniform(*FOOT_FRICTION)),
            base_mass=1.0 + float(rng.uniform(*MASS_ERROR)),
            leg_masses=tuple((1.0 + rng.uniform(*MASS_ERROR, size=leg_links)).tolist()),
            voltage=float(rng.uniform(*VOLTAGE)),
            viscous_damping=float(rng.uniform(*VISCOUS_DAMPING)),
        )
    raise ValueError(f"randomise is one of {RANDOMISATIONS}, not {randomise!r}")
