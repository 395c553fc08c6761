"""Where champions come from: parents, operator, and what changed."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build import make_space
from evoquant.campaign.config import ModelsConfig
from evoquant.errors import RunDirError
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.rule import Rule, changes
from evoquant.profiles.model import load_profile

if TYPE_CHECKING:
    from evoquant.genomes.base import Genome
    from evoquant.report.data import RunData


@dataclass(frozen=True)
class Step:
    """A new champion.

    Attributes:
        generation: in which it appeared.
        record: its journal record.
        by: operator and parents' ids.
        change: against the first parent, where the journal lists it.
    """

    generation: int
    record: dict[str, Any]
    by: str
    change: str


def lineage(run: RunData) -> list[Step]:
    """Every generation whose champion differs from the one before."""
    find = _Finder(run)
    steps: list[Step] = []
    current = None
    for record in run.journal:
        champion = record["champion"]
        if champion is None or champion["id"] == current:
            continue
        current = champion["id"]
        parents = champion["parents"]
        by = champion["operator"] + (f" of {' × '.join(f'#{parent}' for parent in parents)}" if parents else "")
        genome = genome_from_dict(champion["genome"], str(run.path))
        steps.append(Step(record["generation"], champion, by, _change(genome, [find(parent) for parent in parents])))
    return steps


def _change(genome: Genome, parents: list[Genome | None]) -> str:
    """The change against the nearer parent; the whole text where there is none."""
    known = [parent for parent in parents if isinstance(parent, Rule)]
    if not isinstance(genome, Rule) or not known:
        return genome.text
    return min((changes(parent, genome) for parent in known), key=lambda text: (text.count(","), len(text)))


class _Finder:
    """Looks candidates up by id in the journal's populations."""

    def __init__(self, run: RunData) -> None:
        self._run = run
        self._space: Any = None
        self._firsts: list[int] = []  # id of the first candidate of each generation

    def __call__(self, wanted: int) -> Genome | None:
        if not self._firsts:
            self._firsts = [record["population"]["first_id"] for record in self._run.journal]
        generation = bisect.bisect_right(self._firsts, wanted) - 1
        if generation < 0:
            return None
        population = self._run.journal[generation]["population"]
        row = wanted - population["first_id"]
        if row >= population["size"] or "genes" not in population:
            return None
        return self._decode(np.array(population["genes"][row], dtype=np.float64))

    def _decode(self, row: np.ndarray) -> Genome:
        if self._space is None:
            self._space = make_space(self._run.config, self._problems())
        codes = [gene.kind not in ("fraction", "log") for gene in self._space.genes]
        limits = [(gene.low, gene.high) for gene in self._space.genes]
        if len(row) != len(codes) or not all(
            not code or low <= value <= high for code, (low, high), value in zip(codes, limits, row, strict=True)
        ):
            raise RunDirError(
                f"{self._run.path}: journal.jsonl lists genes that this search space does not have: it was changed. "
                f"Restore it, or start a new run."
            )
        genome: Genome = self._space.decode(row)
        return genome

    def _problems(self) -> Any:
        from evoquant.campaign.build import searched_profile
        from evoquant.campaign.storage import PROFILE
        from evoquant.scoring.problem import compile_problem

        config = self._run.config
        if config.task is not None:
            profiles = [load_profile(self._run.path / PROFILE)]
        else:
            profiles = [searched_profile(config, name) for name in (config.models or ModelsConfig()).train]
        return tuple(compile_problem(profile, config.resolved_menu) for profile in profiles)
