"""What a genome, its space and a fused space promise: the extension point of heuristics.

A campaign names a space as `genome: {kind: module:Class, options: {...}}` and makes it as `Class(problems, **options)`
with the tuple of compiled train models; in Python a class, a function of `problems` or an instance does as well. The
space is made on the driver and sent to every worker once: it can be pickled, and its class imported there.

Populations are `(n, genes)` float64 arrays whose columns the space's `genes` describe, so that every search, whatever
it is, can vary any genome. All randomness comes from the generator that is handed over. `evoquant.testing.check_space`
holds a space to all of this; `NumericOperators`, `sample_genes` and `mutate_genes` of `evoquant.genomes.base` are there
to be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evoquant.scoring.problem import Problem


GeneKind = Literal["flag", "option", "width", "fraction", "log"]


@dataclass(frozen=True)
class Gene:
    """One column of a population.

    Attributes:
        name: for reports.
        kind: `flag` 0 or 1; `option` an unordered code, where 0 means absent; `width` a menu index; `fraction` of the
            layers, where 0 means none; `log` a positive threshold that is varied on a log scale.
        low, high: inclusive limits.
        group: genes of one group are inherited together.
    """

    name: str
    kind: GeneKind
    low: float
    high: float
    group: int


@runtime_checkable
class Genome(Protocol):
    """A heuristic: immutable data that gives any model an allocation. Equal genomes hash alike."""

    @property
    def parts(self) -> int:
        """How complicated it is, 0 or more; of equally fit genomes the one with fewer parts wins."""
        ...

    @property
    def text(self) -> str:
        """One readable line."""
        ...

    def allocate(self, problem: Problem) -> NDArray[np.int8]:
        """`(units,)` menu indices, each allowed (`problem.repair_one` sees to that).

        Raises:
            GenomeError: it cannot be applied to this model; the message says why.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data from which the genome is rebuilt.

        `kind` is the space's `kind`, or a built-in one (`rule`, `tree`, `direct`) for data that those rebuild: a space
        may well decode to genomes of ours. Champions, journals and digests hold this.
        """
        ...


@runtime_checkable
class Space(Protocol):
    """A genome space whose populations are `(n, genes)` float64 arrays.

    A space whose genomes are its own has a class method too:
    `genome_from_dict(data: dict[str, Any]) -> Genome`: rebuilds what `to_dict` gave, and raises `GenomeError` for
    anything else. It needs no model and no options: a champion file is read without its campaign.
    """

    kind: str
    """What its genomes' `to_dict` calls them: a word; not `rule`, `tree`, `direct` or `strategy` where they are own."""
    genes: tuple[Gene, ...]

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """`(n, genes)` random genomes."""
        ...

    def dormant(self, genes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """`(n, genes)`: genes that have no effect where they are."""
        ...

    def cross(
        self, first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """`(n, genes)` children, row for row, of two parents each."""
        ...

    def mutate(self, genes: NDArray[np.float64], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, genes)` with every gene changed with probability `rate`."""
        ...

    def tune(self, genes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, genes)` with only the numbers changed, a little: thresholds, fractions, constants."""
        ...

    def canonical(self, genes: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(n, genes)` with equal rows for equal heuristics."""
        ...

    def parts(self, genes: NDArray[np.float64]) -> NDArray[np.int64]:
        """`(n,)` parts of each genome."""
        ...

    def allocate(self, genes: NDArray[np.float64], problem: Problem) -> NDArray[np.int8]:
        """`(n, units)` menu indices, each allowed: what `decode(row).allocate(problem)` gives, row for row.

        Called in workers with a part of a generation; a row's allocation does not depend on the others.
        """
        ...

    def encode(self, genome: Any) -> NDArray[np.float64]:
        """`(genes,)` row of a genome.

        Raises:
            GenomeError: the genome is not of this space.
        """
        ...

    def decode(self, row: NDArray[np.float64]) -> Genome:
        """The genome of one row."""
        ...


@runtime_checkable
class Fused(Protocol):
    """A space that scores populations without writing their allocations down; an option, for speed."""

    def sums(self, genes: NDArray[np.float64], problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`(n,)` summed integer losses and costs, exactly those of `allocate`, the constant part included.

        Called in workers, instead of `allocate`, where the estimator is the separable one.
        """
        ...
