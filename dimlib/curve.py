"""Dimension has a scale: the estimate over a range of noise levels, and the plateau on which it rests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .score import Denoiser
from .svd import CONTRAST, Spectrum, spectrum

__all__ = ["DimensionCurve", "Estimate", "dimension_curve"]


@dataclass(frozen=True, repr=False)
class Estimate:
    """A dimension with its doubts.

    Attributes:
        dimension: shape (P,): the dimension at each point, at noise level ``sigma``.
        sigma: the noise level that the plateau rule chose. plateau: lowest and highest σ of the plateau.
        warnings: what speaks against the answer, in words; empty where nothing does.
    """

    dimension: NDArray
    sigma: float
    plateau: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean dimension over the points."""
        return float(self.dimension.mean())

    @property
    def median(self) -> float:
        """Median dimension over the points."""
        return float(np.median(self.dimension))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over the points; nan for a single point."""
        return float(_standard_error(self.dimension))

    def __repr__(self) -> str:
        low, high = self.plateau
        lines = [f"dimension {self.mean:.2f} ± {self.standard_error:.2f} (median {self.median:g}, "
                 f"{len(self.dimension)} points) at σ = {self.sigma:.3g}, plateau {low:.3g} to {high:.3g}"]
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])


@dataclass(frozen=True, repr=False)
class DimensionCurve:
    """Dimension against noise level, k(σ): one `Spectrum` per σ, ascending."""

    spectra: tuple[Spectrum, ...]

    @property
    def sigmas(self) -> NDArray:
        """Noise levels, ascending, shape (S,)."""
        return np.array([s.sigma for s in self.spectra])

    def at(self, index) -> "DimensionCurve":
        """The curve at some of the points, such as one component of a union."""
        return DimensionCurve(tuple(spectrum.at(index) for spectrum in self.spectra))

    def dimensions(self, rule: str = "recommended") -> NDArray:
        """Dimension at each noise level and point, shape (S, P)."""
        return np.stack([s.dimension(rule) for s in self.spectra])

    def standard_errors(self, rule: str = "recommended") -> NDArray:
        """Standard error of the mean over the points at each noise level, shape (S,); nan for a single point."""
        return _standard_error(self.dimensions(rule))

    def estimate(self, rule: str = "recommended") -> Estimate:
        """The answer on the plateau: the longest run of noise levels that agree with one another.

        Two levels agree if their dimensions differ by at most ½, on average over the points. All data are
        0-dimensional to noise that is much larger than they are, and finite data to noise much smaller than their
        spacing, so a run at 0 counts only if there is no other. Of two runs as long, the one at lower σ is
        taken, and in it the level with the largest median contrast.
        """
        answers = self.dimensions(rule)
        agree = np.abs(answers[:, None] - answers[None]).mean(axis=2) <= 0.5            # (S, S)
        zero = answers.mean(axis=1) < 0.5
        agree &= zero[:, None] == zero[None]
        runs = [(i, j) for i in range(len(agree)) for j in range(i, len(agree)) if agree[i:j + 1, i:j + 1].all()]
        first, last = max(runs, key=lambda run: (not zero[run[0]], run[1] - run[0], -run[0]))
        best = max(range(first, last + 1), key=lambda i: np.median(self.spectra[i].contrast))
        return Estimate(answers[best], float(self.sigmas[best]), (float(self.sigmas[first]), float(self.sigmas[last])),
                        self._warnings(answers[best], best, first == last))

    def _warnings(self, answer, best, alone) -> tuple[str, ...]:
        spectrum, d = self.spectra[best], self.spectra[best].values.shape[1]
        excess = float(np.mean(spectrum.loss - answer))
        weak = float(np.mean(spectrum.contrast < CONTRAST))
        doubts = [
            (alone, "no plateau: the dimension changes with every noise level; read the curve, not one number"),
            (answer.mean() < 0.5, "dimension 0: σ is beyond the size of the data, or the data are memorised"),
            (spectrum.n_scores < 2 * d, f"K = {spectrum.n_scores} is below 2 d = {2 * d}: the rules need about 4 d"),
            (spectrum.disagreement > 0.1,
             f"gap, cut and recommended rule disagree at {spectrum.disagreement:.0%} of the points"),
            (weak > 0.1, f"no two populations of singular values at {weak:.0%} of the points"),
            (excess > 0.1 * d,
             f"the denoising loss is {excess:.1f} above its floor: train longer, or lower the noise level")]
        return tuple(text for holds, text in doubts if holds)

    def __repr__(self) -> str:
        answers = self.dimensions()
        rows = [f"  σ = {sigma:<8.3g} k = {row.mean():.2f} (median {np.median(row):g})"
                for sigma, row in zip(self.sigmas, answers, strict=True)]
        return "\n".join([repr(self.estimate()), *rows])


def _standard_error(answers):
    n = answers.shape[-1]
    return answers.std(axis=-1, ddof=1) / n**0.5 if n > 1 else np.full(answers.shape[:-1], np.nan)


def dimension_curve(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], n_scores: int | None = None,
                    center: bool = True, seed: int = 0, batch_size: int | None = None) -> DimensionCurve:
    """Spectra at several noise levels, with the same noise at all of them. Arguments as for `spectrum`.

    ``print(dimension_curve(...))`` shows the answer, its standard error over the points, its plateau and its doubts.
    """
    levels = sorted({float(s) for s in sigmas})
    if len(levels) < 2:
        raise ValueError(f"a curve needs at least two noise levels, got {levels}")
    return DimensionCurve(tuple(spectrum(denoiser, x, s, n_scores, center, seed, batch_size) for s in levels))
