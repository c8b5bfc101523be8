"""Training by denoising score matching.

The loss is the squared error of the predicted noise, in ε units, summed over coordinates (Vincent 2011):

    E ‖ε̂(x_0 + σ ε, σ) − ε‖² = E ‖D(x_0 + σ ε, σ) − x_0‖² / σ²,

where σ is log-uniform in the model's range. The smallest possible loss is not zero, because noise along the manifold
cannot be predicted: at small σ a perfect denoiser has the loss k, the intrinsic dimension.

At small σ the gradient is mostly noise, because D must keep the data in place with a precision of σ. This noise hides
what is to be learned at larger σ. So each term has the weight σ²/(σ² + c²). Here c falls linearly to 0 from 0.1
(images: 0.03) of the largest standard deviation of the data, so that the last steps have the loss above.
"""

import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from .machine.checkpoints import read_checkpoint, write_checkpoint
from .machine.checks import check_training
from .machine.compute import beside, choose_device, largest_std
from .machine.descent import Descent
from .machine.tensors import locked
from .score import Denoiser, ScoreModel
from .seeds import stream

__all__ = ["Progress", "train", "train_steps"]

TEMPERED, TEMPERED_IMAGES = 0.1, 0.03  # c at the first step, in units of the largest standard deviation of the data
WARMUP = 100  # steps


@dataclass(frozen=True)
class Progress:
    """One training step: its number, from 0; the loss of its batch, and its excess over the exact denoiser's (nan
    without one), in ε units; its learning rate; seconds of training so far, without the time between steps."""

    step: int
    loss: float
    excess: float
    lr: float
    seconds: float


def train(model: ScoreModel, x: Tensor, steps: int, **options) -> ScoreModel:
    """Train the model on data x and return it. Arguments and errors as for `train_steps`."""
    for _ in train_steps(model, x, steps, **options):
        pass
    return model


def train_steps(model: ScoreModel, x: Tensor, steps: int, batch_size: int = 500, lr: float = 5e-3, seed: int = 0,
                device: str = "auto", exact: Denoiser | None = None, checkpoint: str | Path | None = None,
                checkpoint_every: int = 500, cuda_graph: bool = True) -> Iterator[Progress]:
    """Train the model on data x, one step for each `Progress` that is taken from the returned iterator.

    Nothing is trained until the iterator is used; a loop that stops early stops the training. The model can be used at
    any time: it has the average of the optimised weights, which are kept in a copy (``dimlib.machine.descent``).
    The learning rate rises linearly for 100 steps, or a quarter of all, and falls to zero along a cosine.

    Batches and noise depend on (seed, step) only. So a run that continues from a checkpoint equals one that was never
    interrupted; it yields the steps of the checkpoint first, all at once.

    Args:
        model: the model to train, moved to ``device``.
        x: data, shape ``(N, *shape)``, finite, N ≥ 2.
        steps: number of steps.
        batch_size: noisy points per step, made of half as many points of x, each with ε and with −ε.
        lr: largest learning rate. A wide network needs a smaller one: a U-Net of 64 channels needs 2e-3.
        seed: seed of batches and noise.
        device: "auto", or the name of a torch device.
        exact: the exact denoiser of the data, to report the excess loss E‖ε̂ − ε̂*‖².
        cuda_graph: on a CUDA GPU, run a step as one CUDA graph, which is much faster for small networks.
        checkpoint: a file, saved every ``checkpoint_every`` steps. If it exists, training continues from it.

    Raises:
        ValueError, TypeError: bad arguments or data, or a checkpoint of another run. RuntimeError: a checkpoint in use.
        FloatingPointError: a loss that is not finite.
    """
    check_training(x, model.sigma_min, steps, batch_size, lr, checkpoint_every)
    model.to(place := choose_device(device)).eval()
    x = x.to(place, torch.promote_types(x.dtype, torch.float32) if place.type != "mps" else torch.float32)
    c = (TEMPERED_IMAGES if x.ndim == 4 else TEMPERED) * largest_std(x)
    descent = Descent(model, _losses, float(lr), cuda_graph)
    with locked(checkpoint):
        state, optimizers = {"average": model, "student": descent.student}, descent.optimizers
        history, run = [], {}
        if checkpoint:
            run = {"model": model.config, "network": str(getattr(model.net, "config", model.net)), "steps": steps,
                   "data": zlib.crc32(x.cpu().numpy().tobytes()), "batch_size": batch_size, "lr": lr, "seed": seed}
            saved = read_checkpoint(checkpoint, run, state, optimizers, len(fields(Progress)))
            history = [Progress(int(step), *rest) for step, *rest in saved]
        yield from history
        seconds = history[-1].seconds if history else 0.0
        for step in range(len(history), steps):
            started = time.perf_counter()
            rise, left = min(1.0, (step + 1) / min(WARMUP, steps / 4)), 1 - step / steps
            rate = rise * (1 + math.cos(math.pi * step / steps)) / 2
            x0, sigma, noise = _batch(model, x, batch_size, seed, step)
            noisy = x0 + beside(sigma, x0) * noise
            loss, denoised = descent.step(step, rate, noisy, x0, sigma, sigma**2 / (sigma**2 + (left * c)**2))
            seconds += time.perf_counter() - started
            excess = squared_errors(denoised, exact(noisy, sigma), sigma).mean().item() if exact else float("nan")
            history.append(Progress(step, loss.item(), excess, float(lr) * rate, seconds))
            if checkpoint and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
                write_checkpoint(checkpoint, run, [astuple(progress) for progress in history], state, optimizers)
            yield history[-1]


def _batch(model, x, batch_size, seed, step):
    """Points, noise levels and noise of one step, in antithetic pairs: each point with ε and with −ε. At small σ the
    gradient of one noisy point has a part of size 1/σ that is odd in ε. It cancels in a pair; the rest is learned."""
    generator = stream(seed, f"training step {step}", x.device)
    pairs, options = (batch_size + 1) // 2, {"generator": generator, "device": x.device}
    index = torch.cat([torch.randperm(len(x), **options) for _ in range(0, pairs, len(x))])[:pairs]  # without repeats
    u = torch.rand(pairs, dtype=x.dtype, **options)
    sigma = model.sigma_min * (model.sigma_max / model.sigma_min) ** u     # log-uniform
    noise = torch.randn((pairs, *x.shape[1:]), dtype=x.dtype, **options)
    return x[index.repeat(2)[:batch_size]], sigma.repeat(2)[:batch_size], torch.cat([noise, -noise])[:batch_size]


def squared_errors(denoised: Tensor, target: Tensor, sigma: float | Tensor) -> Tensor:
    """‖(denoised − target)/σ‖² of each point, shape (B,): the squared error of the predicted noise."""
    return ((denoised - target) / beside(sigma, target)).square().flatten(1).sum(1)


def _losses(model, noisy, x0, sigma, weight):
    """The weighted loss, which is minimised; the loss; the denoised points."""
    denoised = model(noisy, sigma)
    errors = squared_errors(denoised, x0, sigma)
    return (weight * errors).mean(), errors.mean(), denoised
