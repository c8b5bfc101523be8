"""Figures: what they draw, and that the library does not need them."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dimlib.book.plotting import COLORS, Slider, plot_curve, plot_histogram, plot_images, plot_spectrum, use_style
from dimlib.curve import DimensionCurve
from dimlib.svd import RULES, Spectrum


@pytest.fixture
def ax():
    with plt.rc_context():
        use_style()
        figure, ax = plt.subplots()
        yield ax
        figure.canvas.draw()                                               # no text or layout that fails
        plt.close(figure)


def spectrum(sigma=0.1, points=3):
    values = np.array([[1.2, 1.0, 0.8, 0.02, 0.01]] * points)
    return Spectrum(values, np.full(points, 2.0), sigma, 20)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("dim", [0, 2, 5])
def test_the_spectrum_shows_every_value_once_and_the_last_k_in_the_other_colour(ax, dim):
    assert plot_spectrum(spectrum(), dim, ax) is ax
    drawn = {color: sorted(x for line in ax.lines if line.get_color() == color for x in line.get_xdata())
             for color in (COLORS["normal"], COLORS["tangent"])}
    assert drawn[COLORS["normal"]] == sorted([*range(1, 6 - dim)] * 3)
    assert drawn[COLORS["tangent"]] == sorted([*range(6 - dim, 6)] * 3)
    assert "ε units" in ax.get_ylabel() and "0.1" in ax.get_title()


@pytest.mark.parametrize("points", [1, 3])
def test_the_curve_shows_a_line_per_rule_the_truth_and_the_plateau(ax, points):
    curve = DimensionCurve(tuple(spectrum(s, points) for s in (0.01, 0.02, 0.04)))
    assert plot_curve(curve, truth=2, ax=ax) is ax
    assert labels(ax) == ["plateau", *RULES, "truth, 2"]
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["recommended"].get_xdata().tolist() == [0.01, 0.02, 0.04]
    assert lines["recommended"].get_ydata().tolist() == [2, 2, 2]
    assert ax.get_xscale() == "log" and "data units" in ax.get_xlabel()


def test_the_histogram_shows_shares_that_sum_to_one(ax):
    plot_histogram({"recommended": np.array([10, 10, 10, 11]), "gap": np.array([9, 12])}, truth=10, ax=ax)
    for bars, heights, centre in zip(ax.containers, ([0.75, 0.25], [0.5, 0.5]), (9.8, 9.2), strict=True):
        assert [bar.get_height() for bar in bars] == heights
        assert np.isclose(bars[0].get_x() + bars[0].get_width() / 2, centre)
    assert set(labels(ax)) == {"recommended", "gap", "truth, 10"}


def test_the_histogram_needs_no_truth(ax):
    plot_histogram({"recommended": np.array([1, 2])}, ax=ax)
    assert labels(ax) == ["recommended"]


def test_plots_go_to_the_current_axes_by_default(ax):
    plt.sca(ax)
    assert plot_spectrum(spectrum(), 2) is ax


def test_every_rule_has_a_colour():
    assert {*RULES, "published"} <= set(COLORS)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_dimlib_needs_torch_numpy_scikit_learn_and_safetensors_only():
    optional = ["matplotlib", "skdim", "diffusers", "pandas", "papermill", "IPython"]
    done = run(f"import sys; sys.modules.update(dict.fromkeys({optional})); import dimlib")  # as if they were not there
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_error_names_the_extra():
    done = run("import sys; sys.modules['matplotlib'] = None; import dimlib.book.plotting")
    assert "dimlib.book.plotting needs matplotlib: pip install 'dimlib[plots]'" in done.stderr


def test_images_lie_row_by_row_in_their_grid(ax):
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 2, 3)
    assert plot_images(images, columns=2, high=4.0, ax=ax) is ax
    (picture,) = ax.images
    drawn = picture.get_array().filled(np.nan)
    assert drawn.shape == (3 * 4, 2 * 5) and picture.get_clim() == (0, 4)
    assert [drawn[r, c] for r in (1, 5, 9) for c in (1, 6)][:5] == [0, 1, 2, 3, 4]
    assert np.isnan(drawn[9, 6]) and np.isnan(drawn[0]).all() and (drawn[1:3, 1:4] == 0).all()


def test_a_slider_holds_one_picture_for_each_value_and_shows_the_middle_one():
    def draw(value):
        plt.figure(figsize=(2, 1))
        plt.plot([0, value])

    slider = Slider(draw, [0.1, 0.25, 1], "σ", alt="a line")
    html = slider._repr_html_()
    assert html.count("<img ") == 3 and html.count(" hidden ") == 2 and len(set(slider.pictures)) == 3
    assert 'alt="a line, σ = 0.25" data-value="0.25" src=' in html and "<output>0.25</output>" in html
    assert 'type="range" min="0" max="2" value="1"' in html and 'aria-valuetext="0.25"' in html
    assert slider._repr_png_() == slider.pictures[1] and slider.pictures[1].startswith(b"\x89PNG")
    assert not plt.get_fignums(), "all figures are closed"


def test_the_words_of_a_slider_are_text_and_no_html():
    slider = Slider(lambda value: plt.figure(), [1, 2], "a<b", alt='the "first"')
    assert "a&lt;b" in slider._repr_html_() and 'alt="the &quot;first&quot;, ' in slider._repr_html_()


def test_one_picture_needs_no_slider():
    with pytest.raises(ValueError, match="at least two values"):
        Slider(lambda value: plt.figure(), [1], "σ", alt="nothing")
