"""One thread per process, every test starts from the same global seed, and random examples are the same each time."""

import os

import pytest
from hypothesis import settings

for library in ("OMP", "MKL", "OPENBLAS"):  # tests run in parallel: threads would fight for the cores
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded():
    """A test's draws depend neither on the order of the tests nor on the worker."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
