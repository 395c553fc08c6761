"""Direct genomes: one width per unit of one concrete model, for when no rule is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import GenomeError, describe_validation
from evoquant.genomes.base import Gene, NumericOperators, sample_genes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.scoring.problem import Problem


@dataclass(frozen=True)
class Direct:
    """An allocation of the model `model`: (unit, precision) pairs in the model's order."""

    model: str
    widths: tuple[tuple[str, str], ...]

    @property
    def parts(self) -> int:
        """0: a table is no rule."""
        return 0

    @property
    def text(self) -> str:
        """One readable line: how many units take which width."""
        names = [width for _, width in self.widths]
        counts = ", ".join(f"{names.count(name)} × {name}" for name in sorted(set(names)))
        return f"{self.model}: {counts}"

    def allocate(self, problem: Problem) -> NDArray[np.int8]:
        """`(units,)` menu indices, each allowed.

        Raises:
            GenomeError: the problem is another model's.
        """
        if problem.name != self.model or problem.units != tuple(unit for unit, _ in self.widths):
            raise GenomeError(
                f"a direct allocation of {self.model!r} cannot be applied to {problem.name!r}; "
                f"evolve a rule (genome.kind: rule) for a heuristic that carries over."
            )
        allocation = np.array([problem.menu.resolve(width) for _, width in self.widths], dtype=np.int8)
        return problem.repair_one(allocation)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `direct_from_dict` rebuilds the genome."""
        return {"kind": "direct", "model": self.model, "widths": dict(self.widths)}


def direct_from_dict(data: Any, source: str) -> Direct:
    """Rebuild a direct genome from plain data.

    Raises:
        GenomeError: not a direct genome; the message begins with `source` and names the key.
    """
    from pydantic import ValidationError

    from evoquant.genomes.schema import DirectSchema

    try:
        return DirectSchema.model_validate(data).to_direct()
    except ValidationError as error:
        raise GenomeError(describe_validation(error, source, DirectSchema.model_fields)) from None


class DirectSpace(NumericOperators):
    """All allocations of one model, one `width` gene per unit."""

    kind = "direct"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        widest = len(problem.menu) - 1
        self.genes = tuple(Gene(unit, "width", 0, widest, i) for i, unit in enumerate(problem.units))

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """`(n, units)` random allocations."""
        return sample_genes(self.genes, rng, n)

    def dormant(self, genes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """`(n, units)`: none is."""
        return np.zeros(genes.shape, dtype=bool)

    def canonical(self, genes: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(n, units)` with forbidden widths repaired: what is written is what is measured."""
        return self.problem.repair(genes.astype(np.int8)).astype(np.float64)

    def parts(self, genes: NDArray[np.float64]) -> NDArray[np.int64]:
        """`(n,)` zeros."""
        return np.zeros(len(genes), dtype=np.int64)

    def allocate(self, genes: NDArray[np.float64], problem: Problem) -> NDArray[np.int8]:
        """`(n, units)` menu indices, each allowed.

        Raises:
            GenomeError: the problem is another model's.
        """
        if problem.units != self.problem.units or problem.name != self.problem.name:
            self.decode(genes[0]).allocate(problem)  # raises the one message for this
        return problem.repair(genes.astype(np.int8))

    def encode(self, genome: Any) -> NDArray[np.float64]:
        """`(units,)` row of any genome that can allocate this model."""
        return np.asarray(genome.allocate(self.problem), dtype=np.float64)

    def decode(self, row: NDArray[np.float64]) -> Direct:
        """The genome of one row."""
        names = self.problem.menu.names
        widths = tuple((unit, names[int(code)]) for unit, code in zip(self.problem.units, row, strict=True))
        return Direct(self.problem.name, widths)
