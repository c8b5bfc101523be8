"""Reasons to doubt an answer, in words."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["LESS", "RELIABLE", "about_the_answer", "about_the_plateau", "contradicts", "largest_excess"]

DRIFT = 0.5, 0.025  # a larger change of the answer towards σ = 0, also in units of it, is a doubt
FLAT = 0.1, 0.01    # ... if the mean dimension changes by more than that
NEAR = 4            # ratio of noise levels: levels within it show where the mean goes
UNLIKE = 0.25, 0.1  # of the points: it is a doubt if more have another answer, or one that differs by two or more
AWAY = 0.5, 0.025   # ... or if mean and median differ by more than that, also in units of the median
EDGE = 0.15         # of the points: near an edge of the data so many may have another answer
STAYS = 0.15, 0.015  # ... if more have, a mean that stays that far from the median towards σ = 0, also in units of it
RISE = 0.5          # of the mean dimension below the plateau, or fall; noise in the data adds dimensions there
WIDE = 20           # dimensions of a space that only noise fills, at levels below a plateau
SHORT = 1.1         # ratio of noise levels; a plateau must be longer
UNSURE = 0.25       # of the points: if the answer is not clear at more, it is a doubt
LESS = 0.7          # ratio of two dimensions; a smaller one contradicts the larger
RELIABLE = 8        # dimensions up to which the distances between neighbours tell the dimension


def largest_excess(k: NDArray | float, d: int) -> NDArray | float:
    """The largest difference, loss − k, that causes no doubt: 1 + k/10 + d/100.

    A missed normal direction costs about 1. The loss of a perfect denoiser is k for small σ only: so k/10. None of the
    d directions is learned perfectly: so d/100.
    """
    return 1 + 0.1 * k + 0.01 * d


def contradicts(runs: list[tuple[int, int]], means: NDArray, neighbours: float) -> dict[tuple[int, int], bool]:
    """Which runs of noise levels contradict the neighbours' dimension, which the distances between neighbours give.

    The mean dimensions are (S,), one for each level. A plateau agrees if its dimension is 0.7 to 1/0.7 times the
    neighbours'. A larger one is a contradiction if the neighbours' is at most 8: above, the neighbours' is too small. A
    smaller one is a contradiction if a plateau at smaller noise levels agrees: then larger noise has hidden thin
    directions. If no plateau there agrees, the neighbours' dimension may be too large, because of noise in the data, or
    because a manifold comes close to itself.
    """
    value = {(i, j): means[i:j + 1].mean() for i, j in runs}
    agree = {run: LESS * neighbours <= k <= neighbours / LESS for run, k in value.items()}
    finest = min((run[0] for run in runs if agree[run] and run[0] < run[1]), default=len(means))
    return {run: bool(k > neighbours / LESS and neighbours <= RELIABLE or k < LESS * neighbours and finest < run[0])
            for run, k in value.items()}


def about_the_plateau(answers: NDArray, sigmas: NDArray, plateaus: list[tuple[int, int]], first: int, last: int,
                      best: int, d: int) -> list[str]:
    """Doubts about the plateau from level ``first`` to ``last``, whose level ``best`` gives the answer.

    Near an edge of the data the dimension is smaller, at a share of the points that is proportional to σ. So the mean
    may change along a plateau. It is a doubt if a straight line through the levels near the answer ends, at σ = 0, at
    another dimension. So it is if more than 15 % of the points differ, and the line does not lead to the median: then
    they differ not only near an edge.

    It is a doubt, too, if the plateau is shorter than a factor of 1.1, or if the mean below it rises or falls by more
    than ½. But noise in the data fills the whole space. So it is none if the dimension is d at all levels below the
    plateau and at most d/3 on it, in a space of at least 20 dimensions.

    Args:
        answers: dimension at each noise level and point, shape (S, P).
        sigmas: noise levels, shape (S,).
        plateaus: first and last level of all plateaus.
        d: ambient dimension.
    """
    means, found = answers.mean(1), []
    here = means[first:last + 1]
    others = np.delete(means, np.s_[first:last + 1])
    if first == last:
        found.append("no plateau: the dimension changes with every noise level; read the curve, not one number"
                     if (others >= 0.5).any() or not len(others) else
                     f"only σ = {sigmas[first]:.3g} has a dimension, all other noise levels give 0: use levels near it")
    elif sigmas[last] < SHORT * sigmas[first]:
        found.append(f"the plateau, σ = {sigmas[first]:.4g} to {sigmas[last]:.4g}, is too short to be one: use noise "
                     "levels farther apart")
    below, mean = means[:first], means[best]
    noise = len(below) and below.min() > d - 0.5 and 3 * mean <= d and d >= WIDE
    if len(below) and below.max() > mean + RISE and not noise:
        found.append(f"below σ = {sigmas[first]:.3g} the dimension rises to {below.max():.1f}: the data have noise of "
                     "about that size, or are as thin in some directions, or the network has not learned such detail")
    if len(below) and below.min() < mean - RISE:
        found.append(f"below σ = {sigmas[first]:.3g} the dimension falls to {below.min():.1f}: at that size the data "
                     "are points or thinner pieces, or the denoiser has memorised them")
    near = np.arange(first, last + 1)[np.abs(np.log(sigmas[first:last + 1] / sigmas[best])) <= np.log(1.001 * NEAR)]
    a, b = near[0], near[-1]
    median, limit = np.median(answers[best]), np.polyfit(sigmas[near], means[near], min(1, b - a))[-1]
    if (abs(limit - median) > max(DRIFT[0], DRIFT[1] * median)
            and abs(limit - means[best]) > max(FLAT[0], FLAT[1] * means[best])):
        found.append(f"the mean dimension changes from {means[a]:.2f} to {means[b]:.2f} between σ = {sigmas[a]:.3g} "
                     f"and {sigmas[b]:.3g}: towards σ = 0 it may become {limit:.2f}")
    unlike, very = _unlike(answers[best])
    if (UNLIKE[0] >= unlike > EDGE and very <= UNLIKE[1]
            and abs(limit - median) > max(STAYS[0], STAYS[1] * median)):
        found.append(f"the points have different dimensions ({_shares(answers[best])} of them), also towards σ = 0: "
                     "do not report the mean alone")
    for i, j in plateaus:
        as_long = np.log(sigmas[j] / sigmas[i]) >= np.log(sigmas[last] / sigmas[first])
        if i != first and as_long and abs(means[i:j + 1].mean() - here.mean()) > 0.5:
            found.append(f"another plateau, σ = {sigmas[i]:.3g} to {sigmas[j]:.3g}, has the dimension "
                         f"{means[i:j + 1].mean():.3g}: data can have one at each scale")
            break
    return found


def about_the_answer(answer: NDArray, d: int, n_scores: float, loss: float, at_most: float, disagreement: float,
                     weak: float) -> list[str]:
    """Doubts about the dimension at P points, shape (P,), at one noise level.

    Args:
        d, n_scores: ambient dimension, and number of scores K.
        loss, at_most: the mean denoising loss, and the upper bound of the dimension that comes from it.
        disagreement, weak: shares of the points where the rules disagree, and where there is no clear gap.
    """
    excess = loss - answer.mean()
    (unlike, very), middle = _unlike(answer), np.quantile(answer, 0.5, method="lower")
    doubts = [
        (answer.mean() < 0.5, "dimension 0: σ is beyond the size of the data, or the data are memorised"),
        (n_scores < 2 * d, f"K = {n_scores} is below 2 d = {2 * d}: the rules need about 4 d"),
        (unlike > UNLIKE[0] or very > UNLIKE[1] or abs(answer.mean() - middle) > max(AWAY[0], AWAY[1] * middle),
         f"the points have different dimensions ({_shares(answer)} of them): do not report the mean alone"),
        (disagreement > UNSURE, f"gap, cut and recommended rule disagree at {disagreement:.0%} of the points"),
        (weak > UNSURE, f"no two populations of singular values at {weak:.0%} of the points"),
        (answer.mean() > at_most,
         f"the denoising loss, {loss:.1f}, is smaller than the dimension: σ is too large for the size or the curvature "
         "of the data, or the denoiser was trained on these points"),
        (excess > largest_excess(answer.mean(), d),
         f"the denoising loss is {excess:.1f} above the dimension: the denoiser is not exact at this noise level "
         "(train longer, if it was trained), or σ is too large for the curvature of the data")]
    return [text for holds, text in doubts if holds]


def _unlike(answer):
    """Shares of the points whose distance from the median is above ½, and above 1½; and above a tenth of it.

    The median is the lower one of two, since with half of the points at k and half at k + 1 none is far from k + ½.
    """
    median = np.quantile(answer, 0.5, method="lower")
    return [(np.abs(answer - median) > max(limit, 0.1 * median)).mean() for limit in (0.5, 1.5)]


def _shares(answer):
    values, counts = np.unique(answer, return_counts=True)
    common = sorted(values[np.argsort(-counts)[:4]])
    return ", ".join(f"{v:g} at {np.mean(answer == v):.0%}" for v in common)
