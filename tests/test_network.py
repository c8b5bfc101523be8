"""Nothing in the tests, and nothing on import, touches the network."""

import socket
import subprocess
import sys

import pytest


def test_a_connection_to_another_machine_is_an_error():
    with socket.socket() as to, pytest.raises(AssertionError, match="tried to connect"):
        to.connect(("192.0.2.1", 80))


def test_a_fit_works_where_there_is_no_network():
    """In a process of its own, in which no socket can be made."""
    code = """
import socket
def no_socket(*a, **k):
    raise AssertionError("a socket")
socket.socket.__init__ = no_socket
import numpy as np
import dimlib, dimlib.compare.readouts, dimlib.data.images, dimlib.data.manifolds, dimlib.data.pool
x = dimlib.data.pool.draw("moebius_in_5", 60)[0]
print(dimlib.DiffusionDimension(max_steps=2, device="cpu").fit(x).dimension_)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 5
