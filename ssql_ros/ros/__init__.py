"""What every node shares of ROS 2: process, parameters, guards, diagnostics, announcements of models."""

from ssql_ros.processes import blas  # noqa: F401 (before NumPy)
