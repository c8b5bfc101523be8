"""The dimension against the noise level, and the answer: the dimension on a plateau, with its doubts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .machine.doubts import about_the_answer, about_the_plateau, largest_excess
from .score import Denoiser
from .svd import CONTRAST, Spectrum, spectrum

__all__ = ["DimensionCurve", "Estimate", "dimension_curve"]

AGREE = 0.5  # largest difference of the dimensions of two noise levels that agree, mean over the points


@dataclass(frozen=True, repr=False)
class Estimate:
    """The dimension at P points, ``dimension()``, with its doubts.

    Attributes:
        sigma: the noise level of the answer.
        plateau: the lowest and the highest noise level of its plateau.
        warnings: reasons to doubt the answer, in words; empty where there are none.
        draw_error: standard error of the mean that comes from the noise, which all points share.
    """

    _dimension: NDArray
    sigma: float
    plateau: tuple[float, float]
    warnings: tuple[str, ...]
    draw_error: float = 0.0

    def dimension(self) -> NDArray:
        """The dimension at each point, shape (P,)."""
        return self._dimension

    @property
    def mean(self) -> float:
        """Mean dimension over the points."""
        return float(self._dimension.mean())

    @property
    def median(self) -> float:
        """Median dimension over the points."""
        return float(np.median(self._dimension))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, from the points and from the noise; nan for a single point."""
        return float(np.hypot(_over_points(self._dimension), self.draw_error))

    def __repr__(self) -> str:
        low, high = self.plateau
        lines = [f"dimension {self.mean:.2f} ± {self.standard_error:.2f} (median {self.median:g}, "
                 f"{len(self._dimension)} points) at σ = {self.sigma:.3g}, plateau {low:.3g} to {high:.3g}"]
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])


@dataclass(frozen=True, repr=False)
class DimensionCurve:
    """Dimension against noise level, k(σ): one `Spectrum` for each σ, ascending."""

    spectra: tuple[Spectrum, ...]

    @property
    def sigmas(self) -> NDArray:
        """Noise levels, ascending, shape (S,)."""
        return np.array([s.sigma for s in self.spectra])

    def at(self, index) -> "DimensionCurve":
        """The curve at some of the points."""
        return DimensionCurve(tuple(spectrum.at(index) for spectrum in self.spectra))

    def dimension(self, rule: str = "recommended") -> NDArray:
        """Dimension at each noise level and point, shape (S, P)."""
        return np.stack([s.dimension(rule) for s in self.spectra])

    def standard_errors(self, rule: str = "recommended") -> NDArray:
        """Standard error of the mean at each noise level, as in `Estimate`, shape (S,)."""
        return np.hypot(_over_points(self.dimension(rule)), [s.draw_error(rule) for s in self.spectra])

    def estimate(self, rule: str = "recommended") -> Estimate:
        """The answer on the plateau, which is the longest run of noise levels, in log σ, that agree with each other.

        Two levels agree if their dimensions differ by at most ½, on average over the points. A plateau at 0 is taken
        only if there is no other, because all data have dimension 0 for noise much larger than they are, or much
        smaller than the distances between the points. Of two plateaus of equal length, the one at smaller σ is taken.
        Of its levels at which the denoising loss is near the dimension, the one with the largest median contrast gives
        the answer.
        """
        answers, sigmas = self.dimension(rule), self.sigmas
        agree = np.abs(answers[:, None] - answers[None]).mean(axis=2) <= AGREE          # (S, S)
        zero = answers.mean(axis=1) < 0.5
        agree &= zero[:, None] == zero[None]
        runs = [(i, j) for i in range(len(agree)) for j in range(i, len(agree)) if agree[i:j + 1, i:j + 1].all()]
        first, last = max(runs, key=lambda run: (not zero[run[0]], round(np.log(sigmas[run[1]] / sigmas[run[0]]), 6),
                                                 -run[0]))
        excess = np.array([s.loss.mean() for s in self.spectra]) - answers.mean(1)
        learned = excess <= largest_excess(answers.mean(1), self.spectra[0].values.shape[1])
        best = max(range(first, last + 1), key=lambda i: (learned[i], np.median(self.spectra[i].contrast)))
        at = self.spectra[best]
        doubts = (about_the_plateau(answers, sigmas, runs, first, last)
                  + about_the_answer(answers[best], at.values.shape[1], at.n_scores, excess[best], at.disagreement,
                                     np.mean(at.contrast < CONTRAST)))
        return Estimate(answers[best], float(sigmas[best]), (float(sigmas[first]), float(sigmas[last])), tuple(doubts),
                        at.draw_error(rule))

    def __repr__(self) -> str:
        answers = self.dimension()
        rows = [f"  σ = {sigma:<8.3g} k = {row.mean():.2f} (median {np.median(row):g})"
                for sigma, row in zip(self.sigmas, answers, strict=True)]
        return "\n".join([repr(self.estimate()), *rows])


def _over_points(answers):
    n = answers.shape[-1]
    return answers.std(axis=-1, ddof=1) / n**0.5 if n > 1 else np.full(answers.shape[:-1], np.nan)


def dimension_curve(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], n_scores: int | None = None,
                    center: bool = True, seed: int = 0, batch_size: int | None = None,
                    noise: str = "gaussian") -> DimensionCurve:
    """Spectra at several noise levels, with the same noise at each. Arguments as for `spectrum`.

    ``print(dimension_curve(...))`` shows the answer, its standard error, its plateau and its doubts.
    """
    levels = sorted({float(s) for s in np.atleast_1d(np.asarray(sigmas, dtype=float))})
    if len(levels) < 2:
        raise ValueError(f"a curve needs at least two noise levels, got {levels}")
    return DimensionCurve(tuple(
        spectrum(denoiser, x, s, n_scores, center, seed, batch_size, noise=noise, without=True) for s in levels))
