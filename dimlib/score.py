"""The score model: a network and a parametrisation make a denoiser.

The contract of the whole library: a **denoiser** is any callable D(x, sigma) that returns
E[x_0 | x_0 + σ ε = x]; x is ``(B, *shape)``, sigma a number or (B,), the result has the shape, dtype and
device of x. The noise is variance exploding (VE): x = x_0 + σ ε. Two views follow (Robbins 1956;
Efron 2011): the noise prediction ε̂ = (x − D)/σ and the score s = ∇ log p_σ(x) = (D − x)/σ² = −ε̂/σ.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from . import networks

__all__ = ["Denoiser", "ScoreModel", "noise_prediction", "score"]

Denoiser = Callable[[Tensor, float | Tensor], Tensor]


def noise_prediction(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """ε̂(x, σ) = (x − D(x, σ))/σ, same shape as x: about 1 per normal, 0 per tangent direction."""
    return (x - denoiser(x, sigma)) / _beside(sigma, x)


def score(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """∇ log p_σ(x) = (D(x, σ) − x)/σ², same shape as x, in units of 1/x."""
    return (denoiser(x, sigma) - x) / _beside(sigma, x) ** 2


def _beside(sigma: float | Tensor, x: Tensor) -> Tensor:
    """sigma as (B, 1, …, 1), to be multiplied with x of shape ``(B, *shape)``."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    return sigma.expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))


# Three parametrisations of one denoiser. x is centred, s is the standard deviation of the data.

def _data(net: nn.Module, x: Tensor, sigma: Tensor, s: float) -> Tensor:
    """Displacement in data units: the network learns the projection on M, a 1-Lipschitz function."""
    return x + s * net(x / s, sigma.flatten().log())


def _noise(net: nn.Module, x: Tensor, sigma: Tensor, s: float) -> Tensor:
    """Noise prediction (the paper's): the network itself must be 1/σ-steep across M."""
    return x - sigma * net(x / (s**2 + sigma**2).sqrt(), sigma.flatten().log())


def _edm(net: nn.Module, x: Tensor, sigma: Tensor, s: float) -> Tensor:
    """Karras et al. 2022: a skip that shrinks towards the mean, an output scaled by about σ."""
    total = (s**2 + sigma**2).sqrt()
    return s**2 / total**2 * x + sigma * s / total * net(x / total, sigma.flatten().log())


PARAMETRISATIONS = {"data": _data, "noise": _noise, "edm": _edm}


class ScoreModel(nn.Module):
    """A denoiser from a network F(x, log σ). With x centred and s = data_std, the parametrisations are

    ========  ==========================================================================
    "data"    D = x + s F(x/s, log σ)                                         (default)
    "noise"   D = x − σ F(x/√(s² + σ²), log σ)                             (the paper's)
    "edm"     D = s²/(s² + σ²) x + σ s/√(s² + σ²) F(x/√(s² + σ²), log σ)        (Karras)
    ========  ==========================================================================

    Args:
        net: a network of ``dimlib.networks``.
        data_std: standard deviation of the data, over all entries; data units.
        data_mean: mean of the data, a number or a tensor of one point's shape.
        parametrisation: one of the above.
        sigma_min, sigma_max: range of noise levels to train and to ask for, in data units.
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

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if self.data_mean.ndim and x.shape[1:] != self.data_mean.shape:
            raise ValueError(f"this model is for points of shape {tuple(self.data_mean.shape)}, "
                             f"got {tuple(x.shape[1:])}")
        if not isinstance(sigma, Tensor) and not 0.9999 * self.sigma_min <= sigma <= 1.0001 * self.sigma_max:
            raise ValueError(f"sigma={sigma:g} is outside this model's range, {self.sigma_min:g} to {self.sigma_max:g}")
        centred = x.to(self.data_mean.dtype) - self.data_mean
        denoise = PARAMETRISATIONS[self.parametrisation]
        return (self.data_mean + denoise(self.net, centred, _beside(sigma, centred), self.data_std)).to(x.dtype)

    @property
    def config(self) -> dict:
        """Everything but the weights, enough for ``load`` to build the model again."""
        return {"network": type(self.net).__name__, "network_config": self.net.config, "data_std": self.data_std,
                "parametrisation": self.parametrisation, "sigma_min": self.sigma_min, "sigma_max": self.sigma_max}

    def save(self, path: str | Path) -> None:
        """Write the weights to ``path`` (safetensors, with the configuration in its header), atomically."""
        write_tensors(self.state_dict(), path, {"score_model": json.dumps(self.config)})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "ScoreModel":
        """Read a model that ``save`` wrote. ``ValueError`` if the file is something else."""
        weights, config = read_tensors(path, "score_model")
        net = getattr(networks, config.pop("network"))(**config.pop("network_config"))
        model = cls(net, data_mean=weights["data_mean"], **config)
        model.load_state_dict(weights)
        return model.to(device)


def write_tensors(tensors: dict[str, Tensor], path: str | Path, header: dict[str, str]) -> None:
    """Write a safetensors file through a temporary one, so that a killed process leaves the old file whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    safetensors.torch.save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary, header)
    os.replace(temporary, path)


def read_tensors(path: str | Path, entry: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors and one header entry of a file that `write_tensors` wrote; ``ValueError`` for another file."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            header = (file.metadata() or {})[entry]
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} has no {entry!r} entry in a safetensors header: it is no such file") from error
    return safetensors.torch.load_file(str(path)), json.loads(header)
