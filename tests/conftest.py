"""One BLAS thread, before any test imports NumPy: see the scripts."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
