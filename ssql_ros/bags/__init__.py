"""rosbag2 bags (MCAP) without ROS: raw CDR messages in, raw or deserialised messages out.

A bag holds the definition and the offered QoS of every topic, so that other tools can read and replay it. A bag that
its recorder could not close (killed, power lost, disk full) can be read as far as it goes, and recovered.
"""

from ssql_ros.bags.definitions import BagError
from ssql_ros.bags.flight import FlightRecorder, FlightSettings
from ssql_ros.bags.flight_events import Event, EventRules
from ssql_ros.bags.reader import (
    Bag,
    Survey,
    UnfinishedBagWarning,
    open_bag,
    raw_messages,
    read_messages,
    survey,
)
from ssql_ros.bags.recording import Recording
from ssql_ros.bags.recovery import Recovery, recover_bag
from ssql_ros.bags.writer import BagWriter, qos_profile

__all__ = [
    "Bag",
    "BagError",
    "BagWriter",
    "Event",
    "EventRules",
    "FlightRecorder",
    "FlightSettings",
    "Recording",
    "Recovery",
    "Survey",
    "UnfinishedBagWarning",
    "open_bag",
    "qos_profile",
    "raw_messages",
    "read_messages",
    "recover_bag",
    "survey",
]
