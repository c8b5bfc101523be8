"""The intrinsic dimension of data, read off a diffusion model's score (Stanczuk et al., ICML 2024)."""

from . import exact, manifolds, networks, sampler, score, svd, training
from .score import ScoreModel
from .svd import dimension_curve, spectrum

__version__ = "0.1.0"
__all__ = ["ScoreModel", "dimension_curve", "exact", "manifolds", "networks", "sampler", "score", "spectrum", "svd",
           "training"]
