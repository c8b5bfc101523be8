"""Networks: their shape, their start, what they depend on, and that the rest of the library takes them."""

import json
import math

import pytest
import torch

import dimlib
from dimlib.machine.descent import _optimizers
from dimlib.networks import MLP, FourierFeatures
from dimlib.training import train_steps
from dimlib.vision import SecondLook, UNet
from dimlib.vision.unet import Conv

SMALL = {"size": 8, "channels": 16, "multipliers": (1, 2)}
EVERY = [  # a network, and the shape of its points
    pytest.param(lambda: MLP(7, width=16, blocks=2), (7,), id="MLP"),
    pytest.param(lambda: MLP(12, width=16, blocks=2), (1, 3, 4), id="MLP on images"),
    pytest.param(lambda: UNet(**SMALL), (1, 8, 8), id="UNet"),
    pytest.param(lambda: UNet(**SMALL, channels_in=3, blocks=2, attention=False), (3, 8, 8), id="UNet in colour"),
    pytest.param(lambda: SecondLook([-1, 2], 0.5, **SMALL), (1, 8, 8), id="SecondLook"),
    pytest.param(lambda: SecondLook([-1, 2], 0.5, **SMALL, channels_in=3), (3, 8, 8), id="SecondLook in colour"),
]
every_network = pytest.mark.parametrize("make, shape", EVERY)


def random(make):
    """A network with random weights, no longer the zero function."""
    torch.manual_seed(0)
    net = make()
    for name, parameter in net.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3 if len(parameter) * parameter[0].numel() < 500 else 0.1)
    return net


@every_network
def test_starts_as_the_zero_function(make, shape):
    x = torch.randn(5, *shape)
    assert torch.equal(make()(x, torch.randn(5)), torch.zeros_like(x))


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_an_mlp_of_any_depth_starts_as_the_zero_function(blocks):
    answer = MLP(7, width=16, blocks=blocks)(torch.randn(5, 7), torch.randn(5))
    assert torch.equal(answer, torch.zeros(5, 7))


@every_network
@pytest.mark.parametrize("rows", [1, 5])
def test_keeps_the_shape(make, shape, rows):
    assert random(make)(torch.randn(rows, *shape), torch.zeros(rows)).shape == (rows, *shape)


@every_network
def test_every_parameter_learns(make, shape):
    net = random(make)
    net(torch.randn(20, *shape), torch.randn(20)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.norm() > 1e-3, name                          # rounding leaves 1e-6 of what cancels


@every_network
def test_rows_do_not_see_each_other(make, shape):
    net, x, level = random(make), torch.randn(6, *shape), torch.randn(6)
    assert torch.allclose(net(x, level)[2:4], net(x[2:4], level[2:4]), rtol=1e-4, atol=1e-4)


@every_network
def test_the_noise_level_matters(make, shape):
    low, high = random(make)(torch.randn(1, *shape).expand(2, *shape), torch.tensor([0.01, 1.0]).log())
    assert (low - high).abs().max() > 1e-3


@every_network
def test_the_config_makes_the_same_network(make, shape):
    net = random(make)
    config = json.loads(json.dumps(net.config))
    assert config == net.config                                            # checkpoints compare the two
    again = type(net)(**config)
    again.load_state_dict(net.state_dict())
    x, level = torch.randn(3, *shape), torch.zeros(3)
    assert torch.equal(again(x, level), net(x, level))


@every_network
def test_the_library_takes_it(make, shape, tmp_path):
    """Training moves every parameter, the model comes back from its file, and it has a spectrum."""
    torch.manual_seed(0)
    model = dimlib.ScoreModel(make(), data_std=1.0, sigma_min=0.1)
    x, before = torch.randn(50, *shape), {k: t.clone() for k, t in model.named_parameters()}
    losses = [p.loss for p in train_steps(model, x, 6, batch_size=16, device="cpu", checkpoint=tmp_path / "c")]
    assert len(losses) == 6
    assert [k for k, t in model.named_parameters() if torch.equal(t, before[k])] == []
    again = train_steps(model, x, 6, batch_size=16, device="cpu", checkpoint=tmp_path / "c")
    assert [p.loss for p in again] == losses
    model.save(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(dimlib.ScoreModel.load(tmp_path / "model")(x, 0.2), model(x, 0.2))
    entries = x[0].numel()
    spectrum = dimlib.spectrum(model, x[:2], 0.2, n_scores=entries + 1)
    assert spectrum.values.shape == (2, entries)


@every_network
def test_muon_trains_the_matrices_inside_and_adam_the_rest(make, shape):
    model = dimlib.ScoreModel(make(), data_std=1.0)
    muon, adam = _optimizers(model, 1e-3)
    names = {id(p): name for name, p in model.net.named_parameters()}
    inside = {names[id(p)] for p in muon.param_groups[0]["params"]}
    outside = {names[id(p)] for p in adam.param_groups[0]["params"]}
    assert inside.isdisjoint(outside) and inside | outside == set(names.values())
    touching = ("enter.", "leave.", "linear.", "look.enter.", "look.leave.")
    assert not any(name.startswith(touching) for name in inside)
    assert all("norm" in name or name.endswith("bias") or name.startswith(touching) for name in outside)


@pytest.mark.parametrize("side, stride", [(3, 1), (1, 1), (3, 2)])
def test_a_convolution_with_a_matrix_is_a_convolution(side, stride):
    torch.manual_seed(0)
    ours, theirs = Conv(5, 7, side, stride), torch.nn.Conv2d(5, 7, side, stride, padding=side // 2)
    theirs.load_state_dict({"weight": ours.weight.view(7, 5, side, side), "bias": ours.bias})
    x = torch.randn(2, 5, 8, 8)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)                   # another layout in memory, other sums


def test_an_mlp_sees_an_image_as_its_pixels_in_order():
    net, x, level = random(lambda: MLP(12, width=16)), torch.randn(5, 1, 3, 4), torch.randn(5)
    assert torch.equal(net(x, level), net(x.reshape(5, 12), level).reshape(5, 1, 3, 4))


@pytest.mark.parametrize("shape", [(8,), (6,), (2, 7), (1, 2, 3)])
def test_an_mlp_refuses_points_of_another_dimension(shape):
    with pytest.raises(ValueError, match=r"this MLP is for points of shape \(7,\), got \(\d"):
        MLP(7)(torch.randn(5, *shape), torch.zeros(5))


@pytest.mark.parametrize("shape", [(8, 8), (64,), (3, 8, 8), (1, 8, 9), (1, 16, 16), (1, 1, 8, 8)])
def test_a_unet_refuses_images_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"this UNet is for images of shape \(1, 8, 8\), got \(\d"):
        UNet(**SMALL)(torch.randn(5, *shape), torch.zeros(5))


@pytest.mark.parametrize("size, levels", [(8, 1), (7, 1), (8, 2), (8, 3), (28, 3), (32, 4)])
def test_sizes_that_can_be_halved(size, levels):
    net = UNet(size, channels=8, multipliers=[1] * levels)
    assert net(torch.randn(2, 1, size, size), torch.zeros(2)).shape == (2, 1, size, size)


@pytest.mark.parametrize("size, levels, message", [
    (30, 3, "size=30 cannot be halved for 3 levels: use a multiple of 4, such as 28 or 32"),
    (28, 4, "use a multiple of 8, such as 24 or 32, or fewer multipliers"),
    (7, 2, "multiple of 2, such as 6 or 8"),
    (3, 3, "such as 4 or 8"),
    (0, 1, "such as 1 or 2"),
])
def test_sizes_that_cannot_be_halved_are_refused(size, levels, message):
    with pytest.raises(ValueError, match=message):
        UNet(size, multipliers=[1] * levels)
    for works in [int(word) for word in message.replace(",", "").split() if word.isdigit()][-2:]:
        UNet(works, channels=8, multipliers=[1] * levels)                  # the advice is good


@pytest.mark.parametrize("bad", [{"blocks": 0}, {"multipliers": ()}])
def test_empty_unets_are_refused(bad):
    with pytest.raises(ValueError, match="need at least one level|blocks=0 must be at least 1"):
        UNet(**bad)


@pytest.mark.parametrize("bad", [{"channels": 0}, {"channels_in": -2}, {"multipliers": (1, 0)}])
def test_unets_without_channels_are_refused(bad):
    with pytest.raises(ValueError, match="must be at least 1"):
        UNet(**SMALL | bad)


def test_an_mlp_with_fewer_than_no_blocks_is_refused():
    with pytest.raises(ValueError, match="blocks=-1 must be at least 0"):
        MLP(3, blocks=-1)


@pytest.mark.parametrize("channels", [6, 8, 20, 32])
def test_any_width_can_be_normalised(channels):
    net = random(lambda: UNet(8, channels=channels, multipliers=(1, 3)))
    assert torch.isfinite(net(torch.randn(2, 1, 8, 8), torch.zeros(2))).all()


@pytest.mark.parametrize("config, low, high", [
    ({}, 1e5, 3e5),
    ({"channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 4}, 1e7, 1e8),  # as large as the paper's
])
def test_sizes_of_unets(config, low, high):
    with torch.device("meta"):
        net = UNet(**config)
    assert low < sum(p.numel() for p in net.parameters()) < high


# What a pixel sees. Normalisation mixes all pixels a little, so it is switched off where that matters.

@pytest.fixture
def local(monkeypatch):
    """A U-Net of one level that sees four pixels far: a 3×3 at either end and two in each block."""
    monkeypatch.setattr(torch.nn.GroupNorm, "forward", lambda self, h: h)
    return lambda **more: random(lambda: UNet(24, channels=8, multipliers=(1,), **more))


def seen(net, row, column):
    """The pixels (24, 24) on which one pixel of the answer depends."""
    x = torch.randn(1, 1, 24, 24, requires_grad=True)
    net(x, torch.zeros(1))[0, 0, row, column].backward()
    return x.grad[0, 0] != 0


def test_without_attention_a_pixel_sees_its_neighbourhood(local):
    expected = torch.zeros(24, 24, dtype=torch.bool)
    expected[10 - 4:10 + 5, 12 - 4:12 + 5] = True
    assert torch.equal(seen(local(attention=False), 10, 12), expected)


def test_with_attention_every_pixel_sees_every_pixel(local):
    assert seen(local(), 10, 12).all()


def test_the_levels_widen_what_a_pixel_sees(monkeypatch):
    monkeypatch.setattr(torch.nn.GroupNorm, "forward", lambda self, h: h)
    net = random(lambda: UNet(24, channels=8, multipliers=(1, 1, 1), attention=False))
    assert seen(net, 10, 12)[:, 0].any()


def test_a_unet_knows_where_a_pixel_is(local):
    """A blank image has no places: away from the border only the coordinates tell its pixels apart."""
    net = local(attention=False)
    middle = slice(4, 20), slice(4, 20)
    with torch.no_grad():
        answer = net(torch.zeros(1, 1, 24, 24), torch.zeros(1))[0, 0][middle]
        assert answer.std(0).min() > 1e-3 and answer.std(1).min() > 1e-3
        net.enter.weight[:, -2 * 9:] = 0
        blind = net(torch.zeros(1, 1, 24, 24), torch.zeros(1))[0, 0][middle]
    assert torch.allclose(blind, blind[0, 0].expand(16, 16), rtol=1e-4, atol=1e-4)


# The second look.

def test_the_second_look_sees_grey_values_in_units_of_the_noise(monkeypatch):
    """At first U is zero and y = x, so that the input of the look is known: y, bumps for each a and c, coordinates."""
    net, x = SecondLook([-1.0, 2.0], 0.5, **SMALL), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given = []
    monkeypatch.setattr(net.look, "forward", lambda seen, level: given.append(seen) or torch.ones_like(x))
    sigma = torch.tensor([0.01, 0.1, 1.0])                                 # in data units, 0.02, 0.2 and 2 of x's
    answer = net(x, sigma.log())
    assert torch.allclose(answer, (2 * sigma)[:, None, None, None].expand_as(x)), "what it adds is in units of σ"
    assert torch.equal(given[0][:, :1], x) and torch.equal(given[0][:, -2:], net.coordinates.expand(3, -1, -1, -1))
    for i, (image, s) in enumerate(zip(x, 2 * sigma, strict=True)):
        bumps = [torch.exp(-0.5 * ((image[0] - a) / s - c) ** 2)
                 for a in (-1, 2, image.min(), image.max()) for c in (-2, -1, 0, 1, 2)]
        assert torch.allclose(given[0][i, 1:-2], torch.stack(bumps), atol=1e-4)


@pytest.mark.parametrize("unit", [0, -1.0, float("nan"), math.inf])
def test_a_second_look_without_a_unit_is_refused(unit):
    with pytest.raises(ValueError, match="must be positive and finite: give data_std/sigma_max of the model"):
        SecondLook([-1, 2], unit, **SMALL)


def test_a_second_look_needs_finite_ends():
    with pytest.raises(ValueError, match="ends=.* must be finite: give black and white"):
        SecondLook([-1, math.nan], 1.0, **SMALL)


def corner(n, seed):
    """One of two pixels is white, the other grey: two lines that meet in a corner, (n, 1, 8, 8), and the white ones."""
    generator = torch.Generator().manual_seed(seed)
    grey, first = 0.2 + 0.6 * torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.5
    x, white = torch.zeros(n, 1, 8, 8), torch.zeros(n, 1, 8, 8)
    white[first, 0, 2, 2] = white[~first, 0, 5, 5] = 1
    x[:, 0, 2, 2], x[:, 0, 5, 5] = torch.where(first, 1, grey), torch.where(first, grey, 1)
    return x, white


@pytest.mark.slow
def test_the_second_look_learns_a_corner_that_a_unet_does_not_learn_yet():
    x, (new, white) = corner(2000, seed=0)[0], corner(50, seed=1)
    mean, std, sigma, left = x.mean().item(), x.std().item(), 0.05, {}
    small = {"size": 8, "channels": 8, "multipliers": (1, 2)}
    ends = [(a - mean) / std for a in (0, 1)]
    for make in (lambda: UNet(**small), lambda: SecondLook(ends, std / 0.5, **small)):
        torch.manual_seed(0)
        model = dimlib.ScoreModel(make(), std, mean, sigma_max=0.5)
        for _ in train_steps(model, x, 120, batch_size=64, device="cpu"):
            pass
        with torch.no_grad():
            moved = model(new + sigma * white, sigma) - model(new - sigma * white, sigma)
        left[type(model.net)] = ((moved * white).flatten(1).sum(1) / (2 * sigma)).median().item()
    assert abs(left[SecondLook]) < 0.2 < 0.4 < left[UNet]                  # a perfect denoiser leaves nothing


def test_the_noise_level_is_seen_at_frequencies_from_a_tenth_to_ten():
    features = FourierFeatures()(torch.tensor([0.3]))[0]
    frequencies = [10 ** (-1 + 2 * i / 7) for i in range(8)]
    expected = [math.sin(0.3 * f) for f in frequencies] + [math.cos(0.3 * f) for f in frequencies]
    assert torch.allclose(features, torch.tensor(expected), atol=1e-6)
