"""A U-Net, and a second network that corrects its output in steps of the size of the noise."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks import register, start_at_zero, touches_data
from .unet import Conv, Row, UNet

__all__ = ["SecondLook"]


class Look(nn.Module):
    """Two residual blocks: (B, before, H, W) and the features of log σ to (B, after, H, W), zero before training."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.enter, self.row = touches_data(Conv(before, 16)), Row(16, 16, blocks=2)
        self.leave = touches_data(start_at_zero(Conv(16, after)))

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        return self.leave(self.row(self.enter(h), level))


@register
class SecondLook(UNet):
    """A U-Net, and a second network that corrects its output from the denoised image, in steps of size σ.

    Grey values end at black and at white, and the tangent space can change suddenly there: for example, if the
    brightest pixel of each image is white. Then D changes within a distance σ of white, and networks learn such steep
    functions last. As a function of (y − white)/σ, where y is the denoised image, it is not steep. So

        y = x + U(x, log σ),    F = U + σ' G(y, bumps),    bumps: exp(−½ ((y − a)/σ' − c)²),  c = −2, …, 2,

    for a = black, white, the darkest and the brightest grey value of y; σ' is σ in units of x; U is the U-Net, and G
    are two residual blocks of convolutions. Their norms amplify what only a few pixels show.

    Args:
        ends: black and white, in units of x. In a `ScoreModel` whose mean is one number: (grey − data_mean)/data_std.
        unit: the unit of x, divided by that of exp(log_sigma). In a `ScoreModel`: data_std/sigma_max.
        unet: all other arguments are those of `UNet`.

    Raises:
        ValueError: a unit that is not positive and finite, ends that are not finite, and the errors of `UNet`.
        TypeError: a unit or ends that are no numbers.
    """

    def __init__(self, ends: Sequence[float], unit: float, **unet):
        super().__init__(**unet)
        if not 0 < unit < math.inf:
            raise ValueError(f"unit={unit} must be positive and finite: give data_std/sigma_max of the model")
        if not all(map(math.isfinite, ends)):
            raise ValueError(f"ends={ends} must be finite: give black and white, in units of x")
        self.config |= {"ends": list(ends), "unit": unit}
        self.offsets: Tensor
        self.register_buffer("offsets", torch.arange(-2.0, 3.0)[:, None, None], persistent=False)
        channels = self.config["channels_in"]
        self.look = Look(channels * (1 + (len(ends) + 2) * len(self.offsets)) + 2, channels)

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        moved = super().forward(x, log_sigma)
        y = x + moved
        sigma = (log_sigma.exp() / self.config["unit"])[:, None, None, None]
        greys = *self.config["ends"], y.amin((1, 2, 3), keepdim=True), y.amax((1, 2, 3), keepdim=True)
        bumps = [(-((y_c - a) / sigma - self.offsets).square() / 2).exp() for y_c in y.split(1, 1) for a in greys]
        seen = torch.cat([y, *bumps, self.coordinates.expand(len(x), -1, -1, -1)], dim=1)
        return moved + sigma * self.look(seen, self.embed(log_sigma))
