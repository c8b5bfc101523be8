"""A U-Net for square images."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..machine.checks import check_counts
from ..networks import FourierFeatures, register, start_at_zero, touches_data

__all__ = ["UNet"]


class Conv(nn.Linear):
    """A convolution whose weights are one matrix, of patches of side × side pixels, so that Muon can train it.

    On a CPU the channels of a pixel lie side by side in memory (channels last), which takes a quarter less time.
    """

    def __init__(self, before: int, after: int, side: int = 3, stride: int = 1):
        super().__init__(before * side**2, after)
        self.side, self.stride = side, stride

    def forward(self, h: Tensor) -> Tensor:
        kernel = self.weight.view(len(self.weight), -1, self.side, self.side)
        if h.device.type == "cpu":
            h, kernel = (a.contiguous(memory_format=torch.channels_last) for a in (h, kernel))
        return nn.functional.conv2d(h, kernel, self.bias, self.stride, self.side // 2)


def _norm(channels: int) -> nn.GroupNorm:
    """Normalisation in eight groups of channels, or in as many as divide them."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ConvBlock(nn.Module):
    """One residual block on images: S h + W₂ ∗ silu(norm(W₁ ∗ silu(norm(h))) + V e), with e the embedding of log σ.

    W₁ and W₂ are 3×3; S is the identity, or 1×1 where the number of channels changes. V e is one number for each
    channel. It is added after the norm, because the norm would remove its mean.
    """

    def __init__(self, before: int, after: int):
        super().__init__()
        self.norms = nn.ModuleList([_norm(before), _norm(after)])
        self.inner, self.outer = Conv(before, after), Conv(after, after)
        self.level = nn.Linear(16, after)
        self.skip = nn.Identity() if before == after else Conv(before, after, side=1)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        inside = self.inner(nn.functional.silu(self.norms[0](h)))
        inside = self.norms[1](inside) + self.level(level)[:, :, None, None]
        return self.skip(h) + self.outer(nn.functional.silu(inside))


class Row(nn.ModuleList):
    """The residual blocks of one level; the first changes the number of channels."""

    def __init__(self, before: int, after: int, blocks: int):
        super().__init__(ConvBlock(after if i else before, after) for i in range(blocks))

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        for block in self:
            h = block(h, level)
        return h


class Attention(nn.Module):
    """Self-attention, one head: h + W_out softmax(q kᵀ/√c) v with q, k, v = W norm(h) per pixel; W_out starts at 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = _norm(channels)
        self.enter = nn.Linear(channels, 3 * channels, bias=False)
        self.leave = start_at_zero(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.enter(self.norm(h).flatten(2).mT).chunk(3, dim=2)   # (B, pixels, c) each
        mixed = (q @ k.mT / q.shape[2] ** 0.5).softmax(dim=2) @ v
        return h + self.leave(mixed).mT.reshape(h.shape)


@register
class UNet(nn.Module):
    """A U-Net for square images: it halves the size level by level and doubles it again, with a bridge at each size.

    ::

        x, row, column → enter → blocks ──────── concatenate ───────→ blocks → leave      size
                                   ↓ down                            ↑ up
                                 blocks ──────── concatenate ───────→ blocks              size/2
                                   ↓ down                            ↑ up
                                 blocks ────────→ attention ─────────→                    size/4

    The row and the column of each pixel are two channels of the input, because the families of images here are not the
    same everywhere. log σ enters each block. The last convolution starts at zero; there is no norm before it, since a
    norm would remove the distance of x from the manifold. Ronneberger et al. 2015; blocks, norms and attention as in
    Ho et al. 2020 (DDPM); Fourier features of the noise level as in Song et al. 2021.

    The paper's size is ``channels=128, multipliers=(1, 2, 2, 2), blocks=4``, 31 million parameters. A DDPM has its
    attention at 16×16 and a bridge from each block; here the attention is at the coarsest size, and each size has one
    bridge.

    Args:
        size, channels_in: images, and the output, have the shape (channels_in, size, size).
        channels: number of channels at the first size.
        multipliers: number of channels at each size, divided by that at the first.
        blocks: residual blocks at each size, on the way down and on the way up.
        attention: whether to use attention between the pixels at the coarsest size.

    Raises:
        ValueError: a size that cannot be halved often enough, numbers less than 1, no multipliers. TypeError: numbers
            that are not whole.
    """

    def __init__(self, size: int = 32, channels_in: int = 1, channels: int = 16,
                 multipliers: Sequence[int] = (1, 2, 4), blocks: int = 1, attention: bool = True):
        super().__init__()
        if not multipliers:
            raise ValueError(f"multipliers={multipliers}: need at least one level")
        check_counts(blocks=blocks, channels_in=channels_in, channels=channels)
        for multiplier in multipliers:
            check_counts(multiplier=multiplier)
        step = 2 ** (len(multipliers) - 1)
        if size < 1 or size % step:
            below = max(step, size // step * step)
            raise ValueError(f"size={size} cannot be halved for {len(multipliers)} levels: use a multiple of {step}, "
                             f"such as {below} or {below + step}, or fewer multipliers")
        self.config: dict = {"size": size, "channels_in": channels_in, "channels": channels,
                             "multipliers": list(multipliers), "blocks": blocks, "attention": attention}
        line = torch.linspace(-1, 1, size)
        self.coordinates: Tensor
        self.register_buffer("coordinates", torch.stack(torch.meshgrid(line, line, indexing="ij")), persistent=False)
        self.embed = FourierFeatures()
        widths = [channels * m for m in multipliers]
        steps = list(pairwise(widths))                                     # (fine, coarse), one for each halving
        self.enter = touches_data(Conv(channels_in + 2, widths[0]))
        self.descent = nn.ModuleList(Row(fine, fine, blocks) for fine, _ in steps)
        self.down = nn.ModuleList(Conv(fine, coarse, stride=2) for fine, coarse in steps)
        self.bottom = Row(widths[-1], widths[-1], blocks)
        self.attention = Attention(widths[-1]) if attention else nn.Identity()
        self.up = nn.ModuleList(Conv(coarse, fine) for fine, coarse in steps)
        self.ascent = nn.ModuleList(Row(2 * fine, fine, blocks) for fine, _ in steps)
        self.leave = touches_data(start_at_zero(Conv(widths[0], channels_in)))

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        shape = (self.config["channels_in"], self.config["size"], self.config["size"])
        if x.shape[1:] != shape:
            raise ValueError(f"this UNet is for images of shape {shape}, got {tuple(x.shape[1:])}")
        level = self.embed(log_sigma)
        h = self.enter(torch.cat([x, self.coordinates.expand(len(x), -1, -1, -1)], dim=1))
        bridges = []
        for row, down in zip(self.descent, self.down, strict=True):
            h = row(h, level)
            bridges.append(h)
            h = down(h)
        h = self.attention(self.bottom(h, level))
        for row, up in zip(reversed(self.ascent), reversed(self.up), strict=True):
            h = up(nn.functional.interpolate(h, scale_factor=2))           # nearest
            h = row(torch.cat([h, bridges.pop()], dim=1), level)
        return self.leave(h)                                               # (B, C, size, size)
