"""The score model: a network becomes a denoiser.

A **denoiser** is any callable D(x, sigma) that returns the conditional mean E[x_0 | x_0 + σ ε = x]. Here x_0 is a
data point and ε is standard Gaussian noise. The points x have the shape ``(B, *shape)``, sigma is a number or has the
shape (B,), and the result has the shape, dtype and device of x. Every function of this library takes any denoiser.

The noise is variance exploding (VE). Two other forms of a denoiser (Robbins 1956; Efron 2011) are the noise prediction
ε̂(x, σ) = (x − D(x, σ))/σ and the score ∇ log p_σ(x) = (D(x, σ) − x)/σ² = −ε̂(x, σ)/σ.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .machine.checks import check_sigma, check_values
from .machine.compute import beside, in_float64
from .machine.saved import Saved

__all__ = ["Denoiser", "ScoreModel", "noise_prediction", "score_at"]

Denoiser = Callable[[Tensor, float | Tensor], Tensor]


def noise_prediction(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """ε̂(x, σ) = (x − D(x, σ))/σ, same shape as x: near the data the normal part of the noise."""
    check_sigma(sigma)
    return (x - denoiser(x.clone(), sigma)) / beside(sigma, x)


def score_at(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """The score ∇ log p_σ(x) = (D(x, σ) − x)/σ², same shape as x, in units of 1/x."""
    return -noise_prediction(denoiser, x, sigma) / beside(sigma, x)


PARAMETRISATIONS = {  # r = σ/s → skip, out, scale of (D(x, σ) − m)/s = skip · y + out · F(y/scale), y = (x − m)/s
    "data": lambda r: (1, 1, 1),
    "noise": lambda r: (1, -r, (1 + r**2).sqrt()),
    "edm": lambda r: (1 / (1 + r**2), r / (1 + r**2).sqrt(), (1 + r**2).sqrt()),
}


class ScoreModel(Saved):
    """A denoiser made of a network F. With m = data_mean, s = data_std, y = (x − m)/s and r = σ/s it is

    ========  ====================================================================================
    "data"    D = m + s (y + F(y))                                                       (default)
    "noise"   D = m + s (y − r F(y/√(1 + r²)))                                         (the paper's)
    "edm"     D = m + s (y/(1 + r²) + r/√(1 + r²) F(y/√(1 + r²)))              (Karras et al. 2022)
    ========  ====================================================================================

    F also gets log(σ/σ_max). So units and origin of x change nothing. For small σ, the F of "data" is as smooth as
    the data's manifold. The F of the other two has the slope 1/r across the manifold, which is hard to learn.

    Args:
        net: a network, such as ``dimlib.networks.MLP``.
        data_std: standard deviation of the data over all entries, in data units.
        data_mean: mean of the data, a number or a tensor of one point's shape.
        parametrisation: "data", "noise" or "edm".
        sigma_min, sigma_max: the range of noise levels, in data units. Training and calls stay in it.

    Raises:
        ValueError: bad arguments; when called, points of another shape, or, outside training mode, sigma out of range.
    """

    def __init__(self, net: nn.Module, data_std: float, data_mean: float | Tensor = 0.0,
                 parametrisation: str = "data", sigma_min: float = 0.01, sigma_max: float = 1.0):
        super().__init__()
        if parametrisation not in PARAMETRISATIONS:
            raise ValueError(f"parametrisation {parametrisation!r} is none of {', '.join(PARAMETRISATIONS)}")
        if not 0 < data_std < float("inf"):
            raise ValueError(f"data_std={data_std} must be positive and finite: are the data constant?")
        if not 0 < sigma_min < sigma_max < float("inf"):
            raise ValueError(f"need 0 < sigma_min < sigma_max, both finite, got {sigma_min} and {sigma_max}")
        self.net, self.parametrisation = net.float(), parametrisation
        self.data_std, self.sigma_min, self.sigma_max = float(data_std), float(sigma_min), float(sigma_max)
        mean = torch.as_tensor(data_mean).detach().cpu().double()
        if not mean.float().isfinite().all():
            raise ValueError(f"data_mean={data_mean} must be finite: remove NaN and infinite values from the data")
        self.data_mean: Tensor
        self.mean_rest: Tensor
        self.register_buffer("data_mean", mean.float())
        self.register_buffer("mean_rest", (mean - mean.float()).float())   # Apple's GPU has no float64
        self.eval()

    @classmethod
    def for_data(cls, net: nn.Module, x: Tensor, **options) -> "ScoreModel":
        """A model for data x, shape ``(N, *shape)``: data_mean is their mean, data_std the root mean square of all
        entries of x − data_mean. ``options`` are the other arguments of ``ScoreModel``."""
        x = check_values(in_float64(torch.as_tensor(x)))
        return cls(net, (x - x.mean(0)).square().mean().sqrt().item(), x.mean(0), **options)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if self.data_mean.ndim and x.shape[1:] != self.data_mean.shape:
            raise ValueError(f"this model is for points of shape {tuple(self.data_mean.shape)}, "
                             f"got {tuple(x.shape[1:])}")
        if not x.is_floating_point():
            raise ValueError(f"x has dtype {x.dtype}: convert it to floating point, as with x.float()")
        for level in () if self.training else torch.as_tensor(sigma).aminmax():
            if not 0.9999 * self.sigma_min <= level <= 1.0001 * self.sigma_max:
                raise ValueError(f"sigma={level:g} is outside this model's range, {self.sigma_min:g} to "
                                 f"{self.sigma_max:g}")
        y = (x.to(torch.promote_types(x.dtype, torch.float32)) - self.data_mean - self.mean_rest) / self.data_std
        level = beside(sigma, y)
        skip, out, scale = PARAMETRISATIONS[self.parametrisation](level / self.data_std)
        moved = self.net((y / scale).float(), (level.flatten() / self.sigma_max).log().float())
        return (self.data_std * (skip * y + out * moved) + self.mean_rest + self.data_mean).to(x.dtype)

    @property
    def config(self) -> dict:
        """The arguments of ``ScoreModel`` except the network and the mean, which is among the weights."""
        return {name: getattr(self, name) for name in ("data_std", "parametrisation", "sigma_min", "sigma_max")}
