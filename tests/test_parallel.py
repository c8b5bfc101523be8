"""Several devices find what one finds. Here they are the CPU, several times."""

import threading

import numpy as np
import pytest
import torch

from dimlib import exact, manifolds
from dimlib.parallel import spectrum_over
from dimlib.svd import spectrum

SPHERE = manifolds.Sphere(3, 8, seed=2, offset=1.0)
DENOISER = exact.denoiser(SPHERE)


@pytest.mark.parametrize("n_devices", [1, 2, 3, 9])
@pytest.mark.parametrize("directions", [False, True])
def test_parts_are_joined_in_order(n_devices, directions):
    x = SPHERE.sample(7).double()
    together = spectrum_over([("cpu", DENOISER)] * n_devices, x, 0.02, seed=3, directions=directions)
    alone = spectrum(DENOISER, x, 0.02, seed=3, directions=directions)
    np.testing.assert_allclose(together.values, alone.values, atol=1e-12)
    np.testing.assert_allclose(together.loss, alone.loss, atol=1e-9)
    assert (together.dimension() == 3).all() and (together.n_scores, together.sigma) == (32, 0.02)
    if directions:
        np.testing.assert_allclose(abs(np.sum(together.directions * alone.directions, axis=2)), 1, atol=1e-6)


def test_each_device_asks_its_own_denoiser_at_its_own_points():
    seen = {}

    def denoiser(name):
        def call(x, sigma):
            seen.setdefault(name, set()).add(threading.get_ident())
            return torch.zeros_like(x) if name == "first" else x
        return call

    found = spectrum_over([("cpu", denoiser("first")), ("cpu", denoiser("second"))], torch.zeros(4, 5), 0.1)
    assert found.dimension().tolist() == [0, 0, 5, 5] and set(seen) == {"first", "second"}


def test_errors_come_through():
    with pytest.raises(ValueError, match="devices is empty"):
        spectrum_over([], torch.zeros(2, 3), 0.1)
    with pytest.raises(ValueError, match="returned shape"):
        spectrum_over([("cpu", lambda x, sigma: x[:1])], torch.zeros(2, 3), 0.1)
