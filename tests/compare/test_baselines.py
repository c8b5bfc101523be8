"""The rivals, on data whose dimension they are known to find, and where they fail."""

import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA

from dimlib.compare import baselines
from dimlib.compare.baselines import METHODS, estimate
from dimlib.data.manifolds import Plane, Sphere


def test_rivals_find_a_plane():
    x = Plane(5, 20, seed=1, offset=3.0).sample(1000).numpy()
    found = {b.method: b for b in estimate(x, ["MLE (m=20)", "PCA", "probabilistic PCA", "TwoNN", "local PCA"])}
    assert found["PCA"].estimate == found["probabilistic PCA"].estimate == 5
    assert found["local PCA"].estimate == pytest.approx(5, abs=0.2)
    assert found["MLE (m=20)"].estimate == pytest.approx(5, abs=0.5)
    assert found["TwoNN"].estimate == pytest.approx(5, abs=0.7)
    assert all(0 < b.seconds < 60 for b in found.values())


def test_a_global_pca_counts_the_hull_of_a_sphere_and_maximum_likelihood_depends_on_m():
    x = Sphere(3, 10, seed=1, offset=3.0).sample(1000).numpy()
    few, many, pca = (b.estimate for b in estimate(x, ["MLE (m=5)", "MLE (m=20)", "PCA"]))
    assert pca == 4 and few != many and abs(few - 3) < 0.4 and abs(many - 3) < 0.4


@pytest.mark.parametrize("noise", [0.1, 1, 2, 4])
def test_probabilistic_pca_is_that_of_scikit_learn(noise):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)) @ rng.normal(size=(8, 30)) + noise * rng.normal(size=(300, 30)) + 5
    assert METHODS["probabilistic PCA"](x) == PCA(n_components="mle").fit(x).n_components_
    with pytest.raises(ValueError, match="as many points as dimensions, and got 20 points in R\\^30"):
        METHODS["probabilistic PCA"](x[:20])


def test_a_rival_that_takes_too_long_gives_nan_and_a_warning_and_the_table_goes_on(tmp_path, monkeypatch):
    """Here the process of PH sleeps, and that of PCA answers 4 at once."""
    (tmp_path / "rivals.py").write_text("import sys, time\ntime.sleep(600 * (sys.argv[1] == 'PH'))\nprint(4.0, 0.1)\n")
    monkeypatch.setattr(baselines, "__file__", str(tmp_path / "rivals.py"))
    started = time.perf_counter()
    with pytest.warns(RuntimeWarning, match="PH gave no dimension: it took more than 2 s"):
        slow, quick = estimate(np.eye(3), ["PH", "PCA"], time_limit=2)
    assert np.isnan(slow.estimate) and quick.estimate == 4 and time.perf_counter() - started < 60


def test_a_rival_that_fails_gives_nan_and_a_warning_that_says_why():
    with pytest.warns(RuntimeWarning, match=r"MLE \(m=20\) gave no dimension: .+"):
        (failed,) = estimate(np.zeros((5, 3)), ["MLE (m=20)"])
    assert np.isnan(failed.estimate)


def test_a_rival_whose_process_fails_without_a_word_gives_nan_and_a_warning(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.warns(RuntimeWarning, match="PCA gave no dimension: .+ non-zero exit status"):
        assert np.isnan(estimate(np.eye(3), ["PCA"])[0].estimate)


def test_it_works_in_a_script_without_a_main_guard():
    code = ("import numpy as np; from dimlib.compare.baselines import estimate; "
            "print(estimate(np.eye(3000, 50), ['PCA']))")
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=100, check=True)
    assert "method='PCA'" in done.stdout


def test_modules_in_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "skdim.py").write_text("raise SystemExit('the wrong skdim')")
    monkeypatch.chdir(tmp_path)
    x = Plane(2, 5, seed=1).sample(100).numpy()
    assert estimate(x, ["PCA"])[0].estimate == 2


def test_images_are_flattened():
    x = np.random.default_rng(0).normal(size=(200, 1, 2, 3))
    assert estimate(x, ["PCA"])[0].estimate == 6


@pytest.mark.parametrize(("x", "methods", "message"), [
    (np.full((5, 2), np.nan), None, "NaN"), (np.zeros(5), None, "one row for each point"),
    (np.zeros((5, 2)), ["PCA", "magic"], r"unknown methods \['magic'\]: choose from MLE"),
])
def test_bad_input_is_refused(x, methods, message):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        estimate(x, methods)


def test_the_papers_rivals_and_those_of_scikit_dimension_are_there():
    assert {"MLE (m=5)", "MLE (m=20)", "PCA", "local PCA", "probabilistic PCA", "TwoNN", "DANCo", "ESS", "FisherS",
            "CorrInt", "GRIDE"} <= set(METHODS)


def test_without_scikit_dimension_the_error_names_the_extra():
    code = ("import importlib.util, dimlib.compare.baselines; importlib.util.find_spec = lambda name: None; "
            "dimlib.compare.baselines.estimate([[0.0]])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'dimlib[baselines]'" in done.stderr
