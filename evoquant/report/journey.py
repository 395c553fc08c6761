"""The published journey's tables: every figure beside the published one, and whether they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.bounds.optimum import certify
from evoquant.campaign.build import make_objective
from evoquant.campaign.config import ReplayConfig
from evoquant.campaign.replay import ReplayCandidate, replay_plan
from evoquant.profiles.builtin import any_profile
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from evoquant.report.data import RunData

TableParts = tuple[str, tuple[str, ...], list[tuple[str, ...]], tuple[str, ...], frozenset[int]]


def agrees(published: str, value: float) -> bool:
    """Whether `value` rounds to the published figure: '0.0935', '93.5%' (value 0.935), '2.43x'."""
    digits = published.rstrip("%x")
    places = len(digits.partition(".")[2])
    shown = value * 100 if published.endswith("%") else value
    return f"{shown:.{places}f}" == digits


def beside(published: str | None, value: float, form: str, unit: str = "") -> str:
    """Our figure, and where there is a published one, that and yes or no."""
    ours = format(value, form) + unit
    if published is None:
        return ours
    return f"{ours} ({published} {'yes' if agrees(published, value) else 'no'})"


def journey_tables(run: RunData) -> list[TableParts]:
    """Candidates, generations, and what the published run missed, of a replay."""
    replay = run.config.search
    assert isinstance(replay, ReplayConfig)
    plan = replay_plan(run.config)
    candidates: list[tuple[str, ...]] = []
    generations: list[tuple[str, ...]] = []
    missed: list[tuple[str, ...]] = []
    notes: list[str] = []
    champion: dict[str, Any] | None = None
    optimum = _optimum(run)
    for record, generation, row in zip(run.journal, replay.generations, plan, strict=False):
        lines = [_candidate_row(generation.generation, c, record["population"], i) for i, c in enumerate(row)]
        notes += [f"{c.label}: {c.reason}" for c in row if c.reason]
        if generation.afterwards:
            before = champion["fitness"] if champion else 0.0
            fitness = record["population"]["fitness"]
            order = sorted(range(len(row)), key=lambda i: -fitness[i])
            missed += [(*lines[i][1:], f"{fitness[i] - before:+.4f}") for i in order]
            continue
        candidates += lines
        generations.append(_generation_row(generation.generation, record, row, champion, optimum))
        champion = record["champion"]
    figures = ("Fitness", "Retention", "Compression")
    explained = "In brackets: the published figure, and whether ours equals it when rounded to as many digits."
    tables: list[TableParts] = [
        ("Candidates", ("Gen", "Candidate", "Data", "Source", *figures), candidates, (), frozenset()),
        (
            "The journey: best candidate of each generation, on TEST",
            ("Gen", "Champion", "Data", *figures, "% of optimum", "Change"),
            generations,
            (explained, *dict.fromkeys(notes)),
            frozenset({6, 7}),
        ),
    ]
    if missed:
        columns = ("Candidate", "Data", "Source", *figures, "Against the champion")
        tables.append(("What the published run missed", columns, missed, (), frozenset({6})))
    return tables


def _candidate_row(generation: str, candidate: ReplayCandidate, population: dict[str, Any], i: int) -> tuple[str, ...]:
    return (
        generation,
        candidate.label,
        candidate.data,
        "published" if candidate.published else "ours",
        *_figures(candidate, population["fitness"][i], population["retention"][i], population["compression"][i]),
    )


def _figures(candidate: ReplayCandidate, fitness: float, retention: float, compression: float) -> tuple[str, str, str]:
    published = candidate.published
    return (
        beside(published.get("fitness"), fitness, ".4f"),
        beside(published.get("retention"), retention, ".2%"),
        beside(published.get("compression"), compression, ".4f", "x"),
    )


def _generation_row(
    generation: str,
    record: dict[str, Any],
    row: list[ReplayCandidate],
    before: dict[str, Any] | None,
    optimum: dict[str, float],
) -> tuple[str, ...]:
    best = record["best"]
    candidate = row[best["id"] - record["population"]["first_id"]]
    change = best["fitness"] - (before["fitness"] if before else 0.0)
    i = best["on"]
    figures = _figures(candidate, best["fitness"], best["retention"][i], best["compression"][i])
    share = f"{best['fitness'] / optimum[candidate.data]:.1%}"
    return (generation, candidate.label, candidate.data, *figures, share, f"{change:+.4f}")


def _optimum(run: RunData) -> dict[str, float]:
    """Data's name → the certified best fitness on it."""
    assert isinstance(run.config.search, ReplayConfig)
    objective, menu = make_objective(run.config), run.config.resolved_menu
    return {
        name: certify(compile_problem(any_profile(profile), menu), objective).upper_bound
        for name, profile in run.config.search.data.items()
    }
