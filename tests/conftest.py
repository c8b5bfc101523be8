"""One thread per process: tests run in parallel, and their threads would fight for the cores."""

import os

for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
