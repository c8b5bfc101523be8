"""The SVD estimator: many scores around a point, their singular values, a dimension.

Around a point x_0 of M, draw K noisy copies x_i = x_0 + σ ε_i and look at the predicted noise
ε̂(x_i, σ) = −σ s(x_i, σ). It points along the normals of M (Stanczuk et al. 2024, Theorem 5.1), so its
covariance has about d − k eigenvalues near 1 and k near 0. The roots of these eigenvalues are the singular
values of the score matrix in **ε units**; times √K/σ they are the paper's.

    cost(denoiser, x, sigma)            what the next line will cost
    spectrum(denoiser, x, sigma)        the singular values at each point: all the cost is here
    frame_spectrum(denoiser, x, sigma)  the same from noise along orthonormal frames, where there is no gap
    Spectrum.dimension(rule)            a rule that counts the small ones: free
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .sampler import memory, rows_per_batch
from .score import Denoiser, noise_prediction
from .seeds import stream

__all__ = ["Cost", "RULES", "Spectrum", "cost", "frame_spectrum", "spectrum"]

RESOLUTION = 0.01  # value of a direction ten noise levels long, σ²/(σ² + (10σ)²): longer ones are all alike
NOISE_ROWS = 64    # noise is drawn in blocks of this size, whatever the batch: the answer cannot depend on it
TRIAL = 256        # evaluations that `cost` times
SMALL = 1024       # order of the eigenvalue problem that `cost` times
CONTRAST = 3.0     # (1 + √(d/K))/(1 − √(d/K)) at K = 4d: noise alone spreads one population by this factor


# Rules map singular values (P, d), descending, in ε units, and K to dimensions (P,).

def gap(values: NDArray, n_scores: int) -> NDArray:
    """k = d − argmax_i (s_i − s_{i+1}): Algorithm 1 of the paper. Cannot answer 0 or d."""
    return values.shape[1] - 1 - (values[:, :-1] - values[:, 1:]).argmax(1)


def ratio(values: NDArray, n_scores: int) -> NDArray:
    """k = d − argmax_i (s_i / s_{i+1}): the gap of the logarithms. Cannot answer 0 or d."""
    logs = np.log(values.clip(min=1e-12))
    return values.shape[1] - 1 - (logs[:, :-1] - logs[:, 1:]).argmax(1)


def cut(values: NDArray, n_scores: int) -> NDArray:
    """k = #{i : s_i < ½ (1 − √(d/K))}: half the Marchenko–Pastur edge. Answers anything from 0 to d."""
    return (values < _lower_edge(values, n_scores) / 2).sum(1)


def recommended(values: NDArray, n_scores: int) -> NDArray:
    """The gap between what is surely normal and what is surely tangent, unless a ratio is far clearer.

    Pure noise leaves a perfectly learned normal direction above e = 1 − √(d/K) (Marchenko & Pastur 1967), so
    larger values are all alike; so are values below τ = 0.01, whose directions are more than ten noise levels
    long. With c_i = min(s_i, e), a sure normal c_0 = e above and a sure tangent c_{d+1} = 0 below,

        i_gap = argmax_{i=0..d} (c_i − c_{i+1}),     i_ratio = argmax_{i=0..d−1} max(c_i, τ) / max(c_{i+1}, τ).

    Where a value is below e/2, not all directions are normal, so i = d is left out. (Two clean populations, the
    lower one at t, do not notice: the step e − t is larger than t exactly where t < e/2.)

    A well-trained network has its boundary at i_gap. In an undertrained one some normal directions, the
    curved ones last, still have small values, but far above the tangent ones: the boundary is at i_ratio where
    that ratio is more than 3 times the one at i_gap. Three is (1 + √(d/K))/(1 − √(d/K)) at K = 4d, the factor
    by which noise alone spreads one population. Then k = d − i, anything from 0 to d.
    """
    return _recommended(values, n_scores)[0]


RULES: dict[str, Callable[[NDArray, int], NDArray]] = {
    "recommended": recommended, "gap": gap, "ratio": ratio, "cut": cut}


def _lower_edge(values, n_scores):
    return 1 - (values.shape[1] / n_scores) ** 0.5


def _recommended(values, n_scores):
    """The recommended dimension and its contrast, the ratio across the boundary; both (P,)."""
    points, d = np.arange(len(values)), values.shape[1]
    edge = _lower_edge(values, n_scores)
    bounded = np.pad(values.clip(max=edge), ((0, 0), (1, 1)), constant_values=((0, 0), (edge, 0)))  # c_0 … c_{d+1}
    gaps = bounded[:, :-1] - bounded[:, 1:]
    gaps[values[:, -1] < edge / 2, d] = 0                                  # not all are normal
    floored = bounded.clip(min=RESOLUTION)
    ratios = floored[:, :-1] / floored[:, 1:]
    by_gap, by_ratio = gaps.argmax(1), ratios[:, :d].argmax(1)
    clearer = ratios[points, by_ratio] > CONTRAST * ratios[points, by_gap]
    boundary = np.where(clearer, by_ratio, by_gap)
    return d - boundary, ratios[points, boundary]


@dataclass(frozen=True, repr=False)
class Spectrum:
    """Singular values of the scores around P points.

    Attributes:
        values: shape (P, d), descending, in ε units: near 1 on normal, near 0 on tangent directions.
        loss: shape (P,): the denoising loss E‖ε̂ − ε‖² at each point; its floor is the dimension.
        sigma: noise level. n_scores: number K of noisy copies, for the rules, which expect the spread that it causes;
            infinite where there is none. center: whether the mean was subtracted.
        directions: shape (P, d, d), where asked for: row i is the unit vector that belongs to value i, so that
            ``directions[:, d - k:]`` span the tangent and the others the normal space.
    """

    values: NDArray
    loss: NDArray
    sigma: float
    n_scores: float
    center: bool
    directions: NDArray | None = None

    def at(self, index) -> "Spectrum":
        """The spectrum at some of the points, given by a slice, a mask or indices."""
        directions = None if self.directions is None else self.directions[index]
        return replace(self, values=self.values[index], loss=self.loss[index], directions=directions)

    def dimension(self, rule: str = "recommended") -> NDArray:
        """Intrinsic dimension at each point, shape (P,), by one of the ``RULES``."""
        if rule not in RULES:
            raise ValueError(f"rule {rule!r} is none of {', '.join(RULES)}")
        return RULES[rule](self.values, self.n_scores)

    @property
    def contrast(self) -> NDArray:
        """Ratio of the values on either side of the recommended boundary, shape (P,); below 3 it is hardly one."""
        return _recommended(self.values, self.n_scores)[1]

    @property
    def disagreement(self) -> float:
        """Share of the points where cut or gap contradicts the recommended rule (gap cannot answer 0 or d)."""
        answer, by_gap, by_cut = (self.dimension(rule) for rule in ("recommended", "gap", "cut"))
        extreme = (answer == 0) | (answer == self.values.shape[1])
        return float(np.mean((answer != by_cut) | ((answer != by_gap) & ~extreme)))

    def __repr__(self) -> str:
        medians = ", ".join(f"{rule} {np.median(self.dimension(rule)):g}" for rule in RULES)
        return (f"Spectrum of {len(self.values)} points in R^{self.values.shape[1]}, σ = {self.sigma:.3g}, "
                f"K = {self.n_scores}: median dimension {medians}")


@torch.no_grad()
def spectrum(denoiser: Denoiser, x: Tensor, sigma: float, n_scores: int | None = None, center: bool = True,
             seed: int = 0, batch_size: int | None = None, directions: bool = False) -> Spectrum:
    """Singular values of K scores around each point of x (Algorithm 1 of Stanczuk et al. 2024), in ε units.

    The d × d Gram matrix of the noise predictions is accumulated block by block, so memory is
    O(d² + batch · d) and never K × d; its eigenvalues are taken in float64. The noise is the same for every point.
    The denoiser is asked in full precision, on a GPU too.

    Args:
        denoiser: a denoiser (``dimlib.score``).
        x: points, shape ``(P, *shape)``; d is the number of entries of one point.
        sigma: noise level, in the units of x.
        n_scores: K, at least d + 1; 4d where not given.
        center: subtract the mean prediction, which is the drift by mean curvature and no direction of
            noise. ``center=False`` with the "gap" rule is the algorithm as published.
        seed: seed of the noise.
        batch_size: noisy copies per call of the denoiser; chosen from the memory where not given.
        directions: also return the right singular vectors, d² numbers per point.

    Raises:
        ValueError: bad points, σ or K, or a denoiser that returns another shape, NaN or infinity.
        MemoryError: more entries per point than d × d matrices fit into the memory for.
    """
    n_scores = checked_number(x, n_scores)
    d = x[0].numel()

    def noise():
        generator = stream(seed, "spectrum", x.device)
        for start in range(0, n_scores, NOISE_ROWS):
            yield torch.randn(NOISE_ROWS, d, generator=generator, device=x.device, dtype=x.dtype)[: n_scores - start]

    return _spectrum(denoiser, x, sigma, noise, n_scores, center, batch_size, directions)


@torch.no_grad()
def frame_spectrum(denoiser: Denoiser, x: Tensor, sigma: float, seed: int = 0,
                   batch_size: int | None = None) -> Spectrum:
    """As `spectrum`, with 2 d noises ±√d q_i along a random orthonormal frame q_1, …, q_d instead of K random ones.

    The covariance of this noise is the identity, not only nearly so, and its mean is 0. A normal direction then has
    the value 1 and not one between 1 ± √(d/K), and a tangent one of length ℓ, in standard deviations of the data
    along it, has σ²/(σ² + ℓ²), exactly so for a Gaussian. With ``n_scores`` infinite, as it is here for the rules,
    "cut" is at ½: it counts the directions longer than σ, the visible dimension, with or without a gap.
    Arguments as for `spectrum`.
    """
    checked_number(x, None)
    d = x[0].numel()
    square = torch.randn(d, d, generator=stream(seed, "frame", x.device), device=x.device, dtype=x.dtype)
    frame = d**0.5 * torch.linalg.qr(square).Q

    def noise():
        for rows in frame.split(NOISE_ROWS // 2):
            yield torch.cat([rows, -rows])

    return _spectrum(denoiser, x, sigma, noise, np.inf, True, batch_size, False)


def _spectrum(denoiser, x, sigma, noise, n_scores, center, batch_size, directions):
    """The spectrum from blocks of noise, (rows, d) each, that a call of ``noise`` gives, the same for every point."""
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}: the noise level must be positive")
    batch_size = rows_per_batch(batch_size, x[0].numel(), x.device)
    groups = x.split(max(1, batch_size // NOISE_ROWS))                     # points that go through together
    values, losses, vectors = [], [], []
    for points in groups:
        gram, loss = _gram(denoiser, points, sigma, noise(), center, batch_size)
        losses.append(loss)
        if directions:
            squares, columns = torch.linalg.eigh(gram)
            vectors.append(columns.mT.flip(-2))
        else:
            squares = torch.linalg.eigvalsh(gram)
        values.append(squares.flip(-1).clamp(min=0).sqrt())
    values, losses = (torch.cat(parts).cpu().numpy() for parts in (values, losses))
    return Spectrum(values, losses, float(sigma), n_scores, center,
                    torch.cat(vectors).cpu().numpy() if directions else None)


@dataclass(frozen=True, repr=False)
class Cost:
    """What a `spectrum` will take: evaluations of the denoiser, seconds on this machine, bytes of memory at most."""

    evaluations: int
    seconds: float
    bytes: int

    def __repr__(self) -> str:
        return f"{self.evaluations:,} evaluations, about {self.seconds:,.0f} s, {self.bytes / 1e9:.2g} GB"


@torch.no_grad()
def cost(denoiser: Denoiser, x: Tensor, sigma: float, n_scores: int | None = None) -> Cost:
    """What ``spectrum(denoiser, x, sigma, n_scores)`` will take, from 512 evaluations at one point; the same errors.

    Where it is too much: fewer points, a GPU, or `tangent_sketch`, with O(k) evaluations per point instead of 4 d.
    """
    n_scores = checked_number(x, n_scores)
    d, part = x[0].numel(), min(n_scores, TRIAL)
    rows = rows_per_batch(None, d, x.device)
    noise = torch.randn(part, d, device=x.device, dtype=x.dtype).split(NOISE_ROWS)
    gram, gathered = _timed(_gram, denoiser, x[:1], sigma, noise, False, rows)
    small = gram[0][0, :SMALL, :SMALL]
    solved = _timed(torch.linalg.eigvalsh, small)[1] * (d / len(small)) ** 3
    together = min(len(x), max(1, rows // NOISE_ROWS))
    return Cost(len(x) * n_scores, len(x) * (gathered * n_scores / part + solved), together * _matrices(d))


def _timed(function, *arguments):
    """What a function returns, and the seconds of its second call: the first one warms up."""
    function(*arguments)
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


def checked_number(x, n_scores):
    """K, after a check of the points, of K and of the memory."""
    check_points(x)
    d = x[0].numel()
    if d < 2:
        raise ValueError("the points have one entry each: there is nothing to count in one dimension")
    n_scores = 4 * d if n_scores is None else n_scores
    if n_scores <= d:
        raise ValueError(f"n_scores={n_scores} scores span at most {n_scores} of the d={d} dimensions: use at least "
                         f"{d + 1}, better 4 d = {4 * d}")
    if _matrices(d) > memory(x.device):
        raise MemoryError(f"the spectrum of a point with d={d} entries needs {_matrices(d) / 1e9:.3g} GB, and "
                          f"{memory(x.device) / 1e9:.3g} GB is what there is: use tangent_sketch, which never makes a "
                          "d × d matrix, or smaller images")
    return n_scores


def _matrices(d):
    """Bytes of the d × d matrices of one point: the Gram matrix, the part of the mean, and a copy for its solver."""
    return 4 * 8 * d**2


def _gram(denoiser, points, sigma, noise, center, batch_size):
    """Gram matrix of the noise predictions (P, d, d) over K and denoising loss (P,) of a few points, float64."""
    exact = torch.device("cpu") if points.device.type == "mps" else points.device   # where float64 exists
    d = points[0].numel()
    gram = torch.zeros(len(points), d, d, dtype=torch.float64, device=exact)
    total, loss, n_scores = 0.0, 0.0, 0
    for block in noise:                                                    # (rows, d)
        copies = points.flatten(1)[:, None] + sigma * block                # (P, rows, d)
        batches = copies.reshape(-1, *points.shape[1:]).split(batch_size)
        predicted = torch.cat([noise_prediction(checked(denoiser), batch, sigma) for batch in batches]).view_as(copies)
        loss = loss + (predicted - block).to(exact, torch.float64).square().flatten(1).sum(1)
        rows = predicted.to(exact, torch.float64)                          # (P, rows, d)
        gram.baddbmm_(rows.mT, rows)                                       # in place: a sum of d × d copies costs more
        total = total + rows.sum(1, keepdim=True)
        n_scores += len(block)
    if center:
        gram = gram - total.mT @ total / n_scores
    return gram / n_scores, loss / n_scores


def check_points(x):
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) == 0:
        raise ValueError("x must be a tensor of points, shape (P, *shape), got "
                         f"{tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}; for one point use x[None]")
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}: convert it with x.float()")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values: remove or impute those rows first")


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Float32 products in float32 on a GPU, too, where those of convolutions are else in TF32, of three digits."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def checked(denoiser):
    """The denoiser in full precision, with an error where its answer breaks the contract."""
    def call(x, sigma):
        with full_precision():
            answer = denoiser(x, sigma)
        if answer.shape != x.shape:
            raise ValueError(f"the denoiser returned shape {tuple(answer.shape)} for x of shape {tuple(x.shape)}; "
                             "D(x, sigma) must have the shape of x")
        if not torch.isfinite(answer).all():
            raise ValueError(f"the denoiser returned NaN or infinite values at sigma={sigma:g}: is this noise level "
                             "inside the range it was trained for?")
        return answer
    return call
