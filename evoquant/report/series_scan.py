"""One pass over a run's journal: fitness by generation, breakthroughs, and with `series_points` the population."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.config import CampaignConfig, ModelsConfig, ReplayConfig
from evoquant.errors import RunDirError
from evoquant.report.ancestry import steps_of
from evoquant.report.series_model import frozen, goal_of
from evoquant.report.series_points import PointMaker, Points, measurements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.base import Space
    from evoquant.report.ancestry import Step
    from evoquant.report.data import RunData
    from evoquant.report.series_model import Subject

MOST_BANDS = 200  # steps of a population's median and quartiles: of more, nobody sees more than noise


@dataclass(frozen=True)
class Breakthrough:
    """A generation whose champion differs from the one before.

    Attributes:
        generation: in which it appeared.
        index: its place in the curve's arrays.
        before, after: fitness of the champion before (None for the first) and of this one.
        retention, compression: of this one, on the first model.
        operator: `random`, `crossover`, ….
        parents: ids.
        by: operator and parents in words.
        change: what changed against the nearer parent, in words; the whole genome where no parent is listed.
        crosses: whether it is the first that keeps the objective's floor on every model.
    """

    generation: int
    index: int
    before: float | None
    after: float
    retention: float
    compression: float
    operator: str
    parents: tuple[int, ...]
    by: str
    change: str
    crosses: bool

    @property
    def gain(self) -> float:
        """Fitness gained; the whole of it for the first champion. 0 where it is only simpler or smaller."""
        return self.after - (self.before or 0.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """Fitness by generation; read-only arrays `(generations,)`, NaN where it is not known.

    Attributes:
        generation: numbers, from 0.
        asked, distinct: candidates up to and with each generation.
        passes: full passes over the calibration split up to there; None where nothing is measured.
        best, median: of the generation's population, failed and censored ones left out.
        lower, upper: its quartiles; NaN where the journal lists no population.
        champion: fitness of the best so far.
        retention, compression: of the best so far, on the model of the figures.
        failures: candidates that failed, of each generation.
        steps: every change of the champion; those of no gain are simpler or smaller.
        label: what fitness is, for an axis.
    """

    generation: NDArray[np.int64]
    asked: NDArray[np.int64]
    distinct: NDArray[np.int64]
    passes: NDArray[np.float64] | None
    best: NDArray[np.float64]
    median: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    champion: NDArray[np.float64]
    retention: NDArray[np.float64]
    compression: NDArray[np.float64]
    failures: NDArray[np.int64]
    steps: tuple[Breakthrough, ...]
    label: str

    def __len__(self) -> int:
        return len(self.generation)

    @property
    def breakthroughs(self) -> tuple[Breakthrough, ...]:
        """The steps that gained fitness."""
        return tuple(step for step in self.steps if step.before is None or step.after > step.before)


@dataclass(frozen=True, eq=False)
class Bands:
    """The population's fitness in few enough steps to be seen; read-only arrays, one entry a group of generations.

    Attributes:
        generation: the middle of each group.
        lower, median, upper: the median over the group of the generations' quartiles and medians.
        each: generations in a group, of the largest; 1 where each stands for itself.
    """

    generation: NDArray[np.float64]
    lower: NDArray[np.float64]
    median: NDArray[np.float64]
    upper: NDArray[np.float64]
    each: int


def bands(curve: Curve, most: int = MOST_BANDS) -> Bands:
    """The curve's median and quartiles in at most so many groups of neighbouring generations."""
    edges = np.unique(np.linspace(0, len(curve), min(len(curve), most) + 1).round().astype(np.intp))
    groups = [slice(a, b) for a, b in itertools.pairwise(edges.tolist())]
    middle = frozen(np.array([curve.generation[group].mean() for group in groups]))
    columns = []
    for column in (curve.lower, curve.median, curve.upper):
        known = [column[group][~np.isnan(column[group])] for group in groups]
        columns.append(frozen(np.array([np.median(values) if len(values) else np.nan for values in known])))
    lower, median, upper = columns
    return Bands(middle, lower, median, upper, int(np.diff(edges).max()))


def scan(run: RunData, subject: Subject | None) -> tuple[Curve, Points | None]:
    """The curve and, where there is a model, the points of a run.

    Raises:
        RunDirError: no generation is finished yet, or the journal was changed.
    """
    if not run.journal:
        raise RunDirError(f"{run.path}: no generation is finished yet; nothing to draw.")
    curve = _CurveMaker(run, max(subject.column, 0) if subject is not None else 0)
    points = None if subject is None else PointMaker(run, subject)
    for number, record in enumerate(run.journal):
        try:
            curve.take(record)
            if points is not None:
                points.take(number, record)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise RunDirError(
                f"{run.path}: journal.jsonl: line {number + 1} does not list its population as it was written: the "
                f"journal was changed. Restore it, or start a new run."
            ) from None
    space = None if points is None else points.space
    return curve.made(space), None if points is None else points.made(curve.asked)


class _CurveMaker:
    """Takes records one by one, so that none has to be kept."""

    def __init__(self, run: RunData, column: int) -> None:
        self._run = run
        self._column = column
        self._rows: list[tuple[float, ...]] = []
        self._passes: list[float] = []
        self._firsts: list[int] = []
        self._changed: list[tuple[int, dict[str, Any]]] = []
        self._places: list[int] = []

    @property
    def asked(self) -> int:
        return int(self._rows[-1][1])

    def take(self, record: dict[str, Any]) -> None:
        spent, champion, best = record["evaluations"], record["champion"], record["best"]
        middle = (record["summary"]["fitness"] or {}).get("median", np.nan)
        if champion is None:
            figures = (np.nan, np.nan, np.nan)
        else:
            column = champion.get("on", min(self._column, len(champion["retention"]) - 1))
            figures = (champion["fitness"], champion["retention"][column], champion["compression"][column])
            if not self._changed or champion["id"] != self._changed[-1][1]["id"]:
                self._places.append(len(self._rows))
                self._changed.append((record["generation"], champion))
        numbers = (record["generation"], spent["asked"], spent["distinct"], len(record["failures"]))
        self._rows.append((*numbers, best["fitness"] if best else np.nan, middle, *quartiles(record), *figures))
        if "passes" in record:
            self._passes.append(record["passes"])
        self._firsts.append(record["population"]["first_id"])

    def made(self, space: Space | None) -> Curve:
        columns = np.array(self._rows, dtype=np.float64).T
        generation, asked, distinct, failures = (frozen(column.astype(np.int64)) for column in columns[:4])
        best, median, lower, upper, champion, retention, compression = (frozen(column) for column in columns[4:])
        passes = frozen(np.array(self._passes)) if len(self._passes) == len(self._rows) else None
        return Curve(
            generation,
            asked,
            distinct,
            passes,
            best,
            median,
            lower,
            upper,
            champion,
            retention,
            compression,
            failures,
            self._steps(space),
            _fitness_label(self._run.config),
        )

    def _steps(self, space: Space | None) -> tuple[Breakthrough, ...]:
        floor = goal_of(self._run, None).floor
        made: list[Breakthrough] = []
        crossed = floor is None
        for place, step in zip(self._places, steps_of(self._run, self._changed, self._firsts, space), strict=True):
            crosses = not crossed and floor is not None and _least(step) >= floor
            crossed |= crosses
            record = step.record
            column = record.get("on", min(self._column, len(record["retention"]) - 1))
            made.append(
                Breakthrough(
                    step.generation,
                    place,
                    made[-1].after if made else None,
                    float(record["fitness"]),
                    float(record["retention"][column]),
                    float(record["compression"][column]),
                    record["operator"],
                    tuple(record["parents"]),
                    step.by,
                    step.change,
                    crosses,
                )
            )
        return tuple(made)


def _least(step: Step) -> float:
    """The least retention that counts: of a replay the one on the model that it is judged on."""
    retention: list[float] = step.record["retention"]
    return retention[step.record["on"]] if "on" in step.record else min(retention)


def quartiles(record: dict[str, Any]) -> tuple[float, float]:
    """The quartiles of the fitness of a generation's candidates, those that failed or were censored left out."""
    listed = record["population"].get("fitness")
    if listed is None:
        return np.nan, np.nan
    fitness = np.array(listed, dtype=np.float64)
    if "measured" in record:
        fitness = fitness[np.array([one["status"] == "ok" for one in measurements_of(record)], dtype=bool)]
    fitness = fitness[~np.isnan(fitness)]
    if not len(fitness):
        return np.nan, np.nan
    low, high = np.quantile(fitness, [0.25, 0.75])
    return float(low), float(high)


def _fitness_label(config: CampaignConfig) -> str:
    models = (config.models or ModelsConfig()).train if config.task is None else []
    several = len(models) > 1 and not isinstance(config.search, ReplayConfig)
    aggregate = {"mean": "mean", "min": "least", "geometric": "geometric mean"}[config.aggregate]
    if config.relative_to_optimum:
        return f"share of the optimum, {aggregate} of {len(models)} models" if several else "share of the optimum"
    return f"fitness, {aggregate} of {len(models)} models" if several else "fitness"
