"""Tables as plain data: the command line draws them, experiments write them as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.archive import choosing_split
from evoquant.campaign.build import make_objective, searched_profile
from evoquant.campaign.build_scoring import compiled, retention_model
from evoquant.campaign.config import ModelsConfig, ReplayConfig
from evoquant.campaign.config_objective import LimitsConfig
from evoquant.campaign.evaluate import score_genomes
from evoquant.campaign.in_memory import missing_parts
from evoquant.genomes.load import genome_from_dict
from evoquant.report.ancestry import lineage
from evoquant.report.counted import Counted, counted_of
from evoquant.report.journey import journey_tables
from evoquant.report.limits import limits_table
from evoquant.report.table import Table, markdown
from evoquant.scoring.quantity import amount_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.report.data import RunData

__all__ = ["Table", "archive_table", "generations_table", "markdown", "measured_tables", "run_tables", "scores_table"]

# The published test fitness of Gen 4 and Gen 5, which a rediscovery is held against.
MILESTONES = (3.4204, 3.8273)
LONGEST = 40  # rows of a table of generations
SHOWN = 16  # rows of an archive's table


def run_tables(run: RunData) -> list[Table]:
    """All tables of a run, the verdict last."""
    if isinstance(run.config.search, ReplayConfig):
        return [Table(*parts) for parts in journey_tables(run)]
    tables = [generations_table(run)]
    if run.archive is not None:
        tables.append(archive_table(run.archive, counted_of({} if run.champion is None else run.champion.scores)))
    if run.champion is not None:
        tables.append(scores_table(run.champion.genome.text, run.champion.scores))
        limits = limits_table(run.champion.scores)
        tables += [] if limits is None else [limits]
        known = run.champion.provenance
        if "additivity" in known:
            from evoquant.report.signals import additivity_table

            tables.append(additivity_table(known["additivity"]))
        tables += measured_tables(run.champion.scores, run.gate, known.get("warnings", ()))
    return tables


def measured_tables(
    scores: Mapping[str, Mapping[str, Any]], gate: Mapping[str, Any] | None, warnings: Sequence[str]
) -> list[Table]:
    """What real networks have beside their scores: slices of the test split, and the gate; none for profiles."""
    from evoquant.report.gate import gate_table, slices_table

    tables = [slices_table("test", scores["test"])] if "slices" in scores.get("test", {}) else []
    return tables if gate is None else [*tables, gate_table(gate, warnings, counted_of(scores))]


def generations_table(run: RunData) -> Table:
    """Generation by generation where the champion improved; with test figures where the config asks for them."""
    by_test = run.config.report_test_by_generation and run.config.task is None
    by_test = by_test and not missing_parts(run.config.own_parts(), "search")
    test = _test_fitness(run) if by_test else {}
    steps = lineage(run)
    rows = []
    passed: set[float] = set()
    threshold = getattr(run.config.objective, "threshold", None)
    crossed = False
    previous = 0.0
    for step in steps:
        record = step.record
        retention = record["retention"][0]
        marks = []
        if not crossed and threshold is not None and min(record["retention"]) >= threshold:
            crossed = True
            marks.append("crosses the cliff")
        cells = [
            str(step.generation),
            f"{record['fitness']:.4f}",
            f"{retention:.2%}",
            f"{record['compression'][0]:.3f}x",
            f"{record['fitness'] - previous:+.4f}",
        ]
        if by_test:
            value = test[record["id"]]
            marks += [f"passes {level:.4f}" for level in MILESTONES if value >= level and level not in passed]
            passed.update(level for level in MILESTONES if value >= level)
            cells.append(f"{value:.4f}")
        cells += [", ".join(marks), step.by, step.change]
        rows.append(tuple(cells))
        previous = record["fitness"]
    columns = ["Gen", "Fitness", "Retention", "Compr.", "Change"]
    columns += ["TEST"] if by_test else []
    columns += ["Step", "By", "What changed"]
    notes = []
    if len(rows) > LONGEST:
        kept = np.unique(np.linspace(0, len(rows) - 1, LONGEST).round().astype(int)).tolist()
        notes.append(f"{len(kept)} of {len(rows)} improvements are shown; journal.jsonl has all.")
        marked = columns.index("Step")
        rows = [row for i, row in enumerate(rows) if i in kept or row[marked]]
    if by_test:
        notes.append("TEST is computed from the journalled champions after the run; the search never sees it.")
    title = f"{run.config.name}: generations in which the champion changed ({len(run.journal)} in all)"
    return Table(title, tuple(columns), rows, tuple(notes), frozenset(range(6 if by_test else 5)))


def archive_table(archive: Mapping[str, Any], counted: Counted | None = None) -> Table:
    """What the search kept, at most `SHOWN` entries: of a front evenly, else the fittest of each complexity.

    Args:
        archive: as archive.json has it.
        counted: what compression is of; None for bits.
    """
    split = choosing_split(archive)
    entries: Sequence[Mapping[str, Any]] = archive["entries"]
    bits = [entry["scores"][split]["effective_bits"] for entry in entries]
    axes = [name for name in archive.get("objectives", ()) if name not in ("retention", "bits")]
    if bits != sorted(bits) and not archive.get("objectives"):  # no front
        fittest = sorted(entries, key=lambda entry: -entry["scores"][split]["fitness"])
        first = {entry["parts"]: entry for entry in reversed(fittest)}
        entries = [first[parts] for parts in sorted(first)]
    step = max(1, -(-len(entries) // SHOWN))
    rows = [
        (
            str(entry["parts"]),
            *(str(entry["scores"][split]["costs"][name]["text"]) for name in axes),
            f"{entry['scores'][split]['effective_bits']:.3f}",
            f"{entry['scores'][split]['compression']:.3f}x",
            f"{entry['scores'][split]['retention']:.2%}",
            f"{entry['scores'][split]['fitness']:.4f}",
            entry["text"],
        )
        for entry in entries[::step]
    ]
    columns = ("Parts", *axes, "Bits/weight", "Compr.", "Retention", f"Fitness, {split}", "Heuristic")
    wanted = " ".join(f"--at-most {name}=AMOUNT" for name in axes) or "--parts N --bits B --at-most 20MB"
    notes = [] if counted is None else [f"Compr. is of {counted.name}, FP32 / this."]
    notes += [f"{len(rows)} of {archive['of']} kept; choose by limits with: evoquant pick RUN_DIR {wanted}"]
    area = archive.get("hypervolume") or {}
    if "share" in area:
        notes.append(
            f"Hypervolume for {area['bits'][0]:g} to {area['bits'][1]:g} bits and retention from {area['floor']:.0%}: "
            f"{area['value']:.4f}, {area['share']:.2%} of the exact front's."
        )
    if area.get("objectives"):
        named = ", ".join(area["objectives"])
        notes.append(
            f"Hypervolume of {named}: {area['value']:.2%} of the box from the FP32 costs and {area['floor']:.0%} "
            f"retention to costs of nothing and 100%."
        )
    return Table("The search's archive", columns, rows, tuple(notes), frozenset(range(5 + len(axes))))


def scores_table(text: str, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """The champion's figures, split by split."""
    rows: list[tuple[str, ...]] = []
    for split, figures in scores.items():
        interval = figures.get("interval")
        bounds = f"{interval[0]:.2%} to {interval[1]:.2%}" if interval else ""
        rows.append(
            (
                split,
                f"{figures['fitness']:.4f}",
                f"{figures['retention']:.2%}",
                bounds,
                f"{figures['probability']:.0%}" if "probability" in figures else "",
                f"{figures['compression']:.4f}x",
                f"{figures['effective_bits']:.3f}",
                amount_text(figures["cost"]["value"], figures["cost"]["name"]) if "cost" in figures else "",
                f"{figures['share_of_optimum']:.2%}" if "share_of_optimum" in figures else "",
            )
        )
    floors = [figures["floor"] for figures in scores.values() if "floor" in figures]
    floor = f"P(at least {floors[0]:.1%})" if floors else ""
    counted = counted_of(scores)
    cost = "" if counted is None else counted.heading
    names = ("Split", "Fitness", "Retention", "95% interval", floor, "Compression", "Bits/weight", cost, "% of optimum")
    kept = [i for i, name in enumerate(names) if name == "Split" or any(row[i] for row in rows)]
    columns = tuple(names[i] for i in kept)
    rows = [tuple(row[i] for i in kept) for row in rows]
    return Table(f"Champion: {text}", columns, rows, _cost_notes(scores), frozenset(range(1, len(columns))))


def _cost_notes(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """What compression is of, where that is no bits, what else was counted, and whether what was measured tells."""
    costs = {split: figures["cost"] for split, figures in scores.items() if "cost" in figures}
    notes = []
    if costs:
        name = next(iter(costs.values()))["name"]
        each = ", ".join(f"{split} {cost['value']:,} of {cost['reference']:,}" for split, cost in costs.items())
        notes.append(f"Compression is of {name}, FP32 / champion: {each}.")
    splits: dict[str, list[str]] = {}  # those of one network cost the same
    for split, figures in scores.items():
        if figures.get("costs"):
            each = ", ".join(f"{name} {cost['text']}" for name, cost in figures["costs"].items())
            splits.setdefault(each, []).append(split)
    notes += [f"Costs, {', '.join(of)}: {each}." for each, of in splits.items()]
    signals = {f"{row['name']}: {row['text']}." for figures in scores.values() for row in figures.get("signals", ())}
    return (*notes, *sorted(signals))


def _test_fitness(run: RunData) -> dict[int, float]:
    """Champion id → fitness on the test models."""
    champions = {record["champion"]["id"]: record["champion"] for record in run.journal if record["champion"]}
    models = run.config.models or ModelsConfig()
    if not models.test:
        return {}
    problems = compiled(run.config, [searched_profile(run.config, name) for name in models.test])
    genomes = [genome_from_dict(record["genome"], str(run.path)) for record in champions.values()]
    model = retention_model(run.config)
    objective = make_objective(run.config, problems if isinstance(run.config.objective, LimitsConfig) else ())
    scores = score_genomes(genomes, problems, objective, run.config.aggregate, model=model)
    return dict(zip(champions, scores.fitness.tolist(), strict=True))
