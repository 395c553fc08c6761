"""evoquant beside what people use today, on one real network: the same menu, quantizer, evaluator and splits for all.

Every rival's champion is chosen as evoquant's is: its best allocations on calibration data, judged by calibration and
selection data together, the chosen one reported on test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant import api
from evoquant.bench.rivals import Flips
from evoquant.bench.settings import campaign_hash
from evoquant.bounds.front import pareto_front
from evoquant.bounds.optimum import certify
from evoquant.campaign.build import make_executor, make_objective
from evoquant.campaign.build_measured import make_task, open_network, opened_network
from evoquant.campaign.config import load_config
from evoquant.campaign.evaluate import as_evaluations
from evoquant.campaign.finals_measured import Judge, choose, measured_figures
from evoquant.campaign.measure import measure_allocations
from evoquant.errors import ProfileError
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.strategies import CHAMPION, strategy
from evoquant.models.base import Split
from evoquant.report.data import load_run
from evoquant.scoring.divergence import divergence_problem
from evoquant.scoring.objective import BitBudget, retention_floor
from evoquant.scoring.separable import cost_sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from evoquant.bench.settings import Settings
    from evoquant.campaign.config import CampaignConfig
    from evoquant.profiles.model import ModelProfile
    from evoquant.scoring.problem import Problem

SPLITS: tuple[Split, ...] = ("calibration", "selection", "gate", "test")
FINALISTS = 32
FRONT_POINTS = 20
LEAST_RETENTION = 0.9  # by the table, of the points of its front that are measured
EVALUATIONS = 400  # of random search and plain evolution
RIVALS, PLAIN = "rivals", "plain evolution"
PLAIN_SEARCHES = {
    "random search": "{kind: random, population: 20}",
    PLAIN: "{kind: level_switch, offspring: 16, initial: 16}",
}
RIVAL_SIGNALS = ("loss", "fisher", "gradient_sensitivity")
KEPT = ("fitness", "retention", "standard_error", "compression", "effective_bits", "interval", "probability")


@dataclass(frozen=True)
class Study:
    """One task with one seed.

    Attributes:
        config: YAML file of the task's campaign.
        seed: of training, splits and search.
        work: folder for cache and run directories.
    """

    config: Path
    seed: int
    work: Path

    @property
    def name(self) -> str:
        """Task and seed."""
        return f"{self.config.stem}-{self.seed}"


def way_rows(study: Study, way: str) -> list[dict[str, Any]]:
    """The rows of one way on one task with one seed.

    Args:
        study: task and seed.
        way: `rivals`, all that need no search of evoquant's; `random search`; `plain evolution`, which gives two rows;
            or a campaign of evoquant's as its row is called, `evoquant direct, 80 passes`.
    """
    if way == RIVALS:
        rows = _rivals(_config(study), study.work / f"cache-{study.name}")
    else:
        rows = [_campaign(study, way)]
        if way == PLAIN:
            rows.append(_own_best(study, _config(study), rows[0]))
    return [{"task": study.config.stem, "seed": study.seed, **row} for row in rows]


def way_settings(study: Study, way: str, name: str) -> Settings:
    """What the row of this name comes from, of those that `way_rows` gives for a way."""
    if name == way:
        return campaign_hash(study.config, _changes(study, way))
    if way == PLAIN:
        return {"campaign": campaign_hash(study.config, _changes(study, way)), "champion": name}
    return {
        "campaign": campaign_hash(study.config, _fixed(study)),  # task, menu and objective
        "way": name,
        "signals": list(RIVAL_SIGNALS),
        "finalists": FINALISTS,
        "front": {"points": FRONT_POINTS, "least_retention": LEAST_RETENTION},
    }


def _changes(study: Study, way: str) -> list[str]:
    """Overrides of the campaign of a way."""
    if way in PLAIN_SEARCHES:
        fixed = ("genome={kind: direct}", "signals=[]", "racing={enabled: false}", f"stop.passes={EVALUATIONS + 1}")
        return [*_fixed(study), *fixed, f"search={PLAIN_SEARCHES[way]}"]
    genome, passes = way.removeprefix("evoquant ").removesuffix(" passes").split(", ")
    return [*_fixed(study), f"genome={{kind: {genome}}}", f"stop.passes={passes}"]


def _config(study: Study) -> CampaignConfig:
    return load_config(study.config, [*_fixed(study), "executor.kind=local"])[0]


def _fixed(study: Study) -> list[str]:
    """Overrides of every campaign of a study."""
    return [f"seed={study.seed}", f"task.seed={study.seed}", f"cache={study.work}/cache-{study.name}"]


def _folder(study: Study, name: str) -> Path:
    return study.work / study.name / name.replace(" ", "-").replace(",", "")


def _own_best(study: Study, config: CampaignConfig, row: dict[str, Any]) -> dict[str, Any]:
    """A campaign's row, with the allocation that did best on the calibration data in the place of its champion.

    Plain evolution as people write it ends with this one, with no look at other data.
    """
    assert config.task is not None
    record = load_run(_folder(study, row["name"])).journal[-1]["champion"]
    genome = genome_from_dict(record["genome"], row["name"])
    with opened_network(config.task, config.resolved_menu, (), study.work / f"cache-{study.name}") as opened:
        judge = Judge(opened.measurer, opened.problem, make_objective(config, (opened.problem,)), config.seed)
        allocation = genome.allocate(opened.problem)
        return _row(judge, f"{row['name']}, best on calibration", allocation, row["passes"], row["allocations"])


def _campaign(study: Study, name: str) -> dict[str, Any]:
    out = _folder(study, name)
    if (out / "resolved.json").is_file():  # begun before: go on, or take what is finished
        api.resume(out)
    else:
        api.run(study.config, out=out, overrides=[*_changes(study, name), "executor.kind=local"])
    run = load_run(out)
    assert run.champion is not None
    return {
        "name": name,
        "config_hash": run.config_hash,
        "passes": sum(run.champion.provenance["budget"].values()),
        "allocations": run.journal[-1]["evaluations"]["distinct"],
        "text": run.champion.genome.text,
        "scores": {split: kept_figures(run.champion.scores[split]) for split in SPLITS},
    }


def _rivals(config: CampaignConfig, cache: Path) -> list[dict[str, Any]]:
    """Rows of what needs no search of evoquant's."""
    assert config.task is not None
    cache.mkdir(parents=True, exist_ok=True)
    executor = make_executor("local", None, None)
    task = make_task(config.task, cache)
    opened = open_network(task, config.resolved_menu, RIVAL_SIGNALS, cache, executor)
    try:
        problem, passes = opened.problem, opened.profile.passes
        objective = make_objective(config, (problem,))
        judge = Judge(opened.measurer, problem, objective, config.seed)
        rows = [
            _row(judge, f"uniform {name}", _uniform(problem, name), 0.0, 0)
            for name in problem.menu.names
            if name.partition("-")[0] in ("INT8", "INT4", "FP16")
        ]
        try:
            published = strategy(CHAMPION).allocate(problem)
            rows.append(_row(judge, "published champion", published, passes["gradient_sensitivity"], 0))
        except ProfileError:  # a rule that reads what this profile does not have
            pass
        rows.append(_row(judge, "gradient scores, exact solver", _by_gradients(problem), passes["fisher"], 0))
        alone = int(passes["loss"])  # allocations, each measured once, the FP32 reference among them
        rows.append(_row(judge, "one at a time, optimum", certify(problem, objective).allocation, alone, alone))
        front = _front(problem)
        best = _best_of(judge, front)
        spent = alone + len(front)
        rows.append(_row(judge, f"one at a time, {FRONT_POINTS} points", best, spent, spent))
        rows.append(_greedy(judge, opened.profile))
        return rows
    finally:
        opened.store.close()
        executor.close()


def _row(judge: Judge, name: str, allocation: NDArray[np.int8], passes: float, measured: int) -> dict[str, Any]:
    scores = {split: kept_figures(measured_figures(judge, allocation, split)) for split in SPLITS}
    return {"name": name, "passes": passes, "allocations": measured, "scores": scores}


def kept_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Of the figures of an allocation, those that rows hold."""
    return {key: figures[key] for key in KEPT if key in figures}


def _uniform(problem: Problem, name: str) -> NDArray[np.int8]:
    return problem.repair_one(np.full(len(problem.units), problem.menu.resolve(name), dtype=np.int8))


def _by_gradients(problem: Problem) -> NDArray[np.int8]:
    """The least sum of Fisher costs at the size of uniform INT4, as tools do that score by gradients and never measure.

    They ask the user for a size, and 4 bits are what is usually asked for.
    """
    int4 = next(name for name in problem.menu.names if name.startswith("INT4"))
    cost = int(cost_sums(problem, _uniform(problem, int4)[None])[0])
    bits = (cost - problem.cost.constant) / (problem.weights * 1024.0)
    return certify(divergence_problem(problem), BitBudget(bits)).allocation


def _front(problem: Problem) -> NDArray[np.int8]:
    """Points of the one-at-a-time table's exact front, evenly by retention, at most `FRONT_POINTS`."""
    front = pareto_front(problem, at_least=LEAST_RETENTION)
    wanted = np.linspace(front.retention.min(), front.retention.max(), FRONT_POINTS)
    points = {int(np.abs(front.retention - value).argmin()) for value in wanted.tolist()}
    return np.stack([front.allocation(point) for point in sorted(points)])


def _best_of(judge: Judge, allocations: NDArray[np.int8]) -> NDArray[np.int8]:
    """Of measured allocations, the champion by the rule that evoquant's campaigns have."""
    distinct = np.unique(allocations, axis=0)
    scores, _, _ = measure_allocations(distinct, judge.problem, judge.measurer, "calibration", judge.objective)
    order = np.argsort(-np.nan_to_num(scores.fitness, nan=-np.inf), kind="stable")[:FINALISTS]
    finalists = distinct[order]
    records = [{"parts": 0, "digest": finalist.tobytes().hex()} for finalist in finalists]
    return np.asarray(finalists[choose(judge, finalists, records)], dtype=np.int8)


def _greedy(judge: Judge, profile: ModelProfile) -> dict[str, Any]:
    """Flips of one unit after the other until the floor, each measured."""
    space = DirectSpace(judge.problem)
    search = Flips(space, retention_floor(judge.objective) or 0.95)
    seen: list[NDArray[np.int8]] = []
    while not search.done():
        batch = search.ask()
        assert batch.genes is not None
        allocations = space.allocate(batch.genes, judge.problem)
        scores, _, _ = measure_allocations(allocations, judge.problem, judge.measurer, "calibration", judge.objective)
        search.tell(as_evaluations(batch, scores, space, {}))
        seen += list(allocations)
    distinct = np.unique(np.stack(seen), axis=0)
    return _row(judge, "greedy flips", _best_of(judge, distinct), len(distinct), len(distinct))
