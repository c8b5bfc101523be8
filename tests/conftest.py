"""One thread per process, and every test starts from the same global seed."""

import os

import pytest

for library in ("OMP", "MKL", "OPENBLAS"):  # tests run in parallel: threads would fight for the cores
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def seeded():
    """A test's draws depend neither on the order of the tests nor on the worker."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
