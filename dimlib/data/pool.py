"""Twenty-six manifolds of known dimension, on which the recipe of `DiffusionDimension` was set.

They are small and unlike each other: spheres, knots, twisted bands, thin and steep graphs, cubes with edges, random
networks, uneven densities, and data with noise. A name ends with the ambient dimension: "torus_knot_in_30".
"""

import zlib
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..machine.checks import check_count

__all__ = ["POOL", "draw"]

PI = np.pi


def draw(name: str, n: int = 2500, seed: int = 0) -> tuple[NDArray, int]:
    """n points of the manifold with that name, shape (n, d), in float32, and their dimension k.

    The seed also draws what is random in the manifold itself: its rotation and its coefficients.

    Raises:
        ValueError: an unknown name, or n < 1.
    """
    check_count("n", n)
    if name not in POOL:
        raise ValueError(f"no manifold {name!r} in the pool: choose one of {', '.join(POOL)}")
    dim, make = POOL[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return make(n, rng).astype(np.float32), dim


def _turned(x: NDArray, d: int, rng: Generator) -> NDArray:
    """Points x in a space of d dimensions, by a random isometry."""
    return x @ np.linalg.qr(rng.standard_normal((d, x.shape[1])))[0].T


def _sphere(n: int, k: int, rng: Generator) -> NDArray:
    x = rng.standard_normal((n, k + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _circle(n: int, rng: Generator, radius: float = 1) -> NDArray:
    angle = 2 * PI * rng.random(n)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _torus_curve(n: int, rng: Generator, along: int, around: int) -> NDArray:
    """A closed curve on a torus, ``along`` times along it and ``around`` times around it."""
    t = 2 * PI * rng.random(n)
    r = 2 + np.cos(around * t)
    return np.stack([r * np.cos(along * t), r * np.sin(along * t), np.sin(around * t)], 1)


def _roll(n: int, rng: Generator, width: float) -> NDArray:
    s = 1.5 * PI * (1 + 2 * rng.random(n))
    return np.stack([s * np.cos(s), width * rng.random(n), s * np.sin(s)], 1)


def _cube_surface(n: int, rng: Generator, d: int) -> NDArray:
    x = rng.random((n, d))
    x[np.arange(n), rng.integers(0, d, n)] = rng.integers(0, 2, n)
    return x


def _moebius(n: int, rng: Generator) -> NDArray:
    """A band with three half twists."""
    a, w = 2 * PI * rng.random(n), rng.random(n) - 0.5
    r = 1 + w * np.cos(1.5 * a)
    return np.stack([r * np.cos(a), r * np.sin(a), w * np.sin(1.5 * a)], 1)


def _ball(n: int, rng: Generator, k: int) -> NDArray:
    return _sphere(n, k - 1, rng) * rng.random((n, 1)) ** (1 / k)


def _paraboloid(n: int, rng: Generator, k: int, height: float) -> NDArray:
    """A graph that is long in one direction and thin in all others."""
    z = rng.random((n, k))
    return np.hstack([z, height * (z**2).sum(1, keepdims=True), np.sin(3 * z), z[:, :1] * z[:, 1:]])


def _polar_chain(n: int, rng: Generator, k: int) -> NDArray:
    """Each coordinate is an angle, and the radius of the next one."""
    z = rng.random((n, k))
    r = np.roll(z, -1, 1)
    return np.tile(np.hstack([r * np.cos(2 * PI * z), r * np.sin(2 * PI * z)]), 2)


def _beta(n: int, rng: Generator, k: int) -> NDArray:
    """Most points are near one corner."""
    z = rng.beta(2, 8, (n, k))
    return np.hstack([z, np.sin(2 * z), z[:, :1] * z])


def _flat_torus(n: int, rng: Generator, k: int) -> NDArray:
    return np.hstack([_circle(n, rng) for _ in range(k)])


def _waves(n: int, rng: Generator, k: int) -> NDArray:
    """The graph of twenty sines of random frequencies."""
    z = rng.random((n, k))
    return np.hstack([z, np.sin(z @ rng.standard_normal((k, 20)) * 2.5 + 6 * rng.random(20))])


def _network(n: int, rng: Generator, k: int, d: int, gain: float) -> NDArray:
    """The image of Gaussian points under a random network with two layers of 64 units."""
    h = rng.standard_normal((n, k))
    for _ in range(2):
        h = np.tanh(h @ rng.standard_normal((h.shape[1], 64)) * gain / h.shape[1] ** 0.5 + rng.standard_normal(64) / 2)
    return h @ rng.standard_normal((64, d)) / 8


def _spiral(n: int, rng: Generator) -> NDArray:
    t = 6 * PI * rng.random(n)
    return np.stack([t * np.cos(t), t * np.sin(t), t / 2], 1)


def _fast_curve(n: int, rng: Generator) -> NDArray:
    t = 2 * PI * rng.random(n)
    return np.stack([np.cos(t), np.sin(t), np.cos(17 * t) / 2, np.sin(17 * t) / 2], 1)


POOL: dict[str, tuple[int, Callable[[int, Generator], NDArray]]] = {
    "sphere_5_in_20": (5, lambda n, rng: _turned(_sphere(n, 5, rng), 20, rng)),
    "sphere_15_in_60": (15, lambda n, rng: _turned(_sphere(n, 15, rng), 60, rng)),
    "sphere_30_in_100": (30, lambda n, rng: _turned(_sphere(n, 30, rng), 100, rng)),
    "cube_surface_in_9": (8, lambda n, rng: _cube_surface(n, rng, 9)),
    "gaussian_in_12": (12, lambda n, rng: rng.standard_normal((n, 12))),
    "ball_6_in_10": (6, lambda n, rng: _turned(_ball(n, rng, 6), 10, rng)),
    "torus_curve_in_3": (1, lambda n, rng: _torus_curve(n, rng, 2, 13)),
    "torus_knot_in_30": (1, lambda n, rng: _turned(_torus_curve(n, rng, 3, 7), 30, rng)),
    "wide_roll_in_10": (2, lambda n, rng: _turned(_roll(n, rng, 60), 10, rng)),
    "moebius_in_5": (2, lambda n, rng: _turned(_moebius(n, rng), 5, rng)),
    "paraboloid_5_in_15": (5, lambda n, rng: _paraboloid(n, rng, 5, 6)),
    "polar_chain_6_in_24": (6, lambda n, rng: _polar_chain(n, rng, 6)),
    "three_circles_in_20": (3, lambda n, rng: _turned(np.hstack([_circle(n, rng, r) for r in (1, 0.5, 0.2)]), 20, rng)),
    "beta_6_in_20": (6, lambda n, rng: _turned(_beta(n, rng, 6), 20, rng)),
    "flat_torus_3_in_30": (3, lambda n, rng: _turned(_flat_torus(n, rng, 3), 30, rng)),
    "waves_4_in_40": (4, lambda n, rng: _turned(_waves(n, rng, 4), 40, rng)),
    "noisy_sphere_8_in_30": (8, lambda n, rng: _turned(_sphere(n, 8, rng), 30, rng)
                             + 0.01 * rng.standard_normal((n, 30))),
    "noisy_roll_in_3": (2, lambda n, rng: _roll(n, rng, 21) + 0.1 * rng.standard_normal((n, 3))),
    "exponential_plane_8_in_12": (8, lambda n, rng: _turned(rng.exponential(size=(n, 8)), 12, rng)),
    "spiral_in_13": (1, lambda n, rng: _turned(_spiral(n, rng), 13, rng)),
    "network_8_in_64": (8, lambda n, rng: _network(n, rng, 8, 64, 1.5)),
    "network_3_in_50": (3, lambda n, rng: _network(n, rng, 3, 50, 2.5)),
    "scaled_plane_5_in_15": (5, lambda n, rng: _turned(rng.standard_normal((n, 5)) * [1, 0.3, 0.1, 0.05, 0.02],
                                                       15, rng)),
    "sphere_times_interval_in_10": (3, lambda n, rng: _turned(
        np.hstack([_sphere(n, 2, rng), rng.random((n, 1)) / 5]), 10, rng)),
    "paraboloid_7_in_21": (7, lambda n, rng: _paraboloid(n, rng, 7, 25)),
    "fast_curve_in_8": (1, lambda n, rng: _turned(_fast_curve(n, rng), 8, rng)),
}
