"""Many points over the devices of one machine. Over many machines, one run for each part: see the workflow."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .score import Denoiser
from .svd import Spectrum, spectrum

__all__ = ["spectrum_over"]


def spectrum_over(devices: Sequence[tuple[str, Denoiser]], x: Tensor, sigma: float, **options) -> Spectrum:
    """The `spectrum` at all points of x, each device with its own copy of the denoiser working on a part of them.

    The noise depends on the seed alone, so this is what one device of the same kind would have found.

    Args:
        devices: for each device its name and a denoiser that lives there, as in
            ``[(name, copy.deepcopy(model).to(name)) for name in ("cuda:0", "cuda:1")]``.
        x: points, shape ``(P, *shape)``, on any device.
        sigma, options: as for `spectrum`.

    Raises:
        ValueError: no devices, and whatever `spectrum` raises.
    """
    if not devices:
        raise ValueError("devices is empty: name at least one, with its denoiser")
    parts = x.tensor_split(min(len(devices), len(x)))

    def ask(device, part):
        name, denoiser = device
        return spectrum(denoiser, part.to(torch.device(name)), sigma, **options)

    with ThreadPoolExecutor(len(devices)) as pool:
        found = list(pool.map(ask, devices, parts))
    joined = {name: np.concatenate([getattr(one, name) for one in found]) for name in ("values", "loss")}
    if found[0].directions is not None:
        joined["directions"] = np.concatenate([one.directions for one in found])
    return replace(found[0], **joined)
