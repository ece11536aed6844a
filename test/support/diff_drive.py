"""A robot that the package has never seen: two driven wheels, a scanner, a room with pillars, a careless controller."""

import math

import numpy as np

PERIOD, STEPS = 0.1, 150  # s, of an episode
HALF, PILLARS, RADIUS = 3.0, np.array([[1.2, 0.8], [-1.0, 1.3], [-0.8, -1.2], [1.3, -1.0]]), 0.3  # m, of the room
TOUCH, FASTEST, TURN, LAG = 0.25, 0.6, 1.5, 0.5  # m; m/s; rad/s; share of a command that is reached in a period
BEAMS = np.linspace(-math.pi, math.pi, 60, endpoint=False)


class DiffDrive:
    """Drives to goals past nothing but pillars: the controller turns away from what is near, and shakes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        while True:
            self.x, self.y, self.heading = *self.rng.uniform(-2.3, 2.3, 2), self.rng.uniform(-math.pi, math.pi)
            if self.scan().min() > 2 * TOUCH:
                break
        self.v = self.w = 0.0
        self.noise, self.goal = np.zeros(2), self.rng.uniform(-2.5, 2.5, 2)

    def scan(self) -> np.ndarray:
        """Distances (n_beam,) along the beams, m."""
        along = self.heading + BEAMS
        cos, sin = np.cos(along), np.sin(along)
        with np.errstate(divide="ignore"):
            walls = np.minimum((HALF * np.sign(cos) - self.x) / cos, (HALF * np.sign(sin) - self.y) / sin)
        off = PILLARS - (self.x, self.y)
        ahead = np.outer(cos, off[:, 0]) + np.outer(sin, off[:, 1])
        under = RADIUS**2 - (off**2).sum(axis=1) + ahead**2
        hit = np.where((under > 0) & (ahead > 0), ahead - np.sqrt(np.maximum(under, 0.0)), np.inf)
        return np.minimum(walls, hit.min(axis=1))

    def controller(self) -> np.ndarray:
        """The next command: m/s and rad/s."""
        if math.dist(self.goal, (self.x, self.y)) < 0.4:
            self.goal = self.rng.uniform(-2.5, 2.5, 2)
        bearing = math.remainder(math.atan2(self.goal[1] - self.y, self.goal[0] - self.x) - self.heading, 2 * math.pi)
        self.noise = 0.8 * self.noise + 0.6 * self.rng.normal(0.0, (0.2, 0.9))
        scan = self.scan()
        near = int(np.argmin(np.where(np.abs(BEAMS) < 1.2, scan, np.inf)))
        away = -math.copysign(1.5, BEAMS[near]) * max(0.0, 0.8 - scan[near]) / 0.5
        wanted = np.array([FASTEST * max(math.cos(bearing), 0.2), 2.0 * bearing + 1.5 * away]) + self.noise
        return np.clip(wanted, (0.0, -TURN), (FASTEST, TURN))

    def step(self, command: np.ndarray) -> bool:
        """Follow a command for a period; return whether something was touched."""
        self.v, self.w = np.array([self.v, self.w]) + LAG * (command - (self.v, self.w))
        self.heading = math.remainder(self.heading + self.w * PERIOD, 2 * math.pi)
        self.x += self.v * math.cos(self.heading) * PERIOD
        self.y += self.v * math.sin(self.heading) * PERIOD
        return bool(self.scan().min() < TOUCH)
