"""Reasons to doubt an answer that only the data show, in words."""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from ..machine.compute import one_thread
from ..machine.doubts import LESS, RELIABLE, largest_excess
from .learning import FIRST, Learned

__all__ = ["about_the_data", "about_the_neighbours", "about_the_number_of_points", "about_the_order",
           "about_the_training", "dimension_of_neighbours"]

STILL = 0.5            # of a direction: if the last round lowered the loss by less, more steps hardly change the answer
ALMOST = 0.05          # of a direction
DUPLICATES = 0.01      # share of the rows
FAR = 20               # a row is an outlier if it is that many times as far from the median as half of the rows
FAR_IN_COLUMN = 50     # ... or, in one column, that many times as far as half of the values
FEW = 0.1              # share of the rows: if more are far, they are a part of the data
REPEATED = 0.005, 10   # share of the rows, and ratio to the usual frequency of a value; above both, one is special
MOST_SORTED = 5000     # rows whose values are sorted, column by column
SCALES = 100           # ratio of the standard deviations of two columns
NEIGHBOURS, LEAST_ROWS, MOST_DRAWN = 10, 100, 20_000
TOGETHER = 10          # rows before and after a row, in time
FEW_POINTS = 5
LESS_ABOVE = 0.85      # the same as LESS, above dimension 8; right answers without other doubts have 0.91 or more


def about_the_training(learned: Learned, sigmas: NDArray, dimension: float, plateau: tuple[float, float],
                       d: int, budget: int) -> list[str]:
    """Doubts because of how the training ended, for noise levels (S,), and a plateau and its dimension in R^d.

    At some noise levels the loss may still fall when the training ends, with the budget of steps. A level of the
    plateau is *learned* if its loss no longer falls and is near the dimension. A loss that falls below the smallest
    learned level is no doubt, since the dimension there is that of the plateau. Above it, or if no level is learned, it
    is a doubt. At dimension 1 it is none if the plateau begins at the smallest level: there is no smaller answer.
    """
    smaller = dimension > 1 + ALMOST or plateau[0] > 1.01 * sigmas[0]
    falls = smaller & (learned.fall > STILL * (1 + dimension / 10))
    done = ~falls & (learned.loss - dimension <= largest_excess(dimension, d))
    inside = (sigmas > 0.99 * plateau[0]) & (sigmas < 1.01 * plateau[1])
    still = sigmas[falls & (sigmas > min(sigmas[inside & done], default=0))]
    if len(still):
        levels = "σ = " + ", ".join(f"{s:.3g}" for s in still) if len(still) < len(sigmas) else "every noise level"
        return [f"still learning at {levels} when the budget of {budget} steps ended: raise max_steps"]
    if learned.steps <= FIRST and not learned.fall.any():
        return [f"too few rows: after step {learned.steps} the network memorised them. So its training ended there, "
                "perhaps before it had learned how the data bend"]
    return []


def dimension_of_neighbours(x: NDArray) -> float:
    """The neighbours' dimension of points x, shape ``(N, *shape)``: from the ratios of the distances r_j to the ten
    nearest neighbours of each point. It is nan for fewer than 100 points, and if all distances, or all points, are the
    same.

    It is 1/m, with m the mean over the points of the mean of log(r_10/r_j) over the neighbours j = 1 to 9 (Levina &
    Bickel 2004, with the mean of MacKay & Ghahramani 2005). It is too small in high dimensions.
    """
    rows = x.reshape(len(x), -1)
    if len(rows) < LEAST_ROWS:
        return math.nan
    some = rows[:: max(1, len(rows) // 1000)]
    with one_thread():                                                     # threads would make a later fork hang
        distances = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(rows).kneighbors(some)[0][:, 1:]
    distances = distances[distances[:, 0] > 0]                             # without duplicates
    mean = np.log(distances[:, -1:] / distances[:, :-1]).mean() if len(distances) else 0
    return float(1 / mean) if mean > 1e-6 else math.nan


def about_the_neighbours(neighbours: float, median: float, n: int, hull: int) -> list[str]:
    """A doubt if the neighbours' dimension of n rows is too large or too small for the answer. The linear hull of the
    data has the dimension ``hull``.

    It is larger if there are directions thinner than σ, or noise in the data. The limit is 1/0.7 times the answer.

    A network that has not learned a bent normal direction counts it as a tangent, and nothing in its spectra shows it.
    In high dimensions the distances give a dimension that is too small. So it is compared with the one that they give
    for as many points (at most 20 000) of a Gaussian whose dimension is the answer. The limit is 0.7 of that. Above
    dimension 8 it is 0.85, since there the result of the distances grows more slowly than the dimension: 2500 matrices
    that have 20 dimensions, and span 36, give 0.8 of what a Gaussian of 36 dimensions gives. If the answer k is the
    dimension of the hull, and above 8, the limit is 1 - 1/(2k). For then nothing else can tell flat data from a surface
    of dimension k - 1 whose one bent normal the network has not learned, such as the surface of a cube.
    """
    if not median >= 1:
        return []
    if LESS * neighbours > median:
        return [f"the distances between neighbours have the dimension {neighbours:.1f}, more than the answer, "
                f"{median:g}: some directions are thinner than σ, or the data have noise, or parts of them come near "
                "others; read the curve at small noise"]
    points = np.random.default_rng(0).normal(size=(min(n, MOST_DRAWN), round(median)))
    expected = dimension_of_neighbours(points)
    limit = LESS if median <= RELIABLE else 1 - 0.5 / median if median == hull else LESS_ABOVE
    if not neighbours <= limit * expected:
        return []
    bend = "perhaps the network has not learned how the data bend; train longer"
    flat = "the data are flat with edges, or a surface of one dimension less, whose normal the network has not learned"
    return [f"the distances between neighbours have the dimension {neighbours:.1f}, and for data of dimension "
            f"{median:g} they would have about {expected:.1f}: {bend if neighbours <= LESS_ABOVE * expected else flat}"]


def about_the_order(x: NDArray) -> list[str]:
    """A doubt if rows of x, shape ``(N, *shape)``, follow each other, as values in time do.

    That is so if for most rows one of the ten rows before or after is less than half as far as any other row. Then the
    data are a path. The distances between neighbours are those along the path, and held-out rows lie between rows that
    the network has seen.
    """
    rows = x.reshape(len(x), -1)
    if len(rows) < LEAST_ROWS:
        return []
    some = np.arange(0, len(rows), max(1, len(rows) // 1000))
    with one_thread():
        distances, nearest = NearestNeighbors(n_neighbors=2 * TOGETHER + 2).fit(rows).kneighbors(rows[some])
    apart = np.abs(nearest - some[:, None])
    own = np.where((apart > 0) & (apart <= TOGETHER) & (distances > 0), distances, np.inf).min(axis=1)
    others = np.where(apart > TOGETHER, distances, np.inf).min(axis=1)
    share = np.mean(2 * own < others)
    if share <= 0.5:
        return []
    return [f"the rows follow each other, as in time: for {share:.0%} of them a row at most {TOGETHER} rows before or "
            "after is less than half as far as any other. The answer can be the dimension of this path, and not of the "
            "set that it fills: keep rows that are far apart in time"]


def about_the_number_of_points(n: int) -> list[str]:
    """A doubt if the dimension is computed at fewer than five points, and the user has not asked for so few."""
    rows = "row" if n == 1 else "rows"
    return [] if n >= FEW_POINTS else [f"the dimension is computed at {n} held-out {rows} only: too few to see whether "
                                       "they agree; use more data"]


def about_the_data(x: NDArray, sigma: float) -> list[str]:
    """Doubts because of duplicates, outliers and columns of x, shape ``(N, *shape)``, for an answer at sigma."""
    rows, table = x.reshape(len(x), -1), x.ndim != 4                       # a table of numbers, or images
    duplicates = 1 - len(np.unique(rows, axis=0)) / len(rows)
    constant = rows.max(0) == rows.min(0)
    free = rows[:, ~constant]
    outliers = _outliers(free) if table else 0
    coarse = int((_steps(free[:MOST_SORTED]) > sigma).sum())
    even = int(_rises_evenly(free).sum()) if table else 0
    special = sum(map(_holds_one_value_often, free.T)) if table else 0
    spread = free.std(0)
    doubts = [
        (duplicates > DUPLICATES,
         f"{duplicates:.0%} of the rows are duplicates, which the network memorises: remove them"),
        (outliers,
         f"{outliers} of {len(rows)} rows are outliers, very far from the others: remove them or, if they hold a code "
         "for a missing value such as -9999, impute it"),
        (even,
         f"{even} of {rows.shape[1]} columns rise or fall by the same step from row to row, as numbers of rows or "
         "times do, and count as a dimension: remove them if they are not data"),
        (coarse,
         f"{coarse} of {rows.shape[1]} {'columns' if table else 'pixels'} hold values on a grid, such as whole "
         f"numbers, with steps larger than σ = {sigma:.3g}: below its steps a grid has dimension 0"),
        (special,
         f"{special} of {rows.shape[1]} columns hold one value in many rows, such as 0, the end of a scale, or a code "
         "for a missing value: these rows have fewer dimensions than the others, and lie on an edge, which is hard to "
         "learn"),
        (table and constant.any(), f"{constant.sum()} of {rows.shape[1]} columns are constant"),
        (table and spread.max() > SCALES * spread.min(),
         f"the columns differ in scale by more than {SCALES} times, and σ is the same for all: rescale columns of "
         "different units")]
    return [text for holds, text in doubts if holds]


def _outliers(rows: NDArray) -> int:
    """Number of rows that are far from the others, as a whole or in one column, where only a few rows are."""
    off = np.abs(rows - np.median(rows, axis=0))
    size = np.linalg.norm(off, axis=1, keepdims=True)
    typical = np.median(off, axis=0)
    usual = typical > 0                                                    # half of the values are not the same
    far = np.hstack([off[:, usual] > FAR_IN_COLUMN * typical[usual], size > FAR * np.median(size)])
    return int(far[:, far.mean(axis=0) <= FEW].any(axis=1).sum())


def _holds_one_value_often(column: NDArray) -> bool:
    counts = np.unique(column, return_counts=True)[1]
    return bool(counts.max() > max(REPEATED[0] * len(column), REPEATED[1] * np.median(counts)))


def _rises_evenly(rows: NDArray) -> NDArray:
    """Which columns are, from their first to their last value, within a tenth of a step of a straight line."""
    steps, found = np.diff(rows[:50], axis=0), np.zeros(rows.shape[1], bool)
    for j in np.flatnonzero((steps > 0).all(0) | (steps < 0).all(0)):      # hardly any
        line = np.linspace(rows[0, j], rows[-1, j], len(rows))
        found[j] = np.abs(rows[:, j] - line).max() < 0.1 * np.abs(line[1] - line[0])
    return found


def _steps(rows: NDArray) -> NDArray:
    """The median distance between neighbouring values of each column, shape (d,), or 0 where most values, without the
    most frequent one, are there once only. Values that differ by a billionth of the column's range are the same."""
    return np.array([_step(column) for column in rows.T])


def _step(column: NDArray) -> float:
    size = np.ptp(column) or 1.0
    values, counts = np.unique(np.round((column - column.min()) / size, 9), return_counts=True)
    others = np.delete(counts, counts.argmax())                            # without a background, or a code
    repeated = others[others > 1].sum() > others.sum() / 2
    return float(np.median(np.diff(values)) * size) if repeated else 0.0
