"""Robots as plugs: what one is to this package (plug.py, tasks.py), and those that it ships, a folder each.

Another package adds one with an entry point of the group `ssql_ros.robots` that names a `plug.Robot`.
"""

# The robot, and its task of the same name, that are meant where nobody names one.
DEFAULT = "minitaur"
