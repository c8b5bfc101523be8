"""The dimension of an array of data, with the interface of scikit-learn.

    DiffusionDimension().fit(X).dimension_

It trains a denoiser, computes spectra at several noise levels, and returns the dimension with its doubts. All data get
the same recipe. Its lengths are in units of the largest standard deviation that the data have in any direction.
"""

import copy
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from ..curve import DimensionCurve, Estimate, dimension_curve
from ..machine.checks import scores_number
from ..machine.compute import choose_device, in_float64
from ..machine.progress import show
from ..networks import MLP
from ..score import Denoiser, ScoreModel
from ..seeds import stream
from ..svd import spectrum
from ..training import train_steps

__all__ = ["DiffusionDimension"]

LEVELS = 8               # noise levels to ask at
SMALLEST = 0.01, 0.03    # the smallest is a quarter of the distance between neighbours, within these bounds
LARGEST_ASKED = 0.5      # more noise hides the shape of the data
LARGEST_TRAINED = 3.0
LEAST_ROWS = 10
HELD_OUT, MOST_HELD_OUT = 0.1, 1000
LOOK_EVERY = 50          # steps between two looks at the held-out rows
TOLERANCE = 1.05         # the weights kept are the last ones whose held-out loss is within this factor of the smallest


class DiffusionDimension(BaseEstimator):
    """Intrinsic dimension of the rows of X by the singular values of a diffusion model's scores.

    A denoiser is trained on X without a tenth of the rows. At those rows `dimension_curve` computes the dimension for
    several noise levels, and the answer is that on the plateau (Stanczuk et al., ICML 2024, with the changes that this
    library makes).

    Args:
        denoiser: a trained denoiser D(x, sigma) for points of the shape of the rows of X. Nothing is trained then.
        sigmas: noise levels, in the units of X. Where not given, eight are chosen from the spread of X and the
            distances between its rows.
        steps, width, batch_size: training steps, width of the network, rows per step (at most all rows).
        n_points: number of rows at which the dimension is computed.
        random_state: seed of everything random. It is a number by default, so that a fit can be repeated.
        device: "auto", or the name of a torch device, on which a given denoiser must be.
        verbose: show a progress bar and the result.

    Attributes:
        dimension_: the median of the dimension over the points.
        dimension_pw_: the dimension at each row of X, shape (N,). It is computed when it is first used, by 4 d
            evaluations of the network for each row.
        estimate_: the `Estimate`: mean, standard error, plateau, doubts.
        curve_: the `DimensionCurve`.
        sigma_: the noise level of the answer, and of ``predict``.
        denoiser_: the trained, or the given, denoiser.
        n_features_in_: number of columns.

    Raises:
        ValueError: X with NaN or infinite values, text, fewer than 10 different rows, one column, constant data, or, in
            ``predict``, another number of columns. TypeError: a sparse matrix. MemoryError: too many columns.
    """

    def __init__(self, denoiser: Denoiser | None = None, *, sigmas: ArrayLike | None = None, steps: int = 1500,
                 width: int = 192, batch_size: int = 500, n_points: int = 100, random_state=0, device: str = "auto",
                 verbose: bool = False):
        self.denoiser, self.sigmas, self.steps, self.width = denoiser, sigmas, steps, width
        self.batch_size, self.n_points, self.random_state = batch_size, n_points, random_state
        self.device, self.verbose = device, verbose

    def fit(self, X: ArrayLike, y=None) -> "DiffusionDimension":
        """Train a denoiser, compute the dimension, and warn if there are reasons to doubt it. y is not used."""
        x = self._checked(X, reset=True)
        scores_number(x, None)                                             # its errors come before the training
        seed = int(check_random_state(self.random_state).randint(2**31))
        order = torch.randperm(len(x), generator=stream(seed, "held out"))
        n_held = max(1, min(int(HELD_OUT * len(x)), MOST_HELD_OUT))
        held, kept = x[order[:n_held]], x[order[n_held:]]
        smallest, unit = _scales(held, kept)
        levels = np.geomspace(smallest, LARGEST_ASKED * unit, LEVELS) if self.sigmas is None else np.sort(self.sigmas)
        if self.denoiser is None:
            self.denoiser_, stopped = self._train(held, kept, levels[0], levels[-1], unit, seed)
        else:
            self.denoiser_, stopped, held = self.denoiser, (), x[order]
        self._rows, self._seed = x, seed
        self.curve_ = dimension_curve(self.denoiser_, held[: self.n_points], levels, seed=seed)
        estimate = self.curve_.estimate()
        doubts = (*estimate.warnings, *stopped, *_of_the_curve(self.curve_, estimate), *_of_the_data(x))
        self.estimate_ = replace(estimate, warnings=doubts)
        self.sigma_, self.dimension_ = estimate.sigma, estimate.median
        if self.verbose:
            print(self.estimate_)
        elif doubts:
            warnings.warn(f"dimension {self.dimension_:g}, with doubts: " + "; ".join(doubts), stacklevel=2)
        return self

    def predict(self, X: ArrayLike) -> NDArray:
        """The dimension at each row of X, old or new, shape (n,), with the denoiser and the noise level of the fit."""
        check_is_fitted(self)
        x = self._checked(X, reset=False)
        return spectrum(self.denoiser_, x, self.sigma_, seed=self._seed).dimension()

    def fit_transform_pw(self, X: ArrayLike, y=None) -> NDArray:
        """Fit, and return the dimension at each row of X, shape (N,). (The name is scikit-dimension's.)"""
        return self.fit(X).dimension_pw_

    @property
    def dimension_pw_(self) -> NDArray:
        check_is_fitted(self)
        if "_pointwise" not in vars(self):
            self._pointwise = spectrum(self.denoiser_, self._rows, self.sigma_, seed=self._seed).dimension()
        return self._pointwise

    def _checked(self, X, reset) -> Tensor:
        least = {"ensure_min_samples": LEAST_ROWS, "ensure_min_features": 2} if reset else {}
        X = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True, **least)
        if reset and len(np.unique(X[:1000].reshape(min(len(X), 1000), -1), axis=0)) < LEAST_ROWS:
            raise ValueError(f"X has fewer than {LEAST_ROWS} different rows among its first thousand: "
                             "that is a few points, not a manifold. Remove duplicates, and shuffle the rows")
        return torch.tensor(np.ascontiguousarray(X), device=choose_device(self.device))

    def _train(self, held, kept, lowest, highest, unit, seed):
        """A denoiser for the given noise levels and those between, and a doubt if its training was stopped early."""
        held, kept, lowest, highest = held / unit, kept / unit, lowest / unit, highest / unit
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = MLP(kept[0].numel(), self.width)
        model = ScoreModel.for_data(net, kept, sigma_min=lowest, sigma_max=max(LARGEST_TRAINED, highest))
        run = train_steps(model, kept, self.steps, min(self.batch_size, len(kept)), seed=seed, device=self.device)
        least, weights, kept_at = float("inf"), None, 0
        for progress in show(run, self.steps) if self.verbose else run:
            step = progress.step + 1
            if step % LOOK_EVERY == 0 or step == self.steps:
                loss = _loss(model, held, np.geomspace(lowest, highest, LEVELS), seed)
                least = min(loss, least)
                if loss <= TOLERANCE * least:
                    weights, kept_at = copy.deepcopy(model.state_dict()), step
        model.load_state_dict(weights)
        doubt = (f"too few rows: from step {kept_at} of {self.steps} on the network learned them by heart, so it was "
                 "stopped there, but curved directions are learned last")
        return Rescaled(model, unit), (doubt,) if kept_at < self.steps / 2 else ()


@dataclass(frozen=True)
class Rescaled:
    """A denoiser for data x, made of a denoiser D for the data x/unit: unit · D(x/unit, σ/unit)."""

    denoiser: Denoiser
    unit: float

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.unit * self.denoiser(x / self.unit, sigma / self.unit)


def _scales(held: Tensor, kept: Tensor) -> tuple[float, float]:
    """The smallest noise level of the curve, and the largest standard deviation in any direction."""
    some = in_float64(kept[:2000].flatten(1)).cpu()
    largest = torch.linalg.matrix_norm(some - some.mean(0), 2).item() / len(some) ** 0.5
    if largest == 0:
        raise ValueError("all rows of X are the same: constant data have no directions to count")
    spacing = torch.cdist(held[:200].flatten(1), kept.flatten(1)).amin(1).median().item()
    return float(np.clip(spacing / 4, *(largest * bound for bound in SMALLEST))), largest


@torch.no_grad()
def _loss(model: ScoreModel, held: Tensor, sigmas: NDArray, seed: int) -> float:
    """Denoising loss at held-out rows in ε units, mean over the noise levels. The noise depends on the seed only."""
    generator = stream(seed, "held-out loss", held.device)
    losses = []
    for sigma in sigmas:
        noise = torch.randn(held.shape, generator=generator, device=held.device)
        losses.append(((model(held + sigma * noise, sigma) - held) / sigma).square().flatten(1).sum(1).mean())
    return torch.stack(losses).mean().item()


def _of_the_curve(curve: DimensionCurve, estimate: Estimate) -> tuple[str, ...]:
    """Doubts about the data that only the noise levels below the plateau show."""
    below = curve.dimension().mean(1)[curve.sigmas < estimate.plateau[0]]
    if len(below) and below.max() > estimate.mean + 1:
        return (f"below σ = {estimate.plateau[0]:.3g} the dimension rises to {below.max():.1f}: the data have noise of "
                "about that size, or the network has not learned such detail",)
    return ()


def _of_the_data(x: Tensor) -> tuple[str, ...]:
    """Doubts about duplicates and columns."""
    rows = x.flatten(1).cpu().numpy()
    duplicates = 1 - len(np.unique(rows, axis=0)) / len(rows)
    spread = rows.std(0)
    constant = spread == 0
    doubts = [
        (duplicates > 0.01, f"{duplicates:.0%} of the rows are duplicates, and are learned by heart: remove them"),
        (constant.any() and x.ndim == 2, f"{constant.sum()} of {len(spread)} columns are constant"),
        (x.ndim == 2 and spread.max() > 100 * spread[~constant].min(),
         "the columns differ in scale by more than a hundred times, and one σ is asked of all: rescale columns of "
         "different units")]
    return tuple(text for holds, text in doubts if holds)
