"""The dimension of a data file on the command line: python -m dimlib data.npy

The exit code is 0 for an answer without doubts, and 3 for one with doubts; 2 for wrong usage, for data that cannot be
used, and for a report that cannot be written; 4 for a fault in dimlib; 5 for an answer that cannot be printed, because
the disk of standard output is full; 130 if it was interrupted. (Python's own is 1.)
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ..curve import DimensionCurve, Estimate
from ..machine.checks import default_scores
from ..machine.compute import choose_device
from ..machine.tensors import replacing
from . import files
from .estimator import HELD_OUT, MOST_LEVELS, MOST_POINTS, DiffusionDimension
from .learning import COMPARED

MOST_COLUMNS = 4096  # d × d matrices at every point: more would take days
RECIPE = DiffusionDimension()

CODES = """exit code:  0  an answer, without doubts     3  an answer, with doubts
            2  wrong usage, data that cannot be used, or a report not written
            4  a fault in dimlib             5  no room for what is printed
            130  interrupted"""


def main(argv: list[str] | None = None) -> int:
    """Read the data, train, and print the dimension, the curve and the doubts. Returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        _check(options)
        x, words = files.read(options.data, options.key)
        n, d = len(x), x[0].size
        words = f"{words}, {n} rows, {d} columns"
        print(f"{options.data}: {words}", flush=True)
        if d > MOST_COLUMNS:
            raise ValueError(f"{d} columns are too many for spectra, {MOST_COLUMNS} the most: scale images down, or "
                             "keep the first principal components")
        points, scores = min(MOST_POINTS, max(1, int(HELD_OUT * n))), default_scores(d)
        levels = len(set(options.sigmas or range(MOST_LEVELS)))
        steps = options.max_steps + (min(COMPARED, options.max_steps) if x.ndim != 4 else 0)  # of two networks
        print(f"needs at most {steps} training steps, then {points} points × {scores} scores × "
              f"{levels} noise levels = {points * scores * levels} evaluations", flush=True)
        started = time.perf_counter()
        found = DiffusionDimension(sigmas=options.sigmas, max_steps=options.max_steps, random_state=options.seed,
                                   device=options.device, verbose=True).fit(x)  # which prints the estimate
        _print_curve(found.curve_, found.estimate_)
        print(f"{time.perf_counter() - started:.0f} seconds", flush=True)
        if options.report:
            write_report(options.report, found, f"{Path(options.data).name}: {words}")
    except (ValueError, TypeError, FloatingPointError, ImportError, OSError, MemoryError,
            torch.OutOfMemoryError) as error:
        print("python -m dimlib: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 3 if found.estimate_.warnings else 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m dimlib", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=CODES,
        description="The intrinsic dimension of data: trains a small diffusion model on them,\n"
                    "and prints the dimension, the curve over noise levels, and the doubts.")
    parser.add_argument("data", metavar="DATA", help="npy, npz, csv, csv.gz, parquet, or a folder of images")
    parser.add_argument("--key", help="which array of an npz")
    parser.add_argument("--max-steps", metavar="N", type=int, default=RECIPE.max_steps,
                        help="budget of training steps (%(default)s)")
    parser.add_argument("--sigmas", metavar="S", type=float, nargs="+",
                        help="noise levels, at least two, in units of the data (chosen from the data)")
    parser.add_argument("--seed", metavar="N", type=int, default=RECIPE.random_state,
                        help="seed of everything random (%(default)s)")
    parser.add_argument("--device", default=RECIPE.device, help="cuda, mps, cpu, or auto: the first that exists (auto)")
    parser.add_argument("--report", metavar="PNG", type=Path, help="also write figures and answer to this file")
    return parser


def _check(options):
    """Errors that would otherwise come after minutes of training."""
    try:
        choose_device(options.device)
    except ValueError as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from error
    if options.report:
        from ..book import plotting  # noqa: F401 (is it there?)

        folder = options.report.absolute().parent
        if options.report.suffix.lower() != ".png" or options.report.is_dir() or not folder.is_dir():
            raise ValueError(f"--report {options.report}: give the name of a png file in a folder that exists")
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OSError(f"--report {options.report}: its folder cannot be written to ({error.strerror}): choose "
                          "another") from error


def _print_curve(curve: DimensionCurve, estimate: Estimate) -> None:
    print(f"  {'noise level σ':<15}{'mean dimension':<18}median")
    low, high = estimate.plateau
    for sigma, answers, error in zip(curve.sigmas, curve.dimension(), curve.standard_errors(), strict=True):
        mean = f"{answers.mean():.2f} ± {error:.2f}"
        print(f"  {sigma:<15.3g}{mean:<18}{np.median(answers):<8g}{'plateau' if low <= sigma <= high else ''}".rstrip())


def write_report(path: Path, found: DiffusionDimension, title: str) -> None:
    """One page as a png: spectra at the noise level of the answer, the curve, the points, the answer in words."""
    from matplotlib.figure import Figure

    from ..book import plotting

    plotting.use_style()
    figure = Figure(figsize=(10, 7.5))
    axes = figure.subplots(2, 2)
    spectrum = found.curve_.spectra[list(found.curve_.sigmas).index(found.sigma_)]
    plotting.plot_spectrum(spectrum, int(found.dimension_), axes[0, 0])
    plotting.plot_curve(found.curve_, ax=axes[0, 1])
    axes[0, 1].set_xticks(found.curve_.sigmas, [f"{sigma:.2g}" for sigma in found.curve_.sigmas], rotation=30)
    axes[0, 1].set_xticks([], minor=True)
    answers = found.estimate_.dimension()
    plotting.plot_histogram({"recommended": answers}, ax=axes[1, 0])
    axes[1, 0].set_xlim(answers.min() - 2, answers.max() + 2)
    axes[1, 0].get_legend().remove()
    axes[1, 1].axis("off")
    axes[1, 1].text(0, 1, str(found.estimate_), va="top", wrap=True, parse_math=False)
    figure.suptitle(title, parse_math=False)                               # names may have dollar signs
    try:
        with replacing(path) as unfinished:
            figure.savefig(unfinished, format="png")
    except OSError as error:
        raise OSError(f"the report {path} cannot be written ({error.strerror or error}). The answer above holds: make "
                      "room, or choose another folder") from error
