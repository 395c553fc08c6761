"""Objective over several costs: the least of one of them, with retention and the others within limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError
from evoquant.scoring.quantity import amount_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

EFFECTIVE_BITS = "effective_bits"


@dataclass(frozen=True)
class Limit:
    """A cost that must not be exceeded, on any model.

    Attributes:
        name: as the user has it: `bytes`, `latency`.
        cost: whose amounts are compared: a key of `Problem.costs`, `bits`, `cost`, or `effective_bits`.
        most: in the unit of these amounts; a whole number but for `effective_bits`.
        unit: `Cost.name` of it, '' for bits per weight, `bytes` where bytes are counted in bits.
        per_unit: what `most` and the amounts are divided by to be in that unit.
    """

    name: str
    cost: str
    most: float
    unit: str
    per_unit: int = 1

    def excess(self, costs: Mapping[str, NDArray[np.int64] | NDArray[np.float64]]) -> NDArray[np.float64]:
        """Share of the limit by which amounts are above it; 0 or below where they keep it."""
        amounts = costs[self.cost]
        above: NDArray[np.float64] = amounts / self.most - 1.0
        return np.where(amounts <= self.most, np.minimum(above, 0.0), np.maximum(above, np.finfo(np.float64).tiny))

    def text(self, amount: float) -> str:
        """An amount for people."""
        return amount_text(amount / self.per_unit, self.unit)


@dataclass(frozen=True)
class WithinLimits:
    """FP32 cost / cost of what is minimised where everything is within its limits, else minus the relative excesses.

    Whoever keeps all limits is above whoever does not, and of two that do not the nearer is the better: constrained
    domination with the violations normalised and added (Deb, An efficient constraint handling method for genetic
    algorithms, Computer Methods in Applied Mechanics and Engineering 186, 2000), so that a search has a slope to climb.

    Attributes:
        floor: the least retention.
        at_most: the other limits.
        minimise: the name of what is minimised: the campaign's main cost, whose compression this sees.
    """

    floor: float = 0.95
    at_most: tuple[Limit, ...] = ()
    minimise: str = "bits"

    def score(
        self, retention: NDArray[np.float64], compression: NDArray[np.float64], effective_bits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Fitness where nothing but retention and bits per weight is limited.

        Raises:
            InputError: another cost is.
        """
        return self.score_costs(retention, compression, effective_bits, {EFFECTIVE_BITS: effective_bits})

    def score_costs(
        self,
        retention: NDArray[np.float64],
        compression: NDArray[np.float64],
        effective_bits: NDArray[np.float64],
        costs: Mapping[str, NDArray[np.int64] | NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Fitness, of the arguments' shape.

        Raises:
            InputError: a cost that is limited is not among `costs`.
        """
        if missing := [limit.name for limit in self.at_most if limit.cost not in costs]:
            raise InputError(
                f"objective.at_most: what candidates cost in {', '.join(missing)} is not known here; it takes a model "
                f"whose costs say so."
            )
        # Below the floor in proportion to it; the smallest number where rounding would lose the difference.
        short = np.where(
            retention < self.floor, np.maximum(1.0 - retention / self.floor, np.finfo(np.float64).tiny), 0.0
        )
        excess = short + sum((np.maximum(limit.excess(costs), 0.0) for limit in self.at_most), np.zeros(()))
        return np.where(excess > 0.0, -excess, compression)
