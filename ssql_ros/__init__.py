"""Safe learning for ROS 2 robots: a shield, safe-support behaviour policies and off-policy learners."""

from pkgutil import extend_path

# The generated messages (ssql_ros.msg) lie in the installed package only: found there even when this one is imported
# from the source tree, as Python does for whoever works in its root.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
