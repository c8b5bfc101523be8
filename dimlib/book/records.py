"""Records of runs: the results, the parameters and the machine. One row for each data set, seed and rule."""

import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from ..curve import DimensionCurve
from ..machine.tensors import replacing
from ..svd import RULES, Spectrum

__all__ = ["COLUMNS", "provenance", "rows", "write_metrics"]

COLUMNS = ("data", "k", "visible", "seed", "rule", "sigma", "points", "mean", "median", "share_exact", "share_within_1",
           "paper", "excess_loss", "network", "parametrisation", "steps", "n_scores", "seconds_train",
           "seconds_estimate", "device", "commit")


def rows(curve: DimensionCurve, published: Spectrum, truth, visible, **common) -> list[dict]:
    """The results of one run as a list of rows (dicts), one for each rule.

    Four rows are for the rules on the centred curve, each at the noise level of its own plateau. The fifth row, called
    "published", is for the algorithm as published: the "gap" rule on the uncentred spectrum.

    Args:
        curve: centred spectra over noise levels, at P points.
        published: the uncentred spectrum at the paper's σ.
        truth: the true dimension at the points, a number or shape (P,). The answers are compared with it. None if it is
            unknown; then k, visible and the shares are also None.
        visible: a function of σ that returns the number of directions longer than σ at the points, shape (P,).
        common: the other columns, the same in each row. Those that are not in COLUMNS come last.
    """
    estimates = {rule: curve.estimate(rule) for rule in RULES}
    answers = {rule: (estimate.sigma, estimate.dimension()) for rule, estimate in estimates.items()}
    answers["published"] = published.sigma, published.dimension("gap")

    def compare(sigma, answer):
        if truth is None:
            return dict.fromkeys(("k", "visible", "share_exact", "share_within_1"))
        off = abs(answer - np.asarray(truth))
        return {"k": float(np.mean(truth)), "visible": float(visible(sigma).double().mean()),
                "share_exact": float((off == 0).mean()), "share_within_1": float((off <= 1).mean())}

    this = commit()
    measured = [{
        "rule": rule, "sigma": sigma, "points": len(answer), "mean": float(answer.mean()),
        "median": float(np.median(answer)), "n_scores": published.n_scores, "commit": this,
        **compare(sigma, answer), **common} for rule, (sigma, answer) in answers.items()]
    return [{column: row[column] for column in dict.fromkeys([*COLUMNS, *common])} for row in measured]


def provenance() -> dict:
    """Commit, versions and machine of a run, as a dict."""
    return {"commit": commit(), "python": platform.python_version(), "torch": torch.__version__.split("+")[0],
            "numpy": np.__version__, "processor": _processor(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads()}


def commit() -> str:
    """Short hash of the commit of the checkout that holds this file, with a + if tracked or new files differ from it.

    "unknown" outside a checkout, also for a dimlib that is installed somewhere inside another project's checkout.
    """
    def git(*words):
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        root = git("rev-parse", "--show-toplevel")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("-C", root, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_metrics(out_dir: str | Path, rows: list[dict], **more) -> Path:
    """Write the rows, the provenance and ``more`` to ``metrics.json`` in the folder out_dir, and return its path."""
    path = Path(out_dir) / "metrics.json"
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps({"rows": rows, "provenance": provenance(), **more}, indent=1))
    return path


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
