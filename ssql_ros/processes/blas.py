"""How NumPy's matrix products run. Has effect where it is imported before NumPy is, and on child processes."""

import os

# Products here are small: a second thread makes their tail worse, and processes share the processors already.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Some shells export a choice of kernels that halves NumPy's speed on newer processors.
os.environ.pop("OPENBLAS_CORETYPE", None)
