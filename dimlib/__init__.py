"""The intrinsic dimension of data, read off a diffusion model's score (Stanczuk et al., ICML 2024)."""

from . import curve, estimator, exact, images, manifolds, networks, readouts, sampler, score, svd, training
from .curve import dimension_curve
from .estimator import DiffusionDimension
from .readouts import denoising_loss, flipd, tangent_sketch
from .score import ScoreModel
from .svd import spectrum

__version__ = "0.1.0"
__all__ = [
    "DiffusionDimension", "ScoreModel", "curve", "denoising_loss", "dimension_curve", "estimator", "exact", "flipd",
    "images", "manifolds", "networks", "readouts", "sampler", "score", "spectrum", "svd", "tangent_sketch", "training"]
