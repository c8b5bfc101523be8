"""Networks: a vector (or an image) and a noise level in, a vector (or an image) of the same shape out.

Every network is called as ``net(x, log_sigma)`` with x of shape ``(B, *shape)`` and log_sigma of shape (B,),
and starts as the zero function, so that training starts from "the displacement is zero".
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["MLP", "SecondLook", "UNet"]


class FourierFeatures(nn.Module):
    """log σ of shape (B,) to sines and cosines at eight fixed frequencies, shape (B, 16)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-1, 1, 8), persistent=False)

    def forward(self, log_sigma: Tensor) -> Tensor:
        angles = log_sigma[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """One residual block: h + W₂ silu(W₁ norm(h) + V e), with e the embedding of log σ."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.level, self.outer = nn.Linear(width, width), nn.Linear(16, width), nn.Linear(width, width)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        return h + self.outer(nn.functional.silu(self.inner(self.norm(h)) + self.level(level)))


class MLP(nn.Module):
    """A residual MLP with a linear path beside it: F(x, log σ) = L x + W_out blocks(W_in x).

    The linear path learns the affine hull of the data at once; the blocks learn what is curved. L and
    W_out start at zero. Images are flattened on the way in and restored on the way out.

    Args:
        dim: ambient dimension d, of an image the number of its entries.
        width: width of the residual stream.
        blocks: number of residual blocks.
    """

    def __init__(self, dim: int, width: int = 192, blocks: int = 3):
        super().__init__()
        self.config = {"dim": dim, "width": width, "blocks": blocks}
        self.embed = FourierFeatures()
        self.linear = nn.Linear(dim, dim)
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.leave = nn.Linear(width, dim)
        for last in (self.linear, self.leave):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        if x.shape[1:].numel() != self.config["dim"]:
            raise ValueError(f"this MLP is for points of shape ({self.config['dim']},), got {tuple(x.shape[1:])}")
        level = self.embed(log_sigma)
        flat = x.flatten(1)                                                # (B, d)
        h = self.enter(flat)
        for block in self.blocks:
            h = block(h, level)
        return (self.linear(flat) + self.leave(h)).reshape(x.shape)


class Conv(nn.Linear):
    """A convolution as a linear map of patches of side × side pixels, so that its weights are one matrix (for Muon)."""

    def __init__(self, before: int, after: int, side: int = 3, stride: int = 1):
        super().__init__(before * side**2, after)
        self.side, self.stride = side, stride

    def forward(self, h: Tensor) -> Tensor:
        kernel = self.weight.view(len(self.weight), -1, self.side, self.side)
        return nn.functional.conv2d(h, kernel, self.bias, self.stride, self.side // 2)


def _norm(channels: int) -> nn.GroupNorm:
    """Normalisation in eight groups of channels, or in as many as divide them."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ConvBlock(nn.Module):
    """One residual block on images: S h + W₂ ∗ silu(norm(W₁ ∗ silu(norm(h))) + V e), with e the embedding of log σ.

    W₁ and W₂ are 3×3; S is the identity, or 1×1 where the number of channels changes. V e is one number per
    channel and is added behind the norm, which would take away its mean.
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
        self.enter, self.leave = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.enter(self.norm(h).flatten(2).mT).chunk(3, dim=2)   # (B, pixels, c) each
        mixed = (q @ k.mT / q.shape[2] ** 0.5).softmax(dim=2) @ v
        return h + self.leave(mixed).mT.reshape(h.shape)


class UNet(nn.Module):
    """A U-Net for square images: down to half the size level by level, and up again, with a bridge at every size.

    ::

        x, row, column → enter → blocks ──────── concatenate ───────→ blocks → leave      size
                                   ↓ down                            ↑ up
                                 blocks ──────── concatenate ───────→ blocks              size/2
                                   ↓ down                            ↑ up
                                 blocks ────────→ attention ─────────→                    size/4

    The coordinates of each pixel are two channels of the input, since the manifolds here do not look the same
    everywhere; log σ enters every block; the last convolution starts at zero. There is no norm before it, which
    would hide how far x is from the manifold. Ronneberger et al. 2015; the blocks, norms and attention of Ho et al.
    2020 (DDPM); Fourier features of the noise level as in Song et al. 2021.

    The paper's size is ``channels=128, multipliers=(1, 2, 2, 2), blocks=4``, 31 million parameters. A DDPM has its
    attention at 16×16 and a bridge from every block; here are one at the coarsest and one from every level.

    Args:
        size, channels_in: images have the shape (channels_in, size, size), and so has what comes back.
        channels, multipliers: width of the first level, and of each level in units of it.
        blocks: residual blocks per level, on the way down and on the way up.
        attention: whether the pixels of the coarsest level see each other.

    Raises:
        ValueError: a size that cannot be halved once for every level but one.
    """

    def __init__(self, size: int = 32, channels_in: int = 1, channels: int = 16,
                 multipliers: Sequence[int] = (1, 2, 4), blocks: int = 1, attention: bool = True):
        super().__init__()
        if blocks < 1 or not multipliers:
            raise ValueError(f"blocks={blocks}, multipliers={multipliers}: need at least one block and one level")
        step = 2 ** (len(multipliers) - 1)
        if size < 1 or size % step:
            below = max(step, size // step * step)
            raise ValueError(f"size={size} cannot be halved for {len(multipliers)} levels: use a multiple of {step}, "
                             f"such as {below} or {below + step}, or fewer multipliers")
        self.config = {"size": size, "channels_in": channels_in, "channels": channels,
                       "multipliers": list(multipliers), "blocks": blocks, "attention": attention}
        line = torch.linspace(-1, 1, size)
        self.register_buffer("coordinates", torch.stack(torch.meshgrid(line, line, indexing="ij")), persistent=False)
        self.embed = FourierFeatures()
        widths = [channels * m for m in multipliers]
        steps = list(pairwise(widths))                                     # (fine, coarse), one for each halving
        self.enter = Conv(channels_in + 2, widths[0])
        self.descent = nn.ModuleList(Row(fine, fine, blocks) for fine, _ in steps)
        self.down = nn.ModuleList(Conv(fine, coarse, stride=2) for fine, coarse in steps)
        self.bottom = Row(widths[-1], widths[-1], blocks)
        self.attention = Attention(widths[-1]) if attention else nn.Identity()
        self.up = nn.ModuleList(Conv(coarse, fine) for fine, coarse in steps)
        self.ascent = nn.ModuleList(Row(2 * fine, fine, blocks) for fine, _ in steps)
        self.leave = Conv(widths[0], channels_in)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

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


class Look(nn.Module):
    """Two residual blocks at one size, (B, before, H, W) and the embedding of log σ to (B, after, H, W), at first zero."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.enter, self.row, self.leave = Conv(before, 16), Row(16, 16, blocks=2), Conv(16, after)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        return self.leave(self.row(self.enter(h), level))


class SecondLook(UNet):
    """A U-Net, and a second look at the image that it has denoised, with the resolution of the noise.

    Grey values have two ends, and a family of images may have a corner there: the brightest pixel of each is white,
    say. Then D is flat where the brightest grey value is within σ of white, and steep elsewhere. So sharp a function
    of x is what a network learns last. In units of σ, and once the image is denoised, it is not sharp:

        y = x + U(x, log σ),    F = U + σ' G(y, bumps),    bumps: exp(−½ ((y − a)/σ' − c)²),  c = −2, …, 2,

    where a runs through black, white, and the darkest and the brightest grey value of y itself; σ' = σ/unit; U is the
    U-Net, and G two residual blocks of convolutions. Their norms lift what only a few pixels have.

    Args:
        ends: black and white, in units of x; in a `ScoreModel`, (grey − data_mean)/data_std, its mean being one number.
        unit: the unit of x, in units of σ; in a `ScoreModel`, its data_std.
        unet: everything else is for `UNet`.

    Raises:
        ValueError: a unit that is not positive, or what `UNet` refuses.
    """

    def __init__(self, ends: Sequence[float], unit: float, **unet):
        super().__init__(**unet)
        if not unit > 0:
            raise ValueError(f"unit={unit} must be positive: use the standard deviation of the data")
        self.config |= {"ends": list(ends), "unit": unit}
        self.register_buffer("offsets", torch.arange(-2.0, 3.0)[:, None, None], persistent=False)
        channels = self.config["channels_in"]
        self.look = Look(channels * (1 + (len(ends) + 2) * len(self.offsets)) + 2, channels)

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        moved = super().forward(x, log_sigma)
        y = x + moved
        sigma = (log_sigma.exp() / self.config["unit"])[:, None, None, None]
        greys = *self.config["ends"], y.amin((1, 2, 3), keepdim=True), y.amax((1, 2, 3), keepdim=True)
        bumps = [(-((channel - a) / sigma - self.offsets).square() / 2).exp() for channel in y.split(1, 1) for a in greys]
        seen = torch.cat([y, *bumps, self.coordinates.expand(len(x), -1, -1, -1)], dim=1)
        return moved + sigma * self.look(seen, self.embed(log_sigma))
