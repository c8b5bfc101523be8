"""DiffusionDimension: scikit-learn's contract, known data, doubts, and refusals that say what to do."""

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.utils.estimator_checks import parametrize_with_checks

from dimlib import DiffusionDimension, ScoreModel, networks
from dimlib.apply import estimator
from dimlib.data import exact, manifolds
from dimlib.machine import checks

BRIEF = {"steps": 20, "n_points": 5, "width": 32}  # for what does not depend on a good network


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
@pytest.mark.parametrize("manifold, median", [
    (manifolds.Sphere(2, 10, seed=1, offset=3.0), 2), (manifolds.Cube(3, 3), 3), (manifolds.Plane(4, 12, seed=2), 4)])
def test_known_data(manifold, median, quiet):
    X = manifold.sample(1000, seed=1).numpy()
    fitted = DiffusionDimension(steps=600, batch_size=200).fit(X)
    assert fitted.dimension_ == median
    new = fitted.predict(manifold.sample(20, seed=2).numpy())
    assert new.shape == (20,) and np.median(new) == median
    assert fitted.dimension_pw_.shape == (1000,) and (fitted.dimension_pw_[:20] == fitted.predict(X[:20])).all()


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_units_do_not_matter(scale, quiet):
    X = manifolds.Plane(2, 5, seed=1).sample(200).numpy()
    one, other = (DiffusionDimension(**BRIEF | {"steps": 100}).fit(x) for x in (X, scale * X))
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
    (lambda x: x * [1, 1, 1, 1000], "columns differ in scale by more than a hundred times")])
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
    with pytest.warns(UserWarning, match=r"too few rows: from step \d+ of 600 on the network learned them by heart"):
        DiffusionDimension(steps=600, n_points=5).fit(np.random.default_rng(0).normal(size=(40, 20)))


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
    monkeypatch.setattr(checks, "memory", lambda device: 100.0)
    monkeypatch.setattr(estimator, "train_steps", None)  # calling it would be another error
    with pytest.raises(MemoryError, match="d=4 entries needs .* use tangent_sketch"):
        DiffusionDimension().fit(X)


def test_predict_refuses_another_number_of_columns(quiet):
    fitted = DiffusionDimension(**BRIEF).fit(X)
    with pytest.raises(ValueError, match="X has 3 features, but DiffusionDimension is expecting 4"):
        fitted.predict(X[:, :3])


@pytest.mark.parametrize("denoiser, message", [
    (lambda x, sigma: x[:, :2], r"returned shape .* must have the shape of x"),
    (lambda x, sigma: x * float("nan"), "NaN or infinite values at sigma"),
    (ScoreModel(networks.MLP(4), 1.0), r"sigma=5 is outside this model's range, 0.01 to 1")])
def test_bad_denoisers_are_refused(denoiser, message):
    with pytest.raises(ValueError, match=message):
        DiffusionDimension(denoiser, sigmas=[5, 6]).fit(X)
