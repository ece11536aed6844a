"""The command line `ssql`: verbs over the library."""

from ssql_ros import blas  # noqa: F401 (before NumPy)
