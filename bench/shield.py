"""Benchmark of the shield: one decision next to the same in torch, and the node's start-up and memory."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from bench.processes import Processes
from bench.ros import record
from bench.round_trip import RoundTrips, Step
from ssql_ros.contract import Contract
from ssql_ros.data.episode import EpisodeJob
from ssql_ros.evaluation.rollout import run_episode
from ssql_ros.graph.processes import isolate
from ssql_ros.model.bundle import Network, load_bundle
from ssql_ros.model.critic import SafetyCritic, logit
from ssql_ros.model.proposal import Proposal
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.tasks import Task, find_task
from ssql_ros.shield.decision import Decision, Observation, ShieldSettings, decide

SIZES = (1, 32, 100, 512)
BLOCK = 20  # decisions of each kind in one block ratio
REPEATS = 100  # of the products, to tell which are faster
NOISE = Noise("A", sigma=0.05)
PAUSE = 0.002  # s, between the decisions of a paced loop
STARTS = 3
NAMESPACE = "started"


class TorchDecision(nn.Module):
    """The shield's decision as one would write it in torch: sample, clip, score all in one batch, mask, select."""

    def __init__(self, network: Network, contract: Contract, settings: ShieldSettings) -> None:
        super().__init__()
        self.mean, self.scale = torch.tensor(network.observation_mean), torch.tensor(network.observation_scale)
        self.bound, self.threshold = network.observation_clip, logit(settings.epsilon or 0.0)
        self.low = torch.tensor(contract.commanded.low, dtype=torch.float32)
        self.high = torch.tensor(contract.commanded.high, dtype=torch.float32)
        self.std = 0.5 * settings.spread * (self.high - self.low)
        self.members = nn.ModuleList(_sequential(member) for member in network.members)

    @torch.inference_mode()
    def decide(self, observation: np.ndarray, proposal: np.ndarray, k: int) -> tuple[np.ndarray, float]:
        """Return the action (n_action,) and its Q_safe, of the proposal and k candidates around it."""
        state = (torch.from_numpy(observation).float() - self.mean) / self.scale
        action = torch.from_numpy(proposal).float()
        drawn = action + self.std * torch.randn(k, len(action))
        candidates = torch.cat([action.unsqueeze(0), drawn]).clamp(self.low, self.high)
        logits = self(state.clamp(-self.bound, self.bound), candidates)
        safe = (logits <= self.threshold) & torch.isfinite(logits)
        # In drawing order the first safe one is a draw from the masked policy, as in `shield.decide`.
        index = int(safe.int().argmax()) if safe.any() else int(logits.argmin())
        return candidates[index].numpy(), float(torch.sigmoid(logits[index]))

    def forward(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return logits (k,) of actions (k, n_action) in one standardised observation (n_observation,)."""
        x = torch.cat([state.expand(len(actions), -1), actions], dim=1)
        return torch.stack([member(x) for member in self.members]).mean(dim=0).squeeze(1)


def _sequential(member: tuple) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in member:
        linear = nn.Linear(*layer.weight.shape)
        linear.weight.data = torch.tensor(layer.weight.T).contiguous()
        linear.bias.data = torch.tensor(layer.bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def bench_shield(task: str = "minitaur", repeats: int = 2000, seed: int = 0) -> dict[str, float]:
    """Measure decisions, and the node that takes them.

    Decisions are timed whole: checks, scores, candidates, mask, choice. Observations and proposals are those of a
    recorded trot. For k candidates the threshold is so low that none is safe: one round of k is drawn and all are
    scored, which is the longest way. torch eager takes the same decision with the same weights in the same process,
    with one thread as well; the two take turns in blocks of 20, and the ratio is the median over blocks of the ratio
    of their medians. These loops are tight, as loops that compare back ends are; `paced` figures are of a loop that
    sleeps 2 ms before each decision, so that caches are as cold as they are in service.

    Args:
        repeats: decisions per size and back end; a fifth as many are paced.
        seed: of the recorded rollout and the candidates.

    Returns:
        k{K}_us_p50, _p99, _p999, k{K}_torch_us_p50 and k{K}_ratio_to_torch for K = 1, 32, 100, 512, tight;
        safe_proposal_us_p50, _p99, of proposals that pass, tight; k100_paced_us_*, safe_proposal_paced_us_*;
        node_startup_s: from the start of the node's process to its first command, with a robot and a controller that
        are there already, median of 3; node_rss_mb: its resident memory after some hundred decisions.

    Raises:
        ValueError: no such task, no repeats, a bundle that cannot be loaded, or one that lets nothing pass.
        GraphError: the node is not installed, or ended by itself.
    """
    chosen = find_task(task)
    if repeats < 1:
        raise ValueError(f"expected at least one repeat, got {repeats}")
    with _one_thread(), _no_collections():
        figures = _decisions(chosen, repeats, seed)
    return {**figures, **_node(chosen, seed)}


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Do as the node does: what is there now stays out of the garbage collector's sight."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


Pair = tuple[Observation, Proposal]


def _decisions(task: Task, repeats: int, seed: int) -> dict[str, float]:
    contract = task.contract()
    bundle = load_bundle(task.bundle_path(), contract)
    critic = SafetyCritic(bundle)
    served = ShieldSettings(bundle.probability_critic().epsilon, max_observation_age=1.0, max_proposal_age=1.0)
    none_safe = replace(served, epsilon=1e-300, rounds=1)
    rng = np.random.default_rng(seed)
    peer = TorchDecision(bundle.need("critic"), contract, none_safe)
    torch.manual_seed(seed)

    def ours(settings: ShieldSettings, pair: Pair) -> Decision:
        return decide(*pair, critic, contract, settings, 0.0, rng).decision

    def in_torch(k: int, pair: Pair) -> tuple[np.ndarray, float]:
        return peer.decide(pair[0].vector, pair[1].action, k)

    episode = run_episode(EpisodeJob(task.name, seed, NOISE))
    pairs = [
        (Observation(observation.astype(float), 0.0), Proposal(proposal.astype(float), 0.0))
        for observation, proposal in zip(episode.observations, episode.proposals, strict=False)
    ]
    passing = [pair for pair in pairs if ours(served, pair) is Decision.PASSED]
    if not passing:
        raise ValueError(f"{bundle.path} lets none of {len(pairs)} proposals pass; there is no pass to time")

    loops: dict[str, Callable[[Pair], object]] = {}
    for k in SIZES:
        loops[f"k{k}"] = partial(ours, replace(none_safe, candidates=k))
        loops[f"k{k}_torch"] = partial(in_torch, k)
    loops["safe_proposal"] = partial(ours, served)
    loops["products"] = _products(bundle.need("critic"), 100)
    loops["ort"] = _bare_run(critic, contract)
    inputs = {name: itertools.cycle(passing if name == "safe_proposal" else pairs) for name in loops}

    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in tqdm(range(0, repeats, BLOCK), desc="decisions", leave=False, disable=None):
        for name, run in loops.items():
            times[name] += [_timed(run, next(inputs[name])) for _ in range(min(BLOCK, repeats))]
    paced = ("k100", "products", "safe_proposal", "ort")
    times |= {f"{name}_paced": [] for name in paced}
    for _ in tqdm(range(max(1, repeats // 5)), desc="paced decisions", leave=False, disable=None):
        for name in paced:
            time.sleep(PAUSE)
            times[f"{name}_paced"].append(_timed(loops[name], next(inputs[name])))
    return _figures(times)


def _products(network: Network, k: int) -> Callable[[Pair], object]:
    """Return the limit of scoring k candidates: the products of the hidden layers alone, by NumPy or torch.

    Whichever is faster here: on some processors NumPy's take three times as long as torch's.
    """
    shapes = [layer.weight.shape for member in network.members for layer in member[1:-1]]
    arrays = [tuple(np.ones(shape, np.float32) for shape in ((k, n), (n, m), (k, m))) for n, m in shapes]
    tensors = [tuple(map(torch.from_numpy, each)) for each in arrays]

    def in_numpy(_: Pair | None) -> None:
        for x, weight, out in arrays:
            np.matmul(x, weight, out=out)

    def in_torch(_: Pair | None) -> None:
        for x, weight, out in tensors:
            torch.mm(x, weight, out=out)

    return min((in_numpy, in_torch), key=lambda run: min(_timed(run, None) for _ in range(REPEATS)))


def _bare_run(critic: SafetyCritic, contract: Contract) -> Callable[[Pair], object]:
    """Return a run of the critic's session on one action, as onnxruntime's own Python layer binds and runs it."""
    session, binding = critic._session, critic._session.io_binding()
    binding.bind_cpu_input("observation", np.zeros((1, contract.observation_size), np.float32))
    binding.bind_cpu_input("actions", np.zeros((1, contract.action_size), np.float32))
    binding.bind_output("logits")

    def run(_: Pair) -> None:
        session.run_with_iobinding(binding)

    return run


def _timed(run: Callable[[Any], object], pair: Pair | None) -> float:
    begin = time.perf_counter()
    run(pair)
    return time.perf_counter() - begin


def _figures(times: dict[str, list[float]]) -> dict[str, float]:
    figures = {}
    for name, seconds in times.items():
        percentiles = (50,) if name.endswith("_torch") or name.startswith(("products", "ort")) else (50, 99, 99.9)
        for percentile in percentiles:
            figures[f"{name}_us_p{percentile:g}".replace(".", "")] = 1e6 * float(np.percentile(seconds, percentile))
    for k in SIZES:
        blocks = zip(_blocks(times[f"k{k}"]), _blocks(times[f"k{k}_torch"]), strict=True)
        ratios = [statistics.median(ours) / statistics.median(peers) for ours, peers in blocks]
        figures[f"k{k}_ratio_to_torch"] = statistics.median(ratios)
    for pace in ("", "_paced"):
        for name, ours, limit in (
            ("k100_ratio_to_products", "k100", "products"),
            ("safe_proposal_ratio_to_ort", "safe_proposal", "ort"),
        ):
            pairs = zip(_blocks(times[ours + pace]), _blocks(times[limit + pace]), strict=True)
            figures[name + pace] = statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)
    return figures


def _blocks(seconds: list[float]) -> list[list[float]]:
    return [seconds[i : i + BLOCK] for i in range(0, len(seconds), BLOCK)]


def _node(task: Task, seed: int) -> dict[str, float]:
    steps, period = itertools.cycle(record(task, seed)), task.contract().control_period
    isolate()
    startup, memory = [], []
    with Processes() as processes, RoundTrips((NAMESPACE,)) as trips:
        for _ in tqdm(range(STARTS), desc="starts of the node", leave=False, disable=None):
            begin = time.monotonic()
            processes.start("shield_node", None, {"__ns": f"/{NAMESPACE}"}, contract=task.robot)
            while not _answered(trips, next(steps), period):
                processes.check()
            startup.append(time.monotonic() - begin)
            for _ in range(100):
                _answered(trips, next(steps), period)
            memory.append(_resident_mb(processes.processes["shield_node"].pid))
            processes.stop("shield_node")
    return {"node_startup_s": statistics.median(startup), "node_rss_mb": statistics.median(memory)}


def _answered(trips: RoundTrips, step: Step, period: float) -> bool:
    """Send one step, which takes one control period (s); tell whether its command came."""
    end = time.monotonic() + period
    answer = trips.send(NAMESPACE, step, period)
    trips.rest(end)
    return answer is not None


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024.0
