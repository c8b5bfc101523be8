"""Where and how a denoiser is evaluated: device, memory, precision, batches."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checks import check_count, check_denoised, check_points, default_scores

__all__ = ["add_products", "beside", "captured", "check_matrices", "choose_device", "full_precision", "guarded",
           "in_float64", "largest_std", "matrix_bytes", "memory", "one_thread", "points_together",
           "rows_per_batch", "scores_number"]

BACKENDS: Any = torch.backends  # PyTorch's types do not know all of its parts
PRECISIONS = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.mkldnn.matmul,
              BACKENDS.mkldnn.conv)
STRIPE = 256                 # rows of a product that are computed together
ACTIVATIONS_PER_ENTRY = 200  # a generous guess of a network's working memory per entry of its input


def beside(sigma: float | Tensor, x: Tensor) -> Tensor:
    """sigma with the shape (B, 1, …, 1), so that it multiplies x of shape ``(B, *shape)`` point by point.

    ``ValueError`` unless sigma holds one number, or one for each point.
    """
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if sigma.numel() not in (1, len(x)):
        raise ValueError(f"sigma has {sigma.numel()} numbers for {len(x)} points: give one, or one for each point")
    return sigma.flatten().expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; ``ValueError`` if there is none. "auto" is a CUDA GPU if there is one, else Apple's GPU
    (mps), else the CPU."""
    if device != "auto":
        try:
            found = torch.device(device)
            torch.zeros(1, device=found).item()                            # which meta, without numbers, refuses
            return found
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ImportError) as error:
            raise ValueError(f"device={device!r} is none of cuda, mps, cpu and auto, or not in this machine: "
                             f"{error}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory(device: torch.device) -> float:
    """Bytes of memory: what is free on a GPU; elsewhere what the machine has, or less where the process has a limit (of
    a container, by control groups, or of the shell, RLIMIT_AS); infinity where it is unknown."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch keeps it
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(_physical(), _container(), _rlimit())


def _physical() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf


def _container(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """The smallest limit of the process's control groups and of those above them; "max" is none.

    ``own`` has a line "0::/a/b" for version 2 of control groups, and "4:memory:/a/b" for version 1.
    """
    limits, lines = [math.inf], ["0::/", "0:memory:/"]                     # the groups of the whole container
    with suppress(OSError):
        lines += own.read_text().splitlines()
    for _, kind, group in (line.split(":", 2) for line in lines):
        if kind in ("", "memory"):
            folder, name = (root / "memory", "memory.limit_in_bytes") if kind else (root, "memory.max")
            inside = Path(group.lstrip("/"))
            for place in (inside, *inside.parents):
                with suppress(OSError, ValueError):
                    limits.append(int((folder / place / name).read_text()))
    return min(limits)


def _rlimit() -> float:
    try:
        import resource
    except ModuleNotFoundError:                                            # Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def rows_per_batch(batch_size: int | None, entries: int, device: torch.device) -> int:
    """The given batch size. For None: as many rows as fit into a quarter of a GPU's free memory, or, on a CPU, into
    100 MB, where larger batches are not faster. A row has that many entries."""
    if batch_size is not None:
        check_count("batch_size", batch_size, advice=", or None to choose it from the memory")
        return batch_size
    share = memory(device) / 4 if device.type == "cuda" else 1e8
    return max(1, int(share / (4 * ACTIVATIONS_PER_ENTRY * entries)))


def matrix_bytes(d: int) -> int:
    """Bytes that one point needs at most: ten d × d matrices (sums over groups of copies, covariance, solver)."""
    return 10 * 8 * d**2


def check_matrices(d: int, device: torch.device) -> None:
    """``MemoryError`` if the d × d matrices of one point need more memory than there is."""
    if matrix_bytes(d) > memory(device):
        raise MemoryError(f"the spectrum of a point with d={d} entries needs {matrix_bytes(d) / 1e9:.3g} GB, and "
                          f"{memory(device) / 1e9:.3g} GB is what there is: use tangent_sketch, which never makes a "
                          "d × d matrix, fewer columns (the first principal components), or smaller images")


def in_float64(x: Tensor) -> Tensor:
    """x in float64; on the CPU where the device has no float64 (Apple's GPU)."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def add_products(total: Tensor, rows: Tensor) -> None:
    """Add rowsᵀ rows to total, in place, where total is (P, m, m) and rows (P, n, m): its lower triangle only, which is
    all that `torch.linalg.eigh` reads. Some entries above the diagonal are added, too; they have no meaning.
    """
    for start in range(0, rows.shape[2], STRIPE):
        end = start + STRIPE
        total[:, start:end, :end].baddbmm_(rows[..., start:end].mT, rows[..., :end])


def captured(function: Callable) -> Callable:
    """The same function of tensors on a GPU, as one CUDA graph: one launch for all of its operations.

    It must do the same operations on tensors of the same shapes at each call. The first three calls run as usual,
    because libraries and optimisers allocate memory in them; the fourth is captured. Each call overwrites the results
    of the one before.
    """
    calls, graph, places, results = 0, torch.cuda.CUDAGraph(), [], ()

    def call(*tensors):
        nonlocal calls, places, results
        calls += 1
        if calls <= 3:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                results = function(*tensors)
            torch.cuda.current_stream().wait_stream(aside)
            return results
        if calls == 4:
            places = [t.clone() for t in tensors]
            with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
                results = function(*places)
        torch._foreach_copy_(places, list(tensors))
        graph.replay()
        return results

    def on_its_device(*tensors):
        with torch.cuda.device(tensors[0].device):                         # streams belong to the current device
            return call(*tensors)
    return on_its_device


def largest_std(x: Tensor, rows: int = 2000) -> float:
    """The largest standard deviation of x, shape ``(N, *shape)``, in any direction, by its first rows."""
    flat = in_float64(x[:rows]).flatten(1)
    with one_thread(flat.numel() < 1e6):
        return (torch.linalg.matrix_norm(flat - flat.mean(0), 2) / len(flat) ** 0.5).item()


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Inside this context PyTorch uses one thread, if ``when`` holds; afterwards as many as before.

    The operations of a small network take microseconds. Several threads gain little there, and on a busy machine they
    wait for each other at each operation. They also make a later fork of the process hang.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if when else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inside this context, products of float32 numbers on the device are computed in float32, also under autocast.

    PyTorch's default for convolutions on a GPU is TF32, which has three digits. The settings are those of the whole
    process, and are put back at the end.
    """
    before = [place.fp32_precision for place in PRECISIONS]
    try:
        older = BACKENDS.cudnn.allow_tf32                                  # the same setting by its older name
    except RuntimeError:                                                   # it cannot be read beside the newer ones
        older = None
    try:
        if older is not None:
            BACKENDS.cudnn.allow_tf32 = False
        for place in PRECISIONS:
            place.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if older is not None:
            BACKENDS.cudnn.allow_tf32 = older
        for place, precision in zip(PRECISIONS, before, strict=True):      # "none" takes the setting of all
            place.fp32_precision = "none" if precision == BACKENDS.fp32_precision else precision


def guarded(denoiser: Callable, batch_size: int | None = None, precise: bool = True) -> Callable:
    """The same denoiser in batches and in full precision, for one noise level at a time, with an error where its result
    breaks the contract.

    It receives a copy of x, so that one that works in place changes nothing. ``precise=False`` leaves the precision to
    PyTorch. ``ValueError``, when called, for a result of another shape, or with NaN or infinite values; ``TypeError``
    for one that is no tensor of real numbers.
    """
    def call(x, sigma):
        rows = rows_per_batch(batch_size, x[0].numel(), x.device)
        with full_precision(x.device) if precise else nullcontext():
            return torch.cat([check_denoised(denoiser(part.clone(), sigma), part, sigma) for part in x.split(rows)])
    return call


def scores_number(x: Tensor, sigma: float, n_scores: int | None, noise: str = "gaussian") -> float:
    """The number K of scores for spectra at points x: the given one, else max(4 d, 64), or infinity for noise "frame".

    Raises:
        ValueError: bad points or σ, points with one entry, K ≤ d, or another noise.
        MemoryError: the d × d matrices of one point need more memory than there is.
    """
    check_points(x, sigma)
    d = x[0].numel()
    if d < 2:
        raise ValueError("the points have one entry each: there is nothing to count in one dimension")
    if noise not in ("gaussian", "frame") or (noise == "frame" and n_scores is not None):
        raise ValueError(f"noise={noise!r}, n_scores={n_scores}: noise is 'gaussian', or 'frame' without n_scores")
    if n_scores is not None:
        check_count("n_scores", n_scores, least=-math.inf)                 # too few have an error of their own below
    default = math.inf if noise == "frame" else default_scores(d)
    number: float = default if n_scores is None else n_scores
    if number <= d:
        raise ValueError(f"n_scores={number} scores span at most {number} of the d={d} dimensions: use at least "
                         f"{d + 1}, better {default_scores(d)}")
    check_matrices(d, x.device)
    return number


def points_together(d: int, rows: int, block: int, device: torch.device) -> int:
    """How many points go through the denoiser together: as many as fit into a batch, and their matrices into memory."""
    return max(1, int(min(rows // block, memory(device) / 4 / matrix_bytes(d))))
