"""Checks of what a user passes, with errors that say what to do."""

import math
from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["as_numbers", "check_count", "check_counts", "check_denoised", "check_level", "check_levels", "check_move",
           "check_points", "check_positive", "check_rows", "check_sigma", "check_training", "check_values",
           "check_weights", "default_scores", "on_singular_values"]

LEAST_SCORES = 64  # in few dimensions 4 d scores are so few that chance decides
ROUNDING = 0.1     # largest distance between neighbouring floating-point numbers near x, in units of sigma
EXTREME = 1e-30, 1e30  # of a length: samples of it are finite in float32, and its square is not 0 in float64


def check_count(name: str, value: float, least: float = 1, advice: str = "") -> None:
    """``TypeError`` unless the value is a whole number, ``ValueError`` unless it is at least the least one."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be a whole number{advice}")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}{advice}")


def check_counts(**values: float) -> None:
    """`check_count` of each value, by its name."""
    for name, value in values.items():
        check_count(name, value)


def check_positive(**values: ArrayLike | Tensor) -> None:
    """``TypeError`` unless each value is a number, or several numbers; ``ValueError`` unless all are positive, and
    from 1e-30 to 1e30."""
    for name, value in values.items():
        numbers = as_numbers(name, value)
        low, high = EXTREME
        if numbers.numel() == 0 or not ((low <= numbers) & (numbers <= high)).all():
            raise ValueError(f"{name}={value!r:.80} must be positive: give a number from {low:g} to {high:g}")


def check_weights(weights: ArrayLike | Tensor, n: int) -> Tensor:
    """The weights of n parts, divided by their sum, in float64. ``TypeError`` unless they are numbers, ``ValueError``
    unless there is one for each part, positive and finite."""
    numbers = as_numbers("weights", weights)
    total = numbers.sum()
    if not n or numbers.shape != (n,) or not (numbers > 0).all() or not total.isfinite():
        raise ValueError(f"weights={weights!r:.80}: give one positive number for each of the {n} parts, with a finite "
                         "sum, and at least one part")
    return numbers / total


def as_numbers(name: str, value: ArrayLike | Tensor) -> Tensor:
    """The value as a tensor in float64 on the CPU; ``TypeError`` unless it holds numbers."""
    try:
        return torch.as_tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}={value!r:.80} does not hold numbers: give numbers, or a tensor of numbers") from None


def check_sigma(sigma: float | Tensor) -> None:
    """``ValueError`` unless the noise level, or each of several, is positive and finite; ``TypeError`` if no number."""
    if isinstance(sigma, Tensor) and (sigma.is_floating_point() or sigma.dtype in (torch.int32, torch.int64)):
        good = sigma.numel() > 0 and bool((torch.isfinite(sigma) & (sigma > 0)).all())
    elif isinstance(sigma, Real) and not isinstance(sigma, bool):
        good = math.isfinite(sigma) and sigma > 0
    else:
        raise TypeError(f"sigma={sigma!r} is no noise level: give a number, or a tensor of one number for each point")
    if not good:
        raise ValueError(f"sigma={sigma}: the noise level must be positive and finite")


def check_level(sigma: float | Tensor) -> None:
    """The check of `check_sigma`, and ``ValueError`` unless sigma is a single number."""
    check_sigma(sigma)
    if torch.as_tensor(sigma).numel() != 1:
        raise ValueError(f"sigma={sigma}: give one noise level, for all points")


def check_levels(sigmas: ArrayLike | Tensor) -> list[float]:
    """The different noise levels, ascending; ``TypeError`` unless they are numbers, ``ValueError`` unless there are two
    or more, all positive and finite."""
    given = sigmas.detach().cpu() if isinstance(sigmas, Tensor) else sigmas
    try:
        levels = np.unique(np.asarray(given, dtype=float))                 # flat, ascending, NaN at the end
    except (TypeError, ValueError) as error:
        raise TypeError(f"sigmas={sigmas!r} must be numbers") from error
    if len(levels) < 2 or not 0 < levels[0] < levels[-1] < np.inf:
        raise ValueError(f"sigmas={sigmas!r}: give at least two different noise levels, all positive and finite")
    return levels.tolist()


def check_values(x: Tensor) -> Tensor:
    """x, or ``ValueError`` unless it is a tensor of finite floating-point numbers, shape ``(P, *shape)``, P ≥ 1."""
    if not isinstance(x, Tensor) or x.ndim < 2 or x.numel() == 0:
        raise ValueError("x must be a tensor of points, shape (P, *shape), got " + (
            f"{tuple(x.shape)}; for one point use x[None]" if isinstance(x, Tensor) else
            f"{type(x).__name__}: convert it with torch.as_tensor(x)"))
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}: " + ("use its real part, or its real and imaginary parts as columns"
                                                       if x.is_complex() else "convert it with x.float()"))
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values: remove or impute those rows first")
    return x


def check_move(direction: Tensor, step: float, x: Tensor) -> None:
    """``ValueError`` unless the direction is a finite vector other than 0, of the shape of the point x, and the step
    is a positive number."""
    if not (isinstance(step, Real) and 0 < step < math.inf):
        raise ValueError(f"step={step!r} must be a positive number: to walk the other way, give -direction")
    if (not isinstance(direction, Tensor) or not direction.is_floating_point() or x.shape != direction.shape
            or not 0 < direction.norm() < math.inf):
        raise ValueError(f"direction must be a vector other than 0, finite, in floating point, of the shape of x, "
                         f"{tuple(x.shape)}, got "
                         f"{tuple(direction.shape) if isinstance(direction, Tensor) else type(direction).__name__}")


def check_rows(x: Tensor, d: int) -> None:
    """The check of `check_values`, and ``ValueError`` unless x has the shape (n, d)."""
    check_values(x)
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(f"x must have the shape (n, {d}), got {tuple(x.shape)}")


def check_points(x: Tensor, sigma: float) -> None:
    """The checks of `check_level` and `check_values`, and ``ValueError`` where x is rounded too much for sigma.

    Floating-point numbers near x are about eps · x apart. If that is not small compared with sigma, rounding is a noise
    that the denoiser sees as part of the data.
    """
    check_level(sigma)
    check_values(x)
    largest = x.abs().max().item()
    step = torch.finfo(x.dtype).eps * largest
    if step > ROUNDING * float(sigma):
        name = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"near {largest:.3g} the numbers of dtype {name} are {step:.2g} apart, which is not small "
                         f"compared with sigma={float(sigma):.3g}: convert x to float64 "
                         "(from data that were never in this dtype), or subtract the mean of the data")


def default_scores(d: int) -> int:
    """The number K of scores where none is given: 4 d, and at least 64."""
    return max(4 * d, LEAST_SCORES)


def on_singular_values(rule: Callable) -> Callable:
    """The rule, with ``ValueError`` unless its values are finite, of shape (P, d), and n_scores is positive."""
    @wraps(rule)
    def checked(values: NDArray, n_scores: float) -> NDArray:
        if np.ndim(values) != 2 or not np.size(values) or not np.isfinite(values).all():
            raise ValueError("singular values must be finite numbers of shape (P, d), with at least one point and one "
                             f"direction; got shape {np.shape(values)}")
        if not n_scores > 0:
            raise ValueError(f"n_scores={n_scores} must be positive")
        return rule(np.asarray(values), n_scores)
    return checked


def check_denoised(denoised: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
    """The result of a denoiser for x, in the dtype of x; an error where it breaks the contract."""
    if not isinstance(denoised, Tensor) or not denoised.is_floating_point():
        kind = denoised.dtype if isinstance(denoised, Tensor) else type(denoised).__name__
        raise TypeError(f"the denoiser returned {kind}: D(x, sigma) must return a tensor of real numbers")
    if denoised.shape != x.shape:
        raise ValueError(f"the denoiser returned shape {tuple(denoised.shape)} for x of shape {tuple(x.shape)}; "
                         "D(x, sigma) must have the shape of x")
    if not torch.isfinite(denoised).all():
        raise ValueError(f"the denoiser returned NaN or infinite values at sigma={sigma}: is this noise level "
                         "inside the range it was trained for?")
    return denoised.to(x.dtype)


def check_training(x: Tensor, sigma_min: float, steps: int, batch_size: int, lr: float, checkpoint_every: int) -> None:
    """``ValueError`` unless x is a tensor of at least two different finite points, shape ``(N, *shape)``, with a spread
    above sigma_min, and lr is positive and finite; and `check_count` of the other numbers."""
    if not isinstance(x, Tensor) or x.is_complex() or x.ndim < 2 or len(x) < 2 or x.numel() == 0:
        raise ValueError("x must be a real tensor of shape (N, *shape) with at least two points, got "
                         f"{tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values: remove or impute those rows first")
    check_counts(steps=steps, batch_size=batch_size, checkpoint_every=checkpoint_every)
    if not (isinstance(lr, Real) and 0 < lr < math.inf):
        raise ValueError(f"lr={lr!r}: the learning rate must be a positive number")
    spread = x.cpu().double().std(0).norm().item()
    if spread == 0:
        raise ValueError("all points of x are the same: there is nothing to learn")
    if sigma_min > spread:
        raise ValueError(f"sigma_min={sigma_min:g} is larger than the spread of the data, {spread:.2g}: "
                         "at that noise level they are one point; lower it")
