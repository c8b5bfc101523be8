"""Where and how a denoiser is evaluated: device, memory, precision, batches."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["choose_device", "full_precision", "guarded", "in_float64", "matrix_bytes", "memory", "rows_per_batch"]

ACTIVATIONS_PER_ENTRY = 200  # a generous guess of a network's working memory per entry of its input


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name. "auto" is a CUDA GPU if there is one, else Apple's GPU (mps), else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory(device: torch.device) -> float:
    """Bytes of memory: what is free on a GPU, what the machine has elsewhere, infinity where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf


def rows_per_batch(batch_size: int | None, entries: int, device: torch.device) -> int:
    """The given batch size. For None: as many rows as fit into a quarter of a GPU's free memory, or, on a CPU, into
    100 MB, where larger batches are not faster. A row has that many entries."""
    if batch_size is not None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1, or None to choose it from the memory")
        return batch_size
    share = memory(device) / 4 if device.type == "cuda" else 1e8
    return max(1, int(share / (4 * ACTIVATIONS_PER_ENTRY * entries)))


def matrix_bytes(d: int) -> int:
    """Bytes that the d × d matrices of one point need: the Gram matrix, the part of the mean, the solver's copies."""
    return 4 * 8 * d**2


def in_float64(x: Tensor) -> Tensor:
    """x in float64; on the CPU where the device has no float64 (Apple's GPU)."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside this context, float32 products are computed in float32 on a GPU.

    PyTorch's default for convolutions there is TF32, which has three digits. The settings are those of the whole
    process, and are put back at the end.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def guarded(denoiser: Callable, batch_size: int | None = None) -> Callable:
    """The same denoiser in batches and in full precision, with an error where its result breaks the contract.

    Raises, when called:
        ValueError: a result of another shape than x, or with NaN or infinite values.
    """
    def call(x, sigma):
        rows = rows_per_batch(batch_size, x[0].numel(), x.device)
        with full_precision():
            return torch.cat([_checked(denoiser(part, sigma), part, sigma) for part in x.split(rows)])
    return call


def _checked(denoised, x, sigma):
    if denoised.shape != x.shape:
        raise ValueError(f"the denoiser returned shape {tuple(denoised.shape)} for x of shape {tuple(x.shape)}; "
                         "D(x, sigma) must have the shape of x")
    if not torch.isfinite(denoised).all():
        raise ValueError(f"the denoiser returned NaN or infinite values at sigma={sigma:g}: is this noise level "
                         "inside the range it was trained for?")
    return denoised
