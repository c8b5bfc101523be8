"""Noisy copies, and reverse diffusion with exact denoisers."""

import math
from functools import partial

import pytest
import torch

from dimlib.data.exact import denoiser
from dimlib.data.manifolds import Plane, Sphere, Union
from dimlib.machine.compute import rows_per_batch
from dimlib.sampler import (
    METHODS,
    noise_schedule,
    noisy_copies,
    reverse_diffusion,
    walk,
)

methods = pytest.mark.parametrize("method", METHODS)
PLANE = Plane(2, 6, std=(1.0, 0.4), seed=1, offset=20.0)
SPHERE = Sphere(2, 6, radius=1.5, seed=2, offset=20.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(manifold, method, n=3000, steps=150, **more):
    start = manifold.center.float()
    sigmas = noise_schedule(0.01, 10.0, steps)
    return reverse_diffusion(denoiser(manifold), n, (6,), sigmas, method, start=start, **more)


def test_noisy_copies_scatter_around_their_own_point():
    """Breaks if the noise forgets x_0, or its scale."""
    x0, sigma, n = 5 + 3 * torch.randn(4, 6, generator=generator()), 0.2, 20_000
    copies, _ = noisy_copies(x0, sigma, n, generator(1))
    assert copies.shape == (4, n, 6)
    assert (copies.mean(1) - x0).abs().max() < 5 * sigma / n**0.5
    assert torch.allclose(copies.std(1), torch.full((4, 6), sigma), rtol=0.03)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_the_noise_is_the_one_returned_and_the_same_for_every_point(shape):
    x0 = torch.randn(4, *shape, dtype=torch.float64)
    copies, noise = noisy_copies(x0, 0.3, 7, generator())
    assert copies.shape == (4, 7, *shape) and noise.shape == (7, *shape)
    assert copies.dtype == noise.dtype == torch.float64
    assert torch.allclose((copies - x0[:, None]) / 0.3, noise.expand_as(copies))


def test_the_noise_is_the_same_at_every_level():
    x0 = torch.randn(4, 3)
    assert torch.equal(noisy_copies(x0, 0.1, 7, generator())[1], noisy_copies(x0, 2.0, 7, generator())[1])


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan")])
def test_a_noise_level_that_is_none_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma=.*must be positive"):
        noisy_copies(torch.zeros(2, 3), sigma, 5, generator())


@pytest.mark.parametrize("n", [-1, 0])
def test_fewer_copies_than_one_are_refused(n):
    with pytest.raises(ValueError, match=f"n={n} must be at least 1"):
        noisy_copies(torch.zeros(2, 3), 0.1, n, generator())


def test_the_schedule_goes_down_in_equal_ratios():
    sigmas = noise_schedule(0.01, 10.0, 30)
    assert sigmas.shape == (31,)
    assert math.isclose(sigmas[0], 10, rel_tol=1e-5) and math.isclose(sigmas[-1], 0.01, rel_tol=1e-5)
    assert torch.allclose(sigmas[1:] / sigmas[:-1], torch.tensor(1e-3 ** (1 / 30)), rtol=1e-4)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (1.0, 0.1), (0.1, math.inf), (math.nan, 1.0)])
def test_a_schedule_that_is_none_is_refused(low, high):
    with pytest.raises(ValueError, match=f"need 0 < sigma_min < sigma_max, both finite, got {low} and {high}"):
        noise_schedule(low, high, 5)


@pytest.mark.parametrize("steps, error", [(0, ValueError), (2.5, TypeError)])
def test_a_schedule_of_no_whole_number_of_steps_is_refused(steps, error):
    with pytest.raises(error, match=f"steps={steps}"):
        noise_schedule(0.1, 1.0, steps)


@methods
def test_samples_of_a_plane_have_its_mean_and_covariance(method):
    x = sample(PLANE, method)
    assert x.shape == (3000, 6) and x.dtype == torch.float32
    assert PLANE.distance(x).max() < 1e-4
    along = (x.double() - PLANE.center) @ PLANE.frame
    assert (along.mean(0).abs() < 5 * PLANE.std / 3000**0.5).all()
    assert torch.allclose(along.T.cov(), torch.diag(PLANE.std**2), atol=0.12)
    assert (along.std(0) / PLANE.std - 1).abs().max() < 0.08


@methods
def test_samples_of_a_sphere_cover_it_evenly(method):
    x = sample(SPHERE, method)
    assert SPHERE.distance(x).max() < 0.02
    along = (x.double() - SPHERE.center) @ SPHERE.frame
    assert along.mean(0).abs().max() < 5 * 1.5 / (3 * 3000) ** 0.5
    assert torch.allclose(along.T.cov(), 0.75 * torch.eye(3, dtype=torch.float64), atol=0.07)


def test_samples_of_a_union_come_from_its_parts_by_weight():
    union = Union([Sphere(1, 4, seed=1), Plane(2, 4, std=0.2, seed=2, offset=4.0)], [3, 1])
    x = reverse_diffusion(denoiser(union), 2000, (4,), noise_schedule(0.01, 40.0, 100))
    assert union.distance(x).median() < 1e-3
    assert abs((union.component(x) == 0).double().mean() - 0.75) < 0.05


@pytest.mark.parametrize("method, order", [("euler", 1), ("heun", 2)])
def test_order_of_convergence(method, order):
    """Against the exact flow of a Gaussian, (x − b)_j ∝ √(s_j² + σ²): twice the steps, 2^−order the error."""
    exact, high, low = denoiser(PLANE), 5.0, 0.05
    along = 5 * torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    x = PLANE.center + along @ PLANE.frame.T
    scale = ((PLANE.std**2 + low**2) / (PLANE.std**2 + high**2)).sqrt()
    target = PLANE.center + (along * scale) @ PLANE.frame.T
    errors = []
    for steps in (40, 80):
        y, sigmas = x, noise_schedule(low, high, steps).tolist()
        for a, b in zip(sigmas, sigmas[1:], strict=False):
            y = METHODS[method](exact, y, a, b, None)
        errors.append((y - target).norm())
    assert abs(torch.log2(errors[0] / errors[1]) - order) < 0.25


@pytest.mark.parametrize("euler_steps", [20, 40])  # as many steps, as many evaluations
def test_heun_beats_euler(euler_steps):
    fine = sample(PLANE, "heun", n=200, steps=1000)
    euler, heun = (sample(PLANE, method, n=200, steps=steps)
                   for method, steps in [("euler", euler_steps), ("heun", 20)])
    assert (heun - fine).norm() < (euler - fine).norm() / 2


@methods
def test_the_same_seed_draws_the_same_bits_and_another_seed_others(method):
    for batch_size in (None, 20):
        a, b, c = (sample(PLANE, method, n=50, steps=5, seed=seed, batch_size=batch_size) for seed in (1, 1, 2))
        assert torch.equal(a, b) and (a - c).abs().max() > 0.1


@methods
@pytest.mark.parametrize("batch_size", [1, 7, 49])
def test_the_batch_size_changes_no_sample(method, batch_size):
    draw = partial(sample, PLANE, method, n=50, steps=4)
    assert torch.allclose(draw(batch_size=batch_size), draw(batch_size=50), atol=1e-4)


@methods
def test_a_denoiser_that_works_in_place_draws_the_same_samples(method):
    def in_place(x, sigma):
        return x.copy_(denoiser(PLANE)(x, sigma))

    sigmas, start = noise_schedule(0.01, 10.0, 5), PLANE.center.float()
    ours, theirs = (reverse_diffusion(d, 20, (6,), sigmas, method, start=start) for d in (in_place, denoiser(PLANE)))
    assert torch.equal(ours, theirs)


def test_one_step_of_the_predictor_corrector():
    """To D = 0 with no noise but ones: Euler–Maruyama, then τ = (0.16 σ')²."""
    x, high, low = torch.full((1, 2), 3.0), 2.0, 1.0
    predicted = 3 - (high**2 - low**2) / high * (3 / high) + (high**2 - low**2) ** 0.5
    tau = (0.16 * low) ** 2
    expected = predicted - tau / low * (predicted / low) + (2 * tau) ** 0.5
    found = METHODS["predictor_corrector"](lambda x, s: 0 * x, x, high, low, lambda: torch.ones(1, 2))
    assert torch.allclose(found, torch.full((1, 2), expected))



def test_samples_start_where_told():
    """The identity denoiser moves nothing: the start shows."""
    x = reverse_diffusion(lambda x, sigma: x, 4000, (2, 3), noise_schedule(0.1, 2.0, 1), start=torch.full((2, 3), 7.0))
    assert torch.allclose(x.mean(0), torch.full((2, 3), 7.0), atol=0.2)
    assert torch.allclose(x.std(0), torch.full((2, 3), 2.0), rtol=0.1)


def test_an_unknown_method_is_refused():
    known = "euler, heun, euler_maruyama, predictor_corrector"
    with pytest.raises(ValueError, match=f"'ddim' is none of {known}"):
        sample(PLANE, "ddim")


@methods
@pytest.mark.parametrize("sigmas", [[0.1, 1.0], [1.0, 0.0], [1.0, -0.1]])
def test_noise_levels_that_do_not_fall_are_refused(method, sigmas):
    with pytest.raises(ValueError, match="sigmas"):
        reverse_diffusion(denoiser(PLANE), 3, (6,), torch.tensor(sigmas), method)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="n=0"):
        sample(PLANE, "heun", n=0)


def test_rows_per_batch_fills_a_tenth_of_a_gigabyte_and_is_at_least_one():
    cpu = torch.device("cpu")
    assert rows_per_batch(None, 100, cpu) == 1250                                # × 100 × 200 × 4 bytes = 100 MB
    assert rows_per_batch(None, 200, cpu) == 625
    assert rows_per_batch(None, 10**9, cpu) == 1
    assert rows_per_batch(7, 100, cpu) == 7


# ---------------------------------------------------------------- walks


def test_a_walk_in_a_tangent_direction_follows_the_great_circle():
    x = SPHERE.project(SPHERE.sample(1, seed=3).double())
    tangent = SPHERE.tangent_basis(x)[0, :, 0]
    path = walk(denoiser(SPHERE), x[0], 7 * tangent, 0.01, 0.03, 100)
    assert path.shape == (101, 6) and torch.equal(path[0], x[0])
    arms = (path - SPHERE.center) / 1.5
    assert torch.allclose(arms.norm(dim=1), torch.ones(101, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(arms @ arms[0], torch.linspace(0, 2, 101, dtype=torch.float64).cos(), atol=0.02)
    assert torch.allclose(arms @ tangent, torch.linspace(0, 2, 101, dtype=torch.float64).sin(), atol=0.02)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_walk_in_a_normal_direction_stays_where_it_is(steps):
    x = SPHERE.project(SPHERE.sample(1, seed=3).double())
    path = walk(denoiser(SPHERE), x[0], x[0] - SPHERE.center, 0.01, 0.05, steps)
    assert (path - x[0]).norm(dim=1).max() < 1e-3


@pytest.mark.parametrize("direction", [torch.zeros(3), torch.ones(4), torch.tensor([0, 1, 0])])
def test_a_walk_needs_a_direction(direction):
    with pytest.raises(ValueError, match="direction must be a vector other than 0"):
        walk(lambda x, sigma: x, torch.ones(3), direction, 0.1, 0.1, 1)


@pytest.mark.parametrize("step", [-0.1, 0.0, float("nan"), float("inf"), None])
def test_a_walk_needs_a_step(step):
    """A negative one turned the direction after each move, so that the path went to and fro."""
    with pytest.raises(ValueError, match="step=.* must be a positive number: to walk the other way, give -direction"):
        walk(lambda x, sigma: x, torch.zeros(3), torch.ones(3), 0.1, step, 2)


def test_copies_have_one_noise_level():
    """One for each point would multiply the columns where there are as many columns as points."""
    with pytest.raises(ValueError, match="give one noise level, for all points"):
        noisy_copies(torch.zeros(3, 3), torch.ones(3), 2, torch.Generator())


def test_samples_on_the_device_auto():
    assert reverse_diffusion(lambda x, sigma: x, 2, (3,), [1.0, 0.5], device="auto").shape == (2, 3)
