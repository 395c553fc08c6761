"""Two samples of runs held against each other: exact rank tests, effect size, intervals; curves as step functions.

Many runs end at the very same fitness, so the tests are exact with ties too, where SciPy approximates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVEL = 0.95
LEAST_LEVEL = 0.9  # an interval that is sure of less is not given
MOST_PAIRS, MOST_RUNS = 300, 80  # up to so many the exact distributions are counted, in well under a second
BOTH_SIDES = 2.0
DIGITS = 12


@dataclass(frozen=True)
class Contrast:
    """Values of a group against those of another.

    Attributes:
        paired: by seed; else every run meets every run.
        runs, others: values of the group and of the other; equal where paired.
        wins, ties, losses: pairs of equal seeds, or of all runs.
        difference: median of the paired differences, else of all differences (Hodges & Lehmann 1963).
        interval: of it, by order statistics, distribution-free; None where too few for `LEAST_LEVEL`.
        level: what the interval is sure of: of few values not quite 95%.
        superiority: probability that a run of the group is better, ties half (A12 of Vargha & Delaney 2000).
        p: two-sided, Wilcoxon's signed ranks where paired, else Mann & Whitney's U.
        exact: whether p is of the exact distribution.
        smallest_p: what the test could reach at most with so many values.
        p_holm: p after Holm's correction (1979) for all groups that met the same other one.
    """

    paired: bool
    runs: int
    others: int
    wins: int
    ties: int
    losses: int
    difference: float
    interval: tuple[float, float] | None
    level: float
    superiority: float
    p: float
    exact: bool
    smallest_p: float
    p_holm: float = 1.0


def paired_contrast(values: NDArray[np.float64], others: NDArray[np.float64]) -> Contrast:
    """`(n,)` values of the same seeds, n > 0, in the same order."""
    differences = _differences(values, others)
    n = len(differences)
    interval, level = _median_interval(differences)
    p, exact = signed_rank_p(differences)
    return Contrast(
        paired=True,
        runs=n,
        others=n,
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        difference=float(np.median(differences)),
        interval=interval,
        level=level,
        superiority=superiority(values, others),
        p=p,
        exact=exact,
        smallest_p=smallest_paired(n),
    )


def unpaired_contrast(values: NDArray[np.float64], others: NDArray[np.float64]) -> Contrast:
    """`(n,)` and `(m,)` values, both above 0."""
    differences = _differences(values[:, None], others[None, :]).ravel()
    interval, level = _shift_interval(differences, len(values), len(others))
    p, exact = rank_sum_p(values, others)
    return Contrast(
        paired=False,
        runs=len(values),
        others=len(others),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        difference=float(np.median(differences)),
        interval=interval,
        level=level,
        superiority=superiority(values, others),
        p=p,
        exact=exact,
        smallest_p=smallest_unpaired(len(values), len(others)),
    )


def _differences(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """values − others without the rounding of sums, which would break ties: to `DIGITS` digits of the largest value."""
    largest = max(float(np.abs(values).max()), float(np.abs(others).max()))
    return np.round(values - others, DIGITS - math.ceil(math.log10(largest)) if largest > 0 else DIGITS) + 0.0


def turned(contrast: Contrast) -> Contrast:
    """The same, seen from the other group."""
    low_high = contrast.interval
    return replace(
        contrast,
        runs=contrast.others,
        others=contrast.runs,
        wins=contrast.losses,
        losses=contrast.wins,
        difference=0.0 - contrast.difference,
        interval=None if low_high is None else (0.0 - low_high[1], 0.0 - low_high[0]),
        superiority=1.0 - contrast.superiority,
    )


def superiority(values: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """P(value > other) + P(value = other) / 2, over all pairs."""
    differences = _differences(values[:, None], others[None, :])
    return float(((differences > 0).sum() + 0.5 * (differences == 0).sum()) / differences.size)


def smallest_paired(pairs: int) -> float:
    """The two-sided p of Wilcoxon's test where every pair points the same way."""
    return min(1.0, BOTH_SIDES * 0.5**pairs)


def smallest_unpaired(runs: int, others: int) -> float:
    """The two-sided p of Mann & Whitney's test where every run of one is better than every run of the other."""
    return min(1.0, BOTH_SIDES / math.comb(runs + others, runs))


def pairs_needed(comparisons: int, level: float = 1.0 - LEVEL) -> int:
    """The fewest pairs with which one of so many comparisons can reach `level` after Holm's correction."""
    pairs = 1
    while smallest_paired(pairs) * comparisons > level:
        pairs += 1
    return pairs


def signed_rank_p(differences: NDArray[np.float64]) -> tuple[float, bool]:
    """Two-sided p of Wilcoxon's signed-rank test, and whether it is exact; differences of 0 are left out."""
    kept = differences[differences != 0]
    if not len(kept):
        return 1.0, True
    if len(kept) > MOST_PAIRS:
        from scipy.stats import wilcoxon

        return float(wilcoxon(kept).pvalue), False
    ranks = _doubled_ranks(np.abs(kept))
    ways = np.zeros(int(ranks.sum()) + 1)
    ways[0] = 1.0
    for rank in ranks.tolist():  # each sign is a toss of a coin
        ways = (ways + np.concatenate([np.zeros(rank), ways[:-rank]])) / 2.0
    return _two_sided(ways, int(ranks[kept > 0].sum())), True


def rank_sum_p(values: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, bool]:
    """Two-sided p of the Mann–Whitney U test, and whether it is exact."""
    together = np.concatenate([values, others])
    if len(together) > MOST_RUNS:
        from scipy.stats import mannwhitneyu

        if np.ptp(together) == 0:
            return 1.0, True
        return float(mannwhitneyu(values, others, method="asymptotic").pvalue), False
    ranks = _doubled_ranks(together)
    return _two_sided(_subset_sums(ranks, len(values)), int(ranks[: len(values)].sum())), True


def holm(values: Sequence[float]) -> list[float]:
    """p values after Holm's step-down correction, in the order given."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [1.0] * len(values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(values) - place)))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True, eq=False)
class Curve:
    """Best so far against budget spent, as a step function: it holds from a step until the next, the last one for good.

    Attributes:
        spent: `(steps,)` evaluations or passes, rising.
        best: `(steps,)` fitness, rising; without what came before the first candidate that did not fail.
    """

    spent: NDArray[np.float64]
    best: NDArray[np.float64]

    def at(self, spent: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(n,)` best so far at `(n,)` budgets; NaN before there is one."""
        if not len(self.spent):
            return np.full(len(spent), np.nan)
        place = np.searchsorted(self.spent, spent, side="right") - 1
        return np.where(place < 0, np.nan, self.best[np.maximum(place, 0)])

    def mean(self, start: float, end: float) -> float:
        """Mean of the best so far from `start` to `end`; NaN where it is not known all along."""
        if not (start < end and len(self.spent) and self.spent[0] <= start):
            return float("nan")
        inner = self.spent[(self.spent > start) & (self.spent < end)]
        edges = np.concatenate([[start], inner, [end]])
        return float((self.at(edges[:-1]) * np.diff(edges)).sum() / (end - start))


def band(curves: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`(steps,)` budgets at which one of the curves has a step, and `(3, steps)` quartiles over the curves there.

    It begins where all of them have a value.
    """
    known = [curve for curve in curves if len(curve.spent)]
    if not known:
        return np.empty(0), np.empty((3, 0))
    grid = np.unique(np.concatenate([curve.spent for curve in known]))
    grid = grid[grid >= max(curve.spent[0] for curve in known)]
    return grid, np.quantile([curve.at(grid) for curve in known], [0.25, 0.5, 0.75], axis=0)


def _doubled_ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """`(n,)` twice the ranks from 1, ties at their mean: whole numbers."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((2 * last - counts + 1)[inverse], dtype=np.int64)


def _subset_sums(ranks: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """`(largest sum + 1,)` probability of each sum of `size` ranks drawn without replacement."""
    total = int(np.sort(ranks)[len(ranks) - size :].sum())
    ways = np.zeros((size + 1, total + 1))
    ways[0, 0] = 1.0
    for rank in ranks.tolist():
        ways[1:, rank:] += ways[:-1, : total + 1 - rank].copy()
    return np.asarray(ways[size] / ways[size].sum())


def _two_sided(probabilities: NDArray[np.float64], found: int) -> float:
    lower, upper = float(probabilities[: found + 1].sum()), float(probabilities[found:].sum())
    return min(1.0, BOTH_SIDES * min(lower, upper))


def _median_interval(differences: NDArray[np.float64]) -> tuple[tuple[float, float] | None, float]:
    """Of a median, between two order statistics (Conover, Practical Nonparametric Statistics, 3rd ed., 3.2)."""
    n = len(differences)
    below = np.cumsum([math.comb(n, k) * 0.5**n for k in range(n + 1)])
    return _between(np.sort(differences), below)


def _shift_interval(
    differences: NDArray[np.float64], runs: int, others: int
) -> tuple[tuple[float, float] | None, float]:
    """Of a shift between two samples (Moses; Conover 5.4)."""
    if runs + others > MOST_RUNS:
        return None, 0.0
    sums = _subset_sums(2 * np.arange(1, runs + others + 1), runs)[runs * (runs + 1) :: 2]
    return _between(np.sort(differences), np.cumsum(sums))


def _between(ordered: NDArray[np.float64], below: NDArray[np.float64]) -> tuple[tuple[float, float] | None, float]:
    """The tightest symmetric pair of order statistics that is sure of `LEVEL`, or the outermost."""
    tail = (1.0 - LEVEL) / 2.0
    cut = max(int(np.searchsorted(below, tail, side="right")) - 1, 0)
    level = float(1.0 - BOTH_SIDES * below[cut])
    if level < LEAST_LEVEL or 2 * cut >= len(ordered):
        return None, 0.0
    return (float(ordered[cut]), float(ordered[-1 - cut])), level
