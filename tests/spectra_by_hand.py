"""Spectra written down, not measured, for the tests of rules and plateaus."""

import numpy as np

from dimlib.svd import Spectrum

K = 400  # e = 1 − √(100/400) = 0.5, so the cut is at 0.25


def values(*blocks, d=100):
    """Descending values (1, d) from blocks (count, highest, lowest)."""
    v = np.concatenate([np.linspace(high, low, n) for n, high, low in blocks])
    assert len(v) == d and (np.diff(v) <= 1e-12).all()
    return v[None]


def hand_made(v, sigma=0.1, loss=None):
    loss = np.full(len(v), 10.0) if loss is None else np.asarray(loss)
    return Spectrum(v, loss, sigma, K)
