"""The command: every kind of file, what it prints, its report, its exit codes, and errors that say what to do."""

import io
import os
import runpy
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dimlib.book
from dimlib.apply import files
from dimlib.apply.command import main

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 3)).round(3)
BRIEF = ["--steps", "2", "--device", "cpu"]  # enough for Gaussian data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_images(folder, arrays, suffix="png"):
    folder.mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:02}.{suffix}")


def named(columns):
    return pd.DataFrame(X, columns=columns)


GREY = DRAW.integers(0, 256, size=(12, 3, 4), dtype=np.uint8)
RGB = DRAW.integers(0, 256, size=(12, 3, 4, 3), dtype=np.uint8)

# name, how to make it, what is read, and the words for it
KINDS = {
    "a.npy": (lambda p: np.save(p, X), X, "array"),
    "images.npy": (lambda p: np.save(p, GREY), GREY, "array"),
    "one.npz": (lambda p: np.savez(p, data=X), X, "array 'data'"),
    "names.csv": (lambda p: named(["u", "v", "w"]).to_csv(p, index=False), X, "csv table with names of columns"),
    "plain.csv": (lambda p: named([0, 1, 2]).to_csv(p, index=False, header=False), X,
                  "csv table without names of columns"),
    "counted.csv": (lambda p: named([0, 1, 2]).to_csv(p, index=False), X, "csv table with names of columns"),
    "indexed.csv": (lambda p: named([0, 1, 2]).to_csv(p), X,
                    "csv table with names of columns, without its first, which has none"),
    "packed.csv.gz": (lambda p: named([0, 1, 2]).to_csv(p, index=False, header=False), X,
                      "csv table without names of columns"),
    "UPPER.CSV": (lambda p: named(["u", "v", "w"]).to_csv(p, index=False), X, "csv table with names of columns"),
    "a.parquet": (lambda p: named(["u", "v", "w"]).to_parquet(p), X, "parquet table"),
    "kinds.parquet": (lambda p: pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": [True, False], "c": [1.5, 2]})
                      .to_parquet(p), np.array([[1, 1, 1.5], [2, 0, 2]]), "parquet table"),
    "grey": (lambda p: save_images(p, GREY), GREY / np.float32(255), "folder of images, 4×3 grey"),
    "rgb": (lambda p: save_images(p, RGB, "bmp"), RGB / np.float32(255), "folder of images, 4×3 RGB"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_read(name, folder):
    make, expected, words = KINDS[name]
    make(folder / name)
    x, found = files.read(name)
    assert found == words and x.shape == expected.shape and (x == expected).all()


def test_an_array_of_an_npz_is_chosen_by_its_key(folder):
    np.savez("two.npz", a=X, b=X[:20])
    assert files.read("two.npz", "b")[0].shape == (20, 3)


def test_jpegs_transparent_and_black_and_white_images_are_read(folder):
    save_images(folder / "jpg", RGB, "jpg")
    assert files.read("jpg")[0].shape == (12, 3, 4, 3)
    for mode, shape in {"RGBA": (3, 4, 3), "P": (3, 4, 3), "LA": (3, 4), "1": (3, 4)}.items():
        (folder / mode).mkdir()
        Image.fromarray(RGB[0]).convert("L" if mode == "LA" else "RGB").convert(mode).save(f"{mode}/a.png")
        x, _ = files.read(mode)
        assert x.shape == (1, *shape) and 0 <= x.min() < x.max() <= 1


def text(path, content):
    path.write_text(content)


def mixed(p):
    save_images(p, [GREY[0], GREY[1], GREY[2, :2]])


# name, how to make it, further arguments, the error
BAD = {
    "missing.npy": (lambda p: None, [], "there is no file or folder missing.npy"),
    "a.xlsx": (lambda p: text(p, "?"), [], "a.xlsx is no npy, npz, csv, csv.gz or parquet file, and no folder"),
    "broken.npy": (lambda p: text(p, "?"), [], "broken.npy is no file of numbers that NumPy has saved"),
    "empty.npz": (lambda p: text(p, ""), [], "empty.npz is no file of numbers"),
    "object.npy": (lambda p: np.save(p, np.array([[{}, {}]])), [], "object.npy is no file of numbers"),
    "object.npz": (lambda p: np.savez(p, a=np.array([[{}, {}]])), [], "array 'a' of object.npz cannot be read"),
    "two.npz": (lambda p: np.savez(p, a=X, b=X), [], "two.npz has the arrays a, b: choose one by its key"),
    "other.npz": (lambda p: np.savez(p, a=X), ["--key", "c"], "other.npz has the arrays a, and no 'c'"),
    "key.npy": (lambda p: np.save(p, X), ["--key", "c"], "key 'c' names an array of an npz file, and key.npy is none"),
    "words.npy": (lambda p: np.save(p, np.array([["a", "b"]])), [], "words.npy holds <U1, not real numbers"),
    "complex.npy": (lambda p: np.save(p, 1j * X), [], "complex.npy holds complex128, not real numbers"),
    "flat.npy": (lambda p: np.save(p, X[:, 0]), [], r"flat.npy has shape (40,): rows of at least two columns"),
    "norows.npy": (lambda p: np.save(p, X[:0]), [], r"norows.npy has shape (0, 3): rows of at least two columns"),
    "few.npy": (lambda p: np.save(p, X[:9]), [], "a minimum of 10 is required"),
    "same.npy": (lambda p: np.save(p, np.ones((40, 3))), [], "fewer than 10 different rows"),
    "wide.npy": (lambda p: np.save(p, np.eye(10, 4097)), [], "4097 columns are too many for spectra, 4096 the most"),
    "nan.npy": (lambda p: np.save(p, np.where(X > 2, np.nan, X)), [], "of the 40 rows of nan.npy have missing or"),
    "empty.csv": (lambda p: text(p, ""), [], "No columns to parse from file"),
    "semicolon.csv": (lambda p: text(p, "1;2\n3;4\n"), [], "one column: at least two are needed, in a csv file"),
    "text.csv": (lambda p: text(p, "a,kind,b\n1,cat,3\n2,dog,5\n"), [],
                 "text.csv has text or dates in 1 of 3 columns, kind: remove them"),
    "gaps.csv": (lambda p: text(p, "a,b\n1,2\n3,\n"), [], "1 of the 2 rows of gaps.csv have missing"),
    "short.csv": (lambda p: text(p, "2,cats\n1,2,3\n4,5,6\n"), [], "short.csv has 2 cells in its first line"),
    "long.csv": (lambda p: text(p, "a,b\n1,2\n4,5,6\n"), [], "Expected 2 fields in line 3, saw 3"),
    "broken.parquet": (lambda p: text(p, "?"), [], "arquet"),
    "noimages": (lambda p: p.mkdir(), [], "folder noimages has no images: .bmp, .jpeg"),
    "sizes": (mixed, [], "02.png is 4×2 grey, and 00.png is 4×3 grey: make all the same"),
    "colours": (lambda p: save_images(p, [GREY[0], RGB[0]]), [], "01.png is 4×3 RGB, and 00.png is 4×3 grey"),
    "deep": (lambda p: save_images(p, [GREY[0].astype(np.uint16)]), [], "has the mode I;16: save it as grey or RGB"),
    "nopng": (lambda p: [p.mkdir(), text(p / "a.png", "?")], [], "cannot identify image file"),
    "steps.npy": (lambda p: np.save(p, X), ["--steps", "0"], "steps=0 and batch_size=36 must be at least 1"),
    "sigmas.npy": (lambda p: np.save(p, X), ["--sigmas", "0", "1"], "--sigmas 0 1: give at least two different ones"),
    "sigma.npy": (lambda p: np.save(p, X), ["--sigmas", "1"], "--sigmas 1: give at least two different ones above 0"),
    "device.npy": (lambda p: np.save(p, X), ["--device", "abacus"], "--device abacus cannot be used"),
    "jpg.npy": (lambda p: np.save(p, X), ["--report", "a.jpg"], "--report a.jpg: give the name of a png file"),
    "place.npy": (lambda p: np.save(p, X), ["--report", "no/a.png"], "--report no/a.png: give the name of a png file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_in_one_line(name, folder, capsys):
    make, further, message = BAD[name]
    make(folder / name)
    before = set(folder.iterdir())
    assert main([name, *BRIEF[2:], *further]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m dimlib: error: ") and error.count("\n") == 1 and message in error
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("missing, name, message", [
    ("pandas", "names.csv", "csv files need pandas and pyarrow: pip install 'dimlib[data]'"),
    ("pyarrow", "a.parquet", "parquet files need pandas and pyarrow: pip install 'dimlib[data]'"),
    ("PIL", "grey", "images need Pillow: pip install 'dimlib[data]'")])
def test_what_is_not_installed_is_named_with_its_extra(missing, name, message, folder, capsys, monkeypatch):
    KINDS[name][0](folder / name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main([name]) == 2 and message in capsys.readouterr().err


def test_an_answer_with_doubts_is_one(folder, capsys):
    np.save("a.npy", np.c_[X, np.ones(40)])
    assert main(["a.npy", *BRIEF]) == 1
    done = capsys.readouterr()
    lines = done.out.splitlines()
    assert lines[0] == "a.npy: array, 40 rows, 4 columns"
    assert lines[1] == "needs 2 training steps, then 4 points × 16 scores × 8 noise levels = 512 evaluations"
    assert lines[2].startswith("dimension ") and "  warning: 1 of 4 columns are constant" in lines
    table = lines.index("  noise level σ  mean dimension    median")
    assert len(lines) == table + 8 + 2 and lines[-1].endswith("seconds") and done.out.count("dimension ") >= 2
    assert any(line.endswith("plateau") for line in lines[table:]) and done.err == ""
    assert done.out.count("points) at σ") == 1  # the estimate, once


def test_an_answer_without_doubts_is_zero(folder, capsys):
    np.save("a.npy", X)
    assert main(["a.npy", *BRIEF, "--sigmas", "0.3", "0.2", "0.4"]) == 0  # what a network knows from the start
    done = capsys.readouterr().out
    assert "3 noise levels" in done and "dimension 3.00 ± 0.00" in done and "warning" not in done


def test_the_seed_decides(folder, capsys):
    np.save("a.npy", X**3)
    answers = []
    for seed in (0, 0, 1):
        main(["a.npy", *BRIEF, "--seed", str(seed)])
        answers.append(capsys.readouterr().out.splitlines()[2:-1])
    assert answers[0] == answers[1] != answers[2]


def test_the_report_is_one_png(folder, capsys):
    np.save("a.npy", X)
    assert main(["a.npy", *BRIEF, "--report", "page.png"]) == 0
    with Image.open("page.png") as page:
        page.load()
        assert page.format == "PNG" and page.width >= 800 and page.convert("L").getextrema() == (0, 255)
    assert sorted(p.name for p in folder.iterdir()) == ["a.npy", "page.png"]


def test_a_report_that_fails_leaves_the_old_one(folder, capsys, monkeypatch):
    from matplotlib.figure import Figure

    def full_disk(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("no space left")

    np.save("a.npy", X)
    (folder / "page.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", full_disk)
    assert main(["a.npy", *BRIEF, "--report", "page.png"]) == 2
    assert "no space left" in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir()) == ["a.npy", "page.png"]
    assert (folder / "page.png").read_bytes() == b"old"


def test_the_report_needs_matplotlib_before_it_trains(folder, capsys, monkeypatch):
    np.save("a.npy", X)
    monkeypatch.delattr(dimlib.book, "plotting", raising=False)
    monkeypatch.delitem(sys.modules, "dimlib.book.plotting", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["a.npy", "--report", "a.png"]) == 2
    done = capsys.readouterr()
    assert "pip install 'dimlib[plots]'" in done.err and done.out == ""


@pytest.mark.parametrize("arguments", [[], ["a.npy", "--step"], ["a.npy", "--seed", "one"], ["a.npy", "b.npy"]])
def test_wrong_usage_is_two(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: python -m dimlib" in capsys.readouterr().err


def test_help_fits_a_screen(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert all(f"{code}  " in "\n".join(lines) for code in range(4))


def test_it_runs_as_a_module_on_a_terminal_without_greek(folder):
    np.save("a.npy", X)
    done = subprocess.run([sys.executable, "-m", "dimlib", "a.npy", *BRIEF], capture_output=True,
                          env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout.startswith(b"a.npy: array, 40 rows") and done.stderr == b""


def test_a_fault_is_three_and_shows_where(monkeypatch):
    def fault(*_):
        raise KeyError("a bug")

    out, error = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    monkeypatch.setattr(files, "read", fault)
    monkeypatch.setattr("sys.argv", ["dimlib", "a.npy"])
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", error)
    with pytest.raises(SystemExit, match="3"):
        runpy.run_module("dimlib", run_name="__main__")
    assert "Traceback" in error.getvalue() and "a bug" in error.getvalue()
