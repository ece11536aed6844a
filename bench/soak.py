"""A soak: the whole graph, and something that goes wrong every two seconds, for as long as wanted."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.processes import Processes
from bench.ros import record
from bench.soak_driver import SoakDriver
from bench.soak_faults import RECORDER, SHIELD, Mischief
from ssql_ros.bags import BagError, survey
from ssql_ros.contract import Contract
from ssql_ros.evaluation.replay import replay
from ssql_ros.graph.processes import isolate
from ssql_ros.model.bundle import Bundle, load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.model.signing import write_keys
from ssql_ros.robots.tasks import find_task

ANNOUNCER = "swap_announcer"
REST = 1.2  # s at most, from one fault to the next
SAMPLED = 5.0  # s, between two looks at memory and files
GROWN = 120.0  # s, from which age on a process's growth counts: what it needs at first is no leak
MEGABYTE = 2.0**20


def bench_soak(
    task: str = "minitaur", minutes: float = 20.0, seed: int = 0, out: Path | None = None
) -> dict[str, float]:
    """Run shield, recorder and an announcer against a driver that lies and a controller that rages, and judge it all.

    Args:
        minutes: how long.
        seed: of what goes wrong, and when.
        out: folder for bags, bundles and logs; None: one that is removed.

    Returns:
        faults: that were begun, `kinds` of them; commands; unsafe_commands: not finite, of other names, beyond the
        joints' limits, or let through above epsilon; late_commands: over two periods after the one before, while
        shield and driver ran; worst_gap_ms: the longest; crashes: processes that ended by themselves; rss_growth_mb,
        fd_growth: of the process that grew most after its first two minutes; bags, unreadable_bags; decisions that
        were recorded, different: of those, when they were taken again; without_bundle.

    Raises:
        ValueError: no such task, or no time.
        GraphError: a node is not installed.
    """
    if not minutes > 0.0:
        raise ValueError(f"--minutes: expected a number above 0, got {minutes}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else out
        folder.mkdir(parents=True, exist_ok=True)
        return _Soak(task, folder, np.random.default_rng(seed), seed).run(60.0 * minutes)


class _Soak:
    def __init__(self, task: str, folder: Path, rng: np.random.Generator, seed: int) -> None:
        chosen = find_task(task)
        self._folder, self._rng, self._contract = folder, rng, chosen.contract()
        self._steps = record(chosen, seed)
        shipped = load_bundle(chosen.bundle_path(), self._contract)
        self._bundles = [
            Path(save_bundle(made, folder / f"{i}.safetensors").path)
            for i, made in enumerate(_two(shipped, self._contract))
        ]
        self._broken = folder / "broken"
        self._broken.write_bytes(self._bundles[0].read_bytes()[:-100])
        self._key = folder / "key"
        write_keys(self._key)
        self._bags: list[Path] = []
        self._crashes: Counter[str] = Counter()
        self._sizes: dict[tuple[str, int], list[tuple[float, float, int]]] = defaultdict(list)

    def run(self, seconds: float) -> dict[str, float]:
        """Run it and return the figures."""
        isolate()
        count: Counter[str] = Counter()
        with Processes(self._folder / "logs") as nodes:
            self._nodes = nodes
            for node in (RECORDER, SHIELD):
                self._start(node)
            nodes.program(ANNOUNCER, str(self._key))
            with SoakDriver(self._contract, self._steps, self._rng) as driver:
                mischief = Mischief(driver, nodes, self._start, self._bundles, self._broken, self._announce, self._rng)
                begin = time.monotonic()
                self._drive(driver, 15.0, until=lambda: driver.commands > 50)
                with tqdm(total=round(seconds), desc="soak", unit="s", leave=False, disable=None) as bar:
                    while (past := time.monotonic() - begin) < seconds:
                        bar.update(round(past) - bar.n)
                        bar.set_postfix(faults=sum(count.values()), unsafe=sum(driver.unsafe.values()))
                        name, lasts = mischief.drawn()
                        count[name] += 1
                        with mischief.faults[name]():
                            self._drive(driver, lasts)
                        self._drive(driver, float(self._rng.uniform(0.3, REST)))
                self._drive(driver, 5.0)
        return {**self._figures(driver, count), **self._judged_bags()}

    def _start(self, node: str) -> None:
        if node == RECORDER:
            self._bags.append(self._folder / f"bag_{len(self._bags)}")
            self._nodes.start(node, None, None, output=str(self._bags[-1]))
        else:
            self._nodes.start(
                node,
                None,
                None,
                bundle=str(self._bundles[0]),
                announcement_keys=[f"{self._key}.pub"],
                takeover_timeout=0.3,
            )

    def _announce(self, path: Path) -> None:
        self._nodes.tell(ANNOUNCER, "\t".join((self._contract.id, "path", str(path))))

    def _drive(self, driver: SoakDriver, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Go on for so long, or until something is so; what ended by itself is counted and started anew."""
        end, heard = time.monotonic() + seconds, driver.commands
        while time.monotonic() < end and not until():
            driver.step()
            for node, process in list(self._nodes.processes.items()):
                if process.poll() is not None:
                    self._crashes[node] += 1
                    del self._nodes.processes[node]
                    self._start(node)
            self._sample()
        commanding = driver.states and driver.states[-1].mode == driver.states[-1].ENFORCE
        if driver.excused and commanding and driver.commands > heard:
            driver.excused = False

    def _sample(self) -> None:
        now = time.monotonic()
        for node, process in self._nodes.processes.items():
            seen = self._sizes[node, process.pid]
            if seen and now - seen[-1][0] < SAMPLED:
                continue
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            except OSError:
                continue
            seen.append((now, pages * 4096 / MEGABYTE, files))

    def _figures(self, driver: SoakDriver, count: Counter[str]) -> dict[str, float]:
        growth, files = 0.0, 0
        for seen in self._sizes.values():
            old = [entry for entry in seen if entry[0] - seen[0][0] > GROWN]
            if len(old) > 1:
                growth, files = max(growth, old[-1][1] - old[0][1]), max(files, old[-1][2] - old[0][2])
        for what, number in driver.unsafe.items():
            print(f"unsafe: {what}: {number}")
        for node, number in self._crashes.items():
            print(f"ended by itself: {node}: {number}; see {self._folder / 'logs'}")
        return {
            "faults": sum(count.values()),
            "kinds": len(count),
            "commands": driver.commands,
            "unsafe_commands": sum(driver.unsafe.values()),
            "late_commands": driver.late,
            "worst_gap_ms": 1e3 * driver.worst,
            "crashes": sum(self._crashes.values()),
            "rss_growth_mb": growth,
            "fd_growth": files,
        }

    def _judged_bags(self) -> dict[str, float]:
        unreadable, total = 0, Counter[str]()
        for path in tqdm(self._bags, desc="replay", unit="bag", leave=False, disable=None):
            try:
                if not any(topic.count for topic in survey(path).topics.values()):
                    continue  # its recorder was killed before it had written anything
                result = replay(path, [self._folder])
            except BagError as error:
                unreadable += 1
                print(f"unreadable: {error}")
                continue
            total.update(
                decisions=sum(result.decisions.values()),
                different=result.different + result.unreadable,
                without_bundle=sum(result.missing.values()),
            )
            for told in result.told:
                print(told)
        names = ("decisions", "different", "without_bundle")
        return {"bags": len(self._bags), "unreadable_bags": unreadable, **{name: total[name] for name in names}}


def _two(shipped: Bundle, contract: Contract) -> list[Bundle]:
    """Return the shipped critic, and one that is more careful."""
    critic = shipped.probability_critic()
    careful = replace(shipped, critic=replace(critic, epsilon=critic.epsilon / 2.0))
    return [with_probes(replace(made, id="", path=""), contract) for made in (shipped, careful)]
