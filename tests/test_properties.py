"""Properties that hold for every input: origin, units, order, batches, dtype. Random examples, a few hundred."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dimlib
from dimlib import ScoreModel, spectrum
from dimlib.data.exact import denoiser
from dimlib.data.manifolds import Plane, Sphere
from dimlib.networks import MLP

many = settings(max_examples=60)
scales = st.floats(-20, 20).map(lambda exponent: 10.0**exponent)
sizes = st.integers(1, 6).flatmap(lambda k: st.tuples(st.just(k), st.integers(k + 1, 12)))
seeds = st.integers(0, 2**31)


def learned(seed):
    """A network whose last layers are not zero, and data for it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = MLP(4, width=8, blocks=1)
        for last in (net.linear, net.leave):
            torch.nn.init.normal_(last.weight, std=0.3)
        return net, torch.randn(50, 4, dtype=torch.float64)


@many
@given(a=scales, b=st.floats(-1e6, 1e6), seed=seeds)
def test_the_spectrum_of_a_model_does_not_depend_on_origin_and_units(a, b, seed):
    """The same at x and at a·(x + b)."""
    net, x = learned(seed)
    here, there = (ScoreModel.for_data(net, y, sigma_min=0.01 * s, sigma_max=s) for y, s in ((x, 1), (a * (x + b), a)))
    ours, theirs = spectrum(here, x[:2], 0.2), spectrum(there, a * (x[:2] + b), 0.2 * a)
    assert np.allclose(ours.values, theirs.values, atol=1e-4) and np.allclose(ours.loss, theirs.loss, rtol=1e-3)


@many
@given(size=sizes, a=scales, b=st.floats(-1e3, 1e3), seed=seeds)
def test_the_dimension_of_a_plane_does_not_depend_on_origin_and_units(size, a, b, seed):
    k, d = size
    here, there = Plane(k, d, seed=seed), Plane(k, d, std=a, seed=seed, offset=a * b)
    answers = [spectrum(denoiser(plane), plane._place(plane._embed(u)), 0.01 * s, seed=seed).dimension()
               for plane, s, u in ((here, 1.0, torch.ones(2, k).double()), (there, a, a * torch.ones(2, k).double()))]
    assert answers[0].tolist() == answers[1].tolist() == [k] * 2


@many
@given(size=sizes, order=st.permutations(range(5)), seed=seeds)
def test_a_point_s_answer_does_not_depend_on_the_order_of_the_points(size, order, seed):
    sphere = Sphere(size[0], size[1], seed=seed)
    x = sphere.sample(5, seed=seed % 1000).double()
    there = spectrum(denoiser(sphere), x[list(order)], 0.05)
    assert np.allclose(there.values, spectrum(denoiser(sphere), x, 0.05).values[list(order)], atol=1e-9)


@settings(max_examples=30)
@given(size=sizes, batch_size=st.integers(5, 400), seed=seeds)
def test_the_batch_size_changes_nothing(size, batch_size, seed):
    sphere = Sphere(size[0], size[1], seed=seed)
    x = sphere.sample(3, seed=seed % 1000).double()
    here, there = (spectrum(denoiser(sphere), x, 0.05, batch_size=b) for b in (batch_size, None))
    assert np.allclose(here.values, there.values, atol=1e-9) and np.allclose(here.loss, there.loss)


@many
@given(size=sizes, dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]), seed=seeds)
def test_every_floating_dtype_has_an_answer_or_a_refusal(size, dtype, seed):
    """Half precision is enough at σ = 0.3, and is refused in words where it is not."""
    k, d = size
    plane = Plane(k, d, seed=seed)
    x = plane.sample(2, seed=seed % 1000)
    try:
        found = spectrum(lambda y, s: denoiser(plane)(y.double(), s), x.to(dtype), 0.3)
    except ValueError as error:
        assert dtype.itemsize == 2 and "apart, which is not small compared with sigma" in str(error)
    else:
        assert found.dimension().shape == (2,)
        assert dtype.itemsize == 2 or found.dimension().tolist() == [k] * 2


@many
@given(seed=seeds, sigma=st.one_of(st.floats(max_value=0.0), st.just(float("nan")), st.just(float("inf"))),
       form=st.sampled_from([float, np.float64, torch.tensor]))
def test_no_readout_takes_a_noise_level_that_is_none(seed, sigma, form):
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
    for readout in (spectrum, dimlib.flipd, dimlib.denoising_loss, dimlib.tangent_sketch):
        try:
            readout(lambda y, s: y, x, form(sigma))
        except ValueError as error:
            assert "must be positive and finite" in str(error)
        else:
            raise AssertionError(f"{readout.__name__} took {sigma}")
