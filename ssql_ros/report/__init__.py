"""The report of a run: what happened with and without the shield, as one self-contained HTML file."""

from ssql_ros.report.bag import records_from_bag
from ssql_ros.report.page import Frame, write_report
from ssql_ros.report.pictures import fall_frames
from ssql_ros.report.records import NOT_DECIDED, EpisodeRecord, RunRecord, Summary

__all__ = [
    "NOT_DECIDED",
    "EpisodeRecord",
    "Frame",
    "RunRecord",
    "Summary",
    "fall_frames",
    "records_from_bag",
    "write_report",
]
