"""The relatives of the SVD estimator, against formulas and exact denoisers."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from dimlib.compare.readouts import denoising_loss, flipd, jacobian_spectrum, knee, lhsd, lidl, tangent_sketch
from dimlib.data import exact
from dimlib.data.manifolds import Plane, Sphere
from dimlib.machine import compute
from dimlib.svd import spectrum

SIGMA = 0.01
MANIFOLDS = [Plane(5, 20, seed=1, offset=3.0), Sphere(1, 30, seed=2, offset=3.0),
             Sphere(10, 40, seed=3, offset=3.0), Sphere(3, 4)]


@pytest.fixture(params=MANIFOLDS, ids=repr)
def case(request):
    manifold = request.param
    return exact.denoiser(manifold), manifold.sample(3, seed=1).double(), manifold


def as_images(denoiser, shape):
    """The same denoiser for points of another shape."""
    return lambda x, sigma: denoiser(x.flatten(1), sigma).view(-1, *shape)


def variance_preserving(denoiser, alpha):
    """A VP model's prediction of the noise from x_t = α x_0 + β ε, and the denoiser that is made of it."""
    beta = (1 - alpha**2) ** 0.5

    def predict(x_t):
        return (x_t - alpha * denoiser(x_t / alpha, beta / alpha)) / beta

    return lambda x, sigma: (alpha * x - beta * predict(alpha * x)) / alpha, beta / alpha


@pytest.mark.parametrize("readout", [flipd, partial(lhsd, n_probes=400), jacobian_spectrum, tangent_sketch])
def test_exact_denoisers_give_the_dimension(case, readout):
    denoiser, x, manifold = case
    answer = readout(denoiser, x, SIGMA).dimension()
    spread = 4 * (2 * manifold.dim / 400) ** 0.5 if isinstance(readout, partial) else 0.05    # probes of ±1
    assert np.allclose(answer, manifold.dim, atol=spread)


def test_the_denoising_loss_of_an_exact_denoiser_is_the_dimension(case):
    denoiser, x, manifold = case
    n = 4000
    found = denoising_loss(denoiser, x, SIGMA, n_scores=n)
    assert np.abs(found.dimension() - manifold.dim).max() < 5 * (2 * manifold.dim / n) ** 0.5 + 0.02
    assert found.n_evaluations == n


def test_lidl_with_an_exact_density_is_the_dimension(case):
    denoiser, x, manifold = case
    assert np.allclose(lidl(denoiser.log_density, x, [SIGMA, 2 * SIGMA]).dimension(), manifold.dim, atol=0.05)


def test_flipd_is_the_laplacian_of_the_log_density():
    """d + σ² (Δ log p + ‖∇ log p‖²), both by automatic differentiation, away from the manifold."""
    denoiser, sigma = exact.denoiser(Sphere(3, 6)), 0.3
    x = (Sphere(3, 6).sample(1, seed=2) + 0.1).double()
    def log_density(y):
        return denoiser.log_density(y[None], sigma)[0]
    gradient = torch.func.grad(log_density)(x[0])
    laplacian = torch.func.hessian(log_density)(x[0]).trace()
    expected = 6 + sigma**2 * (laplacian + gradient.square().sum())
    assert flipd(denoiser, x, sigma).dimension()[0] == pytest.approx(float(expected), rel=1e-6)


def test_random_probes_estimate_the_trace():
    plane = Plane(5, 20)
    denoiser, x = exact.denoiser(plane), plane.sample(2, seed=1).double()
    many = [flipd(denoiser, x, SIGMA, n_probes=50, seed=seed).dimension() for seed in range(40)]
    assert np.allclose(np.mean(many, axis=0), 5, atol=0.25) and 0.05 < np.std(many, axis=0).max() < 1
    assert flipd(denoiser, x, SIGMA, n_probes=50).n_evaluations == 51


def test_the_loss_of_a_plane_by_its_formula():
    """At x_0 = b + Q c a gain g = s²/(s² + σ²) loses Σ (1 − g)² c²/σ² + g²."""
    plane, sigma = Plane(3, 8, std=torch.tensor([2.0, 1.0, 0.1])), 0.1
    x = plane.sample(2, seed=3).double()
    c = (x - plane.center) @ plane.frame.double()
    g = plane.std.double() ** 2 / (plane.std.double() ** 2 + sigma**2)
    expected = ((1 - g) ** 2 * c**2 / sigma**2 + g**2).sum(1)
    found = denoising_loss(exact.denoiser(plane), x, sigma, n_scores=20_000)
    assert np.allclose(found.dimension(), expected, atol=0.1)


def test_the_jacobian_spectrum_of_a_plane_by_its_formula():
    plane, sigma = Plane(3, 8, std=torch.tensor([2.0, 1.0, 0.1])), 0.1
    found = jacobian_spectrum(exact.denoiser(plane), plane.sample(1).double(), sigma)
    tangent = sigma**2 / (plane.std.double() ** 2 + sigma**2)
    assert np.allclose(found.values[0], [1] * 5 + sorted(tangent.tolist(), reverse=True))


def test_the_sketch_finds_the_tangent_space_with_few_evaluations(case):
    denoiser, x, manifold = case
    found = tangent_sketch(denoiser, x, SIGMA)
    for mine, true in zip(found.tangent, manifold.tangent_basis(x).double(), strict=True):
        angles = torch.linalg.svdvals(torch.from_numpy(mine) @ true)
        assert angles.min() > 0.999
    assert found.n_evaluations == 4 * min(16, x.shape[1])


def test_the_sketch_goes_on_until_it_has_seen_enough():
    sphere = Sphere(40, 60)
    found = tangent_sketch(exact.denoiser(sphere), sphere.sample(2, seed=1).double(), SIGMA)
    assert found.dimension().tolist() == [40, 40] and found.n_evaluations == 4 * 48


@pytest.mark.parametrize(("gain", "dim"), [(1.0, 20), (0.0, 0)])
def test_the_sketch_can_answer_everything_and_nothing(gain, dim):
    assert tangent_sketch(lambda x, sigma: gain * x, torch.randn(2, 20), 0.1).dimension().tolist() == [dim, dim]


@pytest.mark.parametrize("readout", [flipd, lhsd, denoising_loss, jacobian_spectrum, tangent_sketch])
def test_a_point_is_answered_whatever_is_beside_it_and_whatever_its_shape(readout):
    sphere = Sphere(3, 12)
    denoiser, x = exact.denoiser(sphere), sphere.sample(4, seed=1).double()

    def ask(denoiser, x, **options):
        found = readout(denoiser, x, 0.05, **options)
        return found.values if readout is jacobian_spectrum else found.dimension()

    together = ask(denoiser, x)
    assert np.allclose(ask(denoiser, x[2:3])[0], together[2])
    assert np.allclose(ask(denoiser, x, batch_size=5), together)
    assert np.allclose(ask(as_images(denoiser, (1, 3, 4)), x.view(-1, 1, 3, 4)), together)


@pytest.mark.parametrize("readout", [flipd, lhsd, denoising_loss, jacobian_spectrum, tangent_sketch])
def test_a_vp_model_gives_the_same_answers(readout):
    sphere = Sphere(4, 15)
    denoiser, x = exact.denoiser(sphere), sphere.sample(2, seed=1).double()
    vp, sigma = variance_preserving(denoiser, alpha=0.9999)
    found, expected = readout(vp, x, sigma), readout(denoiser, x, sigma)
    ours, theirs = (f.values if readout is jacobian_spectrum else f.dimension() for f in (found, expected))
    assert np.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("readout", [flipd, lhsd, denoising_loss, jacobian_spectrum, tangent_sketch])
@pytest.mark.parametrize(("x", "message"), [
    (torch.zeros(3), "points"), (torch.full((2, 3), torch.nan), "NaN"),
    (torch.zeros(2, 3, dtype=torch.int64), "dtype")])
def test_bad_points_are_refused(readout, x, message):
    with pytest.raises(ValueError, match=message):
        readout(lambda x, sigma: x, x, 0.1)


def test_bad_arguments_are_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="n_probes=0"):
        flipd(lambda x, sigma: x, x, 0.1, n_probes=0)
    with pytest.raises(ValueError, match="n_scores=0"):
        denoising_loss(lambda x, sigma: x, x, 0.1, n_scores=0)
    with pytest.raises(ValueError, match="two different noise levels"):
        lidl(lambda x, sigma: x[:, 0], x, [0.1])
    with pytest.raises(ValueError, match="shape"):
        tangent_sketch(lambda x, sigma: x[:, :2], x, 0.1)


def test_a_readout_says_what_it_found():
    found = denoising_loss(lambda x, sigma: x, torch.zeros(2, 3), 0.1)
    assert repr(found).startswith("Readout of 2 points, σ = 0.1: median dimension ")


@pytest.mark.parametrize("read", [spectrum, partial(spectrum, noise="frame"), flipd, lhsd, denoising_loss,
                                  jacobian_spectrum, tangent_sketch])
def test_a_dimension_is_read_in_full_precision(read, monkeypatch):
    """Forward and backward, whatever was set, and what was set is there again afterwards."""
    seen, before = set(), torch.get_float32_matmul_precision()

    def settings():
        return tuple(place.fp32_precision for place in compute.PRECISIONS)

    def denoiser(x, sigma):
        assert not torch.is_autocast_enabled("cpu")
        seen.add(settings())
        y = 0.5 * x
        if y.requires_grad:
            y.register_hook(lambda _: seen.add(settings()))
        return y

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        theirs = settings()
        with torch.autocast("cpu", torch.bfloat16):
            read(denoiser, torch.ones(1, 6), SIGMA)
        assert settings() == theirs and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(theirs) == len(compute.PRECISIONS) and seen == {("ieee",) * len(theirs)} != {theirs}


@pytest.mark.parametrize("read", [spectrum, flipd, lhsd, denoising_loss, jacobian_spectrum, tangent_sketch])
def test_a_readout_of_points_with_gradients_has_none(read):
    x = torch.ones(1, 6, requires_grad=True)
    assert read(lambda y, sigma: 0.5 * y, x, SIGMA).dimension().shape == (1,)


def test_a_precision_that_was_set_by_part_does_no_harm():
    """PyTorch refuses to read the old settings afterwards; in a process of its own, since the old ones stay broken."""
    code = """
import torch, dimlib
torch.backends.cuda.matmul.fp32_precision = "tf32"
print(dimlib.spectrum(lambda x, sigma: 0.5 * x, torch.ones(1, 6), 0.1).values.shape)
print(torch.backends.cuda.matmul.fp32_precision)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["(1, 6)", "tf32"], done.stderr


READOUTS = [flipd, lhsd, denoising_loss, jacobian_spectrum, tangent_sketch]


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan"), torch.tensor(-1.0)])
def test_a_noise_level_that_is_none_is_refused(readout, sigma):
    with pytest.raises(ValueError, match="must be positive and finite"):
        readout(lambda x, sigma: x, torch.ones(2, 3), sigma)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_denoiser_that_works_in_place_changes_neither_answer_nor_data(readout):
    def in_place(x, sigma):
        x[:, 3:] *= 0
        return x

    x = torch.cat([torch.randn(2, 3), torch.zeros(2, 3)], dim=1)
    before = x.clone()
    found = readout(in_place, x, 0.1)
    dimension = found.dimension()
    close = {denoising_loss: 1.5, lhsd: 3.1e-4}.get(readout, 1e-4)        # each normal direction adds 1e-4 to lhsd
    assert np.allclose(dimension, 3, atol=close) and torch.equal(x, before)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_of_the_caller_do_not_matter(case, readout, mode):
    denoiser, x, manifold = case
    with mode():
        found = readout(denoiser, x.clone(), SIGMA).dimension()
    assert np.allclose(found, readout(denoiser, x, SIGMA).dimension())


@pytest.mark.parametrize("k, evaluations", [(12, 64), (13, 128)])
def test_the_sketch_stops_after_four_directions_that_are_not_tangent(k, evaluations):
    plane = Plane(k, 60, seed=1)
    found = tangent_sketch(exact.denoiser(plane), plane.sample(2), 0.01)
    assert found.dimension().tolist() == [k] * 2 and found.n_evaluations == evaluations


@pytest.mark.parametrize("values", [torch.zeros(3), torch.tensor([0.0, 1, float("nan"), 2]), torch.zeros(4, 2)])
def test_a_log_density_that_is_none_is_refused(values):
    with pytest.raises(ValueError, match="log_density must return one finite number for each of 4 points"):
        lidl(lambda x, sigma: values, torch.randn(4, 5), [0.1, 0.2])


@pytest.mark.parametrize("broken, message", [(lambda x, s: x * float("nan"), "NaN or infinite"),
                                             (lambda x, s: x[:, :3], "must have the shape of x")])
def test_a_broken_denoiser_has_no_jacobian(broken, message):
    with pytest.raises(ValueError, match=message):
        jacobian_spectrum(broken, torch.randn(2, 5), 0.1)


def test_lhsd_is_the_soft_count_of_a_plane_by_its_formula():
    """The values of H are σ²/(σ² + s²) along the plane and 1 across. Along the axes, ±1 sees all of them alike."""
    plane, sigma = Plane(3, 8, std=torch.tensor([2.0, 1.0, 0.1])), 0.1
    tangent = sigma**2 / (plane.std.double() ** 2 + sigma**2)
    expected = (1 / (1 + (tangent / 0.1) ** 4)).sum() + 5 / (1 + 1e4)
    axes = Plane(3, 8, std=plane.std)
    axes.frame, axes.center = torch.eye(8, 3, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    found = lhsd(exact.denoiser(axes), torch.zeros(1, 8, dtype=torch.float64), sigma, n_probes=3, n_steps=8)
    assert found.dimension()[0] == pytest.approx(float(expected), abs=1e-9) and found.n_evaluations == 24


def test_lhsd_of_a_large_plane_needs_few_steps():
    plane = Plane(200, 1024, seed=1)
    found = lhsd(exact.denoiser(plane), plane.sample(1).double(), SIGMA, n_probes=64)
    assert found.dimension()[0] == pytest.approx(200, abs=4 * (2 * 200 / 64) ** 0.5)


@pytest.mark.parametrize(("gain", "dim"), [(1.0, 20), (0.0, 20 / (1 + 1e4))])
def test_lhsd_can_answer_everything_and_nothing(gain, dim):
    assert np.allclose(lhsd(lambda x, sigma: gain * x, torch.randn(2, 20), 0.1).dimension(), dim, rtol=1e-4)


def test_lhsd_refuses_numbers_that_are_none():
    for name in ("n_probes", "n_steps"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            lhsd(lambda x, sigma: x, torch.zeros(2, 3), 0.1, **{name: 0})


def test_the_knee_of_a_curve_is_where_it_stops_to_fall():
    levels = np.geomspace(0.01, 1, 9)
    assert knee(levels, [100, 60, 30, 10, 9.5, 9, 8.5, 8, 7.5]) == 3
    assert knee(levels, [10] * 9) == 0 and knee(levels, [10, 10, 10, 10, 9, 7, 5, 3, 0]) == 0
    assert knee(levels, np.arange(9)) == 0


@pytest.mark.parametrize(("sigmas", "dimensions"), [
    ([0.1, 0.2], [1, 2]), ([0.1, 0.2, 0.3], [1, 2]), ([0.3, 0.2, 0.1], [1, 2, 3]), ([0.1, 0.2, 0.3], [1, np.nan, 3])])
def test_a_curve_that_has_no_knee_is_refused(sigmas, dimensions):
    with pytest.raises(ValueError, match="three noise levels"):
        knee(sigmas, dimensions)


def test_a_jacobian_that_needs_too_much_memory_is_an_error_before_the_work(monkeypatch):
    monkeypatch.setattr(compute, "_container", lambda: 1e6)
    with pytest.raises(MemoryError, match="d=200 entries needs .*: use tangent_sketch"):
        jacobian_spectrum(pytest.fail, torch.zeros(1, 200), SIGMA)


@pytest.mark.parametrize("readout", [flipd, lhsd, jacobian_spectrum])
def test_a_denoiser_without_derivatives_is_refused(readout):
    weight = torch.ones(4, requires_grad=True)
    for denoiser in (lambda x, sigma: x.detach(), lambda x, sigma: x.detach() * weight):
        with pytest.raises(TypeError, match="PyTorch cannot differentiate this denoiser"):
            readout(denoiser, torch.zeros(1, 4), SIGMA)
    with pytest.raises(ValueError, match="derivative of the denoiser at sigma=0.01 has NaN or infinite values"):
        readout(lambda x, sigma: x.abs().sqrt(), torch.zeros(1, 4), SIGMA)  # the slope at 0 is infinite


def test_a_sketch_draws_only_the_directions_that_it_needs(monkeypatch):
    """In R^100 000, all random directions would take 80 GB."""
    d, drawn, randn = 100_000, [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **options: drawn.append(size) or randn(*size, **options))
    x = torch.zeros(2, d)

    def plane(points, sigma):
        return points * (torch.arange(d) < 3)

    assert (tangent_sketch(plane, x, SIGMA).dimension() == 3).all() and drawn == [((2, 16, d),)]


def test_a_sketch_in_half_precision():
    plane = exact.denoiser(Plane(2, 8))
    found = tangent_sketch(lambda x, s: plane(x.float(), s).half(), Plane(2, 8).sample(3).half(), 0.3)
    assert (found.dimension() == 2).all()


def test_the_loss_in_parts_is_the_loss(monkeypatch):
    sphere = Sphere(3, 10)
    args = exact.denoiser(sphere), sphere.sample(7).double(), SIGMA, 5
    whole = denoising_loss(*args).dimension()
    monkeypatch.setattr("dimlib.compare.readouts.rows_per_batch", lambda *_: 12)
    np.testing.assert_allclose(denoising_loss(*args).dimension(), whole, rtol=1e-12)


def test_one_direction_has_no_spectrum():
    with pytest.raises(ValueError, match="one entry each: there is nothing to count"):
        jacobian_spectrum(lambda x, sigma: x, torch.zeros(2, 1), SIGMA)


def test_the_knee_of_flipd_on_an_exact_denoiser():
    """A plane of dimension 5 with noise of 0.02 in all directions: FLIPD falls from 20 to 5 at such a σ."""
    thick = Plane(20, 20, std=(1.0,) * 5 + (0.02,) * 15, seed=1)
    denoiser, x, sigmas = exact.denoiser(thick), thick.sample(20).double(), np.geomspace(0.002, 0.5, 12)
    answers = [flipd(denoiser, x, float(s)).dimension().mean() for s in sigmas]
    at = knee(sigmas, answers)
    assert 0.06 < sigmas[at] < 0.2 and answers[at] == pytest.approx(5, abs=1)
