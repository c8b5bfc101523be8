"""What the machine offers: the memory that a process may use."""

import math
import subprocess
import sys

import pytest
import torch

from dimlib.machine import compute

CPU = torch.device("cpu")


@pytest.mark.parametrize("file, content, limit", [
    ("memory.max", "2000000000\n", 2e9),
    ("memory.max", "max\n", math.inf),
    ("memory/memory.limit_in_bytes", "3000000000\n", 3e9),
    ("nothing", "", math.inf),
])
def test_the_limit_of_a_container(tmp_path, file, content, limit):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    assert compute._container(tmp_path) == limit


def test_the_least_limit_counts(monkeypatch):
    monkeypatch.setattr(compute, "_container", lambda: 5e8)
    assert compute.memory(CPU) == 5e8
    monkeypatch.setattr(compute, "_rlimit", lambda: 4e8)
    assert compute.memory(CPU) == 4e8


def test_a_container_without_enough_memory_is_an_error_before_the_work(monkeypatch):
    monkeypatch.setattr(compute, "_container", lambda: 1e6)
    with pytest.raises(MemoryError, match="0.001 GB is what there is: use tangent_sketch"):
        compute.scores_number(torch.zeros(1, 200), 0.1, None)


def test_a_limit_of_the_shell_is_seen():
    pytest.importorskip("resource")
    code = ("import resource; resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36)); import torch; "
            "from dimlib.machine import compute; print(compute._rlimit())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 2**36
