"""The truth about each manifold, computed a second way: brute force, finite differences, closed forms."""

import math

import pytest
import torch

from dimlib.data.manifolds import Creature, Cube, NonUniformSphere, Plane, SpaghettiLine, Sphere, Union

# Rotated and off the origin. Of dimension at most 2, so that brute force covers them densely.
SMALL = [
    pytest.param(Plane(2, 7, std=(1.0, 0.3), seed=1, offset=6.0), id="plane"),
    pytest.param(Cube(2, 7, side=1.5, seed=2, offset=6.0), id="cube"),
    pytest.param(Sphere(1, 7, radius=2.0, seed=3, offset=6.0), id="circle"),
    pytest.param(Sphere(2, 7, radius=2.0, seed=3, offset=6.0), id="sphere"),
    pytest.param(NonUniformSphere(2, 7, alpha=1.5, seed=4), id="non-uniform sphere"),
    pytest.param(SpaghettiLine(7, seed=5), id="curve"),
    pytest.param(Creature(7, size=3.0, seed=9, offset=6.0), id="creature"),
]
LARGE = [
    pytest.param(Sphere(10, 40, radius=0.5, seed=6, offset=6.0), id="sphere"),
    pytest.param(NonUniformSphere(5, 20, seed=7), id="non-uniform sphere"),
    pytest.param(SpaghettiLine(60, seed=8), id="curve"),
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_manifold(manifold, n, seed=0):
    """n points of the manifold that lie on it in float64."""
    return manifold.project(manifold.sample(n, seed).double())


@pytest.mark.parametrize("manifold", SMALL + LARGE)
def test_samples_lie_on_the_manifold(manifold):
    x = manifold.sample(200, seed=1)
    assert x.shape == (200, manifold.ambient_dim) and x.dtype == torch.float32
    assert manifold.distance(x.double()).max() < 1e-5


@pytest.mark.parametrize("manifold", SMALL)
@pytest.mark.parametrize("noise", [0.02, 0.1])  # within the reach of each
def test_projection_is_the_nearest_point(manifold, noise):
    cloud = manifold.sample(40_000, seed=1).double()
    points = manifold.sample(50, seed=2).double()
    x = points + noise * normal(*points.shape)
    nearest = torch.cdist(x, cloud).min(dim=1).values
    assert (manifold.distance(x) <= nearest + 1e-6).all()
    # and it lies on the manifold: the dense cloud comes close to it, but for the tails of the densities
    assert torch.cdist(manifold.project(x), cloud).min(dim=1).values.median() < 0.05


def test_projection_on_the_long_curve_is_the_nearest_point():
    line = SpaghettiLine(100, seed=3)
    points = line.sample(20, seed=1).double()
    x = points + 0.05 * normal(20, 100)
    nearest = torch.cdist(x, line.sample(50_000, seed=2).double()).min(dim=1).values
    assert (line.distance(x) <= nearest + 1e-6).all()


@pytest.mark.parametrize("manifold", SMALL + LARGE)
def test_projecting_twice_changes_nothing(manifold):
    x = manifold.sample(20).double() + 0.02 * normal(20, manifold.ambient_dim)
    once = manifold.project(x)
    assert torch.allclose(manifold.project(once), once, atol=1e-8)


@pytest.mark.parametrize("manifold", SMALL + LARGE)
def test_projection_moves_along_the_normals(manifold):
    points = on_manifold(manifold, 20)
    inside = manifold.project(points + 1e-3 * normal(*points.shape)) if manifold.dim > 1 else points
    x = inside + 1e-3 * normal(*points.shape, seed=1)
    away = x - manifold.project(x)
    along = manifold.tangent_basis(x).mT @ away[:, :, None]
    assert along.norm(dim=1).max() < 1e-8


@pytest.mark.parametrize("manifold", SMALL + LARGE)
def test_tangent_basis_is_the_derivative_of_the_projection(manifold):
    """dπ(x) v = T Tᵀ v at points of M, by central differences."""
    x, step = on_manifold(manifold, 10), 1e-4
    v = normal(*x.shape)
    difference = (manifold.project(x + step * v) - manifold.project(x - step * v)) / (2 * step)
    basis = manifold.tangent_basis(x)
    assert basis.shape == (10, manifold.ambient_dim, manifold.dim)
    assert torch.allclose(basis.mT @ basis, torch.eye(manifold.dim, dtype=torch.float64), atol=1e-10)
    assert torch.allclose((basis @ basis.mT @ v[:, :, None])[..., 0], difference, atol=1e-4)


@pytest.mark.parametrize("sigma, visible", [(0.05, 3), (0.2, 2), (0.7, 1), (1.5, 0)])
def test_a_direction_of_a_plane_is_as_long_as_its_standard_deviation(sigma, visible):
    plane = Plane(3, 9, std=(1.0, 0.1, 0.5), seed=1, offset=4.0)
    assert plane.visible_dimension(plane.sample(5), sigma).tolist() == [visible] * 5


@pytest.mark.parametrize("k, radius", [(1, 1.0), (10, 1.0), (50, 3.0)])
def test_all_directions_of_a_sphere_are_as_long_as_its_radius_over_root_k_plus_one(k, radius):
    sphere = Sphere(k, 60, radius, seed=1, offset=4.0)
    x, length = sphere.sample(5), radius / math.sqrt(k + 1)
    assert sphere.visible_dimension(x, 0.999 * length).tolist() == [k] * 5
    assert sphere.visible_dimension(x, 1.001 * length).tolist() == [0] * 5


def test_all_directions_of_a_cube_are_as_long_as_the_standard_deviation_of_its_side():
    cube = Cube(4, 9, side=2.0, seed=1, offset=4.0)
    x, length = cube.sample(5), 2 / math.sqrt(12)
    assert cube.visible_dimension(x, 0.999 * length).tolist() == [4] * 5
    assert cube.visible_dimension(x, 1.001 * length).tolist() == [0] * 5


def test_direction_i_of_the_non_uniform_sphere_has_length_alpha_times_the_product_of_sines():
    k, alpha = 6, 0.7
    sphere = NonUniformSphere(k, 20, alpha, seed=1)
    x = on_manifold(sphere, 50)
    y = (x - sphere.center) @ sphere.frame
    # ‖(y_i, …, y_{k+1})‖ is the product of the first i − 1 |sines|, by Pythagoras
    products = y.square().flip(1).cumsum(1).flip(1).sqrt()[:, :k]
    for sigma in (0.01, 0.05, 0.2):
        expected = (alpha * products > sigma).sum(1)
        assert sphere.visible_dimension(x, sigma).tolist() == expected.tolist()
    assert len(set(sphere.visible_dimension(x, 0.05).tolist())) > 1, "the truth varies over points"


def test_the_whole_length_of_the_curve_counts_at_most_once():
    line = SpaghettiLine(20, seed=1)
    x = line.sample(10)
    assert line.visible_dimension(x, 0.01).tolist() == [1] * 10
    speed_at_most = math.sqrt(sum(j**2 for j in range(1, 21))) / math.sqrt(12)
    assert line.visible_dimension(x, 1.001 * speed_at_most).tolist() == [0] * 10


def test_samples_have_the_promised_mean_and_covariance():
    for manifold, variance in [
        (Plane(2, 5, std=(2.0, 0.5), seed=1, offset=3.0), torch.tensor([4.0, 0.25])),
        (Cube(2, 5, side=2.0, seed=2, offset=3.0), torch.full((2,), 4 / 12)),
        (Sphere(2, 5, radius=2.0, seed=3, offset=3.0), torch.full((3,), 4 / 3)),
    ]:
        x = manifold.sample(100_000, seed=4).double()
        assert math.isclose(manifold.center.norm(), 3.0, rel_tol=1e-9)
        assert torch.allclose(x.mean(0), manifold.center, atol=0.03)
        expected = manifold.frame @ torch.diag(variance.double()) @ manifold.frame.T
        assert torch.allclose(x.T.cov(), expected, atol=0.06)


def test_the_spaghetti_line_is_what_its_formula_says():
    line = SpaghettiLine(8)
    t = torch.asin(line.sample(100)[:, 0]).double()        # x_1 = sin t, and t < π/2
    assert 0 <= t.min() < 0.1 and 0.9 < t.max() <= 1
    expected = torch.sin(t[:, None] * torch.arange(1, 9))
    assert torch.allclose(line.sample(100).double(), expected, atol=1e-5)


def test_the_creature_is_what_its_formula_says():
    creature = Creature(3, size=2.0, seed=None)
    y = creature.sample(100, seed=1).double()
    n = y / y.norm(dim=1, keepdim=True)
    expected = torch.full((100,), 0.45, dtype=torch.float64)
    for *direction, height, width in Creature.PARTS.tolist():
        cosine = n @ torch.tensor(direction, dtype=torch.float64) / math.hypot(*direction)
        expected += height * torch.exp((cosine - 1) / width**2)
    assert torch.allclose(y.norm(dim=1), 2 * expected, atol=1e-5)
    assert torch.allclose(y.norm(dim=1), creature.radius(n), atol=1e-5)


def test_the_creature_is_uniform_by_area():
    """Compare with points uniform by direction, weighted by an area element from finite differences."""
    creature, step = Creature(3, seed=None), 1e-5
    n = torch.nn.functional.normalize(normal(200_000, 3, seed=1))
    one = torch.nn.functional.normalize(torch.linalg.cross(n, normal(200_000, 3, seed=2)))
    sides = [(creature._embed(n + step * e) - creature._embed(n - step * e)) / (2 * step)
             for e in (one, torch.linalg.cross(n, one))]
    area = torch.linalg.cross(*sides).norm(dim=1)
    assert area.max() < Creature.LARGEST_AREA
    y, z = creature.sample(100_000, seed=3).double(), creature.radius(n)[:, None] * n
    feet, trunk, belly = lambda p: p[:, 2] < -0.6, lambda p: p[:, 0] > 0.9, lambda p: p.norm(dim=1) < 0.6
    for inside in (feet, trunk, belly):
        expected = (area * inside(z)).sum() / area.sum()
        assert abs(inside(y).double().mean() - expected) < 0.01 and expected > 0.02


def test_the_frame_is_an_isometry_drawn_by_the_seed():
    a, b, same = Sphere(3, 9, seed=1), Sphere(3, 9, seed=2), Sphere(3, 9, seed=1)
    assert torch.allclose(a.frame.T @ a.frame, torch.eye(4, dtype=torch.float64), atol=1e-12)
    assert torch.equal(a.frame, same.frame) and not torch.allclose(a.frame, b.frame, atol=0.1)


MANIFOLDS = SMALL + [pytest.param(Union([Sphere(1, 5), Plane(2, 5, offset=9.0)]), id="union")]


@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_the_same_seed_draws_the_same_points_and_another_seed_others(manifold):
    assert torch.equal(manifold.sample(50, seed=3), manifold.sample(50, seed=3))
    assert not torch.allclose(manifold.sample(50, seed=3), manifold.sample(50, seed=4))


@pytest.fixture
def union():
    return Union([Sphere(2, 8, seed=1), Plane(4, 8, std=0.3, seed=2, offset=7.0)], weights=[3, 1])


def test_a_union_draws_from_its_parts_by_their_weights_in_random_order(union):
    component = union.component(union.sample(4000))
    assert abs((component == 0).double().mean() - 0.75) < 0.03
    assert abs((component[:1000] == 0).double().mean() - 0.75) < 0.06


def test_a_union_answers_with_the_nearest_part(union):
    x = torch.cat([part.sample(5, seed=9) for part in union.parts])
    x = x + 0.01 * normal(10, 8).float()
    assert union.component(x).tolist() == [0] * 5 + [1] * 5
    assert union.dimension_at(x).tolist() == [2] * 5 + [4] * 5
    assert union.visible_dimension(x, 0.1).tolist() == [2] * 5 + [4] * 5
    assert union.visible_dimension(x, 0.4).tolist() == [2] * 5 + [0] * 5
    assert torch.equal(union.project(x)[:5], union.parts[0].project(x[:5]))
    assert torch.equal(union.project(x)[5:], union.parts[1].project(x[5:]))
    distances = torch.stack([part.distance(x) for part in union.parts]).min(dim=0).values
    assert torch.allclose(union.distance(x), distances)


def test_a_sphere_does_not_fit_into_its_own_dimension():
    with pytest.raises(ValueError, match="spans 11 dimensions.*ambient_dim=10.*ambient_dim >= 11"):
        Sphere(10, 10)


@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_no_points_cannot_be_drawn(manifold):
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        manifold.sample(0)


def test_points_of_another_space_are_refused():
    with pytest.raises(ValueError, match=r"the shape \(n, 9\), got \(5, 8\)"):
        Sphere(3, 9).distance(torch.zeros(5, 8))


def test_the_parts_of_a_union_need_one_ambient_dimension():
    with pytest.raises(ValueError, match=r"one ambient dimension, got \[8, 9\]"):
        Union([Sphere(3, 9), Sphere(3, 8)])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.5], [0.0, 0.0], [math.inf, 1.0], 2.0, [[1.0, 2.0]]])
def test_a_union_refuses_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="weights"):
        Union([Sphere(1, 5), Sphere(2, 5)], weights)


def test_weights_of_a_union_keep_all_their_digits():
    assert Union([Sphere(1, 5), Sphere(2, 5)], [0.1, 0.3]).weights.tolist() == [0.1 / (0.1 + 0.3), 0.3 / (0.1 + 0.3)]


def test_at_the_centre_of_a_sphere_one_of_the_nearest_points_is_taken():
    small, large = (Sphere(2, 5, radius=radius, seed=1) for radius in (1.0, 2.0))
    centre = torch.zeros(1, 5)
    assert small.distance(centre).item() == pytest.approx(1) and large.distance(centre).item() == pytest.approx(2)
    assert Union([large, small]).component(centre).item() == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, 1e300])
@pytest.mark.parametrize("make, name", [
    (Sphere, "radius"), (Plane, "std"), (Cube, "side"), (NonUniformSphere, "alpha"),
    (lambda dim, d, size: Creature(d, size), "size")])
def test_a_length_that_is_none_is_refused(make, name, value):
    with pytest.raises(ValueError, match=f"{name}=.* must be positive: give a number from 1e-30 to 1e.30"):
        make(2, 5, **{name: value})


@pytest.mark.parametrize("offset", [math.nan, -math.inf])
def test_an_offset_that_is_no_number_is_refused(offset):
    with pytest.raises(ValueError, match=f"offset={offset} must be a number"):
        Sphere(2, 5, offset=offset)


@pytest.mark.parametrize("make", [
    lambda: Plane(-1, 5), lambda: Cube(0, 5), lambda: Sphere(-1, 5), lambda: NonUniformSphere(0, 5),
    lambda: SpaghettiLine(-2)])
def test_manifolds_without_dimensions_are_refused(make):
    with pytest.raises(ValueError, match="dim=.* must be at least"):
        make()


def test_a_plane_has_one_length_or_one_for_each_direction():
    with pytest.raises(ValueError, match=r"std has the shape \(3,\): give one number, or one for each of the 2"):
        Plane(2, 5, std=[1, 2, 3])


def test_a_distance_that_overflows_is_refused():
    far = torch.full((1, 5), 1e20)
    with pytest.raises(ValueError, match="too far away for its dtype torch.float32: use float64"):
        Sphere(2, 5).distance(far)
    assert Sphere(2, 5).distance(far.double()).item() == pytest.approx(5**0.5 * 1e20)


def test_points_of_another_space_have_no_dimension():
    with pytest.raises(ValueError, match=r"the shape \(n, 5\), got \(3, 4\)"):
        Sphere(2, 5).dimension_at(torch.zeros(3, 4))
