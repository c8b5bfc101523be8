"""Other estimators of the intrinsic dimension, from scikit-dimension and scikit-learn, in one table.

Each method runs in its own process with a time limit. If a method does not end, crashes or needs too much memory, its
result is nan with a warning, and the other methods still run. The command of the process is

    python -P dimlib/compare/baselines.py METHOD DATA.npy    prints the dimension and the seconds

This file imports nothing else of dimlib, so that a process starts without PyTorch; with -P it does not import from the
current folder.
"""

import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["METHODS", "Baseline", "estimate"]

NEIGHBOURS = 100  # number of neighbours of each point in the local PCA


def _skdim(name: str, **options) -> Callable[[NDArray], float]:
    """An estimator of scikit-dimension (Bac et al. 2021), fitted to all rows."""
    def fit(x):
        import skdim

        return getattr(skdim.id, name)(**options).fit(x).dimension_
    return fit


def _mle(m: int) -> Callable[[NDArray], float]:
    """The maximum likelihood estimator of Levina & Bickel (2004), from m neighbours of each point."""
    def fit(x):
        import skdim

        return skdim.id.MLE().fit(x, n_neighbors=m).dimension_
    return fit


def _local_pca(x: NDArray) -> float:
    """The dimension by PCA of the neighbours of each point, as the mean over the points."""
    import skdim

    pointwise = skdim.id.lPCA(verbose=False).fit_pw(x, n_neighbors=min(NEIGHBOURS, len(x) - 1)).dimension_pw_
    return np.mean(pointwise)


def _probabilistic_pca(x: NDArray) -> float:
    """The number of components with the largest evidence (Minka 2000).

    The result is the same as from scikit-learn's PCA(n_components="mle"). That one loops over d³ numbers in Python and
    takes many minutes for d = 1000.
    """
    n, d = x.shape
    if n < d:
        raise ValueError(f"probabilistic PCA needs as many points as dimensions, and got {n} points in R^{d}")
    spread = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 / (n - 1)
    evidence = [_evidence(spread, k, n) for k in range(1, d) if spread[k - 1] > 1e-15]
    return 1 + int(np.argmax(evidence))


def _evidence(spread: NDArray, k: int, n: int) -> float:
    """log p(data | k components), Minka's equation 77, up to a constant. spread: variances, descending, shape (d,)."""
    d = len(spread)
    rest = max(spread[k:].mean(), 1e-15)
    fitted = np.where(np.arange(d) < k, spread, rest)
    i, j = np.triu_indices(k, 1, d)
    hessian = np.log((spread[i] - spread[j]) * (1 / fitted[j] - 1 / fitted[i])).sum() + len(i) * np.log(n)
    free = (d - np.arange(k)) / 2                                          # dimension/2 of each direction's space
    prior = np.sum([math.lgamma(f) for f in free]) - np.log(np.pi) * free.sum() - k * np.log(2)
    likelihood = -n / 2 * (np.log(spread[:k]).sum() + (d - k) * np.log(rest))
    return prior + likelihood + (len(i) + k) / 2 * np.log(2 * np.pi) - hessian / 2 - k / 2 * np.log(n)


METHODS: dict[str, Callable[[NDArray], float]] = {
    "MLE (m=5)": _mle(5), "MLE (m=20)": _mle(20),
    "PCA": _skdim("lPCA", verbose=False),        # of all points: the paper's "Local PCA"; Fukunaga & Olsen 1971
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
    """The dimension by one method for all the data, and its time in seconds. Both are nan if the method failed."""

    method: str
    estimate: float
    seconds: float


def estimate(x: ArrayLike, methods: Sequence[str] | None = None, time_limit: float = 60.0) -> list[Baseline]:
    """The intrinsic dimension of data by other methods, each with its default settings. Returns one result per method.

    Args:
        x: data, shape (N, d), or ``(N, *shape)``, which is flattened.
        methods: names in METHODS; all where not given.
        time_limit: seconds for each method, including the start of its process. A method that takes longer or fails
            gives nan and a warning with the reason.

    Raises:
        ValueError: an unknown method, or data that are one-dimensional, NaN or infinite.
        ModuleNotFoundError: scikit-dimension is not installed.
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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        np.save(path, x.reshape(len(x), -1))
        return [_limited(method, path, time_limit) for method in methods]


ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}  # more make it slower


def _limited(method: str, path: Path, time_limit: float) -> Baseline:
    command = [sys.executable, "-P", __file__, method, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=time_limit, check=True,
                              env=os.environ | ONE_THREAD)
        return Baseline(method, *map(float, done.stdout.split()[-2:]))
    except subprocess.TimeoutExpired:
        reason = f"it took more than {time_limit:g} s"
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2] or str(error)
    warnings.warn(f"{method} gave no dimension: {reason}", RuntimeWarning, stacklevel=3)
    return Baseline(method, float("nan"), float("nan"))


def main(method: str, path: str) -> None:
    import skdim  # noqa: F401 (imported here, so that the time excludes it)

    x = np.load(path)
    np.random.seed(0)
    started = time.perf_counter()
    dimension = float(METHODS[method](x))
    seconds = time.perf_counter() - started
    if not np.isfinite(dimension):
        raise ValueError(f"it answered {dimension}")
    print(dimension, seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
