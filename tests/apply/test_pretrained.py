"""Models of diffusers and of others: networks that predict exactly give back the exact denoiser."""

import copy
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dimlib
from dimlib.apply.pretrained import from_diffusers, from_noise_prediction
from dimlib.data import exact, images, manifolds

os.environ["HF_HUB_OFFLINE"] = "1"  # read when diffusers is imported: no model hub is ever asked
diffusers = pytest.importorskip("diffusers")

SHAPE = (1, 4, 5)
PLANE = manifolds.Plane(dim=3, ambient_dim=20, seed=1)
PLANE_DENOISER = exact.denoiser(PLANE)
ALPHAS_BAR = torch.linspace(1 - 1e-4, 1 - 0.02, 1000, dtype=torch.float64).cumprod(0)  # Ho et al. 2020


def mean(x, sigma):
    """E[x_0 | x_0 + σ ε = x] of images whose pixels lie on a plane."""
    return PLANE_DENOISER(x.flatten(1), sigma).view_as(x)


def points(n=6):
    return PLANE.sample(n, seed=1).double().view(n, *SHAPE)


def noisy(sigma, n=6):
    return points(n) + sigma * torch.randn(n, *SHAPE, dtype=torch.float64)


def says(kind, alpha_beta):
    """A network that predicts exactly, at times at which x_t = α x_0 + β ε with (α, β) = alpha_beta(t)."""

    def network(x_t, t):
        a, b = (torch.as_tensor(c).to(x_t).view(-1, 1, 1, 1) for c in alpha_beta(t.double()))
        x0 = mean(x_t / a, (b / a).flatten())
        noise = (x_t - a * x0) / b
        return {"epsilon": noise, "sample": x0, "v_prediction": a * noise - b * x0, "flow_prediction": noise - x0,
                "score": -noise / b}[kind]

    return network


def preserving(alphas_bar):
    """t ↦ (α, β) between the times of a schedule, by np.interp on log β/α."""
    bar = np.asarray(alphas_bar, dtype=np.float64)
    bar = bar[bar > 0]
    logs = np.log(np.sqrt((1 - bar) / bar))

    def alpha_beta(t):
        sigma = np.exp(np.interp(t.numpy(), np.arange(len(logs)), logs))
        return 1 / np.sqrt(1 + sigma**2), sigma / np.sqrt(1 + sigma**2)

    return alpha_beta


def levels(denoiser, n=7):
    return np.geomspace(denoiser.sigma_min, min(denoiser.sigma_max, 100), n)


def assert_is_the_plane(denoiser, atol=1e-7):
    for sigma in levels(denoiser):
        x = noisy(sigma)
        assert torch.allclose(denoiser(x, sigma), mean(x, sigma), atol=atol, rtol=0), sigma


SCHEDULES = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos": {"beta_schedule": "squaredcos_cap_v2"},
    "trained betas": {"trained_betas": [0.02, 0.03, 0.05, 0.1, 0.3]},
    "pure noise at the end": {"rescale_betas_zero_snr": True},
}


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddpm_networks_that_predict_exactly_are_the_exact_denoiser(schedule, kind):
    scheduler = diffusers.DDPMScheduler(prediction_type=kind, **SCHEDULES[schedule])
    denoiser = from_diffusers(says(kind, preserving(scheduler.alphas_cumprod)), scheduler)
    assert_is_the_plane(denoiser, atol=1e-6)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("DDIMScheduler", "v_prediction"),
        ("PNDMScheduler", "epsilon"),
        ("DPMSolverMultistepScheduler", "sample"),
        ("UniPCMultistepScheduler", "v_prediction"),
        ("HeunDiscreteScheduler", "epsilon"),
        ("EulerDiscreteScheduler", "epsilon"),
        ("EulerAncestralDiscreteScheduler", "v_prediction"),
    ],
)
def test_schedulers_of_one_model_give_one_denoiser(name, kind):
    scheduler = getattr(diffusers, name)(prediction_type=kind, beta_start=0.0001, beta_end=0.02)
    denoiser = from_diffusers(says(kind, preserving(ALPHAS_BAR)), scheduler)
    before = denoiser(x := noisy(0.3), 0.3)
    scheduler.set_timesteps(7)  # how it samples does not matter
    assert torch.equal(from_diffusers(denoiser.network, scheduler)(x, 0.3), before)
    assert torch.allclose(before, mean(x, 0.3), atol=1e-3)  # float32 in the schedule
    assert denoiser.sigma_min == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_preconditioning(kind):
    """Karras et al. 2022, Table 1, written out."""
    s = 0.7

    def network(x_in, c_noise):
        sigma = (4 * c_noise).exp().view(-1, 1, 1, 1)
        total = (s**2 + sigma**2).sqrt()
        x = x_in * total
        answer = (mean(x, sigma.flatten()) - s**2 / total**2 * x) / (sigma * s / total)
        return answer if kind == "epsilon" else -answer

    for scheduler in (diffusers.EDMEulerScheduler, diffusers.EDMDPMSolverMultistepScheduler):
        denoiser = from_diffusers(network, scheduler(sigma_data=s, prediction_type=kind))
        assert (denoiser.sigma_min, denoiser.sigma_max) == (0.002, 80)
        assert_is_the_plane(denoiser)


def test_a_continuous_euler_scheduler():
    """Time is log σ / 4 and the scaling that of a VP model."""

    def alpha_beta(t):
        sigma = (4 * t).exp()
        return 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()

    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", sigma_min=0.002, sigma_max=700.0
    )
    denoiser = from_diffusers(says("v_prediction", alpha_beta), scheduler)
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0.002, 700)
    assert_is_the_plane(denoiser)


def test_variance_exploding_networks_predict_the_score():
    denoiser = from_diffusers(
        says("score", lambda t: (torch.ones_like(t), t)), diffusers.ScoreSdeVeScheduler(sigma_max=50.0)
    )
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0.01, 50)
    assert_is_the_plane(denoiser)


def test_flow_matching():
    """x_t = (1 − u) x_0 + u ε at t = 1000 u, and the network predicts ε − x_0."""
    network = says("flow_prediction", lambda t: (1 - t / 1000, t / 1000))
    assert_is_the_plane(from_diffusers(network, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)))
    solver = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert_is_the_plane(from_diffusers(network, solver))


@pytest.mark.parametrize(
    "name, kind",
    [
        ("DDPMScheduler", "epsilon"),
        ("DDPMScheduler", "sample"),
        ("DDIMScheduler", "v_prediction"),
        ("EulerDiscreteScheduler", "epsilon"),
        ("EulerDiscreteScheduler", "v_prediction"),
        ("EDMEulerScheduler", "epsilon"),
        ("EDMEulerScheduler", "v_prediction"),
    ],
)
def test_any_network_denoises_as_a_step_of_its_scheduler_does(name, kind):
    """diffusers' own x_0, of a network that is not even right."""
    scheduler = getattr(diffusers, name)(prediction_type=kind)
    scheduler.register_to_config(clip_sample=False)
    scheduler.set_timesteps(10)
    weights = torch.randn(3, 3)

    def network(x, t):
        return torch.einsum("ij,bjhw->bihw", weights, x).sin() + t.view(-1, 1, 1, 1) / 1000

    for i in (2, 6):
        t = scheduler.timesteps[i]
        x_in = torch.randn(2, 3, 4, 4)
        if "Euler" in name:  # x is scaled by the scheduler
            scheduler._step_index = None
            sigma = scheduler.sigmas[i].item()
            x, sample = x_in, x_in
            x_in = scheduler.scale_model_input(x, t)
        else:
            bar = scheduler.alphas_cumprod[t].double()
            sigma = ((1 - bar) / bar).sqrt().item()
            x, sample = (x_in.double() / bar.sqrt()).float(), x_in
        expected = scheduler.step(network(x_in, t.float().expand(2)), t, sample).pred_original_sample
        assert torch.allclose(from_diffusers(network, scheduler)(x, sigma), expected, atol=1e-4, rtol=1e-4)


PURE_NOISE = {"prediction_type": "v_prediction", "beta_schedule": "linear", "rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    "name",
    ["DDPMScheduler", "DDIMScheduler", "CogVideoXDDIMScheduler", "EulerDiscreteScheduler",
     "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"],
)  # fmt: skip
def test_models_trained_to_pure_noise(name):
    """Four of them write 2⁻²⁴ for the last ᾱ, more than the one before it. It is pure noise, and left out."""
    scheduler = getattr(diffusers, name)(**PURE_NOISE)
    before = scheduler.alphas_cumprod.clone()
    network = says("v_prediction", preserving(scheduler.alphas_cumprod[:-1]))
    denoiser = from_diffusers(network, scheduler)
    assert_is_the_plane(denoiser, atol=1e-6)
    assert denoiser.sigma_max == pytest.approx(scheduler.alphas_cumprod[-2].item() ** -0.5)
    assert torch.equal(scheduler.alphas_cumprod, before)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler",
                                  "EulerAncestralDiscreteScheduler"])  # fmt: skip
def test_pure_noise_models_denoise_as_diffusers_does(name):
    """v prediction is converted as diffusers converts it, and at the times of its steps."""
    scheduler = getattr(diffusers, name)(**PURE_NOISE)
    scheduler.set_timesteps(10)
    weights = torch.randn(3, 3)

    def network(x, t):
        return torch.einsum("ij,bjhw->bihw", weights, x).sin() + t.view(-1, 1, 1, 1) / 1000

    for i in (2, 6):
        scheduler._step_index = i
        t, sigma, x = scheduler.timesteps[i], scheduler.sigmas[i].item(), torch.randn(2, 3, 4, 4)
        x_t = x / (1 + sigma**2) ** 0.5
        said = network(x_t, t.float().expand(2))
        if "Euler" in name:
            expected = scheduler.step(said, t, x).pred_original_sample
        else:
            expected = scheduler.convert_model_output(said, sample=x_t)
        assert torch.allclose(from_diffusers(network, scheduler)(x, sigma), expected, atol=1e-3, rtol=1e-3)


def noise_model(alphas=None, sigmas=None, **more):
    alphas = ALPHAS_BAR.sqrt() if alphas is None else alphas
    sigmas = (1 - ALPHAS_BAR).sqrt() if sigmas is None else sigmas
    return from_noise_prediction(says("epsilon", preserving(ALPHAS_BAR)), alphas, sigmas, **more)


def test_noise_prediction_is_fed_exactly_what_belongs_to_sigma():
    asked = []

    def network(x_t, t):
        asked.append((x_t, t))
        return torch.zeros_like(x_t)

    denoiser = from_noise_prediction(network, ALPHAS_BAR.sqrt(), (1 - ALPHAS_BAR).sqrt())
    x = noisy(0.3)
    steps = ((1 - ALPHAS_BAR) / ALPHAS_BAR).sqrt()
    sigma = torch.tensor([steps[0], steps[7], (steps[7] * steps[8]).sqrt(), 0.3, 2.0, steps[999]])
    assert torch.equal(denoiser(x, sigma), x)
    ((x_t, t),) = asked
    assert torch.allclose(x_t * (1 + sigma**2).sqrt().view(-1, 1, 1, 1), x, atol=1e-12)
    assert torch.allclose(t[[0, 1, 2, 5]], torch.tensor([0, 7, 7.5, 999]).double(), atol=1e-5)


def test_noise_prediction_of_other_schedules():
    """Falling noise, variance exploding noise, and lists; t need not be whole."""
    backwards = preserving(ALPHAS_BAR)
    falling = from_noise_prediction(
        says("epsilon", lambda t: backwards(999 - t)), ALPHAS_BAR.sqrt().flip(0), (1 - ALPHAS_BAR).sqrt().flip(0)
    )
    assert_is_the_plane(falling)
    sigmas = np.geomspace(0.01, 10, 401)
    exploding = from_noise_prediction(
        says("epsilon", lambda t: (torch.ones_like(t), 0.01 * 1000 ** (t / 400))), np.ones(401).tolist(), sigmas
    )
    assert_is_the_plane(exploding, atol=1e-4)


def test_a_noise_level_for_each_row():
    denoiser, x = noise_model(), noisy(0.3)
    sigma = torch.tensor([0.02, 0.05, 0.1, 0.5, 1, 20])
    together = denoiser(x, sigma)
    for i in range(6):
        for one in (sigma[i], sigma[i].item(), sigma[i : i + 1]):
            assert torch.allclose(together[i : i + 1], denoiser(x[i : i + 1], one), atol=1e-12)
    assert torch.allclose(together, mean(x, sigma), atol=1e-6)


def test_dimension_of_the_plane():
    for scheduler in (diffusers.DDPMScheduler(prediction_type="v_prediction"), diffusers.EulerDiscreteScheduler()):
        kind = scheduler.config.prediction_type
        denoiser = from_diffusers(says(kind, preserving(scheduler.alphas_cumprod)), scheduler)
        for x in (points(), points().float()):
            assert (dimlib.spectrum(denoiser, x, 0.05).dimension() == 3).all()
            sketch = dimlib.tangent_sketch(denoiser, x, 0.05)
            assert (sketch.dimension() == 3).all()
    true = PLANE.tangent_basis(PLANE.sample(1, seed=1).double())[0]
    assert torch.linalg.svdvals(torch.from_numpy(sketch.tangent[0]).double() @ true).min() > 0.999


def test_it_can_be_differentiated():
    found = dimlib.flipd(noise_model(), points(2), 0.05).dimension()
    assert np.allclose(found, dimlib.flipd(PLANE_DENOISER, points(2).flatten(1), 0.05).dimension(), atol=1e-5)


def test_chunks_give_the_same_answer():
    rows = []

    def network(x, t):
        rows.append(len(x))
        return x.sin() + t.view(-1, 1, 1, 1)

    scheduler, x, sigma = diffusers.DDPMScheduler(), noisy(0.3, 10), torch.linspace(0.1, 3, 10)
    whole = from_diffusers(network, scheduler)(x, sigma)
    assert torch.allclose(from_diffusers(network, scheduler, batch_size=4)(x, sigma), whole)
    assert rows == [10, 4, 4, 2]
    from_noise_prediction(network, [0.9, 0.5], [0.1, 0.5], batch_size=7)(x, 0.3)
    assert rows[4:] == [7, 3]


def unet(channels=3, out_channels=None, **more):
    torch.manual_seed(1)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=channels, out_channels=out_channels or channels, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, add_attention=False, **more,
    ).eval()  # fmt: skip


def test_class_labels_are_passed_on_and_repeated():
    network, scheduler, x = unet(num_class_embeds=5), diffusers.DDPMScheduler(), torch.randn(4, 3, 8, 8)
    first, second = (from_diffusers(network, scheduler, class_labels=torch.tensor([c])) for c in (0, 3))
    assert not torch.allclose(first(x, 0.5), second(x, 0.5))
    scaled = x / 1.25**0.5
    _, t = second.scaling(torch.tensor([0.5], dtype=torch.float64))
    with torch.no_grad():
        noise = network(scaled, t.float().expand(4), class_labels=torch.full((4,), 3)).sample
        assert torch.allclose(second(x, 0.5), x - 0.5 * noise, atol=1e-5)


@pytest.mark.parametrize("label", [3, np.int64(3), torch.tensor(3)])
def test_a_class_label_may_be_a_number(label):
    network, scheduler, x = unet(num_class_embeds=5), diffusers.DDPMScheduler(), torch.randn(4, 3, 8, 8)
    one, same = (from_diffusers(network, scheduler, class_labels=c)(x, 0.5) for c in (label, torch.tensor([3])))
    assert torch.allclose(one, same, atol=1e-6)


def test_text_conditioning_is_passed_on():
    torch.manual_seed(1)
    network = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=6, attention_head_dim=4,
    ).eval()  # fmt: skip
    x, scheduler = torch.randn(3, 4, 8, 8), diffusers.DDIMScheduler()
    one, other = (
        from_diffusers(network, scheduler, encoder_hidden_states=torch.randn(1, 7, 6))(x, 1.0) for _ in range(2)
    )
    assert one.shape == x.shape
    assert not torch.allclose(one, other)


def test_all_kinds_of_conditioning():
    received = {}

    def network(x, t, **more):
        received.update(more)
        return x

    x = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    conditioning = {"return_dict": False, "guidance": torch.tensor(3.0), "added": {"text": torch.ones(1, 5)}}
    label = torch.tensor([2])
    from_diffusers(network, diffusers.DDPMScheduler(), class_labels=label, **conditioning)(x, 0.5)
    assert received["class_labels"].tolist() == [2] * 4
    assert received["return_dict"] is False
    assert received["guidance"] == 3
    assert received["added"]["text"].shape == (4, 5)
    assert received["added"]["text"].dtype == torch.float64


@pytest.mark.parametrize("half, atol", [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_a_half_precision_network_is_called_in_its_own_precision(half, atol):
    network, scheduler, x = unet(num_class_embeds=2), diffusers.DDPMScheduler(), torch.randn(4, 3, 8, 8)
    label = torch.tensor([1])
    full = from_diffusers(network, scheduler, class_labels=label)(x, 0.5)
    network.to(half)
    for dtype in (torch.float32, torch.float64):
        answer = from_diffusers(network, scheduler, class_labels=label)(x.to(dtype), 0.5)
        assert answer.dtype == dtype
        assert torch.allclose(answer.float(), full, atol=atol)
        assert not torch.equal(answer.float(), full)


@pytest.mark.parametrize("half, atol", [(torch.float16, 0.005), (torch.bfloat16, 0.04)])
def test_half_precision_points(half, atol):
    """The answer has their dtype, and its only error is their rounding."""
    network, x = unet(), torch.randn(4, 3, 8, 8).to(half)
    for denoiser in (from_diffusers(network, diffusers.DDPMScheduler()), noise_model_of_sines()):
        answer = denoiser(x, 3.0)
        assert answer.dtype == half
        assert torch.allclose(answer.float(), denoiser(x.float(), 3.0), atol=atol, rtol=atol)


def test_half_precision_points_at_large_noise():
    """Factors of D such as σ² = 90 000, which are infinite in half precision, are used in single precision."""

    def network(x_t, t):
        return -x_t / (1 + t.view(-1, 1) ** 2)

    x = 300 * torch.randn(4, 5).half()
    assert from_diffusers(network, diffusers.ScoreSdeVeScheduler())(x, 300.0).abs().max() < 0.5  # rounding of x


def test_points_that_require_a_gradient():
    denoiser, x = noise_model_of_sines(), torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(denoiser(x, 0.5).sum(), x)
    assert torch.allclose(slope, 1 - 0.5 / 1.25**0.5 * (x / 1.25**0.5).cos(), atol=1e-9)


def sines(x_t, t):
    return x_t.sin()


def noise_model_of_sines():
    return from_noise_prediction(sines, ALPHAS_BAR.sqrt(), (1 - ALPHAS_BAR).sqrt())


def test_what_a_scheduler_predicts_can_be_its_attribute():
    """Without settings, or with settings that do not say it; settings need not be a dictionary."""
    bar, expected = ALPHAS_BAR, from_diffusers(sines, diffusers.DDPMScheduler(prediction_type="v_prediction"))
    for scheduler in (
        SimpleNamespace(alphas_cumprod=bar, prediction_type="v_prediction"),
        SimpleNamespace(alphas_cumprod=bar, prediction_type="v_prediction", config={"num_train_timesteps": 1000}),
        SimpleNamespace(alphas_cumprod=bar, config=SimpleNamespace(prediction_type="v_prediction")),
        type("Own", (), {"alphas_cumprod": bar, "prediction_type": property(lambda self: "v_prediction")})(),
    ):
        x = torch.randn(3, 5)
        assert torch.allclose(from_diffusers(sines, scheduler)(x, 0.5), expected(x, 0.5), atol=1e-5)


SCHEDULERS = [
    diffusers.DDPMScheduler(), diffusers.DPMSolverMultistepScheduler(**PURE_NOISE), diffusers.EDMEulerScheduler(),
    diffusers.EDMDPMSolverMultistepScheduler(prediction_type="v_prediction"), diffusers.ScoreSdeVeScheduler(),
    diffusers.FlowMatchEulerDiscreteScheduler(),
    diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous", sigma_min=0.002,
                                     sigma_max=700.0),
]  # fmt: skip


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy], ids=["pickle", "copy"])
def test_a_copy_gives_the_same_values(copied):
    network, x = unet(num_class_embeds=5), torch.randn(2, 3, 8, 8)
    embedding = torch.ones(1, 5, requires_grad=True).exp()  # not a leaf, which torch does not copy
    denoisers = [from_diffusers(network, scheduler, class_labels=3) for scheduler in SCHEDULERS]
    denoisers.append(from_diffusers(sines_and_more, SCHEDULERS[0], added={"text": embedding}))
    factors = (bar.sqrt().requires_grad_() * 1 for bar in (ALPHAS_BAR, 1 - ALPHAS_BAR))
    denoisers.append(from_noise_prediction(sines, *factors))
    for denoiser in denoisers:
        other = copied(denoiser)
        assert repr(other) == repr(denoiser)
        assert torch.equal(other(x, 0.5), denoiser(x, 0.5))
    assert copied(denoisers[0]).network is not denoisers[0].network


def sines_and_more(x_t, t, added):
    return x_t.sin() + added["text"].sum(1)[:, None, None, None]


def test_an_estimator_with_a_denoiser_can_be_pickled():
    estimator = dimlib.DiffusionDimension(noise_model_of_sines(), sigmas=[0.5])
    other = pickle.loads(pickle.dumps(estimator))
    x = torch.randn(2, 5)
    assert torch.equal(other.denoiser(x, 0.5), estimator.denoiser(x, 0.5))


def test_a_learned_variance_is_left_out():
    def network(x, t):
        return torch.cat([x.sin(), torch.full_like(x, torch.nan)], dim=1)

    x = torch.randn(4, 3, 8, 8)
    one, two = (from_diffusers(f, diffusers.DDPMScheduler())(x, 0.5) for f in (network, lambda x, t: x.sin()))
    assert torch.equal(one, two)
    assert from_diffusers(unet(out_channels=6), diffusers.DDPMScheduler())(x, 0.5).shape == x.shape


def test_short_repr():
    assert repr(noise_model()) == "PretrainedDenoiser, σ from 0.01 to 157"


# Bad input.

@pytest.mark.parametrize(
    "sigma", [0.005, 200, 0, -0.1, float("nan"), float("inf"), torch.tensor([0.1, 0.005]), torch.tensor([0.1, -1]),
              torch.tensor([np.nan, 0.1]), np.array([0.1, 200]), torch.tensor(0)],
)  # fmt: skip
def test_sigma_outside_of_the_range(sigma):
    with pytest.raises(ValueError, match="outside this model's range, 0.01 to 157.4"):
        noise_model()(noisy(0.1, 2), sigma)


@pytest.mark.parametrize("sigma", [torch.full((3,), 0.1), torch.full((2, 1), 0.1), torch.ones(1, 1), torch.ones(0)])
def test_sigma_of_another_shape(sigma):
    shape = str(tuple(sigma.shape)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"sigma has shape {shape}, and x has 2 rows: give one number"):
        noise_model()(noisy(0.1, 2), sigma)


@pytest.mark.parametrize("sigma", [None, "0.1", 1j])
def test_sigma_that_is_no_number(sigma):
    with pytest.raises(TypeError, match="sigma=.* does not hold numbers: give numbers, or a tensor"):
        noise_model()(noisy(0.1, 2), sigma)


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.ones(2, 5, dtype=torch.int64), "x has dtype torch.int64: convert it"),
        (torch.ones(2, 5, dtype=torch.complex64), "x has dtype torch.complex64"),
        (torch.ones(5), "x must be a tensor of points"),
        (np.ones((2, 5)), "x must be a tensor of points.*ndarray"),
        (torch.full((2, 5), torch.nan), "NaN"),
    ],
)
def test_points_that_are_not_real_numbers(x, message):
    with pytest.raises(ValueError, match=message):
        noise_model_of_sines()(x, 0.5)


def test_the_range_forgives_rounding():
    """The smallest level of this schedule is 0.0100005, and 0.0100013 in the float32 in which diffusers keeps it."""
    scheduler = diffusers.DDPMScheduler()
    denoiser = from_diffusers(says("epsilon", preserving(scheduler.alphas_cumprod)), scheduler)
    assert 0.9999 * denoiser.sigma_min > 0.01
    x = noisy(0.01)
    assert torch.allclose(denoiser(x, 0.01), mean(x, 0.01), atol=1e-3)


def test_network_of_another_shape():
    with pytest.raises(ValueError, match=r"returned shape \(2, 1, 4, 4\) for x of shape \(2, 1, 4, 5\)"):
        from_noise_prediction(lambda x, t: x[..., :4], [0.9, 0.5], [0.1, 0.5])(noisy(0.1, 2), 0.5)


def test_images_with_other_channels():
    with pytest.raises(ValueError, match="images with 3 channels"):
        from_diffusers(unet(), diffusers.DDPMScheduler())(torch.randn(2, 1, 8, 8), 0.5)


def test_network_in_training_mode():
    with pytest.raises(ValueError, match="call unet.eval()"):
        from_diffusers(unet().train(), diffusers.DDPMScheduler())(torch.randn(2, 3, 8, 8), 0.5)


def test_network_with_a_table_of_times():
    with pytest.raises(ValueError, match="looks its times up in a table"):
        from_diffusers(unet(time_embedding_type="learned", num_train_timesteps=1000), diffusers.DDPMScheduler())


def test_conditioning_of_another_length():
    with pytest.raises(ValueError, match="class_labels has length 2: a denoiser has one condition"):
        from_diffusers(unet(), diffusers.DDPMScheduler(), class_labels=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="added.text has length 3"):
        from_diffusers(unet(), diffusers.DDPMScheduler(), added={"text": torch.ones(3, 4)})


def test_a_class_label_that_is_no_number():
    for label in ("cat", 2.5, [3]):
        with pytest.raises(TypeError, match=f"class_labels is a {type(label).__name__}: give a whole number"):
            from_diffusers(unet(), diffusers.DDPMScheduler(), class_labels=label)


def pipeline():
    return diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())


@pytest.mark.parametrize(
    "network, scheduler, message",
    [
        (unet, lambda: diffusers.DDPMScheduler, "scheduler is the class DDPMScheduler: give an object, made"),
        (lambda: diffusers.UNet2DModel, diffusers.DDPMScheduler, "unet is the class UNet2DModel: give an object"),
        (pipeline, diffusers.DDPMScheduler, "unet is a whole pipeline, DDPMPipeline: .* pipeline.unet, and"),
        (unet, pipeline, "scheduler is a whole pipeline, DDPMPipeline"),
        (lambda: SimpleNamespace(unet=unet(), scheduler=None), diffusers.DDPMScheduler, "unet is a whole pipeline"),
        (diffusers.DDPMScheduler, unet, "type DDPMScheduler, and scheduler of the type UNet2DModel: give"),
        (diffusers.DDPMScheduler, lambda: sines, "unet is of the type DDPMScheduler.*function"),
        (lambda: None, diffusers.DDPMScheduler, "unet is of the type NoneType"),
        (lambda: "google/ddpm-cat-256", diffusers.DDPMScheduler, "unet is of the type str"),
    ],
)
def test_something_else_in_the_place_of_a_network_or_a_scheduler(network, scheduler, message):
    with pytest.raises(TypeError, match=message):
        from_diffusers(network(), scheduler())


def test_a_scheduler_that_predicts_two_things():
    """diffusers itself goes by the settings, so the attribute has no effect there."""
    scheduler = diffusers.DDPMScheduler()
    scheduler.prediction_type = "v_prediction"
    with pytest.raises(ValueError, match="prediction_type is 'v_prediction', but scheduler.config has 'epsilon': make"):
        from_diffusers(sines, scheduler)
    scheduler.prediction_type = "epsilon"
    from_diffusers(sines, scheduler)


@pytest.mark.parametrize("function", [None, "unet", diffusers.UNet2DModel])
def test_something_else_in_the_place_of_a_function(function):
    with pytest.raises(TypeError, match="function must be a function or a network"):
        from_noise_prediction(function, [0.9, 0.5], [0.1, 0.5])


@pytest.mark.parametrize("alphas", [None, "linear", [0.9, None]])
def test_a_schedule_that_is_no_numbers(alphas):
    with pytest.raises(TypeError, match="alphas=.* does not hold numbers: give numbers, or a tensor"):
        from_noise_prediction(sines, alphas, [0.1, 0.5])


@pytest.mark.parametrize("scheduler", [diffusers.IPNDMScheduler(), diffusers.VQDiffusionScheduler(9), None])
def test_unknown_scheduler(scheduler):
    with pytest.raises(TypeError, match=f"{type(scheduler).__name__} is no scheduler.*from_noise_prediction"):
        from_diffusers(unet(), scheduler)


def test_unknown_prediction():
    scheduler = diffusers.DDPMScheduler(prediction_type="moon")
    with pytest.raises(ValueError, match="prediction_type 'moon'.*from_noise_prediction"):
        from_diffusers(unet(), scheduler)


@pytest.mark.parametrize(
    "alphas, sigmas, message",
    [
        ([0.9, 0.5], [0.1], r"two rows of numbers.*\(2,\) and \(1,\)"),
        ([[0.9, 0.5]], [[0.1, 0.5]], "two rows of numbers"),
        ([0.9, -0.5], [0.1, 0.5], "finite and not negative"),
        ([0.9, float("nan")], [0.1, 0.5], "finite and not negative"),
        ([0.9, 0.5, 0.6], [0.1, 0.5, 0.4], "must rise at every time, or fall"),
        ([0.9, 0.9], [0.1, 0.1], "must rise at every time, or fall"),
        ([1.0, 0.9, 0.0], [0.0, 0.1, 1.0], "at least two values"),
    ],
)
def test_bad_schedules(alphas, sigmas, message):
    with pytest.raises(ValueError, match=message):
        from_noise_prediction(lambda x, t: x, alphas, sigmas)


def test_batch_size():
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        noise_model(batch_size=0)(noisy(0.1, 2), 0.1)


def test_the_library_does_not_import_diffusers():
    program = "import sys, dimlib, dimlib.apply.pretrained; sys.exit('diffusers' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_a_unet_trained_with_diffusers_and_loaded_again(tmp_path):
    family = images.Squares(5, 16, seed=0)
    x, scheduler = 2 * family.sample(1000) - 1, diffusers.DDPMScheduler()
    network, untrained = unet(1).train(), unet(1)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(150):
        x0 = x[torch.randint(len(x), (32,))]
        noise, t = torch.randn_like(x0), torch.randint(scheduler.config.num_train_timesteps, (32,))
        loss = (network(scheduler.add_noise(x0, noise, t), t).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet")
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "scheduler")
    new, other = from_diffusers(loaded, scheduler), from_diffusers(untrained, scheduler)
    points = 2 * family.sample(20, seed=1) - 1
    assert torch.equal(new(points, 0.5), from_diffusers(network.eval(), scheduler)(points, 0.5))
    for sigma in (0.1, 0.5, 2.0):
        loss, before = (dimlib.denoising_loss(d, points, sigma).dimension().mean() for d in (new, other))
        assert np.isfinite(loss)
        assert family.dim * 0.2 < loss < 0.8 * before


@pytest.mark.parametrize("scheduler, missing", [
    (diffusers.EDMEulerScheduler, "sigma_data"), (diffusers.EDMEulerScheduler, "sigma_max"),
    (diffusers.ScoreSdeVeScheduler, "sigma_min"), (diffusers.FlowMatchEulerDiscreteScheduler, "num_train_timesteps")])
def test_a_scheduler_without_a_setting_is_refused(scheduler, missing):
    scheduler = scheduler()
    scheduler._internal_dict = {key: value for key, value in scheduler.config.items() if key != missing}
    with pytest.raises(ValueError, match=f"the config of {type(scheduler).__name__} has no {missing}: make the sched"):
        from_diffusers(torch.nn.Identity(), scheduler)


@pytest.mark.parametrize("scheduler, message", [
    (diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1), "timesteps=1 must be at least 2: give the"),
    (diffusers.EDMEulerScheduler(sigma_data=-0.5), "sigma_data=-0.5 must be positive"),
    (diffusers.ScoreSdeVeScheduler(sigma_min=1e-3, sigma_max=float("nan")), "sigma_max=nan must be positive")])
def test_a_scheduler_without_noise_levels_is_refused(scheduler, message):
    with pytest.raises(ValueError, match=message):
        from_diffusers(torch.nn.Identity(), scheduler)


def test_a_prediction_type_that_is_no_number_is_refused():
    scheduler = diffusers.DDPMScheduler()
    scheduler._internal_dict = {**scheduler.config, "prediction_type": float("nan")}
    with pytest.raises(ValueError, match="prediction_type nan, which is none of"):
        from_diffusers(torch.nn.Identity(), scheduler)
