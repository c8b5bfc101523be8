"""What a spectrum will take, said before."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from dimlib.apply import cost
from dimlib.apply.cost import expected_cost
from dimlib.data.exact import denoiser
from dimlib.data.manifolds import Sphere
from dimlib.machine import compute
from dimlib.svd import spectrum


def test_the_cost_is_that_of_the_spectrum():
    sphere = Sphere(3, 200)
    x = sphere.sample(4)
    found, rows = expected_cost(denoiser(sphere), x, 0.02), []
    spectrum(lambda y, sigma: rows.append(len(y)) or denoiser(sphere)(y, sigma), x, 0.02)
    assert found.evaluations == sum(rows) == 4 * 800 and "3,200 evaluations" in repr(found)
    assert found.bytes >= 2 * 200**2 * 8


def test_seconds_grow_with_the_points_and_the_scores(monkeypatch):
    """On a clock that goes on by a second at each reading, the 200 scores of a point and its solver take one each."""
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    sphere = Sphere(3, 50)
    assert expected_cost(denoiser(sphere), sphere.sample(1), 0.02).seconds == 2
    assert expected_cost(denoiser(sphere), sphere.sample(10), 0.02).seconds == 20
    assert expected_cost(denoiser(sphere), sphere.sample(1), 0.02, n_scores=2560).seconds == 11


def test_what_cannot_fit_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr(compute, "memory", lambda device: 1e6)
    with pytest.raises(MemoryError, match=r"d=200 entries needs 0.0032 GB, and 0.001 GB .* use tangent_sketch"):
        expected_cost(lambda x, sigma: x, torch.zeros(1, 200), 0.1)


@pytest.mark.parametrize("bad", [{"n_levels": 0}, {"steps": -1}, {"batch_size": -1}])
def test_a_fit_of_no_levels_or_rows_is_refused(bad):
    ((name, value),), sphere = bad.items(), Sphere(3, 20)
    given = {"n_levels": 8, "steps": 10, "batch_size": 5} | bad
    with pytest.raises(ValueError, match=f"{name}={value} must be at least"):
        cost.expected_seconds(denoiser(sphere), sphere.sample(2), 0.1, **given)


def test_a_fit_takes_its_steps_and_its_spectra(monkeypatch):
    """A second for an evaluation of a batch, on a clock that goes on by one at each reading. A spectrum takes two
    seconds for the sums, and a half for each of five eigenvalue problems: all copies, and those without a quarter."""
    batches = []
    monkeypatch.setattr(cost, "_measured", lambda *_: (1000, 2.0, 0.5, 0))
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    seconds = cost.expected_seconds(lambda x, sigma: batches.append(x.shape), torch.zeros(7, 3), 0.1, 8, 100, 50)
    assert seconds == 3 * 100 * 1 + 8 * (2 + 5 * 0.5) and set(batches) == {(50, 3)}
