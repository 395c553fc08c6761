"""Direct genomes: one width per unit of one concrete model, for when no rule is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import GenomeError, describe_validation
from evoquant.genomes.base import Gene, NumericOperators, sample_genes
from evoquant.genomes.rule_compiled import direct_sums

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
        widths = dict(self.widths)  # by name: a journal's line has its keys in alphabetical order
        if problem.name != self.model or set(problem.units) != set(widths):
            raise GenomeError(
                f"a direct allocation of {self.model!r} cannot be applied to {problem.name!r}; "
                f"evolve a rule (genome.kind: rule) for a heuristic that carries over."
            )
        allocation = np.array([problem.menu.resolve(widths[unit]) for unit in problem.units], dtype=np.int8)
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


STEP_RATE = 0.9  # share of width mutations that move one step; the rest draw any width
LIKE_SIZE = 4  # a partner is drawn among so many units, the nearest in parameters


class DirectSpace(NumericOperators):
    """All allocations of one model, one `width` gene per unit."""

    kind = "direct"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        widest = len(problem.menu) - 1
        self.genes = tuple(Gene(unit, "width", 0, widest, i) for i, unit in enumerate(problem.units))
        self._log_size = np.log(np.maximum(problem.scalars["parameters"], 1.0))
        self._narrower, self._wider = _level_tables(problem.allowed)

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """`(n, units)` random allocations."""
        return sample_genes(self.genes, rng, n)

    def dormant(self, genes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """`(n, units)`: none is."""
        return np.zeros(genes.shape, dtype=bool)

    def mutate(self, genes: NDArray[np.float64], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, units)` with every width changed with probability `rate`, mostly by one step.

        As many again change by switches: two units of like size exchange their widths, at most one pair in an
        allocation. A step alone leaves the size it was selected for; a switch looks for retention at that size.
        """
        n, units = genes.shape
        moved = np.where(rng.random(genes.shape) < 0.5, self.levels(genes, up=True), self.levels(genes, up=False))
        drawn = rng.integers(0, len(self.problem.menu), genes.shape)
        changed = np.where(rng.random(genes.shape) < STEP_RATE, moved, drawn)
        result = np.where(rng.random(genes.shape) < rate, changed, genes)
        (rows,) = np.nonzero(rng.random(n) < rate * units / 2)
        first = rng.integers(0, units, len(rows))
        second = self.like_sized(first, result[rows] != result[rows, first][:, None], rng)
        result[rows, first], result[rows, second] = result[rows, second], result[rows, first]
        return result

    def levels(self, genes: NDArray[np.float64], *, up: bool) -> NDArray[np.float64]:
        """`(n, units)` the next wider (or narrower) allowed width of every unit; its own at the end of the menu."""
        table = self._wider if up else self._narrower
        return table[np.arange(len(self.genes)), genes.astype(np.intp)]

    def like_sized(
        self, units: NDArray[np.intp], eligible: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """`(n,)` partners of like size: one of the nearest in parameters, ties by lot; the unit itself if none is.

        Args:
            units: `(n,)` units to find partners for.
            eligible: `(n, units)` who may be one.
            rng: where the draws come from.
        """
        apart = np.abs(self._log_size[units][:, None] - self._log_size)
        # Layers of one shape are all equally near: the tiny term shuffles them.
        apart = np.where(eligible, apart + 1e-9 * rng.random(apart.shape), np.inf)
        nearest = np.argsort(apart, axis=1)[:, :LIKE_SIZE]
        count = np.minimum(eligible.sum(axis=1), nearest.shape[1])
        partner = nearest[np.arange(len(units)), rng.integers(0, np.maximum(count, 1))]
        return np.where(count > 0, partner, units)

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
        self._check(genes, problem)
        return problem.repair(genes.astype(np.int8))

    def sums(self, genes: NDArray[np.float64], problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`(n,)` summed integer losses and costs, the constant part included; see `Fused`.

        Raises:
            GenomeError: the problem is another model's.
        """
        self._check(genes, problem)
        return direct_sums(self, genes, problem)

    def _check(self, genes: NDArray[np.float64], problem: Problem) -> None:
        if problem.units != self.problem.units or problem.name != self.problem.name:
            self.decode(genes[0]).allocate(problem)  # raises the one message for this

    def encode(self, genome: Any) -> NDArray[np.float64]:
        """`(units,)` row of any genome that can allocate this model."""
        return np.asarray(genome.allocate(self.problem), dtype=np.float64)

    def decode(self, row: NDArray[np.float64]) -> Direct:
        """The genome of one row."""
        names = self.problem.menu.names
        widths = tuple((unit, names[int(code)]) for unit, code in zip(self.problem.units, row, strict=True))
        return Direct(self.problem.name, widths)


def _level_tables(allowed: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`(units, P)` twice: the next narrower and the next wider allowed width of each width, itself where none is."""
    widths = np.arange(allowed.shape[1])
    narrower, wider = np.tile(widths, (2, len(allowed), 1)).astype(np.float64)
    for width in widths.tolist():
        below, above = allowed[:, :width], allowed[:, width + 1 :]
        has_below, has_above = below.any(axis=1), above.any(axis=1)
        if width > 0:
            narrower[has_below, width] = width - 1 - below[has_below, ::-1].argmax(axis=1)
        if width + 1 < len(widths):
            wider[has_above, width] = width + 1 + above[has_above].argmax(axis=1)
    return narrower, wider
