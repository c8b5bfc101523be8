"""Any input has an answer in its range, or an error that is documented. Random examples for each public function.

Fixed examples, few of each, by default; ``make test-slow`` sets DIMLIB_EXAMPLES, and draws that many new ones.
"""

import gzip
import os
import pkgutil
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dimlib
from dimlib import networks, sampler, score, training
from dimlib.apply import cost, pretrained
from dimlib.compare import readouts
from dimlib.data import exact, images, manifolds, pool
from dimlib.data.manifolds import Plane, Sphere, Union
from dimlib.seeds import stream
from dimlib.svd import RULES
from dimlib.vision import SecondLook, UNet

EXAMPLES = int(os.environ.get("DIMLIB_EXAMPLES", 30))
DOCUMENTED = (ValueError, TypeError, MemoryError, FloatingPointError)
D = 4                                                                      # the dimension of points that fit

NAN, INF = float("nan"), float("inf")
number = st.one_of(st.sampled_from([0.1, 1.0, 0.0, -1.0, NAN, INF, -INF, 1e-30, 1e30]), st.floats())
count = st.one_of(st.integers(1, 40), st.integers(1, 40), st.none(), st.integers(-3, 0), st.floats(-3, 40),
                  st.just("7"))
anything = st.one_of(number, count, st.text(max_size=5), st.lists(number, max_size=3), st.just(object()))


@st.composite
def mostly(draw, good, others):
    """An example of the first strategy, or at one of eight times one of the second."""
    return draw(others if draw(st.integers(0, 7)) == 7 else good)


sigma = mostly(st.just(0.1), st.one_of(number, st.just("0.1"), number.map(torch.tensor), st.just(np.float32(0.2)),
                                       st.lists(number, max_size=3).map(torch.tensor)))
sigmas = mostly(st.sampled_from([[0.05, 0.1, 0.2], [0.2, 0.1, 0.05]]), st.one_of(
    st.lists(number, max_size=5), st.lists(number, max_size=5).map(np.array),
    st.lists(number, max_size=4).map(torch.tensor)))
shape = mostly(st.sampled_from([(3, D), (1, D)]), st.lists(st.integers(0, 4), max_size=4).map(tuple))
dtype = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.complex64,
                         torch.bool])
scale = st.sampled_from([1.0, 1e-20, 1e6, 1e20, NAN, INF, 0.0])


@st.composite
def points(draw):
    """Mostly three points in R^4, now and then of another shape, dtype or size; or no tensor."""
    if draw(st.integers(0, 9)) == 9:
        return draw(anything)
    x = torch.randn(draw(shape), generator=stream(draw(st.integers(0, 9)), "x"))
    return (x * draw(mostly(st.just(1.0), scale))).to(draw(mostly(st.just(torch.float32), dtype)))


def finite(value):
    assert np.isfinite(np.asarray(value, dtype=float)).all()


def tensor(value):
    assert torch.isfinite(value).all()


def dimensions(found):
    """A number for each point; of a Readout, it need not be within 0 to d."""
    finite(found.dimension())


def within(found):
    answers = found.dimension()
    finite(answers)
    assert ((answers >= 0) & (answers <= found.values.shape[1])).all()


def estimate(found):
    assert 0 <= found.estimate().mean <= found.spectra[0].values.shape[1] and repr(found)


def index(found):
    assert found >= 0


DENOISERS = [exact.denoiser(Plane(2, D)), exact.denoiser(Sphere(2, D)), lambda x, s: x, lambda x, s: 0 * x,
             lambda x, s: x * NAN, lambda x, s: x[:1], lambda x, s: None, lambda x, s: x.int(),
             dimlib.ScoreModel(networks.MLP(D, width=8, blocks=1), 1.0)]
denoiser = mostly(st.sampled_from(DENOISERS[:4]), st.sampled_from(DENOISERS))
seed = st.one_of(st.integers(0, 5), st.integers(-5, 2**70))
method = mostly(st.sampled_from([*sampler.METHODS]), anything)
MANIFOLDS = [Plane(2, D), Sphere(2, D), manifolds.Cube(2, D), manifolds.SpaghettiLine(D),
             manifolds.NonUniformSphere(2, D), manifolds.Creature(D)]
manifold = st.sampled_from([*MANIFOLDS, Union([Sphere(2, D), Sphere(1, D, seed=1)])])
family = st.sampled_from([images.Squares(2, size=8), images.Blobs(2, size=8)])
given_points = {"denoiser": denoiser, "x": points(), "sigma": sigma}


def real(x):
    """These functions are called in loops, on points that others have checked."""
    return torch.is_tensor(x) and x.is_floating_point() and x.ndim > 1 and x.numel()


clean_points = {"denoiser": st.sampled_from(DENOISERS[:4]), "sigma": sigma, "x": points().filter(real)}


@st.composite
def rows(draw):
    """Mostly 20 rows of 4 columns, as an array; now and then with other values, sizes or types."""
    if draw(st.integers(0, 5)) == 5:
        return draw(anything)
    X = np.random.default_rng(draw(st.integers(0, 9))).normal(size=draw(mostly(st.just((20, D)), st.lists(
        st.integers(0, 12), max_size=4).map(tuple))))
    return X * draw(mostly(st.just(1.0), scale))


def fitted(found):
    assert 0 <= found.dimension_ <= D and np.isfinite(found.sigma_) and repr(found.estimate_)


def noise_model(alphas, sigmas, x, sigma):
    """A network that predicts no noise, called once."""
    return pretrained.from_noise_prediction(lambda x_t, t: 0 * x_t, alphas, sigmas)(x, sigma)


length = mostly(st.just(1.0), st.one_of(number, st.lists(number, max_size=3)))
weights = mostly(st.just([1.0, 3.0]), st.one_of(number, st.lists(number, max_size=3),
                                                st.lists(number, max_size=3).map(torch.tensor)))
size = mostly(st.sampled_from([4, 6, 8]), count)
placed = {"ambient_dim": mostly(st.integers(4, 6), count), "seed": st.one_of(st.none(), seed)}
moved = placed | {"offset": mostly(st.just(0.0), number)}
flat = {"dim": mostly(st.integers(1, 3), count)}


def visited(m):
    """A manifold that has been made answers for its own points."""
    x = m.sample(3)
    tensor(x)
    for answer in (m.project(x), m.distance(x), m.dimension_at(x), m.visible_dimension(x, 0.1)):
        tensor(answer)
    assert not hasattr(m, "tangent_basis") or m.tangent_basis(x).isfinite().all()


def looked_at(family):
    """A family of images that has been made."""
    u = family.sample_coordinates(2)
    tensor(family.project(family.render(u), u, 1))
    assert 0 <= family.dim <= min(len(family.spread), family.ambient_dim)


def used(net):
    """A network for images that has been made."""
    tensor(net(torch.randn(2, net.config["channels_in"], net.config["size"], net.config["size"]), torch.zeros(2)))


images_of = {"f": family, "u": mostly(st.builds(lambda f: f.sample_coordinates(2), family), points())}
unet = {"size": size, "channels_in": mostly(st.integers(1, 3), count), "channels": mostly(st.integers(1, 9), count),
        "multipliers": mostly(st.sampled_from([[1], (1, 2), [1, 1, 2]]), st.lists(count, max_size=3)),
        "blocks": mostly(st.just(1), count), "attention": st.booleans()}


def read_bytes(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images")
        path.write_bytes(content)
        return images.read_idx(path)


IDX = b"\0\0\x08\2" + bytes([0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))


def from_scheduler(name, attributes, config, x, sigma):
    """A denoiser by a scheduler of that name and with these attributes, called once."""
    scheduler = type(name, (), attributes | {"config": config})()
    return pretrained.from_diffusers(lambda x_t, t: 0 * x_t, scheduler)(x, sigma)


schedulers = st.sampled_from([
    ("FlowMatch", {}), ("EDM", {"precondition_noise": staticmethod(torch.log)}), ("Ve", {"discrete_sigmas": None}),
    ("DDPM", {"alphas_cumprod": torch.linspace(0.99, 0.01, 9)}), ("Other", {})])
settings_of_schedulers = st.fixed_dictionaries({
    "num_train_timesteps": mostly(st.just(1000), anything), "sigma_data": mostly(st.just(0.5), number),
    "sigma_min": mostly(st.just(0.01), number), "sigma_max": mostly(st.just(10.0), number),
    "prediction_type": mostly(st.sampled_from(["epsilon", "sample", "v_prediction", "flow_prediction"]), anything)})

FITTED = dimlib.DiffusionDimension(exact.denoiser(Plane(2, D))).fit(Plane(2, D).sample(50).numpy())
FUNCTIONS = {
    # public name, or one of its methods: (function, strategy of each argument, check of the answer)
    "spectrum": (dimlib.spectrum, given_points | {
        "n_scores": count, "center": st.booleans(), "seed": seed, "batch_size": count,
        "directions": st.booleans(), "noise": st.sampled_from(["gaussian", "frame", "?"])}, within),
    "dimension_curve": (dimlib.dimension_curve, {"denoiser": denoiser, "x": points(), "sigmas": sigmas,
                                                 "n_scores": count}, estimate),
    "flipd": (readouts.flipd, given_points | {"n_probes": count, "seed": seed}, dimensions),
    "denoising_loss": (readouts.denoising_loss, given_points | {"n_scores": count, "batch_size": count}, dimensions),
    "tangent_sketch": (readouts.tangent_sketch, given_points | {"seed": seed, "batch_size": count}, dimensions),
    "lhsd": (readouts.lhsd, given_points | {"n_probes": count, "n_steps": count}, dimensions),
    "jacobian_spectrum": (readouts.jacobian_spectrum, given_points, within),
    "lidl": (readouts.lidl, {"log_density": st.sampled_from([
        exact.denoiser(Sphere(2, D)).log_density, lambda x, s: x[:, 0], lambda x, s: x, lambda x, s: None]),
        "x": points(), "sigmas": sigmas}, dimensions),
    "knee": (readouts.knee, {"sigmas": sigmas, "dimensions": sigmas}, index),
    "noise_prediction": (score.noise_prediction, clean_points, None),
    "score_at": (score.score_at, clean_points, None),
    "noisy_copies": (lambda x0, sigma, n: sampler.noisy_copies(x0, sigma, n, stream(0, "x"))[0], {
        "x0": points().filter(real), "sigma": st.one_of(sigma, number), "n": st.integers(-2, 9)}, None),
    "expected_cost": (cost.expected_cost, given_points | {"n_scores": mostly(st.just(20), count)},
                      lambda cost: finite([cost.evaluations, cost.seconds, cost.bytes])),
    "expected_seconds": (cost.expected_seconds, given_points | {
        "n_levels": mostly(st.integers(1, 9), count), "steps": mostly(st.integers(0, 9), count),
        "batch_size": mostly(st.integers(1, 9), count)}, lambda seconds: finite([seconds])),
    "DiffusionDimension": (lambda denoiser, X, **given: dimlib.DiffusionDimension(denoiser, **given).fit(X), {
        "denoiser": denoiser, "X": rows(), "sigmas": mostly(st.none(), sigmas), "n_points": count,
        "random_state": mostly(seed, anything), "max_steps": mostly(st.just(3), anything),
        "min_steps": mostly(st.integers(0, 4), anything)}, fitted),
    "DiffusionDimension.predict": (lambda X: FITTED.predict(X), {"X": rows()}, finite),
    "from_noise_prediction": (lambda **given: noise_model(**given), {
        "alphas": mostly(st.just(torch.linspace(0.99, 0.1, 9)), sigmas), "sigmas": mostly(
            st.just(torch.linspace(0.05, 0.99, 9)), sigmas), "x": points(), "sigma": sigma}, None),
    "from_diffusers": (lambda scheduler, **given: from_scheduler(*scheduler, **given), {
        "scheduler": schedulers, "config": settings_of_schedulers, "x": points(), "sigma": sigma}, tensor),
    "noise_schedule": (sampler.noise_schedule, {
        "sigma_min": mostly(st.just(0.1), number), "sigma_max": mostly(st.just(1.0), number), "steps": count}, tensor),
    "reverse_diffusion": (sampler.reverse_diffusion, {
        "denoiser": denoiser, "n": count, "shape": mostly(st.just((D,)), st.sampled_from([(D + 1,), (), (0,)])),
        "sigmas": mostly(st.just([0.2, 0.1]), sigmas), "method": method, "seed": seed}, tensor),
    "walk": (sampler.walk, {"denoiser": denoiser, "x": points(), "direction": points(), "sigma": sigma,
                            "step": number, "n_steps": count}, tensor),
    "train": (lambda model, **given: training.train(model, **given), {
        "model": st.builds(lambda: dimlib.ScoreModel(networks.MLP(D, width=8, blocks=1), 1.0)), "x": points(),
        "steps": mostly(st.integers(1, 3), anything), "batch_size": mostly(st.integers(1, 5), count),
        "lr": mostly(st.just(1e-3), number), "seed": seed},
        lambda model: [tensor(p) for p in model.parameters()]),
    "ScoreModel": (dimlib.ScoreModel, {
        "net": st.just(networks.MLP(D, width=8, blocks=1)), "data_std": mostly(st.just(1.0), number),
        "data_mean": mostly(st.just(0.0), st.one_of(number, points())),
        "parametrisation": mostly(st.sampled_from([*score.PARAMETRISATIONS]), anything),
        "sigma_min": mostly(st.just(0.1), number), "sigma_max": mostly(st.just(1.0), number)}, None),
    "MLP": (networks.MLP, {"dim": st.integers(0, 9), "width": mostly(st.integers(1, 9), count),
                           "blocks": mostly(st.integers(1, 3), count), "waves": st.booleans()},
            lambda net: tensor(net(torch.randn(2, net.config["dim"]), torch.zeros(2)))),
    "UNet": (lambda **given: used(UNet(**given)), unet, None),
    "SecondLook": (lambda **given: used(SecondLook(**given)), unet | {
        "ends": mostly(st.just([0.0, 1.0]), st.one_of(number, st.lists(number, max_size=3))),
        "unit": mostly(st.just(1.0), anything)}, None),
    "Plane": (lambda **given: visited(Plane(**given)), flat | moved | {"std": length}, None),
    "Cube": (lambda **given: visited(manifolds.Cube(**given)), flat | moved | {"side": length}, None),
    "Sphere": (lambda **given: visited(Sphere(**given)), flat | moved | {"radius": length}, None),
    "NonUniformSphere": (lambda **given: visited(manifolds.NonUniformSphere(**given)), flat | placed | {
        "alpha": length}, None),
    "SpaghettiLine": (lambda **given: visited(manifolds.SpaghettiLine(**given)), placed, None),
    "Creature": (lambda **given: manifolds.Creature(**given).sample(3), moved | {"size": length}, tensor),
    "Union": (lambda **given: visited(Union(**given)), {
        "parts": mostly(st.just([Sphere(2, D), Plane(1, D)]), st.lists(st.sampled_from([*MANIFOLDS[:5], Sphere(2, 9)]),
                                                                      max_size=3)),
        "weights": st.one_of(st.none(), weights)}, None),
    "Manifold.sample": (lambda m, n, s: m.sample(n, s), {"m": manifold, "n": count, "s": seed}, tensor),
    "Manifold.project": (lambda m, x: m.project(x), {"m": manifold, "x": points()}, tensor),
    "Manifold.distance": (lambda m, x: m.distance(x), {"m": manifold, "x": points()}, tensor),
    "Manifold.tangent_basis": (lambda m, x: m.tangent_basis(x), {
        "m": st.sampled_from(MANIFOLDS), "x": points()}, tensor),
    "Manifold.dimension_at": (lambda m, x: m.dimension_at(x), {"m": manifold, "x": points()}, tensor),
    "Union.component": (lambda m, x: m.component(x), {
        "m": st.just(Union([Sphere(2, D), Sphere(1, D, seed=1)])), "x": points()}, tensor),
    "denoiser": (lambda m, x, s: exact.denoiser(m)(x, s), {
        "m": st.sampled_from([Plane(2, D), Sphere(2, D), manifolds.SpaghettiLine(D),
                              Union([Plane(1, D), Sphere(2, D)])]), "x": points(), "s": sigma}, tensor),
    "denoiser of a line": (lambda m, s, x: exact.denoiser(m, s)(x, 0.1), {
        "m": st.just(manifolds.SpaghettiLine(D)), "s": number, "x": points()}, tensor),
    "GaussianPlane": (lambda x, s: exact.GaussianPlane(Plane(2, D)).log_density(x, s), {
        "x": points(), "s": sigma}, tensor),
    "UniformSphere": (lambda x, s: exact.UniformSphere(Sphere(2, D)).log_density(x, s), {
        "x": points(), "s": sigma}, tensor),
    "Mixture": (lambda parts, weights, x, s: exact.Mixture(parts, weights)(x, s), {
        "parts": mostly(st.just(DENOISERS[:2]), st.lists(st.sampled_from(DENOISERS[:2]), max_size=3)),
        "weights": mostly(st.just([0.2, 0.8]), weights), "x": points(), "s": sigma}, tensor),
    "Empirical": (lambda x, s, **given: exact.Empirical(**given)(x, s), {
        "points": points(), "weights": st.one_of(st.none(), mostly(st.just([1.0, 2.0, 3.0]), weights)),
        "block": mostly(st.just(2), count), "sigma_min": mostly(st.just(0.0), number), "x": points(), "s": sigma},
        tensor),
    "Manifold.visible_dimension": (lambda m, x, s: m.visible_dimension(x, s),
                          {"m": manifold, "x": st.builds(lambda m: m.sample(2), manifold), "s": sigma}, tensor),
    "Squares": (lambda **given: looked_at(images.Squares(**given)), {
        "n_squares": mostly(st.integers(1, 5), count), "size": mostly(st.integers(5, 9), count), "seed": seed}, None),
    "Blobs": (lambda **given: looked_at(images.Blobs(**given)), {
        "n_blobs": mostly(st.integers(1, 5), count), "size": mostly(st.integers(4, 9), count), "seed": seed}, None),
    "ImageFamily.sample": (lambda f, n, s: f.sample(n, s), {"f": family, "n": count, "s": seed}, tensor),
    "ImageFamily.render": (lambda f, u: f.render(u), images_of, tensor),
    "ImageFamily.tangent_basis": (lambda f, u: f.tangent_basis(u), images_of, tensor),
    "ImageFamily.tangent_lengths": (lambda f, u: f.tangent_lengths(u), images_of, tensor),
    "ImageFamily.visible_dimension": (lambda f, u, s: f.visible_dimension(u, s), images_of | {"s": sigma}, tensor),
    "ImageFamily.project": (lambda f, u, x, steps: f.project(x, u, steps), images_of | {
        "x": mostly(st.integers(0, 9).map(lambda i: torch.randn(2, 1, 8, 8, generator=stream(i, "x"))), points()),
        "steps": mostly(st.integers(0, 3), count)}, tensor),
    "read_idx": (read_bytes, {"content": mostly(st.sampled_from([IDX, gzip.compress(IDX)]), st.one_of(
        st.binary(max_size=30), st.binary(max_size=9).map(lambda end: IDX + end),
        st.binary(max_size=9).map(lambda end: gzip.compress(IDX)[:20] + end)))}, tensor),
    "draw": (pool.draw, {"name": st.one_of(st.sampled_from([*pool.POOL]), anything), "n": count, "seed": seed},
             lambda found: finite(found[0])),
    **{f"RULES.{name}": (rule, {"values": mostly(st.just([[0.9, 0.8, 0.1]]), st.lists(sigmas, max_size=3)),
                             "n_scores": mostly(st.floats(1, 100), number)}, finite)
       for name, rule in RULES.items()},
}

# Modules whose functions get arguments that others have checked: the command line, whose files have tests with damaged
# ones, and the parts of DiffusionDimension.
PARTS = {f"dimlib.apply.{name}" for name in (
    "command", "files", "program", "reading", "tables", "doubts", "learning")}
EXCEPTIONS = {
    "Baseline", "Cost", "DimensionCurve", "Estimate", "PretrainedDenoiser", "Progress", "Readout", "Spectrum",
    "TangentSketch",                                                       # results, which the functions above return
    "FACES", "GALAXIES", "METHODS", "POOL", "Denoiser",                    # tables of names, and a type
    "FourierFeatures", "start_at_zero", "touches_data",                    # parts of networks, for those who write one
    "stream",                                                              # takes any seed, and any name
    "train_steps",                                                         # train is its loop
    "digits", "fashion_mnist", "fetch", "mnist",                           # files and downloads: tests/data/
    "estimate",                                                            # starts processes: tests/compare/
}


def test_no_public_function_is_forgotten():
    modules = {module.name for module in pkgutil.walk_packages(dimlib.__path__, "dimlib.") if not module.ispkg
               and not module.name.startswith(("dimlib.machine.", "dimlib.book.", "dimlib.__main__"))}
    public = {name for module in modules - PARTS for name in import_module(module).__all__}
    here = {name.split(".")[0].split()[0] for name in FUNCTIONS}
    assert modules > PARTS and not here & EXCEPTIONS
    assert here | EXCEPTIONS == public


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_answer_or_a_documented_error(name):
    function, strategies, good = FUNCTIONS[name]
    seen = SimpleNamespace(answers=0, refusals=0)

    @settings(max_examples=EXAMPLES, derandomize="DIMLIB_EXAMPLES" not in os.environ, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries(strategies))
    def check(arguments):
        try:
            with warnings.catch_warnings():                                # of doubts, and of NumPy about infinity
                warnings.simplefilter("ignore", category=UserWarning)
                warnings.simplefilter("ignore", category=RuntimeWarning)
                found = function(**arguments)
        except DOCUMENTED:
            seen.refusals += 1
            return
        seen.answers += 1
        if good:
            good(found)

    check()
    assert seen.answers and seen.refusals, f"{seen}: the examples are too easy or too hard"
