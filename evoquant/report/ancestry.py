"""Where champions come from: parents, operator, and what changed."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build import make_space, searched_profile
from evoquant.campaign.build_scoring import compiled
from evoquant.campaign.config import ModelsConfig
from evoquant.campaign.config_own import OWN
from evoquant.campaign.storage import PROFILE
from evoquant.errors import RunDirError
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.rule import Rule, changes
from evoquant.profiles.model import load_profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space
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
    changed: list[tuple[int, dict[str, Any]]] = []
    firsts = []
    for record in run.journal:
        firsts.append(record["population"]["first_id"])
        champion = record["champion"]
        if champion is not None and (not changed or champion["id"] != changed[-1][1]["id"]):
            changed.append((record["generation"], champion))
    return steps_of(run, changed, firsts)


def steps_of(
    run: RunData,
    changed: Sequence[tuple[int, dict[str, Any]]],
    firsts: Sequence[int],
    space: Space | None = None,
) -> list[Step]:
    """The steps of a journal that has been read.

    Args:
        run: with the journal, in which parents are looked up.
        changed: generation and record of every new champion.
        firsts: id of the first candidate of each generation.
        space: the run's, where it has been made.
    """
    find = _Finder(run, firsts, space)
    steps = []
    for generation, champion in changed:
        parents = champion["parents"]
        by = champion["operator"] + (f" of {' × '.join(f'#{parent}' for parent in parents)}" if parents else "")
        if isinstance(run.config.genome, OWN):  # the text is all that is known of what differs
            steps.append(Step(generation, champion, by, champion["text"]))
            continue
        genome = genome_from_dict(champion["genome"], str(run.path))
        steps.append(Step(generation, champion, by, _change(genome, [find(parent) for parent in parents])))
    return steps


def _change(genome: Genome, parents: list[Genome | None]) -> str:
    """The change against the nearer parent; the whole text where there is none."""
    known = [parent for parent in parents if isinstance(parent, Rule)]
    if not isinstance(genome, Rule) or not known:
        return genome.text
    return min((changes(parent, genome) for parent in known), key=lambda text: (text.count(","), len(text)))


def genes_of(run: RunData, space: Space, rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """`(n, genes)` of rows that a journal lists.

    Raises:
        RunDirError: they are none of this space.
    """
    codes = [gene.kind not in ("fraction", "log") for gene in space.genes]
    low, high = (np.array([getattr(gene, end) for gene in space.genes]) for end in ("low", "high"))
    genes = np.array(rows, dtype=np.float64) if all(len(row) == len(codes) for row in rows) else None
    if genes is None or not ((low <= genes) & (genes <= high))[:, codes].all():
        raise RunDirError(
            f"{run.path}: journal.jsonl lists genes that this search space does not have: it was changed. "
            f"Restore it, or start a new run."
        )
    return genes


def space_of(run: RunData) -> Space:
    """The genome space of a run; the types and signals of its genes are those of all models that it searched."""
    config = run.config
    if config.task is not None:
        profiles = [load_profile(run.path / PROFILE)]
    else:
        profiles = [searched_profile(config, name) for name in (config.models or ModelsConfig()).train]
    return make_space(config, compiled(config, profiles))


class _Finder:
    """Looks candidates up by id in the journal's populations."""

    def __init__(self, run: RunData, firsts: Sequence[int], space: Space | None) -> None:
        self._run = run
        self._space = space
        self._firsts = firsts

    def __call__(self, wanted: int) -> Genome | None:
        generation = bisect.bisect_right(self._firsts, wanted) - 1
        if generation < 0:
            return None
        population = self._run.journal[generation]["population"]
        row = wanted - population["first_id"]
        if row >= population["size"] or "genes" not in population:
            return None
        return self._decode(population["genes"][row])

    def _decode(self, row: Sequence[float]) -> Genome:
        if self._space is None:
            self._space = space_of(self._run)
        genome: Genome = self._space.decode(genes_of(self._run, self._space, [row])[0])
        return genome
