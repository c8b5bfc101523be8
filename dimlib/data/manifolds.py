"""Data whose dimension is known.

Every manifold here is generated. Coordinates u are drawn, a smooth generator g maps them into a flat space R^m, and a
random isometry places the result in R^d: x = Q g(u) + b. So the true dimension is computed and not assumed: the
Jacobian of g gives the tangent space and the lengths of its directions.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, vmap
from torch.nn.functional import normalize

from ..machine.checks import (
    as_numbers,
    check_count,
    check_counts,
    check_level,
    check_positive,
    check_rows,
    check_weights,
)
from ..seeds import stream

__all__ = ["Manifold", "Plane", "Cube", "Sphere", "NonUniformSphere", "SpaghettiLine", "Creature", "Union"]


class Manifold(ABC):
    """A generated k-dimensional manifold M in R^d.

    A subclass defines three methods: ``_draw`` draws coordinates u, ``_embed`` is g, and ``_coordinates`` maps a point
    of R^m that is near M to the coordinates of the nearest point of M.

    Args:
        dim: intrinsic dimension k.
        flat_dim: dimension m of the flat space in which g takes its values.
        ambient_dim: ambient dimension d, at least m.
        spread: standard deviations of the coordinates u, shape (number of coordinates,).
        seed: seed of the isometry Q (the QR factor of a Gaussian matrix); None for the identity.
        offset: length of the translation b, in data units. Its direction is random and depends on the same seed.

    Raises:
        ValueError: ambient_dim < m; a length that is not positive, or not from 1e-30 to 1e30, and an offset that is
            not within ±1e30; in the methods, n < 1, points x that do not have the shape (n, d), or that are so far away
            that their distance overflows their dtype.
        TypeError: dimensions that are no whole numbers, or lengths that are no numbers.
    """

    def __init__(self, dim: int, flat_dim: int, ambient_dim: int, spread: Tensor,
                 seed: int | None, offset: float = 0.0):
        check_count("ambient_dim", ambient_dim)
        if not abs(offset) <= 1e30:
            raise ValueError(f"offset={offset} must be a number within ±1e30")
        if not 1 <= flat_dim <= ambient_dim:
            raise ValueError(f"{type(self).__name__} spans {flat_dim} dimensions and does not fit into "
                             f"ambient_dim={ambient_dim}: choose ambient_dim >= {max(flat_dim, 1)}")
        self.dim, self.ambient_dim, self.spread = dim, ambient_dim, spread.double()
        if seed is None:
            self.frame = torch.eye(ambient_dim, flat_dim, dtype=torch.float64)
            direction = torch.eye(ambient_dim, 1, dtype=torch.float64)[:, 0]
        else:
            generator = stream(seed, "isometry")
            gaussian = torch.randn(ambient_dim, flat_dim, generator=generator, dtype=torch.float64)
            self.frame = torch.linalg.qr(gaussian).Q                       # (d, m), orthonormal columns
            direction = torch.randn(ambient_dim, generator=generator, dtype=torch.float64)
        self.center = offset * direction / direction.norm()                # (d,)

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator) -> Tensor: ...

    @abstractmethod
    def _embed(self, u: Tensor) -> Tensor: ...

    @abstractmethod
    def _coordinates(self, y: Tensor) -> Tensor: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim}, ambient_dim={self.ambient_dim})"

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw n points of M: float32, shape (n, d). The same seed gives the same points."""
        return self._sample(n, stream(seed, "data"))

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        check_count("n", n)
        return self._place(self._embed(self._draw(n, generator))).float()

    def project(self, x: Tensor) -> Tensor:
        """The nearest point π(x) of M for each row of x (n, d), which must be near M: shape, dtype and device of x."""
        return self._place(self._embed(self._coordinates(self._flatten(x)))).to(x)

    def distance(self, x: Tensor) -> Tensor:
        """Distance ‖x − π(x)‖ from each row of x (n, d) to M, shape (n,)."""
        distance = (x - self.project(x)).norm(dim=-1)
        if not distance.isfinite().all():
            raise ValueError(f"x is too far away for its dtype {x.dtype}: use float64, or larger units")
        return distance

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Orthonormal basis of the tangent space T_π(x) M for each row of x (n, d): shape (n, d, k), float64."""
        return self.frame @ torch.linalg.svd(self._jacobian(x)).U[..., : self.dim]

    def dimension_at(self, x: Tensor) -> Tensor:
        """Intrinsic dimension of M at each row of x (n, d), shape (n,), int64."""
        check_rows(x, self.ambient_dim)
        return torch.full((len(x),), self.dim)

    def visible_dimension(self, x: Tensor, sigma: float) -> Tensor:
        """Number of tangent directions longer than sigma at each row of x (n, d), shape (n,), int64.

        Multiply each column of the Jacobian of g by the standard deviation of its coordinate. The singular values of
        the result are the lengths of the directions: they say how far M extends in each one, in the units of x. A
        denoiser at noise level sigma cannot distinguish shorter directions from noise.
        """
        check_level(sigma)
        return (torch.linalg.svdvals(self._jacobian(x) * self.spread) > sigma).sum(-1)

    def _jacobian(self, x: Tensor) -> Tensor:
        u = self._coordinates(self._flatten(x))
        return vmap(jacfwd(lambda v: self._embed(v[None])[0]))(u)          # (n, m, coordinates)

    def _place(self, y: Tensor) -> Tensor:
        return y @ self.frame.T + self.center

    def _flatten(self, x: Tensor) -> Tensor:
        check_rows(x, self.ambient_dim)
        return (x.cpu().double() - self.center) @ self.frame


class Plane(Manifold):
    """Gaussian points on an affine k-plane in R^d, x = Q diag(std) z + b with z ~ N(0, I_k).

    Args:
        std: standard deviation along the plane, in data units: one number, or one for each of the k directions.

    Raises:
        ValueError: another number of standard deviations, and the errors of `Manifold`.
    """

    def __init__(self, dim: int, ambient_dim: int, std: float | Sequence[float] = 1.0,
                 seed: int | None = 0, offset: float = 0.0):
        check_counts(dim=dim)
        check_positive(std=std)
        self.std = as_numbers("std", std)
        if self.std.shape not in ((), (1,), (dim,)):
            raise ValueError(f"std has the shape {tuple(self.std.shape)}: give one number, or one for each of the "
                             f"{dim} directions of the plane")
        self.std = self.std.expand(dim).clone()
        super().__init__(dim, dim, ambient_dim, self.std, seed, offset)

    def _draw(self, n, generator):
        return self.std * torch.randn(n, self.dim, generator=generator, dtype=torch.float64)

    def _embed(self, u):
        return u

    def _coordinates(self, y):
        return y


class Cube(Manifold):
    """Uniform points in a k-cube in R^d with the given side length; the centre of the cube is b."""

    def __init__(self, dim: int, ambient_dim: int, side: float = 1.0, seed: int | None = 0, offset: float = 0.0):
        check_counts(dim=dim)
        check_positive(side=side)
        self.side = side
        super().__init__(dim, dim, ambient_dim, torch.full((dim,), side / 12**0.5), seed, offset)

    def _draw(self, n, generator):
        return self.side * (torch.rand(n, self.dim, generator=generator, dtype=torch.float64) - 0.5)

    def _embed(self, u):
        return u

    def _coordinates(self, y):
        return y.clamp(-self.side / 2, self.side / 2)


class Sphere(Manifold):
    """Uniform points on a k-sphere in R^d with the given radius R: x = R Q z/‖z‖ + b with z ~ N(0, I_{k+1})."""

    def __init__(self, dim: int, ambient_dim: int, radius: float = 1.0, seed: int | None = 0, offset: float = 0.0):
        check_count("dim", dim, least=0)
        check_positive(radius=radius)
        self.radius = radius
        super().__init__(dim, dim + 1, ambient_dim, torch.ones(dim + 1), seed, offset)

    def _draw(self, n, generator):
        return torch.randn(n, self.dim + 1, generator=generator, dtype=torch.float64)

    def _embed(self, u):
        return self.radius * u / u.norm(dim=-1, keepdim=True)

    def _coordinates(self, y):                                             # ‖z‖ is about √(k + 1)
        norm = y.norm(dim=-1, keepdim=True)
        y = torch.where(norm == 0, torch.eye(y.shape[-1], dtype=y.dtype)[0], y)      # all points are nearest: take one
        return (self.dim + 1) ** 0.5 * y / y.norm(dim=-1, keepdim=True)


class NonUniformSphere(Manifold):
    """Points on the unit k-sphere in R^d from k angles φ_i ~ N(0, α²): y_i = cos φ_i · Π_{j<i} sin φ_j.

    The direction of φ_i has the length α Π_{j<i} abs(sin φ_j). This product decreases with i, so the later directions
    are short. The true dimension at noise level σ is therefore ``visible_dimension(x, σ)`` and not k.
    """

    def __init__(self, dim: int, ambient_dim: int, alpha: float = 1.0, seed: int | None = 0):
        check_counts(dim=dim)
        check_positive(alpha=alpha)
        self.alpha = alpha
        super().__init__(dim, dim + 1, ambient_dim, torch.full((dim,), alpha), seed)

    def _draw(self, n, generator):
        return self.alpha * torch.randn(n, self.dim, generator=generator, dtype=torch.float64)

    def _embed(self, u):
        one = torch.ones_like(u[:, :1])
        sines = torch.cat([one, u.sin()], dim=1).cumprod(dim=1)            # 1, s1, s1 s2, …
        return sines * torch.cat([u.cos(), one], dim=1)

    def _coordinates(self, y):
        rest = y.flip(1).square().cumsum(1).flip(1).sqrt()                 # rest_i = ‖(y_i, …, y_{k+1})‖
        last = torch.atan2(y[:, -1:], y[:, -2:-1])
        return torch.cat([torch.atan2(rest[:, 1:-1], y[:, :-2]), last], dim=1)


class SpaghettiLine(Manifold):
    """The curve t ↦ (sin t, sin 2t, …, sin dt), t ~ U[0, 1]. It has intrinsic dimension 1, but it spans all of R^d."""

    def __init__(self, ambient_dim: int = 100, seed: int | None = None):
        check_counts(ambient_dim=ambient_dim)
        self.frequencies = torch.arange(1, ambient_dim + 1, dtype=torch.float64)
        super().__init__(1, ambient_dim, ambient_dim, torch.tensor([12**-0.5]), seed)

    def _draw(self, n, generator):
        return torch.rand(n, 1, generator=generator, dtype=torch.float64)

    def _embed(self, u):
        return torch.sin(u * self.frequencies)

    def _coordinates(self, y):
        grid = torch.linspace(0, 1, 20 * self.ambient_dim + 1, dtype=y.dtype)[:, None]
        t = grid[torch.cdist(y, self._embed(grid)).argmin(dim=1)]          # a start for Gauss–Newton
        for _ in range(8):
            velocity = self.frequencies * torch.cos(t * self.frequencies)
            step = ((y - self._embed(t)) * velocity).sum(1) / velocity.square().sum(1)
            t = (t + step[:, None]).clamp(0, 1)
        return t


class Creature(Manifold):
    """A closed surface with the form of a mammoth: the points r(n) n for all unit vectors n of R^3.

    r(n) = size (0.45 + Σ_j h_j exp((n·m_j − 1)/w_j²)): each part j of the body is a bump in the direction m_j, with the
    height h_j and the angular width w_j. Points are uniform by area. The coordinate u is a vector with the direction n;
    its length does not matter.
    """

    PARTS = torch.tensor([                                                 # m_j (front, left, up), h_j, w_j
        [1, 0, 0.45, 0.45, 0.5], [-1, 0, 0.25, 0.35, 0.55], [-1, 0, -0.1, 0.35, 0.06],  # head, back, tail
        [0.55, 0.4, -0.9, 0.65, 0.18], [0.55, -0.4, -0.9, 0.65, 0.18],     # legs
        [-0.55, 0.4, -0.9, 0.65, 0.18], [-0.55, -0.4, -0.9, 0.65, 0.18],
        [1, 0, -0.25, 0.85, 0.1], [1, 0.33, 0.05, 0.5, 0.08], [1, -0.33, 0.05, 0.5, 0.08],  # trunk, tusks
    ], dtype=torch.float64)
    LARGEST_AREA = 7.0                                                     # bound on area per solid angle, size 1

    def __init__(self, ambient_dim: int = 100, size: float = 1.0, seed: int | None = 0, offset: float = 0.0):
        check_positive(size=size)
        self.size, self.axes = size, normalize(self.PARTS[:, :3])
        super().__init__(2, 3, ambient_dim, torch.ones(3), seed, offset)

    def radius(self, n: Tensor) -> Tensor:
        """r(n) for unit vectors n of shape (..., 3), shape (...)."""
        return self.size * (0.45 + self._bumps(n).sum(-1))

    def _bumps(self, n):
        return self.PARTS[:, 3] * torch.exp((n @ self.axes.T - 1) / self.PARTS[:, 4] ** 2)

    def _draw(self, n, generator):                                         # rejection sampling, uniform by area
        kept = torch.empty(0, 3, dtype=torch.float64)
        while len(kept) < n:
            u = torch.randn(4 * n, 3, generator=generator, dtype=torch.float64)
            height = self.LARGEST_AREA * torch.rand(4 * n, generator=generator, dtype=torch.float64)
            kept = torch.cat([kept, u[height < self._area(normalize(u))]])
        return kept[:n]

    def _area(self, n):                                                    # r √(r² + ‖∇r‖²) at size 1
        slope, r = (self._bumps(n) / self.PARTS[:, 4] ** 2) @ self.axes, self.radius(n) / self.size
        return r * (r**2 + slope.square().sum(1) - (slope * n).sum(1) ** 2).sqrt()

    def _embed(self, u):
        return self.radius(normalize(u, dim=-1))[:, None] * normalize(u, dim=-1)

    def _coordinates(self, y):                                             # ‖u‖ is about √3
        def half_square(u, target):
            return (self._embed(u[None])[0] - target).square().sum() / 2

        grid = normalize(self._draw(8000, stream(0, "grid of the creature")))
        n = grid[torch.cdist(y, self._embed(grid)).argmin(dim=1)]          # a start for Newton's method
        for _ in range(10):
            slope, bend = vmap(grad(half_square))(n, y), vmap(hessian(half_square))(n, y)
            radial = n[:, :, None] * n[:, None]
            along = torch.eye(3, dtype=y.dtype) - radial
            values, vectors = torch.linalg.eigh(along @ bend @ along + radial)
            step = vectors @ (vectors.mT @ slope[..., None] / values.abs()[..., None])  # descends, near a saddle too
            n = normalize(n - step[..., 0].clamp(-0.05, 0.05))
        return 3**0.5 * n


class Union:
    """A union of manifolds, the parts, in the same R^d. Its attribute ``dim`` is the tuple of their dimensions.

    Each point is drawn from one part, with a probability proportional to the weight of the part (equal where not
    given). ``ValueError`` for no parts, parts with different d, or weights that are not positive and finite.
    """

    def __init__(self, parts: Sequence[Manifold], weights: Sequence[float] | None = None):
        ambient = {part.ambient_dim for part in parts}
        if len(ambient) != 1:
            raise ValueError(f"the parts of a union need one ambient dimension, got {sorted(ambient)}")
        self.parts, self.ambient_dim = tuple(parts), ambient.pop()
        self.weights = check_weights([1.0] * len(self.parts) if weights is None else weights, len(self.parts))
        self.dim = tuple(part.dim for part in self.parts)

    def __repr__(self) -> str:
        return f"Union({', '.join(map(repr, self.parts))})"

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw n points: float32, shape (n, d), in random order. The same seed gives the same points."""
        check_count("n", n)
        choice = torch.multinomial(self.weights, n, replacement=True, generator=stream(seed, "union"))
        x = torch.empty(n, self.ambient_dim)
        for i, part in enumerate(self.parts):
            here = choice == i
            if here.any():
                x[here] = part._sample(int(here.sum()), stream(seed, f"part {i} of a union"))
        return x

    def component(self, x: Tensor) -> Tensor:
        """Index of the nearest part for each row of x (n, d), shape (n,), int64."""
        return torch.stack([part.distance(x) for part in self.parts]).argmin(dim=0)

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the union, same shape as x (n, d)."""
        return self._from_nearest(x, lambda part, rows: part.project(rows))

    def distance(self, x: Tensor) -> Tensor:
        """Distance from each row of x (n, d) to the union, shape (n,)."""
        return torch.stack([part.distance(x) for part in self.parts]).amin(dim=0)

    def dimension_at(self, x: Tensor) -> Tensor:
        """Intrinsic dimension of the nearest part for each row of x (n, d), shape (n,), int64."""
        return self._from_nearest(x, lambda part, rows: part.dimension_at(rows))

    def visible_dimension(self, x: Tensor, sigma: float) -> Tensor:
        """`Manifold.visible_dimension` of the nearest part for each row of x (n, d), shape (n,), int64."""
        return self._from_nearest(x, lambda part, rows: part.visible_dimension(rows, sigma))

    def _from_nearest(self, x, read):
        answers = torch.stack([read(part, x) for part in self.parts])      # (parts, n, …)
        return answers[self.component(x).to(answers.device), torch.arange(len(x))]
