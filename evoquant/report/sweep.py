"""A sweep's campaigns in one table: medians and quartiles over the seeds of each combination, and the best for each
budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.storage import CHAMPION, JOURNAL, REPORT, RunDir
from evoquant.errors import RunDirError, quoted
from evoquant.files import canonical_hash, canonical_json, parse_json, read_bytes
from evoquant.report.compare import SEARCHED, amount
from evoquant.report.compare_runs import FIGURES, Group, Result, stated_meaning
from evoquant.report.compare_statistics import Curve
from evoquant.report.compare_tables import seeds_text
from evoquant.report.run_schema import check_line
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.campaign.config import CampaignConfig
    from evoquant.campaign.config_sweep import Cell, Sweep

NONE = "–"
BEST = {"alone": "best", "tied": "best, tied"}
BUDGETS = "stop."  # keys that begin so say what a campaign may spend
MOST_FAILURES = 8  # that are written out below the table
LONGEST_REASON = 160


@dataclass(frozen=True)
class _Row:
    """A combination: its campaigns, and what came of those that are finished."""

    name: str
    values: Mapping[str, Any]
    cells: tuple[Cell, ...]
    results: tuple[Result, ...]


def is_finished(place: Path) -> bool:
    """Whether a campaign of a sweep has its champion and report."""
    directory = RunDir(place)
    return directory.has(CHAMPION) and directory.has(REPORT)


def begun_runs(folder: Path, sweep: Sweep) -> list[Path]:
    """Run directories of a sweep in which there is a generation."""
    return [place for cell in sweep.cells if RunDir(place := folder / cell.name).has(JOURNAL)]


def sweep_data(folder: Path, sweep: Sweep, failed: Mapping[str, str]) -> dict[str, Any]:
    """What `evoquant sweep --json` prints, and sweep.json holds; the same however the sweep was interrupted.

    Args:
        folder: of the sweep.
        sweep: as checked.
        failed: campaign → why.

    Raises:
        InputError: a run directory is damaged.
    """
    done = {cell.name for cell in sweep.cells if is_finished(folder / cell.name)}
    rows = _rows(folder, sweep, done)
    parts: dict[str, list[_Row]] = {}
    for row in rows:
        parts.setdefault(canonical_json(stated_meaning(row.cells[0].config)), []).append(row)
    told: dict[str, dict[str, Any]] = {}
    for part in parts.values():
        told |= _part_data(part, failed, sweep.axes)
    return {
        "name": sweep.config.name,
        "hash": sweep_hash(sweep),
        "campaigns": len(sweep.cells),
        "finished": len(done),
        "failed": [
            {"campaign": cell.name, "message": failed[cell.name]} for cell in sweep.cells if cell.name in failed
        ],
        "unfinished": [cell.name for cell in sweep.cells if cell.name not in done and cell.name not in failed],
        "rows": [told[row.name] for row in rows],
    }


def sweep_hash(sweep: Sweep) -> str:
    """sha256 of what can change a result: every campaign's name and the hash of its config."""
    return canonical_hash([[cell.name, cell.config.hash()] for cell in sweep.cells])


def _rows(folder: Path, sweep: Sweep, done: set[str]) -> list[_Row]:
    members: dict[str, list[Cell]] = {}
    for cell in sweep.cells:
        members.setdefault(cell.combination, []).append(cell)
    rows = []
    for name, cells in members.items():
        results = [_read(folder / cell.name, cell.config) for cell in cells if cell.name in done]
        values = {key: value for key, value in cells[0].values.items() if key in sweep.axes}
        rows.append(_Row(name, values, tuple(cells), tuple(results)))
    return rows


def _read(place: Path, config: CampaignConfig) -> Result:
    """A finished run by its report and the last line of its journal: of thousands, nobody waits for all lines.

    Raises:
        RunDirError: a file is damaged, or is of another campaign.
    """
    directory = RunDir(place)
    report = directory.read(REPORT)
    if not isinstance(report, dict) or report.get("config_hash") != config.hash():
        raise RunDirError(f"{place / REPORT}: not the report of this campaign; delete it and resume the sweep.")
    line = read_bytes(place / JOURNAL, error=RunDirError).rstrip(b"\n").rpartition(b"\n")[2]
    source = f"{place / JOURNAL}: the last line"
    record = parse_json(line.decode("utf-8", "replace"), source, error=RunDirError)
    check_line(record, source)
    try:
        scores = report["champion"]["scores"]
        spent = float(record["evaluations"]["asked"] if config.task is None else record["passes"])
        kept = {split: {key: float(one[key]) for key in FIGURES if key in one} for split, one in scores.items()}
        found = float(record["champion"]["fitness"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunDirError(f"{place / REPORT}: lacks a figure; delete it and resume the sweep.") from None
    curve = Curve(np.array([spent]), np.array([found]))
    return Result(place, config, curve, spent, kept, {}, {})


def _part_data(part: Sequence[_Row], failed: Mapping[str, str], axes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Combination → its data, for those whose fitness means the same."""
    found = {row.name: _counted(row, failed) for row in part}
    full = [row for row in part if row.results]
    split, figure = _deciding([result for row in full for result in row.results])
    budgets = [axis for axis in axes if axis.startswith(BUDGETS)]
    medians: dict[str, list[tuple[float, str]]] = {}
    for row in full:
        found[row.name] |= _figures(row, split, figure)
        budget = canonical_json([row.values.get(axis) for axis in budgets])
        median = found[row.name]["champion"].get("median", -math.inf)
        medians.setdefault(budget, []).append((median, row.name))
    for group in medians.values():
        best = [name for median, name in group if median == max(group)[0]]
        if len(best) < len(group):  # else nothing is told apart
            for name in best:
                found[name]["best"] = "alone" if len(best) == 1 else "tied"
    return found


def _deciding(results: Sequence[Result]) -> tuple[str, str]:
    """On which split champions are held against each other, and by which figure; as `compare` does."""
    measured = any(result.config.task is not None for result in results)
    split = "test" if all("test" in result.scores for result in results) else SEARCHED[measured]
    shares = all("share_of_optimum" in result.scores.get(split, {}) for result in results)
    relative = all(result.config.relative_to_optimum for result in results) and split == "test"
    return split, "share_of_optimum" if shares and relative else "fitness"


def _counted(row: _Row, failed: Mapping[str, str]) -> dict[str, Any]:
    lost = sum(cell.name in failed for cell in row.cells)
    done = len(row.results)
    data: dict[str, Any] = {"combination": row.name, "values": dict(row.values), "campaigns": len(row.cells)}
    return data | {"finished": done, "failed": lost}


def _figures(row: _Row, split: str, figure: str) -> dict[str, Any]:
    measured = row.cells[0].config.task is not None
    searched = SEARCHED[measured]
    found = np.array([result.found for result in row.results])
    decides = found if split == searched else np.array([result.score(split, figure) for result in row.results])
    data: dict[str, Any] = {
        "seeds": seeds_text(Group(row.name, row.results)),
        "unit": "passes" if measured else "evaluations",
        "spent": _spread(np.array([result.spent for result in row.results])),
        "best_found": {"split": searched, **_spread(found)},
        "champion": {"split": split, "figure": figure, **_spread(decides)},
    }
    for name in ("retention", "compression"):
        data["champion"][name] = _spread(np.array([result.score(split, name) for result in row.results]))
    return data


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    return dict(
        zip(("first_quartile", "median", "third_quartile"), np.quantile(known, [0.25, 0.5, 0.75]).tolist(), strict=True)
    )


def cells_table(sweep: Sweep) -> Table:
    """The campaigns of a sweep before they run."""
    rows = [
        (cell.name, ", ".join(f"{key}={canonical_json(value)}" for key, value in cell.values.items()))
        for cell in sweep.cells
    ]
    return Table(f"{sweep.config.name}: {len(rows)} campaigns", ("Campaign", "Sets"), rows)


def sweep_table(data: Mapping[str, Any]) -> Table:
    """The data as one table: a row for each combination."""
    rows = data["rows"]
    axes = list(dict.fromkeys(key for row in rows for key in row["values"]))
    champions = {(row["champion"]["split"], row["champion"]["figure"]) for row in rows if "champion" in row}
    units = {row["unit"] for row in rows if "unit" in row}
    searched = {row["best_found"]["split"] for row in rows if "best_found" in row}
    columns = (
        "Campaigns",
        *("Done", "Seeds", units.pop().capitalize() if len(units) == 1 else "Evaluations, passes"),
        "Best found" + (f", {searched.pop()}" if len(searched) == 1 else ""),
        _champion_column(champions),
        *("Retention", "Compression", "For its budget" if any(axis.startswith(BUDGETS) for axis in axes) else "Of all"),
    )
    told = [_cells(row) for row in rows]
    title = f"{data['name']}: {data['finished']} of {data['campaigns']} campaigns; medians, quartiles below them"
    return Table(title, columns, told, tuple(_notes(data, champions)), frozenset(range(1, len(columns) - 1)) - {2})


def _champion_column(champions: set[tuple[str, str]]) -> str:
    if len(champions) != 1:
        return "Champion"
    split, figure = next(iter(champions))
    return f"Champion, {split}" if figure == "fitness" else f"Champion, {split}, of optimum"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    whole = row["finished"] == row["campaigns"]
    done = f"{row['finished']}" if whole else f"{row['finished']} of {row['campaigns']}"
    if row["failed"]:
        done += f"\n{row['failed']} failed"
    if "champion" not in row:
        return (row["combination"], done, NONE, NONE, NONE, NONE, NONE, NONE, "")
    champion = row["champion"]
    write = _fitness if champion["figure"] == "fitness" else _percent
    return (
        row["combination"],
        done,
        row["seeds"],
        _quartiles(row["spent"], amount),
        _quartiles(row["best_found"], _fitness),
        _quartiles(champion, write),
        _median(champion["retention"], _percent),
        _median(champion["compression"], lambda value: f"{value:.3f}x"),
        BEST.get(row.get("best", ""), ""),
    )


def _notes(data: Mapping[str, Any], champions: set[tuple[str, str]]) -> list[str]:
    notes = []
    if len(champions) > 1:
        shown = {row["combination"]: row["champion"]["split"] for row in data["rows"] if "champion" in row}
        notes.append(f"Champions: {', '.join(f'{name} on {split}' for name, split in shown.items())}.")
    if any(row.get("best") for row in data["rows"]):
        notes.append(
            "best: the highest median of champions among those whose fitness means the same and that may spend the "
            "same; whether the seeds can tell them apart says: evoquant compare"
        )
    for failure in data["failed"][:MOST_FAILURES]:
        reason = " ".join(failure["message"].split())
        notes.append(f"failed: {failure['campaign']}: {quoted(reason, LONGEST_REASON)[1:-1]}")
    if len(data["failed"]) > MOST_FAILURES:
        notes.append(f"and {len(data['failed']) - MOST_FAILURES} more that failed; all are in sweep.json")
    if data["unfinished"]:
        notes.append(f"{len(data['unfinished'])} are not finished")
    return notes


def _quartiles(spread: Mapping[str, float], write: Any) -> str:
    if "median" not in spread:
        return NONE
    low, middle, high = (write(spread[key]) for key in ("first_quartile", "median", "third_quartile"))
    return middle if low == middle == high else f"{middle}\n{low}–{high}"


def _median(spread: Mapping[str, float], write: Any) -> str:
    return str(write(spread["median"])) if "median" in spread else NONE


def _fitness(value: float) -> str:
    return f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{value:.2%}"
