"""What a reader of a comparison has to know: unfinished runs, unequal budgets, too few seeds, one training only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.report.compare import SEARCHED, TOO_FEW, amount, paired_seeds
from evoquant.report.compare_statistics import LEVEL, pairs_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.report.compare import Comparison, Measure
    from evoquant.report.compare_runs import Group

UNEQUAL = 0.01  # budgets that differ by more are pointed out
LATE = 0.25  # of the budget: a first value that comes later is pointed out
NAMED = 3  # runs or groups named one by one


def notes_of(made: Comparison) -> list[str]:
    """One sentence or two each, the gravest first."""
    return [
        *(f"Compared anyway, although fitness may mean another thing: {doubt}." for doubt in made.doubts),
        *_runs(made),
        *_budgets(made),
        *_pooled(made),
        *_seeds(made),
        *_choice(made),
    ]


def test_notes(measure: Measure, first: Group) -> list[str]:
    """How to read the contrasts of one measure."""
    met = measure.met
    if not met:
        return [f"Nothing to test: a group has no value, or there is none beside {first.label}."]
    tests = {
        (True, True): "Wilcoxon's signed-rank test by seed",
        (False, True): "Mann and Whitney's U test, unpaired",
    }
    used = dict.fromkeys(tests[contrast.paired, True] for contrast in met)
    exact = "exact" if all(contrast.exact for contrast in met) else "in part by the normal approximation"
    text = f"p: two-sided, {' or '.join(used)}, {exact}"
    text += f", after Holm's correction for {len(met)} comparisons" if len(met) > 1 else ""
    levels = sorted({round(contrast.level, 4) for contrast in met if contrast.interval is not None})
    if levels:
        sure = f"{levels[0]:.1%}" if len(levels) == 1 else f"{levels[0]:.1%} to {levels[-1]:.1%}"
        text += f". Interval of the median difference: order statistics, {sure}"
    notes = [f"{text}. P(better): that a run of the group beats one of {first.label}, ties half (A12)."]
    if any(measure.verdict(contrast) == TOO_FEW for contrast in met):
        smallest = min(contrast.smallest_p for contrast in met)
        corrected = f", {min(1.0, smallest * len(met)):.3g} after the correction" if len(met) > 1 else ""
        needed = pairs_needed(len(met))
        notes.append(
            f"Too few seeds for any p at or below {1 - LEVEL:.2g}: the smallest that so many can give is "
            f"{smallest:.3g}{corrected}. {needed} paired seeds could."
        )
    return notes


def _runs(made: Comparison) -> list[str]:
    notes = []
    for group in made.groups:
        open_runs = [result for result in group.results if not result.finished]
        if open_runs:
            names = _some([str(result.path) for result in open_runs])
            notes.append(
                f"{len(open_runs)} of {len(group.results)} runs of {group.label} are not finished and count as far as "
                f"they are, without a champion's scores: {names}."
            )
        failed = [result for result in group.results if not len(result.curve.best)]
        if failed:
            names = _some([str(result.path) for result in failed])
            notes.append(f"Every candidate failed in {len(failed)} runs of {group.label}: {names}.")
    return notes


def _budgets(made: Comparison) -> list[str]:
    notes = []
    spent = [[result.spent for result in group.results] for group in made.groups]
    medians = [float(np.median(one)) for one in spent]
    if max(medians) > min(medians) * (1 + UNEQUAL):
        way = "; the best so far at equal budgets is fair" if min(made.starts) < made.budget else ""
        notes.append(
            f"Budgets differ ({amount(min(medians))} to {amount(max(medians))} {made.unit}, medians of groups), so the "
            f"fitness at the end is not of equal effort{way}."
        )
    late = [
        f"{group.label} at {amount(start)}"
        for group, start in zip(made.groups[1:], made.starts[1:], strict=True)
        if start > LATE * made.budget
    ]
    if late:
        notes.append(
            f"Of {amount(made.budget)} {made.unit} a large part had gone before all runs had a first value: "
            f"{_some(late)}; best so far is compared from there on."
        )
    ended = [group.label for group, one in zip(made.groups, spent, strict=True) if max(one) > min(one) * (1 + UNEQUAL)]
    if ended:
        notes.append(f"Runs of {_some(ended)} ended at different budgets; in curves the earlier keep their last value.")
    other = [group.label for group, there in zip(made.groups, made.curves, strict=True) if not there]
    if other:
        notes.append(
            f"relative_to_optimum of {_some(other)} is another than that of {made.groups[0].label}: what they "
            f"maximise is not comparable and left out, the champions' fitness is."
        )
    if made.figure == "fitness" and made.groups[0].results[0].config.relative_to_optimum:
        notes.append("Best found is a share of the optimum (relative_to_optimum), the champions' figures are fitness.")
    return notes


def _pooled(made: Comparison) -> list[str]:
    notes = [f"{group.label} pools runs of {group.configs} configs." for group in made.groups if group.configs > 1]
    versions = sorted({result.version for result in made.results if result.version})
    if len(versions) > 1:
        notes.append(f"Made by different versions of evoquant: {', '.join(versions)}.")
    return notes


def _seeds(made: Comparison) -> list[str]:
    notes = []
    first = made.groups[0]
    unpaired = [group for group in made.groups[1:] if paired_seeds(group, first) is None]
    if unpaired:
        notes.append(
            f"{_some([group.label for group in unpaired])} and {first.label} have other seeds, so that they are taken "
            f"as unpaired; with the same seeds a test sees more."
        )
    for group in made.groups[1:]:
        pairs = paired_seeds(group, first)
        if pairs is not None and max(len(group.results), len(first.results)) > len(pairs):
            notes.append(f"{group.label} and {first.label} are paired on the {len(pairs)} seeds that both have.")
    tasks = {result.seeds[1] for result in made.results}
    if made.unit == "passes" and len(tasks) == 1 and len(made.results) > 1:
        notes.append(
            f"All runs search one network, trained and split once (task.seed {tasks.pop()}): the spread over seeds is "
            f"the search's, and says nothing of another training."
        )
    samples = {result.samples for result in made.results if result.samples is not None}
    if len({whole for whole, _ in samples}) < len(samples):
        notes.append(
            "Each seed drew its own splits from the same samples: the spread over seeds is the search's and the "
            "splits', and figures of different seeds are of different samples."
        )
    return notes


def _choice(made: Comparison) -> list[str]:
    if made.split in SEARCHED:
        return [f"{made.split} is what the searches saw: a test of how well they search, not of what carries over."]
    if made.split == "test" and len(made.groups) > 1:
        return ["Whoever chooses a group by its test figures has used the test split to choose."]
    return []


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
