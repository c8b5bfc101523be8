"""One thread per process, the same global seed for every test, the same random examples, and no network."""

import os
import socket

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


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A test that connects to another machine fails. (Kernels and browsers are on this one.)"""
    def only_here(connect):
        def connected(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
                raise AssertionError(f"a test tried to connect to {address}")
            return connect(self, address)
        return connected

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, only_here(getattr(socket.socket, name)))
