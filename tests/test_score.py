"""The score model: three parametrisations, two views, and files."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

import dimlib
from dimlib import networks
from dimlib.data.exact import denoiser
from dimlib.data.manifolds import Sphere
from dimlib.machine import saved
from dimlib.machine.tensors import write_tensors
from dimlib.networks import MLP
from dimlib.score import PARAMETRISATIONS, ScoreModel, noise_prediction, score_at
from dimlib.vision import UNet

MEAN = torch.arange(5.0)
names = pytest.mark.parametrize("name", PARAMETRISATIONS)


class Picture(torch.nn.Module):
    """A network on pictures (B, 2, 3) that mixes entries and looks at the noise level."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(6, 6)

    def forward(self, x, log_sigma):
        return self.mix(x.flatten(1)).view_as(x) + log_sigma[:, None, None]


def model(name="data", net=None, **more):
    """A model with random weights."""
    torch.manual_seed(1)
    net = net or MLP(5, width=16, blocks=2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return ScoreModel(net, **{"data_std": 2.0, "data_mean": MEAN, **more}, parametrisation=name)


def start(name):
    return ScoreModel(MLP(5, width=16), data_std=2.0, data_mean=MEAN, parametrisation=name)


@pytest.mark.parametrize("name", ["data", "noise"])
def test_starts_as_the_identity(name):
    x = torch.randn(6, 5)
    assert torch.allclose(start(name)(x, 0.3), x, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 0.9])
def test_edm_starts_as_the_denoiser_of_a_gaussian(sigma):
    x = torch.randn(6, 5)
    expected = MEAN + 4 / (4 + sigma**2) * (x - MEAN)
    assert torch.allclose(start("edm")(x, sigma), expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.7])
def test_parametrisations_are_what_the_table_says(sigma):
    x, s = torch.randn(6, 5), 2.0
    root, level = (s**2 + sigma**2) ** 0.5, torch.full((6,), sigma).log()
    y = x - MEAN
    table = {
        "data": lambda net: y + s * net(y / s, level),
        "noise": lambda net: y - sigma * net(y / root, level),
        "edm": lambda net: s**2 / root**2 * y + sigma * s / root * net(y / root, level),
    }
    assert table.keys() == PARAMETRISATIONS.keys()
    for name, formula in table.items():
        m = model(name)
        assert torch.allclose(m(x, sigma), MEAN + formula(m.net), atol=1e-5), name


@names
def test_one_sigma_or_one_per_row(name):
    m, x = model(name), torch.randn(4, 5)
    sigma = torch.tensor([0.02, 0.3, 0.3, 1.0])
    together = m(x, sigma)
    for i in range(4):
        for one in (sigma[i], sigma[i].item(), sigma[i : i + 1]):
            assert torch.allclose(together[i], m(x[i : i + 1], one)[0], atol=1e-5)
    assert torch.allclose(m(x, 0.3), m(x, torch.full((4,), 0.3)), atol=1e-6)
    assert torch.allclose(m(x, torch.tensor(0.3)), m(x, 0.3), atol=1e-6)


@names
def test_any_shape_of_a_point(name):
    m = model(name, Picture(), data_mean=torch.randn(2, 3))
    x, sigma = torch.randn(4, 2, 3), torch.tensor([0.1, 0.2, 0.5, 1.0])
    answer = m(x, sigma)
    assert answer.shape == x.shape
    assert torch.allclose(answer[2:3], m(x[2:3], 0.5), atol=1e-5)


def halve(x, sigma):
    return x / 2


@pytest.mark.parametrize("view", [noise_prediction, score_at])
def test_views_take_any_shape_and_a_sigma_per_row(view):
    x, sigma = torch.randn(3, 2, 4, dtype=torch.float64), torch.tensor([0.1, 1.0, 2.0])
    power = 1 if view is noise_prediction else 2
    sign = 1 if view is noise_prediction else -1
    for i in range(3):
        expected = sign * (x[i] / 2) / sigma[i].double() ** power
        assert torch.allclose(view(halve, x, sigma)[i], expected)
        assert torch.allclose(view(halve, x[i : i + 1], float(sigma[i]))[0], expected)


def test_views_of_an_exact_denoiser_are_the_gradient_of_the_log_density():
    sphere = Sphere(3, 8, seed=1, offset=4.0)
    exact, sigma = denoiser(sphere), 0.4
    x = (sphere.sample(6) + sigma * torch.randn(6, 8)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(exact.log_density(x, sigma).sum(), x)
    assert torch.allclose(score_at(exact, x, sigma), gradient, atol=1e-5)
    assert torch.allclose(noise_prediction(exact, x, sigma), -sigma * gradient, atol=1e-5)


@names
@pytest.mark.parametrize("mean", [0.0, -3.5, MEAN], ids=["zero", "number", "tensor"])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, name, mean):
    m = model(name, data_mean=mean, data_std=1 / 3, sigma_min=0.003, sigma_max=7.0)
    m.save(tmp_path / "new folder" / "model.safetensors")
    again = ScoreModel.load(tmp_path / "new folder" / "model.safetensors")
    x, sigma = torch.randn(4, 5), torch.tensor([0.01, 0.1, 1.0, 5.0])
    assert torch.equal(again(x, sigma), m(x, sigma))
    assert torch.equal(again.data_mean, torch.as_tensor(mean))
    for attribute in ("parametrisation", "data_std", "sigma_min", "sigma_max"):
        assert getattr(again, attribute) == getattr(m, attribute)


def test_saving_replaces_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("old")
    model().save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    ScoreModel.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model("edm").save(path)
    old = path.read_bytes()

    def killed(tensors, target, header):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        model("data").save(path)
    assert path.read_bytes() == old


def test_the_file_holds_no_pickle(tmp_path):
    model().save(tmp_path / "m")
    with safetensors.safe_open(str(tmp_path / "m"), "pt") as file:
        config = json.loads(file.metadata()["score_model"])
    assert config["network"] == "MLP" and config["network_config"]["dim"] == 5


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    write_tensors({"a": torch.zeros(2)}, tmp_path / "other", "thing", {})
    with pytest.raises(ValueError, match="other has no 'score_model' entry"):
        ScoreModel.load(tmp_path / "other")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_any_other_file_is_refused(tmp_path, content):
    (tmp_path / "junk").write_bytes(content)
    with pytest.raises(ValueError, match="junk has no 'score_model' entry"):
        ScoreModel.load(tmp_path / "junk")


def test_an_unknown_parametrisation_is_refused():
    with pytest.raises(ValueError, match="'flow' is none of data, noise, edm"):
        model("flow")


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_constant_data_are_refused(std):
    with pytest.raises(ValueError, match="data_std=.* must be positive and finite: are the data constant"):
        model(data_std=std)


@pytest.mark.parametrize("mean", [float("nan"), torch.tensor([0.0, float("inf")]), 1e300])
def test_a_mean_of_the_data_that_is_no_float32_number_is_refused(mean):
    with pytest.raises(ValueError, match="data_mean=.* must be finite"):
        ScoreModel(MLP(2), 1.0, mean)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, float("inf"))])
def test_an_empty_range_of_noise_levels_is_refused(low, high):
    with pytest.raises(ValueError, match=f"0 < sigma_min < sigma_max, both finite, got {low} and {high}"):
        model(sigma_min=low, sigma_max=high)


def test_points_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match="6"):
        dimlib.spectrum(model(), torch.randn(3, 6), 0.1)


@pytest.mark.parametrize("sigma", [0.005, 2.0])
def test_a_noise_level_outside_the_range_is_refused(sigma):
    with pytest.raises(ValueError, match=f"sigma={sigma:g} is outside this model's range, 0.01 to 1"):
        model()(torch.randn(3, 5), sigma)


def test_a_model_for_data_is_centred_and_scaled_by_them():
    x = 3 + 2 * torch.randn(500, 6)
    m = ScoreModel.for_data(MLP(6, width=8), x, sigma_max=2.0, parametrisation="noise")
    assert torch.allclose(m.data_mean, x.mean(0))
    assert m.data_std == pytest.approx((x - x.mean(0)).std().item(), rel=1e-3)
    assert m.sigma_max == 2.0 and m.parametrisation == "noise"


class Own(MLP):
    """A network that nobody has registered."""


def test_a_network_that_could_not_be_loaded_is_not_saved(tmp_path):
    m = ScoreModel(Own(6, width=8, blocks=1), 1.0)
    with pytest.raises(ValueError, match="'Own' is none of MLP, .*put @dimlib.networks.register above its class"):
        m.save(tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_a_registered_network_of_ones_own_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "_KNOWN", dict(saved._KNOWN))
    networks.register(Own)
    m, x = ScoreModel(Own(6, width=8, blocks=1), 1.0), torch.randn(3, 6)
    m.save(tmp_path / "own")
    again = ScoreModel.load(tmp_path / "own")
    assert type(again.net) is Own and torch.equal(again(x, 0.1), m(x, 0.1))


def test_a_model_is_saved_after_its_class_was_registered_again(tmp_path, monkeypatch):
    """As when a cell of a notebook runs twice."""
    monkeypatch.setattr(saved, "_KNOWN", dict(saved._KNOWN))
    networks.register(Own)
    m = ScoreModel(Own(6, width=8, blocks=1), 1.0)
    networks.register(type("Own", (MLP,), {"__module__": Own.__module__}))
    m.save(tmp_path / "own")
    assert ScoreModel.load(tmp_path / "own").data_std == 1


def test_another_network_of_a_registered_name_is_not_saved(tmp_path):
    other = type("MLP", (MLP,), {})                                        # it would be loaded as the library's
    with pytest.raises(ValueError, match="another network 'MLP' is registered: give yours another name"):
        ScoreModel(other(6, width=8, blocks=1), 1.0).save(tmp_path / "own")
    with pytest.raises(ValueError, match="a network 'MLP' of dimlib.networks is registered"):
        networks.register(other)
    assert saved.known("MLP") is MLP and not (tmp_path / "own").exists()


@pytest.mark.parametrize("largest", [lambda t: t.max().item(), lambda t: float(t.numpy().max())])
def test_a_network_that_needs_numbers_to_be_built_comes_back(tmp_path, monkeypatch, largest):
    monkeypatch.setattr(saved, "_KNOWN", dict(saved._KNOWN))

    @networks.register
    class Scaled(MLP):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.scale = largest(torch.linspace(1, 2, 3))

    m, x = ScoreModel(Scaled(6, width=8, blocks=1), 1.0), torch.randn(3, 6)
    before = torch.get_rng_state()
    m.save(tmp_path / "own")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(ScoreModel.load(tmp_path / "own")(x, 0.1), m(x, 0.1))


class Fixed(MLP):
    """It has the config of an MLP, and another ``__init__``."""

    def __init__(self, width):
        super().__init__(6, width=width, blocks=1)


class Longer(MLP):
    """It is built from the config of an MLP, with more weights than the network that was saved."""

    def __init__(self, dim, width=8, blocks=1, waves=False):
        super().__init__(dim, width, blocks, waves)
        self.config["blocks"] += 1


@pytest.mark.parametrize("make, reason", [
    (lambda: Fixed(8), "its config builds no network: TypeError.*unexpected keyword"),
    (lambda: Longer(6), "its config builds a network whose weights have other names or shapes")])
def test_a_network_with_the_config_of_another_is_not_saved(tmp_path, monkeypatch, make, reason):
    monkeypatch.setattr(saved, "_KNOWN", dict(saved._KNOWN))
    m = ScoreModel(make(), 1.0)
    networks.register(type(m.net))
    (tmp_path / "own").write_text("old")
    with pytest.raises(ValueError, match=f"this (Fixed|Longer) could not be loaded: {reason}.*Its attribute config"):
        m.save(tmp_path / "own")
    assert (tmp_path / "own").read_text() == "old"


def test_saving_and_loading_draw_no_more_random_numbers_than_building(tmp_path):
    m = model()
    before = torch.get_rng_state()
    m.save(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before)
    MLP(**m.net.config)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    ScoreModel.load(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), after)


def test_a_model_with_sizes_of_numpy_comes_back(tmp_path):
    m = model(net=MLP(np.prod([5]), width=np.int64(16), blocks=2))
    m.save(tmp_path / "m")
    assert torch.equal(ScoreModel.load(tmp_path / "m")(MEAN[None], 0.1), m(MEAN[None], 0.1))


@pytest.mark.parametrize("name", ["nn", "__init__", "register", "Linear"])
def test_only_registered_networks_are_built_from_a_file(tmp_path, name):
    header = model().config | {"network": name, "network_config": {}}
    write_tensors(model().state_dict(), tmp_path / "odd", "score_model", header)
    with pytest.raises(ValueError, match=f"network {name!r} is none of MLP"):
        ScoreModel.load(tmp_path / "odd")


@pytest.mark.parametrize("changed", [
    {"dim": 30_000}, {"blocks": 10**9}, {"width": 10**12}, {"width": 24}, {"blocks": 5}])
def test_a_file_that_asks_for_a_larger_network_than_it_holds_is_refused(tmp_path, changed):
    """Within moments, and before memory is taken: a file of a kilobyte could ask for gigabytes."""
    m = model()
    header = m.config | {"network": "MLP", "network_config": m.net.config | changed}
    write_tensors(m.state_dict(), tmp_path / "odd", "score_model", header)
    with pytest.raises(ValueError, match="odd does not fit its own network"):
        ScoreModel.load(tmp_path / "odd")


@pytest.mark.parametrize("changed", [{"width": -1}, {"width": "8"}, {"depth": 3}, None])
def test_a_configuration_that_builds_no_network_is_refused(tmp_path, changed):
    m = model()
    config = {"network": "MLP", "network_config": None if changed is None else m.net.config | changed}
    write_tensors(m.state_dict(), tmp_path / "odd", "score_model", m.config | config)
    with pytest.raises(ValueError, match="odd does not fit its own network"):
        ScoreModel.load(tmp_path / "odd")


@pytest.mark.parametrize("header", [None, [], {}, {"network": "MLP"}])
def test_a_header_that_names_no_network_is_refused(tmp_path, header):
    write_tensors(model().state_dict(), tmp_path / "odd", "score_model", header)
    with pytest.raises(ValueError, match="odd (does not fit its own network|has an entry .* that is no JSON)"):
        ScoreModel.load(tmp_path / "odd")


def test_a_list_that_hides_an_error_takes_no_memory(tmp_path):
    """A wrong entry after a huge one: without the check of shapes the huge layer would be built before the error."""
    m = ScoreModel(UNet(8, multipliers=[1, 1]), 1.0)
    config = {"network": "UNet", "network_config": m.net.config | {"multipliers": [10**6, -1]}}
    write_tensors(m.state_dict(), tmp_path / "odd", "score_model", m.config | config)
    with pytest.raises(ValueError, match="odd does not fit its own network"):
        ScoreModel.load(tmp_path / "odd")


def of_pictures(size):
    """A model whose file is small, and whose network is large for large pictures."""
    return ScoreModel(UNet(size, channels=1, multipliers=[1], attention=False), 1.0)


@pytest.mark.parametrize("junk, reason", [("junk", "size is larger than the number of weights"),
                                          ("net.junk", "whose weights have other names or shapes")])
def test_junk_in_a_file_gives_no_leave_to_take_memory(tmp_path, junk, reason):
    """3 GB for the coordinates of pixels, which are no weights: the file has 30 kB."""
    m = of_pictures(8)
    config = {"network": "UNet", "network_config": m.net.config | {"size": 20_000}}
    weights = m.state_dict() | {junk: torch.zeros(30_000, dtype=torch.uint8)}
    write_tensors(weights, tmp_path / "odd", "score_model", m.config | config)
    with pytest.raises(ValueError, match=f"odd does not fit its own network: .*{reason}"):
        ScoreModel.load(tmp_path / "odd")


def test_a_network_that_needs_much_more_memory_than_its_weights_is_neither_saved_nor_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "SPARE", 10_000)
    m, reason = of_pictures(64), "a network that needs much more memory than its weights"
    with pytest.raises(ValueError, match=f"this UNet could not be loaded: .*{reason}"):
        m.save(tmp_path / "large")
    header = m.config | {"network": "UNet", "network_config": m.net.config}
    write_tensors(m.state_dict(), tmp_path / "large", "score_model", header)
    with pytest.raises(ValueError, match=f"large does not fit its own network: .*{reason}"):
        ScoreModel.load(tmp_path / "large")
    monkeypatch.undo()
    m.save(tmp_path / "large")
    assert ScoreModel.load(tmp_path / "large").net.coordinates.numel() == 2 * 64**2


def test_a_file_that_asks_for_many_layers_is_refused_before_they_are_made(tmp_path, monkeypatch):
    """A million blocks would take half an hour on the device "meta" already."""
    made, init = [], networks.Block.__init__
    monkeypatch.setattr(networks.Block, "__init__", lambda self, width: (made.append(width), init(self, width))[1])
    m = ScoreModel(MLP(60, width=16, blocks=2), 1.0)
    assert sum(t.numel() for t in m.net.state_dict().values()) > 3000
    config = {"network": "MLP", "network_config": m.net.config | {"blocks": 3000}}
    write_tensors(m.state_dict(), tmp_path / "odd", "score_model", m.config | config)
    with pytest.raises(ValueError, match="odd does not fit its own network: .*many more layers than there are weights"):
        ScoreModel.load(tmp_path / "odd")
    assert len(made) < 100


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    m = model()
    m.save(tmp_path / "nan")
    m.net.linear.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="this model has weights that are NaN or infinite"):
        m.save(tmp_path / "nan")
    assert ScoreModel.load(tmp_path / "nan").net.linear.weight.isfinite().all()
    header = m.config | {"network": "MLP", "network_config": m.net.config}
    write_tensors(m.state_dict(), tmp_path / "nan", "score_model", header)
    with pytest.raises(ValueError, match="nan has weights that are NaN or infinite"):
        ScoreModel.load(tmp_path / "nan")


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("a, b", [(1e-20, 0.0), (1e20, 0.0), (3.0, 1e6), (1e-3, -1e4), (1.0, 1e6), (1e15, 1e6)])
def test_origin_and_units_of_the_data_change_nothing(a, b, parametrisation):
    torch.manual_seed(0)
    net = MLP(5, width=16, blocks=1)
    for last in (net.linear, net.leave):
        torch.nn.init.normal_(last.weight, std=0.3)
    x = torch.randn(200, 5, dtype=torch.float64)
    here, there = (ScoreModel.for_data(net, y, parametrisation=parametrisation, sigma_min=0.01 * s, sigma_max=s)
                   for y, s in ((x, 1.0), (a * x + b, a)))
    ours = dimlib.spectrum(here, x[:3], 0.1)
    theirs = dimlib.spectrum(there, a * x[:3] + b, 0.1 * a)
    assert torch.allclose(torch.tensor(ours.values), torch.tensor(theirs.values), atol=1e-4)


def test_a_large_offset_is_not_taken_for_spread():
    x = torch.randn(100, 3) + 1000
    assert ScoreModel.for_data(MLP(3, width=8), x).data_std == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("sigma", [100.0, [0.1, 100.0, 0.1], [0.1, 0.1, 1e-4]])
def test_a_tensor_of_noise_levels_is_checked_as_a_number_is(sigma):
    with pytest.raises(ValueError, match="is outside this model's range"):
        model()(torch.randn(3, 5), torch.tensor(sigma))


def test_the_default_dtype_does_not_matter(tmp_path):
    before = torch.get_default_dtype()
    answers = []
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            torch.manual_seed(0)
            x = torch.randn(100, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(1))
            m = dimlib.train(ScoreModel.for_data(MLP(4, width=8, blocks=1), x), x, 5, batch_size=10, device="cpu")
            answers.append(m(x[:3], 0.1).dtype)
    finally:
        torch.set_default_dtype(before)
    assert answers == [torch.float32] * 2


@pytest.mark.parametrize("view", [noise_prediction, score_at])
@pytest.mark.parametrize("sigma", [0.0, -1.0, torch.tensor([0.1, 0.0, 0.1])])
def test_views_at_a_noise_level_that_is_none_are_refused(view, sigma):
    with pytest.raises(ValueError, match="must be positive and finite"):
        view(lambda x, s: 0 * x, torch.randn(3, 5), sigma)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_points_that_are_not_in_floating_point_are_refused(dtype):
    with pytest.raises(ValueError, match="x has dtype .*: convert it to floating point"):
        model()(torch.ones(3, 5).to(dtype), 0.1)
