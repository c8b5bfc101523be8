"""The sampler: noisy copies of points, for the dimension; reverse diffusion and walks, for pictures."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from .machine.checks import check_count, check_level, check_move, check_values
from .machine.compute import choose_device, guarded, in_float64
from .score import Denoiser, noise_prediction
from .seeds import stream

__all__ = ["METHODS", "noise_schedule", "noisy_copies", "reverse_diffusion", "walk"]

BLOCK = 64                    # copies of a point that are made at a time
Noise = Callable[[], Tensor]  # draws ε of the shape of x


def noisy_copies(x0: Tensor, sigma: float, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n noisy copies x_0 + σ ε_i of each point, ``(P, n, *shape)``, and their noise ε_i ~ N(0, I), ``(n, *shape)``.

    All points get the same noise (common random numbers). So differences between the points, and between noise levels
    with the same seed, come from the data. x0: ``(P, *shape)``; sigma: one number; n ≥ 1; generator: on x0's device."""
    check_level(sigma)
    check_count("n", n)
    noise = torch.randn((n, *x0.shape[1:]), generator=generator, device=x0.device, dtype=x0.dtype)
    return x0[:, None] + sigma * noise, noise


def copies_in_blocks(x0: Tensor, sigma: float, n: float, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """n copies of each point and their noise, as from `noisy_copies`, at most 64 at a time, for a spectrum.

    For infinite n they are 2 d, with the noise ±√d q_i for a random orthonormal frame q_1, …, q_d. As for infinitely
    many copies, its mean is exactly 0 and its covariance exactly the identity."""
    if n < math.inf:
        generator = stream(seed, "spectrum", x0.device)
        for start in range(0, int(n), BLOCK):                              # whole blocks, so that n changes no noise
            copies, drawn = noisy_copies(x0, sigma, BLOCK, generator)
            yield copies[:, : n - start], drawn[: n - start]
    else:
        d = x0[0].numel()
        square = torch.randn(d, d, generator=stream(seed, "frame", x0.device), device=x0.device, dtype=x0.dtype)
        for rows in (d**0.5 * torch.linalg.qr(in_float64(square)).Q).to(x0).split(BLOCK // 2):
            drawn = torch.cat([rows, -rows]).view(-1, *x0.shape[1:])
            yield x0[:, None] + sigma * drawn, drawn


def noise_schedule(sigma_min: float, sigma_max: float, steps: int) -> Tensor:
    """steps + 1 noise levels from sigma_max down to sigma_min, evenly spaced in log σ, shape (steps + 1,)."""
    check_count("steps", steps)
    low, high = torch.tensor(float(sigma_min)), torch.tensor(float(sigma_max))
    if not 0 < low < high < float("inf"):
        raise ValueError(f"need 0 < sigma_min < sigma_max, both finite, got {sigma_min} and {sigma_max} in float32")
    return torch.logspace(high.log10(), low.log10(), steps + 1)


# Each method is one step from noise level ``high`` to ``low``.
def euler(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Euler's method on the probability-flow ODE dx/dσ = ε̂(x, σ) (Song et al. 2021). One evaluation."""
    return x + (low - high) * noise_prediction(denoiser, x, high)


def heun(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Heun's method on the probability-flow ODE (Karras et al. 2022, Algorithm 1). Two evaluations."""
    slope = noise_prediction(denoiser, x, high)
    ahead = noise_prediction(denoiser, x + (low - high) * slope, low)
    return x + (low - high) * (slope + ahead) / 2


def euler_maruyama(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Euler–Maruyama on the reverse VE SDE (Song et al. 2021). One evaluation."""
    variance = high**2 - low**2                                            # x + (σ² − σ'²) s(x, σ) + √(σ² − σ'²) ε
    return x - variance / high * noise_prediction(denoiser, x, high) + variance**0.5 * noise()


def predictor_corrector(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Euler–Maruyama, then one Langevin step at the lower level (Song et al. 2021, Algorithm 2). Two evaluations."""
    x = euler_maruyama(denoiser, x, high, low, noise)
    size = (0.16 * low) ** 2                                               # x + τ s(x, σ') + √(2τ) ε, τ = (0.16 σ')²
    return x - size / low * noise_prediction(denoiser, x, low) + (2 * size) ** 0.5 * noise()


METHODS = {method.__name__: method for method in (euler, heun, euler_maruyama, predictor_corrector)}


@torch.no_grad()
def reverse_diffusion(denoiser: Denoiser, n: int, shape: Sequence[int], sigmas: Tensor, method: str = "heun",
                      seed: int = 0, start: float | Tensor = 0.0, device: str | torch.device = "cpu",
                      batch_size: int | None = None) -> Tensor:
    """Generate n samples, ``(n, *shape)``, float32: start from noise, lower its level in steps, denoise the result.

    On a GPU a large network is faster under ``torch.autocast("cuda", torch.bfloat16)``, which is enough for pictures.
    ``ValueError`` or ``TypeError``: bad arguments, or a denoiser that breaks its contract.

    Args:
        denoiser: a denoiser (``dimlib.score``), on the device.
        n, shape: number of samples, and the shape of one.
        sigmas: decreasing noise levels, as from `noise_schedule`.
        method: one of the ``METHODS`` of a step.
        seed: seed of all noise.
        start: mean of the initial N(start, σ_max² I); give the mean of the data where it is far from 0.
        device: "auto", or the name of a torch device.
        batch_size: samples per call of the denoiser; chosen from the memory where not given.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    if len(levels) < 2 or levels[-1] <= 0 or any(low >= high for high, low in pairwise(levels)):
        raise ValueError("sigmas must be at least two noise levels that decrease and stay positive; see noise_schedule")
    check_count("n", n)
    check_count("number of entries of a sample", math.prod(shape))
    generator = stream(seed, "reverse diffusion", device := choose_device(device))
    noise = partial(torch.randn, (n, *shape), generator=generator, device=device, dtype=torch.float32)
    denoiser = guarded(denoiser, batch_size, precise=False)
    x = torch.as_tensor(start, dtype=torch.float32, device=device).expand(n, *shape) + levels[0] * noise()
    for high, low in pairwise(levels):
        x = METHODS[method](denoiser, x, high, low, noise)
    return denoiser(x, levels[-1]).float()


@torch.no_grad()
def walk(denoiser: Denoiser, x: Tensor, direction: Tensor, sigma: float, step: float, n_steps: int) -> Tensor:
    """Walk along the manifold: take a step, denoise the result, and go on in the direction of the last move.

        x ← D(x + h v, σ),   v ← (x − x_before) / ‖x − x_before‖

    Along a tangent direction the walk follows the manifold. Along a normal one the denoiser undoes each step: v stays
    as it is where a move is shorter than h/2. x is one point, direction a vector of its shape and of any length but 0,
    step the length h (a few σ is best). Returns the path with its start, shape ``(n_steps + 1, *shape)``."""
    check_level(sigma)
    check_values(x[None])
    check_count("n_steps", n_steps, least=0)
    check_move(direction, step, x)
    path, denoiser = [x], guarded(denoiser)
    for _ in range(n_steps):
        path.append(denoiser((path[-1] + step * direction / direction.norm())[None], sigma)[0])
        move = path[-1] - path[-2]
        direction = move if move.norm() > step / 2 else direction
    return torch.stack(path)
