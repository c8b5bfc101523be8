"""Exact denoisers: the values that a perfectly trained network would return.

Each is a callable D(x, sigma) = E[x_0 | x_0 + σ ε = x] (see ``dimlib.score``). Its method ``log_density(x, sigma)``
returns log p_σ(x) of the noisy data, so autograd can check Tweedie's formula D = x + σ² ∇ log p_σ(x). The points x have
the shape (B, d), sigma is a number or has the shape (B,), and log-densities have the shape (B,).
"""

import math
from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor

from ..machine.checks import (
    as_numbers,
    check_count,
    check_positive,
    check_rows,
    check_sigma,
    check_values,
    check_weights,
)
from ..machine.compute import beside
from .manifolds import Plane, SpaghettiLine, Sphere, Union

__all__ = ["GaussianPlane", "UniformSphere", "Mixture", "Empirical", "denoiser"]

MOST_NUMBERS = 2e8  # coordinates of the nodes of a curve, 1.6 GB
BESSEL_TERMS = 128  # backward recurrence from order ν + 128: relative error below 2e-7 for every argument


def _variance(sigma: float | Tensor, x: Tensor) -> Tensor:
    """σ² with the shape (B, 1); ``ValueError`` where σ is not positive, or ‖x‖²/σ² is too large for the dtype of x."""
    check_sigma(sigma)
    level = beside(sigma, x)
    if not (x / level).square().sum(1).isfinite().all():
        raise ValueError(f"x is too large for the dtype {x.dtype} at this sigma: convert it to float64")
    return level**2


def _finite(answer: Tensor, x: Tensor) -> Tensor:
    """The answer for x, or ``ValueError`` where it is too large for the dtype of x."""
    if not answer.isfinite().all():
        raise ValueError(f"the answer at this sigma is not finite in the dtype {x.dtype}: convert x to float64")
    return answer


class GaussianPlane:
    """For x_0 ~ N(b, Q diag(s²) Qᵀ) on an affine plane: D(x) = b + Q diag(s² / (s² + σ²)) Qᵀ (x − b)."""

    def __init__(self, plane: Plane):
        self.plane = plane

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        check_rows(x, self.plane.ambient_dim)
        frame, center, variance = (t.to(x) for t in (self.plane.frame, self.plane.center, self.plane.std**2))
        gain = variance / (variance + _variance(sigma, x))                 # (B, k)
        return _finite(center + (gain * ((x - center) @ frame)) @ frame.T, x)

    def log_density(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        check_rows(x, self.plane.ambient_dim)
        frame, center, variance = (t.to(x) for t in (self.plane.frame, self.plane.center, self.plane.std**2))
        noise = _variance(sigma, x)
        along = (x - center) @ frame
        off = (x - center).square().sum(1) - along.square().sum(1)
        total = variance + noise
        normal_dim = x.shape[1] - along.shape[1]
        return _finite(-0.5 * ((along.square() / total + torch.log(2 * math.pi * total)).sum(1)
                               + off / noise[:, 0] + normal_dim * torch.log(2 * math.pi * noise[:, 0])), x)


class UniformSphere:
    """For x_0 uniform on the k-sphere of radius R. With y = Qᵀ(x − b) in R^{k+1} and ν = (k − 1)/2,

        D(x) = b + R A(R‖y‖/σ²) Q y/‖y‖,   A(κ) = I_{ν+1}(κ) / I_ν(κ),

    which is the mean of a von Mises–Fisher distribution (Mardia & Jupp 2000, §9.3.2).
    """

    def __init__(self, sphere: Sphere):
        self.sphere = sphere

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        check_rows(x, self.sphere.ambient_dim)
        frame, center = self.sphere.frame.to(x), self.sphere.center.to(x)
        y = (x - center) @ frame
        per_variance = self.sphere.radius / _variance(sigma, x)            # R/σ²
        slope, _ = _bessel((self.sphere.dim - 1) / 2, per_variance * y.norm(dim=1, keepdim=True))
        return _finite(center + (self.sphere.radius * per_variance * slope * y) @ frame.T, x)

    def log_density(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        check_rows(x, self.sphere.ambient_dim)
        frame, center, radius = self.sphere.frame.to(x), self.sphere.center.to(x), self.sphere.radius
        noise = _variance(sigma, x)
        y = (x - center) @ frame
        order = (self.sphere.dim - 1) / 2
        _, log_scaled = _bessel(order, radius * y.norm(dim=1, keepdim=True) / noise)
        distance = (x - center).square().sum(1, keepdim=True) + radius**2
        log_mean = math.lgamma(order + 1) + order * math.log(2) + log_scaled   # log E exp(κ cos θ)
        return _finite((log_mean - distance / (2 * noise) - x.shape[1] / 2 * torch.log(2 * math.pi * noise))[:, 0], x)


def _bessel(order: float, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """q = I_{ν+1}(κ) / (κ I_ν(κ)) and log(κ^{-ν} I_ν(κ)), stable for every κ ≥ 0, in float32 too.

    The ratios satisfy q_ν = 1 / (2(ν + 1) + κ² q_{ν+1}) (DLMF 10.29.1). The recurrence starts at a high order, where
    Amos' bound (1974) is accurate, and goes down to ν. All its terms are positive, so it loses no accuracy. The second
    result is its value at the high order, from the Debye expansion (DLMF 10.41.3), minus the sum of all log q.
    """
    top = order + BESSEL_TERMS
    q = 1 / (top + 0.5 + torch.hypot(torch.full_like(kappa, top + 1.5), kappa))
    log_ratios = torch.zeros_like(kappa)
    for nu in (order + j for j in reversed(range(BESSEL_TERMS))):
        q = 1 / (2 * (nu + 1) + kappa * (kappa * q))
        log_ratios = log_ratios + torch.log(q)
    root = torch.hypot(torch.ones_like(kappa), kappa / top)
    p = 1 / root
    debye = 1 + (3 * p - 5 * p**3) / (24 * top) + (81 * p**2 - 462 * p**4 + 385 * p**6) / (1152 * top**2)
    log_top = (top * (root - torch.log(top * (1 + root))) - 0.5 * torch.log(2 * math.pi * top * root)
               + torch.log(debye))
    return q, log_top - log_ratios


class Mixture:
    """For a union of parts c with weights π_c: D = Σ_c w_c(x) D_c(x) with w = softmax(log π_c + log p_c(x)).

    Args:
        parts: the exact denoisers D_c of the parts, with their log-densities log p_c.
        weights: π_c, shape (number of parts,), positive, with sum 1.

    Raises:
        ValueError: no parts, or weights that are not positive, or do not have the sum 1. TypeError: weights that are no
            numbers.
    """

    def __init__(self, parts: Sequence, weights: Tensor):
        shares = check_weights(weights, len(parts))
        self.parts, self.weights = tuple(parts), as_numbers("weights", weights)
        if not torch.allclose(shares, self.weights, rtol=1e-4):
            raise ValueError(f"weights={weights!r:.80} must have the sum 1: divide them by their sum")

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        posterior = self._log_joint(x, sigma).softmax(dim=0)               # (parts, B)
        return torch.einsum("cb,cbd->bd", posterior, torch.stack([part(x, sigma) for part in self.parts]))

    def log_density(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._log_joint(x, sigma).logsumexp(dim=0)

    def _log_joint(self, x, sigma):
        log_densities = torch.stack([part.log_density(x, sigma) for part in self.parts])
        return log_densities + torch.log(self.weights.to(x))[:, None]


class Empirical:
    """The denoiser of a finite set of points x_i with weights π_i:

        D(x) = Σ_i w_i(x) x_i,   w = softmax(log π_i − ‖x − x_i‖²/2σ²).

    A network that has memorised its training set computes this function. If the points are the nodes of a quadrature
    rule, it is the exact denoiser of a curve. The points are processed in blocks with a running log-sum-exp, so the
    memory is O(B · block) for any number of points.

    Args:
        points: shape (N, d), finite.
        weights: shape (N,), positive, divided by their sum; equal where not given.
        block: points per block.
        sigma_min: the smallest noise level at which the points are dense enough; ``ValueError`` for a smaller sigma.

    Raises:
        ValueError: bad points or weights, a block without points, a negative sigma_min. TypeError: weights that are no
            numbers, a block that is no whole number.
    """

    def __init__(self, points: Tensor, weights: Tensor | None = None, block: int = 4096, sigma_min: float = 0.0):
        check_rows(points, check_values(points).shape[1])
        check_count("block", block)
        if not 0 <= sigma_min < math.inf:
            raise ValueError(f"sigma_min={sigma_min} must be a noise level, or 0 where it does not matter")
        self.points, self.block, self.sigma_min = points, block, sigma_min
        given = torch.ones(len(points)) if weights is None else weights
        self.log_weights = torch.log(check_weights(given, len(points)))

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return _finite(self._stream(x, sigma)[0], x)

    def log_density(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        log_sum = self._stream(x, sigma)[1][:, 0]
        return _finite(log_sum - x.shape[1] / 2 * torch.log(2 * math.pi * _variance(sigma, x)[:, 0]), x)

    def _stream(self, x, sigma):
        check_rows(x, self.points.shape[1])
        check_sigma(sigma)
        if torch.as_tensor(sigma).min() < 0.9999 * self.sigma_min:
            raise ValueError(f"sigma={sigma} is below sigma_min={self.sigma_min}, for which these points are too few")
        # At small σ, float32 matrix products are not accurate enough for squared distances: float64, or no products.
        if x.device.type == "mps":
            wide, mode = x, "donot_use_mm_for_euclid_dist"
        else:
            wide, mode = x.double(), "use_mm_for_euclid_dist"
        noise = _variance(sigma, wide)
        center = self.points.mean(0).to(wide)                              # a common offset would cost digits
        wide = wide - center
        log_sum = wide.new_full((len(x), 1), -math.inf)
        mean = torch.zeros_like(wide)
        for points, log_weights in zip(self.points.split(self.block), self.log_weights.split(self.block), strict=True):
            points = points.to(wide) - center
            distance = torch.cdist(wide, points, compute_mode=mode)
            logits = log_weights.to(wide) - distance.square() / (2 * noise)   # (B, block)
            total = torch.logaddexp(log_sum, logits.logsumexp(dim=1, keepdim=True))
            mean = mean * torch.exp(log_sum - total) + torch.exp(logits - total) @ points
            log_sum = total
        return (mean + center).to(x), log_sum.to(x)


@singledispatch
def denoiser(manifold) -> GaussianPlane | UniformSphere | Mixture | Empirical:
    """The exact denoiser of the data of a manifold: a `Plane`, `Sphere`, `SpaghettiLine`, or a union of them.

    That of a `SpaghettiLine` is for σ ≥ 0.01; ``denoiser(line, sigma_min)`` allows smaller ones.

    Raises ``TypeError`` for any other manifold: use ``Empirical(manifold.sample(n))`` there. Raises ``ValueError`` for
    a sigma_min that is not positive, or so small for the length of the line that its points need more than 1.6 GB.
    """
    raise TypeError(f"{type(manifold).__name__} has no closed-form denoiser; "
                    "use Empirical(manifold.sample(n)) with n large")


denoiser.register(Plane)(GaussianPlane)
denoiser.register(Sphere)(UniformSphere)


@denoiser.register
def _(union: Union) -> Mixture:
    return Mixture([denoiser(part) for part in union.parts], union.weights)


@denoiser.register
def _(line: SpaghettiLine, sigma_min: float = 0.01) -> Empirical:
    # Equally spaced nodes at a distance of σ/2 integrate a Gaussian of width σ up to rounding errors. Near the ends of
    # the curve, Gregory's weights keep the error of D below about σ/100.
    check_positive(sigma_min=sigma_min)
    longest = line.frequencies.norm().item()                               # the largest speed, at t = 0
    steps = max(6, math.ceil(2 * longest / sigma_min))                     # at least three weights for each end
    if steps * line.ambient_dim > MOST_NUMBERS:
        least = 1.1 * 2 * longest * line.ambient_dim / MOST_NUMBERS
        raise ValueError(f"sigma_min={sigma_min:g} needs {steps + 1:.3g} nodes in R^{line.ambient_dim}, which is too "
                         f"much memory: use sigma_min={least:.2g} or more, or a curve in fewer dimensions")
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None]
    weights = torch.ones(len(t))
    weights[:3] = torch.tensor([3 / 8, 7 / 6, 23 / 24])
    weights[-3:] = weights[:3].flip(0)
    return Empirical(line._place(line._embed(t)), weights, sigma_min=sigma_min)
