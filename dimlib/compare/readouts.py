"""The relatives of the SVD estimator: other ways to compute a dimension from the same denoiser.

Let J be the Jacobian of D(·, σ) with respect to x. Near the data's manifold and for small σ it is the projection on the
tangent space, with k eigenvalues 1 and d − k eigenvalues 0. The readouts count the ones in different ways:

    flipd              the trace of J, corrected for the distance from the manifold
    denoising_loss     the mean squared error of the predicted noise: noise along the manifold cannot be predicted
    lidl               the slope of the log-density in log σ
    lhsd               a soft count of the small eigenvalues of I − J, from random products
    jacobian_spectrum  all singular values of I − J, at the clean point
    tangent_sketch     the range of J, from a few more than k products of J with a vector

All except `lidl` take a denoiser, points and σ, as `spectrum` does. A variance preserving (VP) model becomes a
denoiser, since its x_t = α x_0 + β ε is α times x_0 + σ ε with σ = β/α.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..machine.checks import check_count, check_counts, check_denoised, check_levels, check_points
from ..machine.compute import full_precision, guarded, in_float64, rows_per_batch, scores_number
from ..sampler import noisy_copies
from ..score import Denoiser
from ..seeds import stream
from ..svd import Spectrum

__all__ = ["Readout", "TangentSketch", "denoising_loss", "flipd", "jacobian_spectrum", "knee", "lhsd", "lidl",
           "tangent_sketch"]

EXACT_TRACE = 1000  # ambient dimension up to which the trace is exact
CUTOFF = 0.1        # of LHSD: a value of I − J at which a direction counts one half
BLOCK = 16          # products with J that the sketch adds at a time
RESERVE = 4         # directions that are not tangent, and that the sketch must have found before it stops


@dataclass(frozen=True, repr=False)
class Readout:
    """The dimension at P points, ``dimension()``, which need not be whole numbers.

    Attributes:
        sigma: noise level, in the units of the points.
        n_evaluations: evaluations of the denoiser per point.
    """

    _dimension: NDArray
    sigma: float
    n_evaluations: float

    def dimension(self) -> NDArray:
        """The dimension at each point, shape (P,)."""
        return self._dimension

    def __repr__(self) -> str:
        return (f"{type(self).__name__} of {len(self._dimension)} points, σ = {self.sigma:.3g}: median dimension "
                f"{np.median(self._dimension):.4g}, {self.n_evaluations:.0f} evaluations per point")


@dataclass(frozen=True, repr=False)
class TangentSketch(Readout):
    """A `Readout` whose dimensions are whole numbers, with the tangent spaces.

    Attributes:
        tangent: for each point an orthonormal basis of its tangent space, shape (k, d).
        values: for each point the singular values of J that were found, descending.
    """

    tangent: tuple[NDArray, ...]
    values: tuple[NDArray, ...]


@torch.no_grad()
def flipd(denoiser: Denoiser, x: Tensor, sigma: float, n_probes: int | None = None, seed: int = 0,
          batch_size: int | None = None) -> Readout:
    """FLIPD (Kamkari et al., NeurIPS 2024): k̂ = d + σ² (tr ∇s + ‖s‖²) = tr J(x) + ‖D(x) − x‖²/σ², at the clean x.

    Args:
        denoiser, x, sigma, seed, batch_size: as for `spectrum`; the denoiser must be differentiable.
        n_probes: the trace is the mean of vᵀ J v over this number of random vectors v with entries ±1 (Hutchinson
            1989). Where not given, it is exact up to d = 1000, from d products, and from 100 vectors above that.
    """
    check_points(x, sigma)
    d = x[0].numel()
    if n_probes is None and d <= EXACT_TRACE:
        probes = torch.eye(d, dtype=x.dtype, device=x.device)
        weight = 1.0
    else:
        n_probes = 100 if n_probes is None else n_probes
        check_count("n_probes", n_probes, advice=", or None to choose")
        generator = stream(seed, "probes", x.device)
        probes = torch.randint(2, (n_probes, d), generator=generator, device=x.device).to(x.dtype) * 2 - 1
        weight = 1 / n_probes
    answers = []
    for point in x:
        off = guarded(denoiser)(point[None], sigma)[0] - point
        trace = sum((rows * v).sum() for v, rows in _jacobian_rows(denoiser, point, probes, sigma, batch_size))
        answers.append((weight * trace + (off / sigma).square().sum()).item())
    return Readout(np.array(answers), float(sigma), len(probes) + 1)


@torch.no_grad()
def denoising_loss(denoiser: Denoiser, x: Tensor, sigma: float, n_scores: int = 8, seed: int = 0,
                   batch_size: int | None = None) -> Readout:
    """The denoising loss at each point, k̂ = E‖ε̂(x + σ ε, σ) − ε‖² over K = n_scores draws (Yeats et al. 2025).

    For small σ the loss of a perfect denoiser is k. That of a trained one is larger, so this is an upper bound.
    """
    check_points(x, sigma)
    check_count("n_scores", n_scores)
    losses, together = [], max(1, rows_per_batch(None, x[0].numel(), x.device) // n_scores)
    for points in x.split(together):
        copies, _ = noisy_copies(points, sigma, n_scores, stream(seed, "denoising loss", x.device))
        denoised = guarded(denoiser, batch_size)(copies.flatten(0, 1), sigma).view_as(copies)
        losses.append(((denoised - points[:, None]) / sigma).flatten(2).square().sum(2).mean(1))
    return Readout(in_float64(torch.cat(losses)).cpu().numpy(), float(sigma), n_scores)


@torch.no_grad()
def lidl(log_density: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: Sequence[float]) -> Readout:
    """LIDL (Tempczyk et al., ICML 2022): k̂ = d + slope of log p_σ(x) in log σ, by least squares over ``sigmas``.

    Args:
        log_density: a function of points (P, d) and σ that returns the log-density of the noisy data, shape (P,), such
            as ``exact.UniformSphere(sphere).log_density``. For real data it needs one trained model for each σ.
        sigmas: at least two noise levels.

    Raises:
        ValueError: bad points or noise levels; log-densities of another shape than (P,), or that are not finite.
    """
    levels = check_levels(sigmas)
    check_points(x, levels[0])
    logs = in_float64(torch.stack([log_density(x, sigma) for sigma in levels])).cpu().numpy()
    if logs.shape != (len(levels), len(x)) or not np.isfinite(logs).all():
        raise ValueError(f"log_density must return one finite number for each of {len(x)} points; it returned shape "
                         f"{logs.shape[1:]}, {np.isfinite(logs).mean():.0%} finite")
    slope = np.polyfit(np.log(levels), logs, 1)[0]
    return Readout(x[0].numel() + slope, float(np.exp(np.log(levels).mean())), len(levels))


def lhsd(denoiser: Denoiser, x: Tensor, sigma: float, n_probes: int = 32, n_steps: int = 5, seed: int = 0,
         batch_size: int | None = None) -> Readout:
    """LHSD (Osada, ICML 2026): k̂ = tr f(H) with H = I − J = −σ² ∇² log p_σ at the clean x, f(h) = 1 / (1 + (h/c)⁴).

    A soft count: f is near 1 for the values of tangent directions and near 0 for those of normal directions, which are
    near 1. The cutoff is c = 0.1, so a perfect normal direction adds 10⁻⁴. The trace is d times the mean of vᵀ f(H) v
    over random unit vectors v with entries ±1/√d. Each term comes from m steps of Lanczos, which give a tridiagonal
    m × m matrix T with eigenvalues θ_j and eigenvectors u_j: vᵀ f(H) v ≈ Σ_j u_j[0]² f(θ_j).

    Args:
        denoiser, x, sigma, seed, batch_size: as for `spectrum`; the denoiser must be differentiable. H is taken as
            symmetric, which it is for an exact denoiser.
        n_probes: number of vectors v.
        n_steps: m, the number of products with H for each of them.
    """
    check_points(x, sigma)
    check_counts(n_probes=n_probes, n_steps=n_steps)
    d, m = x[0].numel(), min(n_steps, x[0].numel())
    probes = torch.randint(2, (n_probes, d), generator=stream(seed, "probes", x.device), device=x.device)
    start, answers = (2 * probes - 1).to(x.dtype) / d**0.5, []
    for point in x:
        v, basis = start, start.new_zeros(n_probes, 0, d)                  # (n, d); (n, vectors so far, d)
        matrix = torch.zeros(n_probes, m, m, dtype=torch.float64)
        for j in range(m):
            basis = torch.cat([basis, v[:, None]], dim=1)
            products = torch.cat([rows for _, rows in _jacobian_rows(denoiser, point, v, sigma, batch_size)])
            rest = v - products
            matrix[:, j, j] = in_float64((rest * v).sum(1)).cpu()
            for _ in range(2):                                             # orthogonal to all before: twice is enough
                rest = rest - torch.einsum("nj,njd->nd", torch.einsum("njd,nd->nj", basis, rest), basis)
            length = rest.norm(dim=1)
            if j + 1 < m:
                matrix[:, j, j + 1] = matrix[:, j + 1, j] = in_float64(length).cpu()
            v = rest / length.clamp(min=torch.finfo(x.dtype).tiny)[:, None]
        values, vectors = torch.linalg.eigh(matrix)
        count = vectors[:, 0].square() / (1 + (values / CUTOFF) ** 4)
        answers.append(d * count.sum(1).mean().item())
    return Readout(np.array(answers), float(sigma), n_probes * m)


def knee(sigmas: Sequence[float], dimensions: Sequence[float]) -> int:
    """Index of the knee of a falling curve k̂(σ), which is how FLIPD chooses its noise level (Kamkari et al. 2024).

    With log σ and k̂ scaled to [0, 1], it is the point farthest below the straight line between the two ends
    (Satopää et al. 2011). It is 0 if no point is below the line, or if the curve does not fall.

    Args:
        sigmas: at least three noise levels, ascending.
        dimensions: k̂ at each of them, such as the means over the points.

    Raises:
        ValueError: fewer than three levels, levels that do not ascend, or numbers that are not finite.
    """
    levels, k = np.asarray(sigmas, dtype=float), np.asarray(dimensions, dtype=float)
    if (levels.ndim != 1 or levels.shape != k.shape or len(k) < 3
            or not (np.isfinite([levels, k]).all() and (np.diff(levels, prepend=0) > 0).all())):
        raise ValueError("give at least three noise levels, positive and ascending, and one finite dimension for each")
    t = np.log(levels)
    line = k[0] + (k[-1] - k[0]) * (t - t[0]) / (t[-1] - t[0])
    return int(np.argmax((line - k) * (k[-1] < k[0])))


def jacobian_spectrum(denoiser: Denoiser, x: Tensor, sigma: float, batch_size: int | None = None) -> Spectrum:
    """Singular values of I − J(x) = −σ² ∇s(x) at the clean point (Ventura et al., 2025; Achilli et al., 2024).

    It is the limit of a `Spectrum` for infinitely many copies that are infinitely near. It takes d evaluations of the
    denoiser and as many derivatives. Its ``loss`` is ‖J‖², the limit of the denoising loss on the manifold.

    Raises:
        ValueError, TypeError: bad arguments, points with one entry, or a denoiser without finite derivatives.
        MemoryError: too little memory for the d × d matrices of one point.
    """
    scores_number(x, sigma, None)                                          # its checks
    d = x[0].numel()
    unit = torch.eye(d, dtype=x.dtype, device=x.device)
    values, losses = [], []
    for point in x:
        rows = [rows for _, rows in _jacobian_rows(denoiser, point, unit, sigma, batch_size)]
        jacobian = in_float64(torch.cat(rows)).cpu()
        values.append(torch.linalg.svdvals(torch.eye(d, dtype=torch.float64) - jacobian))
        losses.append(jacobian.square().sum())
    return Spectrum(torch.stack(values).numpy(), torch.stack(losses).numpy(), float(sigma), np.inf)


@torch.no_grad()
def tangent_sketch(denoiser: Denoiser, x: Tensor, sigma: float, seed: int = 0,
                   batch_size: int | None = None) -> TangentSketch:
    """The tangent space at each point from O(k) evaluations, by an adaptive randomised range finder.

    A product with J at y is one antithetic pair, J v ≈ (D(y + σ v) − D(y − σ v)) / 2σ. Blocks of 16 random v give an
    orthonormal basis Q of the range of J (Halko, Martinsson & Tropp 2011). The singular values of J Q are near 1 for
    tangent directions and near 0 for others; the dimension is at their largest gap. Blocks are added until the last
    four directions are not tangent. m directions take 4 m evaluations: 64 for k ≤ 12, where `spectrum` takes 4 d. The
    memory is O(m d).

    Arguments as for `spectrum`.
    """
    check_points(x, sigma)
    d, wide = x[0].numel(), torch.promote_types(x.dtype, torch.float32)     # no QR in half precision
    generator = stream(seed, "tangent sketch", x.device)
    drawn: list[Tensor] = []                                               # the same for every point
    call, found = guarded(denoiser, batch_size), []

    def blocks():
        """Random directions and noise, drawn when the first point needs them: most points need few of the d/16."""
        for i, start in enumerate(range(0, d, BLOCK)):
            if i == len(drawn):
                shape = 2, min(BLOCK, d - start), d
                drawn.append(torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype).to(wide))
            yield drawn[i]

    def products(point, center, v):
        """J v for each row of v, with y = ``center``, one for each."""
        pairs = torch.cat([center + sigma * v, center - sigma * v]).view(-1, *point.shape)
        denoised = call(pairs.to(x.dtype), sigma).flatten(1).to(wide)
        return (denoised[: len(v)] - denoised[len(v):]) / (2 * sigma)

    for point in x:
        flat = point.flatten().to(wide)
        basis, image = flat.new_zeros(0, d), flat.new_zeros(0, d)          # rows: Q, and J Q
        for probes, noise in blocks():
            fresh = products(point, flat.expand(len(probes), d), probes)
            for _ in range(2):                                             # twice is enough (Kahan)
                fresh = fresh - fresh @ basis.T @ basis
            fresh = torch.linalg.qr(in_float64(fresh).T).Q.T.to(fresh)
            basis = torch.cat([basis, fresh])
            image = torch.cat([image, products(point, flat + sigma * noise, fresh)])
            _, values, directions = torch.linalg.svd(in_float64(image).cpu(), full_matrices=False)
            steps = torch.cat([values.new_ones(1), values.clamp(max=1), values.new_zeros(1)])
            k = int((steps[:-1] - steps[1:]).argmax())
            if k <= len(basis) - RESERVE:
                break
        found.append((k, values.numpy(), directions[:k].numpy(), 4 * len(basis)))
    dimensions, values, tangent, evaluations = zip(*found, strict=True)
    return TangentSketch(np.array(dimensions), float(sigma), float(np.mean(evaluations)), tangent, values)


def _jacobian_rows(denoiser, point, vectors, sigma, batch_size):
    """For batches of ``vectors`` v, shape (B, d): v and vᵀ J(point)."""
    for v in vectors.split(rows_per_batch(batch_size, point.numel(), point.device)):
        with torch.inference_mode(False), torch.enable_grad(), full_precision(point.device):
            inputs = point.detach().clone().expand(len(v), *point.shape).clone().requires_grad_()
            denoised = check_denoised(denoiser(inputs.clone(), sigma), inputs, sigma)
            rows = None
            if denoised.requires_grad:
                (rows,) = torch.autograd.grad(denoised, inputs, v.view_as(inputs).clone(), allow_unused=True)
            if rows is None:
                raise TypeError("PyTorch cannot differentiate this denoiser: its result must follow from x by "
                                "differentiable operations, without torch.no_grad or detach")
        if not rows.isfinite().all():
            raise ValueError(f"the derivative of the denoiser at sigma={float(sigma):.3g} has NaN or infinite values")
        yield v, rows.flatten(1)
