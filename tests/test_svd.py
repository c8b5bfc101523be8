"""The SVD estimator on exact scores, and its rules on hand-made spectra."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from spectra_by_hand import K, hand_made, values

from dimlib.curve import dimension_curve
from dimlib.data.exact import Empirical, denoiser
from dimlib.data.manifolds import Plane, SpaghettiLine, Sphere, Union
from dimlib.machine import compute
from dimlib.sampler import noisy_copies
from dimlib.score import noise_prediction
from dimlib.seeds import stream
from dimlib.svd import RULES, spectrum

spectrum_on_frame = partial(spectrum, noise="frame")
cheap_rules = pytest.mark.parametrize("rule", ["recommended", "gap", "cut"])

# ---------------------------------------------------------------- spectra of exact scores


@pytest.mark.parametrize("k, d", [(1, 20), (3, 20), (10, 20), (1, 60), (25, 60), (50, 60),
                                  (3, 100), (10, 100), (25, 100), (50, 100)])
def test_spheres(k, d):
    sphere = Sphere(k, d, seed=k, offset=5.0)
    answer = spectrum(denoiser(sphere), sphere.sample(4, seed=1), 0.01)
    for rule in ("recommended", "gap", "cut"):
        assert answer.dimension(rule).tolist() == [k] * 4, rule


@pytest.mark.parametrize("k, d", [(1, 20), (10, 20), (19, 20), (20, 20), (1, 2), (3, 60), (50, 100), (100, 100)])
def test_planes_from_a_line_to_the_full_space(k, d):
    plane = Plane(k, d, std=torch.linspace(0.3, 2.0, k), seed=k, offset=5.0)
    answer = spectrum(denoiser(plane), plane.sample(4, seed=1), 0.02)
    for rule in ["recommended", "cut"] + ["gap"] * (k < d):
        assert answer.dimension(rule).tolist() == [k] * 4, rule


@pytest.mark.parametrize("d", [2, 20, 100])
@pytest.mark.parametrize("rule", ["recommended", "cut"])
def test_a_single_point_has_dimension_zero(d, rule):
    point = torch.full((1, d), 3.0)
    assert spectrum(Empirical(point), point, 0.1).dimension(rule).tolist() == [0]


@pytest.mark.parametrize("k, d", [(3, 20), (10, 60)])
def test_points_far_apart_have_dimension_zero_and_dense_points_that_of_their_manifold(k, d):
    points = Sphere(k, d, seed=1, offset=5.0).sample(30)
    assert spectrum(Empirical(points), points[:3], 0.01).dimension().tolist() == [0] * 3
    circle = Sphere(1, d, seed=1, offset=5.0).sample(5000)
    assert spectrum(Empirical(circle), circle[:3], 0.05).dimension().tolist() == [1] * 3


@cheap_rules
def test_a_union_has_the_dimension_of_each_part(rule):
    union = Union([Sphere(10, 100, seed=1), Sphere(30, 100, radius=0.25, seed=2), Plane(3, 100, seed=3, offset=4.0)])
    x = union.sample(30, seed=1)
    answer = spectrum(denoiser(union), x, 0.005).dimension(rule)
    assert answer.tolist() == union.dimension_at(x).tolist()
    assert set(answer) == {3, 10, 30}


@pytest.mark.slow
def test_the_spaghetti_line_is_one_dimensional():
    line = SpaghettiLine(100, seed=1)
    answer = spectrum(denoiser(line), line.sample(1, seed=2), 0.01)
    assert [answer.dimension(rule).item() for rule in ("recommended", "gap", "cut")] == [1, 1, 1]


def test_values_of_a_plane_are_the_closed_form():
    """Cov ε̂ = Q diag(σ²/(s² + σ²))² Qᵀ along a Gaussian plane, 1 across it, at any point in space."""
    plane, sigma = Plane(3, 6, std=(0.1, 0.2, 0.4), seed=1, offset=5.0), 0.2
    answer = spectrum(denoiser(plane), torch.randn(2, 6, dtype=torch.float64), sigma, n_scores=40_000)
    tangent = [sigma**2 / (s**2 + sigma**2) for s in (0.1, 0.2, 0.4)]
    assert np.allclose(answer.values, [1, 1, 1, *tangent], rtol=0.03)
    # E‖ε̂ − ε‖² = Σ s²/(s² + σ²) at points of the plane, on average
    x = plane.sample(400, seed=3).double()
    loss = spectrum(denoiser(plane), x, sigma, n_scores=2000).loss
    assert math.isclose(loss.mean(), sum(1 - t for t in tangent), rel_tol=0.05)


@pytest.mark.parametrize("k", [1, 10, 50])
def test_the_loss_at_little_noise_is_the_dimension(k):
    sphere = Sphere(k, 60, seed=1, offset=5.0)
    loss = spectrum(denoiser(sphere), sphere.sample(5), 0.002, n_scores=2000).loss
    assert np.allclose(loss, k, rtol=0.15)


def test_pictures_are_points_too():
    plane = Plane(4, 24, seed=1, offset=5.0)
    exact = denoiser(plane)

    def pictures(x, sigma):
        return exact(x.flatten(1), sigma).view_as(x)

    x = plane.sample(3)
    answer = spectrum(pictures, x.view(3, 2, 3, 4), 0.02)
    assert answer.values.shape == (3, 24) and answer.dimension().tolist() == [4] * 3
    assert np.allclose(answer.values, spectrum(exact, x, 0.02).values, atol=1e-5)


# ---------------------------------------------------------------- what the estimate depends on


def test_the_published_rule_fails_by_curvature_and_centring_repairs_it():
    """At σ = 0.05 the drift by mean curvature of the 50-sphere is one giant value: k̂ = d − 1."""
    sphere = Sphere(50, 100, seed=1, offset=5.0)
    x = sphere.sample(5)
    published = spectrum(denoiser(sphere), x, 0.05, center=False)
    assert published.dimension("gap").tolist() == [99] * 5 and (published.values[:, 0] > 2).all()
    centred = spectrum(denoiser(sphere), x, 0.05)
    assert centred.dimension("gap").tolist() == [50] * 5 and (centred.values[:, 0] < 1.6).all()


def test_centring_takes_away_a_constant():
    x, push = torch.randn(2, 5, dtype=torch.float64), 7.0
    zero, constant = (lambda x, sigma: 0 * x), (lambda x, sigma: 0 * x - push * sigma)
    values = [spectrum(d, x, 0.1, center=True).values for d in (zero, constant)]
    assert np.allclose(*values)
    assert not np.allclose(spectrum(zero, x, 0.1, center=False).values,
                           spectrum(constant, x, 0.1, center=False).values, atol=1)


def test_the_noise_is_around_the_point():
    """A blob of dimension 4 and a line far away: noise that forgets x_0 answers the same at both."""
    union = Union([Plane(4, 10, seed=1, offset=8.0), Plane(1, 10, seed=2)])
    x = torch.stack([part.sample(1, seed=3)[0] for part in union.parts])
    seen = []

    def watched(x, sigma):
        seen.append(x)
        return denoiser(union)(x, sigma)

    answer = spectrum(watched, x, 0.01, n_scores=2000)
    assert answer.dimension().tolist() == [4, 1]
    copies = torch.cat([block.view(2, -1, 10) for block in seen], dim=1)
    assert torch.allclose(copies.mean(1), x, atol=5 * 0.01 / 2000**0.5)
    assert torch.allclose(copies.std(1), torch.full((2, 10), 0.01), rtol=0.1)


def test_only_the_displacement_from_the_point_matters():
    """Moving points and manifold together changes nothing."""
    here, there = Sphere(3, 12, seed=1), Sphere(3, 12, seed=1, offset=9.0)
    x = here.sample(3).double()
    a = spectrum(denoiser(here), x, 0.1)
    b = spectrum(denoiser(there), x + there.center, 0.1)
    assert np.allclose(a.values, b.values, atol=1e-9) and np.allclose(a.loss, b.loss)


@pytest.fixture
def sphere():
    return Sphere(3, 20, seed=1, offset=5.0)


def test_a_row_does_not_depend_on_its_batch(sphere):
    x = sphere.sample(9)
    together = spectrum(denoiser(sphere), x, 0.02)
    backwards = spectrum(denoiser(sphere), x.flip(0), 0.02)
    assert np.allclose(backwards.values[::-1], together.values, atol=1e-5)
    for i in (0, 4, 8):
        alone = spectrum(denoiser(sphere), x[i : i + 1], 0.02)
        assert np.allclose(alone.values[0], together.values[i], atol=1e-5)
        assert np.allclose(alone.loss[0], together.loss[i], rtol=1e-3)
        assert (alone.dimension() == together.dimension()[i]).all()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(sphere):
    x = sphere.sample(3)
    a, b, c = (spectrum(denoiser(sphere), x, 0.02, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.values, b.values) and np.array_equal(a.loss, b.loss)
    assert np.abs(a.values - c.values).max() > 1e-3


def test_the_global_seed_is_neither_used_nor_moved(sphere):
    torch.manual_seed(5)
    a = spectrum(denoiser(sphere), sphere.sample(2), 0.02)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert np.array_equal(a.values, spectrum(denoiser(sphere), sphere.sample(2), 0.02).values)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 33, 79, 81, 160, 1000])
def test_the_batch_size_changes_nothing_but_rounding(sphere, batch_size):
    x = sphere.sample(5).double()
    whole = spectrum(denoiser(sphere), x, 0.02, batch_size=5 * 80)
    parts = spectrum(denoiser(sphere), x, 0.02, batch_size=batch_size)
    assert np.allclose(parts.values, whole.values, atol=1e-9)
    assert np.allclose(parts.loss, whole.loss, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 7, 80, 100, 200, 1000])
def test_the_denoiser_sees_no_more_rows_than_the_batch_size(sphere, batch_size):
    rows = []

    def counting(x, sigma):
        rows.append(len(x))
        return denoiser(sphere)(x, sigma)

    spectrum(counting, sphere.sample(5), 0.02, batch_size=batch_size)
    assert max(rows) <= batch_size and sum(rows) == 5 * 80


@pytest.mark.parametrize("d, n_scores", [(7, 64), (16, 64), (17, 68), (30, 120)])
def test_four_d_scores_and_at_least_64_unless_told(d, n_scores):
    plane = Plane(2, d)
    assert spectrum(denoiser(plane), plane.sample(2), 0.1).n_scores == n_scores
    assert spectrum(denoiser(plane), plane.sample(2), 0.1, n_scores=d + 1).n_scores == d + 1


def test_in_the_plane_chance_does_not_decide():
    """A circle in R² at σ = 0.35 with the exact score: 8 scores are wrong at 36 % of the points, 64 at few."""
    circle = Sphere(1, 2)
    wrong = [(spectrum(denoiser(circle), circle.sample(100, seed=s), 0.35, seed=s).dimension() != 1).mean()
             for s in range(20)]
    assert np.mean(wrong) < 0.1


def test_no_gradient_is_recorded(sphere):
    graphs = []

    def watched(x, sigma):
        answer = denoiser(sphere)(x, sigma)
        graphs.append(answer.requires_grad)
        return answer

    spectrum(watched, sphere.sample(1).requires_grad_(), 0.02)
    assert not any(graphs)


# ---------------------------------------------------------------- rules on hand-made spectra


def answers(v):
    return {rule: RULES[rule](v, K).item() for rule in RULES}


@pytest.mark.parametrize("k", [1, 10, 50, 99])
def test_every_rule_reads_two_clean_populations(k):
    v = values((100 - k, 1.4, 0.55), (k, 0.01, 0.005))
    assert answers(v) == {"recommended": k, "gap": k, "ratio": k, "cut": k}


def test_all_normal_is_zero():
    v = values((100, 1.5, 0.52))
    assert answers(v)["recommended"] == answers(v)["cut"] == 0


def test_values_without_a_step_are_not_all_normal():
    """From 0.6 to 0.12 by smaller steps than 0.12: the last one, down to 0, must not be taken for the boundary."""
    v = values((60, 1.4, 0.6), (40, 0.59, 0.12))
    assert answers(v)["cut"] == 11 and answers(v)["recommended"] > 0
    assert hand_made(v).contrast < 3, "and it is said that there is no boundary"
    v = values((100, 1.4, 0.26))
    assert answers(v)["recommended"] == answers(v)["cut"] == 0, "as long as none is below half the edge"


@pytest.mark.parametrize("tangent", [0.01, 0.1, 0.2, 0.24, 0.26, 0.3, 0.45])
def test_two_populations_count_as_two_up_to_half_the_edge(tangent):
    v = values((90, 1.0, 0.5), (10, tangent, tangent))
    assert answers(v)["recommended"] == answers(v)["cut"] == (10 if tangent < 0.25 else 0)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.35])
def test_a_gaussian_of_many_lengths_has_directions_at_every_noise_level(sigma):
    """Fifty lengths from 0.02 to 1: no step anywhere, and 45, 40 and 33 of them are longer than σ."""
    lengths = torch.linspace(0.02, 1, 50)
    plane = Plane(50, 50, std=lengths, seed=1)
    answer = spectrum(denoiser(plane), plane.sample(4, seed=1), sigma).dimension()
    visible = int((lengths > sigma).sum())
    assert (visible - 3 <= answer).all() and (answer <= visible).all()


@pytest.mark.parametrize("high, low", [(0.01, 0.001), (0.05, 0.02), (1e-5, 1e-12), (0.0, 0.0)])
def test_all_tangent_is_d(high, low):
    v = values((100, high, low))
    assert answers(v)["recommended"] == answers(v)["cut"] == 100


def test_weak_normals_of_an_undertrained_network_are_still_normal():
    """Three curved normal directions at 0.15–0.2, tangents below 0.01: the gap and the cut count them as tangent."""
    v = values((87, 1.4, 0.55), (3, 0.2, 0.15), (10, 0.008, 0.004))
    assert answers(v) == {"recommended": 10, "gap": 13, "ratio": 10, "cut": 13}


def test_tangents_spread_over_orders_of_magnitude_are_still_tangent():
    """Values far below the noise level say nothing: the plain ratio cuts among them."""
    v = values((90, 1.4, 0.55), (5, 0.1, 0.08), (3, 1e-3, 5e-4), (2, 1e-7, 1e-8))
    assert answers(v) == {"recommended": 10, "gap": 10, "ratio": 2, "cut": 10}


def test_a_spread_among_normals_is_noise():
    """The largest difference is in the Marchenko–Pastur bulk: only the published rule looks there."""
    v = values((1, 3.0, 3.0), (89, 1.4, 0.55), (10, 0.01, 0.005))
    assert answers(v) == {"recommended": 10, "gap": 99, "ratio": 10, "cut": 10}


def test_the_cut_is_half_the_marchenko_pastur_edge():
    v = values((90, 1.0, 0.6), (5, 0.251, 0.251), (5, 0.249, 0.249))
    assert RULES["cut"](v, 400).item() == 5
    assert RULES["cut"](v, 1600).item() == 10                              # at K = 16 d it is at 0.375


def test_gap_and_ratio_are_the_largest_difference_and_the_largest_quotient():
    v = values((1, 1.0, 1.0), (1, 0.9, 0.9), (1, 0.4, 0.4), (1, 0.1, 0.1), (1, 0.09, 0.09), d=5)
    assert RULES["gap"](v, 20).item() == 3 and RULES["ratio"](v, 20).item() == 2


def test_rules_answer_at_each_point():
    v = np.concatenate([values((100 - k, 1.4, 0.55), (k, 0.01, 0.005)) for k in (5, 60, 1)])
    for rule in RULES:
        assert RULES[rule](v, K).tolist() == [5, 60, 1]


def test_disagreement_is_the_share_of_points():
    clean = values((90, 1.4, 0.55), (10, 0.01, 0.005))
    weak = values((87, 1.4, 0.55), (3, 0.2, 0.15), (10, 0.008, 0.004))
    assert hand_made(np.concatenate([clean, clean, clean, weak])).disagreement == 0.25


@pytest.mark.parametrize("k, weak, is_counted", [(10, 1, True), (30, 1, False), (30, 2, True)])
def test_above_twenty_rules_that_differ_by_one_agree(k, weak, is_counted):
    v = values((100 - k - weak, 1.4, 0.55), (weak, 0.2, 0.15), (k, 0.008, 0.004))
    assert hand_made(v).dimension() == k and hand_made(v).disagreement == is_counted


def test_contrast_is_the_quotient_across_the_boundary():
    v = values((90, 1.4, 0.8), (10, 0.1, 0.02))
    assert np.allclose(hand_made(v).contrast, 5)                           # e / 0.1


def test_the_repr_holds_the_answers():
    text = repr(hand_made(values((90, 1.4, 0.55), (10, 0.01, 0.005))))
    assert "1 points in R^100" in text and "recommended 10" in text and "\n" not in text


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match="one entry each"):
        spectrum(denoiser(Plane(1, 1)), torch.randn(3, 1), 0.1)


# ---------------------------------------------------------------- noise along a frame


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.4])
def test_a_frame_gives_the_exact_values_of_a_gaussian_and_counts_what_is_longer_than_sigma(sigma):
    """Lengths of all sizes, from 0.01 to 3: no gap anywhere. Random noise of as many scores spreads the values."""
    lengths = torch.logspace(-2, 0.5, 40, dtype=torch.float64)
    plane = Plane(40, 60, std=lengths, seed=3, offset=2.0)
    x = plane.sample(2, seed=1).double()
    found = spectrum_on_frame(denoiser(plane), x, sigma)
    exact = torch.cat([sigma**2 / (sigma**2 + lengths**2), torch.ones(20)]).sort(descending=True).values
    assert np.allclose(found.values, exact, atol=1e-6)
    assert found.dimension("cut").tolist() == [int((lengths > sigma).sum())] * 2
    assert not np.allclose(spectrum(denoiser(plane), x, sigma, n_scores=120).values, exact, atol=0.1)


@pytest.mark.parametrize("shape", [(40,), (1, 5, 8)])
def test_a_frame_sees_a_sphere_as_many_scores_do(shape):
    sphere = Sphere(7, 40, seed=2, offset=5.0)
    x = sphere.sample(3, seed=1).view(-1, *shape)
    found = spectrum_on_frame(lambda y, s: denoiser(sphere)(y.flatten(1), s).view_as(y), x, 0.01, batch_size=7)
    assert all(found.dimension(rule).tolist() == [7] * 3 for rule in RULES)
    assert found.loss == pytest.approx([7] * 3, abs=0.1)


def test_a_frame_calls_the_denoiser_twice_per_dimension():
    rows = []
    spectrum_on_frame(lambda x, sigma: rows.append(len(x)) or 0 * x, torch.zeros(1, 30), 0.1)
    assert sum(rows) == 60


# ---------------------------------------------------------------- errors

X = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


def identity(x, sigma):
    return x


@pytest.mark.parametrize("x, message", [
    (X[0], r"shape \(P, \*shape\), got \(5,\); for one point use x\[None\]"),
    (X[:0], r"got \(0, 5\)"),
    (X.numpy(), "got ndarray"),
    (X.long(), r"dtype torch.int64: convert it with x.float\(\)"),
    (torch.full((2, 5), float("nan")), "NaN or infinite values: remove or impute"),
    (torch.full((2, 5), float("inf")), "NaN or infinite values: remove or impute"),
])
def test_bad_points_are_refused(x, message):
    for read in (spectrum, spectrum_on_frame):
        with pytest.raises(ValueError, match=message):
            read(identity, x, 0.1)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_bad_noise_levels_are_refused(sigma):
    for read in (spectrum, spectrum_on_frame):
        with pytest.raises(ValueError, match="sigma=.*must be positive"):
            read(identity, X, sigma)


@pytest.mark.parametrize("n_scores", [5, 1, 0, -3])
def test_too_few_scores_are_refused(n_scores):
    with pytest.raises(ValueError, match=f"n_scores={n_scores}.*d=5.*at least 6, better 64"):
        spectrum(identity, X, 0.1, n_scores=n_scores)


@pytest.mark.parametrize("batch_size", [0, -5])
def test_bad_batch_sizes_are_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}"):
        spectrum(identity, X, 0.1, batch_size=batch_size)


def test_a_denoiser_that_returns_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"returned shape \(192, 4\) for x of shape \(192, 5\)"):
        spectrum(lambda x, sigma: x[:, :4], X, 0.1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_denoiser_that_returns_nonsense_is_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinite values at sigma=0.1: .*range it was trained for"):
        spectrum(lambda x, sigma: x * bad, X, 0.1)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'elbow' is none of recommended, gap, ratio, cut"):
        spectrum(identity, X, 0.1).dimension("elbow")


# ---------------------------------------------------------------- directions


def test_directions_are_orthonormal_and_belong_to_their_values():
    """The variance of the predicted noise along direction i is the square of value i."""
    sphere = Sphere(3, 12, seed=1, offset=2.0)
    x = sphere.sample(4, seed=1)
    with_directions, without = (spectrum(denoiser(sphere), x, 0.05, 20_000, directions=yes) for yes in (True, False))
    assert without.directions is None and with_directions.directions.shape == (4, 12, 12)
    assert np.allclose(with_directions.values, without.values, rtol=1e-6, atol=1e-6)
    for basis in with_directions.directions:
        assert np.allclose(basis @ basis.T, np.eye(12), atol=1e-9)
    noise = torch.randn(20_000, 12, generator=torch.Generator().manual_seed(3))
    predicted = noise_prediction(denoiser(sphere), x[2] + 0.05 * noise, 0.05).double().numpy()
    deviations = (predicted @ with_directions.directions[2].T).std(0)
    assert np.allclose(deviations, with_directions.values[2], rtol=0.05)


def test_the_last_directions_span_the_tangent_space():
    sphere = Sphere(5, 30, seed=2, offset=1.0)
    x = sphere.sample(6, seed=1)
    found = spectrum(denoiser(sphere), x, 0.01, directions=True).directions[:, -5:]
    cosines = np.linalg.svd(found @ sphere.tangent_basis(x).double().numpy(), compute_uv=False)
    assert (cosines > 0.99).all()


def test_some_of_the_points_keep_their_directions():
    plane = Plane(2, 6, seed=0)
    answer = spectrum(denoiser(plane), plane.sample(3, seed=1), 0.05, directions=True)
    assert np.array_equal(answer.at([2]).directions, answer.directions[[2]])


# ---------------------------------------------------------------- what is too large, and kinds of noise


def test_what_cannot_fit_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr(compute, "memory", lambda device: 1e6)
    with pytest.raises(MemoryError, match=r"d=200 entries needs 0.0032 GB, and 0.001 GB .* use tangent_sketch"):
        spectrum(lambda x, sigma: x, torch.zeros(1, 200), 0.1)


@pytest.mark.parametrize("options", [{"noise": "uniform"}, {"noise": "frame", "n_scores": 40}])
def test_an_unknown_noise_is_refused_and_a_frame_has_its_own_number(options):
    with pytest.raises(ValueError, match="'gaussian', or 'frame' without n_scores"):
        spectrum(lambda x, sigma: x, torch.zeros(1, 5), 0.1, **options)


def test_the_spectrum_is_that_of_the_samplers_noisy_copies(sphere):
    """By hand from `noisy_copies`, as a reader would do it: K is one block, so the draw is the same."""
    x = sphere.sample(2).double()
    copies, noise = noisy_copies(x, 0.05, 64, stream(0, "spectrum"))
    predicted = noise_prediction(denoiser(sphere), copies.flatten(0, 1), 0.05).view_as(copies).numpy()
    found = spectrum(denoiser(sphere), x, 0.05, n_scores=64)
    for s, loss, rows in zip(found.values, found.loss, predicted, strict=True):
        assert np.allclose(s, np.linalg.svd(rows - rows.mean(0), compute_uv=False) / 8, atol=1e-6)
        assert np.isclose(loss, np.square(rows - noise.numpy()).sum(1).mean())


def test_a_curve_can_have_noise_along_a_frame(sphere):
    curve = dimension_curve(denoiser(sphere), sphere.sample(3), [0.02, 0.05], noise="frame")
    alone = spectrum_on_frame(denoiser(sphere), sphere.sample(3), 0.05)
    assert np.array_equal(curve.spectra[1].values, alone.values) and curve.spectra[1].n_scores == np.inf


# ---------------------------------------------------------------- what a denoiser and a user may do


def in_place(x, sigma):
    """The exact denoiser of a coordinate plane in R^6 that writes into its argument."""
    x[:, 3:] = 0
    return x


def test_a_denoiser_that_works_in_place_changes_nothing():
    x = torch.cat([torch.randn(4, 3), torch.zeros(4, 3)], dim=1)
    before = x.clone()
    assert spectrum(in_place, x, 0.1).dimension().tolist() == [3] * 4 and torch.equal(x, before)


@pytest.mark.parametrize("answer, error, message", [
    (lambda x: x.numpy(), TypeError, "returned ndarray: .* must return a tensor"),
    (lambda x: None, TypeError, "returned NoneType"), (lambda x: (x,), TypeError, "returned tuple"),
    (lambda x: x.to(torch.complex64), TypeError, "returned torch.complex64"),
    (lambda x: x.long(), TypeError, "returned torch.int64"), (lambda x: x[:1], ValueError, "returned shape")])
def test_a_denoiser_that_returns_something_else_is_refused(answer, error, message):
    with pytest.raises(error, match=message):
        spectrum(lambda x, sigma: answer(x), torch.randn(3, 6), 0.1)


def test_a_denoiser_may_compute_in_another_precision(sphere):
    x = sphere.sample(3)
    wide = spectrum(lambda x, sigma: denoiser(sphere)(x.double(), sigma), x, 0.02)
    assert np.allclose(wide.values, spectrum(denoiser(sphere), x, 0.02).values, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan"), float("inf"), torch.tensor(0.0), torch.tensor(-1.0)])
def test_noise_levels_in_every_form_are_checked(sigma):
    with pytest.raises(ValueError, match="must be positive and finite"):
        spectrum(lambda x, sigma: x, torch.randn(3, 6), sigma)


@pytest.mark.parametrize("options", [{"n_scores": 9.0}, {"batch_size": 9.0}, {"n_scores": "9"}, {"n_scores": True}])
def test_numbers_that_are_not_whole_are_refused(options):
    with pytest.raises(TypeError, match="must be a whole number"):
        spectrum(lambda x, sigma: x, torch.randn(3, 6), 0.1, **options)


@pytest.mark.parametrize("sigma", ["0.1", None, True, [0.1], 0.1j])
def test_what_is_no_noise_level_is_refused(sigma):
    with pytest.raises(TypeError, match="is no noise level"):
        spectrum(lambda x, sigma: x, torch.randn(3, 6), sigma)


@pytest.mark.parametrize("offset, dtype", [(1e6, torch.float32), (1e7, torch.float32), (3.0, torch.bfloat16)])
def test_points_whose_rounding_is_not_small_against_sigma_are_refused(offset, dtype):
    x = (torch.randn(3, 6, dtype=torch.float64) + offset).to(dtype)
    with pytest.raises(ValueError, match="apart, which is not small compared with sigma=0.05"):
        spectrum(lambda x, sigma: x, x, 0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_is_answered(dtype):
    x = torch.cat([torch.randn(4, 3), torch.zeros(4, 3)], dim=1).clamp(-1, 1).to(dtype)
    assert spectrum(in_place, x, 0.3).dimension().tolist() == [3] * 4


@pytest.mark.parametrize("dtype, message", [(torch.int64, "convert it with x.float"), (torch.bool, "convert it"),
                                            (torch.complex64, "use its real part")])
def test_other_dtypes_are_refused_with_advice(dtype, message):
    with pytest.raises(ValueError, match=message):
        spectrum(lambda x, sigma: x, torch.ones(3, 6).to(dtype), 0.1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_gradients_of_the_caller_do_not_matter(mode):
    x = torch.cat([torch.randn(4, 3), torch.zeros(4, 3)], dim=1).requires_grad_()
    with mode():
        found = spectrum(lambda y, sigma: y * torch.tensor([1.0] * 3 + [0.0] * 3), x, 0.1)
    assert found.dimension().tolist() == [3] * 4


def test_few_points_go_together_where_their_matrices_are_large():
    gpu = torch.device("cpu")
    together = compute.points_together(12_288, 10_000_000, 64, gpu)
    assert 1 <= together <= max(1, compute.memory(gpu) / 4 / compute.matrix_bytes(12_288))
    assert compute.points_together(10, 6400, 64, gpu) == 100 and compute.points_together(10, 1, 64, gpu) == 1


# ---------------------------------------------------------------- the error of the draw


def test_the_error_of_the_draw_is_that_between_seeds():
    """Lengths 1, 0.3 and 0.12 at σ = 0.1: the last is on the edge, and all points share the noise that decides."""
    plane = Plane(3, 20, std=(1.0, 0.3, 0.12))
    x = plane.sample(30)
    found = [spectrum(denoiser(plane), x, 0.1, seed=seed, without=True) for seed in range(60)]
    means, errors = np.array([s.dimension().mean() for s in found]), np.array([s.draw_error() for s in found])
    assert means.std() > 0.1, "else there is nothing to see"
    assert 0.6 * means.std() < np.sqrt((errors**2).mean()) < 2.5 * means.std()


def test_the_values_without_a_quarter_are_those_of_the_other_copies(sphere):
    x = sphere.sample(2).double()
    copies, _ = noisy_copies(x, 0.05, 64, stream(0, "spectrum"))
    predicted = noise_prediction(denoiser(sphere), copies.flatten(0, 1), 0.05).view_as(copies).numpy()
    found = spectrum(denoiser(sphere), x, 0.05, n_scores=64, without=True)
    for i, fewer in enumerate(found.without):
        rows = predicted[1][[j for j in range(64) if j % 4 != i]]
        assert np.allclose(fewer[1], np.linalg.svd(rows - rows.mean(0), compute_uv=False) / 48**0.5, atol=1e-6)
    assert len(found.without) == 4 and found.at([1]).without[0].shape == (1, 20)


def test_a_clear_spectrum_has_no_error_of_the_draw_and_a_frame_has_no_draw(sphere):
    x = sphere.sample(3)
    assert spectrum(denoiser(sphere), x, 0.02, without=True).draw_error() == 0
    assert spectrum(denoiser(sphere), x, 0.02, noise="frame", without=True).without == ()


def test_the_values_without_a_quarter_are_judged_by_the_scores_that_are_left():
    """The cut is at 0.25 for K = 400 and at 0.21 for 300, so that 0.23 is normal and 0.2 is not."""
    rows = [values((90, 1.4, 0.55), (10, last, last / 2)) for last in (0.23, 0.23, 0.2, 0.2)]
    found = dataclasses.replace(hand_made(rows[0]), without=tuple(rows))
    dimensions = [RULES["cut"](row, 300).item() for row in rows]
    assert len(set(dimensions)) == 2 and found.draw_error("cut") == pytest.approx(np.std(dimensions) * 3**0.5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("values", [np.array([[1.0, np.nan]]), np.array([[np.inf, 0.5]]), np.ones(3), np.ones((0, 3)),
                                    np.ones((2, 0))])
def test_a_rule_refuses_values_that_are_none(rule, values):
    with pytest.raises(ValueError, match="singular values must be finite numbers of shape"):
        RULES[rule](values, 64)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_scores", [0, -4, float("nan")])
def test_a_rule_refuses_a_number_of_scores_that_is_none(rule, n_scores):
    with pytest.raises(ValueError, match="n_scores"):
        RULES[rule](np.ones((1, 3)), n_scores)
