"""DiffusionDimension: scikit-learn's contract, known data, doubts, and refusals that say what to do."""

import math
import os
import pickle
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import dimlib
from dimlib import DiffusionDimension, ScoreModel, networks
from dimlib.apply import estimator
from dimlib.apply.doubts import about_the_data, about_the_neighbours, about_the_order, dimension_of_neighbours
from dimlib.apply.learning import Mean
from dimlib.data import exact, manifolds
from dimlib.machine import compute
from dimlib.vision import SecondLook

BRIEF = {"max_steps": 20, "width": 32}  # for what does not depend on a good network


@pytest.fixture
def quiet():
    """A network of 20 steps has doubts about everything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([DiffusionDimension(**BRIEF)])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("manifold, median", [(manifolds.Cube(3, 3), 3), (manifolds.Plane(4, 12, seed=2), 4)])
def test_known_data(manifold, median, quiet):
    """The README's test has a sphere."""
    X = manifold.sample(1000, seed=1).numpy()
    fitted = DiffusionDimension(max_steps=300, batch_size=200).fit(X)
    assert fitted.dimension_ == median
    new = fitted.predict(manifold.sample(20, seed=2).numpy())
    assert new.shape == (20,) and np.median(new) == median


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_units_do_not_matter(scale, quiet):
    X = manifolds.Plane(2, 5, seed=1).sample(200).numpy()
    one, other = (DiffusionDimension(**BRIEF | {"max_steps": 100}).fit(x) for x in (X, scale * X))
    assert other.sigma_ == pytest.approx(scale * one.sigma_, rel=1e-3)
    assert other.dimension_ == one.dimension_


def test_a_given_denoiser_is_used_and_not_trained():
    sphere = manifolds.Sphere(3, 8, seed=4, offset=1.0)
    X = sphere.sample(500, seed=1).numpy()
    fitted = DiffusionDimension(exact.denoiser(sphere), sigmas=[0.01, 0.02, 0.04]).fit(X)
    assert fitted.dimension_ == 3 and fitted.estimate_.standard_error == 0 and fitted.estimate_.warnings == ()
    assert (fitted.fit_transform_pw(X[:50]) == 3).all()


def test_images_need_no_flattening():
    def project(x, sigma):  # on images whose upper half is black
        return torch.cat([torch.zeros_like(x[..., :2, :]), x[..., 2:, :]], dim=-2)

    images = torch.nn.functional.pad(torch.rand(40, 1, 2, 4), (0, 0, 2, 0)).numpy()
    assert DiffusionDimension(project, sigmas=[0.01, 0.02]).fit(images).dimension_ == 8


def test_answers_depend_neither_on_batch_nor_on_order(quiet):
    X = manifolds.Sphere(2, 6, seed=1).sample(200).numpy()
    fitted = DiffusionDimension(**BRIEF).fit(X)
    together = fitted.predict(X)
    assert (together[::-1] == fitted.predict(X[::-1])).all()
    assert (together[:7] == np.concatenate([fitted.predict(X[i:i + 1]) for i in range(7)])).all()


def test_a_fit_seeds_no_stream_of_a_gpu(quiet, monkeypatch):
    """torch.manual_seed seeds those of all GPUs, and nothing would put them back."""
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("all streams are seeded"))
    DiffusionDimension(max_steps=1, sigmas=[0.1, 0.2]).fit(ring(40))


def test_a_fit_can_be_repeated_and_leaves_the_global_stream_alone(quiet):
    X = manifolds.Sphere(2, 6, seed=1).sample(200).numpy()
    torch.manual_seed(5)
    first = DiffusionDimension(**BRIEF).fit(X)
    drawn = torch.rand(1)
    second = DiffusionDimension(**BRIEF).fit(X)
    assert (first.curve_.spectra[0].values == second.curve_.spectra[0].values).all()
    torch.manual_seed(5)
    assert drawn == torch.rand(1)


def test_progress_is_shown_where_asked_for(capsys, quiet):
    DiffusionDimension(**BRIEF, verbose=True).fit(manifolds.Plane(2, 5).sample(50).numpy())
    assert "dimension" in capsys.readouterr().out


X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


@pytest.mark.parametrize("change, doubt", [
    (lambda x: np.repeat(x, 3, axis=0), "67% of the rows are duplicates"),
    (lambda x: np.c_[x, np.ones(60)], "1 of 5 columns are constant"),
    (lambda x: x * [1, 1, 1, 1000], "columns differ in scale by more than 100 times")])
def test_doubts_about_the_data(change, doubt):
    with pytest.warns(UserWarning, match=doubt):
        fitted = DiffusionDimension(**BRIEF).fit(change(X))
    assert any(doubt in text for text in fitted.estimate_.warnings)


def test_doubt_about_noise_in_the_data():
    noisy = exact.GaussianPlane(manifolds.Plane(6, 6, std=[1, 1, 1, 0.02, 0.02, 0.02], seed=0))
    rows = noisy.plane.sample(200).numpy()
    with pytest.warns(UserWarning, match=r"below σ = .* the dimension rises to 6.0: the data have noise"):
        fitted = DiffusionDimension(noisy, sigmas=np.geomspace(0.001, 0.3, 10)).fit(rows)
    assert fitted.dimension_ == 3


@pytest.mark.slow
def test_doubt_about_too_few_rows():
    with pytest.warns(UserWarning, match=r"too few rows: after step 100 the network memorised them"):
        DiffusionDimension(max_steps=600).fit(np.random.default_rng(0).normal(size=(40, 20)))


@pytest.mark.parametrize("bad, error, message", [
    (np.where(X > 2, np.nan, X), ValueError, "contains NaN"),
    (np.where(X > 2, np.inf, X), ValueError, "contains infinity"),
    (np.full((20, 3), "word"), ValueError, "could not convert string"),
    (sparse.csr_matrix(X), TypeError, "[Ss]parse data was passed"),
    (X[:1], ValueError, "minimum of 10 is required"),
    (X[:9], ValueError, "minimum of 10 is required"),
    (X[:, :1], ValueError, "minimum of 2 is required"),
    (X[0], ValueError, "Expected 2D array"),
    (np.ones((50, 3)), ValueError, "fewer than 10 different rows"),
    (np.repeat(X[:5], 10, axis=0), ValueError, "fewer than 10 different rows .* Remove duplicates")])
def test_bad_data_are_refused(bad, error, message):
    with pytest.raises(error, match=message):
        DiffusionDimension(**BRIEF).fit(bad)


@pytest.mark.parametrize("good", [
    (X * 10).astype(int), X.astype(np.float16), X.tolist(), torch.from_numpy(X), np.asfortranarray(X)])
def test_other_kinds_of_numbers_are_taken(good, quiet):
    assert DiffusionDimension(**BRIEF).fit(good).predict(good).shape == (60,)


def test_what_cannot_fit_is_refused_before_it_is_trained_on(monkeypatch):
    monkeypatch.setattr(compute, "memory", lambda device: 100.0)
    monkeypatch.setattr(estimator, "learn", None)  # calling it would be another error
    with pytest.raises(MemoryError, match="d=4 entries needs .* use tangent_sketch"):
        DiffusionDimension().fit(X)


def test_too_many_columns_are_refused_before_memory_is_used(monkeypatch):
    monkeypatch.setattr(compute, "memory", lambda device: 100.0)
    monkeypatch.setattr(estimator, "_frame", None)  # calling it, or the other one, would be another error
    monkeypatch.setattr(np, "unique", None)
    with pytest.raises(MemoryError, match="d=4 entries needs .* use tangent_sketch"):
        DiffusionDimension().fit(X)


def test_predict_refuses_another_number_of_columns(quiet):
    fitted = DiffusionDimension(**BRIEF).fit(X)
    with pytest.raises(ValueError, match="X has 3 features, but DiffusionDimension is expecting 4"):
        fitted.predict(X[:, :3])


def test_predict_refuses_rows_of_another_shape(quiet):
    """NumPy would repeat a column of 8 numbers to a square of 8 × 8."""
    squares = np.random.default_rng(0).normal(size=(40, 8, 8))
    fitted = DiffusionDimension(**BRIEF).fit(squares)
    assert fitted.predict(squares[:3]).shape == (3,)
    with pytest.raises(ValueError, match=r"rows of shape \(8, 1\), and the fit had rows of shape \(8, 8\)"):
        fitted.predict(squares[:, :, :1])


def test_rows_of_any_shape_but_that_of_images_are_a_table(quiet):
    squares = np.random.default_rng(0).normal(size=(60, 2, 2)) * [1, 1000]
    fitted = DiffusionDimension(**BRIEF).fit(squares)
    assert any("columns differ in scale" in doubt for doubt in fitted.estimate_.warnings)


@pytest.mark.parametrize("denoiser, message", [
    (lambda x, sigma: x[:, :2], r"returned shape .* must have the shape of x"),
    (lambda x, sigma: x * float("nan"), "NaN or infinite values at sigma"),
    (ScoreModel(networks.MLP(4), 1.0), r"sigma=5 is outside this model's range, 0.01 to 1")])
def test_bad_denoisers_are_refused(denoiser, message):
    with pytest.raises(ValueError, match=message):
        DiffusionDimension(denoiser, sigmas=[5, 6]).fit(X)


# ---------------------------------------------------------------- origin and units


ANGLES = np.random.default_rng(1).uniform(0, 2 * np.pi, 120)
CIRCLE = np.c_[np.cos(ANGLES), np.sin(ANGLES)]
quick = settings(max_examples=15, suppress_health_check=list(HealthCheck))
scales = st.floats(-20, 20).map(lambda e: 10.0**e)
offsets = st.floats(-1e6, 1e6)


@quick
@given(a=scales, b=offsets)
def test_answers_do_not_depend_on_origin_and_units(a, b):
    """The same at x and at a·x + b·a, for fit and predict; (b is in units of a: float64 has 16 digits)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here, there = (DiffusionDimension(**BRIEF, device="cpu").fit(x) for x in (CIRCLE, a * (CIRCLE + b)))
    assert there.sigma_ == pytest.approx(a * here.sigma_, rel=1e-3)
    assert there.estimate_.mean == pytest.approx(here.estimate_.mean, abs=0.2)
    assert np.mean(there.predict(a * (CIRCLE[:30] + b)) == here.predict(CIRCLE[:30])) >= 0.9


@quick
@given(a=scales, b=offsets)
def test_a_frame_maps_the_data_to_the_same_numbers(a, b):
    here, there = estimator._frame(CIRCLE), estimator._frame(a * (CIRCLE + b))
    assert there.unit == pytest.approx(a * here.unit, rel=1e-6)
    assert np.allclose(there.into(a * (CIRCLE + b)), here.into(CIRCLE), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda x: 0.01 * x + [47.3, 8.5], lambda x: np.c_[x, np.full(len(x), 1.7e9)]],
                         ids=["GPS", "time stamp"])
def test_a_circle_is_a_circle_wherever_it_is(change, quiet):
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 1000)
    fitted = DiffusionDimension(max_steps=300, batch_size=200).fit(change(np.c_[np.cos(angles), np.sin(angles)]))
    assert fitted.dimension_ == 1


def test_the_trained_denoiser_works_in_the_units_of_the_data(quiet):
    fitted = DiffusionDimension(**BRIEF).fit(1e6 + 3 * CIRCLE)
    x = torch.tensor(1e6 + 3 * CIRCLE[:5])
    assert torch.allclose(fitted.denoiser_(x, fitted.sigma_), x, atol=3) and fitted.denoiser_(x, 0.3).dtype == x.dtype
    found = dimlib.spectrum(fitted.denoiser_, x, fitted.sigma_, seed=fitted._seed)
    assert (found.dimension() == fitted.predict(x.numpy())).mean() >= 0.8
    assert fitted.denoiser_.sigma_min <= fitted.sigma_ < fitted.denoiser_.sigma_max


# ---------------------------------------------------------------- doubts


def rows(n=300, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def ring(n=400):
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, n)
    return np.c_[np.cos(angles), np.sin(angles)]


def with_code(x, share, value):
    x = x.copy()
    x[:: int(1 / share), 0] = value
    return x


@pytest.mark.parametrize("x, doubt", [
    (np.r_[rows(), [[1e3, 0, 0]]], "1 of 301 rows are outliers"),
    (with_code(rows(), 0.01, -9999), "3 of 300 rows are outliers, .* a missing value such as -9999"),
    (np.random.default_rng(0).integers(1, 6, size=(300, 4)), "4 of 4 columns hold values on a grid, such as whole"),
    (np.c_[rows(), rows()[:, 0] > 0], "1 of 4 columns hold values on a grid")])
def test_outliers_and_grids_are_doubts(x, doubt):
    with pytest.warns(UserWarning, match=doubt):
        DiffusionDimension(**BRIEF).fit(x)


@pytest.mark.parametrize("make, k", [
    (lambda: ring(1500), 1), (lambda: manifolds.Sphere(2, 10).sample(1500).numpy(), 2),
    (lambda: manifolds.Cube(5, 12).sample(1500).numpy(), 5), (lambda: manifolds.Sphere(7, 20).sample(1500).numpy(), 7),
    (lambda: manifolds.Sphere(30, 60).sample(1500).numpy(), 30)])
def test_neighbours_contradict_an_answer_that_is_much_too_large_only(make, k):
    found = dimension_of_neighbours(make())
    assert about_the_neighbours(found, k, 1500, 60) == []
    assert about_the_neighbours(found, 2 * k, 1500, 60)


def test_neighbours_contradict_the_dimension_of_the_hull():
    """Twelve coordinates, bent so that they span 24 dimensions. A network answered 24, with a loss of 24."""
    rng = np.random.default_rng(100)
    z = rng.standard_normal((2500, 12))
    X = np.tanh(z @ rng.standard_normal((12, 40)) / 3) @ rng.standard_normal((40, 24))
    (doubt,) = about_the_neighbours(dimension_of_neighbours(X), 24, 2500, 24)
    assert "and for data of dimension 24 they would have about 17.9" in doubt
    assert about_the_neighbours(dimension_of_neighbours(X), 12, 2500, 24) == []


def test_neighbours_contradict_matrices_of_full_rank():
    """6 × 6 matrices of rank 2 have 20 dimensions. They span all 36, and a network answered 36."""
    rng = np.random.default_rng(100)
    left, right = rng.standard_normal((2, 2500, 6, 2))
    X = np.einsum("nik,njk->nij", left, right).reshape(2500, 36)
    found = dimension_of_neighbours(X)
    assert about_the_neighbours(found, 36, 2500, 36) and about_the_neighbours(found, 20, 2500, 36) == []


@pytest.mark.parametrize("d", [9, 12, 18])
def test_the_surface_of_a_cube_is_not_taken_for_flat_data(d):
    """It was: 18 for a surface of dimension 17 in R^18, rotated, without any doubt."""
    rng = np.random.default_rng(0)
    surface, flat = rng.random((2500, d)), rng.standard_normal((2500, d))
    surface[np.arange(2500), rng.integers(0, d, 2500)] = rng.integers(0, 2, 2500)
    (doubt,) = about_the_neighbours(dimension_of_neighbours(surface), d, 2500, d)
    assert "or a surface of one dimension less" in doubt
    assert about_the_neighbours(dimension_of_neighbours(surface), d, 2500, d + 5) == [], "in a larger hull"
    assert about_the_neighbours(dimension_of_neighbours(flat), d, 2500, d) == []


def test_neighbours_of_few_points_and_of_duplicates_tell_nothing():
    assert math.isnan(dimension_of_neighbours(ring(99))) and math.isnan(dimension_of_neighbours(np.zeros((600, 3))))
    assert about_the_neighbours(math.nan, 5, 1000, 9) == [] and about_the_neighbours(5.0, 0, 1000, 9) == []


def test_a_curve_that_the_network_takes_for_a_surface_is_doubted(quiet):
    """A curve that winds around a torus: a short training finds the torus or R^3, with a clear gap and a small loss."""
    t = np.random.default_rng(7).uniform(0, 2 * np.pi, 1500)
    curve = np.c_[(2 + np.cos(13 * t)) * np.cos(2 * t), (2 + np.cos(13 * t)) * np.sin(2 * t), np.sin(13 * t)]
    fitted = DiffusionDimension(max_steps=200).fit(curve)
    assert fitted.dimension_ == 1 or any("distances between neighbours" in text for text in fitted.estimate_.warnings)


def test_a_row_can_be_far_in_one_column_or_as_a_whole():
    one_column, whole = rows(d=100), rows(d=20)
    one_column[0, 0], whole[0] = 60, 30                                    # in units of the spread
    assert any("1 of 300 rows are outliers" in text for text in about_the_data(one_column, 0.02))
    assert any("1 of 300 rows are outliers" in text for text in about_the_data(whole, 0.02))
    whole[0] = 8
    assert about_the_data(whole, 0.02) == []


@pytest.mark.parametrize("x", [rows(), ring(), rows() ** 2, np.random.default_rng(0).exponential(size=(1000, 5))])
def test_ordinary_data_have_neither_outliers_nor_a_grid(x):
    assert about_the_data(x, 0.02) == []


def test_a_constant_column_is_no_difference_of_scale():
    """0.1 has no exact float32, and its mean of many differs from it by rounding."""
    x = np.c_[rows(1000), np.full(1000, 0.1)].astype(np.float32)
    assert about_the_data(x, 0.02) == ["1 of 4 columns are constant"]


def test_noise_that_fills_the_plane_is_doubted(quiet):
    """A line of thickness 0.03 in R²: dimension 2 below it and 1 above, a rise of one only."""
    line = manifolds.Plane(2, 2, std=[1, 0.03], seed=0)
    fitted = DiffusionDimension(exact.denoiser(line), sigmas=np.geomspace(0.012, 0.3, 8)).fit(line.sample(400).numpy())
    assert fitted.dimension_ == 1 and any("rises to 2.0" in text for text in fitted.estimate_.warnings)


@pytest.mark.parametrize("std", [[1, 0.1, 0.1], [1, 0.05, 0.05, 0.05]])
def test_thin_directions_of_the_data_are_not_taken_for_noise(std, quiet):
    """Independent columns of unequal scale, so k = d. The answer was 1, without a doubt."""
    plane = manifolds.Plane(len(std), len(std), std=std, seed=0)
    fitted = DiffusionDimension(exact.denoiser(plane)).fit(plane.sample(400).numpy())
    assert fitted.dimension_ == len(std) or any(
        "some directions are thinner than σ" in text for text in fitted.estimate_.warnings)


def test_a_column_that_numbers_the_rows_is_doubted():
    """Times, evenly spaced, count as a dimension; in an array nothing else says so."""
    t = np.random.default_rng(0).uniform(0, 6, 1000)
    helix = np.c_[np.cos(t), np.sin(t), t]
    assert about_the_data(helix, 0.001) == []
    times = np.linspace(-2, 2, 1000)
    for column in (times, times.astype(np.float32), 1.7e9 + 0.1 * np.arange(1000), times[::-1].round(5)):
        doubts = about_the_data(np.c_[helix, column], 0.001)
        assert any("1 of 4 columns rise or fall by the same step from row to row" in doubt for doubt in doubts)


def test_rows_in_the_order_of_time_are_doubted():
    steps = np.random.default_rng(0).normal(size=(2500, 10))
    walk = steps.copy()
    for i in range(1, len(walk)):
        walk[i] += 0.98 * walk[i - 1]
    shuffled = walk[np.random.default_rng(1).permutation(len(walk))]
    assert any("follow each other, as in time" in doubt for doubt in about_the_order(walk))
    assert about_the_order(shuffled) == about_the_order(steps) == []


def test_a_path_on_a_torus_is_doubted_and_sorted_rows_are_not():
    angles = 0.05 * np.arange(2500)[:, None] * [1, 2**0.5, 3**0.5]
    assert about_the_order(np.c_[np.cos(angles), np.sin(angles)])
    flat = np.random.default_rng(0).random((800, 2))
    assert about_the_order(flat[np.argsort(flat[:, 0])]) == about_the_order(np.repeat(flat, 2, axis=0)) == []


@pytest.mark.parametrize("table, coarse", [
    (lambda h, rng: np.c_[np.sin(2 * np.pi * h / 24), np.cos(2 * np.pi * h / 24)], 2),                 # hours as angles
    (lambda h, rng: np.where(rng.random((1000, 2)) < 0.02, 2.7, rng.integers(1, 6, (1000, 2))), 2),    # imputed answers
    (lambda h, rng: np.c_[h, rng.normal(size=1000)], 1),
    (lambda h, rng: rng.normal(size=(1000, 2)).round(2), 0)])                                          # steps of 0.01
def test_a_grid_is_seen_through_rounding_and_imputed_values(table, coarse):
    rng = np.random.default_rng(0)
    found = about_the_data(table(rng.integers(0, 24, 1000), rng), 0.05)
    assert [text for text in found if "on a grid" in text] == [
        text for text in found if text.startswith(f"{coarse} of 2 columns hold values on a grid")]
    assert any("on a grid" in text for text in found) == bool(coarse)


def test_the_pixels_of_binary_images_are_a_grid():
    images = np.random.default_rng(0).integers(0, 2, (200, 1, 6, 6)).astype(float)
    assert any("36 of 36 pixels hold values on a grid" in text for text in about_the_data(images, 0.1))
    assert about_the_data(np.round(np.random.default_rng(0).random((200, 1, 6, 6)) * 255) / 255, 0.01) == []
    dark = np.random.default_rng(0).random(images.shape) * (np.random.default_rng(1).random(images.shape) > 0.9)
    assert not any("on a grid" in text for text in about_the_data(dark, 0.01))  # mostly black


def test_few_rows_are_compared_with_their_neighbours_too():
    assert about_the_neighbours(dimension_of_neighbours(ring(200)), 2, 200, 2)
    assert not about_the_neighbours(dimension_of_neighbours(ring(200)), 1, 200, 2)


def test_points_that_are_all_equally_far_have_no_dimension_of_neighbours():
    assert np.isnan(dimension_of_neighbours(estimator._frame(np.eye(600)).into(np.eye(600))))


def test_one_or_two_points_are_doubted(quiet):
    found = DiffusionDimension(**BRIEF).fit(ring(15)).estimate_
    assert any("at 1 held-out row only: too few" in text for text in found.warnings)


def test_masked_values_are_refused():
    with pytest.raises(ValueError, match="X has masked values: remove or impute those rows first"):
        DiffusionDimension().fit(np.ma.masked_less(X, 0.0))


# ---------------------------------------------------------------- state and parameters


def test_a_second_fit_forgets_the_first(quiet):
    fitted = DiffusionDimension(**BRIEF)
    assert fitted.fit_transform_pw(X).shape == (60,) and fitted.dimension_pw_.shape == (60,)
    fitted.fit(X[:40])
    assert not hasattr(fitted, "dimension_pw_")


def test_looking_for_an_attribute_starts_no_work(monkeypatch, quiet):
    fitted = DiffusionDimension(**BRIEF).fit(X)
    monkeypatch.setattr(estimator, "spectrum", None)
    assert not hasattr(fitted, "dimension_pw_")


def test_a_pickle_holds_no_rows_and_answers_the_same(quiet):
    few, many = (DiffusionDimension(**BRIEF).fit(rows(n)) for n in (200, 20_000))
    sizes = [len(pickle.dumps(fitted)) for fitted in (few, many)]
    assert sizes[1] < sizes[0] + 100_000
    again = pickle.loads(pickle.dumps(few))
    assert (again.predict(rows(20, seed=1)) == few.predict(rows(20, seed=1))).all()


@pytest.mark.parametrize("bad, error", [
    ({"sigmas": [0.1]}, ValueError), ({"sigmas": 0.1}, ValueError), ({"sigmas": [0.1, -0.2]}, ValueError),
    ({"sigmas": [0.1, float("nan")]}, ValueError), ({"sigmas": "0.1"}, ValueError), ({"sigmas": ["a", "b"]}, TypeError),
    ({"n_points": 0}, ValueError), ({"n_points": -5}, ValueError), ({"n_points": 50}, ValueError),
    ({"width": 0}, ValueError), ({"n_networks": 0}, ValueError), ({"max_steps": 0}, ValueError),
    ({"max_steps": 150.0}, TypeError), ({"min_steps": 0}, ValueError), ({"min_steps": 3101}, ValueError),
    ({"batch_size": 10.0}, TypeError), ({"batch_size": 0}, ValueError), ({"max_steps": True}, TypeError)])
def test_bad_parameters_are_refused_before_the_training(bad, error, monkeypatch):
    monkeypatch.setattr(estimator, "learn", None)  # calling it would be another error
    (name, _), = bad.items()
    with pytest.raises(error, match=f"{name}="):
        DiffusionDimension(**bad).fit(X)


@pytest.mark.parametrize("n_points", [1, 6])
def test_as_many_points_as_asked_for(n_points, quiet):
    assert len(DiffusionDimension(**BRIEF, n_points=n_points).fit(X).estimate_.dimension()) == n_points


def test_levels_stay_within_the_range_of_a_given_denoiser(quiet):
    plane = manifolds.Plane(2, 4, seed=1)
    limited = exact.denoiser(plane)
    limited.sigma_min, limited.sigma_max = 0.05, 0.2
    fitted = DiffusionDimension(limited).fit(plane.sample(200).numpy())
    assert fitted.curve_.sigmas[[0, -1]] == pytest.approx([0.05, 0.2]) and fitted.dimension_ == 2
    limited.sigma_min, limited.sigma_max = 50, 100
    with pytest.raises(ValueError, match="the denoiser is for noise levels from 50 to 100, .* the same units"):
        DiffusionDimension(limited).fit(plane.sample(200).numpy())
    del limited.sigma_max  # one of the two is enough
    with pytest.raises(ValueError, match="the denoiser is for noise levels from 50 to inf, .* the same units"):
        DiffusionDimension(limited).fit(plane.sample(200).numpy())


def test_the_default_dtype_does_not_matter(quiet):
    found = []
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            found.append(DiffusionDimension(**BRIEF).fit(X).curve_.dimension())
    finally:
        torch.set_default_dtype(torch.float32)
    assert found[0].shape == found[1].shape


def test_the_recipe_s_levels_and_range(quiet):
    """Neighbours 0.08 apart: the smallest level is a quarter of that; the largest is half a unit, trained are three."""
    x = np.stack(np.meshgrid(0.08 * np.arange(30), 0.08 * np.arange(30)), -1).reshape(-1, 2)
    x = x[np.random.default_rng(0).permutation(len(x))]
    fitted = DiffusionDimension(**BRIEF).fit(x)
    unit = fitted.denoiser_.frame.unit
    assert fitted.curve_.sigmas[[0, -1]] == pytest.approx([0.02, unit / 2]) and len(fitted.curve_.sigmas) == 8
    assert fitted.denoiser_.sigma_max == pytest.approx(3 * unit)


def test_images_get_a_network_for_images(quiet):
    """Bars whose grey value is the only coordinate, at 8 × 8 pixels."""
    grey = np.random.default_rng(0).random((60, 1, 1, 1))
    images = np.broadcast_to(grey * np.linspace(0.2, 1, 8), (60, 1, 8, 8)).copy()
    fitted = DiffusionDimension(max_steps=8, n_points=2).fit(images)
    net = fitted._inner.net
    assert isinstance(net, SecondLook) and net.config["size"] == 8 and net.config["channels_in"] == 1
    ends = np.array([images.min(), images.max()]) - images.mean()          # black and white, as the network gets them
    assert np.array(net.config["ends"]) * fitted._inner.data_std * fitted._frame.unit == pytest.approx(ends, abs=0.05)
    assert fitted.predict(images[:3]).shape == (3,)
    assert not hasattr(DiffusionDimension(**BRIEF).fit(images.reshape(60, -1))._inner.net, "look")


@pytest.mark.parametrize("size, attention", [(9, True), (31, True), (41, False), (64, True)])
def test_attention_only_between_few_pixels(size, attention):
    """Sizes that cannot be halved: attention between 41 × 41 pixels takes a matrix of 1681 × 1681 for each image."""
    images = torch.rand(12, 1, size, size)
    assert estimator._for_images(images, [0.1, 0.5]).net.config["attention"] == attention


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="images of 8×6 pixels: crop or pad them to squares"):
        DiffusionDimension(max_steps=2).fit(np.random.default_rng(0).random((30, 1, 8, 6)))


@pytest.mark.parametrize("shape", [(30, 8, 8, 3), (30, 8, 6, 1)])
def test_images_whose_channels_are_last_are_refused(shape):
    message = rf"images of 8×{shape[2]} pixels with their {shape[3]} channels last: .* np.moveaxis\(X, 3, 1\)"
    with pytest.raises(ValueError, match=message):
        DiffusionDimension(max_steps=2).fit(np.random.default_rng(0).random(shape))


def test_small_noise_levels_are_for_thin_directions():
    """A sheet whose thickness is .03 of its length needs three levels well below that; a round one does not."""
    draw = np.random.default_rng(0).normal(size=(400, 4))
    frames = [(x, estimator._frame(x[40:])) for x in (draw, draw * [1, 1, 1, 0.03])]
    smallest = [DiffusionDimension()._levels(frame.into(x[:40]), frame.into(x[40:]), frame)[0] / frame.unit
                for x, frame in frames]
    assert smallest[0] == pytest.approx(0.03) and smallest[1] == pytest.approx(0.03 / 16, rel=0.1)
    thin = draw * [1, 1, 1, 0.01 * draw.std(axis=0).max() / draw[:, 3].std() * 1.1]
    frame = estimator._frame(thin[40:])
    levels = DiffusionDimension()._levels(frame.into(thin[:40]), frame.into(thin[40:]), frame)
    assert len(levels) == estimator.MOST_LEVELS and (levels[1:] / levels[:-1]).max() <= estimator.RATIO


def test_missing_values_in_many_columns_are_outliers():
    rows = np.random.default_rng(0).normal(size=(1000, 20))
    rows[np.random.default_rng(1).random(rows.shape) < 0.01] = -9999
    assert any(f"{(rows == -9999).any(axis=1).sum()} of 1000 rows are outliers" in doubt
               for doubt in about_the_data(rows, 0.01))


def test_one_value_in_many_rows_is_a_doubt():
    """The surface of a cube: on its faces a column is exactly 0 or 1, and its other values all differ."""
    rng = np.random.default_rng(0)
    rows = rng.random((1000, 6))
    rows[np.arange(1000), rng.integers(6, size=1000)] = rng.integers(2, size=1000)
    assert any("6 of 6 columns hold one value in many rows" in doubt for doubt in about_the_data(rows, 0.01))
    for ordinary in (rng.random((1000, 6)), rng.normal(size=(1000, 6)).round(1)):
        assert not any("one value" in doubt for doubt in about_the_data(ordinary, 0.3))


def test_rows_are_no_outliers_if_they_are_many():
    """Two lines that cross: in each column half of the values are 0, and the others are far from these."""
    line = np.linspace(-1, 1, 200)
    cross = np.concatenate([np.c_[line, 1e-4 * line], np.c_[1e-4 * line, line]])
    assert not any("outliers" in doubt for doubt in about_the_data(cross, 0.01))


def test_how_the_training_ended_is_told(quiet):
    fitted = DiffusionDimension(**BRIEF).fit(X)
    assert fitted.learned_.tried == 20 and fitted.learned_.loss.shape == (8,)
    assert any("still learning" in doubt for doubt in fitted.estimate_.warnings)
    given = fitted.set_params(denoiser=fitted.denoiser_).fit(X)
    assert not hasattr(given, "learned_") and not any("learning" in doubt for doubt in given.estimate_.warnings)


def test_several_networks_are_one_denoiser(quiet):
    one, three = DiffusionDimension(**BRIEF).fit(X), DiffusionDimension(**BRIEF, n_networks=3).fit(X)
    models, z = three.learned_.model.models, torch.tensor(X[:5])
    assert three.learned_.tried == 60 and torch.equal(models[0](z, 0.3), one.learned_.model(z, 0.3))
    assert torch.allclose(three._inner(z, 0.3), sum(model(z, 0.3) for model in models) / 3, atol=1e-6)
    assert not torch.allclose(models[0](z, 0.3), models[1](z, 0.3))
    assert three.denoiser_(z, three.sigma_).shape == z.shape and three.predict(X[:5]).shape == (5,)


def test_the_standard_error_contains_how_much_the_networks_differ(quiet, monkeypatch):
    alike = DiffusionDimension(**BRIEF, n_networks=3).fit(X).estimate_      # all say 4
    numbers, spectrum_of = iter([2, 3, 4]), DiffusionDimension._spectrum

    def by_hand(self, denoiser, x, level, **options):
        if isinstance(denoiser, Mean):
            return spectrum_of(self, denoiser, x, level, **options)
        answer = np.full(len(x), next(numbers))
        return SimpleNamespace(dimension=lambda: answer)

    monkeypatch.setattr(DiffusionDimension, "_spectrum", by_hand)
    unlike = DiffusionDimension(**BRIEF, n_networks=3).fit(X).estimate_
    assert unlike.standard_error == pytest.approx(np.hypot(alike.standard_error, 1 / 3**0.5))


# ---------------------------------------------------------------- scikit-learn's habits


def test_transform_is_a_column_with_a_name(quiet):
    pandas = DiffusionDimension(**BRIEF).set_output(transform="pandas").fit(X).transform(X)
    assert list(pandas.columns) == ["dimension"] and pandas.shape == (60, 1)
    fitted = DiffusionDimension(**BRIEF).fit(X)
    assert fitted.transform(X).shape == (60, 1) and fitted.predict(X).shape == (60,)


def test_it_stands_in_unions_pipelines_and_column_transformers(quiet):
    union = FeatureUnion([("pca", PCA(2)), ("dimension", DiffusionDimension(**BRIEF))]).fit(X)
    assert union.transform(X).shape == (60, 3) and union.get_feature_names_out()[-1] == "dimension__dimension"
    columns = ColumnTransformer([("d", DiffusionDimension(**BRIEF), [0, 1, 2])], remainder="passthrough").fit(X)
    assert columns.transform(X).shape == (60, 2)
    assert make_pipeline(StandardScaler(), DiffusionDimension(**BRIEF)).fit(X).predict(X).shape == (60,)


@pytest.mark.parametrize("x, waves", [
    (ring(600), [True]), (ring(400), [False, True]), (manifolds.Sphere(2, 10).sample(600).numpy(), [False, True])])
def test_curves_get_fourier_features(x, waves, quiet, monkeypatch):
    """Otherwise, and for fewer than 500 rows, the better one of two networks is chosen."""
    def stop(networks, *rest, **options):
        raise InterruptedError([make().net.config["waves"] for make in networks])

    monkeypatch.setattr(estimator, "learn", stop)
    with pytest.raises(InterruptedError) as told:
        DiffusionDimension(**BRIEF).fit(x)
    assert told.value.args[0] == waves


def test_small_networks_use_one_thread_and_the_process_keeps_its_own(monkeypatch, quiet):
    """On a busy machine of two cores, two threads made a fit five times slower than one."""
    seen, before = set(), torch.get_num_threads()
    for name in ("learn", "spectrum"):
        original = getattr(estimator, name)
        monkeypatch.setattr(estimator, name, lambda *args, original=original, **options: (
            seen.add(torch.get_num_threads()), original(*args, **options))[1])
    try:
        torch.set_num_threads(3)
        fitted = DiffusionDimension(**BRIEF).fit(np.random.default_rng(0).normal(size=(50, 3)))
        assert seen == {1} and torch.get_num_threads() == 3
        fitted.predict(np.ones((1, 3)))
        assert seen == {1} and torch.get_num_threads() == 3
        seen.clear()
        DiffusionDimension(lambda x, sigma: x / 2).fit(np.random.default_rng(0).normal(size=(50, 3)))
        assert seen == {3}, "a network of one's own may be large"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seconds, said", [(900, "15 minutes"), (7260, "2 hours")])
def test_a_long_fit_is_announced_before_the_training(seconds, said, monkeypatch):
    """How long, and what to do; the warning is there when the training begins."""
    def train(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(estimator, "expected_seconds", lambda *_: seconds)
    monkeypatch.setattr(DiffusionDimension, "_train", train)
    with pytest.warns(UserWarning, match=f"may take {said} on this machine: use fewer points"), \
            pytest.raises(KeyboardInterrupt):
        DiffusionDimension().fit(manifolds.Plane(2, 5).sample(50).numpy())


@pytest.mark.parametrize("work", ["fit", "predict"])
def test_long_work_of_a_trained_denoiser_is_announced(work, monkeypatch):
    """Also the dimension at each of many rows, where nothing is trained."""
    plane = manifolds.Plane(2, 5)
    fitted = DiffusionDimension(exact.denoiser(plane), n_points=20).fit(plane.sample(50).numpy())
    monkeypatch.setattr(estimator, "expected_cost", lambda *_: SimpleNamespace(seconds=1000))
    monkeypatch.setattr(estimator, "expected_seconds", lambda *_: 1000)
    with pytest.warns(UserWarning, match="this may take .* on this machine: use fewer points"):
        getattr(fitted, work)(plane.sample(101).numpy())


def test_a_short_fit_is_not_announced(recwarn):
    DiffusionDimension(**BRIEF).fit(manifolds.Plane(2, 5).sample(50).numpy())
    assert not [w for w in recwarn if "minutes on this machine" in str(w.message)]


FORKED = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
torch.set_num_threads(2)
import dimlib
dimlib.DiffusionDimension(max_steps=3).fit(np.random.default_rng(0).normal(size=(600, 20)))
child = os.fork()
if child == 0:
    a = torch.randn(1000, 1000)
    os._exit(0 if (a @ a).isfinite().all() else 1)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(status)
    time.sleep(0.1)
os.kill(child, 9)
sys.exit("the child hangs")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_can_fork_after_a_fit():
    """Threads of OpenMP do not survive a fork: the child waited for them for ever."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {name: value for name, value in os.environ.items() if name not in threads}
    done = subprocess.run([sys.executable, "-c", FORKED], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
