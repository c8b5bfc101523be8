"""Denoising score matching: the training loop, as a generator.

The loss is the squared error of the predicted noise, in ε units, summed over coordinates (Vincent 2011):

    E ‖ε̂(x_0 + σ ε, σ) − ε‖² = E ‖D(x_0 + σ ε, σ) − x_0‖² / σ²,

with σ log-uniform in the model's range. Its floor is not zero: noise along the manifold cannot be
predicted, so for small σ a perfect denoiser loses exactly k, the intrinsic dimension.
"""

import copy
import json
import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam, Muon
from tqdm import tqdm

from .score import Denoiser, ScoreModel, read_tensors, write_tensors
from .seeds import stream

__all__ = ["Progress", "choose_device", "fit", "show"]

OUTER = ("net.enter.", "net.leave.", "net.linear.", "net.look.enter.", "net.look.leave.")  # layers that touch the data
WARMUP, EMA_DECAY, MAX_GRADIENT_NORM = 100, 0.999, 1.0


@dataclass(frozen=True)
class Progress:
    """One training step: its loss in ε units, the excess over the exact denoiser's (nan without one), its rate.

    ``seconds`` is the time since training began, without that spent outside of `fit` or lost by an interruption.
    """

    step: int
    loss: float
    excess: float
    lr: float
    seconds: float


def choose_device(device: str = "auto") -> torch.device:
    """"auto" is the first of cuda, mps and cpu that is there; anything else is taken at its word."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fit(model: ScoreModel, x: Tensor, steps: int, batch_size: int = 500, lr: float = 5e-3, seed: int = 0,
        device: str = "auto", exact: Denoiser | None = None, checkpoint: str | Path | None = None,
        checkpoint_every: int = 500) -> Iterator[Progress]:
    """Train ``model`` on x, yielding a `Progress` after every step; drain it, or stop early by breaking off.

    Muon (Jordan 2024) for the matrices between the outer layers and Adam for the rest, linear warm-up, cosine decay to
    zero, gradients clipped. What is optimised is a copy: ``model`` itself holds the exponential moving average
    of the weights, so it can be used as it is at any time.
    Batches and noise of a step depend on (seed, step) only, so a resumed run is the uninterrupted one; it begins by
    yielding the steps that the checkpoint knows, all at once.

    Args:
        model: the model to train, moved to ``device``.
        x: data, shape ``(N, *shape)``, finite, N ≥ 2.
        steps, batch_size, lr: length of the run, points per step, peak learning rate. Wide networks need a smaller
            one: a U-Net of 64 channels is unstable at 5e-3, and not at 2e-3.
        seed: seed of batches and noise (the weights' own is whatever made ``model``).
        device: "auto", or a torch device.
        exact: the exact denoiser of the data, to report the excess loss E‖ε̂ − ε̂*‖².
        checkpoint: file to save to every ``checkpoint_every`` steps and to resume from if it exists.

    Raises:
        ValueError: bad data, or a checkpoint of another run; FloatingPointError: a loss that is not finite.
    """
    _check(model, x, steps, batch_size)
    device = choose_device(device)
    model.to(device).eval()
    x = x.to(device, torch.float32)
    student = copy.deepcopy(model).train()
    optimizers = _optimizers(student)
    history, identity = [], None
    if checkpoint:
        identity = {"model": model.config, "data": zlib.crc32(x.cpu().numpy().tobytes()), "steps": steps,
                    "batch_size": batch_size, "lr": lr, "seed": seed}
        history = _restore(checkpoint, identity, model, student, optimizers)
    yield from history
    seconds = history[-1].seconds if history else 0.0
    for step in range(len(history), steps):
        started = time.perf_counter()
        rate = lr * _schedule(step, steps)
        x0, sigma, noise = _batch(model, x, batch_size, seed, step)
        level = sigma.reshape(-1, *[1] * (x.ndim - 1))
        noisy = x0 + level * noise
        denoised = student(noisy, sigma)
        loss = _squared_error(denoised, x0, level)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss at step {step} is {loss.item()}: lower lr={lr:g}, or scale the data")
        student.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), MAX_GRADIENT_NORM)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        _average(model, student, step)
        excess = _squared_error(denoised.detach(), exact(noisy, sigma), level).item() if exact else float("nan")
        seconds += time.perf_counter() - started
        history.append(Progress(step, loss.item(), excess, rate, seconds))
        if checkpoint and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            _save(checkpoint, identity, history, model, student, optimizers)
        yield history[-1]


def show(run: Iterator[Progress], steps: int) -> Iterator[Progress]:
    """Pass a run of `fit` on, with a progress bar where standard error is a terminal, so never into a notebook."""
    with tqdm(run, total=steps, unit="step", disable=None) as bar:
        for progress in bar:
            bar.set_postfix(loss=f"{progress.loss:.3g}", refresh=False)
            yield progress


def _check(model, x, steps, batch_size):
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) < 2:
        raise ValueError("x must be a tensor of shape (N, *shape) with at least two points, got "
                         f"{tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values: remove or impute those rows first")
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps={steps} and batch_size={batch_size} must be at least 1")
    spread = x.float().std(0).norm().item()
    if spread == 0:
        raise ValueError("all points of x are the same: there is nothing to learn")
    if model.sigma_min > spread:
        raise ValueError(f"sigma_min={model.sigma_min:g} is larger than the spread of the data, {spread:.2g}: "
                         "at that noise level they are one point; lower it")


def _optimizers(student):
    """Muon where a step should turn all directions alike, with the step size of Adam; Adam everywhere else."""
    inner, outer = [], []
    for name, p in student.named_parameters():
        (inner if p.ndim == 2 and not name.startswith(OUTER) else outer).append(p)
    return [*([Muon(inner, weight_decay=0, adjust_lr_fn="match_rms_adamw")] if inner else []), Adam(outer)]


def _schedule(step, steps):
    warm = min(1.0, (step + 1) / WARMUP)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def _batch(model, x, batch_size, seed, step):
    """Points, noise levels and noise in antithetic pairs ±ε.

    At small σ the gradient of one noisy point is of order 1/σ and odd in ε but for a part of order 1, which
    is what there is to learn: in a pair the noise of order 1/σ cancels.
    """
    generator = stream(seed, f"training step {step}", x.device)
    pairs = (batch_size + 1) // 2
    index = torch.randint(len(x), (pairs,), generator=generator, device=x.device)
    u = torch.rand(pairs, generator=generator, device=x.device)
    sigma = model.sigma_min * (model.sigma_max / model.sigma_min) ** u     # log-uniform
    noise = torch.randn((pairs, *x.shape[1:]), generator=generator, device=x.device)
    return x[index].repeat(2, *[1] * (x.ndim - 1)), sigma.repeat(2), torch.cat([noise, -noise])


def _squared_error(denoised, target, level):
    return ((denoised - target) / level).square().flatten(1).sum(1).mean()


@torch.no_grad()
def _average(model, student, step):
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(model.parameters()), list(student.parameters()), 1 - decay)


def _save(path, identity, history, model, student, optimizers):
    tensors = {"history": torch.tensor([astuple(progress) for progress in history], dtype=torch.float64)}
    tensors |= {f"average.{k}": t for k, t in model.state_dict().items()}
    tensors |= {f"student.{k}": t for k, t in student.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for j, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{i}.{j}.{k}": t for k, t in state.items()}
    write_tensors(tensors, path, {"training": json.dumps(identity)})


def _restore(path, identity, model, student, optimizers) -> list[Progress]:
    if not Path(path).exists():
        return []
    tensors, header = read_tensors(path, "training")
    if header != identity:
        differing = ", ".join(key for key in identity if header.get(key) != identity[key])
        raise ValueError(f"{path} belongs to another run, with other {differing}: delete it, or name another file")

    def part(name):
        return {k.removeprefix(name + "."): t for k, t in tensors.items() if k.startswith(name + ".")}

    model.load_state_dict(part("average"))
    student.load_state_dict(part("student"))
    for i, optimizer in enumerate(optimizers):
        state = {}
        for key, tensor in part(f"optimizer{i}").items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return [Progress(int(step), *rest) for step, *rest in tensors["history"].tolist()]
