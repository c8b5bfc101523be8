"""Independent random streams from one seed.

Data and noise drawn with the same seed must not be the same random numbers, so every purpose has a stream
of its own: what the stream is for goes into its seed.
"""

import zlib

import torch

__all__ = ["stream"]


def stream(seed: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """The random generator of one purpose, such as "data"; the same (seed, purpose) gives the same numbers."""
    return torch.Generator(device).manual_seed(zlib.crc32(f"{purpose} {seed}".encode()))
