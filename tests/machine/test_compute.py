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
    assert compute._container(tmp_path, tmp_path / "own") == limit


@pytest.mark.parametrize("lines, limits", [
    ("0::/slurm/job_7/step_0\n", {"slurm/job_7/memory.max": "4000", "memory.max": "max"}),
    ("12:pids:/else\n4:memory:/slurm/job_7\n", {"memory/slurm/job_7/memory.limit_in_bytes": "4000"}),
    ("0::/slurm/job_7\n", {"slurm/job_7/memory.max": "max", "slurm/memory.max": "4000", "memory.max": "5000"}),
    ("0::/outside\n", {"memory.max": "4000"}),                            # a path of the machine, not of the container
])
def test_the_limit_of_the_control_group_of_this_process(tmp_path, lines, limits):
    (tmp_path / "own").write_text(lines)
    for file, content in limits.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    assert compute._container(tmp_path, tmp_path / "own") == 4000


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


def test_one_noise_level_as_a_tensor_is_one_for_all_batches():
    """It was split into one batch, where the points had several."""
    x, sigma = torch.randn(10, 3), torch.tensor([0.5])
    assert torch.equal(compute.guarded(lambda y, s: y * s, batch_size=4)(x, sigma), x * 0.5)


@pytest.mark.parametrize("n", [0, 2, 6])
def test_noise_levels_for_other_points_are_refused(n):
    with pytest.raises(ValueError, match=f"sigma has {n} numbers for 5 points: give one, or one for each point"):
        compute.beside(torch.ones(n), torch.zeros(5, 2))


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="device='gpu' is none of cuda, mps, cpu and auto"):
        compute.choose_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_this_machine_does_not_have_is_refused():
    """It was an AssertionError of PyTorch."""
    for device in ("cuda", "cuda:1", "meta"):
        with pytest.raises(ValueError, match=f"device='{device}' is none of .*, or not in this machine"):
            compute.choose_device(device)


def test_infinitely_many_gaussian_scores_are_refused():
    with pytest.raises(TypeError, match="n_scores=inf must be a whole number"):
        compute.scores_number(torch.zeros(1, 3), 0.1, math.inf)


@pytest.mark.parametrize("size", [3, compute.STRIPE, compute.STRIPE + 1, 2 * compute.STRIPE + 5])
def test_products_are_right_up_to_the_diagonal_and_are_added(size):
    rows = torch.randn(2, 7, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = torch.ones(2, size, size, dtype=torch.float64)
    compute.add_products(total, rows)
    assert torch.allclose(total.tril(), (1 + rows.mT @ rows).tril(), rtol=1e-12)
