"""Random streams: one seed, as many independent streams as there are purposes."""

import pytest
import torch

import dimlib
from dimlib.seeds import stream


def draw(*args):
    return torch.randn(1000, generator=stream(*args))


def test_seed_and_purpose_make_the_stream():
    assert torch.equal(draw(1, "data"), draw(1, "data"))


@pytest.mark.parametrize("other", [(2, "data"), (-1, "data"), (1 + 2**32, "data"), (1, "isometry")])
def test_another_seed_or_purpose_is_another_stream(other):
    """Seeds 2³² apart too: torch's generator on the CPU reads only the lower 32 bits of its own seed."""
    a, b = draw(1, "data"), draw(*other)
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.2


def test_streams_do_not_start_alike():
    starts = torch.stack([draw(seed, f"step {i}")[:2] for seed in range(10) for i in range(100)])
    assert len(starts.unique(dim=0)) == 1000
    assert starts.mean().abs() < 0.1 and abs(starts.std() - 1) < 0.1


def test_points_are_not_the_rows_of_the_matrix_that_rotates_them():
    """If they were, Qᵀ would make them upper triangular: G = Q R."""
    plane = dimlib.data.manifolds.Plane(10, 10, seed=0)
    z = (plane.sample(10, seed=0).double() - plane.center) @ plane.frame
    assert torch.tril(plane.frame.T @ z, -1).abs().max() > 0.1
