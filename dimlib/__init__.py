"""The intrinsic dimension of data, read off a diffusion model's score (Stanczuk et al., ICML 2024)."""

from . import curve, exact, images, manifolds, networks, sampler, score, svd, training
from .curve import dimension_curve
from .score import ScoreModel
from .svd import spectrum

__version__ = "0.1.0"
__all__ = [
    "ScoreModel", "curve", "dimension_curve", "exact", "images", "manifolds", "networks", "sampler", "score",
    "spectrum", "svd", "training"]
