"""What a spectrum or a fit will take, measured before it is computed."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ..machine.checks import check_count, check_counts
from ..machine.compute import guarded, matrix_bytes, points_together, rows_per_batch, scores_number
from ..sampler import BLOCK, copies_in_blocks
from ..score import Denoiser
from ..svd import GROUPS, moments

__all__ = ["Cost", "expected_cost", "expected_seconds"]

TRIAL = 256    # evaluations of the denoiser that are timed
SMALL = 1024   # size of the eigenvalue problem that is timed


@dataclass(frozen=True, repr=False)
class Cost:
    """Evaluations of the denoiser, seconds on this machine, and bytes of memory (an upper bound)."""

    evaluations: float
    seconds: float
    bytes: int

    def __repr__(self) -> str:
        return f"{self.evaluations:,} evaluations, about {self.seconds:,.0f} s, {self.bytes / 1e9:.2g} GB"


@torch.no_grad()
def expected_cost(denoiser: Denoiser, x: Tensor, sigma: float, n_scores: int | None = None) -> Cost:
    """What ``spectrum(denoiser, x, sigma, n_scores)`` will take, from a trial with at most 512 evaluations.

    If it is too much: use fewer points, a GPU, or `tangent_sketch`, which takes O(k) evaluations per point and not 4 d.
    Errors as for `spectrum`.
    """
    evaluations, gathered, solved, size = _measured(denoiser, x, sigma, n_scores)
    return Cost(evaluations, gathered + solved, size)


def _measured(denoiser, x, sigma, n_scores=None):
    """Evaluations, seconds of the sums, seconds of one eigenvalue problem for each point, and bytes of memory."""
    number = scores_number(x, sigma, n_scores)
    d, part = x[0].numel(), min(number, TRIAL)
    rows = rows_per_batch(None, d, x.device)

    def gather():
        return moments(guarded(denoiser, rows), copies_in_blocks(x[:1], sigma, part, 0), sigma, 1)

    (sums, _), gathered = _timed(gather, x.device)
    small = sums[0, 0, :-1, :-1][:SMALL, :SMALL]
    solved = _timed(lambda: torch.linalg.eigvalsh(small), small.device)[1] * (d / len(small)) ** 3
    together = min(len(x), points_together(d, rows, BLOCK, x.device))
    return len(x) * number, len(x) * gathered * number / part, len(x) * solved, together * matrix_bytes(d)


@torch.no_grad()
def expected_seconds(denoiser: Denoiser, x: Tensor, sigma: float, n_levels: int, steps: int, batch_size: int) -> float:
    """Seconds of a fit, at most: the training of such a network, and spectra at the points x at each noise level.

    A training step is taken to last three times as long as an evaluation of its rows. Each spectrum has its
    eigenvalues and those without each quarter of the copies. Errors as for `expected_cost`; ``TypeError`` for numbers
    that are not whole, ``ValueError`` for n_levels or batch_size below 1, or steps below 0.
    """
    check_counts(n_levels=n_levels, batch_size=batch_size)
    check_count("steps", steps, least=0)
    _, gathered, solved, _ = _measured(denoiser, x, sigma)
    spectra = n_levels * (gathered + (1 + GROUPS) * solved)
    rows = x[:1].expand(batch_size, *x.shape[1:])
    return 3 * steps * _timed(lambda: denoiser(rows, sigma), x.device)[1] + spectra


def _timed(function, device):
    """What the function returns, and the seconds of its second call. The first one warms up."""
    def finished():
        found = function()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)                          # a GPU goes on after the call
        return found

    finished()
    started = time.perf_counter()
    return finished(), time.perf_counter() - started
