"""Judges boat bundles by what only the boat's ground truth can say: the learned feasible set, and rival policies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssql_ros.evaluation.certificates import scores_of
from ssql_ros.model.bundle import Bundle, Network
from ssql_ros.model.policy import OneStepFlow
from ssql_ros.model.rejection import by_rejection, diffusion_sampler, flow_sampler
from ssql_ros.report.feasible_map import draw_feasible_sets
from ssql_ros.robots.boat.truth import WORLD, BoatTruth, boat_solution
from ssql_sim import boat
from ssql_sim.reachability import Interpolation, rolled

SHOWN_EPISODES, EVALUATED = 40, 500
_Drawn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def feasible_set(bundle: Bundle, plot: Path | None, seed: int) -> dict[str, float]:
    """Return how the set {V_c < delta} lies to the true one, as shares of the box, measured on the grid's points.

    Returns:
        true_safe, learned_safe: their shares of the box; false_safe_share: of {V_c < delta}, what cannot stay safe;
        false_unsafe_share: of what can, what is not in {V_c < delta}; both also at a threshold of 0.
        best_safe_return: the mean of the best safe return over the 500 starts of this seed (`ssql eval policy`).
    """
    solution = boat_solution()
    points, cells = solution.grid.points(WORLD), solution.grid.cells
    worst, learned = solution.worst[0].reshape(-1), scores_of(bundle, points)
    critic = bundle.margin_critic()
    # Nothing is below it where nothing is certified.
    delta = -math.inf if critic.delta is None else critic.delta
    figures = {"delta": delta, "true_safe": float(np.mean(worst <= 0.0))}
    for name, threshold in (("", delta), ("_at_0", 0.0)):
        said = learned < threshold
        figures |= {
            f"learned_safe{name}": float(said.mean()),
            f"false_safe_share{name}": float(np.mean(worst[said] > 0.0)) if said.any() else 0.0,
            f"false_unsafe_share{name}": float(np.mean(~said[worst <= 0.0])),
        }
    starts = BoatTruth().safe_starts(EVALUATED, seed)
    figures["best_safe_return"] = float(Interpolation(WORLD, cells, starts)(solution.best[0]).mean())
    if plot is not None:
        axes = [np.linspace(low, high, n) for low, high, n in zip(WORLD.low, WORLD.high, cells, strict=True)]
        ways = _ways(bundle, BoatTruth().safe_starts(SHOWN_EPISODES, seed))
        grids = worst.reshape(cells), learned.reshape(cells)
        draw_feasible_sets((axes[0], axes[1]), *grids, delta, boat.ROCKS, ways, plot)
    return figures


def _ways(bundle: Bundle, starts: np.ndarray) -> Sequence[np.ndarray]:
    policy, seen = OneStepFlow(bundle), [starts]

    def act(position: np.ndarray, _: int) -> np.ndarray:
        seen.append(position)
        return policy.at(position, np.zeros_like(position))

    rolled(WORLD, starts, act)
    return list(np.stack(seen, axis=1))


def _drawing(act: _Drawn, rng: np.random.Generator) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda position, _: act(position, rng)


def rivals(
    bundle: Bundle,
    teacher: Network,
    diffusion: Network,
    candidates: Sequence[int],
    episodes: int,
    seed: int,
    show: bool,
) -> dict[str, float]:
    """Return return, cost and share of safe episodes of each policy, from the same safe starts, noise drawn.

    Args:
        candidates: N, for the policies by rejection.
    """
    policy, starts = OneStepFlow(bundle), BoatTruth().safe_starts(episodes, seed)
    reward, critic = bundle.need("reward"), bundle.need("critic")
    rng = np.random.default_rng([seed, 9])
    named: dict[str, _Drawn] = {"safefql_n1": lambda s, r: policy.at(s, r.standard_normal(s.shape))}
    for n in candidates:
        named[f"safeifql_n{n}"] = by_rejection(flow_sampler(teacher), reward, critic, n)
        named[f"fisor_like_n{n}"] = by_rejection(diffusion_sampler(diffusion), reward, critic, n)
    figures: dict[str, float] = {}
    for name, act in named.items():
        total, worst, cost = rolled(WORLD, starts, _drawing(act, rng), show)
        figures |= {
            f"{name}_return": float(total.mean()),
            f"{name}_cost": float(cost.mean()),
            f"{name}_safe": float(np.mean(worst <= 0.0)),
        }
    return figures
