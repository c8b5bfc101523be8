"""The SVD estimator: many scores around a point, their singular values, a dimension.

Make K noisy copies x_i = x_0 + σ ε_i of a data point x_0, and predict their noise, ε̂(x_i, σ) = −σ s(x_i, σ). For small
σ this prediction lies in the normal space of the data's manifold (Stanczuk et al. 2024, Theorem 5.1). So its covariance
has about d − k eigenvalues near 1 and k near 0. Their square roots are the singular values of the score matrix in
**ε units** (multiplied by √K/σ they are the paper's). A rule counts the small ones.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .machine.checks import on_singular_values
from .machine.compute import add_products, guarded, in_float64, points_together, rows_per_batch, scores_number
from .sampler import BLOCK, copies_in_blocks
from .score import Denoiser, noise_prediction

__all__ = ["RULES", "Spectrum", "spectrum"]

RESOLUTION = 0.01  # the value of a tangent direction ten noise levels long is σ²/(σ² + (10σ)²); smaller ones are noise
GROUPS = 4         # of copies, for the error of the draw
CONTRAST = 3.0     # a heuristic: at K = 4d the largest value of perfect normal directions is 3 times the smallest


# A rule maps singular values (P, d), descending, in ε units, and the number K of scores to dimensions (P,).
def gap(values: NDArray, n_scores: float) -> NDArray:
    """k = d − argmax_i (s_i − s_{i+1}): Algorithm 1 of the paper. It never answers 0 or d."""
    return values.shape[1] - 1 - (values[:, :-1] - values[:, 1:]).argmax(1)


def ratio(values: NDArray, n_scores: float) -> NDArray:
    """k = d − argmax_i (s_i / s_{i+1}): the largest gap of the logarithms. It never answers 0 or d."""
    return gap(np.log(values.clip(min=1e-12)), n_scores)


def cut(values: NDArray, n_scores: float) -> NDArray:
    """k = #{i : s_i < ½ (1 − √(d/K))}: values below half the Marchenko–Pastur edge. It can answer 0 to d."""
    return (values < _lower_edge(values, n_scores) / 2).sum(1)


def recommended(values: NDArray, n_scores: float) -> NDArray:
    """The largest gap, or the largest ratio where that is much clearer. It can answer anything from 0 to d.

    A normal direction that is learned perfectly has a value above the edge e = 1 − √(d/K) (Marchenko & Pastur 1967),
    so differences above e mean nothing. Tangent directions longer than ten noise levels have values below τ = 0.01, so
    ratios below τ mean nothing. With c_i = min(s_i, e), and with c_0 = e and c_{d+1} = 0 added at the two ends,

        i_gap = argmax_{i=0..d} (c_i − c_{i+1}),     i_ratio = argmax_{i=0..d−1} max(c_i, τ) / max(c_{i+1}, τ).

    Where a value is below e/2, not all directions are normal, and i = d is left out. The dimension is d − i_gap. But
    networks learn curved normal directions last. Until then their values are small, though far above the tangent ones.
    So the dimension is d − i_ratio if that ratio is more than 3 times the one at i_gap. The 3 is a heuristic: at
    K = 4d, chance alone makes the largest normal value (1 + √(d/K))/(1 − √(d/K)) = 3 times the smallest.
    """
    return _boundary(values, n_scores)[0]


RULES = {rule.__name__: on_singular_values(rule) for rule in (recommended, gap, ratio, cut)}


def _lower_edge(values, n_scores):
    return 1 - (values.shape[1] / n_scores) ** 0.5


def _boundary(values, n_scores):
    """The recommended dimension, and the ratio of the values on the two sides of its boundary; both (P,)."""
    points, d = np.arange(len(values)), values.shape[1]
    edge = _lower_edge(values, n_scores)
    bounded = np.pad(values.clip(max=edge), ((0, 0), (1, 1)), constant_values=((0, 0), (edge, 0)))  # c_0 … c_{d+1}
    gaps = bounded[:, :-1] - bounded[:, 1:]
    gaps[values[:, -1] < edge / 2, d] = 0                                  # not all are normal
    floored = bounded.clip(min=RESOLUTION)
    ratios = floored[:, :-1] / floored[:, 1:]
    by_gap, by_ratio = gaps.argmax(1), ratios[:, :d].argmax(1)
    boundary = np.where(ratios[points, by_ratio] > CONTRAST * ratios[points, by_gap], by_ratio, by_gap)
    return d - boundary, ratios[points, boundary]


@dataclass(frozen=True, repr=False)
class Spectrum:
    """Singular values of the scores around P points.

    Attributes:
        values: shape (P, d), descending, in ε units: near 1 on normal, near 0 on tangent directions.
        loss: shape (P,): the denoising loss E‖ε̂ − ε‖² at each point; at small σ it is at least the dimension.
        sigma: noise level, in the units of the points.
        n_scores: number K of random scores, which spread the values over 1 ± √(d/K); infinite for noise along a frame.
        directions: None, or shape (P, d, d): the unit vector of each value; the last k span the tangent space.
        without: the values without each quarter of the copies, four arrays (P, d), if asked for.
    """

    values: NDArray
    loss: NDArray
    sigma: float
    n_scores: float
    directions: NDArray | None = None
    without: tuple[NDArray, ...] = ()

    def at(self, index) -> "Spectrum":
        """The spectrum at some of the points, given by a slice, a mask or indices."""
        directions = None if self.directions is None else self.directions[index]
        return replace(self, values=self.values[index], loss=self.loss[index], directions=directions,
                       without=tuple(values[index] for values in self.without))

    def dimension(self, rule: str = "recommended") -> NDArray:
        """Intrinsic dimension at each point, shape (P,), by one of the ``RULES``."""
        if rule not in RULES:
            raise ValueError(f"rule {rule!r} is none of {', '.join(RULES)}")
        return RULES[rule](self.values, self.n_scores)

    def draw_error(self, rule: str = "recommended") -> float:
        """Standard error of the mean dimension from the noise, which all points share: the jackknife over quarters of
        the copies (Efron 1982). 0 where ``without`` was not computed; it means nothing if K ≤ 4d/3."""
        fewer = [RULES[rule](values, 0.75 * self.n_scores).mean() for values in self.without]
        return float(np.std(fewer) * (len(fewer) - 1) ** 0.5) if fewer else 0.0

    @property
    def contrast(self) -> NDArray:
        """Ratio of the values on the two sides of the recommended boundary, shape (P,). Below 3 it can be chance."""
        return _boundary(self.values, self.n_scores)[1]

    @property
    def disagreement(self) -> float:
        """Share of points where cut or gap gives another k. At 0 and d gap is left out; above 20, k ± 1 is the same."""
        answer, by_gap, by_cut = (self.dimension(rule) for rule in ("recommended", "gap", "cut"))
        inside, most = (answer > 0) & (answer < self.values.shape[1]), np.where(answer > 20, 1, 0)
        return float(np.mean((abs(answer - by_cut) > most) | ((abs(answer - by_gap) > most) & inside)))

    def __repr__(self) -> str:
        medians = ", ".join(f"{rule} {np.median(self.dimension(rule)):g}" for rule in RULES)
        return (f"Spectrum of {len(self.values)} points in R^{self.values.shape[1]}, σ = {self.sigma:.3g}, "
                f"K = {self.n_scores}: median dimension {medians}")


@torch.no_grad()
def spectrum(denoiser: Denoiser, x: Tensor, sigma: float, n_scores: int | None = None, center: bool = True,
             seed: int = 0, batch_size: int | None = None, directions: bool = False, noise: str = "gaussian",
             without: bool = False) -> Spectrum:
    """Singular values of K scores around each point of x (Algorithm 1 of Stanczuk et al. 2024), in ε units.

    The denoiser is evaluated in full precision, on a GPU too. The memory is O(d²), in float64, and not O(K d).

    Args:
        denoiser: a denoiser (``dimlib.score``).
        x: points, shape ``(P, *shape)``; d is the number of entries of one point.
        sigma: noise level, in the units of x.
        n_scores: K, at least d + 1; max(4 d, 64) if not given.
        center: subtract the mean prediction, an effect of curvature and density. False, with "gap", is as published.
        seed: seed of the noise, which is the same for all points.
        batch_size: noisy copies per call of the denoiser; chosen from the memory if not given.
        directions: also compute the singular vectors, d² numbers per point.
        without: also compute the values without each quarter of the copies, for `Spectrum.draw_error`.
        noise: "gaussian", or "frame" for 2 d noises ±√d q_i along a random orthonormal frame q_1, …, q_d (and without
            n_scores). Then a normal direction has the value 1, and a tangent direction in which a Gaussian has the
            standard deviation ℓ has σ²/(σ² + ℓ²): "cut" counts the directions longer than σ, with or without a gap.

    Raises:
        ValueError, TypeError: bad arguments, or a denoiser that returns another shape or type, or NaN.
        MemoryError: too little memory for the d × d matrices of one point.
    """
    number = scores_number(x, sigma, n_scores, noise)
    batch_size = rows_per_batch(batch_size, x[0].numel(), x.device)
    groups = GROUPS if without and number < np.inf else 1
    solve = torch.linalg.eigh if directions else lambda m: (torch.linalg.eigvalsh(m), m[:0])  # in a third of the time
    parts = []
    for points in x.split(points_together(x[0].numel(), batch_size, BLOCK, x.device)):
        copies = copies_in_blocks(points, sigma, number, seed)
        sums, loss = moments(guarded(denoiser, batch_size), copies, sigma, groups)
        squares, vectors = solve(covariance(sums.sum(0), center))
        fewer = [torch.linalg.eigvalsh(covariance(sums.sum(0) - one, center)) for one in sums if groups > 1]
        parts.append((vectors.mT.flip(-2), loss, *(found.flip(-1).clamp(min=0).sqrt() for found in (squares, *fewer))))
    vectors, losses, values, *fewer = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return Spectrum(values, losses, float(sigma), number, vectors if directions else None, tuple(fewer))


def moments(denoiser, copies, sigma, groups):
    """Sums of r rᵀ, r = (ε̂, 1), over groups of copies, (groups, P, d + 1, d + 1), lower triangle; the loss, (P,)."""
    sums, losses = torch.empty(0), []
    for block, noise in copies:                                            # (P, n, *shape), (n, *shape)
        predicted = noise_prediction(denoiser, block.flatten(0, 1), sigma).view_as(block)
        losses.append(in_float64(predicted - noise).square().flatten(1).sum(1))
        rows = torch.nn.functional.pad(in_float64(predicted).flatten(2), (0, 1), value=1.0)    # (P, n, d + 1)
        sums = sums if len(sums) else rows.new_zeros(groups, len(rows), rows.shape[2], rows.shape[2])
        for g in range(groups):
            add_products(sums[g], rows[:, g::groups])                      # in place: matrices can be large
    return sums, sum(losses) / sums[:, 0, -1, -1].sum()                    # the number of copies: rows end with 1


def covariance(sums, center):
    """Covariance (…, d, d) of ε̂ from sums of r rᵀ, which hold the number and the mean, too; its lower triangle."""
    mean = sums[..., -1:, :-1] / sums[..., -1:, -1:]                       # (…, 1, d)
    return sums[..., :-1, :-1] / sums[..., -1:, -1:] - (mean.mT @ mean if center else 0)
