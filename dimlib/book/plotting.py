"""Figures in one style: colours for colour-blind readers too (Okabe & Ito 2008), labelled axes, thin lines.

Each function draws on ``ax``, or on the current axes where not given, and returns the axes. A `Slider` holds several
pictures.
"""

import base64
import io
from collections.abc import Callable, Sequence
from html import escape

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("dimlib.book.plotting needs matplotlib: pip install 'dimlib[plots]'") from error

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from ..curve import DimensionCurve
from ..svd import Spectrum

__all__ = ["COLORS", "Slider", "use_style", "plot_spectrum", "plot_curve", "plot_histogram", "plot_images"]

COLORS = {"normal": "#0072B2", "tangent": "#D55E00", "truth": "#000000", "paper": "#999999",
          "recommended": "#0072B2", "gap": "#E69F00", "ratio": "#009E73", "cut": "#CC79A7", "published": "#999999"}
COLORS_IN_A_PICTURE, RARE_COLORS_TOO = 48, Image.Quantize.MAXCOVERAGE  # of a slider: a fifth of the size of all colours
MARKERS = {"recommended": "o", "gap": "s", "ratio": "^", "cut": "v"}


def use_style() -> None:
    """Set the book's matplotlib style for this session."""
    plt.rcParams.update({
        "figure.figsize": (6.4, 4), "figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True,
        "font.size": 12.5, "axes.titlesize": 12.5, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6, "lines.linewidth": 1.6, "lines.markersize": 4,
        "legend.frameon": False, "legend.fontsize": 11,
        "axes.prop_cycle": plt.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"])})


def plot_spectrum(spectrum: Spectrum, dim: int, ax: Axes | None = None) -> Axes:
    """Singular values against their index, one line for each point. The last ``dim`` values have another colour: if
    ``dim`` is the intrinsic dimension, they should be small."""
    ax = ax or plt.gca()
    d = spectrum.values.shape[1]
    index = np.arange(1, d + 1)
    for row in spectrum.values:
        ax.plot(index[: d - dim], row[: d - dim], ".-", ms=3, lw=0.5, color=COLORS["normal"], alpha=0.5)
        ax.plot(index[d - dim:], row[d - dim:], ".-", ms=3, lw=0.5, color=COLORS["tangent"], alpha=0.5)
    ax.plot([], [], ".-", color=COLORS["normal"], label=f"the first d − {dim}")
    ax.plot([], [], ".-", color=COLORS["tangent"], label=f"the last {dim}")
    ax.set(xlabel="index i", ylabel="singular value $s_i$ (ε units)", title=f"σ = {spectrum.sigma:.3g}")
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # not in its stubs
    ax.legend()
    return ax


def plot_curve(curve: DimensionCurve, truth: float | None = None, rules=("recommended", "gap", "ratio", "cut"),
               ax: Axes | None = None) -> Axes:
    """Mean dimension over the points against σ for several rules, with a band of ± two standard errors. The plateau of
    the recommended rule is shaded."""
    ax = ax or plt.gca()
    low, high = curve.estimate().plateau
    ax.axvspan(low, high, color=COLORS["recommended"], alpha=0.08, lw=0, label="plateau")
    for rule in rules:
        mean, error = curve.dimension(rule).mean(1), 2 * curve.standard_errors(rule)
        ax.plot(curve.sigmas, mean, marker=MARKERS[rule], color=COLORS[rule], label=rule)
        ax.fill_between(curve.sigmas, mean - error, mean + error, color=COLORS[rule], alpha=0.2, lw=0)
    if truth is not None:
        ax.axhline(truth, color=COLORS["truth"], lw=1, ls="--", label=f"truth, {truth:g}")
    ax.set(xscale="log", xlabel="noise level σ (data units)", ylabel="estimated dimension")
    ax.legend()
    return ax


def plot_histogram(answers: dict[str, np.ndarray], truth: float | None = None, ax: Axes | None = None) -> Axes:
    """Share of the points with each dimension. The bars of several estimators are side by side."""
    ax = ax or plt.gca()
    width = 0.8 / len(answers)
    for i, (name, answer) in enumerate(answers.items()):
        values, counts = np.unique(answer, return_counts=True)
        ax.bar(values + (i - (len(answers) - 1) / 2) * width, counts / len(answer), width, label=name,
               color=COLORS.get(name))
    if truth is not None:
        ax.axvspan(truth - 0.5, truth + 0.5, color=COLORS["truth"], alpha=0.08, lw=0, zorder=0,
                   label=f"truth, {truth:g}")
    ax.set(xlabel="estimated dimension", ylabel="share of points", ylim=(0, 1.05))
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # not in its stubs
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_images(images: Tensor, columns: int, low: float = 0.0, high: float = 1.0, ax: Axes | None = None) -> Axes:
    """Images (n, 1, h, w) row by row in a grid. The value ``low`` is black, ``high`` is white, nan stays blank."""
    ax = ax or plt.gca()
    framed = torch.nn.functional.pad(images[:, 0].detach().cpu().float(), (1, 1, 1, 1), value=float("nan"))
    missing = -len(framed) % columns
    framed = torch.cat([framed, torch.full((missing, *framed.shape[1:]), float("nan"))])
    rows = [torch.cat(list(row), dim=1) for row in framed.split(columns)]
    ax.imshow(torch.cat(rows), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    ax.axis("off")
    return ax


class Slider:
    """Pictures of the same size, one for each value, and a slider that shows one of them at a time.

    As the last value of a cell it is shown in the page, where it needs no kernel and no network, and can be moved with
    the arrow keys. In print, and where a page shows no HTML, the picture in the middle stands alone.

    Args:
        draw: a function that draws the picture of one value, as a figure of pyplot.
        values: the values, at least two, in the order of the slider.
        name: what is changed, such as "σ".
        alt: what the pictures show, in words, for readers who do not see them.
    """

    def __init__(self, draw: Callable[[float], object], values: Sequence[float], name: str, alt: str):
        if len(values) < 2:
            raise ValueError(f"a slider needs at least two values, got {list(values)}")
        self.values, self.pictures = [f"{value:g}" for value in values], []
        self.name, self.alt = escape(name), escape(alt)
        for value in values:
            draw(value)
            drawn, small = io.BytesIO(), io.BytesIO()
            plt.savefig(drawn, format="png", dpi=80)
            plt.close()
            picture = Image.open(drawn).convert("RGB").quantize(COLORS_IN_A_PICTURE, RARE_COLORS_TOO)
            picture.save(small, format="png", optimize=True)
            self.pictures.append(small.getvalue())

    def _repr_png_(self) -> bytes:
        return self.pictures[len(self.pictures) // 2]

    def _repr_html_(self) -> str:
        start = len(self.pictures) // 2
        images = "".join(
            f'<img alt="{self.alt}, {self.name} = {value}" data-value="{value}"{"" if i == start else " hidden"} '
            f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
            for i, (value, picture) in enumerate(zip(self.values, self.pictures, strict=True)))
        move = ("const all = this.closest('figure').querySelectorAll('img');"
                "all.forEach((picture, i) => picture.hidden = i != this.value);"
                "const value = all[this.value].dataset.value; this.nextElementSibling.textContent = value;"
                "this.setAttribute('aria-valuetext', value)")
        return (f'<figure class="slider"><label>{self.name} <input type="range" min="0" max="{len(self.values) - 1}" '
                f'value="{start}" aria-valuetext="{self.values[start]}" oninput="{move}"><output>{self.values[start]}'
                f"</output></label>{images}</figure>")
