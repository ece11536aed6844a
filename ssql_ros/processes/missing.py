"""Says in one line what is missing, and how to get it, where an import has failed."""

from __future__ import annotations

import importlib.util

HOW = (
    "source a ROS 2 install (`source /opt/ros/jazzy/setup.bash`) and the workspace in which this package is built, or "
    "run `make setup` in its repository, which sets up both in .venv"
)
_ROS = {
    "rclpy", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "nav_msgs", "rcl_interfaces",
    "rosgraph_msgs", "rosidl_parser", "rosidl_runtime_py", "sensor_msgs", "std_msgs", "std_srvs", "trajectory_msgs",
    "visualization_msgs",
}  # fmt: skip
# The extra of setup.py that brings a module.
EXTRAS = {
    "torch": "learn",
    "tensorboardX": "learn",
    "gymnasium": "sim",
    "pybullet": "sim",
    "pybullet_data": "sim",
    "mujoco": "mujoco",
    "gymnasium_robotics": "hand",
    "h5py": "data",
    "minari": "data",
    "pyarrow": "data",
    "matplotlib": "report",
    "textual": "watch",
    "wandb": "track",
    "mlflow": "track",
    "trackio": "track",
}
_DISTRIBUTIONS = {
    "yaml": "PyYAML",
    "stable_baselines3": "stable-baselines3",
    "mcap_ros2": "mcap-ros2-support",
}


class MissingROS(ImportError):
    """There is no ROS 2 here, or this package's messages are not built; the text says how to get it."""


def need_ros(what: str) -> None:
    """Make sure that ROS 2 is there.

    Args:
        what: needs it.

    Raises:
        MissingROS: it is not.
    """
    for module in ("rclpy", "ssql_ros.msg"):
        if importlib.util.find_spec(module) is None:
            raise MissingROS(f"{what} needs ROS 2: no module {module!r}; {HOW}")


def need(*modules: str) -> None:
    """Make sure that libraries are there. Raises ModuleNotFoundError of the first that is not."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def explained(error: ImportError, what: str) -> str:
    """Return in one line what an import error means.

    Args:
        what: needs the module that is missing.
    """
    if isinstance(error, MissingROS):
        return str(error)
    name = error.name or ""
    package = name.partition(".")[0]
    if package in _ROS or name.startswith("ssql_ros.msg") or "rclpy" in str(error):
        return f"{what} needs ROS 2: {error}; {HOW}"
    if isinstance(error, ModuleNotFoundError) and name and package not in ("ssql_ros", "ssql_sim"):
        wanted = f"'ssql_ros[{EXTRAS[package]}]'" if package in EXTRAS else _DISTRIBUTIONS.get(package, package)
        return f"{what} needs {package}, which is not installed; pip install {wanted}"
    return f"{what}: {error}"
