"""The intrinsic dimension of data from a diffusion model's score (Stanczuk et al., ICML 2024).

The method is in ``score``, ``networks``, ``training``, ``sampler``, ``svd``, ``curve`` and ``seeds``. Around it are
rooms: ``data``, ``vision``, ``compare``, ``apply``, ``book``, and ``machine``, on which the method stands.
"""

from importlib import import_module

from . import vision  # noqa: F401 (registers its networks)
from .curve import dimension_curve
from .score import ScoreModel
from .svd import spectrum
from .training import train

__version__ = "0.2.0"

_LATER = {  # loaded when first used, because they or what they need take time to load
    "DiffusionDimension": "apply.estimator", "denoising_loss": "compare.readouts", "exact": "data.exact",
    "flipd": "compare.readouts", "manifolds": "data.manifolds", "pretrained": "apply.pretrained",
    "tangent_sketch": "compare.readouts"}

__all__ = ["ScoreModel", "dimension_curve", "spectrum", "train", *_LATER]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'dimlib' has no attribute {name!r}")
    module = import_module(f".{_LATER[name]}", __name__)
    return getattr(module, name, module)                                   # what is in the module, or the module


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
