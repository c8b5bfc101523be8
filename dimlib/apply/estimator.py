"""The dimension of an array of data, with the interface of scikit-learn.

    DiffusionDimension().fit(X).dimension_

It trains a denoiser, computes spectra at several noise levels, and returns the dimension with its doubts: the reasons
not to trust it. All data are treated in the same way. They are centred, and divided by the largest standard deviation
that they have in any direction. So their origin and their units change nothing. The neighbours' dimension, which the
distances between neighbouring rows give, decides which networks are trained, and which plateaus are set aside.
"""

import math
import warnings
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from ..curve import DimensionCurve
from ..machine.checks import check_counts, check_levels
from ..machine.compute import check_matrices, choose_device, one_thread
from ..machine.progress import show
from ..networks import MLP
from ..score import Denoiser, ScoreModel
from ..seeds import stream
from ..svd import Spectrum, spectrum
from ..vision import SecondLook
from .cost import expected_cost, expected_seconds
from .doubts import (
    about_the_data,
    about_the_neighbours,
    about_the_number_of_points,
    about_the_order,
    about_the_training,
    dimension_of_neighbours,
)
from .learning import COMPARED, Learned, Mean, learn, mean_of

__all__ = ["DiffusionDimension"]

LEVELS = 8               # noise levels of the curve, or more:
RATIO = 1.8              # largest ratio of two neighbouring ones
MOST_LEVELS = 13         # their number where the smallest one is a sixteenth of a hundredth
SMALLEST = 0.002, 0.03   # bounds of a quarter of the spacing, in units of the largest standard deviation of the data
THIN = 0.01              # directions with a smaller standard deviation, in these units, are not looked for
LARGEST_ASKED = 0.5      # more noise hides the shape of the data
LARGEST_TRAINED = 3.0    # ... on vectors; on images twice the largest that is asked
ROWS_PER_STEP, IMAGES_PER_STEP = 500, 32
LEAST_ROWS = 10
BENT = 1.5               # dimensions of the neighbours: curves can bend much, and get Fourier features
LEAST_NEIGHBOURS = 500   # rows from which the distances between neighbours choose networks and plateaus
HELD_OUT, MOST_HELD_OUT = 0.1, 1000
MOST_POINTS = 100        # points of the curve where their number is not given
MOST_ATTENDED = 32       # pixels a side: attention compares each pixel with each other one
LONG = 600               # seconds; what may take longer is announced


class DiffusionDimension(TransformerMixin, BaseEstimator):
    """Intrinsic dimension of the rows of X by the singular values of a diffusion model's scores.

    X has the shape (N, d), or (N, channels, size, size) for square images, which get a network for images. All other
    shapes are taken as rows of numbers. A denoiser is trained on X without a tenth of the rows. At those rows the
    dimension is computed for several noise levels. The answer is the dimension on the plateau (Stanczuk et al., ICML
    2024, with changes of this library). If a fit may take more than ten minutes, a warning comes before it starts.

    Args:
        denoiser: a trained denoiser D(x, sigma) for points of the shape of the rows of X, in float32. Nothing is
            trained then. If it has attributes ``sigma_min`` and ``sigma_max``, the noise levels stay between them.
        sigmas: noise levels, at least two, in the units of X. If not given, eight to thirteen are chosen. The largest
            is half of the largest standard deviation of X in any direction. The smallest is a quarter of the distance
            between neighbours (at least 0.002 and at most 0.03 of the largest standard deviation). For vectors it is a
            sixteenth of the smallest standard deviation above a hundredth of the largest, if that is less. So at least
            three levels are small for the thinnest direction.
        max_steps: budget of training steps of the network that is kept. The training ends earlier if the held-out loss
            has stopped falling. If two networks are tried, the other one is trained for at most 700 steps.
        min_steps: the training does not end before this number of steps. A loss can stay the same for thousands of
            steps and then fall: a large number, such as 25 000 with as large a budget, shows whether it does.
        n_networks: number of networks, which differ in their seeds. The denoiser is the mean of theirs, and the
            standard error contains how much their dimensions differ.
        width: width of the network for vectors.
        batch_size: noisy rows per step, at most as many as there are rows; 500, or 32 images, if not given. They are
            made of half as many rows of X, each with some noise ε and with −ε.
        n_points: number of rows at which the dimension is computed; 100, or all that there are, if not given. At most
            the number of held-out rows; with a given denoiser, the number of rows of X.
        random_state: seed of everything random. It is a number by default, so that a fit can be repeated.
        device: "auto", or the name of a torch device, on which a given denoiser must be.
        verbose: show progress bars and the result.

    Attributes:
        dimension_: the median of the dimension over the points.
        estimate_: the `Estimate`: mean, standard error, plateau, doubts.
        curve_: the `DimensionCurve`.
        sigma_: the noise level of the answer, and of ``predict``.
        denoiser_: the trained, or the given, denoiser.
        learned_: how the training ended, a `Learned`; not if a denoiser was given.
        dimension_pw_: the dimension at each row of X, shape (N,), after ``fit_transform_pw`` only.
        n_features_in_: number of columns, or of channels for images.

    Raises:
        ValueError: X with NaN, infinite or masked values, text, fewer than 10 different rows, one column, constant
            data, or, in ``predict``, another number of columns; bad parameters. TypeError: a sparse matrix, a parameter
            of a wrong type. MemoryError: too many columns.
    """

    def __init__(self, denoiser: Denoiser | None = None, *, sigmas: ArrayLike | None = None, max_steps: int = 3100,
                 min_steps: int = 1, n_networks: int = 1, width: int = 192, batch_size: int | None = None,
                 n_points: int | None = None, random_state=0, device: str = "auto", verbose: bool = False):
        self.denoiser, self.sigmas, self.max_steps, self.min_steps = denoiser, sigmas, max_steps, min_steps
        self.n_networks, self.width, self.batch_size, self.n_points = n_networks, width, batch_size, n_points
        self.random_state, self.device, self.verbose = random_state, device, verbose

    def fit(self, X: ArrayLike, y=None) -> "DiffusionDimension":
        """Train a denoiser, compute the dimension, and warn if there are reasons to doubt it. y is not used."""
        for name in ("dimension_pw_", "learned_"):                         # of an earlier fit
            self.__dict__.pop(name, None)
        X = self._checked(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(2**31))
        order = torch.randperm(len(X), generator=stream(seed, "held out")).numpy()
        n_held = max(1, min(int(HELD_OUT * len(X)), MOST_HELD_OUT))
        held, kept = X[order[:n_held]], X[order[n_held:]]
        self._check_parameters(len(X) if self.denoiser is not None else n_held)
        frame = _frame(kept)
        levels = self._levels(frame.into(held), frame.into(kept), frame)
        inside = frame.into(X)
        neighbours = dimension_of_neighbours(inside)
        self._neighbours = neighbours if len(X) >= LEAST_NEIGHBOURS else math.nan
        if self.denoiser is None:
            self._frame = frame
            held_rows, kept_rows, inner_levels = self._tensor(held), self._tensor(kept), levels / frame.unit
            self._say_cost(held_rows[: self.n_points or MOST_POINTS], kept_rows, inner_levels)
            self.learned_ = mean_of([self._train(held_rows, kept_rows, inner_levels, seed + i)
                                     for i in range(self.n_networks)])
            self._inner: Denoiser = self.learned_.model
            self.denoiser_: Denoiser = InFrame(self.learned_.model, frame)
        else:
            self._frame, held = Frame(0.0, 1.0, frame.thinnest, frame.hull), X[order]
            self._inner = self.denoiser_ = self.denoiser
        self._seed = seed
        x = self._tensor(held[: self.n_points or MOST_POINTS])
        if self.denoiser is not None:
            _warn_if_long(expected_seconds(self.denoiser, x, float(levels[0]), len(levels), 0, 1))
        self.curve_ = self._curve(x, levels)
        estimate = self.curve_.estimate()
        if isinstance(self._inner, Mean):
            single = [self._spectrum(model, x, estimate.sigma).dimension().mean() for model in self._inner.models]
            spread = np.std(single, ddof=1) / len(single) ** 0.5
            estimate = replace(estimate, draw_error=float(np.hypot(estimate.draw_error, spread)))
        trained = [] if self.denoiser is not None else about_the_training(
            self.learned_, np.geomspace(levels[0], levels[-1], LEVELS), estimate.mean, estimate.plateau, x[0].numel(),
            self.max_steps)
        doubts = (*estimate.warnings, *trained, *about_the_data(X, estimate.sigma),
                  *about_the_order(inside),
                  *about_the_neighbours(neighbours, estimate.median, len(X), frame.hull),
                  *(about_the_number_of_points(len(x)) if self.n_points is None else []))
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
        x = self._tensor(self._checked(X, reset=False))
        if len(x) > MOST_POINTS:
            _warn_if_long(expected_cost(self._inner, x, self.sigma_ / self._frame.unit).seconds)
        return self._spectrum(self._inner, x, self.sigma_).dimension()

    def transform(self, X: ArrayLike) -> NDArray:
        """The dimension at each row of X as one column, shape (n, 1), for pipelines."""
        return self.predict(X)[:, None]

    def get_feature_names_out(self, input_features=None) -> NDArray:
        """The name of the column that ``transform`` returns."""
        check_is_fitted(self)
        return np.array(["dimension"], dtype=object)

    def fit_transform_pw(self, X: ArrayLike, y=None) -> NDArray:
        """Fit, and return the dimension at each row of X, shape (N,). (The name is scikit-dimension's.)"""
        self.dimension_pw_ = self.fit(X).predict(X)
        return self.dimension_pw_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []                         # whole numbers, whatever X is
        return tags

    def _checked(self, X, reset) -> NDArray:
        least = {"ensure_min_samples": LEAST_ROWS, "ensure_min_features": 2} if reset else {}
        if np.ma.is_masked(X):
            raise ValueError("X has masked values: remove or impute those rows first")
        X = validate_data(self, X, reset=reset, dtype=np.float64, allow_nd=True, **least)
        self._row_shape: tuple = X.shape[1:] if reset else self._row_shape
        if X.shape[1:] != self._row_shape:
            raise ValueError(f"X has rows of shape {X.shape[1:]}, and the fit had rows of shape {self._row_shape}")
        if reset:
            check_matrices(math.prod(self._row_shape), choose_device(self.device))
        if reset and len(np.unique(X.reshape(len(X), -1)[:1000], axis=0)) < LEAST_ROWS:
            raise ValueError(f"X has fewer than {LEAST_ROWS} different rows among its first thousand: "
                             "that is a few points, not a manifold. Remove duplicates, and shuffle the rows")
        return X

    def _check_parameters(self, n_points) -> None:
        """Errors that would otherwise come after the training. ``n_points`` rows can be asked for."""
        check_counts(max_steps=self.max_steps, min_steps=self.min_steps, n_networks=self.n_networks, width=self.width)
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps={self.min_steps} is more than the budget of {self.max_steps} steps: raise "
                             "max_steps")
        given = {"batch_size": self.batch_size, "n_points": self.n_points}
        check_counts(**{name: value for name, value in given.items() if value is not None})
        if self.n_points is not None and self.n_points > n_points:
            raise ValueError(f"n_points={self.n_points}: the dimension is computed at held-out rows, and there are "
                             f"{n_points}. Use at most {n_points}, or predict for other rows")
        if self.sigmas is not None:
            check_levels(self.sigmas)

    def _levels(self, held, kept, frame) -> NDArray:
        """Noise levels in the units of X, ascending, for rows in the frame."""
        if self.sigmas is not None:
            return np.array(check_levels(self.sigmas))
        with one_thread():                                                 # threads would make a later fork hang
            neighbours = NearestNeighbors(n_neighbors=1).fit(kept.reshape(len(kept), -1))
            spacing = np.median(neighbours.kneighbors(held.reshape(len(held), -1)[:200])[0])
        smallest, unit = np.clip(spacing / 4, *SMALLEST), frame.unit
        if kept.ndim != 4:
            smallest = min(smallest, frame.thinnest / 16)
        low, high = unit * smallest, unit * LARGEST_ASKED
        least = getattr(self.denoiser, "sigma_min", None) or 0.0
        most = getattr(self.denoiser, "sigma_max", None) or math.inf
        low, high = max(low, least), min(high, most)
        if low >= high:
            raise ValueError(f"the denoiser is for noise levels from {least:.3g} to {most:.3g}, and data of "
                             f"this size need some between {unit * SMALLEST[0]:.3g} and {unit * LARGEST_ASKED:.3g}: "
                             "are X and its training data in the same units?")
        return np.geomspace(low, high, max(LEVELS, math.ceil(math.log(high / low, RATIO)) + 1))

    def _tensor(self, X) -> Tensor:
        """Rows of X in the frame of the denoiser, in float32, on the device."""
        return torch.tensor(self._frame.into(X), dtype=torch.float32, device=choose_device(self.device))

    def _curve(self, x, levels) -> DimensionCurve:
        """The curve at points x, in the frame of the denoiser, for noise levels in the units of X."""
        bar = show(levels, len(levels), "noise level", notebook=True) if self.verbose else levels
        return DimensionCurve(tuple(self._spectrum(self._inner, x, float(level), without=True) for level in bar),
                              self._neighbours)

    def _spectrum(self, denoiser, x, level, without=False) -> Spectrum:
        """A spectrum at points x, in the frame of the denoiser, for a noise level in the units of X."""
        with one_thread(self.denoiser is None and x.ndim != 4):
            found = spectrum(denoiser, x, level / self._frame.unit, seed=self._seed, without=without)
        return replace(found, sigma=level)

    def _say_cost(self, x, kept, levels) -> None:
        """Warn before a long fit. The errors of a spectrum come here, too: before the training."""
        networks = self._networks(kept, levels, seed=0)
        steps = self.max_steps + (len(networks) - 1) * min(COMPARED, self.max_steps)
        with one_thread(x.ndim != 4):
            seconds = self.n_networks * expected_seconds(networks[-1]().to(x.device).eval(), x, float(levels[0]),
                                                         len(levels), steps, self._rows_per_step(kept))
        _warn_if_long(seconds, stacklevel=4)

    def _rows_per_step(self, kept) -> int:
        return min(len(kept), self.batch_size or (IMAGES_PER_STEP if kept.ndim == 4 else ROWS_PER_STEP))

    def _networks(self, kept, levels, seed) -> list:
        """Functions that make an untrained model each."""
        waves = (True,) if self._neighbours <= BENT else (False, True)
        kinds = [_for_images] if kept.ndim == 4 else [partial(_for_rows, width=self.width, waves=w) for w in waves]

        def make(kind):
            with torch.random.fork_rng(devices=[]):
                torch.random.default_generator.manual_seed(seed)           # the CPU's alone, which fork_rng restores
                return kind(kept, levels)
        return [partial(make, kind) for kind in kinds]

    def _train(self, held, kept, levels, seed) -> Learned:
        """A denoiser for the given noise levels and those between, in the frame of the data."""
        bar = partial(show, notebook=True) if self.verbose else lambda run, steps: run
        with one_thread(kept.ndim != 4):
            return learn(self._networks(kept, levels, seed), kept, held, np.geomspace(levels[0], levels[-1], LEVELS),
                         self.max_steps, self.min_steps, self._rows_per_step(kept), seed, self.device, bar)


def _warn_if_long(seconds, stacklevel=3):
    if seconds > LONG:
        time = f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
        warnings.warn(f"this may take {time} on this machine: use fewer points, fewer sigmas or max_steps, a GPU, or "
                      "tangent_sketch with a trained denoiser", stacklevel=stacklevel)


def _for_rows(kept, levels, width, waves) -> ScoreModel:
    """An untrained model with an MLP."""
    return ScoreModel.for_data(MLP(kept[0].numel(), width, waves=waves), kept, sigma_min=levels[0],
                               sigma_max=max(LARGEST_TRAINED, levels[-1]))


def _for_images(kept, levels) -> ScoreModel:
    """An untrained model with a U-Net with a second look, for square images."""
    mean, std = kept.mean().item(), kept.std().item()
    halvings = next((n for n in (2, 1) if kept.shape[-1] % 2**n == 0), 0)
    coarsest = kept.shape[-1] // 2**halvings                               # pixels a side where attention would be
    if kept.shape[3] <= 4 < kept.shape[2]:
        raise ValueError(f"X holds images of {kept.shape[1]}×{kept.shape[2]} pixels with their {kept.shape[3]} "
                         "channels last: give the channels second, np.moveaxis(X, 3, 1)")
    if kept.shape[2] != kept.shape[3]:
        raise ValueError(f"X holds images of {kept.shape[2]}×{kept.shape[3]} pixels: crop or pad them to squares, or "
                         "give them as rows, X.reshape(len(X), -1)")
    net = SecondLook([(grey - mean) / std for grey in (kept.min().item(), kept.max().item())], std / (2 * levels[-1]),
                     size=kept.shape[2], channels_in=kept.shape[1], multipliers=[1, 2, 4][: halvings + 1],
                     attention=coarsest <= MOST_ATTENDED)
    return ScoreModel(net, std, mean, sigma_min=levels[0], sigma_max=2 * levels[-1])


@dataclass(frozen=True)
class Frame:
    """Coordinates z = (x − center)/unit of data x, computed in float64.

    The unit is the largest standard deviation of x in any direction. In ``hull`` directions, those of the linear hull,
    it is above a hundredth of that; ``thinnest`` is the smallest of these, in this unit.
    """

    center: NDArray | float
    unit: float
    thinnest: float
    hull: int

    def into(self, x: NDArray) -> NDArray:
        """z for x of shape ``(n, *shape)``, in float64."""
        return (np.asarray(x, dtype=np.float64) - self.center) / self.unit


@dataclass(frozen=True)
class InFrame:
    """A denoiser for data x, made of a denoiser D for z = (x − c)/u: c + u · D((x − c)/u, σ/u)."""

    denoiser: ScoreModel | Mean
    frame: Frame

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        unit, center = self.frame.unit, torch.as_tensor(self.frame.center, dtype=wide).to(x.device)
        denoised = self.denoiser(((x - center) / unit).float(), sigma / unit)
        return (center + unit * denoised.to(center.dtype)).to(x.dtype)

    @property
    def sigma_min(self) -> float:
        """The smallest noise level, in the units of x."""
        return self.frame.unit * self.denoiser.sigma_min

    @property
    def sigma_max(self) -> float:
        """The largest noise level, in the units of x."""
        return self.frame.unit * self.denoiser.sigma_max


def _frame(kept: NDArray) -> Frame:
    """The frame of the data; its center is the mean of the rows, and for images that of all their pixels."""
    center = kept.mean(0) if kept.ndim != 4 else kept.mean()
    some = (kept[:2000] - center).reshape(len(kept[:2000]), -1)
    size = np.abs(some).max()
    if size == 0 or not (kept.max(0) > kept.min(0)).any():
        raise ValueError("all rows of X are the same: constant data have no directions to count")
    spreads = np.linalg.svd(some / size - (some / size).mean(0), compute_uv=False) / len(some) ** 0.5
    thick = spreads[spreads > THIN * spreads[0]]
    return Frame(center, float(size * spreads[0]), float(thick[-1] / spreads[0]), len(thick))
