"""Independent random streams from one seed.

Data and noise that are drawn with the same seed must not be the same random numbers. So each purpose has a stream of
its own, whose seed is made of the user's seed and the name of the purpose.
"""

import zlib

import torch

__all__ = ["stream"]


def stream(seed: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """The random generator of one purpose, such as "data"; the same (seed, purpose) gives the same numbers."""
    return torch.Generator(device).manual_seed(zlib.crc32(f"{purpose} {seed}".encode()))
