"""The dimension against the noise level, and the answer: the dimension on a plateau, with its doubts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .machine.checks import check_levels
from .machine.doubts import about_the_answer, about_the_plateau, contradicts, largest_excess
from .score import Denoiser
from .svd import CONTRAST, Spectrum, spectrum

__all__ = ["DimensionCurve", "Estimate", "dimension_curve"]

AGREE = 0.4  # largest difference of the dimensions of two noise levels that agree, mean over the points


@dataclass(frozen=True, repr=False)
class Estimate:
    """The dimension at P points, ``dimension()``, with its doubts.

    Attributes:
        sigma: the noise level of the answer.
        plateau: the lowest and the highest noise level of its plateau.
        plateaus: all plateaus: lowest and highest noise level, and mean dimension. Data can have one at each scale.
        at_most: an upper bound of the dimension at sigma: the mean denoising loss plus twice its standard error.
        warnings: reasons to doubt the answer, in words; empty where there are none.
        draw_error: standard error of the mean from what all points share: the noise, and several networks if used.
    """

    _dimension: NDArray
    sigma: float
    plateau: tuple[float, float]
    warnings: tuple[str, ...]
    plateaus: tuple[tuple[float, float, float], ...]
    at_most: float
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
        return float(np.hypot(_error_over_points(self._dimension), self.draw_error))

    def __repr__(self) -> str:
        low, high = self.plateau
        lines = [f"dimension {self.mean:.2f} ± {self.standard_error:.2f} (median {self.median:g}, "
                 f"{len(self._dimension)} points) at σ = {self.sigma:.3g}, plateau {low:.3g} to {high:.3g}"]
        if len(self.plateaus) > 1:
            lines.append("  plateaus: " + ", ".join(f"{k:.3g} at σ = {a:.3g} to {b:.3g}" for a, b, k in self.plateaus))
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])


@dataclass(frozen=True, repr=False)
class DimensionCurve:
    """Dimension against noise level, k(σ): one `Spectrum` for each σ, ascending; and ``neighbours``, the dimension that
    the distances between neighbouring points of the data give, if it is known."""

    spectra: tuple[Spectrum, ...]
    neighbours: float = np.nan

    @property
    def sigmas(self) -> NDArray:
        """Noise levels, ascending, shape (S,)."""
        return np.array([s.sigma for s in self.spectra])

    def at(self, index) -> "DimensionCurve":
        """The curve at some of the points."""
        return DimensionCurve(tuple(s.at(index) for s in self.spectra), self.neighbours)

    def dimension(self, rule: str = "recommended") -> NDArray:
        """Dimension at each noise level and point, shape (S, P)."""
        return np.stack([s.dimension(rule) for s in self.spectra])

    def standard_errors(self, rule: str = "recommended") -> NDArray:
        """Standard error of the mean at each noise level, as in `Estimate`, shape (S,)."""
        return np.hypot(_error_over_points(self.dimension(rule)), [s.draw_error(rule) for s in self.spectra])

    def estimate(self, rule: str = "recommended") -> Estimate:
        """The answer on the plateau at the smallest noise levels, since larger noise hides what is thin or bent.

        A plateau is a run of at least two noise levels whose dimensions differ from each other by at most 0.4, on
        average over the points. Four kinds are set aside if there is another plateau: one at 0 (noise much larger than
        the data, or much smaller than their distances), one at d that is not longer in log σ (noise in the data fills
        the space), one that contradicts ``neighbours``, and one without
        a clear level. A level is clear if its loss is near the dimension, and half of the points have two populations
        of singular values. If no plateau has one, those with a level of such a loss come first. The answer is at the
        clear level of largest median contrast (or one of such a loss, or any).
        """
        answers, sigmas, d = self.dimension(rule), self.sigmas, self.spectra[0].values.shape[1]
        means, losses = answers.mean(1), np.array([s.loss.mean() for s in self.spectra])
        agree = np.abs(answers[:, None] - answers[None]).mean(axis=2) <= AGREE          # (S, S)
        zero, full, near = means < 0.5, means > d - 0.5, losses - means <= largest_excess(means, d)
        weak = np.array([np.mean(s.contrast < CONTRAST) for s in self.spectra])
        clear = near & (weak <= 0.5)
        runs = [(i, j) for i in range(len(agree)) for j in range(i, len(agree)) if agree[i:j + 1, i:j + 1].all()]
        length = {(i, j): np.log(sigmas[j] / sigmas[i]) for i, j in runs}
        longest = max((length[run] for run in runs if not full[run[0]] and not zero[run[0]]), default=-1)
        against = contradicts(runs, means, self.neighbours)
        runs.sort(key=lambda run: (zero[run[0]], full[run[0]] and length[run] <= longest, run[0] == run[1],
                                   against[run], not clear[run[0]:run[1] + 1].any(),
                                   run[0] < run[1] and not near[run[0]:run[1] + 1].any(), run[0], -run[1]))
        (first, last), plateaus = runs[0], list[tuple[int, int]]()
        for i, j in runs:
            if i < j and not zero[i] and all(j < a or b < i for a, b in plateaus):
                plateaus.append((i, j))
        best = max(range(first, last + 1), key=lambda i: (clear[i], near[i], np.median(self.spectra[i].contrast)))
        at, loss = self.spectra[best], losses[best]
        at_most = loss + 2 * np.hypot(np.nan_to_num(_error_over_points(at.loss)), (2 * loss / at.n_scores) ** 0.5)  # χ²
        doubts = (about_the_plateau(answers, sigmas, plateaus, first, last, best, d)
                  + about_the_answer(answers[best], d, at.n_scores, loss, at_most, at.disagreement, weak[best]))
        named = tuple((float(sigmas[i]), float(sigmas[j]), float(means[i:j + 1].mean())) for i, j in sorted(plateaus))
        return Estimate(answers[best], float(sigmas[best]), (float(sigmas[first]), float(sigmas[last])), tuple(doubts),
                        named, float(at_most), at.draw_error(rule))

    def __repr__(self) -> str:
        rows = [f"  σ = {sigma:<8.3g} k = {row.mean():.2f} (median {np.median(row):g})"
                for sigma, row in zip(self.sigmas, self.dimension(), strict=True)]
        return "\n".join([repr(self.estimate()), *rows])


def _error_over_points(answers):
    n = answers.shape[-1]
    return answers.std(axis=-1, ddof=1) / n**0.5 if n > 1 else np.full(answers.shape[:-1], np.nan)


def dimension_curve(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], n_scores: int | None = None,
                    center: bool = True, seed: int = 0, batch_size: int | None = None,
                    noise: str = "gaussian") -> DimensionCurve:
    """Spectra at several noise levels, with the same noise at each. Arguments as for `spectrum`. ``print`` of it shows
    the answer, its standard error, its plateau and its doubts."""
    return DimensionCurve(tuple(spectrum(denoiser, x, s, n_scores, center, seed, batch_size, noise=noise, without=True)
                                for s in check_levels(sigmas)))
