"""The command line `ssql`: verbs over the library."""

from ssql_ros.processes import blas  # noqa: F401 (before NumPy)
