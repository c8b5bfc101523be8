"""The rivals: estimators of scikit-dimension and scikit-learn, in one table.

Each method runs in a process of its own, so that one that hangs, crashes or takes all memory costs no more than its
time: it gives nan and a warning, and the table goes on.
"""

import importlib.util
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["METHODS", "Baseline", "estimate"]

NEIGHBOURS = 100  # of a point, for the truly local PCA


def _skdim(name: str, **options) -> Callable[[NDArray], float]:
    """An estimator of scikit-dimension (Bac et al. 2021), fitted to all rows."""
    def fit(x):
        import skdim

        return getattr(skdim.id, name)(**options).fit(x).dimension_
    return fit


def _mle(m: int) -> Callable[[NDArray], float]:
    """The maximum likelihood of Levina & Bickel (2004) from m neighbours."""
    def fit(x):
        import skdim

        return skdim.id.MLE().fit(x, n_neighbors=m).dimension_
    return fit


def _local_pca(x: NDArray) -> float:
    """PCA of the neighbours of every point, mean over the points."""
    import skdim

    pointwise = skdim.id.lPCA(verbose=False).fit_pw(x, n_neighbors=min(NEIGHBOURS, len(x) - 1)).dimension_pw_
    return np.mean(pointwise)


def _probabilistic_pca(x: NDArray) -> float:
    """The number of components of largest evidence (Minka 2000)."""
    from sklearn.decomposition import PCA

    return PCA(n_components="mle").fit(x).n_components_


METHODS: dict[str, Callable[[NDArray], float]] = {
    "MLE (m=5)": _mle(5), "MLE (m=20)": _mle(20),
    "PCA": _skdim("lPCA", verbose=False),        # global: "Local PCA" in the paper's table; Fukunaga & Olsen 1971
    "local PCA": _local_pca,
    "probabilistic PCA": _probabilistic_pca,
    "TwoNN": _skdim("TwoNN"),                    # Facco et al. 2017
    "DANCo": _skdim("DANCo", random_state=0),    # Ceruti et al. 2014
    "ESS": _skdim("ESS", random_state=0),        # Johnsson et al. 2015
    "FisherS": _skdim("FisherS"),                # Albergante et al. 2019
    "CorrInt": _skdim("CorrInt"),                # Grassberger & Procaccia 1983
    "GRIDE": _skdim("GRIDE"),                    # Denti et al. 2022
    "KNN": _skdim("KNN", random_state=0),        # Carter et al. 2010
    "MADA": _skdim("MADA"),                      # Farahmand et al. 2007
    "MOM": _skdim("MOM"),                        # Amsaleg et al. 2018
    "MiND_ML": _skdim("MiND_ML"),                # Rozza et al. 2012
    "PH": _skdim("PH", random_state=0),          # Schweinhart 2021
    "TLE": _skdim("TLE"),                        # Amsaleg et al. 2019
}


@dataclass(frozen=True)
class Baseline:
    """What one method says of the data: a dimension, nan where it failed, and the seconds that it took."""

    method: str
    dimension: float
    seconds: float


def estimate(x: ArrayLike, methods: Sequence[str] | None = None, time_limit: float = 60.0) -> list[Baseline]:
    """Dimensions of data by the rivals of this method, each with its defaults.

    Args:
        x: data, shape (N, d), or ``(N, *shape)``, then flattened.
        methods: names in METHODS; all where not given.
        time_limit: seconds for each method. One that exceeds it, or fails, gives nan and a warning that says why.

    Raises:
        ValueError: an unknown method, or data with NaN or infinite values.
    """
    if importlib.util.find_spec("skdim") is None:
        raise ModuleNotFoundError("the rivals are in scikit-dimension: pip install 'dimlib[baselines]'")
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2 or not np.isfinite(x).all():
        raise ValueError(f"x must be finite data, one row for each point, got shape {x.shape}"
                         + ("" if np.isfinite(x).all() else " with NaN or infinite values"))
    methods = list(METHODS) if methods is None else list(methods)
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"unknown methods {unknown}: choose from {', '.join(METHODS)}")
    return [_limited(method, x.reshape(len(x), -1), time_limit) for method in methods]


def _limited(method: str, x: NDArray, time_limit: float) -> Baseline:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(method, x, theirs), daemon=True)
    process.start()
    theirs.close()
    answer, started = "it ended without an answer", time.perf_counter()
    try:
        if ours.recv() == "ready":                                         # imports do not count
            started = time.perf_counter()
            answer = ours.recv() if ours.poll(time_limit) else f"it took more than {time_limit:g} s"
    except EOFError:
        pass
    seconds = time.perf_counter() - started
    process.kill()
    process.join()
    if isinstance(answer, str):
        warnings.warn(f"{method} gave no dimension: {answer}", RuntimeWarning, stacklevel=3)
        answer = float("nan")
    return Baseline(method, answer, seconds)


def _run(method, x, pipe):
    """In the other process: send "ready", then a dimension, or in words what went wrong."""
    try:
        import skdim  # noqa: F401
        import sklearn.decomposition  # noqa: F401

        np.random.seed(0)
        pipe.send("ready")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = float(METHODS[method](x))
        pipe.send(answer if np.isfinite(answer) else f"it answered {answer}")
    except Exception as error:  # whatever a rival raises must not stop the table
        pipe.send(f"{type(error).__name__}: {error}")
