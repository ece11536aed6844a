"""What tests of real graphs share."""

import pytest

from ssql_ros.graph import isolate


@pytest.fixture
def domain(monkeypatch):
    """A ROS domain of this test's own; processes and files of an earlier test are never met."""
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    return isolate()
