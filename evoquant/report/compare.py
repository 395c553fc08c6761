"""Runs held against each other: what they found, for how much, and whether the seeds can tell them apart.

compare(paths) → Comparison; `compare_tables` shows it, `compare_plot` draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError
from evoquant.report.compare_runs import Group, Result, group_results, incomparable, read_results, require_comparable
from evoquant.report.compare_statistics import LEVEL, Contrast, band, holm, paired_contrast, unpaired_contrast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SEARCHED = ("train", "calibration")  # the split that a search sees
SPLITS = (*SEARCHED, "valid", "selection", "test")
SHARES = (0.10, 0.25, 0.50, 1.0)  # of the common budget, at which the best so far is told
BETTER, WORSE, UNDECIDED, TOO_FEW = "better", "worse", "not told apart", "too few seeds"


@dataclass(frozen=True, eq=False)
class Measure:
    """One figure of every run, and how the groups differ in it.

    Attributes:
        key: `fitness`, `anytime` or `hypervolume`.
        name: what it is, for people.
        contrasts: for each group but the first, against the first; None where one of them has no value.
    """

    key: str
    name: str
    contrasts: tuple[Contrast | None, ...]

    @property
    def met(self) -> list[Contrast]:
        """The contrasts that there are."""
        return [contrast for contrast in self.contrasts if contrast is not None]

    def verdict(self, contrast: Contrast) -> str:
        """What 95% confidence allows to say, after the correction for all groups."""
        if contrast.p_holm <= 1.0 - LEVEL:
            return BETTER if contrast.superiority > 0.5 else WORSE
        if min(one.smallest_p for one in self.met) * len(self.met) > 1.0 - LEVEL:
            return TOO_FEW
        return UNDECIDED


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of runs side by side; the first group is what the others are held against.

    Attributes:
        groups: two or more, or one that is summed up.
        unit: of budgets: evaluations, or passes.
        figure: what stands for fitness on the champions' splits: `fitness`, or `share_of_optimum`.
        searched: name of the split that the searches saw.
        splits: those of the champions, besides.
        split: what decides.
        starts: for each group, from which budget on all its runs and all of the first group have a value.
        budget: the smallest that a run was given.
        curves: whether the group's curve means the same as the first's.
        measures: what is tested: fitness on `split`, the best so far on the way and, of fronts, the hypervolume.
        doubts: why fitness may not mean the same in all of them.
    """

    groups: tuple[Group, ...]
    unit: str
    figure: str
    searched: str
    splits: tuple[str, ...]
    split: str
    starts: tuple[float, ...]
    budget: float
    curves: tuple[bool, ...]
    measures: tuple[Measure, ...]
    doubts: tuple[str, ...] = ()

    @property
    def results(self) -> list[Result]:
        """All runs, group by group."""
        return [result for group in self.groups for result in group.results]

    def on(self, split: str, figure: str | None = None) -> tuple[NDArray[np.float64], ...]:
        """For each group `(runs,)` values: on the searched split the best found, on others the champion's."""
        found = split == self.searched and figure is None
        return tuple(
            np.array(
                [
                    (result.found if comparable else math.nan) if found else result.score(split, figure or self.figure)
                    for result in group.results
                ]
            )
            for group, comparable in zip(self.groups, self.curves, strict=True)
        )

    def anytime(self) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        """`(shares,)` budgets, and for each group `(3, shares)` quartiles of the best so far; NaN where unknown."""
        spent = np.array(SHARES) * self.budget
        if self.unit == "evaluations":
            spent = np.floor(spent)
        told = []
        for group, comparable in zip(self.groups, self.curves, strict=True):
            known = [result.curve for result in group.results if len(result.curve.spent)]
            values = np.array([curve.at(spent) for curve in known]).reshape(-1, len(spent))
            whole = comparable and len(known) > 0
            told.append(np.quantile(values, [0.25, 0.5, 0.75], axis=0) if whole else np.full((3, len(spent)), np.nan))
        return spent, told

    def bands(self) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        """Label, budgets and `(3, budgets)` quartiles of the best so far, of every group that has them."""
        found = []
        for group, comparable in zip(self.groups, self.curves, strict=True):
            grid, quartiles = band([result.curve for result in group.results])
            if comparable and len(grid):
                found.append((group.label, grid, quartiles))
        return found


def compare(
    paths: Sequence[Path], *, by: Sequence[str] = (), split: str | None = None, anyway: bool = False
) -> Comparison:
    """Compare run directories; runs of one config apart from its seeds are a group.

    Args:
        paths: run directories, finished or not; the first run's group is what the others are held against.
        by: `NAME=GLOB`, groups of one's own.
        split: on which fitness is tested; by default `test` where every group has it, else what the searches saw.
        anyway: also what cannot be compared, such as other models or objectives; the notes say so.

    Raises:
        InputError: a run cannot be read or compared, or an option is wrong.
    """
    if not paths:
        raise InputError("name the run directories to compare, such as: evoquant compare runs/evolve-* runs/random-*")
    results = read_results(paths)
    groups = tuple(group_results(results, by, anyway=anyway))
    if not anyway:
        require_comparable(results)
    elif len({result.config.task is None for result in results}) > 1:
        raise InputError(
            "runs on profiles count evaluations, those on networks passes: they have no budget in common, and cannot "
            "be compared, not even anyway."
        )
    return comparison(groups, split=split, doubts=tuple(incomparable(results)))


def comparison(groups: Sequence[Group], *, split: str | None = None, doubts: Sequence[str] = ()) -> Comparison:
    """Compare groups of runs that have been read.

    Args:
        groups: at least one.
        split: see `compare`.
        doubts: why fitness may not mean the same in all of them.

    Raises:
        InputError: the split is unknown, or no run has scores on it.
    """
    results = [result for group in groups for result in group.results]
    first = groups[0].results[0].config
    measured = first.task is not None
    relative = [all(result.config.relative_to_optimum for result in group.results) for group in groups]
    known = [result.scores for result in results if result.finished]
    shares = all(relative) and all("share_of_optimum" in figures for scores in known for figures in scores.values())
    curves = tuple(one == relative[0] for one in relative)
    searched = SEARCHED[measured]
    shown = [result for group, there in zip(groups, curves, strict=True) if there for result in group.results]
    budget = min(result.spent for result in shown)
    begun = [
        max((float(result.curve.spent[0]) for result in group.results if len(result.curve.spent)), default=budget)
        for group in groups
    ]
    splits = tuple(name for name in SPLITS if name not in SEARCHED and any(name in scores for scores in known))
    made = Comparison(
        groups=tuple(groups),
        unit="passes" if measured else "evaluations",
        figure="share_of_optimum" if shares else "fitness",
        searched=searched,
        splits=splits,
        split=_deciding(groups, splits, searched, split),
        starts=tuple(max(one, begun[0]) for one in begun),
        budget=budget,
        curves=curves,
        measures=(),
        doubts=tuple(doubts),
    )
    return replace(made, measures=_measures(made))


def _deciding(groups: Sequence[Group], splits: Sequence[str], searched: str, asked: str | None) -> str:
    if asked is None:
        everywhere = all(any("test" in result.scores for result in group.results) for group in groups)
        return "test" if everywhere else searched
    if asked not in (searched, *splits):
        raise InputError(f"--split {asked}: these runs have no scores on it; choose {', '.join((searched, *splits))}.")
    return asked


def _measures(made: Comparison) -> tuple[Measure, ...]:
    name = "share of the optimum" if made.figure == "share_of_optimum" else "fitness"
    on = "best found on" if made.split == made.searched else f"{name} on"
    found = [Measure("fitness", f"{on} {made.split}", _contrasts(made, made.on(made.split)))]
    if min(made.starts) < made.budget:
        text = f"best so far, mean to {amount(made.budget)} {made.unit} from where both have one"
        found.append(Measure("anytime", text, _corrected([_on_the_way(made, i) for i in range(1, len(made.groups))])))
    areas = [result.hypervolume for result in made.results]
    alike = len({result.objectives for result in made.results}) == 1  # else these are volumes of unlike things
    if alike and all("value" in area for area in areas):
        key = "share" if all("share" in area for area in areas) else "value"
        text = "hypervolume" if key == "value" else "hypervolume, share of the exact front's"
        values = [np.array([result.hypervolume[key] for result in group.results]) for group in made.groups]
        found.append(Measure("hypervolume", text, _contrasts(made, values)))
    return tuple(found)


def _on_the_way(made: Comparison, i: int) -> Contrast | None:
    """The mean of the best so far of a group against the first, over the budgets at which both have one."""
    if not made.curves[i]:
        return None
    values, others = (
        np.array([result.curve.mean(made.starts[i], made.budget) for result in group.results])
        for group in (made.groups[i], made.groups[0])
    )
    return _contrast(made.groups[i], values, made.groups[0], others)


def _contrasts(made: Comparison, values: Sequence[NDArray[np.float64]]) -> tuple[Contrast | None, ...]:
    """Each group against the first, by the values of their runs."""
    pairs = zip(made.groups[1:], values[1:], strict=True)
    return _corrected([_contrast(group, own, made.groups[0], values[0]) for group, own in pairs])


def _corrected(found: Sequence[Contrast | None]) -> tuple[Contrast | None, ...]:
    """With Holm's correction for as many as there are."""
    corrected = iter(holm([contrast.p for contrast in found if contrast is not None]))
    return tuple(None if contrast is None else replace(contrast, p_holm=next(corrected)) for contrast in found)


def _contrast(group: Group, values: NDArray[np.float64], first: Group, others: NDArray[np.float64]) -> Contrast | None:
    pairs = paired_seeds(group, first)
    if pairs is not None:
        mine = np.array([values[i] for i, _ in pairs])
        theirs = np.array([others[j] for _, j in pairs])
        both = ~(np.isnan(mine) | np.isnan(theirs))
        return paired_contrast(mine[both], theirs[both]) if both.any() else None
    values, others = values[~np.isnan(values)], others[~np.isnan(others)]
    return unpaired_contrast(values, others) if len(values) and len(others) else None


def paired_seeds(group: Group, first: Group) -> list[tuple[int, int]] | None:
    """Indices of runs of equal seeds, in the order of the seeds; None where the groups have to be taken as unpaired.

    They pair where no seed comes twice and those of the smaller group are all in the larger one.
    """
    mine = {result.seeds: i for i, result in enumerate(group.results)}
    theirs = {result.seeds: i for i, result in enumerate(first.results)}
    common = sorted(mine.keys() & theirs.keys())
    distinct = len(mine) == len(group.results) and len(theirs) == len(first.results)
    if not distinct or len(common) < min(len(mine), len(theirs)):
        return None
    return [(mine[seeds], theirs[seeds]) for seeds in common]


def amount(spent: float) -> str:
    """A budget: `12,000`, `79.6`."""
    return f"{int(spent):,}" if spent == int(spent) else f"{spent:,.1f}"
