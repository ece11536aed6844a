"""What tests of real graphs share."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from ssql_ros.graph.processes import isolate

# No test depends on how fast the machine is at the moment.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# A shell has what it runs in the background ignore Ctrl-C, nohup the end of the terminal, and all that a test starts
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: where files run side by side, none of them is left at the end."""
    marks = {name: {item.path for item in items if item.get_closest_marker(name)} for name in ("slow", "ros")}
    items.sort(key=lambda item: (item.path not in marks["slow"], item.path not in marks["ros"]))


@pytest.fixture
def domain(monkeypatch):
    """A ROS domain of this test's own; processes and files of an earlier test are never met."""
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    return isolate()


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag of a short walk of the Minitaur; nobody writes into it."""
    from bench.bag import make_bag

    path = tmp_path_factory.mktemp("walk") / "walk"
    make_bag(path, "minitaur", 0.3, 0)
    return path


@pytest.fixture(scope="session")
def walk_rows(walk: Path) -> list[dict]:
    """Its transitions."""
    from support.bag_forms import converted

    rows, outcome = converted(walk)
    assert (len(rows), outcome.problems) == (499, [])
    return rows
