"""Training until the held-out loss has stopped falling.

The training goes in rounds of 100, 200, 400, … steps, each with the whole schedule of `training`. After each round the
denoising loss is measured at the held-out rows, at several noise levels, with the same noise after each round: so the
difference of two rounds has much less chance in it than each loss. Of the rounds whose loss is at most a tenth above
the smallest, the last one is kept: it has learned most of how the data bend, even where it moves the points a little.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..machine.compute import guarded, in_float64
from ..score import Denoiser, ScoreModel
from ..seeds import stream
from ..training import squared_errors, train_steps

__all__ = ["Learned", "Mean", "held_out_losses", "learn", "mean_of"]

FIRST = 100       # steps of the first round
COMPARED = 700    # steps after which one of several networks is chosen
FALL = 0.03       # of a loss; a smaller fall in one round is rest
TOLERANCE = 1.1   # of the smallest loss, geometric mean over the noise levels
SURE = 2.0        # standard errors of a fall that is no chance


@dataclass(frozen=True)
class Mean:
    """The mean of several denoisers, for the noise levels of all of them."""

    models: tuple["ScoreModel | Mean", ...]

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return torch.stack([model(x, sigma) for model in self.models]).mean(0)

    @property
    def sigma_min(self) -> float:
        """The smallest noise level."""
        return max(model.sigma_min for model in self.models)

    @property
    def sigma_max(self) -> float:
        """The largest noise level."""
        return min(model.sigma_max for model in self.models)


@dataclass(frozen=True)
class Learned:
    """A trained model, and how its training ended.

    Attributes:
        model: the model, with the weights that are kept; or a `Mean` of several.
        loss: the mean held-out loss of these weights at each noise level, in ε units, shape (S,).
        smallest: the smallest loss of all rounds, as a geometric mean over the noise levels.
        steps: the training steps of these weights.
        tried: all training steps of this network.
        fall: how much the loss fell in the last round, at each noise level, if the budget ended it; else 0.
    """

    model: ScoreModel | Mean
    loss: NDArray
    smallest: float
    steps: int
    tried: int
    fall: NDArray


def mean_of(found: Sequence[Learned]) -> Learned:
    """The mean of several networks, with the mean of their losses, all their steps, and the largest fall."""
    if len(found) == 1:
        return found[0]
    return Learned(Mean(tuple(one.model for one in found)), np.mean([one.loss for one in found], axis=0),
                   min(one.smallest for one in found), min(one.steps for one in found),
                   sum(one.tried for one in found), np.max([one.fall for one in found], axis=0))


@torch.no_grad()
def held_out_losses(denoiser: Denoiser, held: Tensor, sigmas: Sequence[float] | NDArray, seed: int = 0) -> NDArray:
    """Denoising loss in ε units at each noise level and held-out row, shape (S, n). The noise depends on the seed."""
    generator, losses = stream(seed, "held-out loss", held.device), []
    for sigma in sigmas:
        noise = torch.randn(held.shape, generator=generator, device=held.device, dtype=held.dtype)
        denoised = guarded(denoiser)(held + sigma * noise, float(sigma))
        losses.append(squared_errors(denoised, held, float(sigma)))
    return in_float64(torch.stack(losses)).cpu().numpy()


def learn(networks: Sequence[Callable[[], ScoreModel]], kept: Tensor, held: Tensor, sigmas: Sequence[float] | NDArray,
          max_steps: int = 3100, min_steps: int = 1, batch_size: int = 500, seed: int = 0, device: str = "auto",
          bar: Callable = lambda run, steps: run) -> Learned:
    """Train until the held-out loss falls at no noise level any more, or rises, or max_steps are done.

    Before min_steps are done it goes on in any case, from the weights that are kept. At most 700 steps are done with
    each of the networks. The one with the smallest loss then goes on alone.

    Args:
        networks: functions that make an untrained model each.
        kept, held: rows to train on, and rows to measure the loss at, which must be on the device.
        sigmas: noise levels at which the loss is measured.
        max_steps, min_steps: the budget of steps, and how many are done in any case.
        batch_size: rows for each step, at most all.
        seed: seed of batches and noise.
        device: "auto", or the name of a torch device.
        bar: a progress bar, called with the iterator of a round and its number of steps.

    Errors as for `train_steps`.
    """
    def train(found: Learned, rows: NDArray, until: int) -> tuple[Learned, NDArray]:
        """More rounds, until the loss falls no more and min_steps are done, or ``until`` steps are done; ``rows`` are
        the held-out losses (S, n) of the weights that are kept."""
        while (found.fall.any() or found.tried < min_steps) and found.tried < until:
            model = copy.deepcopy(cast(ScoreModel, found.model))           # a `Mean` is made after the training
            steps = min(FIRST + found.tried, until - found.tried)
            run = train_steps(model, kept, steps, min(batch_size, len(kept)), seed=seed + found.tried, device=device)
            for _ in bar(run, steps):
                pass
            found, rows = _better(found, rows, model, held_out_losses(model, held, sigmas, seed), steps)
        return found, rows

    start = np.full((len(sigmas), len(held)), np.inf)
    tried = [(Learned(make(), start.mean(1), np.inf, 0, 0, np.ones(len(sigmas))), start) for make in networks]
    if len(tried) > 1:
        tried = [train(*before, min(COMPARED, max_steps)) for before in tried]
    return train(*min(tried, key=lambda it: it[0].smallest), max_steps)[0]


def _better(found, rows, model, new_rows, steps):
    """What is known after one more round of steps, and the losses at the rows that belong to it."""
    tried, loss = found.tried + steps, new_rows.mean(1)
    size = float(np.exp(np.log(loss).mean()))
    smallest = min(size, found.smallest)
    if not found.steps:
        return Learned(model, loss, smallest, tried, tried, loss), new_rows
    if size > TOLERANCE * smallest:
        return replace(found, tried=tried, fall=0 * loss), rows
    fall, error = (rows - new_rows).mean(1), (rows - new_rows).std(axis=1) / rows.shape[1] ** 0.5
    fall = np.where(fall > np.maximum(FALL * loss, SURE * error), fall, 0)
    return Learned(model, loss, smallest, tried, tried, fall), new_rows
