"""The relatives of the SVD estimator: other ways to read a dimension off the same denoiser.

With J the Jacobian of D(·, σ), near M the projection on the tangent space, all of them count its k ones:

    flipd              its trace, corrected for the distance from M
    denoising_loss     what a denoiser cannot know: the noise along M
    lidl               the slope of the log-density in log σ
    jacobian_spectrum  all singular values of I − J, at the clean point
    tangent_sketch     the range of J, found from a few more than k products with it

All but `lidl` take a denoiser, points and σ, as `spectrum` does. They hold for variance preserving (VP) models, too,
once these are written as denoisers: x_t = α x_0 + β ε is x_0 + σ ε with σ = β/α, times α.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .sampler import noisy_copies, rows_per_batch
from .score import Denoiser
from .seeds import stream
from .svd import Spectrum, check_points, checked, full_precision

__all__ = ["Readout", "TangentSketch", "denoising_loss", "flipd", "jacobian_spectrum", "lidl", "tangent_sketch"]

EXACT_TRACE = 1000  # ambient dimension up to which the trace is exact
BLOCK = 16          # products with J that the sketch adds at a time
RESERVE = 4         # of these, directions beyond the tangents that must be seen before it stops


@dataclass(frozen=True, repr=False)
class Readout:
    """A dimension at each point, shape (P,), a real number; and the evaluations of the denoiser per point."""

    dimension: NDArray
    sigma: float
    n_evaluations: float

    def __repr__(self) -> str:
        return (f"{type(self).__name__} of {len(self.dimension)} points, σ = {self.sigma:.3g}: median dimension "
                f"{np.median(self.dimension):.4g}, {self.n_evaluations:.0f} evaluations per point")


@dataclass(frozen=True, repr=False)
class TangentSketch(Readout):
    """A `Readout` whose dimensions are whole numbers, with the tangent spaces.

    Attributes:
        tangent: for each point its orthonormal tangent directions, shape (k, d).
        values: for each point all singular values of J that were found, descending.
    """

    tangent: tuple[NDArray, ...]
    values: tuple[NDArray, ...]


def flipd(denoiser: Denoiser, x: Tensor, sigma: float, n_probes: int | None = None, seed: int = 0,
          batch_size: int | None = None) -> Readout:
    """FLIPD (Kamkari et al., NeurIPS 2024): k̂ = d + σ² (tr ∇s + ‖s‖²) = tr J(x) + ‖D(x) − x‖²/σ², at the clean x.

    Args:
        denoiser, x, sigma, seed, batch_size: as for `spectrum`; the denoiser must be differentiable.
        n_probes: vectors v with entries ±1 over which vᵀ J v is averaged (Hutchinson 1989). Where not given,
            the trace is exact up to d = 1000, by one product for each entry, and from 100 probes above.
    """
    check_points(x)
    d = x[0].numel()
    if n_probes is None and d <= EXACT_TRACE:
        probes = torch.eye(d, dtype=x.dtype, device=x.device)
        weight = 1.0
    else:
        n_probes = 100 if n_probes is None else n_probes
        if n_probes < 1:
            raise ValueError(f"n_probes={n_probes}: use at least one, or None to choose")
        generator = stream(seed, "probes", x.device)
        probes = torch.randint(2, (n_probes, d), generator=generator, device=x.device).to(x.dtype) * 2 - 1
        weight = 1 / n_probes
    answers = []
    for point in x:
        with torch.no_grad():
            off = checked(denoiser)(point[None], sigma)[0] - point
        trace = sum((rows * v).sum() for v, rows in _jacobian_rows(denoiser, point, probes, sigma, batch_size))
        answers.append((weight * trace + off.square().sum() / sigma**2).item())
    return Readout(np.array(answers), float(sigma), len(probes) + 1)


def denoising_loss(denoiser: Denoiser, x: Tensor, sigma: float, n_scores: int = 8, seed: int = 0,
                   batch_size: int | None = None) -> Readout:
    """The denoising loss at each point, k̂ = E‖ε̂(x + σ ε, σ) − ε‖² over K = n_scores draws (Yeats et al. 2025).

    For small σ a perfect denoiser loses k; a learned one loses more, so that this is an upper bound.
    """
    check_points(x)
    if n_scores < 1:
        raise ValueError(f"n_scores={n_scores}: use at least one")
    copies, _ = noisy_copies(x, sigma, n_scores, stream(seed, "denoising loss", x.device))
    batches = copies.flatten(0, 1).split(rows_per_batch(batch_size, x[0].numel(), x.device))
    with torch.no_grad():
        denoised = torch.cat([checked(denoiser)(batch, sigma) for batch in batches]).view_as(copies)
    loss = (denoised - x[:, None]).flatten(2).square().sum(2).mean(1) / sigma**2
    return Readout(loss.cpu().double().numpy(), float(sigma), n_scores)


def lidl(log_density: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: Sequence[float]) -> Readout:
    """LIDL (Tempczyk et al., ICML 2022): k̂ = d + slope of log p_σ(x) in log σ, by least squares over ``sigmas``.

    Args:
        log_density: a function of points (P, d) and σ that gives the log-density of the noisy data, shape (P,), such
            as ``exact.UniformSphere(sphere).log_density``. One model for each σ is what makes it expensive.
        sigmas: at least two noise levels.
    """
    check_points(x)
    levels = sorted({float(sigma) for sigma in sigmas})
    if len(levels) < 2 or levels[0] <= 0:
        raise ValueError(f"a slope needs at least two noise levels, all positive, got {levels}")
    with torch.no_grad():
        logs = torch.stack([log_density(x, sigma) for sigma in levels]).cpu().double().numpy()
    slope = np.polyfit(np.log(levels), logs, 1)[0]
    return Readout(x[0].numel() + slope, float(np.exp(np.log(levels).mean())), len(levels))


def jacobian_spectrum(denoiser: Denoiser, x: Tensor, sigma: float, batch_size: int | None = None) -> Spectrum:
    """Singular values of I − J(x) = −σ² ∇s(x), at the clean point: the `Spectrum` of infinitely many, infinitely near
    scores (Ventura et al., 2025; Achilli et al., 2024). d evaluations and as many derivatives."""
    check_points(x)
    d = x[0].numel()
    unit = torch.eye(d, dtype=x.dtype, device=x.device)
    values, losses = [], []
    for point in x:
        rows = [rows for _, rows in _jacobian_rows(denoiser, point, unit, sigma, batch_size)]
        jacobian = torch.cat(rows).cpu().double()
        values.append(torch.linalg.svdvals(torch.eye(d, dtype=torch.float64) - jacobian))
        losses.append(jacobian.square().sum())
    values, losses = (torch.stack(parts).numpy() for parts in (values, losses))
    return Spectrum(values, losses, float(sigma), np.inf, True)


@torch.no_grad()
def tangent_sketch(denoiser: Denoiser, x: Tensor, sigma: float, seed: int = 0,
                   batch_size: int | None = None) -> TangentSketch:
    """The tangent space at each point from O(k) evaluations, by an adaptive randomised range finder.

    A product with J is one antithetic pair, J v ≈ (D(y + σ v) − D(y − σ v)) / 2σ. Blocks of random v give
    directions Q of its range (Halko, Martinsson & Tropp 2011), and the singular values s of J Q, in [0, 1], tell
    which of them are tangents. Their number is where s drops most, from 1 above to 0 below; blocks are added until
    the last four directions are none. With m directions 4 m evaluations: 64 for k ≤ 12, where `spectrum` takes 4 d.

    Arguments as for `spectrum`.
    """
    check_points(x)
    d = x[0].numel()
    generator = stream(seed, "tangent sketch", x.device)
    blocks = [torch.randn(2, min(BLOCK, d - start), d, generator=generator, device=x.device, dtype=x.dtype)
              for start in range(0, d, BLOCK)]                             # the same for every point
    call, found = checked(denoiser), []

    def products(point, center, v):
        """J v for each row of v, with y = ``center``, one for each."""
        pairs = torch.cat([center + sigma * v, center - sigma * v]).view(-1, *point.shape)
        denoised = torch.cat([call(b, sigma) for b in pairs.split(rows_per_batch(batch_size, d, x.device))]).flatten(1)
        return (denoised[: len(v)] - denoised[len(v):]) / (2 * sigma)

    for point in x:
        flat = point.flatten()
        basis, image = flat.new_zeros(0, d), flat.new_zeros(0, d)          # rows: Q, and J Q
        for probes, noise in blocks:
            fresh = products(point, flat.expand(len(probes), d), probes)
            for _ in range(2):                                             # twice is enough (Kahan)
                fresh = fresh - fresh @ basis.T @ basis
            fresh = torch.linalg.qr(fresh.T).Q.T
            basis = torch.cat([basis, fresh])
            image = torch.cat([image, products(point, flat + sigma * noise, fresh)])
            _, values, directions = torch.linalg.svd(image.cpu().double(), full_matrices=False)
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
        inputs = point.expand(len(v), *point.shape).detach().clone().requires_grad_()
        with full_precision(), torch.enable_grad():
            (rows,) = torch.autograd.grad(denoiser(inputs, sigma), inputs, v.view_as(inputs))
        yield v, rows.flatten(1)
