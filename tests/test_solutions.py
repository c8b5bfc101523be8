"""The numbers in the solutions that are words, not code: each is computed here, in another way where there is one.

What a solution takes from its chapter is read there, from the outputs or the tables of results. Solutions that are code
have a check in their notebook. Those that need a long training or a download are not here.
"""

import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

import dimlib
from dimlib.apply.doubts import dimension_of_neighbours
from dimlib.compare.readouts import flipd
from dimlib.data import exact, pool
from dimlib.data.manifolds import Plane, SpaghettiLine, Sphere
from dimlib.networks import MLP
from dimlib.sampler import noisy_copies
from dimlib.score import PARAMETRISATIONS
from dimlib.seeds import stream
from dimlib.svd import RULES

ROOT = Path(__file__).parents[1]
CELLS = [cell for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
         for cell in nbformat.read(path, as_version=4).cells]
TEXT = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
PRINTED = "\n".join(output.get("text", "") for cell in CELLS if cell.cell_type == "code" for output in cell.outputs)


def solution(label, *numbers):
    """The text of a solution, in which each of these numbers stands."""
    (text,) = re.findall(rf"\{{solution\}} {label}\n(.*?)(?:```|:::)", TEXT, re.DOTALL)
    for number in numbers:
        assert re.search(rf"(?<![\d.]){re.escape(str(number))}(?![\d]|\.\d)", text), f"{label} does not say {number}"
    return text


def exercise(label):
    """The text of an exercise."""
    (text,) = re.findall(rf"\{{exercise\}}\n:label: {label}\n(.*?)(?:```|:::)", TEXT, re.DOTALL)
    return text


def table(name):
    return pd.read_csv(ROOT / "results" / f"{name}.csv")


def answers(values, n_scores=400):
    """The dimension by each rule, for one spectrum."""
    return {name: int(rule(np.array([sorted(values, reverse=True)]), n_scores)[0]) for name, rule in RULES.items()}


def test_angle():
    """The rates with the exact score of a curve, at two small noise levels of which one is four times the other."""
    line = SpaghettiLine(2)
    denoiser, x, angles = exact.denoiser(line, 0.002), line.sample(10, seed=1).double(), []
    for sigma in (0.002, 0.008):
        y = noisy_copies(x, sigma, 200, stream(0, "copies"))[0].flatten(0, 1)
        score, tangent = denoiser(y, sigma) - y, line.tangent_basis(y)[:, :, 0]
        along = (score * tangent).sum(1)
        across = (score - along[:, None] * tangent).norm(dim=1)
        angles.append(math.atan((along.abs() / across).median()))
    assert math.tan(angles[1]) / math.tan(angles[0]) == pytest.approx(4, rel=0.03)
    assert (1 - math.cos(angles[1])) / (1 - math.cos(angles[0])) == pytest.approx(16, rel=0.03)
    ratio = 0.1 / 4
    solution("nb02-ex-angle", ratio, f"{math.degrees(math.atan(ratio)):.1f}", 16)


def test_a_weak_normal_in_the_plane_of_the_rules():
    """By the rules themselves, on 89 normals at the edge, one weak normal w and ten tangents at 0.01."""
    def leaves(rule, low=0.02, high=0.49):
        """The w below which the rule no longer answers ten."""
        for _ in range(40):
            w = (low + high) / 2
            low, high = (low, w) if answers([0.5] * 89 + [w] + [0.01] * 10)[rule] == 10 else (w, high)
        return low
    assert leaves("gap") == pytest.approx(0.255, abs=1e-6)
    assert leaves("recommended") == pytest.approx(0.015**0.5, abs=1e-6)
    solution("nb03-exercise-weak", 0.255, 0.12)


def test_noise_along_a_frame():
    plane = Plane(2, 6, std=(1.0, 0.3), seed=1)
    values = dimlib.spectrum(exact.denoiser(plane), plane.sample(1).double(), 0.1, noise="frame").values[0]
    expected = [1] * 4 + [0.1**2 / (0.1**2 + s**2) for s in (0.3, 1.0)]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert r"$\sigma^2/(\sigma^2 + \ell^2)$" in solution("nb03-exercise-frame")


def test_a_circle_with_a_thin_direction():
    """The data of the exercise, a circle times a Gaussian: the exact denoiser is the product of two."""
    circle, thin = exact.denoiser(Sphere(1, 2)), 0.02

    def product(x, sigma):
        third = x[:, 2:] * thin**2 / (thin**2 + sigma**2)
        return torch.cat([circle(x[:, :2], sigma), third], dim=1)
    x = torch.cat([Sphere(1, 2).sample(20).double(), thin * torch.randn(20, 1, dtype=torch.float64)], dim=1)
    curve = dimlib.dimension_curve(product, x, [0.006, 0.02, 0.1])
    assert np.median(curve.dimension("cut"), axis=1).tolist() == [2, 1, 1]
    solution("nb04-exercise-helix", f"{0.02 / 3**0.5:.3f}", f"{1 / 6**0.5:.1f}")


def test_points_of_a_circle_at_their_spacing():
    """With as many points as the solution asks for, the plateau goes from 0.02 to 0.2, and not much further."""
    n = math.ceil(6 * math.pi / 0.02)
    points = Sphere(1, 20).sample(n)
    below, low, high, above = (dimlib.spectrum(exact.Empirical(points), points[:50], sigma).dimension().mean()
                               for sigma in (0.01, 0.02, 0.2, 0.33))
    assert min(low, high) > 0.9 > max(below, above)
    assert round(n, -3) == 1000 and "about a thousand points" in solution("nb04-exercise-spacing", 0.02, 0.2)


def test_slope_of_the_noise_prediction():
    """Across M the denoised point does not move: skip · y + out · F(y/scale) = 0."""
    slopes = {}
    for name in ("data", "noise"):
        for sigma in (0.01, 0.001):
            skip, out, scale = PARAMETRISATIONS[name](torch.tensor(sigma / 0.1))
            slopes[name, sigma] = round(abs(float(skip * scale / out)))
    assert slopes["data", 0.01] == slopes["data", 0.001] == 1
    solution("nb05-slope", slopes["noise", 0.01], slopes["noise", 0.001])


def test_samples_without_the_last_step():
    """Noisy copies of the 10-sphere in R^100 are as far from it as such samples."""
    sphere = Sphere(10, 100, seed=0)
    copies, _ = noisy_copies(sphere.sample(20).double(), 0.01, 200, stream(0, "copies"))
    assert sphere.distance(copies.flatten(0, 1)).mean().item() == pytest.approx(0.095, abs=0.001)
    solution("nb06-end", f"{0.01 * 90**0.5:.3f}")


def test_radius_of_the_50_sphere():
    sphere = Sphere(50, 100, seed=0)
    curve = dimlib.dimension_curve(exact.denoiser(sphere), sphere.sample(20), [0.02, 0.04, 0.08, 0.16])
    assert curve.estimate().plateau == (0.02, 0.08)
    solution("nb07-radius", f"{1 / 51**0.5:.2f}", 0.08)


def test_scale_of_the_breaking_point():
    """The level where the chapter says that the rule breaks, on the small sphere with the exact score."""
    radius = float(re.search(r"R = ([\d.]+)", exercise("nb09-scale"))[1])
    (breaks,) = re.findall(r"recommended breaks at σ/R = ([\d.]+) predicted", PRINTED)
    sphere = Sphere(10, 100, radius=radius)
    right = [np.mean(dimlib.spectrum(exact.denoiser(sphere), sphere.sample(20), factor * float(breaks) * radius)
                     .dimension() == 10) for factor in (0.9, 1.1)]
    assert right[0] > 0.9 and right[1] < 0.5
    smallest = dimlib.ScoreModel(MLP(2), 1.0).sigma_min                    # as in the chapter, for R = 1
    solution("nb09-scale", breaks, f"{float(breaks) * radius:.3f}", f"{smallest * radius:g}", f"{1 / radius:g}")


@pytest.mark.parametrize("k", [10, 25, 50])
def test_breaking_points_of_the_rules(k):
    """At the level below a break the rule is right with the exact score, and at the level above it is wrong."""
    (row,) = re.findall(rf"^\| {k} \| (.*) \|$", solution("nb09-k"), re.MULTILINE)
    sphere = Sphere(k, 100, seed=0)
    x, denoiser = sphere.sample(20), exact.denoiser(sphere)
    *rules, last = row.split(" | ")
    assert last == f"{(100 - k) ** -0.5:.3f}"
    for rule, cell in zip(("published", "cut", "recommended", "gap"), rules, strict=True):
        low, high = map(float, re.findall(r"[\d.]+", cell.split("(")[1]))
        right = [np.mean(dimlib.spectrum(denoiser, x, s, center=rule != "published").dimension(
            "gap" if rule == "published" else rule) == k) for s in (low, high)]
        assert right[0] >= max(0.2, 2 * right[1]), (rule, right)


def test_shares_of_the_bent_normals():
    for w, loss, found in ((0.5, 8.8, [1, 1, 1, 1]), (0.2, 20.8, [1, 32, 1, 32])):
        shares = torch.tensor([1.0] * 68 + [w] * 31 + [0.001])             # the predicted part of the noise
        asked = (lambda x, sigma, shares=shares: x * (1 - shares)), torch.zeros(1, 100), 0.1
        spectrum = dimlib.spectrum(*asked)
        assert [int(spectrum.dimension(rule)[0]) for rule in ("recommended", "gap", "ratio", "cut")] == found
        assert dimlib.spectrum(*asked, noise="frame").loss[0] == pytest.approx(loss, abs=0.06)
        solution("nb10-share", loss)
    solution("nb10-share", 32)


def test_images_for_a_standard_error_of_one():
    runs = table("mnist")
    ones = runs[(runs.data == "mnist 1") & (runs.sigma == 0.02) & (runs.rule == "recommended") & (runs.points == 6)]
    (error,) = ones.standard_error.round(1)
    assert round(6 * error**2, -1) == 70
    solution("nb17-images", 70, error)


def test_flipd_and_the_loss_of_a_gaussian():
    sigma, k, s = 0.1, 5, 1.0
    plane, t = Plane(k, 8, std=s, seed=1), sigma**2 / (s**2 + sigma**2)
    off = plane.sample(400).double() - plane.center
    ask = exact.denoiser(plane), plane.center + off * (k * s**2 / off.square().sum(1).mean()).sqrt(), sigma
    missing = [1 - found / k for found in (flipd(*ask).dimension().mean(),
                                           dimlib.spectrum(*ask, noise="frame").loss.mean())]
    assert missing == pytest.approx([t**2, t], rel=1e-6) and missing == pytest.approx([0.0001, 0.01], rel=0.05)
    assert "one per cent too small, and FLIPD is a hundredth of a per cent" in solution("nb19-gaussian")


def test_points_on_a_face():
    """Counted, for as many rows of the surface of the cube as the benchmark has."""
    (rows, k, d), = table("benchmark_manifolds").query("manifold == 'M10d_Cubic' and method == 'diffusion'")[
        ["n_data", "k", "d"]].drop_duplicates().to_numpy()
    x = pool._cube_surface(rows, np.random.default_rng(0), d)
    counts = [*(x == 0).sum(0), *(x == 1).sum(0)]
    assert f"{len(counts)} faces. How many of the {rows} points" in exercise("nb21-hull")
    assert round(np.mean(counts)) == 18 and "About eighteen points" in solution("nb21-hull", k)


def test_rounded_answers_of_the_benchmark():
    runs = table("benchmark_manifolds")
    looked_at = ("M1_", "M2_", "M4_", "M5b", "M9_", "M10a", "M12")
    runs = runs[~runs.manifold.str.startswith(looked_at)]

    def errors(runs):
        error = (runs.estimate - runs.k).abs()
        mean = error.groupby([runs.manifold, runs.method]).median().unstack()
        relative = (error / runs.k).groupby([runs.manifold, runs.method]).median().unstack().mean()
        return relative, (mean < 0.5).sum(), mean.rank(axis=1).mean()
    (before, exact_before, rank_before) = errors(runs)
    (after, exact_after, rank_after) = errors(runs.assign(estimate=runs.estimate.round()))
    ours = [name for name in before.index if "iffusion" in name][0]
    assert before["DANCo"] == pytest.approx(0.109, abs=5e-4) and after["DANCo"] == pytest.approx(0.088, abs=5e-4)
    assert (exact_before == exact_after).all() and before[ours] == after[ours]
    solution("nb21-round", 0.109, 0.088, f"{rank_before[ours]:.1f}", f"{rank_after[ours]:.1f}")


def test_grey_values_of_a_noise_level():
    """A model for [−1, 1], asked in [0, 255]: the spectrum at 12.75 there is that at 0.1 here."""
    plane = Plane(2, 6, std=0.3, seed=1)
    inside, x, unit = exact.denoiser(plane), plane.sample(3).double(), 255 / 2

    def outside(y, sigma):
        return unit * (inside(y / unit - 1, sigma / unit) + 1)
    ours, theirs = dimlib.spectrum(inside, x, 0.1), dimlib.spectrum(outside, unit * (x + 1), unit * 0.1)
    np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-6)
    solution("nb23-scale", unit, round(theirs.sigma))


def test_the_parts_of_flipd_at_strange_images():
    runs = table("two_uses").query("data == 'mnist' and question == 'strange or new' and sigma == 0.02")
    means = runs.set_index("score").mean_first
    assert f"{means['FLIPD']:.1f} and {means['denoising loss']:.1f} for clothes" in exercise("nb28-loss")
    assert means["its distance"] + means["its trace"] == pytest.approx(means["FLIPD"], abs=0.1)
    solution("nb28-loss", round(means["its distance"]), round(means["FLIPD"]))


def test_the_totals_of_table_2_with_another_truth():
    runs = table("table2").set_index("data").drop(index="mnist")
    (visible,) = table("images").query("data == 'blobs 100' and rule == 'recommended' and sigma == 0.01 and seed == 0"
                                       ).visible
    other = runs.truth.where(runs.index != "squares 100", 100).where(runs.index != "blobs 100", round(visible))
    assert f"the {round(visible)} directions" in exercise("nb20-truth")
    before, after = (runs[["paper", "ours_median"]].sub(truth, axis=0).abs().astype(int)
                     for truth in (runs.truth, other))
    squares, blobs, totals = after.loc["squares 100"], after.loc["blobs 100"], after.sum()
    text = solution("nb20-truth")
    theirs, ours = [re.findall(r"\d+", part) for part in re.findall(
        r"(?:The paper|This book): (.*?)\.(?= This| The order)", text)]
    assert [int(n) for n in theirs] == [squares.paper, before.paper["squares 100"], blobs.paper, totals.paper,
                                        totals.paper - blobs.paper]
    assert [int(n) for n in ours] == [squares.ours_median, before.ours_median["squares 100"], blobs.ours_median,
                                      before.ours_median["blobs 100"], totals.ours_median,
                                      totals.ours_median - blobs.ours_median]
    shrinks = [errors.paper.sum() - errors.ours_median.sum() for errors in (before, after)]
    change = totals.ours_median - before.ours_median.sum()
    rest = totals.ours_median - blobs.ours_median - squares.ours_median
    assert "shrinks from {} to {}.".format(*shrinks) in text
    assert f"changes our total by {change}, while all other rows add {rest} to it" in text


def test_thirty_latents_are_visible_at_the_smallest_level():
    """At the images of the full run. The other levels need the generator, which is a download."""
    visible = table("faces").query("data == 'faces 30' and sigma == 0.02").visible
    assert (visible == 30).all() and "all thirty are visible at σ = 0.02" in solution("nb25-thirty")


def test_distances_on_the_torus_and_in_its_hull():
    runs = table("relatives_tables").query("data == 'torus' and n_data == 2000").set_index("method")["mean"]
    assert f"about {runs['MLE']:.0f} dimensions (MLE), and the network gives {runs['SVD, recommended']:.0f}" in (
        exercise("nb27-torus"))
    angle = 2 * np.pi * np.random.default_rng(0).random((2000, 32))        # as in the chapter
    torus, hull = np.hstack([np.cos(angle), np.sin(angle)]), np.random.default_rng(0).normal(size=(2000, 64))
    assert len(torus) == 2000 and "So 2000 points" in solution(
        "nb27-torus", 64, *(round(dimension_of_neighbours(x)) for x in (torus, hull)))
