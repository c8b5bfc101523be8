"""The command: what it prints, its report, its exit codes, and errors that say what to do."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import dimlib.book
from dimlib.apply.command import main

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 3)).round(3)
BRIEF = ["--max-steps", "2", "--device", "cpu"]  # enough for Gaussian data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# name, how to make it, further arguments, the error; the others of files are in test_files.py
BAD = {
    "missing.npy": (lambda p: None, [], "there is no file or folder missing.npy"),
    "two.npz": (lambda p: np.savez(p, a=X, b=X), [], "two.npz has the arrays a, b: choose one by its key"),
    "other.npz": (lambda p: np.savez(p, a=X), ["--key", "c"], "other.npz has the arrays a, and no 'c'"),
    "broken.npz": (lambda p: p.write_text("?"), [], "broken.npz is damaged, or is no file of numbers"),
    "ragged.csv": (lambda p: p.write_text("a,b\n1,2\n4,5,6\n"), [], "Expected 2 fields in line 3, saw 3"),
    "few.npy": (lambda p: np.save(p, X[:9]), [], "a minimum of 10 is required"),
    "same.npy": (lambda p: np.save(p, np.ones((40, 3))), [], "fewer than 10 different rows"),
    "wide.npy": (lambda p: np.save(p, np.eye(10, 4097)), [], "4097 columns are too many for spectra, 4096 the most"),
    "steps.npy": (lambda p: np.save(p, X), ["--max-steps", "0"], "max_steps=0 must be at least 1"),
    "sigmas.npy": (lambda p: np.save(p, X), ["--sigmas", "0", "1"], "sigmas=[0.0, 1.0]: give at least two"),
    "sigma.npy": (lambda p: np.save(p, X), ["--sigmas", "1"], "sigmas=[1.0]: give at least two different noise levels"),
    "device.npy": (lambda p: np.save(p, X), ["--device", "abacus"], "--device abacus cannot be used"),
    "meta.npy": (lambda p: np.save(p, X), ["--device", "meta"], "--device meta cannot be used"),
    "jpg.npy": (lambda p: np.save(p, X), ["--report", "a.jpg"], "--report a.jpg: give the name of a png file"),
    "place.npy": (lambda p: np.save(p, X), ["--report", "no/a.png"], "--report no/a.png: give the name of a png file"),
    "folder.png": (lambda p: p.mkdir(), ["--report", "folder.png"], "--report folder.png: give the name of a png file"),
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


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which nobody can write")
def test_a_report_that_cannot_be_written_is_refused_before_the_training(folder, capsys):
    np.save("a.npy", X)
    assert main(["a.npy", "--report", "/proc/self/a.png"]) == 2
    done = capsys.readouterr()
    assert "--report /proc/self/a.png: its folder cannot be written to" in done.err and done.out == ""


def test_an_answer_with_doubts_is_three(folder, capsys):
    np.save("a.npy", np.c_[X, np.ones(40)])
    assert main(["a.npy", *BRIEF]) == 3
    done = capsys.readouterr()
    lines = done.out.splitlines()
    assert lines[0] == "a.npy: array, 40 rows, 4 columns"
    assert lines[1] == "needs at most 4 training steps, then 4 points × 64 scores × 13 noise levels = 3328 evaluations"
    assert lines[2].startswith("dimension ") and "  warning: 1 of 4 columns are constant" in lines
    table = lines.index("  noise level σ  mean dimension    median")
    assert len(lines) == table + 8 + 2 and lines[-1].endswith("seconds") and done.out.count("dimension ") >= 2
    assert any(line.endswith("plateau") for line in lines[table:]) and done.err == ""
    assert done.out.count("points) at σ") == 1  # the estimate, once


def test_an_answer_without_doubts_is_zero(folder, capsys):
    np.save("a.npy", np.random.default_rng(0).normal(size=(600, 3)))
    assert main(["a.npy", "--max-steps", "300", "--device", "cpu", "--sigmas", "0.3", "0.2", "0.4"]) == 0
    done = capsys.readouterr().out
    assert "3 noise levels" in done and "dimension 3.00 ± 0.0" in done and "warning" not in done


def test_the_seed_decides(folder, capsys):
    np.save("a.npy", X**3)
    answers = []
    for seed in (0, 0, 1):
        main(["a.npy", *BRIEF, "--seed", str(seed)])
        answers.append(capsys.readouterr().out.splitlines()[2:-1])
    assert answers[0] == answers[1] != answers[2]


def test_the_report_is_one_png(folder, capsys):
    np.save("a.npy", X)
    assert main(["a.npy", *BRIEF, "--report", "page.png"]) == 3
    with Image.open("page.png") as page:
        page.load()
        assert page.format == "PNG" and page.width >= 800 and page.convert("L").getextrema() == (0, 255)
    assert sorted(p.name for p in folder.iterdir()) == ["a.npy", "page.png"]


def test_a_name_with_dollar_signs_is_no_formula(folder, capsys):
    np.save("a$^$b.npy", X)
    assert main(["a$^$b.npy", *BRIEF, "--report", "page.png"]) == 3
    assert (folder / "page.png").stat().st_size > 10_000


def test_a_report_that_fails_leaves_the_old_one(folder, capsys, monkeypatch):
    from matplotlib.figure import Figure

    def full_disk(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("no space left")

    np.save("a.npy", X)
    (folder / "page.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", full_disk)
    assert main(["a.npy", *BRIEF, "--report", "page.png"]) == 2
    done = capsys.readouterr()
    assert "the report page.png cannot be written (no space left). The answer above holds: make room" in done.err
    assert "dimension 3.00" in done.out
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
    assert all(f"{code}  " in "\n".join(lines) for code in (0, 2, 3, 4, 5, 130))


def program(*arguments, **options):
    """The command as a program, which is not waited for."""
    return subprocess.Popen([sys.executable, "-m", "dimlib", *arguments], stderr=subprocess.PIPE, **options)


def test_it_runs_as_a_module_on_a_terminal_without_greek(folder):
    np.save("a.npy", X)
    done = program("a.npy", *BRIEF, stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, error = done.communicate()
    assert done.returncode == 3 and out.startswith(b"a.npy: array, 40 rows") and error == b""


def test_a_reader_that_leaves_gets_no_traceback_and_loses_no_report(folder):
    np.save("a.npy", X)
    done = program("a.npy", *BRIEF, "--report", "page.png", stdout=subprocess.PIPE)
    assert done.stdout.readline().startswith(b"a.npy: array, 40 rows")
    done.stdout.close()
    assert done.stderr.read() == b"" and done.wait() == 3
    done.stderr.close()
    assert (folder / "page.png").stat().st_size > 10_000


def test_an_interruption_is_130_and_one_line(folder):
    np.save("a.npy", X)
    done = program("a.npy", "--max-steps", "1000000", "--device", "cpu", stdout=subprocess.PIPE,
                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # ignored in the background
    done.stdout.readline(), done.stdout.readline()                         # it trains now
    done.send_signal(signal.SIGINT)
    out, error = done.communicate(timeout=60)
    assert done.returncode == 130 and error == b"python -m dimlib: interrupted\n" and out == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_an_answer_for_which_there_is_no_room_is_five_and_loses_no_report(folder):
    np.save("a.npy", X)
    with open("/dev/full", "wb") as full:
        done = program("a.npy", *BRIEF, "--report", "page.png", stdout=full)
        error = done.communicate()[1]
    assert done.returncode == 5 and error.count(b"\n") == 1
    assert b"error: the answer cannot be written to standard output (No space left on device): make room" in error
    assert (folder / "page.png").stat().st_size > 10_000


@pytest.mark.skipif(os.name != "posix", reason="the limit is one of POSIX")
def test_a_disk_that_fills_while_it_prints_is_five_and_loses_no_report(folder):
    """After 200 bytes, in the middle of the estimate."""
    np.save("a.npy", X)
    code = ("import resource, runpy, signal, sys; from dimlib.apply import command; write = command.write_report;"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); most = resource.RLIM_INFINITY;"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200, most));"
            "command.write_report = lambda *given: (resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),"
            "                                       write(*given));"
            f"sys.argv = ['dimlib', 'a.npy', *{BRIEF}, '--report', 'page.png'];"
            "runpy.run_module('dimlib', run_name='__main__')")
    with open("out.txt", "wb") as out:
        done = subprocess.run([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE)
    assert done.returncode == 5 and b"standard output (File too large): make room" in done.stderr
    assert (folder / "out.txt").stat().st_size == 200 and (folder / "page.png").stat().st_size > 10_000


def test_a_fault_is_four_and_shows_where(folder):
    """In a program whose `files.read` has a bug."""
    code = ("import runpy, sys; from dimlib.apply import files; files.read = lambda *_: {}['a bug'];"
            "sys.argv = ['dimlib', 'a.npy']; runpy.run_module('dimlib', run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 4 and "Traceback" in done.stderr and "KeyError: 'a bug'" in done.stderr
