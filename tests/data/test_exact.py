"""Exact denoisers against Monte Carlo, against Tweedie's formula and against special functions."""

import math

import pytest
import torch
from scipy import special

from dimlib.data.exact import Empirical, GaussianPlane, Mixture, UniformSphere, _bessel, denoiser
from dimlib.data.manifolds import Cube, Plane, SpaghettiLine, Sphere, Union

PRIORS = [
    pytest.param(Plane(2, 5, std=(1.0, 0.4), seed=1, offset=3.0), id="plane"),
    pytest.param(Plane(4, 4, std=(1.0, 0.4, 0.2, 2.0), seed=1, offset=3.0), id="full Gaussian"),
    pytest.param(Sphere(1, 3, radius=1.5, seed=2, offset=3.0), id="circle"),
    pytest.param(Sphere(2, 5, seed=3, offset=3.0), id="sphere"),
    pytest.param(Sphere(0, 3, seed=3, offset=3.0), id="two points"),
    pytest.param(SpaghettiLine(4, seed=4), id="curve"),
    pytest.param(Union([Sphere(2, 5, radius=0.5, seed=5), Plane(1, 5, seed=6, offset=1.0)], [3, 1]),
                 id="union"),
    pytest.param(Union([Sphere(1, 2, radius=0.7, seed=5), Sphere(0, 2, seed=6, offset=1.0),
                        Plane(2, 2, std=0.2, seed=7, offset=2.0)], [1, 2, 1]), id="three parts"),
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(manifold, n, sigma, seed=7):
    x0 = manifold.sample(n, seed).double()
    return x0 + sigma * normal(*x0.shape, seed=seed + 1)


@pytest.mark.parametrize("manifold", PRIORS)
@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_denoiser_and_density_agree_with_importance_sampling(manifold, sigma):
    """E[x_0 | x] = Σ w_i x_i / Σ w_i with w_i = N(x; x_i, σ²) and x_i from the prior; p(x) = mean w_i."""
    exact, x = denoiser(manifold), noisy(manifold, 6, sigma)
    prior = manifold.sample(200_000, seed=1).double()
    w = torch.exp(-torch.cdist(x, prior).square() / (2 * sigma**2))
    mean = w @ prior / w.sum(1, keepdim=True)
    spread = torch.stack([(row[:, None] * (prior - m)).square().sum(0).sqrt() / row.sum()
                          for row, m in zip(w, mean, strict=True)])         # standard error
    assert spread.max() < 0.02, "too few samples to say anything"
    assert ((exact(x, sigma) - mean).abs() < 5 * spread + 1e-4).all()

    density = w.mean(1) / (2 * math.pi * sigma**2) ** (x.shape[1] / 2)
    error = w.std(1) / w.mean(1) / len(prior) ** 0.5
    assert ((exact.log_density(x, sigma) - density.log()).abs() < 5 * error + 1e-4).all()


@pytest.mark.parametrize("manifold", PRIORS + [pytest.param(Sphere(30, 50, seed=8, offset=2.0), id="S30"),
                                               pytest.param(Plane(10, 50, seed=9, offset=2.0), id="P10")])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_tweedie(manifold, sigma):
    exact, x = denoiser(manifold), noisy(manifold, 6, sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(exact.log_density(x, sigma).sum(), x)
    assert torch.allclose(exact(x, sigma), x + sigma**2 * gradient, atol=1e-6)


def test_tweedie_for_weighted_points():
    exact = Empirical(normal(50, 6) + 3, weights=torch.rand(50) + 0.1, block=7)
    x = (normal(5, 6, seed=1) + 3).requires_grad_()
    for sigma in (0.3, 2.0):
        (gradient,) = torch.autograd.grad(exact.log_density(x, sigma).sum(), x)
        assert torch.allclose(exact(x, sigma), x + sigma**2 * gradient, atol=1e-8)


IN_THE_PLANE = [
    pytest.param(Plane(1, 2, std=0.5, seed=1, offset=2.0), id="line"),
    pytest.param(Plane(2, 2, std=(0.5, 0.2), seed=1, offset=2.0), id="full Gaussian"),
    pytest.param(Sphere(1, 2, seed=2, offset=2.0), id="circle"),
    pytest.param(Union([Sphere(1, 2, seed=2), Plane(1, 2, std=0.3, seed=3, offset=1.0)], [1, 4]),
                 id="union"),
]


@pytest.mark.parametrize("manifold", IN_THE_PLANE)
@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_density_integrates_to_one(manifold, sigma):
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    total = denoiser(manifold).log_density(x, sigma).exp().sum() * (axis[1] - axis[0]) ** 2
    assert math.isclose(total, 1, abs_tol=1e-4)


def test_the_density_of_points_integrates_to_one():
    axis = torch.linspace(-6, 6, 301, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    points = Empirical(normal(20, 2), weights=torch.rand(20) + 0.1, block=6)
    assert math.isclose(points.log_density(x, 0.3).exp().sum() * 0.04**2, 1, abs_tol=1e-6)


ORDERS = [-0.5, 0.0, 0.5, 4.5, 12.0, 24.5, 49.5, 500.0]


def scipy_bessel(order, kappa):
    """e^{-κ} I_ν(κ) and e^{-κ} I_{ν+1}(κ), and where scipy has not underflowed."""
    values = [torch.from_numpy(special.ive(nu, kappa.numpy())) for nu in (order, order + 1)]
    seen = values[1] > 1e-290
    assert seen.sum() > 0.4 * len(kappa)
    return kappa[seen], values[0][seen], values[1][seen]


@pytest.mark.parametrize("dtype, digits", [(torch.float64, 2e-7), (torch.float32, 1e-5)])
@pytest.mark.parametrize("order", ORDERS)
def test_bessel_ratio_agrees_with_scipy(order, dtype, digits):
    kappa, here, above = scipy_bessel(order, torch.logspace(-2, 8, 101, dtype=torch.float64))
    ratio = kappa * _bessel(order, kappa.to(dtype)[:, None])[0][:, 0].double()
    assert torch.allclose(ratio, above / here, rtol=digits, atol=0)


@pytest.mark.parametrize("dtype, absolute, relative",
                         [(torch.float64, 1e-4, 1e-9), (torch.float32, 2e-3, 1e-6)])
@pytest.mark.parametrize("order", ORDERS)
def test_log_bessel_agrees_with_scipy(order, dtype, absolute, relative):
    kappa, here, _ = scipy_bessel(order, torch.logspace(-2, 6, 81, dtype=torch.float64))
    expected = here.log() + kappa - order * kappa.log()
    computed = _bessel(order, kappa.to(dtype)[:, None])[1][:, 0].double()
    assert torch.allclose(computed, expected, rtol=relative, atol=absolute)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("order", ORDERS)
def test_bessel_ratio_at_the_ends(order, dtype):
    """A(κ)/κ → 1/(2ν + 2) as κ → 0, and A(κ) → 1 as κ → ∞."""
    small = torch.tensor([[0.0], [1e-30], [1e-6]], dtype=dtype)
    expected = torch.full_like(small, 1 / (2 * order + 2))
    assert torch.allclose(_bessel(order, small)[0], expected, rtol=1e-5)
    large = torch.tensor([[1e12], [1e18], [1e25]], dtype=dtype)
    assert torch.allclose(large * _bessel(order, large)[0], torch.ones_like(large), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 1.0, 100.0])
def test_a_sphere_denoises_its_own_centre_to_the_centre(dtype, sigma):
    sphere = Sphere(10, 30, seed=1, offset=5.0)
    centre = sphere.center[None].to(dtype)
    assert torch.allclose(UniformSphere(sphere)(centre, sigma), centre, atol=1e-5)


def test_two_points_denoise_by_a_hyperbolic_tangent():
    pair = Sphere(0, 3, radius=2.0, seed=1, offset=5.0)                     # b ± 2q
    x = noisy(pair, 8, 0.9)
    along = (x - pair.center) @ pair.frame
    expected = pair.center + 2 * torch.tanh(2 * along / 0.9**2) * pair.frame[:, 0]
    assert torch.allclose(denoiser(pair)(x, 0.9), expected, atol=1e-9)


@pytest.mark.parametrize("manifold", [Plane(3, 9, seed=1, offset=4.0), Sphere(3, 9, seed=1, offset=4.0),
                                      SpaghettiLine(9, seed=1)], ids=["plane", "sphere", "curve"])
def test_little_noise_projects(manifold):
    x = noisy(manifold, 20, 0.01, seed=3)
    ends = (x - manifold.project(x)).norm(dim=1) > 0.06                     # beyond the ends of the curve
    gap = (denoiser(manifold)(x, 0.01) - manifold.project(x)).norm(dim=1)
    assert gap[~ends].max() < 2e-3 and ends.sum() <= 2


@pytest.mark.parametrize("manifold", PRIORS)
def test_much_noise_answers_the_mean(manifold):
    mean = manifold.sample(100_000).double().mean(0)
    x = mean + 100 * normal(5, manifold.ambient_dim)
    assert torch.allclose(denoiser(manifold)(x, 1e3), mean.expand(5, -1), atol=0.03)


@pytest.mark.parametrize("manifold", PRIORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract(manifold, dtype):
    """Shape and dtype are those of x, and a sigma per row answers as one sigma does."""
    exact, x = denoiser(manifold), noisy(manifold, 4, 0.3).to(dtype)
    sigma = torch.tensor([0.1, 0.3, 0.3, 2.0], dtype=dtype)
    together, density = exact(x, sigma), exact.log_density(x, sigma)
    assert together.shape == x.shape and together.dtype == dtype
    assert density.shape == (4,) and density.dtype == dtype
    for i, level in enumerate([0.1, 0.3, 0.3, 2.0]):
        assert torch.allclose(together[i], exact(x[i : i + 1], level)[0], atol=1e-5)
        assert torch.allclose(density[i], exact.log_density(x[i : i + 1], level)[0], atol=1e-4)


@pytest.mark.parametrize("manifold", PRIORS)
@pytest.mark.parametrize("sigma", [0.01, 0.1])
def test_float32_agrees_with_float64(manifold, sigma):
    x = noisy(manifold, 20, sigma)
    exact = denoiser(manifold)
    error = (exact(x.float(), sigma).double() - exact(x.float().double(), sigma)).abs().max()
    assert error < 0.02 * sigma


def direct_softmax(x, points, log_weights, sigma):
    logits = log_weights - (x[:, None] - points).square().sum(-1) / (2 * sigma**2)
    return logits.softmax(1) @ points, logits.logsumexp(1)


@pytest.mark.parametrize("block", [1, 7, 100, 4096])
@pytest.mark.parametrize("sigma", [0.01, 0.5, 5.0])
def test_points_streamed_in_blocks_are_a_softmax_over_all(block, sigma):
    points = normal(100, 6) + 40                                           # far from the origin
    weights = torch.rand(100, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    exact = Empirical(points, weights, block)
    x = points[:9] + sigma * normal(9, 6, seed=1)
    mean, log_sum = direct_softmax(x, points, torch.log(weights / weights.sum()), sigma)
    assert torch.allclose(exact(x, sigma), mean, atol=1e-6)
    expected = log_sum - 3 * math.log(2 * math.pi * sigma**2)
    assert torch.allclose(exact.log_density(x, sigma), expected, atol=1e-5)


def test_points_need_no_matrix_of_all_distances(monkeypatch):
    sizes = []
    cdist = torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda x, y, **more: sizes.append(len(y)) or cdist(x, y, **more))
    Empirical(normal(1000, 3), block=128)(normal(5, 3), 1.0)
    assert max(sizes) == 128 and sum(sizes) == 1000


@pytest.mark.parametrize("t", [0.0, 0.01, 0.5, 1.0])
def test_the_quadrature_of_the_curve_is_converged_at_its_smallest_sigma(t):
    """Error of D in ε units, against a rule with ten times the nodes, in the middle and at the ends."""
    line, sigma = SpaghettiLine(20, seed=1), 0.01
    place = torch.sin(torch.tensor([[t]], dtype=torch.float64) * line.frequencies) @ line.frame.T
    x = place + sigma * normal(20, 20)
    nodes = torch.linspace(0, 1, 60_001, dtype=torch.float64)[:, None]
    weights = torch.ones(len(nodes))
    weights[[0, -1]] = 0.5
    fine = Empirical(torch.sin(nodes * line.frequencies) @ line.frame.T, weights)
    assert (denoiser(line)(x, sigma) - fine(x, sigma)).norm(dim=1).max() < 0.05 * sigma


def test_a_mixture_weighs_its_parts_by_exact_densities():
    """Two half-spaces apart, the answer is one part's; where the densities tie, the prior weights decide."""
    left, right = Plane(3, 3, seed=1, offset=0.0), Plane(3, 3, seed=1, offset=4.0)
    pair = denoiser(Union([left, right], [1, 3]))
    middle = (right.center / 2)[None]
    parts = [GaussianPlane(part)(middle, 0.5) for part in (left, right)]
    assert torch.allclose(pair(middle, 0.5), 0.25 * parts[0] + 0.75 * parts[1])
    near = right.center[None]
    assert torch.allclose(pair(near, 0.5), GaussianPlane(right)(near, 0.5), atol=0.01)


def test_a_mixture_of_a_part_with_itself_is_the_part():
    sphere = UniformSphere(Sphere(2, 5, seed=1, offset=2.0))
    twice = Mixture([sphere, sphere], torch.tensor([0.3, 0.7]))
    x = noisy(sphere.sphere, 5, 0.5)
    assert torch.allclose(twice(x, 0.5), sphere(x, 0.5))
    assert torch.allclose(twice.log_density(x, 0.5), sphere.log_density(x, 0.5), atol=1e-6)


def test_a_manifold_without_a_formula_says_what_to_use():
    with pytest.raises(TypeError, match=r"Cube has no closed-form denoiser; use Empirical"):
        denoiser(Cube(2, 5))


def test_a_finite_set_far_from_the_origin_is_denoised_as_at_the_origin():
    x = torch.randn(200, 3, dtype=torch.float64)
    here, there = Empirical(x)(x[:5] + 0.01, 0.05), Empirical(x + 1e7)(x[:5] + 1e7 + 0.01, 0.05)
    assert torch.allclose(there - 1e7, here, atol=1e-6)


@pytest.mark.parametrize("manifold", [Plane(2, 4), Sphere(2, 4), SpaghettiLine(4), Union([Plane(1, 4), Sphere(2, 4)])])
@pytest.mark.parametrize("sigma", [-0.1, 0.0, float("nan"), float("inf")])
def test_a_noise_level_that_is_not_positive_is_refused(manifold, sigma):
    """-0.1 gave the answer of 0.1."""
    for function in (denoiser(manifold), denoiser(manifold).log_density):
        with pytest.raises(ValueError, match="sigma="):
            function(manifold.sample(3), sigma)


def test_a_large_batch_in_half_precision():
    """The limit is for each point, and not for their sum."""
    x = Sphere(2, 4).sample(1000).half()
    assert denoiser(Sphere(2, 4))(x, 0.1).isfinite().all()


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [math.inf, 1.0], [math.nan, 1.0], [0.0, 0.0], [1.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="give one positive number for each of the 2 parts"):
        Empirical(normal(2, 3), torch.tensor(weights))
    with pytest.raises(ValueError, match="give one positive number for each of the 2 parts"):
        Mixture([denoiser(Sphere(1, 3))] * 2, torch.tensor(weights))


def test_a_mixture_needs_weights_with_the_sum_one():
    with pytest.raises(ValueError, match="must have the sum 1: divide them"):
        Mixture([denoiser(Sphere(1, 3))] * 2, torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("given, message", [
    ({"points": torch.full((2, 3), math.nan)}, "NaN"), ({"points": torch.ones(3)}, "tensor of points"),
    ({"points": torch.ones(2, 3, 4)}, "shape"), ({"block": 0}, "block=0 must be at least 1"),
    ({"sigma_min": math.nan}, "sigma_min=nan must be")])
def test_an_empirical_denoiser_of_nothing_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Empirical(**{"points": normal(2, 3)} | given)


@pytest.mark.parametrize("sigma_min", [0, -1.0, math.nan, math.inf])
def test_a_curve_needs_a_positive_noise_level(sigma_min):
    with pytest.raises(ValueError, match="sigma_min=.* must be positive"):
        denoiser(SpaghettiLine(5), sigma_min)


def test_a_curve_with_too_many_nodes_is_refused_and_the_advice_is_good(monkeypatch):
    monkeypatch.setattr("dimlib.data.exact.MOST_NUMBERS", 2e4)
    with pytest.raises(ValueError, match=r"needs 1.48e\+06 nodes in R\^5.*use sigma_min=\S+ or more") as error:
        denoiser(SpaghettiLine(5), 1e-5)
    denoiser(SpaghettiLine(5), float(str(error.value).split("use sigma_min=")[1].split()[0]))


def test_the_nodes_of_a_curve_are_enough_at_large_noise_levels():
    line, x = SpaghettiLine(5), torch.zeros(1, 5, dtype=torch.float64)
    nearly = denoiser(line, 0.01)(x, 10.0)
    assert torch.allclose(denoiser(line, 10.0)(x, 10.0), nearly, atol=0.02)


@pytest.mark.parametrize("manifold", [Plane(2, 4), Sphere(2, 4), SpaghettiLine(4)])
def test_a_density_that_overflows_is_refused(manifold):
    x, sigma = torch.zeros(1, 4), 1e30
    with pytest.raises(ValueError, match="not finite in the dtype torch.float32: convert x to float64"):
        denoiser(manifold).log_density(x, sigma)
    expected = -2 * math.log(2 * math.pi * sigma**2)
    assert denoiser(manifold).log_density(x.double(), sigma).item() == pytest.approx(expected)


@pytest.mark.parametrize("exact", [denoiser(Plane(2, 4, offset=1e6)), denoiser(Sphere(2, 4, offset=1e6)),
                                   Empirical(normal(3, 4) + 1e6)])
def test_an_answer_that_overflows_is_refused(exact):
    with pytest.raises(ValueError, match="not finite in the dtype torch.float16: convert x to float64"):
        exact(torch.zeros(1, 4).half(), 0.1)


def test_an_empirical_denoiser_needs_a_noise_level():
    with pytest.raises(ValueError, match="must be positive and finite"):
        Empirical(normal(2, 3))(normal(1, 3), torch.ones(0))
