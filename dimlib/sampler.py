"""The sampler: clouds of noisy copies for the estimate, reverse diffusion for pictures.

Everything stays on the device of the points or of the model; large batches go through in chunks.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from .score import Denoiser, noise_prediction
from .seeds import stream

__all__ = ["METHODS", "noise_schedule", "noisy_copies", "reverse_diffusion", "rows_per_batch", "walk"]

Noise = Callable[[], Tensor]

ACTIVATIONS_PER_ENTRY = 200  # a generous guess of a network's working memory per entry of its input


def rows_per_batch(batch_size: int | None, entries: int, device: torch.device) -> int:
    """The given batch size, or one that fits a quarter of a GPU's free memory, or 100 MB elsewhere, near the caches."""
    if batch_size is not None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1, or None to choose it from the memory")
        return batch_size
    share = memory(device) / 4 if device.type == "cuda" else 1e8
    return max(1, int(share / (4 * ACTIVATIONS_PER_ENTRY * entries)))


def memory(device: torch.device) -> float:
    """Bytes that are free on a GPU, or that the machine has; infinite where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf


def noisy_copies(x0: Tensor, sigma: float, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n noisy copies x_0 + σ ε_i of every point, and their noise.

    The noise is the same for every point (common random numbers): differences between points, and between
    noise levels drawn with the same seed, are then differences of the data, not of the draw.

    Args:
        x0: points, shape ``(P, *shape)``.
        generator: a generator on the device of x0.

    Returns:
        copies, shape ``(P, n, *shape)``, and the noise ε, shape ``(n, *shape)``.
    """
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}: the noise level must be positive")
    noise = torch.randn((n, *x0.shape[1:]), generator=generator, device=x0.device, dtype=x0.dtype)
    return x0[:, None] + sigma * noise, noise


def noise_schedule(sigma_min: float, sigma_max: float, steps: int) -> Tensor:
    """steps + 1 noise levels from sigma_max down to sigma_min, evenly spaced in log σ, shape (steps + 1,)."""
    if not 0 < sigma_min < sigma_max or steps < 1:
        raise ValueError(f"need 0 < sigma_min < sigma_max and steps >= 1, got {sigma_min}, {sigma_max} and {steps}")
    return torch.logspace(torch.tensor(sigma_max).log10(), torch.tensor(sigma_min).log10(), steps + 1)


# One step from noise level ``high`` to ``low``. All have one signature; noise() draws ε of the shape of x.

def euler(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Euler's method on the probability-flow ODE dx/dσ = ε̂(x, σ) (Song et al. 2021). One evaluation."""
    return x + (low - high) * noise_prediction(denoiser, x, high)


def heun(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Heun's method on the probability-flow ODE (Karras et al. 2022, Algorithm 1). Two evaluations."""
    slope = noise_prediction(denoiser, x, high)
    ahead = noise_prediction(denoiser, x + (low - high) * slope, low)
    return x + (low - high) * (slope + ahead) / 2


def euler_maruyama(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Euler–Maruyama on the reverse VE SDE (Song et al. 2021). One evaluation.

    x ← x + (σ² − σ'²) s(x, σ) + √(σ² − σ'²) ε, from σ to σ'.
    """
    variance = high**2 - low**2
    return x - variance / high * noise_prediction(denoiser, x, high) + variance**0.5 * noise()


def predictor_corrector(denoiser: Denoiser, x: Tensor, high: float, low: float, noise: Noise) -> Tensor:
    """Euler–Maruyama, then one Langevin step at the lower level (Song et al. 2021, Algorithm 2). Two evaluations.

    The corrector's step size is τ = (0.16 σ')²: x ← x + τ s(x, σ') + √(2τ) ε.
    """
    x = euler_maruyama(denoiser, x, high, low, noise)
    size = (0.16 * low) ** 2
    return x - size / low * noise_prediction(denoiser, x, low) + (2 * size) ** 0.5 * noise()


METHODS: dict[str, Callable[[Denoiser, Tensor, float, float, Noise], Tensor]] = {
    "euler": euler, "heun": heun, "euler_maruyama": euler_maruyama, "predictor_corrector": predictor_corrector}


@torch.no_grad()
def reverse_diffusion(denoiser: Denoiser, n: int, shape: Sequence[int], sigmas: Tensor, method: str = "heun",
                      seed: int = 0, start: float | Tensor = 0.0, device: str | torch.device = "cpu",
                      batch_size: int | None = None) -> Tensor:
    """Generate n samples by following the noise levels ``sigmas`` downwards, ending with the denoiser's mean.

    For pictures two or three digits are enough: a large network on a GPU is faster under
    ``torch.autocast("cuda", torch.bfloat16)``.

    Args:
        denoiser: a denoiser (``dimlib.score``).
        n, shape: number of samples and the shape of one.
        sigmas: decreasing noise levels, as from `noise_schedule`.
        method: "heun", "euler", "euler_maruyama" or "predictor_corrector".
        seed: seed of all noise.
        start: mean of the initial N(start, σ_max² I): the mean of the data, where it is not near 0.
        device: where to sample; the denoiser must live there.
        batch_size: samples at a time; chosen from the memory where not given.

    Returns:
        Samples, shape ``(n, *shape)``, float32, on ``device``.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    sigmas = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
    if len(sigmas) < 2 or sigmas[-1] <= 0 or any(low >= high for high, low in pairwise(sigmas)):
        raise ValueError("sigmas must be at least two noise levels that decrease and stay positive; see noise_schedule")
    if n < 1:
        raise ValueError(f"n={n}: draw at least one sample")
    device = torch.device(device)
    generator = stream(seed, "reverse diffusion", device)
    batch_size = rows_per_batch(batch_size, torch.Size(shape).numel(), device)
    chunks = []
    for rows in _split(n, batch_size):
        noise = partial(torch.randn, (rows, *shape), generator=generator, device=device)
        x = start + sigmas[0] * noise()
        for high, low in pairwise(sigmas):
            x = METHODS[method](denoiser, x, high, low, noise)
        chunks.append(denoiser(x, sigmas[-1]).float())
    return torch.cat(chunks)


@torch.no_grad()
def walk(denoiser: Denoiser, x: Tensor, direction: Tensor, sigma: float, step: float, n_steps: int) -> Tensor:
    """Walk over M from x: a step of the given length, back onto M by the denoiser, on in the direction just taken.

        x ← D(x + h v, σ),   v ← (x − x_before) / ‖x − x_before‖

    With a tangent direction this follows M, however it bends; with a normal one the denoiser undoes every step.

    Args:
        x, direction: one point and a direction of any length but 0, both of shape ``shape``.
        sigma: noise level of the denoiser. step: length h, best a few σ.

    Returns:
        The path with its start, shape ``(n_steps + 1, *shape)``.
    """
    if x.shape != direction.shape or not direction.norm() > 0:
        raise ValueError(f"direction must be a vector other than 0 of the shape of x, {tuple(x.shape)}, "
                         f"got {tuple(direction.shape)}")
    path = [x]
    for _ in range(n_steps):
        path.append(denoiser((path[-1] + step * direction / direction.norm())[None], sigma)[0])
        direction = path[-1] - path[-2]
    return torch.stack(path)


def _split(n: int, size: int) -> Iterator[int]:
    """n as a sum of parts of the given size and what is left."""
    yield from (min(size, n - done) for done in range(0, n, size))
