"""The pool: shapes, seeds and dimensions."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from dimlib.data.pool import POOL, draw


@pytest.mark.parametrize("name", POOL)
def test_points_have_the_shape_that_the_name_says(name):
    x, k = draw(name, 50, seed=1)
    assert x.shape == (50, int(name.rsplit("_", 1)[1])) and x.dtype == np.float32 and np.isfinite(x).all()
    assert 1 <= k <= x.shape[1]
    assert any(part.isdigit() and int(part) == k for part in name.split("_")[:-2]) or not any(
        part.isdigit() for part in name.split("_")[:-2]), "the dimension in the name"


@pytest.mark.parametrize("name", [name for name in POOL if "noisy" not in name and POOL[name][0] <= 3])
def test_distances_to_neighbours_agree_with_a_small_dimension(name):
    x, k = draw(name, 40_000, seed=3)
    distances = NearestNeighbors(n_neighbors=11).fit(x).kneighbors(x[:2000])[0][:, 1:].astype(float)
    assert 1 / np.log(distances[:, -1:] / distances[:, :-1]).mean() == pytest.approx(k, rel=0.08)


@pytest.mark.parametrize("name", [name for name in POOL if POOL[name][0] > 3])
def test_the_linear_hull_has_at_least_the_dimension(name):
    x, k = draw(name, 1000, seed=3)
    assert np.linalg.matrix_rank((x - x.mean(0)).astype(float), tol=1e-3 * np.abs(x).max()) >= k


def test_the_same_seed_gives_the_same_points_and_another_does_not():
    name = "torus_knot_in_30"
    assert np.array_equal(draw(name, 20, seed=5)[0], draw(name, 20, seed=5)[0])
    assert not np.allclose(draw(name, 20, seed=5)[0], draw(name, 20, seed=6)[0])


def test_an_unknown_name_is_an_error_that_lists_the_names():
    with pytest.raises(ValueError, match="sphere_5_in_20"):
        draw("sphere")


def test_no_points_are_an_error():
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        draw("torus_knot_in_30", 0)
