"""Images: two generated families whose dimension is known, and handwritten digits whose dimension is not known.

Images have the shape (n, 1, size, size). Grey values go from 0 (black) to 1 (white), and sigma is in the same units.
Files of MNIST and Fashion-MNIST are used only after a check of their content.
"""

import gzip
import hashlib
import math
import os
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from ..machine.checks import check_count, check_level, check_rows, check_values
from ..seeds import stream

__all__ = ["ImageFamily", "Squares", "Blobs", "digits", "fashion_mnist", "mnist", "read_idx"]


class ImageFamily(ABC):
    """Images x = g(u) made from coordinates u: like a `Manifold`, but its methods take u and not the image x.

    No formula gives the coordinates of an image. So draw the coordinates first, ``u = family.sample_coordinates(n,
    seed)``: the images ``family.render(u)`` are those of ``family.sample(n, seed)``, and the other methods take u.
    The attribute ``dim`` is the rank of the Jacobian of g, computed in float64 at one draw of u.

    A subclass defines two methods: ``_draw`` draws coordinates, and ``_render`` maps (n, k) to (n, size, size).

    Args:
        size: height and width in pixels; an image is a point of R^d with d = ambient_dim = size².
        spread: standard deviations of the coordinates, shape (k,).

    Raises:
        ValueError: in the methods, n < 1, coordinates u that do not have the shape (n, k), or images x that do not have
            the shape (n, 1, size, size); in the families, too small a size, or no squares or blobs.
        TypeError: numbers that must be whole and are not.
    """

    def __init__(self, size: int, spread: Tensor):
        self.size, self.ambient_dim, self.spread = size, size**2, spread.double()
        self.dim = int(torch.linalg.matrix_rank(self._jacobian(self.sample_coordinates(1))[0]))

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator) -> Tensor: ...

    @abstractmethod
    def _render(self, u: Tensor) -> Tensor: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}(coordinates={len(self.spread)}, dim={self.dim}, size={self.size})"

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw n images: float32, shape (n, 1, size, size). The same seed gives the same images."""
        return self.render(self.sample_coordinates(n, seed)).float()

    def sample_coordinates(self, n: int, seed: int = 0) -> Tensor:
        """The coordinates u of ``sample(n, seed)``: float64, shape (n, k)."""
        check_count("n", n)
        return self._draw(n, stream(seed, "data"))

    def render(self, u: Tensor) -> Tensor:
        """The images g(u) of coordinates u (n, k): float64, shape (n, 1, size, size)."""
        return torch.cat([self._render(part) for part in self._checked(u).split(1000)])[:, None]

    def tangent_basis(self, u: Tensor) -> Tensor:
        """Orthonormal basis of the tangent space at g(u) for u (n, k): shape (n, size², dim), float64, row by row."""
        return torch.linalg.svd(self._jacobian(self._checked(u)), full_matrices=False).U[..., : self.dim]

    def tangent_lengths(self, u: Tensor) -> Tensor:
        """Lengths of the tangent directions at g(u) for u (n, k), descending, in grey values: shape (n, k), float64.

        They are the singular values of the Jacobian of g with its columns multiplied by ``spread``, as in `Manifold`.
        """
        return torch.linalg.svdvals(self._jacobian(self._checked(u)) * self.spread)

    def visible_dimension(self, u: Tensor, sigma: float) -> Tensor:
        """Number of `tangent_lengths` above sigma at g(u) for each row of u (n, k): shape (n,), int64."""
        check_level(sigma)
        return (self.tangent_lengths(u) > sigma).sum(-1)

    def project(self, x: Tensor, u: Tensor, steps: int = 10) -> Tensor:
        """The images g(v) nearest to x (n, 1, size, size), in the same shape, float64: v = argmin_v ‖x − g(v)‖.

        Gauss–Newton steps find v, from v = u (n, k). A step that would increase the distance is halved until it does
        not. With u of the clean images, this is a perfect denoiser for σ far below the radii of curvature.
        """
        check_count("steps", steps, least=0)
        v = self._checked(u).clone()
        if check_values(x).shape != (len(v), 1, self.size, self.size):
            raise ValueError(f"x has the shape {tuple(x.shape)}: give one image for each row of u, "
                             f"{(len(v), 1, self.size, self.size)}")
        target = x.cpu().double().flatten(1)
        for _ in range(steps):
            off = target - self._render(v).flatten(1)                      # (n, d)
            step = torch.linalg.lstsq(self._jacobian(v), off[..., None]).solution[..., 0]
            for _ in range(10):
                worse = (target - self._render(v + step).flatten(1)).norm(dim=1) > off.norm(dim=1)
                step[worse] /= 2
            step[worse] = 0
            v = v + step
        return self._render(v)[:, None]

    def _jacobian(self, u: Tensor) -> Tensor:
        return vmap(jacfwd(lambda v: self._render(v[None]).flatten()), chunk_size=50)(u)  # (n, size², k)

    def _checked(self, u: Tensor) -> Tensor:
        check_rows(u, len(self.spread))
        return u.cpu().double()


def _check_whole(**values):
    for name, value in values.items():
        check_count(name, value, least=-math.inf)                          # too small ones have an error of their own


class Squares(ImageFamily):
    """Sums of k fixed squares, x = Σ_i c_i · square_i with c_i ~ U[0, 1]: a linear family.

    Where squares overlap, their values add, so grey values may exceed 1. Sides (3 or 5 pixels, equally likely) and
    places are drawn with replacement, so two squares may coincide. Then ``dim``, the rank, is less than k. With seed=8
    it is 10, 20 and 99 for k = 10, 20 and 100: two of the hundred coincide, as in the official data. Source: Stanczuk
    et al., ICML 2024, Table 2.

    Args:
        n_squares: number of squares k; the coordinates u are c_1, …, c_k.
        size: height and width of the images in pixels, at least 5.
        seed: seed of the squares' sides and places.
    """

    def __init__(self, n_squares: int = 10, size: int = 32, seed: int = 0):
        _check_whole(n_squares=n_squares, size=size)
        if n_squares < 1 or size < 5:
            raise ValueError(f"n_squares={n_squares}, size={size}: take at least one square, in at least 5 pixels")
        generator = stream(seed, "squares")
        side = 3 + 2 * torch.randint(2, (n_squares, 1), generator=generator)
        place = torch.rand(n_squares, 2, generator=generator, dtype=torch.float64)
        corner = (place * (size - side + 1)).long()                        # the whole square lies in the image
        offset = torch.arange(size) - corner[:, :, None]                   # (k, 2, size), from the top, from the left
        inside = (0 <= offset) & (offset < side[:, :, None])
        self.squares = (inside[:, 0, :, None] & inside[:, 1, None, :]).double()  # (k, size, size)
        super().__init__(size, torch.full((n_squares,), 12**-0.5))

    def _draw(self, n, generator):
        return torch.rand(n, len(self.squares), generator=generator, dtype=torch.float64)

    def _render(self, u):
        return torch.einsum("nk,kyx->nyx", u, self.squares)


class Blobs(ImageFamily):
    """Sums of k Gaussian blobs at fixed centres m_i. Their widths w_i ~ U[1, 5] pixels are the coordinates.

    x = (f − min f) / (max f − min f) over the pixels p, with f(p) = Σ_i exp(−‖p − m_i‖² / 2w_i²) / (√(2π) w_i).
    So the smallest value of each image is 0 and the largest is 1. Source: Stanczuk et al., ICML 2024, Table 2.

    Args:
        n_blobs: number of blobs k; the coordinates u are w_1, …, w_k.
        size: height and width of the images in pixels, at least 2.
        seed: seed of the centres, which are distinct pixels.
    """

    def __init__(self, n_blobs: int = 10, size: int = 32, seed: int = 0):
        _check_whole(n_blobs=n_blobs, size=size)
        if size < 2 or not 1 <= n_blobs <= size**2:
            raise ValueError(f"n_blobs={n_blobs}, size={size}: take 1 to size² blobs, in at least 2 pixels")
        pixel = torch.randperm(size**2, generator=stream(seed, "blobs"))[:n_blobs]
        self.centers = torch.stack([pixel // size, pixel % size], dim=1)   # (k, 2), from the top, from the left
        super().__init__(size, torch.full((n_blobs,), 4 * 12**-0.5))

    def _checked(self, u: Tensor) -> Tensor:
        u = super()._checked(u)
        if (u < 1e-3).any() or (u > 1e3 * self.size).any():                # beyond, all pixels are equal in float64
            raise ValueError(f"the widths of blobs must be from 0.001 to {1000 * self.size} pixels")
        return u

    def _draw(self, n, generator):
        return 1 + 4 * torch.rand(n, len(self.centers), generator=generator, dtype=torch.float64)

    def _render(self, u):
        offset = torch.arange(self.size) - self.centers[:, :, None]        # (k, 2, size)
        bell = torch.exp(-(offset**2) / (2 * u[:, :, None, None] ** 2))    # (n, k, 2, size), one factor per axis
        height = 1 / (math.sqrt(2 * math.pi) * u)
        f = torch.einsum("nk,nky,nkx->nyx", height, bell[:, :, 0], bell[:, :, 1])
        low, high = f.amin((1, 2), keepdim=True), f.amax((1, 2), keepdim=True)
        return (f - low) / (high - low)


def digits() -> tuple[Tensor, Tensor]:
    """The 1797 handwritten digits of scikit-learn: images (n, 1, 8, 8), float32 in [0, 1], and labels (n,), int64."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(labels).long()


@dataclass(frozen=True)
class _Set:
    """Four IDX files: where they are downloaded from, and the SHA-256 of their decompressed content."""

    name: str
    mirrors: tuple[str, ...]
    sha256: dict[str, str]


FILES = "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
MNIST = _Set(
    "mnist",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    dict(zip(FILES, ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                     "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                     "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                     "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"), strict=True)))
FASHION = _Set(
    "fashion_mnist",
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    dict(zip(FILES, ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                     "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                     "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                     "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"), strict=True)))
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts them
LONGEST_HEADER = 20  # bytes: of four dimensions
REMEDY = "put the original in its place or, in the cache, delete it to have it downloaded again"


def mnist(folder: str | Path | None = None, train: bool = True, size: int = 28) -> tuple[Tensor, Tensor]:
    """MNIST (LeCun et al. 1998): images (n, 1, size, size), float32 in [0, 1], and labels (n,), int64.

    Args:
        folder: folder with the four files, plain or gzipped. None: the folder that the environment variable DIMLIB_DATA
            names; if it is not set, the user's cache, and missing files are downloaded into it.
        train: True for the 60 000 training images, False for the 10 000 test images.
        size: 28, or 32 for a black margin of 2 pixels.

    Raises:
        FileNotFoundError: a file is missing in your own folder. Nothing is downloaded into it.
        ValueError: another size; a file that is damaged, or whose SHA-256 is not the one of the file of that name.
        ConnectionError: no mirror sent the right file.
        ModuleNotFoundError: the cache needs the package pooch, and it is not installed.
    """
    return _images_and_labels(MNIST, folder or os.environ.get("DIMLIB_DATA"), train, size)


def fashion_mnist(folder: str | Path | None = None, train: bool = True, size: int = 28) -> tuple[Tensor, Tensor]:
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): photographs of clothes, in files of the form of MNIST's.

    The arguments, the result and the errors are those of `mnist`, but for ``folder=None``: the folder of the Debian
    package dataset-fashion-mnist if it is there, else the user's cache.
    """
    return _images_and_labels(FASHION, folder or (DEBIAN if DEBIAN.is_dir() else None), train, size)


def _images_and_labels(source, folder, train, size):
    if size not in (28, 32):
        raise ValueError(f"size={size}: the images come in size 28, or 32 with a margin")
    part = "train" if train else "t10k"
    images, labels = (_idx_file(source, folder, f"{part}-{name}-ubyte") for name in ("images-idx3", "labels-idx1"))
    margin = (size - 28) // 2
    return torch.nn.functional.pad(images[:, None].float() / 255, [margin] * 4), labels.long()


def read_idx(path: str | Path) -> Tensor:
    """Read an IDX file of bytes, plain or gzipped. Returns uint8 values with the shape in the header of the file.

    The file (LeCun et al. 1998) has four bytes, 0, 0, 8 (the code of the type uint8) and the number of dimensions; each
    dimension as a big-endian 32-bit number; the values, last dimension fastest. ``ValueError`` for any other file.
    """
    return _parse_idx(_content(Path(path)), path)


def _content(path: Path) -> bytes:
    """The bytes of an IDX file, decompressed: as many as its header asks for, and one more where there are more."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder, a pipe or a device, and no file: {REMEDY}")
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"                               # gzip files start so, IDX files never do
    with (gzip.open if packed else open)(path, "rb") as file:
        try:
            parts = [file.read(LONGEST_HEADER)]
            missing = _header(parts[0], path)[2] + 1 - len(parts[0])
            while missing > 0 and (part := file.read(min(missing, 2**20))):  # no room for what a header only claims
                parts.append(part)
                missing -= len(part)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}): {REMEDY}") from error
    return b"".join(parts)


def _header(content: bytes, path: str | Path) -> tuple[int, list[int], int]:
    """Where the values start, their shape, and the bytes of the whole file."""
    if content[:4] not in (b"\0\0\x08\1", b"\0\0\x08\2", b"\0\0\x08\3", b"\0\0\x08\4"):
        raise ValueError(f"{path} is no IDX file of bytes, for it starts with {content[:4]!r}: {REMEDY}")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    return start, shape, start + math.prod(shape)


def _parse_idx(content: bytes, path: str | Path) -> Tensor:
    start, shape, size = _header(content, path)
    if len(content) != size:
        found = len(content) if len(content) < size else f"more than {size}"
        raise ValueError(f"{path} has {found} bytes, but its header {shape} asks for {size}: {REMEDY}")
    return torch.from_numpy(np.frombuffer(content, np.uint8)[start:].reshape(shape).copy())


def _verified(source: _Set, path: Path, name: str) -> Tensor:
    content = _content(path)
    values, found = _parse_idx(content, path), hashlib.sha256(content).hexdigest()
    if found != source.sha256[name]:
        other = next((other for other, known in source.sha256.items() if known == found), None)
        what = f"has the content of {other}" if other else f"was altered (SHA-256 {found}, not {source.sha256[name]})"
        raise ValueError(f"{path} {what}: {REMEDY}")
    return values


def _idx_file(source: _Set, folder: str | Path | None, name: str) -> Tensor:
    place = Path(folder) if folder else Path(_pooch().os_cache("dimlib")) / source.name
    for path in (place / name, place / f"{name}.gz"):
        if path.exists():
            return _verified(source, path, name)
    if folder:
        raise FileNotFoundError(f"{place} has neither {name} nor {name}.gz: put one of them there or, to have it "
                                f"downloaded, call {source.name}() without a folder"
                                + (" and unset DIMLIB_DATA" if source is MNIST else ""))
    return _download(source, place, name)


def _download(source: _Set, place: Path, name: str) -> Tensor:
    failures = []
    for mirror in source.mirrors:
        try:
            path = _pooch().retrieve(f"{mirror}{name}.gz", None, f"{name}.gz", place, progressbar=True)
            return _verified(source, Path(path), name)
        except (OSError, ValueError) as error:
            (place / f"{name}.gz").unlink(missing_ok=True)
            failures.append(f"{mirror}: {error}")
    raise ConnectionError(f"{name}.gz could not be downloaded: put it into a folder yourself and give "
                          f"{source.name}(folder).\n" + "\n".join(failures))


def _pooch():
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("downloading images needs pooch: pip install 'dimlib[images]'") from error
    return pooch
