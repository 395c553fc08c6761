"""Heuristics evolved on all tasks but one, applied to the one left out without measuring anything there.

What a search has measured on the other tasks becomes their profiles (`fitted_profile`); an ordinary campaign on these
evolves a rule or a tree that reads expected losses, which need no quantized pass. On the task left out the heuristic
sees Fisher costs and sizes; it is measured there only to be judged, beside searches made on that task itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant import api
from evoquant.bench.own_models import SPLITS, kept_figures
from evoquant.bounds.optimum import certify
from evoquant.campaign.build import make_objective
from evoquant.campaign.build_measured import opened_network
from evoquant.campaign.champion import load_champion
from evoquant.campaign.config import load_config
from evoquant.campaign.finals_measured import Judge, measured_figures
from evoquant.campaign.fitted import fitted_profile
from evoquant.errors import RunDirError
from evoquant.files import canonical_json, write_atomic
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.load import genome_from_dict
from evoquant.profiles.model import load_profile, profile_to_json
from evoquant.report.data import load_run
from evoquant.scoring.expected_loss import with_expected_loss
from evoquant.scoring.problem import LOSS_UNITS, compile_problem
from evoquant.search.surrogate_model import Measured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.report.data import RunData
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem

FRESH = ("selection", "gate")  # splits that the search has not measured thousands of times
OBJECTIVE = {"kind": "cliff", "threshold": 0.95}
GENOMES: dict[str, dict[str, Any]] = {
    "tree": {
        "kind": "tree",
        "signals": ["expected_loss", "size_share"],
        "operators": ["add", "sub", "mul", "div"],
        "types": [],
        "max_nodes": 9,
        "max_depth": 5,
    },
    "rule": {"kind": "rule", "rungs": 3},
}
SEARCH = {
    "kind": "genetic",
    "population": 400,
    "elites": 40,
    "elite_forms": True,
    "tournament": 2,
    "mutation_rate": 0.05,
    "tune_rate": 0.3,
    "parsimony": 0.002,
}
GENERATIONS = 80
SEED = 0  # of the evolution
SIGNALS = ("fisher",)  # all that a heuristic's task is asked for


@dataclass(frozen=True)
class Source:
    """A task with one seed, and the run of a search that was made on it.

    Attributes:
        config: YAML file of its campaign.
        seed: of training and splits.
        run: run directory of a finished direct search.
        cache: where its network and outcomes lie.
    """

    config: Path
    seed: int
    run: Path
    cache: Path

    @property
    def name(self) -> str:
        """Task and seed."""
        return f"{self.config.stem}-{self.seed}"

    @property
    def changes(self) -> tuple[str, str]:
        """Overrides of its campaign."""
        return f"seed={self.seed}", f"task.seed={self.seed}"


def learnt_profile(run: Path) -> ModelProfile:
    """The profile of a finished direct search on a real network: fitted losses, expected losses, Fisher costs.

    Raises:
        RunDirError: the search is not finished, or was none of direct genomes.
    """
    data = load_run(run)
    if data.champion is None:
        raise RunDirError(f"{run}: is not finished; resume it first.")
    if data.config.genome.kind != "direct":
        raise RunDirError(f"{run}: searched {data.config.genome.kind} genomes; fitted losses need a direct search.")
    profile, menu = load_profile(run / "profile.json"), data.config.resolved_menu
    problem = compile_problem(profile, menu)
    around = data.champion.genome.allocate(problem)
    fitted = fitted_profile(profile, menu, measured_in(data, problem), around, optimism(data.champion))
    return with_expected_loss(fitted, data.champion.scores["calibration"]["metric"]["name"])


def measured_in(run: RunData, problem: Problem) -> Measured:
    """Every allocation that a direct search has measured in full."""
    space = DirectSpace(problem)
    found: dict[str, tuple[NDArray[np.int8], dict[str, Any]]] = {}
    for record in run.journal:
        if "measured" not in record or not record["population"]["genes"]:
            continue
        allocations = space.allocate(np.array(record["population"]["genes"], dtype=np.float64), problem)
        for digest, allocation in zip(record["measured"]["allocations"], allocations, strict=True):
            measurement = record["measured"]["measurements"].get(digest)
            if measurement is not None and measurement["status"] == "ok":
                found[digest] = allocation, measurement
    kept = [(a, m) for a, m in found.values() if m["retention"] is not None and m["retention"] > 0]
    retention = np.array([m["retention"] for _, m in kept], dtype=np.float64)
    return Measured(
        np.array([a for a, _ in kept], dtype=np.int8).reshape(-1, len(problem.units)),
        -np.log(retention),
        np.array([m["standard_error"] for _, m in kept], dtype=np.float64) / retention,
        np.array([m["divergence"] for _, m in kept], dtype=np.float64),
    )


def optimism(champion: Champion) -> float:
    """The champion's loss on data that the search has not seen, minus that on calibration data; never below 0."""
    scores = champion.scores
    samples = [scores[split]["samples"] for split in FRESH]
    fresh = sum(n * -math.log(scores[split]["retention"]) for n, split in zip(samples, FRESH, strict=True))
    excess: float = fresh / sum(samples) + math.log(scores["calibration"]["retention"])
    return max(excess, 0.0)


def evolution(genome: str, menu: Menu, seed: int) -> dict[str, Any]:
    """The campaign of `evolve`, without its models, as plain data."""
    shape = dict(GENOMES[genome])
    if genome == "rule":
        shape["signals"] = [f"expected_loss_per_bit:{name}" for name in menu.names[:-1]]
    return {
        "name": f"leave_one_out_{genome}",
        "seed": seed,
        "menu": list(menu.names),
        "objective": OBJECTIVE,
        "aggregate": "min",
        "relative_to_optimum": True,
        "genome": shape,
        "search": SEARCH,
        "stop": {"generations": GENERATIONS},
    }


def evolve(profiles: Sequence[Path], genome: str, menu: Menu, seed: int, folder: Path) -> Champion:
    """The champion of a campaign on these profiles; a finished one of the same profiles is read back."""
    models = [str(path.resolve()) for path in profiles]
    config = evolution(genome, menu, seed) | {"models": {"train": models, "valid": models, "test": []}}
    text = canonical_json({**config, "executor": {"kind": "local"}})
    content = hashlib.sha256((text + "".join(load_profile(path).digest for path in profiles)).encode()).hexdigest()
    place = folder / content[:16]
    if not (place / "run" / "champion.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / "campaign.yaml", text)
        api.run(place / "campaign.yaml", out=place / "run")
    return load_champion(place / "run" / "champion.json")


def leave_out(held_out: Sequence[Source], others: Sequence[Source], work: Path) -> list[dict[str, Any]]:
    """Rows of one task: heuristics evolved on the other tasks, and what needs no search, measured only to be judged.

    Args:
        held_out: the task, with each of its seeds.
        others: the other tasks, each with as many seeds as there are runs of.
        work: folder for profiles and campaigns.
    """
    task = held_out[0].config.stem
    menu = load_config(held_out[0].config)[0].resolved_menu
    paths = []
    for other in others:
        path = work / "profiles" / f"{other.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, profile_to_json(learnt_profile(other.run)))
        paths.append(path)
    champions = {genome: evolve(paths, genome, menu, SEED, work / task / genome) for genome in GENOMES}
    rows = []
    for source in held_out:
        for row in _judge_all(source, champions):
            rows.append({"task": task, "seed": source.seed, **row})
    return rows


def row_name(genome: str) -> str:
    """The row of a kind of genome."""
    return f"{genome} from the other tasks"


def judged_settings(source: Source, name: str, others: Sequence[str]) -> dict[str, Any]:
    """What the row of this name comes from, of those that `leave_out` gives for a task with one seed.

    Args:
        source: task and seed.
        name: of the row.
        others: hashes of the campaigns on the other tasks.
    """
    config, _ = load_config(source.config, source.changes)
    found: dict[str, Any] = {"campaign": config.hash(), "signals": list(SIGNALS), "name": name}
    for genome in GENOMES:
        if name == row_name(genome):
            found |= {"evolution": evolution(genome, config.resolved_menu, SEED), "from": list(others)}
    return found


def _judge_all(source: Source, champions: dict[str, Champion]) -> list[dict[str, Any]]:
    genomes = {row_name(genome): champion.genome.to_dict() for genome, champion in champions.items()}
    rows = judge_genomes(source, genomes)
    for row, champion in zip(rows, champions.values(), strict=False):
        row["text"] = champion.genome.text
        row["genome"] = champion.genome.to_dict()
        row["train"] = float(np.min(champion.scores["train"]["share_of_optimum"]))
    return rows


def judge_genomes(source: Source, genomes: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of heuristics on a task, then of the exact solver on expected losses and of uniform widths.

    Args:
        source: the task with one seed; its run is not read.
        genomes: name of a row → genome as JSON.
    """
    config, _ = load_config(source.config, source.changes)
    assert config.task is not None
    menu = config.resolved_menu
    with opened_network(config.task, menu, SIGNALS, source.cache) as opened:
        metric = opened.measurer.task.metric.name
        problem = compile_problem(with_expected_loss(opened.profile, metric), menu)
        objective = make_objective(config, (problem,))
        judge = Judge(opened.measurer, problem, objective, source.seed)
        rows = [
            _judged(judge, name, genome_from_dict(genome, name).allocate(problem)) for name, genome in genomes.items()
        ]
        rows.append(_judged(judge, "expected loss, exact solver", expected_optimum(problem, objective)))
        for width in ("INT8-channel", "INT4-channel"):
            uniform = np.full(len(problem.units), menu.resolve(width), dtype=np.int8)
            rows.append(_judged(judge, f"uniform {width.removesuffix('-channel')}", problem.repair_one(uniform)))
    return rows


def expected_optimum(problem: Problem, objective: Objective) -> NDArray[np.int8]:
    """`(units,)` what would be best if losses were as expected: the certified optimum of that table."""
    zero = np.zeros(len(problem.units))
    table = np.stack([problem.widths["expected_loss"].get(name, zero) for name in problem.menu.names], axis=1)
    losses = np.rint(table * LOSS_UNITS).astype(np.int64)
    allocation: NDArray[np.int8] = certify(dataclasses.replace(problem, loss=losses), objective).allocation
    return allocation


def searched(source: Source, run: Path, name: str) -> dict[str, Any]:
    """The row of a search that was made on the task itself."""
    data = load_run(run)
    if data.champion is None:
        raise RunDirError(f"{run}: is not finished; resume it first.")
    scores = {split: kept_figures(data.champion.scores[split]) for split in SPLITS}
    passes = sum(data.champion.provenance["budget"].values())
    return {"task": source.config.stem, "seed": source.seed, "name": name, "passes": passes, "scores": scores}


def _judged(judge: Judge, name: str, allocation: NDArray[np.int8]) -> dict[str, Any]:
    scores = {split: kept_figures(measured_figures(judge, allocation, split)) for split in SPLITS}
    return {"name": name, "measured": 0, "scores": scores}
