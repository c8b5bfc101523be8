"""Generated images against their formulas, linear algebra and finite differences; readers against files made here."""

import gzip
import hashlib
import math
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pooch
import pytest
import torch

from dimlib.data import images
from dimlib.data.images import Blobs, Squares, digits, mnist, read_idx

FAMILIES = [pytest.param(Squares(6, size=16, seed=2), id="squares"),
            pytest.param(Blobs(6, size=16, seed=2), id="blobs")]


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_the_images_of_the_coordinates_drawn_with_the_same_seed(family):
    x, u = family.sample(50, seed=3), family.sample_coordinates(50, seed=3)
    assert x.shape == (50, 1, 16, 16) and x.dtype == torch.float32
    assert torch.equal(x, family.render(u).float()) and torch.equal(x, family.sample(50, seed=3))
    assert not torch.allclose(x, family.sample(50, seed=4))
    assert torch.allclose(family.render(u[7:8])[0], family.render(u)[7])


@pytest.mark.parametrize("kind, places", [(Squares, "squares"), (Blobs, "centers")])
def test_the_seed_of_the_family_and_of_the_sample_are_two_things(kind, places):
    a, b, same = kind(6, seed=1), kind(6, seed=2), kind(6, seed=1)
    same.sample(5, seed=7)
    assert torch.equal(getattr(a, places), getattr(same, places))
    assert not torch.equal(getattr(a, places), getattr(b, places))
    assert torch.equal(a.sample_coordinates(5, seed=7), b.sample_coordinates(5, seed=7))


@pytest.mark.parametrize("family", FAMILIES)
def test_coordinates_have_the_promised_spread(family):
    u = family.sample_coordinates(50_000, seed=1)
    low, high = {Squares: (0, 1), Blobs: (1, 5)}[type(family)]
    assert low <= u.min() < low + 0.01 and high - 0.01 < u.max() <= high
    assert torch.allclose(u.std(0), family.spread, rtol=0.02)
    assert torch.allclose(u.T.cov(), torch.diag(family.spread**2), atol=0.02 * (high - low) ** 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_tangent_lengths_are_those_of_finite_differences(family):
    u, step = family.sample_coordinates(4, seed=1), 1e-5
    columns = [std * (family.render(u + step * e) - family.render(u - step * e)).flatten(1) / (2 * step)
               for std, e in zip(family.spread, torch.eye(6, dtype=torch.float64), strict=True)]
    assert torch.allclose(family.tangent_lengths(u), torch.linalg.svdvals(torch.stack(columns, dim=2)), rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_projection_is_the_nearest_image(family):
    """From noise it comes nearer than the clean image, and what is left is normal there; images stay where they are."""
    u = family.sample_coordinates(5, seed=1)
    clean = family.render(u)
    noisy = clean + 0.02 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    nearest = family.project(noisy, u)
    assert nearest.shape == clean.shape and nearest.dtype == torch.float64
    assert ((noisy - nearest).flatten(1).norm(dim=1) < (noisy - clean).flatten(1).norm(dim=1)).all()
    normals = (noisy - nearest).flatten(1)[:, :, None]
    assert ((family.tangent_basis(u).mT @ normals).norm(dim=(1, 2)) < 0.05 * normals.norm(dim=(1, 2))).all()
    assert torch.allclose(family.project(clean, u + 0.01), clean, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_tangent_space_and_visible_dimension_are_those_of_finite_differences(family):
    u, step = family.sample_coordinates(4, seed=1), 1e-5
    columns = [(family.render(u + step * e) - family.render(u - step * e)).flatten(1) / (2 * step)
               for e in torch.eye(6, dtype=torch.float64)]
    jacobian = torch.stack(columns, dim=2)
    basis = family.tangent_basis(u)
    assert family.dim == 6 and basis.shape == (4, 256, 6)
    assert torch.allclose(basis.mT @ basis, torch.eye(6, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(basis @ (basis.mT @ jacobian), jacobian, atol=1e-7)
    deviation = {Squares: 1, Blobs: 4}[type(family)] / math.sqrt(12)
    lengths = np.linalg.svd(deviation * jacobian.numpy(), compute_uv=False)
    for sigma in np.linspace(lengths.min() / 2, lengths.max() * 1.1, 20):
        assert family.visible_dimension(u, sigma).tolist() == (lengths > sigma).sum(1).tolist()


@pytest.mark.parametrize("n_squares, rank", [(10, 10), (20, 20), (100, 99)])
def test_as_in_the_official_data_two_of_the_hundred_squares_of_seed_8_coincide(n_squares, rank):
    family = Squares(n_squares, seed=8)
    different = torch.unique(family.squares.flatten(1), dim=0)
    assert family.dim == len(different) == rank == np.linalg.matrix_rank(family.squares.flatten(1).numpy())
    assert family.tangent_basis(family.sample_coordinates(1)).shape == (1, 1024, rank)


def test_squares_are_squares_of_both_sides_anywhere_in_the_image():
    squares = Squares(500, size=9, seed=1).squares
    seen = set()
    for square in squares:
        rows, columns = square.any(1).nonzero()[:, 0], square.any(0).nonzero()[:, 0]
        top, left, side = int(rows[0]), int(columns[0]), len(rows)
        block = torch.zeros(9, 9, dtype=torch.float64)
        block[top:top + side, left:left + side] = 1
        assert torch.equal(square, block)
        seen.add((side, top, left))
    everywhere = {(s, i, j) for s in (3, 5) for i in range(10 - s) for j in range(10 - s)}
    assert seen <= everywhere and len(seen) > 0.95 * len(everywhere)


def test_squares_are_a_linear_family():
    family = Squares(8, size=12, seed=3)
    u, v = family.sample_coordinates(2, seed=1).split(1)
    assert torch.allclose(family.render(2 * u - 3 * v), 2 * family.render(u) - 3 * family.render(v))
    assert torch.equal(family.render(torch.eye(8))[:, 0], family.squares)


def test_one_square_is_as_long_as_its_side_over_root_twelve():
    family = Squares(1, seed=1)
    u, length = family.sample_coordinates(3), family.squares.sum().sqrt() / math.sqrt(12)
    assert family.visible_dimension(u, 0.999 * length).tolist() == [1] * 3
    assert family.visible_dimension(u, 1.001 * length).tolist() == [0] * 3


def test_lengths_of_squares_are_the_principal_standard_deviations_of_many_images():
    family = Squares(8, size=8, seed=1)                    # many overlaps, so that the lengths differ
    x = family.sample(50_000, seed=1).flatten(1).double()
    deviations = torch.linalg.eigvalsh(x.T.cov()).flip(0).clamp(min=0).sqrt()
    wide = [k for k in range(1, 9) if deviations[k] < 0.9 * deviations[k - 1]]  # against the error of sampling
    assert len(wide) >= 4 and wide[-1] == 8
    for k in wide:
        visible = family.visible_dimension(family.sample_coordinates(3), (deviations[k] + deviations[k - 1]) / 2)
        assert visible.tolist() == [k] * 3


def test_blobs_are_what_their_formula_says():
    family = Blobs(3, size=7, seed=4)
    u = family.sample_coordinates(2, seed=5)
    assert len({tuple(c) for c in family.centers.tolist()}) == 3
    for widths, image in zip(u.tolist(), family.render(u)[:, 0], strict=True):
        f = [[sum(math.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * s**2)) / (math.sqrt(2 * math.pi) * s)
                  for (top, left), s in zip(family.centers.tolist(), widths, strict=True))
              for x in range(7)] for y in range(7)]
        low, high = min(map(min, f)), max(map(max, f))
        assert torch.allclose(image, (torch.tensor(f, dtype=torch.float64) - low) / (high - low))


def test_centres_of_blobs_are_distinct_pixels():
    centers = Blobs(16, size=4).centers.tolist()
    assert sorted(centers) == [[y, x] for y in range(4) for x in range(4)]


def test_every_image_of_blobs_fills_the_range_from_0_to_1():
    x = Blobs(20, seed=1).sample(100).flatten(1)
    assert (x.amin(1) == 0).all() and (x.amax(1) == 1).all()


@pytest.mark.parametrize("n_blobs, sigma, median", [
    (10, 0.01, 10), (20, 0.01, 20), (100, 0.01, 95), (100, 0.02, 91), (100, 0.05, 81)])
def test_as_many_directions_of_blobs_are_visible_as_an_independent_measurement_found(n_blobs, sigma, median):
    family = Blobs(n_blobs, seed=0)
    visible = family.visible_dimension(family.sample_coordinates(12, seed=1), sigma)
    assert family.dim == n_blobs
    assert abs(visible.median() - median) <= (2 if n_blobs == 100 else 0)  # other centres, other draws


@pytest.mark.parametrize("family", FAMILIES)
def test_coordinates_of_another_family_and_no_images_are_refused(family):
    with pytest.raises(ValueError, match=r"the shape \(n, 6\), got \(5, 1, 16, 16\)"):
        family.visible_dimension(family.sample(5), 0.01)
    with pytest.raises(ValueError, match=r"the shape \(n, 6\), got \(5, 7\)"):
        family.render(torch.ones(5, 7))
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        family.sample(0)


@pytest.mark.parametrize("make", [lambda: Squares(0), lambda: Squares(5, size=4), lambda: Blobs(0),
                                  lambda: Blobs(10, size=3), lambda: Blobs(1, size=1)])
def test_families_that_cannot_be_are_refused(make):
    with pytest.raises(ValueError, match="size=.*take"):
        make()


def test_digits_are_the_1797_of_scikit_learn():
    x, labels = digits()
    assert x.shape == (1797, 1, 8, 8) and x.dtype == torch.float32 and (x.min(), x.max()) == (0, 1)
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    zeros, ones = x[labels == 0].mean(0)[0], x[labels == 1].mean(0)[0]
    assert zeros[3:5, 3:5].max() < 0.2 < 0.5 < ones[3:5, 3:5].min(), "a zero is empty in the middle, a one is not"


def idx(values):
    """The bytes of an IDX file."""
    return bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (0, 28, 28)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_idx_file_is_read_as_it_was_written(tmp_path, shape, pack):
    values = numbers(*shape)
    (tmp_path / "file").write_bytes(pack(idx(values)))
    read = read_idx(tmp_path / "file")
    assert read.dtype == torch.uint8 and read.shape == shape and np.array_equal(read, values)


GOOD = idx(numbers(2, 3, 4))


@pytest.mark.parametrize("content, complaint", [
    pytest.param(b"", "no IDX file", id="empty"),
    pytest.param(GOOD[:3], "no IDX file", id="cut in its magic number"),
    pytest.param(GOOD[:9], r"9 bytes.*header", id="cut in its header"),
    pytest.param(GOOD[:-1], r"39 bytes.*\[2, 3, 4\] asks for 40", id="cut in its values"),
    pytest.param(GOOD + b"\0", r"more than 40 bytes.*\[2, 3, 4\] asks for 40", id="too long"),
    pytest.param(gzip.compress(GOOD + b"\0"), r"more than 40 bytes.*\[2, 3, 4\] asks for 40", id="gzip, too long"),
    pytest.param(GOOD[:4] + b"\xff" * 12 + GOOD[16:], r"40 bytes.*\[4294967295, .*\] asks for 79", id="a false claim"),
    pytest.param(b"\0\0\x0d" + GOOD[3:], "no IDX file of bytes", id="floats"),
    pytest.param(b"\0\0\x08\0" + GOOD[4:], "no IDX file", id="no dimensions"),
    pytest.param(b"<html>Not found</html>", "no IDX file.*<htm", id="a web page"),
    pytest.param(gzip.compress(GOOD)[:-9], "damaged gzip", id="gzip, cut"),
    pytest.param(gzip.compress(GOOD)[:20] + b"\xff" * 30, "damaged gzip", id="gzip, altered"),
    pytest.param(gzip.compress(GOOD[:-1]), "39 bytes", id="gzip of a cut file"),
])
def test_what_is_no_idx_file_is_refused_by_name(tmp_path, content, complaint):
    (tmp_path / "some-file").write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s)some-file.*{complaint}.*put the original in its place"):
        read_idx(tmp_path / "some-file")


@pytest.mark.parametrize("make", [os.mkdir, pytest.param(getattr(os, "mkfifo", None), marks=pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="this system has no pipes in folders"))])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    make(tmp_path / "some-file")
    code = f"import sys; from dimlib.data.images import read_idx; read_idx({str(tmp_path / 'some-file')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ValueError" in done.stderr and "some-file is a folder, a pipe or a device, and no file: put" in done.stderr


def test_no_more_is_decompressed_than_the_header_asks_for(tmp_path):
    """A file of 200 kB that becomes 200 MB."""
    with gzip.open(tmp_path / "some-file", "wb") as file:
        file.write(GOOD)
        for _ in range(200):
            file.write(bytes(10**6))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="some-file has more than 40 bytes"):
            read_idx(tmp_path / "some-file")
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


PARTS = {"train": 5, "t10k": 3}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with an MNIST of eight images, half of the files gzipped, whose hashes stand in the table."""
    monkeypatch.delenv("DIMLIB_DATA", raising=False)
    hashes = {}
    for part, n in PARTS.items():
        for kind, values in [("images-idx3", numbers(n, 28, 28, seed=n)), ("labels-idx1", numbers(n, seed=n) % 10)]:
            name, content = f"{part}-{kind}-ubyte", idx(values)
            hashes[name] = hashlib.sha256(content).hexdigest()
            if part == "train":
                (tmp_path / name).write_bytes(content)
            else:
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    assert set(hashes) == set(images.MNIST.sha256) == set(images.FASHION.sha256)
    monkeypatch.setattr(images, "MNIST", replace(images.MNIST, mirrors=("first/", "second/"), sha256=hashes))
    return tmp_path


@pytest.mark.parametrize("part, n", PARTS.items())
def test_mnist_scales_images_and_gives_them_a_margin(small, part, n):
    x, labels = mnist(small, train=part == "train")
    assert x.shape == (n, 1, 28, 28) and x.dtype == torch.float32 and labels.dtype == torch.int64
    assert np.allclose(x[:, 0] * 255, numbers(n, 28, 28, seed=n), atol=1e-4)
    assert np.array_equal(labels, numbers(n, seed=n) % 10)
    wide, same = mnist(small, train=part == "train", size=32)
    assert torch.equal(wide[:, :, 2:-2, 2:-2], x) and torch.equal(same, labels)
    assert wide.shape == (n, 1, 32, 32) and torch.allclose(wide.sum(), x.sum())
    with pytest.raises(ValueError, match="size=30: the images come in size 28, or 32"):
        mnist(small, size=30)


def test_the_folder_is_the_one_given_else_that_of_the_environment(small, monkeypatch):
    monkeypatch.setenv("DIMLIB_DATA", str(small))
    assert len(mnist()[0]) == 5
    monkeypatch.setenv("DIMLIB_DATA", str(small / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="elsewhere has neither train-images-idx3-ubyte nor"):
        mnist()
    assert len(mnist(small)[0]) == 5


def test_a_file_that_is_missing_in_a_given_folder_is_not_downloaded(small, no_network):
    (small / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"has neither train-labels-idx1-ubyte nor .*\.gz: put one"):
        mnist(small)
    assert len(mnist(small, train=False)[0]) == 3 and no_network == []


@pytest.mark.parametrize("source, target", [
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), ("t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte")])
def test_a_file_under_the_name_of_another_is_refused(small, source, target):
    (small / target).write_bytes((small / source).read_bytes())
    with pytest.raises(ValueError, match=rf"{target} has the content of {source.removesuffix('.gz')}: put the"):
        mnist(small)


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize("part, ending, pack", [("train", "", bytes), ("t10k", ".gz", gzip.compress)])
def test_one_altered_bit_is_noticed(small, kind, part, ending, pack):
    path = small / f"{part}-{kind}-ubyte{ending}"
    content = bytearray(gzip.decompress(path.read_bytes()) if ending else path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(pack(bytes(content)))
    assert len(read_idx(path)) == PARTS[part], "the reader alone does not notice"
    with pytest.raises(ValueError, match=rf"{path.name} was altered \(SHA-256 .*put the original"):
        mnist(small, train=part == "train")


@pytest.mark.parametrize("file, train", [("train-images-idx3-ubyte", True), ("t10k-labels-idx1-ubyte.gz", False)])
def test_a_truncated_file_is_refused(small, file, train):
    (small / file).write_bytes((small / file).read_bytes()[:-3])
    with pytest.raises(ValueError, match=rf"{file} .*put the original"):
        mnist(small, train=train)


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """Mirrors that are a dictionary from addresses to contents, and an empty cache; the list of what was asked."""
    asked, place = [], tmp_path / "cache"

    def retrieve(url, known_hash, fname=None, path=None, **options):
        asked.append(url)
        if url not in retrieve.web:
            raise OSError(f"404 for {url}")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(retrieve.web[url])
        return str(path / fname)

    retrieve.web = {}
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(pooch, "os_cache", lambda project: str(place))
    return asked


def publish(small, mirror, names=None):
    for name in names or images.MNIST.sha256:
        content = (small / name if (small / name).exists() else small / f"{name}.gz").read_bytes()
        packed = content if content[:2] == b"\x1f\x8b" else gzip.compress(content)
        pooch.retrieve.web[f"{mirror}{name}.gz"] = packed


TRAIN = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]


def test_missing_files_are_downloaded_once(small, no_network):
    publish(small, "first/")
    x, labels = mnist()
    assert no_network == [f"first/{name}.gz" for name in TRAIN]
    again = mnist()
    assert len(no_network) == 2 and torch.equal(again[0], x) and torch.equal(again[1], labels)
    assert torch.equal(x, mnist(small)[0])
    assert len(mnist(train=False)[0]) == 3 and len(no_network) == 4


def test_where_the_first_mirror_has_nothing_the_second_is_asked(small, no_network):
    publish(small, "second/")
    assert torch.equal(mnist()[0], mnist(small)[0])
    assert no_network == [f"{mirror}{name}.gz" for name in TRAIN for mirror in ("first/", "second/")]


def test_a_mirror_that_sends_something_else_is_passed_over(small, no_network):
    publish(small, "second/")
    pooch.retrieve.web |= {f"first/{TRAIN[0]}.gz": gzip.compress(b"<html>hello</html>"),
                           f"first/{TRAIN[1]}.gz": pooch.retrieve.web[f"second/{TRAIN[0]}.gz"]}
    assert torch.equal(mnist()[0], mnist(small)[0])
    assert len(no_network) == 4


def test_where_every_mirror_fails_the_error_says_why_and_what_to_do(small, no_network, tmp_path):
    pooch.retrieve.web[f"second/{TRAIN[0]}.gz"] = b"<html>hello</html>"
    with pytest.raises(ConnectionError, match=r"(?s)train-images-idx3-ubyte\.gz could not be downloaded: put it into "
                                              r"a folder.*mnist\(folder\).*first/: 404.*second/: .*no IDX file"):
        mnist()
    assert list((tmp_path / "cache" / "mnist").iterdir()) == [], "what was refused is not kept"


def test_a_damaged_file_in_the_cache_is_refused(small, no_network, tmp_path):
    publish(small, "first/")
    mnist()
    path = tmp_path / "cache" / "mnist" / f"{TRAIN[0]}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{TRAIN[0]}.gz is a damaged gzip file .*delete it to have it downloaded"):
        mnist()
    path.unlink()
    assert len(mnist()[0]) == 5


def test_clothes_are_read_from_their_own_files(small, monkeypatch):
    monkeypatch.setattr(images, "FASHION", replace(images.FASHION, sha256=images.MNIST.sha256))
    monkeypatch.setattr(images, "DEBIAN", small)
    monkeypatch.setenv("DIMLIB_DATA", "the folder of MNIST")
    assert torch.equal(images.fashion_mnist()[0], mnist(small)[0])
    assert torch.equal(images.fashion_mnist(small, train=False)[1], mnist(small, train=False)[1])


def test_digits_are_no_clothes(small):
    with pytest.raises(ValueError, match="train-images-idx3-ubyte was altered"):
        images.fashion_mnist(small)


def test_clothes_are_not_downloaded_over_the_digits(small, no_network, monkeypatch, tmp_path):
    monkeypatch.setattr(images, "FASHION", replace(images.FASHION, mirrors=("first/",), sha256=images.MNIST.sha256))
    monkeypatch.setattr(images, "DEBIAN", tmp_path / "not there")
    publish(small, "first/")
    images.fashion_mnist()
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"fashion_mnist"}


@pytest.mark.skipif(not images.DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_real_files_are_fashion_mnist():
    x, labels = images.fashion_mnist()
    assert x.shape == (60_000, 1, 28, 28) and labels.bincount().tolist() == [6000] * 10
    assert abs(x.mean() - 0.2860) < 1e-4 and abs(x.std() - 0.3530) < 1e-4


def test_without_pooch_the_error_names_the_extra_and_own_files_still_work(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert len(mnist(small)[0]) == 5
    with pytest.raises(ModuleNotFoundError, match=r"needs pooch: pip install 'dimlib\[images\]'"):
        mnist()


def test_importing_dimlib_imports_neither_pooch_nor_data_sets():
    code = "import sys, dimlib.data.images; print(*{'pooch', 'sklearn.datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.skipif("DIMLIB_DATA" not in os.environ, reason="DIMLIB_DATA names no folder with the files of MNIST")
@pytest.mark.parametrize("train, counts, mean, std", [
    (True, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 0.1307, 0.3081),
    (False, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], 0.1325, 0.3105)])
def test_the_real_files_are_mnist(train, counts, mean, std):
    x, labels = mnist(train=train)
    assert x.shape == (sum(counts), 1, 28, 28) and labels.bincount().tolist() == counts
    assert (x.min(), x.max()) == (0, 1)
    assert abs(x.mean() - mean) < 1e-4 and abs(x.std() - std) < 1e-4


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), 1e-200, 1e9])
def test_a_blob_whose_image_would_have_one_grey_value_is_refused(width):
    with pytest.raises(ValueError, match="from 0.001 to 8000 pixels|finite"):
        images.Blobs(3, 8).render(torch.full((2, 3), width, dtype=torch.float64))


def test_the_narrowest_and_the_widest_blobs_have_images():
    for width in (1e-3, 8e3):
        image = images.Blobs(3, 8).render(torch.full((1, 3), width, dtype=torch.float64))
        assert image.isfinite().all() and image.max() == 1 and image.min() == 0


@pytest.mark.parametrize("make", [lambda: Squares(5, size=8.5), lambda: Squares(2.5), lambda: Blobs(5, size=8.5)])
def test_sizes_that_are_not_whole_are_refused(make):
    with pytest.raises(TypeError, match="must be a whole number"):
        make()


@pytest.mark.parametrize("x", [torch.zeros(2, 1, 7, 7), torch.zeros(3, 1, 8, 8), torch.full((2, 1, 8, 8), math.nan)])
def test_images_that_cannot_be_projected_are_refused(x):
    family = Squares(2, size=8)
    with pytest.raises(ValueError, match="one image for each row of u|NaN"):
        family.project(x, family.sample_coordinates(2))
