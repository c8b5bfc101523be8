"""On a GPU, where there is one: the same answers, in full precision, from models trained and samples drawn there."""

import copy
from functools import partial

import pytest
import torch

from dimlib import ScoreModel, spectrum
from dimlib.compare.readouts import denoising_loss, flipd, jacobian_spectrum, tangent_sketch
from dimlib.data import exact
from dimlib.data.manifolds import Sphere
from dimlib.machine.compute import guarded
from dimlib.networks import MLP
from dimlib.sampler import noise_schedule, reverse_diffusion
from dimlib.training import train_steps
from dimlib.vision import SecondLook, UNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
GPU = torch.device("cuda")


def unet():
    """A U-Net whose last layer is not zero, so that its answer has all of it in it."""
    torch.manual_seed(0)
    net = UNet(32, channels=32)
    torch.nn.init.normal_(net.leave.weight, std=0.1)
    return ScoreModel(net, data_std=0.3).eval()


@torch.no_grad()
def test_a_denoiser_is_asked_in_full_precision():
    """PyTorch's own convolutions are in TF32, which is seen here beside it."""
    model, x = unet(), torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    on_cpu = model(x, 0.01)
    model.to(GPU)
    errors = [((answer(x.to(GPU), 0.01).cpu() - on_cpu).norm() / (on_cpu - x).norm()).item()
              for answer in (guarded(model), model)]
    assert errors[0] < 1e-5 < 1e-4 < errors[1]


@pytest.mark.parametrize("read", [flipd, jacobian_spectrum])
def test_readouts_without_noise_are_those_of_the_cpu(read):
    sphere = Sphere(3, 8, seed=1)
    net = MLP(8, width=16)
    torch.nn.init.normal_(net.linear.weight, std=0.3)
    model, x = ScoreModel(net, data_std=0.3), sphere.sample(3)
    here, there = read(model, x, 0.05), read(model.to(GPU), x.to(GPU), 0.05)
    numbers = [found.values if hasattr(found, "values") else found.dimension() for found in (there, here)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("read", [spectrum, partial(spectrum, noise="frame"), tangent_sketch])
def test_readouts_with_noise_give_the_dimension(read):
    sphere = Sphere(3, 20, seed=1)
    found = read(exact.denoiser(sphere), sphere.sample(4).to(GPU), 0.01)
    assert found.dimension().tolist() == [3] * 4


def test_the_denoising_loss_of_points_on_the_gpu():
    sphere = Sphere(3, 20, seed=1)
    found = denoising_loss(exact.denoiser(sphere), sphere.sample(4).to(GPU), 0.01, n_scores=4000)
    assert found.dimension() == pytest.approx([3] * 4, abs=0.25)


def test_the_dimension_of_a_sphere_from_a_model_trained_there():
    sphere = Sphere(3, 20, seed=1)
    model = ScoreModel(MLP(20, width=64), data_std=sphere.sample(1000).std().item())
    *_, last = train_steps(model, sphere.sample(10_000), 600, 500, device="cuda")
    found = spectrum(model, sphere.sample(10, seed=5).to(GPU), 0.02)
    assert (found.dimension() == 3).all() and last.loss < 5


def test_a_resumed_run_on_the_gpu_is_the_uninterrupted_one(tmp_path):
    x = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def run(steps_first):
        torch.manual_seed(0)
        model = ScoreModel(SecondLook([-1, 1], 1.0, size=8, multipliers=(1, 2)), data_std=0.3)
        file = tmp_path / f"{steps_first}.safetensors"
        for part in (steps_first, 20):
            training = train_steps(model, x, 20, 16, device="cuda", checkpoint=file, checkpoint_every=5)
            losses = [progress.loss for progress, _ in zip(training, range(part), strict=False)]
        return torch.tensor(losses)

    assert torch.allclose(run(10), run(20), rtol=1e-3)


def test_samples_are_drawn_on_the_gpu():
    sphere = Sphere(3, 8, seed=1)
    x = reverse_diffusion(exact.denoiser(sphere), 2000, (8,), noise_schedule(0.01, 10.0, 50), device="cuda")
    assert x.device.type == "cuda" and x.dtype == torch.float32 and len(x) == 2000
    assert sphere.distance(x).max() < 1e-3
    made = reverse_diffusion(unet().to(GPU), 3, (1, 32, 32), noise_schedule(0.01, 1.0, 5), device="cuda")
    assert made.shape == (3, 1, 32, 32) and made.isfinite().all()


@pytest.mark.parametrize("network", [lambda: MLP(8, width=16), lambda: SecondLook([-1, 2], 0.5, size=8, channels=8)])
def test_steps_of_a_cuda_graph_are_the_steps(network):
    """The same losses, and the same weights at the end, up to the order of sums."""
    torch.manual_seed(0)
    net = network()
    x = torch.randn(200, *((8,) if isinstance(net, MLP) else (1, 8, 8)))
    found = []
    for graph in (False, True):
        model = ScoreModel(copy.deepcopy(net), data_std=1.0)
        losses = [p.loss for p in train_steps(model, x, 60, 50, lr=1e-3, device="cuda", cuda_graph=graph)]
        found.append((torch.tensor(losses), torch.cat([w.detach().flatten() for w in model.parameters()])))
    assert torch.allclose(found[0][0], found[1][0], rtol=0.05)
    assert (found[0][1] - found[1][1]).norm() < 0.05 * found[0][1].norm()
