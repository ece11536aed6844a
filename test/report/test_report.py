"""The report: figures that match the records, pictures that are whole, nothing loaded from outside."""

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Imu, JointState

import ssql_ros.msg
from ssql_ros.bags import BagError, BagWriter, UnfinishedBagWarning, qos_profile
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.contract.messages import fill, fill_joint_state, set_stamp
from ssql_ros.evaluation.intervals import bootstrap_interval, wilson_interval
from ssql_ros.report import NOT_DECIDED, EpisodeRecord, Frame, RunRecord, Summary, records_from_bag, write_report
from ssql_ros.report.plots import percent
from ssql_ros.report.records import typical_pair
from ssql_ros.shield.decision import Decision

SVG = "{http://www.w3.org/2000/svg}"
CONTRACT = load_contract(find_contract("minitaur"))
PERIOD = 20_000_000  # ns


def episode(seed, steps, incident, decisions=()):
    """An episode that passes every proposal but those of `decisions`, in 10 µs each and 100 µs for the others."""
    kinds = np.full(steps + 1, int(Decision.PASSED))
    kinds[: len(decisions)] = decisions
    kinds[-1] = NOT_DECIDED
    times = np.where(kinds == Decision.PASSED, 10e-6, 100e-6)
    times[-1] = np.nan
    margin = np.linspace(-0.2, 0.01 if incident else -0.1, steps + 1)
    q_safe = np.where(kinds > Decision.PASSED, 0.6, 0.1)
    return EpisodeRecord(seed, steps, incident, 0.02 * np.arange(steps + 1), q_safe, margin, kinds, times)


@pytest.fixture
def runs():
    """20 seeds: 18 fall without the shield; seed 3 falls with it too; one intervention in each shielded episode."""
    monitor = [episode(seed, 50 + seed if seed < 18 else 500, seed < 18) for seed in range(20)]
    enforce = [
        episode(seed, 60 if seed == 3 else 500, seed == 3, [Decision.RESAMPLED] if seed else [Decision.LEAST_RISK])
        for seed in range(20)
    ]
    return [RunRecord("enforce", enforce, 0.3, "0123456789abcdef"), RunRecord("monitor", monitor, 0.3)]


class Page(HTMLParser):
    """Collects table cells and checks that every element is closed."""

    EMPTY = ("meta", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.sections, self.images = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        if self.open[-1:] == ["h2"]:
            self.sections.append(data)


def drawings(text):
    """Return the page's plots by the name that leads their ids."""
    plots = {}
    for source in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        root = ElementTree.fromstring(source)
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        (name,) = {identity.split("-")[0] for identity in ids}
        plots[name] = root
    return plots


def texts(plot):
    return ["".join(element.itertext()).strip() for element in plot.iter(f"{SVG}text")]


def test_report_holds_the_figures(tmp_path, runs):
    facts = {"command": "ssql demo --seed 0", "seed": 0, "versions": {"numpy": "2.0 <&>"}, "contract id": CONTRACT.id}
    path = write_report(tmp_path / "run" / "report.html", runs, facts=facts, title="Minitaur <1>")
    text = path.read_text()
    page = Page(text)
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows[""] == ["without the shield", "with the shield"]
    assert rows["Episodes"] == ["20", "20"]
    assert rows["Falls"] == ["18", "1"]
    # Wilson's interval of 18 and of 1 in 20.
    assert rows["Fraction that fell, 95 % interval"] == ["90 % (70 % to 97 %)", "5 % (<1 % to 24 %)"]
    assert rows["Mean episode length, 95 % interval"][0].startswith("103 steps (")
    assert rows["Mean episode length, 95 % interval"][1].startswith("478 steps (")
    assert rows["Mean episode length, 95 % interval"][1].endswith("9.6 s")
    assert rows["Interventions per step"] == ["0.0000 (not carried out)", f"{20 / (19 * 500 + 60):.4f}"]
    assert rows["Decision time p50"] == ["10 µs", "10 µs"]
    assert rows["command"] == ["ssql demo --seed 0"]
    assert rows["versions"] == ["numpy 2.0 <&>"]
    assert (rows["epsilon"], rows["bundle id"]) == (["0.3"], ["0123456789abcdef"])
    assert page.sections == ["Falls", "One episode", "Episode lengths", "Decisions", "How this was made"]
    assert "<title>Minitaur &lt;1&gt;</title>" in text
    assert "Of 20 seeds the shield made 18 longer and 0 shorter." in text
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_report_loads_nothing_from_outside(tmp_path, runs):
    image = np.zeros((4, 6, 3), np.uint8)
    text = write_report(tmp_path / "report.html", runs, [Frame(image, 'seed "1"')]).read_text()
    (picture,) = Page(text).images
    assert picture["src"].startswith("data:image/png;base64,iVBOR")
    assert picture["alt"] == 'seed "1"'
    for address in re.findall(r'(?:src|href)\s*=\s*"([^"]*)"|url\(([^)]*)\)', text):
        assert "".join(address).startswith(("data:", "#")), address
    assert not re.search(r"<script|<link|<iframe|@import|<object", text)


def test_plots_show_every_episode_and_the_threshold(tmp_path, runs):
    text = write_report(tmp_path / "report.html", runs).read_text()
    plots = drawings(text)
    assert sorted(plots) == ["decisions", "falls", "lengths", "pair"]
    identities = re.findall(r'\bid="([^"]+)"', text)
    assert len(identities) == len(set(identities))
    assert {"18 of 20", "1 of 20", "without the shield", "with the shield"} <= set(texts(plots["falls"]))
    assert {"ε = 0.3", "intervention: resampled", "fall"} <= set(texts(plots["pair"]))
    assert {"passed 99.8 % · resampled 0.2 % · least-risk <0.1 %", "passed 100.0 %"} <= set(texts(plots["decisions"]))
    dots = [use.get("style") or "" for use in plots["lengths"].iter(f"{SVG}use")]
    assert sum("#c8602b" in style for style in dots) >= 20
    assert sum("#1f6fae" in style for style in dots) >= 20


def test_shown_pair_is_typical_of_the_seeds_that_the_shield_saved(runs):
    enforce, monitor = runs
    before, after = typical_pair(monitor, enforce)
    # Saved are seeds 0 to 17 without 3, of lengths 50 to 67: the median one is seed 9.
    assert (before.seed, after.seed, before.incident, after.incident) == (9, 9, True, False)
    assert typical_pair(monitor, RunRecord("enforce", [episode(99, 500, False)], 0.3)) is None
    both_fall = RunRecord("enforce", [episode(3, 60, True)], 0.3)
    assert typical_pair(monitor, both_fall)[1].seed == 3


@pytest.mark.parametrize("mode", ["monitor", "enforce"])
def test_report_of_one_run_alone(tmp_path, runs, mode):
    (run,) = [run for run in runs if run.mode == mode]
    text = write_report(tmp_path / "report.html", [run]).read_text()
    assert sorted(drawings(text)) == ["decisions", "falls", "lengths", "pair"]
    assert len({row[0]: row[1:] for row in Page(text).rows}["Falls"]) == 1


def test_report_without_decisions_says_so(tmp_path):
    nothing = np.full(11, np.nan)
    bare = EpisodeRecord(0, 10, False, 0.02 * np.arange(11), nothing, nothing, np.full(11, NOT_DECIDED), nothing)
    text = write_report(tmp_path / "report.html", [RunRecord("monitor", [bare], 0.3)]).read_text()
    assert "no decision is recorded" in text
    rows = {row[0]: row[1:] for row in Page(text).rows}
    assert rows["Interventions per step"] == ["not recorded"]
    assert rows["Decision time p99"] == ["not recorded"]


def test_report_refuses_what_it_cannot_show(tmp_path, runs):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"report.html: exists already; a report never overwrites another"):
        write_report(path, runs)
    assert path.read_text() == "mine"
    with pytest.raises(ValueError, match=r"two runs in mode enforce \(epsilon 0.3 and 0.4\)"):
        write_report(tmp_path / "x.html", [runs[0], RunRecord("enforce", runs[0].episodes, 0.4)])
    with pytest.raises(ValueError, match="at least one run"):
        write_report(tmp_path / "x.html", [])
    with pytest.raises(ValueError, match=r"frame 'a': expected \(height, width, 3\) uint8, got \(2, 2\) float64"):
        write_report(tmp_path / "x.html", runs, [Frame(np.zeros((2, 2)), "a")])
    with pytest.raises(ValueError, match="mode: expected one of monitor, enforce; got 'off'"):
        RunRecord("off", runs[0].episodes, 0.3)
    with pytest.raises(ValueError, match="the run in mode monitor has no episode"):
        RunRecord("monitor", [], 0.3)
    with pytest.raises(ValueError, match=r"episode of seed 1: margin is \(2,\), time is \(3,\)"):
        EpisodeRecord(1, 2, False, np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(3))
    assert not (tmp_path / "x.html").exists()


def test_summary_counts_executed_decisions_only():
    run = RunRecord("enforce", [episode(0, 4, True, [Decision.HELD, Decision.RESAMPLED])], 0.3)
    summary = Summary.of(run)
    assert summary.shares == {
        Decision.PASSED: 0.5,
        Decision.RESAMPLED: 0.25,
        Decision.LEAST_RISK: 0.0,
        Decision.BACKUP: 0.0,
        Decision.HELD: 0.25,
        Decision.FAULT: 0.0,
    }
    assert summary.interventions_per_step == 0.5
    assert summary.decision_times.tolist() == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
    assert summary.fall_interval == wilson_interval(1, 1)
    assert summary.steps_interval == (4.0, 4.0)


@pytest.mark.parametrize(
    ("fraction", "digits", "text"),
    [
        (0.0, 0, "0 %"),
        (0.004, 0, "<1 %"),
        (0.25, 0, "25 %"),
        (0.0004, 1, "<0.1 %"),
        (math.nan, 0, "not recorded"),
    ],
)
def test_percent_never_rounds_to_none(fraction, digits, text):
    assert percent(fraction, digits) == text


# Wilson's interval has the ends p for which (k/n - p)^2 = z^2 p (1 - p) / n.
@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 20), (18, 20), (30, 60), (60, 60)])
def test_wilson_interval_solves_its_equation(k, n):
    z = 1.959963984540054
    for p in wilson_interval(k, n):
        if 0.0 < p < 1.0:
            assert (k / n - p) ** 2 == pytest.approx(z * z * p * (1 - p) / n, abs=1e-12)
    low, high = wilson_interval(k, n)
    assert low <= k / n <= high + 1e-12
    assert (low == 0.0) == (k == 0)
    # Of no or all successes the other end is z² / (n + z²) away.
    if k == 0:
        assert high == pytest.approx(z * z / (n + z * z))


def test_bootstrap_interval_of_many_values_is_that_of_their_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values, rng)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


RECORDED = {
    "joint_states": JointState,
    "imu/data": Imu,
    "odom": Odometry,
    "shield_node/shielded_action": ssql_ros.msg.ShieldedAction,
    "episode": ssql_ros.msg.Episode,
}


class RecordedRun:
    """Writes a bag as the recorder does, from made-up episodes."""

    def __init__(self, path, prefix="/"):
        self.writer, self.prefix, self.now, self.time = BagWriter(path), prefix, 10**9, 0
        for topic, kind in RECORDED.items():
            package = kind.__module__.split(".")[0]
            self.writer.add_topic(f"{prefix}{topic}", f"{package}/msg/{kind.__name__}", [qos_profile()])

    def write(self, topic, message):
        set_stamp(message, self.now)
        self.time += 1000
        self.writer.write(f"{self.prefix}{topic}", self.time, serialize_message(message))

    def episode(self, seed, rolls, enforced, incident):
        """Record an episode with the roll angles `rolls` (T + 1,) in rad; every second decision is an intervention."""
        names = list(CONTRACT.commanded.joint_names)
        for i, roll in enumerate(rolls):
            imu = Imu()
            imu.orientation.x, imu.orientation.w = math.sin(roll / 2), math.cos(roll / 2)
            self.write("imu/data", imu)
            self.write("joint_states", fill_joint_state(JointState(), 0, names, position=np.zeros(8)))
            account = fill(
                ssql_ros.msg.ShieldedAction(),
                decision=i % 2,
                enforced=enforced,
                q_safe_proposal=math.nan if i == 2 else 0.1 * i,
                epsilon=0.25,
                decision_time=1e-5 * (i + 1),
                bundle_id="feedbeef00000000",
            )
            self.write("shield_node/shielded_action", account)
            if i == 1:  # no new observation within the period: decided again on the same one
                self.write("shield_node/shielded_action", fill(account, decision=3))
            self.now += PERIOD
        self.now -= PERIOD
        self.write("episode", fill(ssql_ros.msg.Episode(), seed=seed, steps=len(rolls) - 1, incident=incident))
        self.now += 10**9


def test_records_of_a_bag_are_what_was_recorded(tmp_path):
    recorded = RecordedRun(tmp_path / "bag")
    with recorded.writer:
        # The end of an episode of an earlier run, latched: nothing of it is here.
        recorded.write("episode", fill(ssql_ros.msg.Episode(), seed=77, steps=5))
        recorded.now += 10**9
        recorded.episode(7, [0.0, 0.1, -0.2, 0.35], enforced=False, incident=True)
        recorded.episode(8, [0.0, 0.0, 0.0], enforced=False, incident=False)
        recorded.episode(7, [0.0, 0.1, 0.1, 0.1, 0.1], enforced=True, incident=False)
    monitor, enforce = records_from_bag(tmp_path / "bag", CONTRACT)
    assert (monitor.mode, enforce.mode) == ("monitor", "enforce")
    assert [(e.seed, e.steps, e.incident) for e in monitor.episodes] == [(7, 3, True), (8, 2, False)]
    assert [(e.seed, e.steps, e.incident) for e in enforce.episodes] == [(7, 4, False)]
    assert (monitor.epsilon, monitor.bundle_id) == (0.25, "feedbeef00000000")
    first = monitor.episodes[0]
    assert first.time.tolist() == pytest.approx([0.0, 0.02, 0.04, 0.06])
    # l(s) = |roll| - 0.3 here, from the sensors alone; positive is a fall.
    assert first.margin.tolist() == pytest.approx([-0.3, -0.2, -0.1, 0.05])
    assert first.q_safe.tolist() == pytest.approx([0.0, 0.1, math.nan, 0.3], nan_ok=True)
    # The last observation was judged, but no action followed; the second decision on one observation does not count.
    assert first.decisions.tolist() == [0, 1, 0, NOT_DECIDED]
    assert first.decision_times.tolist() == pytest.approx([1e-5, 2e-5, 3e-5, 4e-5])
    assert Page(write_report(tmp_path / "report.html", [monitor, enforce]).read_text()).sections


def test_records_follow_the_namespace(tmp_path):
    recorded = RecordedRun(tmp_path / "bag", prefix="/dog/")
    with recorded.writer:
        recorded.episode(1, [0.0, 0.1], enforced=True, incident=False)
    (run,) = records_from_bag(tmp_path / "bag", CONTRACT, namespace="dog")
    assert [e.seed for e in run.episodes] == [1]
    with pytest.raises(BagError, match=r"bag: holds no message of /shield_node/shielded_action; a report needs it"):
        records_from_bag(tmp_path / "bag", CONTRACT)


def test_unreadable_sensor_message_is_held_over_from_the_one_before(tmp_path):
    recorded = RecordedRun(tmp_path / "bag")
    with recorded.writer:
        recorded.episode(1, [0.0, math.nan, 0.1], enforced=True, incident=False)
    (run,) = records_from_bag(tmp_path / "bag", CONTRACT)
    assert run.episodes[0].margin.tolist() == pytest.approx([-0.3, -0.3, -0.2])
    assert run.episodes[0].decisions.tolist() == [0, 1, NOT_DECIDED]


def test_unfinished_bag_gives_the_episodes_that_ended(tmp_path):
    recorded = RecordedRun(tmp_path / "bag")
    recorded.episode(1, [0.0, 0.1], enforced=True, incident=False)
    recorded.writer.flush()  # and then the recorder is killed
    with pytest.warns(UnfinishedBagWarning):
        (run,) = records_from_bag(tmp_path / "bag", CONTRACT)
    assert [e.seed for e in run.episodes] == [1]
