"""The network for vectors, and the parts that all networks share. Networks for images are in ``dimlib.vision``.

A network is called as ``net(x, log_sigma)`` with x of shape ``(B, *shape)`` and log_sigma of shape (B,), and returns
the shape of x. Its last layers start at zero, so that an untrained model with the parametrisation "data" returns x.
"""

import torch
from torch import Tensor, nn

from .machine.checks import check_count, check_counts
from .machine.saved import register

__all__ = ["FourierFeatures", "MLP", "start_at_zero", "touches_data"]


def touches_data(layer: nn.Module) -> nn.Module:
    """Mark a layer that reads or writes data: `machine.descent` uses Adam for it, and Muon for the matrices between."""
    layer.touches_data = True  # type: ignore[assignment]  # PyTorch's types know no others than tensors and modules
    return layer


def start_at_zero(layer: nn.Linear) -> nn.Linear:
    """Set weights and bias to 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FourierFeatures(nn.Module):
    """log σ of shape (B,) to its sines and cosines at eight fixed frequencies, shape (B, 16)."""

    def __init__(self):
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(-1, 1, 8), persistent=False)

    def forward(self, log_sigma: Tensor) -> Tensor:
        angles = log_sigma[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Waves(nn.Module):
    """Points of shape (B, d) to sines and cosines of 64 random projections, shape (B, 128) (Rahimi & Recht 2007)."""

    def __init__(self, dim: int):
        super().__init__()
        self.projections: Tensor
        self.register_buffer("projections", torch.randn(dim, 64) * 8 ** torch.linspace(0, 1, 64) / dim**0.5)

    def forward(self, x: Tensor) -> Tensor:
        angles = x @ self.projections
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """One residual block: h + W₂ silu(W₁ norm(h) + V e), where e are the Fourier features of log σ."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.level, self.outer = nn.Linear(width, width), nn.Linear(16, width), nn.Linear(width, width)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        return h + self.outer(nn.functional.silu(self.inner(self.norm(h)) + self.level(level)))


@register
class MLP(nn.Module):
    """A residual MLP and a linear map side by side: F(x, log σ) = L x + W_out blocks(W_in x).

    The linear map L learns the affine hull of the data first; the blocks learn what is curved. L and W_out start at
    zero. Points of any shape are flattened before and get their shape back afterwards.

    Args:
        dim: ambient dimension d, for images the number of their entries.
        width, blocks: number of entries of h between the residual blocks, and number of these blocks, 0 or more.
        waves: give the blocks Fourier features of x, too: good for data that bend much, bad above dimension 4 or so.
    """

    def __init__(self, dim: int, width: int = 192, blocks: int = 3, waves: bool = False):
        super().__init__()
        check_counts(dim=dim, width=width)
        check_count("blocks", blocks, least=0)
        self.config = {"dim": dim, "width": width, "blocks": blocks, "waves": waves}
        self.embed = FourierFeatures()
        self.linear = touches_data(start_at_zero(nn.Linear(dim, dim)))
        self.waves = Waves(dim) if waves else None
        self.enter = touches_data(nn.Linear(dim + 128 * waves, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.leave = touches_data(start_at_zero(nn.Linear(width, dim)))

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        if x.shape[1:].numel() != self.config["dim"]:
            raise ValueError(f"this MLP is for points of shape ({self.config['dim']},), got {tuple(x.shape[1:])}")
        level = self.embed(log_sigma)
        flat = x.flatten(1)                                                # (B, d)
        h = self.enter(flat if self.waves is None else torch.cat([flat, self.waves(flat)], dim=1))
        for block in self.blocks:
            h = block(h, level)
        return (self.linear(flat) + self.leave(h)).reshape(x.shape)
