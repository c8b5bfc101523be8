"""The dimension against the noise level: the plateau, its standard error and its warnings."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from spectra_by_hand import hand_made, values

from dimlib.curve import DimensionCurve, dimension_curve
from dimlib.data.exact import denoiser
from dimlib.data.manifolds import Plane, Sphere
from dimlib.svd import Spectrum


def curve(*levels, points=4, loss=None, top=None):
    """A curve from (dimension, normal/tangent ratio or a row of values) at σ = 1, 2, 3, …"""
    spectra = []
    for i, (k, tangent) in enumerate(levels):
        v = values((100 - k, 1.4, 0.55), (k, tangent, tangent / 2)).repeat(points, axis=0)
        spectra.append(hand_made(v, float(i + 1), np.full(points, k if loss is None else loss, float)))
    return DimensionCurve(tuple(spectra))


def level(sigma, ks):
    """A spectrum of clean populations with the dimensions ks at its points."""
    v = np.concatenate([values((100 - k, 1.4, 0.55), (k, 0.02, 0.01)) for k in ks])
    return hand_made(v, sigma, np.array(ks, float))


def test_the_plateau_at_the_smallest_noise_levels_gives_the_answer():
    estimate = curve((40, 0.02), (10, 0.05), (10, 0.02), (7, 0.02), (7, 0.02), (7, 0.02)).estimate()
    assert estimate.plateau == (2.0, 3.0) and estimate.dimension().tolist() == [10] * 4
    assert estimate.sigma == 3.0, "the level with the largest contrast"
    assert estimate.mean == estimate.median == 10 and warned(estimate, "another plateau, σ = 4 to 6")
    assert estimate.plateaus == ((2.0, 3.0, 10.0), (4.0, 6.0, 7.0))
    assert "plateaus: 10 at σ = 2 to 3, 7 at σ = 4 to 6" in repr(estimate)


def test_noise_in_the_data_is_set_aside():
    """d = 100 below the noise, and then the truth."""
    def at(*answers):
        return DimensionCurve(tuple(level(2.0**i, [k]) for i, k in enumerate(answers))).estimate()

    noisy = at(100, 100, 10, 10, 10)
    assert noisy.mean == 10 and noisy.plateaus == ((1.0, 2.0, 100.0), (4.0, 16.0, 10.0))
    assert at(100, 100, 100, 90, 90).mean == 100, "but not where d has the longer plateau: data can fill the space"


def test_levels_at_d_are_set_aside_even_where_there_is_no_plateau():
    assert DimensionCurve(tuple(level(float(i + 1), [k]) for i, k in enumerate([100, 90, 80]))).estimate().mean == 90
    assert DimensionCurve(tuple(level(float(i + 1), [100]) for i in range(2))).estimate().mean == 100


@pytest.mark.parametrize("neighbours, dimensions, answer", [
    (7.5, (52, 52, 52, 8, 8), 8),         # a network that has not learned how the data bend
    (9.0, (52, 52, 52, 8, 8), 52),        # above 8 the neighbours do not tell
    (math.nan, (52, 52, 52, 8, 8), 52),
    (7.5, (52, 52, 52), 52),              # no other plateau
    (6.8, (7, 7, 1, 1, 1), 7),            # thin directions, not learned well: below
    (math.nan, (7, 7, 1, 1, 1), 1),
    (5.0, (1, 1, 5, 5, 5), 1),            # a curve that comes close to itself
    (15.0, (100, 100, 2, 2, 2), 2),       # noise in the data
])
def test_a_plateau_that_contradicts_the_neighbours_is_set_aside(neighbours, dimensions, answer):
    levels = [level(2.0**i, [k] * 4) for i, k in enumerate(dimensions)]
    if dimensions[0] == 7:
        levels[:2] = [dataclasses.replace(s, loss=s.loss + 4) for s in levels[:2]]
    assert DimensionCurve(tuple(levels), neighbours).estimate().median == answer


def test_a_plateau_of_an_inexact_denoiser_is_set_aside():
    spectra = curve((20, 0.02), (20, 0.02), (10, 0.02), (10, 0.02)).spectra
    bad = tuple(dataclasses.replace(s, loss=s.loss + 9) for s in spectra[:2])
    assert DimensionCurve((*bad, *spectra[2:])).estimate().mean == 10
    assert DimensionCurve(bad).estimate().mean == 20, "where there is no other"


def test_where_no_plateau_is_clear_one_of_an_exact_loss_comes_before_one_that_is_not_learned():
    """As on the nonlinear manifold of Yeats et al.: 48 with a loss of 580 at small noise, and 32 with a loss of 28."""
    spectra = curve((48, 0.4), (48, 0.4), (32, 0.4), (32, 0.4)).spectra
    assert [s.dimension()[0] for s in spectra] == [48, 48, 32, 32] and max(s.contrast.max() for s in spectra) < 3
    bad = tuple(dataclasses.replace(s, loss=s.loss + 500) for s in spectra[:2])
    assert DimensionCurve((*bad, *spectra[2:])).estimate().mean == 32
    assert DimensionCurve(spectra).estimate().mean == 48, "where both losses are exact, the one at smaller noise"


def test_a_plateau_without_two_populations_of_values_is_set_aside():
    smooth = [hand_made(values((100, 1.4, 0.001)).repeat(4, axis=0), s, np.full(4, 80.0)) for s in (1.0, 2.0)]
    assert len(np.unique([s.dimension() for s in smooth])) == 1 and smooth[0].dimension()[0] not in (0, 10, 100)
    clean = curve((10, 0.02), (10, 0.02)).spectra
    both = DimensionCurve((*smooth, *(dataclasses.replace(s, sigma=s.sigma + 2) for s in clean)))
    assert both.estimate().mean == 10


@pytest.mark.parametrize("weak, answer", [(2, 10), (3, 5)])
def test_a_plateau_counts_if_half_of_its_points_have_a_clear_gap(weak, answer):
    """The largest gap is behind ten tangents at all points, but at the weak ones its ratio is below 3."""
    gap_below_3 = values((90, 1.4, 0.55), (10, 0.25, 0.2))
    v = np.concatenate([gap_below_3] * weak + [values((90, 1.4, 0.55), (10, 0.02, 0.01))] * (4 - weak))
    small = [hand_made(v, s, np.full(4, 10.0)) for s in (1.0, 2.0)]
    assert small[0].dimension().tolist() == [10] * 4 and (small[0].contrast < 3).sum() == weak
    large = [level(s, [5] * 4) for s in (3.0, 4.0)]
    estimate = DimensionCurve((*small, *large)).estimate()
    assert estimate.mean == answer
    assert warned(DimensionCurve(tuple(small)).estimate(), f"no two populations of singular values at {weak / 4:.0%}")


def test_the_loss_is_an_upper_bound_of_the_dimension():
    """Its mean 10 over four points, and twice the error that the noise leaves, √(2 · 10/K) at K = 400."""
    estimate = curve((10, 0.02), (10, 0.02)).estimate()
    assert estimate.at_most == pytest.approx(10 + 2 * (20 / 400) ** 0.5)
    spread = DimensionCurve(tuple(dataclasses.replace(s, loss=np.array([8.0, 12.0, 8.0, 12.0]))
                                  for s in curve((10, 0.02), (10, 0.02)).spectra)).estimate()
    error = np.std([8, 12, 8, 12], ddof=1) / 2
    assert spread.at_most == pytest.approx(10 + 2 * np.hypot(error, (20 / 400) ** 0.5))


def test_an_answer_above_the_loss_is_a_doubt():
    assert warned(curve((10, 0.02), (10, 0.02), loss=9.0).estimate(), "loss, 9.0, is smaller than the dimension")
    assert not warned(curve((10, 0.02), (10, 0.02), loss=9.8).estimate(), "is smaller than the dimension")


def test_the_plateau_may_be_the_whole_curve_or_its_end():
    assert curve((10, 0.02), (10, 0.02), (10, 0.02)).estimate().plateau == (1.0, 3.0)
    assert curve((30, 0.02), (20, 0.02), (10, 0.02), (10, 0.02)).estimate().plateau == (3.0, 4.0)


def test_a_plateau_forgives_four_tenths_on_average():
    ten = [10] * 10
    some = DimensionCurve((level(1.0, ten), level(2.0, [11] * 4 + [10] * 6)))
    assert some.estimate().plateau == (1.0, 2.0)
    more = DimensionCurve((level(1.0, ten), level(2.0, [11] * 5 + [10] * 5)))
    assert more.estimate().plateau == (1.0, 1.0)
    opposite = DimensionCurve((level(1.0, [10, 12]), level(2.0, [12, 10])))
    assert opposite.estimate().plateau == (1.0, 1.0), "changes at the points count, not of the mean"


def test_a_plateau_does_not_drift():
    """Steps of a third, each forgiven, do not add up: all levels of a plateau agree with one another."""
    drifting = [level(float(i + 1), [11] * i + [10] * (3 - i)) for i in range(4)]
    assert DimensionCurve(tuple(drifting)).estimate().plateau == (1.0, 2.0)


def test_a_plateau_at_zero_counts_only_if_there_is_no_other():
    beyond = curve((10, 0.02), (10, 0.02), (0, 0.02), (0, 0.02), (0, 0.02)).estimate()
    assert beyond.plateau == (1.0, 2.0) and beyond.warnings == ()
    short = curve((0, 0.02), (0, 0.02), (10, 0.02), (0, 0.02), (0, 0.02)).estimate()
    assert short.plateau == (3.0, 3.0) and short.mean == 10
    nothing = curve((0, 0.02), (0, 0.02)).estimate()
    assert nothing.mean == 0 and warned(nothing, "dimension 0: σ is beyond the size of the data")
    assert not warned(nothing, "rule disagree"), "the gap cannot answer 0, which is no doubt"


def test_a_dimension_of_d_is_no_doubt():
    assert curve((100, 0.02), (100, 0.02)).estimate().warnings == ()


@pytest.mark.parametrize("n_scores, doubt", [(101, True), (199, True), (200, False), (400, False)])
def test_few_scores_are_a_warning(n_scores, doubt):
    v = values((90, 1.4, 0.55), (10, 0.001, 0.0005))
    estimate = DimensionCurve(tuple(
        Spectrum(v, np.full(1, 10.0), s, n_scores) for s in (1.0, 2.0))).estimate()
    assert warned(estimate, f"K = {n_scores} is below 2 d = 200") == doubt


def warned(estimate, words):
    return any(words in warning for warning in estimate.warnings)


WORDS = ["no plateau", "rule disagree", "no two populations", "above the dimension"]


@pytest.mark.parametrize("words, doubtful", [
    ("no plateau", curve((30, 0.02), (20, 0.02), (10, 0.02))),
    ("above the dimension", curve((10, 0.02), (10, 0.02), loss=13.1)),  # 1 + 0.1 · 10 + 0.01 · 100 = 3
    ("above the dimension", curve((1, 0.02), (1, 0.02), loss=10.9)),
])
def test_one_doubt_one_warning(words, doubtful):
    estimate = doubtful.estimate()
    assert [w for w in WORDS if warned(estimate, w)] == [words]
    assert "warning: " in repr(estimate) and words in repr(estimate)


def test_a_loss_a_little_above_its_floor_is_no_doubt():
    assert curve((10, 0.02), (10, 0.02), loss=12.9).estimate().warnings == ()


def test_an_exact_denoiser_is_not_told_to_train():
    """σ too large for the curvature: the loss is above the dimension, and the words leave both reasons open."""
    (doubt,) = (w for w in curve((10, 0.02), (10, 0.02), loss=15.0).estimate().warnings if "loss" in w)
    assert "if it was trained" in doubt and "too large for the curvature" in doubt


def test_another_plateau_that_is_as_long_in_log_sigma_is_said():
    estimate = DimensionCurve(tuple(level(2.0**i, [k]) for i, k in enumerate([20, 20, 20, 10, 10, 10]))).estimate()
    assert estimate.mean == 20 and warned(estimate, "another plateau, σ = 8 to 32, has the dimension 10")
    short = DimensionCurve(tuple(level(2.0**i, [k]) for i, k in enumerate([20, 20, 20, 20, 10, 10]))).estimate()
    assert not warned(short, "another plateau") and len(short.plateaus) == 2
    spectra = [level(s, [k]) for s, k in zip([1.0, 1.1, 1.2, 2.0, 20.0], [20, 20, 20, 10, 10], strict=True)]
    assert warned(DimensionCurve(tuple(spectra)).estimate(), "another plateau, σ = 2 to 20"), "not in levels"


def test_a_change_that_leads_to_another_dimension_is_a_doubt():
    """Mean dimensions 10.45, 10.35, … at σ = 1, 2, …; a straight line through them is above 10.5 at σ = 0."""
    def at(*ones, sigmas=(1.0, 2.0, 3.0, 4.0)):
        return DimensionCurve(tuple(level(s, [11] * i + [10] * (20 - i))
                                    for s, i in zip(sigmas, ones, strict=True))).estimate()

    assert warned(at(9, 7, 4, 2), "changes from 10.45 to 10.10 between σ = 1 and 4: towards σ = 0 it may become 10.57")
    assert not warned(at(7, 5, 3, 1), "towards"), "10.45 is still 10"
    assert not warned(at(1, 3, 5, 7), "towards"), "nor does it matter what larger noise does"
    assert not warned(at(9, 7, 4, 2, sigmas=(1, 5, 6, 7)), "towards"), "far from the answer"
    union = DimensionCurve(tuple(level(s, [10] * 3 + [30] * 2) for s in (1.0, 2.0))).estimate()
    assert warned(union, "points have different"), "two populations"
    assert not warned(union, "towards"), "a mean far from the median is no slope"
    alone = DimensionCurve((level(1.0, [10, 10, 10, 6, 6]), level(2.0, [3] * 5))).estimate()
    assert warned(alone, "no plateau") and not warned(alone, "towards"), "one level has no slope"
    twenty = [level(s, [41] * i + [40] * (20 - i)) for s, i in ((1.0, 9), (2.0, 7), (3.0, 5))]
    assert not warned(DimensionCurve(tuple(twenty)).estimate(), "towards"), "one in forty"


def test_one_level_among_zeros_is_not_said_to_change_at_every_level():
    estimate = curve((0, 0.02), (10, 0.02), (0, 0.02)).estimate()
    assert warned(estimate, "only σ = 2 has a dimension") and not warned(estimate, "no plateau")


def test_the_level_of_the_answer_is_one_that_was_learned():
    """The highest contrast is at a loss of 19.9, where the others are at their floor of 10."""
    spectra = curve((10, 0.02), (10, 0.02), (10, 0.005), loss=10.0).spectra
    bad = dataclasses.replace(spectra[2], loss=np.full(1, 19.9))
    estimate = DimensionCurve((*spectra[:2], bad)).estimate()
    assert estimate.plateau == (1.0, 3.0) and estimate.sigma < 3.0 and not warned(estimate, "loss")


def test_unlike_points_are_said_to_be_unlike():
    union = [level(s, [1] * 5 + [2] * 5 + [3] * 5) for s in (1.0, 2.0)]
    assert warned(DimensionCurve(tuple(union)).estimate(),
                  "the points have different dimensions (1 at 33%, 2 at 33%, 3 at 33% of them)")
    half = [level(s, [2] * 10 + [3] * 10) for s in (1.0, 2.0)]
    assert warned(DimensionCurve(tuple(half)).estimate(), "the points have different dimensions (2 at 50%, 3 at 50%")
    half = [level(s, [7] * 10 + [8] * 10) for s in (1.0, 2.0)]
    assert warned(DimensionCurve(tuple(half)).estimate(), "the points have different dimensions (7 at 50%, 8 at 50%")
    close = [level(s, [50] * 8 + [51] * 6) for s in (1.0, 2.0)]
    assert not warned(DimensionCurve(tuple(close)).estimate(), "the points have different")


@pytest.mark.parametrize("few, is_doubt", [([1] * 3, False), ([1] * 4, True), ([0] * 1, False), ([5] * 3, True)])
def test_points_near_an_edge_are_no_doubt(few, is_doubt):
    """Near an edge one direction is missing. Of 20 points 3 may say 1 where the others say 2; 3 that say 5 may not."""
    levels = [level(s, [2] * (20 - len(few)) + few) for s in (1.0, 2.0)]
    assert warned(DimensionCurve(tuple(levels)).estimate(), "the points have different") == is_doubt


@pytest.mark.parametrize("few, is_doubt", [((4, 4, 4), True), ((1, 2, 4), False), ((3, 3, 3), False)])
def test_points_that_differ_at_all_noise_levels_are_no_edge(few, is_doubt):
    """A fifth of the points lie on a manifold of another dimension: at each level the same ones differ. Near an edge
    their number is proportional to σ."""
    levels = [level(s, [4] * (20 - n) + [3] * n) for s, n in zip((1.0, 2.0, 4.0), few, strict=True)]
    levels[2] = dataclasses.replace(levels[2], values=levels[2].values * np.where(np.arange(100) < 96, 1, 0.5))
    estimate = DimensionCurve(tuple(levels)).estimate()
    assert estimate.median == 4 and estimate.sigma == 4.0 and warned(estimate, "also towards σ = 0") == is_doubt


def test_the_standard_error_holds_between_seeds():
    """A direction as long as σ: all points share the noise that decides, so their own spread says nothing."""
    plane = Plane(3, 20, std=(1.0, 0.3, 0.12))
    x = plane.sample(20)
    found = [dimension_curve(denoiser(plane), x, [0.1, 0.11], seed=s).spectra for s in range(40)]
    means = [f[0].dimension().mean() for f in found]
    errors = [DimensionCurve(f).standard_errors()[0] for f in found]
    assert np.std(means) > 0.1 and 0.5 * np.std(means) < np.sqrt(np.mean(np.square(errors))) < 3 * np.std(means)


def two_levels(v, loss=10.0):
    return DimensionCurve(tuple(hand_made(v, s, np.full(len(v), loss)) for s in (1.0, 2.0))).estimate()


def test_disagreeing_rules_are_a_warning():
    clean = values((90, 1.4, 0.55), (10, 0.008, 0.004))
    weak = values((87, 1.4, 0.55), (3, 0.2, 0.15), (10, 0.008, 0.004))
    many = two_levels(np.concatenate([clean] * 4 + [weak]))
    assert not warned(many, "rule disagree") and many.dimension().tolist() == [10] * 5
    assert warned(two_levels(np.concatenate([clean] * 2 + [weak])), "rule disagree at 33%")


def test_one_population_is_a_warning():
    smooth = values((100, 1.4, 0.001))
    assert warned(two_levels(smooth), "no two populations of singular values at 100%")


def test_standard_error_is_over_the_points():
    ks = [9, 10, 11, 10]
    v = np.concatenate([values((100 - k, 1.4, 0.55), (k, 0.02, 0.01)) for k in ks])
    both = DimensionCurve((hand_made(v, 1.0), hand_made(v, 2.0)))
    expected = math.sqrt(2 / 3) / 2
    assert math.isclose(both.estimate().standard_error, expected)
    assert np.allclose(both.standard_errors(), expected)
    assert "10.00 ± 0.41" in repr(both.estimate())


def test_one_point_has_no_standard_error_and_no_noise_about_it():
    one = curve((10, 0.02), (10, 0.02), points=1)
    assert math.isnan(one.estimate().standard_error)
    assert np.isnan(one.standard_errors()).all()
    assert "k = 10.00" in repr(one)


def test_curve_of_a_sphere_finds_its_dimension_without_doubts():
    sphere = Sphere(10, 40, seed=1, offset=5.0)
    found = dimension_curve(denoiser(sphere), sphere.sample(8), [0.02, 0.005, 0.01, 0.04, 0.01])
    assert found.sigmas.tolist() == [0.005, 0.01, 0.02, 0.04], "ascending, each once"
    assert found.dimension().shape == (4, 8)
    estimate = found.estimate()
    assert estimate.dimension().tolist() == [10] * 8 and estimate.warnings == ()
    assert (found.dimension("gap")[0] == 10).all()


def test_a_curve_uses_the_same_noise_at_every_level():
    plane = Plane(2, 8, seed=1)
    found = dimension_curve(denoiser(plane), plane.sample(2).double(), [1e-4, 1e-3])
    normal = [s.values[:, :6] for s in found.spectra]
    assert np.allclose(*normal, atol=1e-4)


@pytest.mark.parametrize("sigmas", [[], [0.1], [0.1, 0.1]])
def test_a_curve_of_one_level_is_refused(sigmas):
    with pytest.raises(ValueError, match="at least two different noise levels"):
        dimension_curve(denoiser(Plane(1, 5)), torch.zeros(3, 5), sigmas)


def test_noise_levels_may_be_a_tensor():
    levels = torch.tensor([0.2, 0.1], requires_grad=True)
    found = dimension_curve(lambda x, sigma: 0.5 * x, torch.randn(2, 3), levels)
    np.testing.assert_allclose(found.sigmas, [0.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize("neighbours, k", [(math.nan, 1), (6.8, 7)])
def test_a_printed_curve_shows_the_answer_that_its_neighbours_allow(neighbours, k):
    """It is the answer of the estimate, also at some of the points."""
    spectra = tuple(dataclasses.replace(level(2.0**i, [k] * 4), loss=np.full(4, k + 4.0 * (i < 2)))
                    for i, k in enumerate((7, 7, 1, 1, 1)))
    found = DimensionCurve(spectra, neighbours)
    assert found.estimate().median == found.at([0, 1]).estimate().median == k
    assert repr(found).startswith(f"dimension {k}.00")


@pytest.mark.parametrize("below, doubt", [((100, 100), False), ((100, 90), True), ((90,), True)])
def test_noise_that_fills_a_large_space_is_no_doubt(below, doubt):
    levels = tuple(level(2.0**i, [k]) for i, k in enumerate((*below, 10, 10, 10)))
    assert warned(DimensionCurve(levels).estimate(), "the dimension rises to") == doubt


@pytest.mark.parametrize("means, doubt", [([2.0, 1.0, 1.0], True), ([1.58, 1.0, 1.0], True), ([1.3, 1.0, 1.0], False)])
def test_noise_of_a_hypersurface_raises_the_dimension_by_one_only(means, doubt):
    shares = [round(100 * (mean - 1)) for mean in means]
    levels = [hand_made(np.array([[0.03, 0.01]] * n + [[1.0, 0.01]] * (100 - n)), 2.0**i, np.full(100, 1 + n / 100))
              for i, n in enumerate(shares)]
    assert warned(DimensionCurve(tuple(levels)).estimate(), "the dimension rises to") == doubt


@pytest.mark.parametrize("below, doubt", [((0, 0), True), ((5, 6), True), ((), False)])
def test_a_dimension_that_falls_below_the_plateau_is_doubted(below, doubt):
    levels = tuple(level(2.0**i, [k]) for i, k in enumerate((*below, 10, 10, 10)))
    assert warned(DimensionCurve(levels).estimate(), "the dimension falls to") == doubt


@pytest.mark.parametrize("parts", [([2] * 90 + [9] * 10), ([20] * 50 + [22] * 50), ([30] * 51 + [33] * 49)])
def test_a_mixture_is_doubted_although_most_points_are_near_the_median(parts):
    estimate = DimensionCurve(tuple(level(2.0**i, parts) for i in range(3))).estimate()
    assert warned(estimate, "the points have different dimensions")


def test_levels_that_are_nearly_equal_are_no_plateau():
    short, long = (DimensionCurve((level(1.0, [10]), level(top, [10]))).estimate() for top in (1.0001, 1.2))
    assert warned(short, "too short to be one") and not warned(long, "too short to be one")
