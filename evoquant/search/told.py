"""What somebody's own loop tells of candidates: numbers or mappings, checked, as a batch of evaluations.

A value is a fitness, or a mapping of what was measured; None, NaN and infinity say that the candidate failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, quoted, shown_value, suggestion
from evoquant.genomes.base import digest_of
from evoquant.scoring.objective import amounts_of, combine, fitness_of, score
from evoquant.scoring.separable import all_cost_sums
from evoquant.search.base import FAILED, OK, DigestMemo, EvaluationBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem
    from evoquant.search.base import CandidateBatch

KEYS = ("fitness", "retention", "compression", "effective_bits", "standard_error")
FP32_BITS = 32.0
SIZES = {"compression", "effective_bits"}  # each says the other
NEEDS: dict[str, tuple[str, ...]] = {
    "nsga2": ("retention", "effective_bits"),
    "map_elites": ("compression",),
    "surrogate": ("retention",),
}
"""What a search reads beside the fitness; a search of one's own names its in `needs`."""


@dataclass(frozen=True)
class Judge:
    """What turns told values into evaluations.

    Attributes:
        search: its name, for messages.
        needs: keys that the search reads beside the fitness.
        space: of the genomes; None where batches hold genomes.
        problems: the models, which know what allocations cost; () where there are none.
        objective: what makes a fitness of retention and size where none is told.
    """

    search: str
    needs: tuple[str, ...]
    space: Space | None
    problems: tuple[Problem, ...]
    objective: Objective

    def read(self, values: Sequence[Any]) -> list[dict[str, Any]]:
        """Each value as a mapping of finite numbers, of `retention` one a model; empty where the candidate failed.

        Raises:
            InputError: one is no number, has an unknown key or lacks what the search needs.
        """
        return [self._one(value, f"value {row + 1} of {len(values)}") for row, value in enumerate(values)]

    def evaluations(self, batch: CandidateBatch, told: Sequence[Mapping[str, Any]]) -> EvaluationBatch:
        """What `read` gave, row for row, as the batch's evaluations."""
        models = max(len(self.problems), 1)
        fitness, retention = _column(told, "fitness"), _column(told, "retention", models)
        costs, compression, bits = self._sizes(batch, told)
        judged = np.isnan(fitness) & ~np.isnan(retention).any(axis=1)
        if judged.any():
            clipped = np.clip(retention[judged], 0.0, 1.0)
            seen = amounts_of(self.problems, costs[judged]) if self.problems else {}
            made = fitness_of(self.objective, clipped, compression[judged], bits[judged], seen)
            fitness[judged] = combine(np.asarray(made, dtype=np.float64), "mean")
        fitness[~np.isfinite(fitness)] = np.nan
        status = np.where(np.isnan(fitness), FAILED, OK).astype(np.int8)
        errors = _column(told, "standard_error")
        genes, space = batch.genes, self.space
        memo = None if space is None or genes is None else DigestMemo(space)

        def digest(row: int) -> str:
            return digest_of(batch.genomes[row]) if memo is None or genes is None else memo(genes[row])

        return EvaluationBatch(
            fitness=fitness,
            parts=self._parts(batch),
            cost=(costs if costs.ndim == 2 else costs[:, :, 0]).sum(axis=1),
            retention=retention,
            compression=compression,
            effective_bits=bits,
            status=status,
            reasons=dict.fromkeys(np.flatnonzero(status == FAILED).tolist(), "not_finite"),
            digest=digest,
            standard_error=None if np.isnan(errors).all() else np.nan_to_num(errors),
            costs=amounts_of(self.problems, costs) if costs.ndim == 3 else {},
        )

    def _one(self, value: Any, place: str) -> dict[str, Any]:
        if value is None:
            return {}
        given = value if isinstance(value, Mapping) else {"fitness": value}
        for key in given:
            if key not in KEYS:
                name = key if isinstance(key, str) else shown_value(key)
                raise InputError(f"{place}: {quoted(name)} is nothing that can be told.{suggestion(name, KEYS)}")
        told: dict[str, Any] = {}
        for key, item in given.items():
            number = self._retention(item, place) if key == "retention" else _number(item, key, place)
            if not np.isfinite(number).all():
                return {}
            if key in SIZES and not number > 0:
                raise InputError(f"{place}: {key} is {shown_value(item)}; it should be above 0.")
            told[key] = number
        self._require(told, place)
        return told

    def _retention(self, item: Any, place: str) -> Any:
        models = max(len(self.problems), 1)
        several = isinstance(item, (list, tuple)) or (isinstance(item, np.ndarray) and item.ndim == 1)
        if not several:
            return np.full(models, _number(item, "retention", place))
        if len(item) != models:
            raise InputError(
                f"{place}: retention has {len(item)} numbers, and there are {models} models; tell one for each of "
                f"them, or one for all."
            )
        return np.array([_number(one, "retention", place) for one in item])

    def _require(self, told: Mapping[str, Any], place: str) -> None:
        known = set(told) | (SIZES if self.problems or SIZES & set(told) else set())
        got = f"(got {', '.join(told) or 'nothing'})"
        if missing := [key for key in self.needs if key not in known]:
            wanted = ", ".join(f'"{key}": …' for key in missing)
            raise InputError(
                f"{place}: {self.search} compares {' and '.join(self.needs)}; tell {{{wanted}}} {got}; a fitness may "
                f"stand beside it."
            )
        if "fitness" not in known and not {"retention", "compression"} <= known:
            more = "" if "retention" not in known else " and compression"
            raise InputError(f"{place}: tell a fitness, or the retention{more} that the objective makes one of {got}.")

    def _parts(self, batch: CandidateBatch) -> NDArray[np.int64]:
        if batch.parts is not None:
            return batch.parts
        if batch.genes is not None and self.space is not None:
            return self.space.parts(batch.genes)
        return np.array([genome.parts for genome in batch.genomes], dtype=np.int64)

    def _sizes(
        self, batch: CandidateBatch, told: Sequence[Mapping[str, Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Costs as `score` takes them, `(n, models)` compression and effective bits: as told, else the allocations'."""
        shape = (len(batch), max(len(self.problems), 1))
        compression, bits = _column(told, "compression", shape[1]), _column(told, "effective_bits", shape[1])
        compression, bits = (
            np.where(np.isnan(compression), FP32_BITS / bits, compression),
            np.where(np.isnan(bits), FP32_BITS / compression, bits),
        )
        if not self.problems:
            return np.zeros(shape, dtype=np.int64), compression, bits
        sums = [all_cost_sums(problem, self._allocations(batch, problem)) for problem in self.problems]
        costs = np.stack(sums, axis=1)
        found = score(self.objective, self.problems, np.ones(shape), costs)
        untold = np.isnan(compression)
        return costs, np.where(untold, found.compression, compression), np.where(untold, found.effective_bits, bits)

    def _allocations(self, batch: CandidateBatch, problem: Problem) -> NDArray[np.int8]:
        if batch.genes is not None and self.space is not None:
            return self.space.allocate(batch.genes, problem)
        return np.stack([genome.allocate(problem) for genome in batch.genomes])


def genomes_of(batch: CandidateBatch, space: Space | None) -> tuple[Genome, ...]:
    """The genomes of a batch, in its order."""
    if batch.genes is None or space is None:
        return batch.genomes
    return tuple(space.decode(row) for row in batch.genes)


def _number(value: Any, key: str, place: str) -> float:
    """A float; NaN for None.

    Raises:
        InputError: it is no number.
    """
    if value is None:
        return float("nan")
    if not isinstance(value, (bool, np.bool_, str, bytes)) and hasattr(value, "__float__"):
        try:
            return float(value)
        except OverflowError:
            return float("inf")
        except (TypeError, ValueError, RuntimeError):
            pass
    raise InputError(
        f"{place}: {key} is {shown_value(value)}, and it should be a number, or None or NaN where the candidate failed."
    )


def _column(told: Sequence[Mapping[str, Any]], key: str, models: int = 0) -> NDArray[np.float64]:
    """`(n,)`, or `(n, models)`, of what was told; NaN where it was not."""
    blank = np.full(models, np.nan) if models else np.nan
    rows = [one.get(key, blank) for one in told]
    if not models:
        return np.array(rows, dtype=np.float64)
    return np.stack([np.broadcast_to(np.asarray(row, dtype=np.float64), (models,)) for row in rows])
