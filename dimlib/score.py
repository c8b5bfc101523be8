"""The score model: a network becomes a denoiser.

A **denoiser** is any callable D(x, sigma) that returns the conditional mean E[x_0 | x_0 + σ ε = x]. Here x_0 is a
data point and ε is standard Gaussian noise. The points x have the shape ``(B, *shape)``, sigma is a number or has the
shape (B,), and the result has the shape, dtype and device of x. Every function of this library takes any denoiser.

The noise is variance exploding (VE). Two other forms of a denoiser (Robbins 1956; Efron 2011) are the noise prediction
ε̂(x, σ) = (x − D(x, σ))/σ and the score ∇ log p_σ(x) = (D(x, σ) − x)/σ² = −ε̂(x, σ)/σ.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from . import networks
from .machine.tensors import read_tensors, write_tensors

__all__ = ["Denoiser", "ScoreModel", "noise_prediction", "score_at"]

Denoiser = Callable[[Tensor, float | Tensor], Tensor]


def noise_prediction(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """ε̂(x, σ) = (x − D(x, σ))/σ, same shape as x: near the data the normal part of the noise."""
    return (x - denoiser(x, sigma)) / beside(sigma, x)


def score_at(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """The score ∇ log p_σ(x) = (D(x, σ) − x)/σ², same shape as x, in units of 1/x."""
    return (denoiser(x, sigma) - x) / beside(sigma, x) ** 2


def beside(sigma: float | Tensor, x: Tensor) -> Tensor:
    """sigma with the shape (B, 1, …, 1), so that it multiplies x of shape ``(B, *shape)`` point by point."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    return sigma.flatten().expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))


PARAMETRISATIONS = {  # σ, s → skip, out, scale of D(x, σ) = skip · x + out · F(x/scale, log σ)
    "data": lambda sigma, s: (1.0, s, s),
    "noise": lambda sigma, s: (1.0, -sigma, (s**2 + sigma**2).sqrt()),
    "edm": lambda sigma, s: (s**2 / (s**2 + sigma**2), sigma * s / (s**2 + sigma**2).sqrt(), (s**2 + sigma**2).sqrt()),
}


class ScoreModel(nn.Module):
    """A denoiser made of a network F(x, log σ). With x centred and s = data_std, the parametrisations are

    ========  ==========================================================================================
    "data"    D = x + s F(x/s, log σ)                                                         (default)
    "noise"   D = x − σ F(x/√(s² + σ²), log σ)                                             (the paper's)
    "edm"     D = s²/(s² + σ²) x + σ s/√(s² + σ²) F(x/√(s² + σ²), log σ)            (Karras et al. 2022)
    ========  ==========================================================================================

    For small σ, what "data" lets the network learn is as smooth as the data's manifold; for the other two the slope of
    F across the manifold is 1/σ, which is hard to learn. ``ScoreModel.for_data`` takes mean and std from the data.

    Args:
        net: a network, such as ``dimlib.networks.MLP``.
        data_std, data_mean: standard deviation of the data, a number; their mean, a number or of one point's shape.
        sigma_min, sigma_max: the range of noise levels, in data units: it is trained on, and accepts, no others.

    Raises:
        ValueError: bad arguments; when called, points of another shape than data_mean, or sigma outside the range.
    """

    def __init__(self, net: nn.Module, data_std: float, data_mean: float | Tensor = 0.0,
                 parametrisation: str = "data", sigma_min: float = 0.01, sigma_max: float = 1.0):
        super().__init__()
        if parametrisation not in PARAMETRISATIONS:
            raise ValueError(f"parametrisation {parametrisation!r} is none of {', '.join(PARAMETRISATIONS)}")
        if not data_std > 0:
            raise ValueError(f"data_std={data_std}: the data's standard deviation must be positive; is it constant?")
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.net, self.parametrisation = net, parametrisation
        self.data_std, self.sigma_min, self.sigma_max = float(data_std), float(sigma_min), float(sigma_max)
        self.register_buffer("data_mean", torch.as_tensor(data_mean, dtype=torch.float32).clone())

    @classmethod
    def for_data(cls, net: nn.Module, x: Tensor, **options) -> "ScoreModel":
        """A model for data x, shape ``(N, *shape)``, with their mean and standard deviation; options as above."""
        return cls(net, x.std().item(), x.mean(0), **options)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if self.data_mean.ndim and x.shape[1:] != self.data_mean.shape:
            raise ValueError(f"this model is for points of shape {tuple(self.data_mean.shape)}, "
                             f"got {tuple(x.shape[1:])}")
        if not isinstance(sigma, Tensor) and not 0.9999 * self.sigma_min <= sigma <= 1.0001 * self.sigma_max:
            raise ValueError(f"sigma={sigma:g} is outside this model's range, {self.sigma_min:g} to {self.sigma_max:g}")
        centred = x.to(self.data_mean.dtype) - self.data_mean
        sigma = beside(sigma, centred)
        skip, out, scale = PARAMETRISATIONS[self.parametrisation](sigma, self.data_std)
        return (self.data_mean + skip * centred + out * self.net(centred / scale, sigma.flatten().log())).to(x.dtype)

    @property
    def config(self) -> dict:
        """Everything except the weights: enough for ``load`` to build the model again."""
        return {"network": type(self.net).__name__, "network_config": self.net.config, "data_std": self.data_std,
                "parametrisation": self.parametrisation, "sigma_min": self.sigma_min, "sigma_max": self.sigma_max}

    def save(self, path: str | Path) -> None:
        """Write a safetensors file. ``ValueError`` for a network that is not registered, since it could not be read."""
        networks.known(type(self.net).__name__)
        write_tensors(self.state_dict(), path, {"score_model": json.dumps(self.config)})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "ScoreModel":
        """Read a model that ``save`` wrote. ``ValueError`` for any other file."""
        weights, config = read_tensors(path, "score_model")
        net = networks.known(config.pop("network"))(**config.pop("network_config"))
        model = cls(net, data_mean=weights["data_mean"], **config)
        model.load_state_dict(weights)
        return model.to(device)
