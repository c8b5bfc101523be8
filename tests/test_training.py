"""Training: it learns, it repeats itself, it resumes, and it says what is wrong."""

import copy
import itertools
import time

import numpy as np
import pytest
import safetensors.torch
import torch

import dimlib
from dimlib import training
from dimlib.data.exact import denoiser
from dimlib.data.manifolds import Plane
from dimlib.machine import descent
from dimlib.machine.compute import choose_device
from dimlib.machine.progress import show
from dimlib.machine.tensors import read_tensors, write_tensors
from dimlib.networks import MLP
from dimlib.score import ScoreModel
from dimlib.seeds import stream
from dimlib.training import train_steps
from dimlib.vision import UNet

PLANE = Plane(3, 12, seed=1, offset=2.0)
DATA = PLANE.sample(2000)


def model(seed=0, dim=12, **more):
    torch.manual_seed(seed)
    settings = {"data_std": 0.5, "data_mean": DATA.mean(0) if dim == 12 else 0.0, "sigma_min": 0.05} | more
    return ScoreModel(MLP(dim, width=32, blocks=1), **settings)


def train(m, x=DATA, steps=30, **more):
    return list(train_steps(m, x, **{"steps": steps, "batch_size": 64, "device": "cpu"} | more))


def weights(m):
    return torch.cat([p.detach().flatten() for p in m.parameters()])


def same(a, b):
    return torch.equal(weights(a), weights(b))


@pytest.mark.parametrize("parametrisation", ["data", "noise", "edm"])
def test_a_plane_is_learned_and_its_dimension_read_off(parametrisation):
    m = model(parametrisation=parametrisation)
    progress = train(m, steps=800, batch_size=250, lr=2e-3, exact=denoiser(PLANE))
    first, last = progress[0], progress[-50:]
    excess = sum(p.excess for p in last) / 50
    floor = sum(p.loss - p.excess for p in last) / 50
    assert excess < 0.8 and first.excess > 5
    assert 2 < floor < 3.3                                                 # k = 3, less at large σ
    answer = dimlib.spectrum(m, PLANE.sample(20, seed=5), 0.1)
    assert answer.dimension().tolist() == [3] * 20
    assert abs(answer.loss.mean() - 3) < 0.7


def test_the_reported_loss_is_in_epsilon_units():
    """Of the identity, D = x, the loss is E‖ε‖² = d; of the exact denoiser the excess is nothing."""
    (first,) = train(model(), steps=1, batch_size=4000, exact=lambda x, sigma: x)
    assert abs(first.loss - 12) < 0.3 and first.excess < 1e-6
    (unknown,) = train(model(), steps=1)
    assert unknown.excess != unknown.excess                                # nan


def test_a_batch_is_noisy_data_at_log_uniform_noise_levels():
    """Seen through the exact denoiser: breaks if the training noise forgets x_0 or its scale."""
    seen = []
    train(model(), steps=10, batch_size=1000, exact=lambda x, sigma: seen.append((x, sigma)) or x)
    assert all(len(x) == 1000 for x, _ in seen)
    x, sigma = (torch.cat(part).double() for part in zip(*seen, strict=True))
    u = (sigma / 0.05).log() / torch.tensor(1 / 0.05).log()
    assert 0 <= u.min() < 0.01 and 0.99 < u.max() <= 1 + 1e-6
    assert abs(u.mean() - 0.5) < 0.02 and abs(u.var() - 1 / 12) < 0.005
    along = (x - PLANE.center) @ PLANE.frame
    off = (x - PLANE.center - along @ PLANE.frame.T) / sigma[:, None]      # 9 standard normals each
    assert abs(off.square().sum(1).mean() - 9) < 0.2
    assert torch.allclose(along.var(0), 1 + sigma.square().mean(), rtol=0.12)


def test_points_of_any_shape():
    class Picture(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = MLP(12, width=16, blocks=1)

        def forward(self, x, log_sigma):
            return self.net(x.flatten(1), log_sigma).view_as(x)

    torch.manual_seed(0)
    m = ScoreModel(Picture(), 0.5, data_mean=DATA.mean(0).view(3, 4), sigma_min=0.05)
    progress = train(m, DATA.view(-1, 3, 4), steps=100, lr=3e-3)
    assert [p.step for p in progress] == list(range(100)) and progress[-1].loss < progress[0].loss


def test_the_rate_warms_up_and_decays():
    rates = [p.lr for p in train(model(), steps=400, lr=1e-2)]
    assert rates[0] < 2e-4 and max(rates) <= 1e-2 and rates[-1] < 1e-5
    assert 90 <= rates.index(max(rates)) <= 110
    assert all(a >= b for a, b in itertools.pairwise(rates[110:]))


def test_the_same_seed_gives_the_same_bits():
    a, b = model(), model()
    assert [p.loss for p in train(a, seed=3)] == [p.loss for p in train(b, seed=3)]
    assert same(a, b)


@pytest.mark.parametrize("other", [4, -1, 2**31])
def test_another_seed_draws_other_batches(other):
    a, b = train(model(), seed=3), train(model(), seed=other)
    assert all(p.loss != q.loss for p, q in zip(a, b, strict=True))


def test_the_global_seed_is_neither_used_nor_moved():
    a, b = model(), model()
    torch.manual_seed(11)
    train(a)
    after = torch.rand(1)
    torch.manual_seed(11)
    assert torch.equal(after, torch.rand(1))
    train(b)
    assert same(a, b)


@pytest.mark.parametrize("stop", [20, 25])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, stop):
    whole, part, rest = model(), model(), model(seed=9)                    # its own weights do not matter
    whole_progress = train(whole, steps=40, checkpoint=tmp_path / "whole", checkpoint_every=10)
    file = tmp_path / "runs" / "part"
    options = {"checkpoint": file, "checkpoint_every": 10, "batch_size": 64, "device": "cpu"}
    for progress in train_steps(part, DATA, 40, **options):
        if progress.step + 1 == stop:
            break
    resumed = list(train_steps(rest, DATA, 40, **options))
    assert [p.step for p in resumed] == list(range(40))
    assert [(p.loss, p.lr) for p in resumed] == [(p.loss, p.lr) for p in whole_progress]
    assert all(0 < a.seconds < b.seconds for a, b in itertools.pairwise(resumed))
    assert same(whole, rest) and not same(whole, part)


def test_numbers_of_numpy_train_as_others_do_and_go_on_from_the_same_checkpoint(tmp_path):
    theirs = {"steps": np.int64(20), "batch_size": np.int32(64), "lr": np.float32(0.0078125), "seed": np.int64(3)}
    ours = {name: value.item() for name, value in theirs.items()}
    whole = train(a := model(), **ours)
    for first, second in ((ours, theirs), (theirs, ours)):
        file = tmp_path / f"{type(first['steps']).__name__}"
        for progress in train_steps(model(), DATA, device="cpu", checkpoint=file, checkpoint_every=10, **first):
            if progress.step == 12:
                break
        again = train(b := model(seed=9), checkpoint=file, **second)
        assert [(p.loss, p.lr) for p in again] == [(p.loss, p.lr) for p in whole] and same(a, b)


@pytest.mark.parametrize("part", ["history", "optimizer1.0.exp_avg", "optimizer0.0.momentum_buffer"])
def test_where_a_part_of_a_checkpoint_is_missing_the_run_goes_on_from_the_one_before_it(tmp_path, part):
    progress = train(a := model(), checkpoint=tmp_path / "c", checkpoint_every=10)
    tensors, header = read_tensors(tmp_path / "c", "training")
    if part == "history":                                                  # a version without the learning rate
        tensors[part] = tensors[part][:, :4]
    else:
        del tensors[part]
    write_tensors(tensors, tmp_path / "c", "training", header)
    with pytest.warns(UserWarning, match=f"c lacks a part of its run.*{part}.*goes on from the checkpoint before it"):
        again = train(b := model(), checkpoint=tmp_path / "c")
    assert [p.loss for p in again] == [p.loss for p in progress] and same(a, b)


def test_two_runs_cannot_have_one_checkpoint(tmp_path):
    running = train_steps(model(), DATA, 5, batch_size=16, device="cpu", checkpoint=tmp_path / "c")
    next(running)
    with pytest.raises(RuntimeError, match="c is in use by another process: wait for it, or name another"):
        train(model(), steps=5, batch_size=16, checkpoint=tmp_path / "c")
    assert len(list(running)) == 4
    assert len(train(model(), steps=5, batch_size=16, checkpoint=tmp_path / "c")) == 5


def test_a_checkpoint_does_not_change_the_run(tmp_path):
    a, b = model(), model()
    train(a)
    train(b, checkpoint=tmp_path / "c", checkpoint_every=7)
    assert same(a, b)


def test_a_finished_run_is_not_repeated(tmp_path):
    a, b = model(), model(seed=9)
    first, again = train(a, checkpoint=tmp_path / "c"), train(b, checkpoint=tmp_path / "c")
    assert [(p.step, p.loss, p.seconds) for p in again] == [(p.step, p.loss, p.seconds) for p in first] and same(a, b)


def test_the_time_of_whoever_watches_is_not_counted():
    seconds = []
    for progress in train_steps(model(), DATA, 2, batch_size=16, device="cpu"):
        seconds.append(progress.seconds)
        time.sleep(1)
    assert 0 < seconds[0] < seconds[1] < 1


@pytest.mark.parametrize("other", [{"steps": 31}, {"batch_size": 65}, {"lr": 2e-3}, {"seed": 1}, {"x": DATA[:-1]}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other):
    train(model(), checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="c belongs to another run.*delete c and c.previous to .*, or name another"):
        train(model(), checkpoint=tmp_path / "c", **other)


@pytest.mark.parametrize("other", [{"parametrisation": "noise"}, {"sigma_min": 0.1}, {"sigma_max": 2.0},
                                   {"data_std": 1.0}])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, other):
    train(model(), checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="c belongs to another run"):
        train(model(**other), checkpoint=tmp_path / "c")


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(model(), checkpoint=tmp_path / "c")
    wider = ScoreModel(MLP(12, width=48, blocks=1), 0.5, DATA.mean(0), sigma_min=0.05)
    with pytest.raises(ValueError, match="c belongs to another run"):
        train(wider, checkpoint=tmp_path / "c")


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    train(model(), checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="c belongs to another run"):
        train(model(), PLANE.sample(2000, seed=8), checkpoint=tmp_path / "c")


def test_a_saved_model_is_no_checkpoint(tmp_path):
    model().save(tmp_path / "c")
    with pytest.raises(ValueError, match="c has no 'training' entry"):
        train(model(), checkpoint=tmp_path / "c")


def test_a_file_of_something_else_is_no_checkpoint(tmp_path):
    (tmp_path / "c").write_text("not safetensors at all")
    with pytest.raises(ValueError, match="c"):
        train(model(), checkpoint=tmp_path / "c")


def test_the_model_is_the_average_and_not_the_student(tmp_path):
    train(m := model(), steps=20, checkpoint=tmp_path / "c")
    saved = safetensors.torch.load_file(tmp_path / "c")
    for name, tensor in m.state_dict().items():
        assert torch.equal(tensor, saved[f"average.{name}"])
    moved = [k for k in m.state_dict() if not torch.equal(saved[f"average.{k}"], saved[f"student.{k}"])]
    assert set(dict(m.named_parameters())) == set(moved)


def test_the_first_step_of_the_average():
    """Adam's first step is lr · sign(gradient); the average goes nine tenths of the way, from zero."""
    (progress,) = train(m := model(), steps=1, batch_size=500)
    step = m.net.linear.weight.detach().abs()
    assert torch.allclose(step, torch.full_like(step, 0.9 * progress.lr), rtol=1e-3)


def test_the_model_can_be_used_at_any_time():
    """Between steps it is in evaluation mode, and gives gradients to nobody."""
    m = model()
    for _ in train_steps(m, DATA, 3, batch_size=16, device="cpu"):
        assert not m.training
        assert torch.isfinite(m(DATA[:5], 0.1)).all()
        assert all(p.grad is None for p in m.parameters())


def test_weights_stay_finite_when_the_loss_does_not():
    m = model()
    with pytest.raises(FloatingPointError, match=r"loss at step \d+ is .*lower lr.*1e\+30.*scale the data"):
        train(m, lr=1e30)
    assert torch.isfinite(weights(m)).all()


@pytest.mark.parametrize("x, message", [
    (DATA + 1j, r"real tensor"),
    (DATA[0], r"at least two points, got \(12,\)"),
    (DATA[:1], r"at least two points, got \(1, 12\)"),
    (DATA.numpy(), "got ndarray"),
    (torch.full((5, 12), float("nan")), "NaN or infinite values: remove or impute"),
    (torch.full((5, 12), float("inf")), "NaN or infinite values: remove or impute"),
    (torch.ones(5, 12), "all points of x are the same"),
    (torch.ones(5, 12, dtype=torch.int64), "all points of x are the same"),
    (torch.arange(12.0).expand(5, 12), "all points of x are the same"),  # one point, five times
    (DATA * 0.01, r"sigma_min=0.05 is larger than the spread of the data.*lower it"),
])
def test_bad_data_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        train(model(), x)


def test_data_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match="7"):
        train(model(), torch.randn(50, 7))


@pytest.mark.parametrize("sizes", [{"steps": 0}, {"batch_size": 0}, {"steps": -1}])
def test_empty_runs_are_refused(sizes):
    (name, value), = sizes.items()
    with pytest.raises(ValueError, match=f"{name}={value}.*must be at least 1"):
        train(model(), **sizes)


@pytest.mark.parametrize("cuda, mps, expected", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_is_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"


def test_a_shown_run_is_the_run_and_silent_without_a_terminal(capsys):
    shown = list(show(train_steps(model(), DATA, 5, batch_size=8), 5))
    assert [p.loss for p in shown] == [p.loss for p in train_steps(model(), DATA, 5, batch_size=8)]
    assert capsys.readouterr() == ("", "")


def test_train_trains_at_once_and_returns_the_model():
    a, b = model(), model()
    returned = dimlib.train(a, DATA, 30, batch_size=64, device="cpu")
    for _ in train_steps(b, DATA, 30, batch_size=64, device="cpu"):
        pass
    assert returned is a and same(a, b) and not same(a, model())


# ---------------------------------------------------------------- what the recipe is made of


def test_noise_comes_in_antithetic_pairs_at_the_same_point_and_level():
    x0, sigma, noise = training._batch(model(), DATA, 10, seed=0, step=3)
    assert torch.equal(noise[:5], -noise[5:]) and torch.equal(x0[:5], x0[5:]) and torch.equal(sigma[:5], sigma[5:])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 36, 100])
def test_a_batch_has_the_size_that_was_asked_for(batch_size):
    x0, sigma, noise = training._batch(model(), DATA[:36], batch_size, seed=0, step=0)
    assert len(x0) == len(sigma) == len(noise) == batch_size


def test_the_points_of_a_batch_are_all_different_while_there_are_enough():
    x0, *_ = training._batch(model(), DATA[:36], 36, seed=0, step=0)
    assert len(x0.unique(dim=0)) == 18                                     # 18 pairs
    x0, *_ = training._batch(model(), DATA[:36], 80, seed=0, step=0)
    assert len(x0.unique(dim=0)) == 36


def test_muon_is_that_of_pytorch_in_float32(monkeypatch):
    """PyTorch's works in bfloat16 everywhere, which is slow on many processors."""
    ours = [torch.randn(shape, generator=stream(0, str(shape))) for shape in ((6, 6), (9, 4), (4, 9))]
    theirs = [w.clone() for w in ours]
    muon = descent.Muon(ours, 1e-2)
    reference = torch.optim.Muon(theirs, 1e-2, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    for i in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=stream(i, str(a.shape)))
            b.grad = a.grad.clone()
        muon.step(), reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_marked_is_trained_by_adam_whatever_its_name():
    m = model()
    m.net.linear, m.net.renamed = torch.nn.Identity(), m.net.linear
    _, adam = descent._optimizers(m, 1e-3)
    assert any(p is m.net.renamed.weight for p in adam.param_groups[0]["params"])


def test_the_average_forgets_a_thousandth_of_itself_in_a_step():
    ours = model()
    steps = descent.Descent(ours, lambda m, x: (0 * m(x, 0.1).sum(),), lr=1e-3)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), steps.weights, strict=True):
            a.fill_(0), b.fill_(1)
    steps.step(10**6, 0.0, DATA[:2])
    assert torch.allclose(weights(ours), torch.tensor(0.001))


def test_a_step_is_that_of_the_optimiser_with_its_learning_rate():
    """A full step and a part of it, by the same gradient: the weights move along one line."""
    def moved(rate, lr):
        ours = model()
        steps = descent.Descent(ours, lambda m, x: ((m(x, 0.1) - 1).square().mean(),), lr=lr)
        before = weights(steps.student)
        steps.step(0, rate, DATA[:50])
        return weights(steps.student) - before

    assert torch.allclose(moved(0.25, 4e-3), moved(1.0, 1e-3), atol=1e-7) and moved(0.25, 4e-3).abs().max() > 5e-4


def test_a_step_leaves_no_graph_behind():
    """A graph that is kept between two steps cannot be captured on a GPU, and grows."""
    steps = descent.Descent(model(), lambda m, x: (m(x, 0.1).square().sum(), m(x, 0.1)), lr=1e-3)
    (kept,) = steps.step(0, 1.0, DATA[:5])
    assert not any(t.requires_grad for t in (kept, *steps._before))


def test_the_weight_of_the_loss_hides_small_noise_at_first_and_nothing_at_the_end(monkeypatch):
    """σ²/(σ² + c²), where c falls from a tenth of the largest standard deviation to 0."""
    seen = []

    class Spy(descent.Descent):
        def step(self, number, rate, noisy, x0, sigma, weight):
            seen.append((sigma, weight))
            return super().step(number, rate, noisy, x0, sigma, weight)

    monkeypatch.setattr(training, "Descent", Spy)
    train(model(), x=1000 * DATA, steps=4)
    centred = (1000 * DATA - 1000 * DATA.mean(0)).double()
    unit = torch.linalg.eigvalsh(centred.T @ centred / len(DATA))[-1].sqrt()
    for step, (sigma, weight) in enumerate(seen):
        c = 0.1 * unit * (1 - step / 4)
        assert torch.allclose(weight.double(), sigma.double()**2 / (sigma.double()**2 + c**2), rtol=1e-4)


def test_the_weighted_loss_is_what_is_minimised():
    m = model()
    x0, sigma, noise = training._batch(m, DATA, 40, seed=0, step=0)
    weight = torch.linspace(0, 1, 40)
    minimised, loss, _ = training._losses(lambda noisy, level: noisy, x0 + sigma[:, None] * noise, x0, sigma, weight)
    assert minimised == pytest.approx((weight * noise.square().sum(1)).mean().item(), rel=1e-3)
    assert loss == pytest.approx(noise.square().sum(1).mean().item(), rel=1e-3)


def test_the_average_takes_the_buffers_of_the_student():
    class Counting(MLP):
        def __init__(self):
            super().__init__(12, width=8, blocks=1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x, log_sigma):
            self.calls += self.training
            return super().forward(x, log_sigma)

    m = ScoreModel(Counting(), 0.5, DATA.mean(0), sigma_min=0.05)
    train(m, steps=5)
    assert m.net.calls == 5


def test_the_norm_of_the_gradients_is_at_most_one(monkeypatch):
    norms = []

    class Spy(torch.optim.Adam):
        def step(self):
            norms.append(sum(p.grad.square().sum() for p in self.param_groups[0]["params"]).sqrt().item())
            super().step()

    monkeypatch.setattr(descent, "Adam", Spy)
    train(model(), 1000 * DATA, steps=3)
    assert max(norms) <= 1.001
    norms.clear()
    monkeypatch.setattr(descent, "MAX_GRADIENT_NORM", 1e9)
    train(model(), 1000 * DATA, steps=3)
    assert max(norms) > 1.1, "else there is nothing to see"


def test_double_data_far_from_the_origin_are_learned_as_at_the_origin():
    x = DATA.double()
    torch.manual_seed(0)
    net = MLP(12, width=16, blocks=1)
    losses = []
    for shift in (0.0, 1e6):
        m = ScoreModel.for_data(copy.deepcopy(net), x + shift, sigma_min=0.05)
        losses.append([p.loss for p in train_steps(m, x + shift, 20, batch_size=64, device="cpu")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("sizes", [{"steps": 10.0}, {"batch_size": 10.0}, {"steps": "10"}])
def test_numbers_that_are_not_whole_are_refused(sizes):
    (name, _), = sizes.items()
    with pytest.raises(TypeError, match=f"{name}=.*must be a whole number"):
        train(model(), **sizes)


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -1e-3, 0.0, "fast"])
def test_a_learning_rate_that_is_none_is_refused(lr):
    with pytest.raises(ValueError, match="the learning rate must be a positive number"):
        train(model(), lr=lr)


def test_a_checkpoint_every_0_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every=0 must be at least 1"):
        train(model(), checkpoint=tmp_path / "c", checkpoint_every=0)


@pytest.mark.parametrize("net, shape, threads", [
    (MLP(6, width=8), (6,), 1), (MLP(6, width=1024), (6,), 3), (MLP(6, width=8), (2, 3), 1),
    (UNet(8, channels=8, multipliers=[1]), (1, 8, 8), 3)])
def test_a_step_of_a_small_network_uses_one_thread_but_for_images(net, shape, threads):
    seen, before = set(), torch.get_num_threads()
    net.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    try:
        torch.set_num_threads(3)
        for _ in train_steps(ScoreModel(net, 1.0), torch.randn(20, *shape), 1):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == {threads}
