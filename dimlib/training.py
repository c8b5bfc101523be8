"""Training by denoising score matching.

The loss is the squared error of the predicted noise, in ε units, summed over coordinates (Vincent 2011):

    E ‖ε̂(x_0 + σ ε, σ) − ε‖² = E ‖D(x_0 + σ ε, σ) − x_0‖² / σ²,

where σ is log-uniform in the model's range. The smallest possible loss is not zero, because noise along the manifold
cannot be predicted: at small σ a perfect denoiser has the loss k, the intrinsic dimension.
"""

import copy
import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam, Muon

from .machine.checks import check_training
from .machine.compute import beside, choose_device
from .machine.tensors import read_checkpoint, write_checkpoint
from .score import Denoiser, ScoreModel
from .seeds import stream

__all__ = ["Progress", "train", "train_steps"]

WARMUP, EMA_DECAY, MAX_GRADIENT_NORM = 100, 0.999, 1.0


@dataclass(frozen=True)
class Progress:
    """One training step: its number, from 0; the loss of its batch, and its excess over the exact denoiser's (nan
    without one), in ε units; its learning rate; seconds of training so far, without the caller's time between steps.
    """

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
                checkpoint_every: int = 500) -> Iterator[Progress]:
    """Train the model on data x, one step for each `Progress` that is taken from the returned iterator.

    Nothing is trained until the iterator is used; a loop that stops early stops the training. The model can be used at
    any time: its weights are the exponential moving average of the weights that are optimised, which are a copy.
    Muon (Jordan 2024) optimises the matrices between the outer layers, and Adam all else. The learning rate rises
    linearly for 100 steps and falls to zero along a cosine; the norm of the gradients is limited to 1.

    Batches and noise depend on (seed, step) only. So a run that continues from a checkpoint equals one that was never
    interrupted; it yields the steps of the checkpoint first, all at once.

    Args:
        model: the model to train, moved to ``device``.
        x: data, shape ``(N, *shape)``, finite, N ≥ 2.
        steps: number of steps.
        batch_size: points per step.
        lr: largest learning rate. A wide network needs a smaller one: a U-Net of 64 channels needs 2e-3.
        seed: seed of batches and noise.
        device: "auto", or the name of a torch device.
        exact: the exact denoiser of the data, to report the excess loss E‖ε̂ − ε̂*‖².
        checkpoint: a file, saved every ``checkpoint_every`` steps. If it exists, training continues from it.

    Raises:
        ValueError: bad data, or a checkpoint of another run.
        FloatingPointError: a loss that is not finite.
    """
    check_training(x, model.sigma_min, steps, batch_size)
    device = choose_device(device)
    model.to(device).eval()
    x = x.to(device, torch.promote_types(x.dtype, torch.float32) if device.type != "mps" else torch.float32)
    student = copy.deepcopy(model).train()
    optimizers = _optimizers(student)
    state = {"average": model, "student": student}
    history, run = [], None
    if checkpoint:
        run = {"model": model.config, "network": str(getattr(model.net, "config", model.net)), "steps": steps,
               "data": zlib.crc32(x.cpu().numpy().tobytes()), "batch_size": batch_size, "lr": lr, "seed": seed}
        history = [Progress(int(step), *rest) for step, *rest in read_checkpoint(checkpoint, run, state, optimizers)]
    yield from history
    seconds = history[-1].seconds if history else 0.0
    for step in range(len(history), steps):
        started = time.perf_counter()
        rate = lr * _schedule(step, steps)
        x0, sigma, noise = _batch(model, x, batch_size, seed, step)
        noisy = x0 + beside(sigma, x0) * noise
        denoised = student(noisy, sigma)
        loss = _squared_error(denoised, x0, sigma)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss at step {step} is {loss.item()}: lower lr={lr:g}, or scale the data")
        student.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), MAX_GRADIENT_NORM)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        _average(model, student, step)
        excess = _squared_error(denoised.detach(), exact(noisy, sigma), sigma).item() if exact else float("nan")
        seconds += time.perf_counter() - started
        history.append(Progress(step, loss.item(), excess, rate, seconds))
        if checkpoint and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            write_checkpoint(checkpoint, run, [astuple(progress) for progress in history], state, optimizers)
        yield history[-1]


def _optimizers(student):
    """Muon for matrices, with the step size of Adam; Adam for vectors and for the layers that touch the data."""
    inner, rest = [], []
    for layer in student.modules():
        for p in layer.parameters(recurse=False):
            (inner if p.ndim == 2 and not hasattr(layer, "touches_data") else rest).append(p)
    return [*([Muon(inner, weight_decay=0, adjust_lr_fn="match_rms_adamw")] if inner else []), Adam(rest)]


def _schedule(step, steps):
    warm = min(1.0, (step + 1) / WARMUP)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def _batch(model, x, batch_size, seed, step):
    """Points, noise levels and noise of one step, in antithetic pairs: each point with ε and with −ε. At small σ the
    gradient of one noisy point has a part of size 1/σ that is odd in ε. It cancels in a pair; what is left is learned.
    """
    generator = stream(seed, f"training step {step}", x.device)
    pairs, options = (batch_size + 1) // 2, {"generator": generator, "device": x.device}
    index = torch.cat([torch.randperm(len(x), **options) for _ in range(0, pairs, len(x))])[:pairs]  # all different
    u = torch.rand(pairs, dtype=x.dtype, **options)
    sigma = model.sigma_min * (model.sigma_max / model.sigma_min) ** u     # log-uniform
    noise = torch.randn((pairs, *x.shape[1:]), dtype=x.dtype, **options)
    both = torch.cat([index, index])[:batch_size]
    return x[both], sigma.repeat(2)[:batch_size], torch.cat([noise, -noise])[:batch_size]


def _squared_error(denoised, target, sigma):
    return ((denoised - target) / beside(sigma, target)).square().flatten(1).sum(1).mean()


@torch.no_grad()
def _average(model, student, step):
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(model.parameters()), list(student.parameters()), 1 - decay)
    for ours, theirs in zip(model.buffers(), student.buffers(), strict=True):
        ours.copy_(theirs)
