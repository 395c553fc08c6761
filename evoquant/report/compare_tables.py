"""A comparison as tables that fit a terminal, as plain data for JSON, and as CSV with a row a run."""

from __future__ import annotations

import csv
import io
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.compare import SHARES, amount
from evoquant.report.compare_notes import notes_of, test_notes
from evoquant.report.table import Table
from evoquant.scoring.quantity import amount_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evoquant.report.compare import Comparison, Measure
    from evoquant.report.compare_runs import Group, Result
    from evoquant.report.compare_statistics import Contrast

NONE = "–"
SMALLEST = 0.00005  # that four decimals show


def compare_tables(made: Comparison) -> list[Table]:
    """Figures, the best so far at equal budgets, and what the tests say."""
    tables = [fitness_table(made)]
    if any(result.finished for result in made.results):
        tables.append(champions_table(made))
        limits = limits_table(made)
        tables += [] if limits is None else [limits]
    if len(made.groups) > 1 or made.budget > min(made.starts):
        tables.append(anytime_table(made))
    tables += [contrast_table(made, measure) for measure in made.measures if len(made.groups) > 1]
    last = tables[-1]
    notes = tuple(notes_of(made))
    tables[-1] = Table(last.title, last.columns, last.rows, (*last.notes, *notes), last.numeric)
    return tables


def fitness_table(made: Comparison) -> Table:
    """Group, runs, budget, fitness on every split."""
    percent = made.figure == "share_of_optimum"
    rows = []
    for i, group in enumerate(made.groups):
        cells = [group.label, f"{len(group.results)}", seeds_text(group)]
        cells.append(_cell(np.array([result.spent for result in group.results]), amount))
        cells.append(_cell(made.on(made.searched)[i], _percent if made.figure == "share_of_optimum" else _fitness))
        cells += [_cell(made.on(split)[i], _percent if percent else _fitness) for split in made.splits]
        rows.append(tuple(cells))
    columns = (
        *("Group", "Runs", "Seeds", made.unit.capitalize(), f"Best found, {made.searched}"),
        *(f"Champion, {split}" for split in made.splits),
    )
    name = "Share of the certified optimum" if percent else "Fitness"
    title = f"{name}: median, and quartiles below it where they differ"
    return Table(title, columns, rows, numeric=frozenset({1, *range(3, len(columns))}))


def champions_table(made: Comparison) -> Table:
    """Retention, compression and size of the champions, on the deciding split."""
    split = made.split
    rows = []
    counted = list(dict.fromkeys(result.counted for result in made.results if result.counted))
    for i, group in enumerate(made.groups):
        rows.append(
            (
                group.label,
                _cell(made.on(split, "retention")[i], _percent),
                _cell(made.on(split, "compression")[i], lambda value: f"{value:.3f}x"),
                _cell(made.on(split, "effective_bits")[i], lambda value: f"{value:.3f}"),
                *(_cell(_costs(group, split, name), partial(amount_text, unit=name)) for name in counted),
            )
        )
    columns = ("Group", "Retention", "Compression", "Bits/weight", *(name[:1].upper() + name[1:] for name in counted))
    notes = [f"Compression is of {name}, FP32 / champion, where these are given." for name in counted]
    return Table(f"The champions on {split}", columns, rows, tuple(notes), frozenset(range(1, len(columns))))


def _costs(group: Group, split: str, name: str) -> NDArray[np.float64]:
    """`(runs,)` of the champions, in the cost's unit; NaN where a run counts something else."""
    return np.array([result.score(split, "cost") if result.counted == name else math.nan for result in group.results])


def limits_table(made: Comparison) -> Table | None:
    """How far the champions are within their limits on the deciding split; None where no objective has limits."""
    split = made.split
    names = dict.fromkeys(name for result in made.results for name in result.margins.get(split, {}))
    if not names:
        return None
    rows = []
    for group in made.groups:
        known = [result.margins[split] for result in group.results if result.margins.get(split)]
        kept = sum(all(margin >= 0 for margin in margins.values()) for margins in known)
        columns = [np.array([margins.get(name, math.nan) for margins in known]) for name in names]
        rows.append((group.label, f"{kept} of {len(known)}", *(_cell(column, _percent) for column in columns)))
    notes = ("What is left of each limit, a share of it; below 0 it is not kept.",)
    columns_of = ("Group", "All kept", *names)
    return Table(f"Limits on {split}", columns_of, rows, notes, frozenset(range(2, len(columns_of))))


def anytime_table(made: Comparison) -> Table:
    """The best so far at shares of the smallest budget that a run had."""
    spent, told = made.anytime()
    rows = [
        (group.label, *(_quartiles(quartiles[:, k], _fitness) for k in range(len(spent))))
        for group, quartiles in zip(made.groups, told, strict=True)
    ]
    columns = ("Group", *(f"{share:.0%}: {amount(at)}" for share, at in zip(SHARES, spent.tolist(), strict=True)))
    title = f"Best so far on {made.searched} after so many {made.unit}"
    notes = (f"Of {amount(made.budget)}, the smallest budget that a run here had. {NONE}: not every run had one yet.",)
    return Table(title, columns, rows, notes, frozenset(range(1, len(columns))))


def contrast_table(made: Comparison, measure: Measure) -> Table:
    """The groups against the first one."""
    first = made.groups[0]
    rows = [
        (group.label, *contrast_cells(contrast), NONE if contrast is None else measure.verdict(contrast))
        for group, contrast in zip(made.groups[1:], measure.contrasts, strict=True)
    ]
    columns = ("Group", *CONTRAST_COLUMNS, "Verdict")
    title = f"Against {first.label}: {measure.name}"
    return Table(title, columns, rows, tuple(test_notes(measure, first)), frozenset({1, 2, 3, 4, 5}))


CONTRAST_COLUMNS = ("Runs", "Win-tie-loss", "Difference", "P(better)", "p")


def contrast_cells(contrast: Contrast | None) -> tuple[str, ...]:
    """What stands under `CONTRAST_COLUMNS`."""
    if contrast is None:
        return (NONE,) * len(CONTRAST_COLUMNS)
    runs = (
        f"{contrast.runs} pair{'s' * (contrast.runs > 1)}" if contrast.paired else f"{contrast.runs}, {contrast.others}"
    )
    difference = _signed(contrast.difference)
    if contrast.interval not in (None, (contrast.difference,) * 2):
        difference += f"\n{_signed(contrast.interval[0])} to {_signed(contrast.interval[1])}"
    record = f"{contrast.wins}-{contrast.ties}-{contrast.losses}"
    return runs, record, difference, f"{contrast.superiority:.0%}", f"{contrast.p_holm:.3g}"


def seeds_text(group: Group) -> str:
    """`0–4, 7`: the campaign's seeds; with the network's behind a slash where these differ, too."""
    seeds = sorted(result.seeds for result in group.results)
    if len({task for _, task in seeds}) > 1:
        return ", ".join(f"{seed}/{task}" for seed, task in seeds)
    spans: list[list[int]] = []
    for seed, _ in seeds:
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in spans)


def compare_data(made: Comparison) -> dict[str, Any]:
    """What `evoquant compare --json` prints; a key whose value is not known is left out."""
    spent, told = made.anytime()
    return {
        "unit": made.unit,
        "figure": made.figure,
        "searched": made.searched,
        "split": made.split,
        "groups": [_group_data(made, i) for i in range(len(made.groups))],
        "anytime": {
            "budget": made.budget,
            "starts": {group.label: start for group, start in zip(made.groups, made.starts, strict=True)},
            "at": [
                {
                    "share": share,
                    "spent": at,
                    "best": {
                        group.label: _spread(quartiles[:, k])
                        for group, quartiles in zip(made.groups, told, strict=True)
                        if not np.isnan(quartiles[:, k]).any()
                    },
                }
                for k, (share, at) in enumerate(zip(SHARES, spent.tolist(), strict=True))
            ],
        },
        "tests": [
            _contrast_data(made, measure, group, contrast)
            for measure in made.measures
            for group, contrast in zip(made.groups[1:], measure.contrasts, strict=True)
            if contrast is not None
        ],
        "notes": notes_of(made),
    }


def compare_csv(made: Comparison) -> str:
    """A row a run: group, seeds, budget, and every figure on every split; an empty cell where it is not known."""
    splits = list(dict.fromkeys(split for result in made.results for split in result.scores))
    figures = [(split, figure) for split in splits for figure in _figures(made, split)]
    area = [key for key in ("value", "share") if any(key in result.hypervolume for result in made.results)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["group", "seed", "task_seed", "finished", made.unit, f"best_found_{made.searched}"]
        + [f"{split}_{figure}" for split, figure in figures]
        + [f"hypervolume_{key}" for key in area]
        + ["run"]
    )
    for group in made.groups:
        for result in group.results:
            task = result.seeds[1] if result.config.task is not None else None
            writer.writerow(
                [group.label, result.config.seed, task, int(result.finished), result.spent, _known(result.found)]
                + [_known(result.score(split, figure)) for split, figure in figures]
                + [result.hypervolume.get(key) for key in area]
                + [_no_formula(str(result.path))]
            )
    return stream.getvalue()


def _figures(made: Comparison, split: str) -> list[str]:
    return list(dict.fromkeys(figure for result in made.results for figure in result.scores.get(split, {})))


def _group_data(made: Comparison, i: int) -> dict[str, Any]:
    group = made.groups[i]
    values = {made.searched: made.on(made.searched)[i], **{split: made.on(split)[i] for split in made.splits}}
    found = {split: _summary(one) for split, one in values.items() if not np.isnan(one).all()}
    best = found.pop(made.searched, None)
    return {
        "label": group.label,
        "configs": group.configs,
        "runs": [_run_data(result) for result in group.results],
        "spent": _summary(np.array([result.spent for result in group.results])),
        **({} if best is None else {"best_found": best}),
        "champions": found,
    }


def _run_data(result: Result) -> dict[str, Any]:
    data: dict[str, Any] = {"path": str(result.path), "seed": result.config.seed, "finished": result.finished}
    if result.config.task is not None:
        data["task_seed"] = result.seeds[1]
    data["spent"] = result.spent
    if not math.isnan(result.found):
        data["best_found"] = result.found
    return (
        data
        | {"scores": {split: dict(figures) for split, figures in result.scores.items()}}
        | ({"hypervolume": dict(result.hypervolume)} if result.hypervolume else {})
    )


def _contrast_data(made: Comparison, measure: Measure, group: Group, contrast: Contrast) -> dict[str, Any]:
    data: dict[str, Any] = {
        "measure": measure.key,
        "of": measure.name,
        "group": group.label,
        "against": made.groups[0].label,
        "test": "wilcoxon" if contrast.paired else "mann_whitney",
        "exact": contrast.exact,
        "runs": contrast.runs,
        "others": contrast.others,
        "wins": contrast.wins,
        "ties": contrast.ties,
        "losses": contrast.losses,
        "difference": contrast.difference,
    }
    if contrast.interval is not None:
        data |= {"interval": list(contrast.interval), "level": contrast.level}
    return data | {
        "superiority": contrast.superiority,
        "p": contrast.p,
        "p_holm": contrast.p_holm,
        "smallest_p": contrast.smallest_p,
        "verdict": measure.verdict(contrast),
    }


def _summary(values: NDArray[np.float64]) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    return {"runs": len(known), **_spread(np.quantile(known, [0.25, 0.5, 0.75]))}


def _spread(quartiles: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(("first_quartile", "median", "third_quartile"), quartiles.tolist(), strict=True))


def _cell(values: NDArray[np.float64], write: Callable[[float], str]) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return NONE
    return _quartiles(np.quantile(known, [0.25, 0.5, 0.75]), write)


def _quartiles(quartiles: NDArray[np.float64], write: Callable[[float], str]) -> str:
    if np.isnan(quartiles).any():
        return NONE
    low, middle, high = map(write, quartiles.tolist())
    return middle if low == middle == high else f"{middle}\n{low}–{high}"


def _signed(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:+.4f}" if abs(value) >= SMALLEST else f"{value:+.0e}"


def _fitness(value: float) -> str:
    return f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{value:.2%}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _no_formula(text: str) -> str:
    """A path that a spreadsheet does not take for a formula."""
    return f"./{text}" if text[:1] in "=+-@\t\r" else text
