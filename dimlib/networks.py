"""Networks: a vector (or an image) and a noise level in, a vector (or an image) of the same shape out.

Every network is called as ``net(x, log_sigma)`` with x of shape ``(B, *shape)`` and log_sigma of shape (B,),
and starts as the zero function, so that training starts from "the displacement is zero".
"""

import torch
from torch import Tensor, nn

__all__ = ["MLP"]


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
    W_out start at zero.

    Args:
        dim: ambient dimension d.
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
        if x.shape[1:] != (self.config["dim"],):
            raise ValueError(f"this MLP is for points of shape ({self.config['dim']},), got {tuple(x.shape[1:])}")
        level = self.embed(log_sigma)
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, level)
        return self.linear(x) + self.leave(h)                              # (B, d)
