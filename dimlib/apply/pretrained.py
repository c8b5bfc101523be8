"""Models trained elsewhere: a denoiser from a network of diffusers, or from any noise prediction.

The input of such a network F is x_t = α x_0 + β ε at a time t. The input of a denoiser is variance exploding:
x = x_t/α = x_0 + σ ε with σ = β/α. F predicts x_0, ε or a linear combination of them. The denoiser is

    D(x, σ) = skip · x + out · F(α x, t).

σ determines α (from the scaling of x_t), skip and out (from what F predicts) and t (from the noise schedule).
Between two times of the schedule, t is interpolated linearly in log σ. So σ can be any number in the model's range.

x and σ are in the units of the model. Images are mostly scaled to [−1, 1], so σ is twice as large as for images in
[0, 1]. For a latent diffusion model, x is a latent code, and the dimension is that of the set of latent codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import torch
from torch import Tensor, nn

from ..machine.checks import as_numbers, check_count, check_positive, check_values
from ..machine.compute import rows_per_batch

__all__ = ["PretrainedDenoiser", "from_diffusers", "from_noise_prediction"]

Pair = tuple[Tensor, Tensor]
Schedule = tuple[Callable[[Tensor], Pair], Callable[[Tensor, Tensor], Pair], float, float]

# For each quantity that F can predict: (skip, out) from α and β.
PREDICTIONS: dict[str, Callable[[Tensor, Tensor], Pair]] = {
    "epsilon": lambda a, b: (torch.ones_like(a), -b / a),                            # ε
    "sample": lambda a, b: (torch.zeros_like(a), torch.ones_like(a)),                # x_0
    "v_prediction": lambda a, b: (a**2 / (a**2 + b**2), -b / (a**2 + b**2)),         # α ε − β x_0
    "flow_prediction": lambda a, b: (a / (a + b), -b / (a + b)),                     # ε − x_0
    "score": lambda a, b: (torch.ones_like(a), b**2 / a),                            # −ε/β
}
FORMULAS: dict[str, Callable[..., Pair]] = PREDICTIONS | {                           # σ ↦ (α, t), constants first
    "flow": lambda steps, sigma: (1 / (1 + sigma), steps * sigma / (1 + sigma)),
    "exploding": lambda sigma: (torch.ones_like(sigma), sigma),
    "continuous": lambda sigma: ((1 + sigma**2) ** -0.5, sigma.log() / 4),
    "edm": lambda s, noise, sigma: ((s**2 + sigma**2) ** -0.5, noise(sigma)),        # Karras et al. 2022, Table 1
    "edm_output": lambda s, sign, a, b: (s**2 * a**2, sign * s * b),                 # its (skip, out) from α and β
}


def _formula(name, *numbers):
    """A formula by its name, since ``partial(_formula, name)`` can be pickled and a lambda function cannot."""
    return FORMULAS[name](*numbers)


@dataclass(frozen=True, repr=False)
class PretrainedDenoiser:
    """A denoiser D(x, sigma) from `from_diffusers` or `from_noise_prediction`. It is differentiable in x.

    x has the shape ``(B, *shape)``, sigma is a number or has the shape (B,). Returns E[x_0 | x], with the shape and the
    dtype of x. It can be copied and pickled if the network can be.

    Attributes:
        network: F(x_t, t), with x_t of shape ``(B, *shape)`` and t of shape (B,), not always a whole number.
        scaling: σ ↦ (α, t). prediction: (α, β) ↦ (skip, out). All have the shape (B,), in float64.
        sigma_min, sigma_max: range of noise levels, in the units of x.
        batch_size: rows per call of the network; where None, chosen from the memory.

    Raises:
        TypeError: when called, a sigma that is no number.
        ValueError: when called, points x that are not finite, or not in floating point; sigma of another shape, or more
            than 1 % outside the range; an F that returns another shape.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    scaling: Callable[[Tensor], Pair]
    prediction: Callable[[Tensor, Tensor], Pair]
    sigma_min: float
    sigma_max: float
    batch_size: int | None = None

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        check_values(x)
        levels = self._levels(sigma, len(x))
        alpha, t = self.scaling(levels)
        factors = alpha, *self.prediction(alpha, levels * alpha)
        wide = torch.promote_types(x.dtype, torch.float32)                 # half precision would round t and D
        alpha, skip, out = (factor.to(x.device, wide).view(-1, *[1] * (x.ndim - 1)) for factor in factors)
        rows = rows_per_batch(self.batch_size, x.shape[1:].numel(), x.device)
        parts = zip((alpha * x).to(x.dtype).split(rows), t.to(x.device, wide).split(rows), strict=True)
        answer = torch.cat([self.network(*part) for part in parts])
        if answer.shape != x.shape:
            raise ValueError(f"the network returned shape {tuple(answer.shape)} for x of shape {tuple(x.shape)}: it "
                             "must predict something for every entry of x, and nothing else")
        return (skip * x + out * answer).to(x.dtype)

    def _levels(self, sigma, rows):
        sigma = as_numbers("sigma", sigma)
        if sigma.shape not in ((), (1,), (rows,)):
            raise ValueError(f"sigma has shape {tuple(sigma.shape)}, and x has {rows} rows: give one number, or a "
                             f"tensor of shape ({rows},)")
        outside = ~((0.99 * self.sigma_min <= sigma) & (sigma <= 1.01 * self.sigma_max))
        if outside.any():
            raise ValueError(f"sigma={sigma[outside][0]:g} is outside this model's range, {self.sigma_min:.4g} to "
                             f"{self.sigma_max:.4g}: it was trained for no other noise")
        return sigma.expand(rows)

    def __repr__(self) -> str:
        return f"PretrainedDenoiser, σ from {self.sigma_min:.3g} to {self.sigma_max:.3g}"


def from_noise_prediction(function: Callable[[Tensor, Tensor], Tensor], alphas: Sequence[float] | Tensor,
                          sigmas: Sequence[float] | Tensor, batch_size: int | None = None) -> PretrainedDenoiser:
    """A denoiser from a function that predicts the noise: function(x_t, t) ≈ ε for x_t = α_t x_0 + σ_t ε.

    The denoiser takes x = x_t/α_t and σ = σ_t/α_t. Between two times, t and log √(α_t² + σ_t²) are interpolated
    linearly in log σ, and α = √(α_t² + σ_t²)/√(1 + σ²). For a variance preserving model √(α_t² + σ_t²) = 1: α is exact.

    Args:
        function: takes x_t, shape ``(B, *shape)``, in the dtype of x, and t, shape (B,), a float and not always whole.
            If your network knows whole times only, round t, and use only noise levels σ_t/α_t of the schedule.
        alphas, sigmas: α_t and σ_t for t = 0 … T − 1, shape (T,). For a DDPM: √ᾱ_t and √(1 − ᾱ_t), with ᾱ_t the
            cumulative product. Times with α_t = 0 or σ_t = 0 are left out. Where diffusers writes a last ᾱ_t of 2⁻²⁴
            for pure noise (rescale_betas_zero_snr), leave that time out.
        batch_size: rows per call of the function; chosen from the memory where not given.

    Raises:
        TypeError: a function that cannot be called, or is a class; alphas or sigmas that are no numbers.
        ValueError: alphas and sigmas of other shapes, or with a number that is negative or not finite; a ratio σ_t/α_t
            that does not rise at every time or fall at every time, or has fewer than two values.
    """
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"function must be a function or a network, which is called with x_t and t, got {function!r}")
    return PretrainedDenoiser(function, *_discrete(alphas, sigmas, partial(_formula, "epsilon")), batch_size)


def from_diffusers(unet: nn.Module, scheduler, batch_size: int | None = None, **conditioning) -> PretrainedDenoiser:
    """A denoiser from a trained network and a scheduler of diffusers. This function does not import diffusers.

    =================  ======================  ===============================================================
    scheduler          α                       trained as
    =================  ======================  ===============================================================
    alphas_cumprod     1/√(1 + σ²)             DDPM (Ho et al. 2020): DDPM, DDIM, PNDM, DPMSolver…, Euler, …
    EDM…               1/√(s² + σ²)            Karras et al. 2022, s = sigma_data
    ScoreSdeVe         1                       Song et al. 2021, the network predicts the score at time t = σ
    FlowMatch…         1/(1 + σ)               x_t = (1 − u) x_0 + u ε at time t = 1000 u
    =================  ======================  ===============================================================

    The scheduler gives only the noise levels and times of training, and what the network predicts. Its settings for
    sampling (steps, clipping, thresholding) are not used, so two schedulers of one model give the same denoiser.
    Distilled models (LCM, Turbo) and guided predictions raise no error. But they are not conditional means, so a
    dimension computed from them has no meaning.

    Args:
        unet: called as ``unet(x_t, t, **conditioning)``, in its own dtype and on the device of x. If its output has
            twice as many channels as x_t, the second half is a learned variance and is left out. Half precision rounds
            x_t to 3 digits, which adds noise: use ``unet.float()`` for small σ. Wrap a network with another signature,
            such as a transformer, in a function of x_t and t.
        scheduler: the scheduler that the model was trained or published with.
        batch_size: rows per call of the network; chosen from the memory where not given.
        conditioning: further arguments of the network, such as ``class_labels=3`` or
            ``encoder_hidden_states`` (1, tokens, width): tensors of length 1, which are repeated for every row, or
            dictionaries of such tensors. Only for class_labels, a whole number becomes such a tensor.

    Raises:
        TypeError: an unknown scheduler; a pipeline, a class or None; the network and the scheduler in the wrong order;
            class_labels that are neither a whole number nor a tensor.
        ValueError: an unknown kind of prediction, or two of them; a conditioning tensor of another length; a network
            with a table of times; a scheduler with fewer than two times, or with noise levels that are not positive;
            when called, a network in training mode, or x with another number of channels.
    """
    _check_order(unet, scheduler)
    if _config(unet).get("time_embedding_type") == "learned":
        raise ValueError("this network looks its times up in a table and knows no others: give from_noise_prediction a "
                         "function that rounds t, and ask at the noise levels of its schedule only")
    network = partial(_called, unet, _conditions(conditioning))
    return PretrainedDenoiser(network, *_schedule(scheduler), batch_size)


def _called(unet, conditioning, x, t):
    """F(x_t, t): the network in its own precision, with its conditioning, and without a learned variance."""
    if getattr(unet, "training", False):
        raise ValueError("the network is in training mode, in which dropout makes it random: call unet.eval()")
    channels = _config(unet).get("in_channels", x.shape[1])
    if channels != x.shape[1]:
        raise ValueError(f"this network is for images with {channels} channels, (B, channels, height, width), got "
                         f"{tuple(x.shape)}")
    parameters = unet.parameters() if isinstance(unet, nn.Module) else ()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), x.dtype)
    answer = unet(x.to(dtype), t, **_repeated(conditioning, len(x), x.device, dtype))
    answer = answer if isinstance(answer, Tensor) else answer[0]
    return answer[:, : x.shape[1]] if answer.shape[1] == 2 * x.shape[1] else answer


def _schedule(scheduler) -> Schedule:
    """scaling, prediction, sigma_min and sigma_max for a scheduler of diffusers."""
    config, name = _config(scheduler), type(scheduler).__name__
    low, high = config.get("sigma_min"), config.get("sigma_max")

    def setting(key):
        if config.get(key) is None:
            raise ValueError(f"the config of {name} has no {key}: make the scheduler again, with {key} as an argument")
        return config[key]

    flow = name.startswith("FlowMatch") or config.get("use_flow_sigmas")
    kind = _kind(scheduler, "flow_prediction" if flow else "epsilon")
    prediction = partial(_formula, kind)
    if hasattr(scheduler, "precondition_noise"):
        check_positive(sigma_data=setting("sigma_data"), sigma_min=setting("sigma_min"), sigma_max=setting("sigma_max"))
        s, sign = setting("sigma_data"), -1 if kind == "v_prediction" else 1
        scaling: Callable[[Tensor], Pair] = partial(_formula, "edm", s, scheduler.precondition_noise)
        return scaling, partial(_formula, "edm_output", s, sign), setting("sigma_min"), setting("sigma_max")
    if hasattr(scheduler, "discrete_sigmas"):
        check_positive(sigma_min=setting("sigma_min"), sigma_max=setting("sigma_max"))
        return partial(_formula, "exploding"), partial(_formula, "score"), setting("sigma_min"), setting("sigma_max")
    if flow or kind == "flow_prediction":
        steps = setting("num_train_timesteps")
        check_count("num_train_timesteps", steps, least=2, advice=": give the scheduler of the training")
        return partial(_formula, "flow", steps), prediction, 1 / (steps - 1), steps - 1.0
    if hasattr(scheduler, "alphas_cumprod"):
        share = as_numbers("alphas_cumprod", scheduler.alphas_cumprod)
        share = share[:-1] if config.get("rescale_betas_zero_snr") else share    # pure noise, of which some write 2⁻²⁴
        scaling, _, first, last = _discrete(share.sqrt(), (1 - share).sqrt(), prediction)
        if config.get("timestep_type") == "continuous" and kind == "v_prediction":   # only in Euler schedulers
            return partial(_formula, "continuous"), prediction, low or first, high or last
        return scaling, prediction, first, last
    raise TypeError(f"{name} is no scheduler that from_diffusers knows: those with alphas_cumprod (DDPM, DDIM, Euler, "
                    "…), EDM, ScoreSdeVe and FlowMatch. Write the network as a noise prediction and use "
                    "from_noise_prediction, which takes any")


def _kind(scheduler, default):
    """What the network predicts, by the settings of the scheduler, or by its attribute."""
    config, own = _config(scheduler), getattr(scheduler, "__dict__", {})
    kind = config["prediction_type"] if "prediction_type" in config else getattr(scheduler, "prediction_type", default)
    if "prediction_type" in own and own["prediction_type"] != kind:
        raise ValueError(f"scheduler.prediction_type is {own['prediction_type']!r}, but scheduler.config has {kind!r}: "
                         "make the scheduler again, with the right prediction_type as an argument")
    if kind not in PREDICTIONS:
        raise ValueError(f"{type(scheduler).__name__} has prediction_type {kind!r}, which is none of "
                         f"{', '.join(PREDICTIONS)}: write it as a noise prediction and use from_noise_prediction")
    return kind


def _discrete(alphas, betas, prediction) -> Schedule:
    """scaling, prediction, sigma_min and sigma_max for a model that was trained at T times."""
    alphas, betas = as_numbers("alphas", alphas).detach(), as_numbers("sigmas", betas).detach()
    if alphas.ndim != 1 or alphas.shape != betas.shape:
        raise ValueError("alphas and sigmas must be two rows of numbers, one of each for every time, got shapes "
                         f"{tuple(alphas.shape)} and {tuple(betas.shape)}")
    if not (alphas.isfinite() & betas.isfinite() & (alphas >= 0) & (betas >= 0)).all():
        raise ValueError("alphas and sigmas must be finite and not negative: x_t = alphas[t] x_0 + sigmas[t] ε")
    (times,) = ((alphas > 0) & (betas > 0)).nonzero(as_tuple=True)         # without pure data and pure noise
    logs, norms = (betas / alphas)[times].log(), (alphas**2 + betas**2)[times].log() / 2
    if len(logs) > 1 and logs[0] > logs[-1]:
        times, logs, norms = times.flip(0), logs.flip(0), norms.flip(0)
    if len(logs) < 2 or not (logs.diff() > 0).all():
        raise ValueError("the noise level sigmas[t]/alphas[t] must rise at every time, or fall at every time, and take "
                         "at least two values: are these the factors of x_0 and ε, and not their squares or products?")
    return partial(_interpolated, times.double(), logs, norms), prediction, logs[0].exp().item(), logs[-1].exp().item()


def _interpolated(times, logs, norms, sigma):
    upper = torch.searchsorted(logs, sigma.log()).clamp(1, len(logs) - 1)
    lower = upper - 1
    weight = ((sigma.log() - logs[lower]) / (logs[upper] - logs[lower])).clamp(0, 1)
    norm = torch.lerp(norms[lower], norms[upper], weight).exp()
    return norm * (1 + sigma**2) ** -0.5, torch.lerp(times[lower], times[upper], weight)


def _config(thing):
    """The settings of a network or a scheduler, which diffusers keeps in a dictionary."""
    config = getattr(thing, "config", None)
    return config if isinstance(config, dict) else getattr(config, "__dict__", {})


def _check_order(unet, scheduler):
    for name, thing in (("unet", unet), ("scheduler", scheduler)):
        if isinstance(thing, type):
            raise TypeError(f"{name} is the class {thing.__name__}: give an object, made with its from_pretrained")
        if hasattr(thing, "scheduler") and not isinstance(thing, nn.Module):
            raise TypeError(f"{name} is a whole pipeline, {type(thing).__name__}: give two parts of it, its network, "
                            "such as pipeline.unet, and pipeline.scheduler")
    if not callable(unet) or isinstance(scheduler, nn.Module):
        raise TypeError(f"unet is of the type {type(unet).__name__}, and scheduler of the type "
                        f"{type(scheduler).__name__}: give a network first and its scheduler second")


def _conditions(value, name=""):
    """The conditioning, checked. Its tensors have a length of 1 and no gradients, which could not be copied."""
    if isinstance(value, dict):
        return {key: _conditions(part, f"{name}.{key}" if name else key) for key, part in value.items()}
    if name == "class_labels" and isinstance(value, Integral):
        value = torch.tensor([int(value)])
    if name == "class_labels" and not isinstance(value, Tensor | None):
        raise TypeError(f"class_labels is a {type(value).__name__}: give a whole number, such as class_labels=3")
    if isinstance(value, Tensor) and value.ndim and len(value) != 1:
        raise ValueError(f"{name} has length {len(value)}: a denoiser has one condition, so give it a length "
                         "of 1, and make one denoiser for each condition")
    return value.detach() if isinstance(value, Tensor) else value


def _repeated(value, rows, device, dtype):
    """The conditioning repeated for that many rows, on the device; floating-point tensors in the given dtype."""
    if isinstance(value, dict):
        return {name: _repeated(part, rows, device, dtype) for name, part in value.items()}
    if not isinstance(value, Tensor):
        return value
    value = value.to(device, dtype if value.is_floating_point() else value.dtype)
    return value.expand(rows, *value.shape[1:]) if value.ndim else value
