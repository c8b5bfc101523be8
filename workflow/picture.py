"""Draw the picture of the front page from a full run: python workflow/picture.py OUTPUT SPHERES.CSV METRICS.JSON"""

import json
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from dimlib import score
from dimlib.book import plotting
from dimlib.data import exact


def draw_score(ax) -> None:
    """The exact score around a closed curve, at noise that is small and at noise that is not."""
    t = torch.linspace(0, 2 * torch.pi, 2001, dtype=torch.float64)[:-1]
    curve = torch.stack([1.5 * t.cos(), t.sin() + 0.35 * (2 * t).cos()], dim=1)
    denoiser, sigma = exact.Empirical(curve), 0.12
    x = curve[::40] + sigma * 1.6 * torch.tensor([1, -1]).repeat(25)[:, None] * torch.nn.functional.normalize(
        (curve.roll(-1, 0) - curve.roll(1, 0))[::40] @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64))
    arrow = sigma**2 * score.score_at(denoiser, x, sigma)
    ax.plot(*curve.T, color=plotting.COLORS["tangent"], lw=2)
    ax.quiver(*x.T, *arrow.T, angles="xy", scale_units="xy", scale=1, width=0.007, color=plotting.COLORS["normal"])
    ax.set(aspect="equal", title="Near the data the score\npoints along the normals")
    ax.axis("off")


def draw_spectrum(ax, values, dim) -> None:
    """Singular values of the scores around a point of the sphere, by a trained network."""
    index, d = np.arange(1, len(values) + 1), len(values)
    normal, tangent = plotting.COLORS["normal"], plotting.COLORS["tangent"]
    ax.plot(index[: d - dim], values[: d - dim], ".", color=normal)
    ax.plot(index[d - dim:], values[d - dim:], ".", color=tangent)
    ax.text(100, 1.2, f"{d - dim} large:\nnormal directions", color=normal, ha="right")
    ax.text(88, 0.12, f"{dim} small:\ntangent directions", color=tangent, ha="right")
    ax.set(xlabel="index", ylabel="singular value", title=f"Many scores around a point,\n{dim}-sphere in $R^{{{d}}}$")


def draw_answers(ax, results) -> None:
    """Error of the answer: each seed of ours, and the paper's."""
    ours = results[results.rule == "recommended"]
    for position, (dim, rows) in enumerate(ours.groupby("k")):
        spread = np.linspace(-0.12, 0.12, len(rows))
        ax.plot(position + spread, rows["mean"] - dim, "o", ms=7, color=plotting.COLORS["normal"])
        ax.plot(position, rows.paper.iloc[0] - dim, "X", ms=9, color=plotting.COLORS["paper"])
    ax.plot([], [], "o", ms=7, color=plotting.COLORS["normal"], label="this book, 3 seeds")
    ax.plot([], [], "X", ms=9, color=plotting.COLORS["paper"], label="the paper")
    ax.axhline(0, color="k", lw=1)
    ax.set_xticks([0, 1], labels=[f"{dim:g}-sphere" for dim in sorted(ours.k.unique())])
    ax.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), ylabel="answer − truth",
           title="The error of the answer: this book 0, the paper 1")
    ax.set_yticks([0, 1])
    ax.legend(loc="center")


def main(output: str, spheres: str, metrics: str) -> None:
    with open(metrics) as file:
        run = json.load(file)
    plotting.use_style()
    fig, axes = plt.subplot_mosaic("AB;CC", figsize=(6.4, 4.9), height_ratios=[1.6, 1])  # readable on a phone
    draw_score(axes["A"])
    draw_spectrum(axes["B"], run["spectrum"], int(run["rows"][0]["k"]))
    draw_answers(axes["C"], pd.read_csv(spheres))
    fig.savefig(output, dpi=220, metadata={"Software": None})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
