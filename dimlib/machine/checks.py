"""Checks of what a user passes, with errors that say what to do."""

import math

import torch
from torch import Tensor

from .compute import matrix_bytes, memory

__all__ = ["check_points", "check_sigma", "check_training", "scores_number"]


def check_points(x: Tensor) -> None:
    """``ValueError`` unless x is a tensor of finite points, shape ``(P, *shape)``, in floating point."""
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) == 0:
        raise ValueError("x must be a tensor of points, shape (P, *shape), got "
                         f"{tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}; for one point use x[None]")
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}: convert it with x.float()")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values: remove or impute those rows first")


def check_sigma(sigma: float) -> None:
    """``ValueError`` unless the noise level is positive."""
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}: the noise level must be positive")


def scores_number(x: Tensor, n_scores: int | None, noise: str = "gaussian") -> float:
    """The number K of scores for the spectra at points x: the given one, 4 d for None, infinity for noise "frame".

    Raises:
        ValueError: bad points, points with one entry, K ≤ d, or another noise.
        MemoryError: the d × d matrices of one point need more memory than there is.
    """
    check_points(x)
    d = x[0].numel()
    if d < 2:
        raise ValueError("the points have one entry each: there is nothing to count in one dimension")
    if noise not in ("gaussian", "frame") or (noise == "frame" and n_scores is not None):
        raise ValueError(f"noise={noise!r}, n_scores={n_scores}: noise is 'gaussian', or 'frame' without n_scores")
    if n_scores is None:
        n_scores = math.inf if noise == "frame" else 4 * d
    if n_scores <= d:
        raise ValueError(f"n_scores={n_scores} scores span at most {n_scores} of the d={d} dimensions: use at least "
                         f"{d + 1}, better 4 d = {4 * d}")
    if matrix_bytes(d) > memory(x.device):
        raise MemoryError(f"the spectrum of a point with d={d} entries needs {matrix_bytes(d) / 1e9:.3g} GB, and "
                          f"{memory(x.device) / 1e9:.3g} GB is what there is: use tangent_sketch, which never makes a "
                          "d × d matrix, or smaller images")
    return n_scores


def check_training(x: Tensor, sigma_min: float, steps: int, batch_size: int) -> None:
    """``ValueError`` unless x is a tensor of at least two finite points, shape ``(N, *shape)``, with a spread above
    sigma_min, and the numbers are at least 1."""
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
    if sigma_min > spread:
        raise ValueError(f"sigma_min={sigma_min:g} is larger than the spread of the data, {spread:.2g}: "
                         "at that noise level they are one point; lower it")
