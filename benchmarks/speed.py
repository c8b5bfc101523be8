# ruff: noqa: B023 (functions are called in the loop that makes them)
"""How fast the library is, as ratios on one machine in one run: python benchmarks/speed.py OUTPUT.CSV

Each row has two times in seconds and their ratio. For spectra and training they are medians of three or five
repetitions in turn; a readout is the median of three, beside one spectrum; fits are timed once. Everything runs with
one thread. It takes about a quarter of an hour on one CPU core.
"""

import csv
import subprocess
import sys
import time
import warnings
from functools import partial
from statistics import median

import numpy as np
import skdim
import torch

import dimlib
from dimlib import ScoreModel
from dimlib.book.records import provenance
from dimlib.compare.readouts import denoising_loss, flipd, lhsd, tangent_sketch
from dimlib.data import exact
from dimlib.data.manifolds import Sphere
from dimlib.machine.descent import Descent, Muon
from dimlib.machine.tensors import replacing
from dimlib.networks import MLP
from dimlib.sampler import copies_in_blocks
from dimlib.score import noise_prediction
from dimlib.svd import moments
from dimlib.training import train_steps

SIGMA = 0.02


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(ours, other, repeats: int = 5) -> tuple[float, float]:
    """Median seconds of two functions, in turn, after one call of each that is not timed."""
    ours(), other()
    pairs = [(seconds(ours), seconds(other)) for _ in range(repeats)]
    return median(a for a, _ in pairs), median(b for _, b in pairs)


def published(denoiser, x, sigma: float, n_scores: int) -> torch.Tensor:
    """As the authors' code computes it: all scores are kept, and the SVD gives all of U, K × K, and of V, too."""
    noisy = x + sigma * torch.randn(n_scores, x.shape[1])
    scores = torch.cat([noise_prediction(denoiser, rows, sigma) for rows in noisy.split(1024)])
    return torch.linalg.svd(scores - scores.mean(0)).S


def peak(code: str) -> float:
    """Megabytes that a process of its own needs at most."""
    start = "import resource, torch; torch.set_num_threads(1)\n"
    end = "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", start + code + end], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def decomposition():
    """`spectrum` against the published procedure, with a denoiser that costs nothing."""
    for d, n_scores in ((100, 400), (784, 3136), (1024, 4096), (3072, 6144)):
        x = torch.randn(1, d)
        times = compare(lambda: dimlib.spectrum(lambda y, s: 0.5 * y, x, SIGMA, n_scores),
                        lambda: published(lambda y, s: 0.5 * y, x, SIGMA, n_scores), 3)
        yield "spectrum, against the published SVD with U and V", f"d = {d}, K = {n_scores}", *times


def accumulation():
    """The sums of `spectrum`, against bare products of matrices of the same sizes and precision."""
    for d in (784, 1024):
        x = torch.randn(1, d)
        copies = list(copies_in_blocks(x, SIGMA, 2048, 0))
        rows = torch.randn(64, d + 1, dtype=torch.float64)
        sums = torch.zeros(d + 1, d + 1, dtype=torch.float64)
        times = compare(lambda: moments(lambda y, s: y, copies, SIGMA, 1),
                        lambda: [sums.addmm_(rows.T, rows) for _ in copies])
        yield "sums of a spectrum, against bare matrix products", f"d = {d}, 2048 scores", *times


def loops():
    """Scores and training steps, against loops without anything around the network."""
    torch.manual_seed(0)
    for d in (100, 784):
        model = ScoreModel(MLP(d), data_std=1.0).eval()
        x = torch.randn(1, d)
        rows = torch.randn(4 * d, d)

        def bare(model=model, rows=rows):
            with torch.no_grad():
                for batch in rows.split(1024):
                    model(batch, SIGMA)

        yield ("scores in a spectrum, against the bare network", f"MLP, d = {d}, K = {4 * d}, 20 points",
               *compare(lambda: dimlib.spectrum(model, x.expand(20, d).contiguous(), SIGMA),
                        lambda: [bare() for _ in range(20)], 3))
    data, steps = torch.randn(2000, 100), 50

    def training():
        for _ in train_steps(ScoreModel(MLP(100), data_std=1.0), data, steps, device="cpu"):
            pass

    def loop():
        descent = Descent(ScoreModel(MLP(100), data_std=1.0), lambda *_: None, 5e-3)
        for _ in range(steps):
            noisy, sigma = torch.randn(500, 100), torch.rand(500)
            loss = (descent.student(noisy, sigma) - noisy).square().mean()
            descent.student.zero_grad()
            loss.backward()
            for optimizer in descent.optimizers:
                optimizer.step()

    yield "training steps, against a bare loop", f"MLP, d = 100, {steps} steps of 500", *compare(training, loop, 3)

    def optimiser(kind, **options):
        weights = [torch.randn(192, 192) for _ in range(6)]
        for w in weights:
            w.grad = torch.randn(192, 192)
        return kind(weights, lr=1e-3, **options).step

    yield ("a step of Muon in float32, against PyTorch's in bfloat16", "six matrices of 192 × 192",
           *compare(optimiser(Muon), optimiser(torch.optim.Muon, adjust_lr_fn="match_rms_adamw", weight_decay=0)))


def readouts():
    """Each readout of an exact denoiser, against `spectrum`; the error is in the setting."""
    for d in (100, 784, 3072):
        sphere = Sphere(10, d)
        perfect, x = exact.denoiser(sphere), sphere.sample(1, seed=1).double()
        reference = seconds(lambda: dimlib.spectrum(perfect, x, SIGMA))
        for name, ask in {"tangent sketch": tangent_sketch, "FLIPD": flipd,
                          "FLIPD, 8 probes": partial(flipd, n_probes=8), "LHSD": lhsd,
                          "denoising loss, 8 draws": denoising_loss}.items():
            found = ask(perfect, x, SIGMA)
            error = found.dimension()[0] - 10
            yield (f"{name}, against spectrum",
                   f"10-sphere, d = {d}, {found.n_evaluations:.0f} evaluations, error {error:+.1f}",
                   median(seconds(lambda: ask(perfect, x, SIGMA)) for _ in range(3)), reference)


def growth():
    """Exponents instead of seconds, fitted to four sizes, against those of the theory."""
    def count(x, n_scores=None):
        return dimlib.spectrum(lambda y, s: 0.5 * y, x, SIGMA, n_scores)

    def sketch(k):
        sphere = Sphere(k, 1024)
        return partial(tangent_sketch, exact.denoiser(sphere), sphere.sample(1, seed=1).double(), SIGMA)

    for what, setting, sizes, work, theory in (
            ("spectrum in K", "d = 512, K = 2048 to 16 384", (2048, 4096, 8192, 16384),
             lambda n: partial(count, torch.randn(1, 512), n), 1),
            ("spectrum in the number of points", "d = 256, 4 to 32 points", (4, 8, 16, 32),
             lambda n: partial(count, torch.randn(n, 256)), 1),
            ("spectrum in d", "K = 4 d, d = 256 to 2048", (256, 512, 1024, 2048),
             lambda d: partial(count, torch.randn(1, d)), 3),
            ("the tangent sketch in k", "d = 1024, spheres with k = 16 to 128", (16, 32, 64, 128), sketch, 1)):
        times = []
        for size in sizes:
            run = work(size)
            run()
            times.append(median(seconds(run) for _ in range(3)))
        yield (f"exponent of the time of {what}, against the theory", setting,
               np.polyfit(np.log(sizes), np.log(times), 1)[0], theory)


def methods():
    """`DiffusionDimension` with and without its training, against estimators that use neighbours."""
    for n in (1000, 10_000, 100_000):
        x = Sphere(5, 20, seed=1).sample(n, seed=1).numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            started = time.perf_counter()
            fitted = dimlib.DiffusionDimension().fit(x)
            trained = time.perf_counter() - started
            again = seconds(lambda: dimlib.DiffusionDimension(fitted.denoiser_).fit(x))
        for name in ("TwoNN", "MLE", "lPCA"):
            method = getattr(skdim.id, name)(**({"verbose": False} if name == "lPCA" else {}))
            taken = seconds(lambda: method.fit(x))
            setting = f"5-sphere, n = {n}, answers {fitted.estimate_.mean:.2f} and {method.dimension_:.2f}"
            yield f"DiffusionDimension with training, against {name}", setting, trained, taken
            yield f"DiffusionDimension, already trained, against {name}", setting, again, taken


def memory():
    """Megabytes instead of seconds: they do not grow with K."""
    code = "import dimlib\ndimlib.spectrum(lambda y, s: 0.5 * y, torch.randn(1, 1024), 0.02, {})"
    yield "memory of spectrum in MB, eight times the scores", "d = 1024, K = 16 384 and 2048", peak(
        code.format(16384)), peak(code.format(2048))


def main(output: str) -> None:
    torch.set_num_threads(1)
    machine = provenance()
    with replacing(output) as unfinished, open(unfinished, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["what", "setting", "ours", "other", "other/ours", "processor", "commit"])
        for part in (decomposition, accumulation, loops, readouts, memory, growth, methods):
            for what, setting, ours, other in part():
                row = [what, setting, f"{ours:.3g}", f"{other:.3g}", f"{other / ours:.3g}"]
                print(*row, sep=" | ", flush=True)
                table.writerow([*row, machine["processor"], machine["commit"]])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
