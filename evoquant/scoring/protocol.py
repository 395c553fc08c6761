"""What an objective, a cost and an estimator of retention promise: the extension points of scoring.

All three are pure: the same arguments give the same result, to the last bit, at any time and in every process. They
draw nothing, keep nothing between calls that changes a result, and write into none of their arguments. A campaign
names one as `{kind: module:Class, options: {...}}` and makes it as `Class(**options)`; in Python an instance, a class
or a function does as well. `evoquant.testing` has a suite for each: `check_objective`, `check_cost`,
`check_estimator`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.cost import Cost
    from evoquant.scoring.problem import Problem


@runtime_checkable
class Objective(Protocol):
    """Turns retention and size into a fitness where more is better.

    Called by the driver alone, with whole arrays: `(n, models)` of a generation, `(n, 1)` or `(n,)` of finalists, the
    gate and resampled retention. So it works element by element, on any shape. A fitness of NaN is a failed candidate;
    infinity is taken for NaN, since no journal holds it.

    The built-in bounds and `--why` take more retention and less cost to be no worse. An objective of one's own need
    not be like that: a report then states no optimum. One with a number called `floor` is understood to want at least
    that retention, and reports draw it and say how probable it is.
    """

    def score(
        self, retention: NDArray[np.float64], compression: NDArray[np.float64], effective_bits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Fitness, of the arguments' shape, float64.

        Args:
            retention: clipped to [0, 1]; NaN where a candidate failed, whose fitness is NaN whatever is returned.
            compression: cost of the model as it is, in FP32, over cost of the candidate; above 0.
            effective_bits: per weight, scales counted. Under a cost of one's own: 32 times the candidate's share of
                the FP32 cost, what no width applies to left out of both.
        """
        ...


@runtime_checkable
class SeesCosts(Protocol):
    """An objective over several costs: one that has this method is asked it in the place of `score`.

    `score` stays: it is what the objective says where only the size of a candidate is known. The built-in bounds do not
    certify an objective of one's own that sees several costs.
    """

    def score_costs(
        self,
        retention: NDArray[np.float64],
        compression: NDArray[np.float64],
        effective_bits: NDArray[np.float64],
        costs: Mapping[str, NDArray[np.int64] | NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Fitness, of the arguments' shape, float64.

        Args:
            retention, compression, effective_bits: as `Objective.score` has them.
            costs: name → what candidates cost, of the same shape: all that the campaign names under `costs`, in their
                tables' units, as whole numbers; `cost`, the one of its `cost`; `bits`, in 1/1024 bit, constants
                included; `effective_bits`, bits per weight. `bits` and `effective_bits` are missing only where a
                campaign has one `cost` of another kind and no `costs`.
        """
        ...


@runtime_checkable
class CostMaker(Protocol):
    """Makes the table of what each choice costs: `evoquant.scoring.cost.bits_cost` is one.

    Called once for each model, on the driver, when the campaign is built, and again by reports. Costs are additive
    whole numbers: what a unit costs depends on its own width alone, so that sums are exact in any order, bounds hold
    and workers need nothing but the table. Compression is `reference / cost`.
    """

    def __call__(self, profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Cost:
        """The cost of a model, in a unit that `Cost.name` says (`nanoseconds`); `bits` is evoquant's own.

        Args:
            profile: the model.
            menu: the P precisions, narrowest first.
            members: layer indices of each unit (layers that share a width), in the order of the table's rows.

        Returns:
            `Cost(name, table, constant, reference)`: `(units, P)` int64, at least 0; `constant` is what no width
            applies to; `reference` is the whole model in FP32, `constant` included, and above it. All sums stay below
            2^62.

        Raises:
            InputError: it cannot say what a layer or a width costs; the message names it.
        """
        ...


@runtime_checkable
class RetentionModel(Protocol):
    """Estimates how much of its quality a model keeps: instead of the separable Π (1 − s), for campaigns on profiles.

    Made on the driver, sent to every worker once (so it can be pickled and its class imported there), and called in
    workers with a part of a generation, and on the driver for finalists, test models and reports. How a generation is
    cut into parts depends on the number of workers: an allocation's retention is its own, whatever stands beside it.
    Every candidate's value is stored as a whole number, −ln(retention) in units of 2^−40, so that it is the same on
    the driver and on workers; below 2^−30 it counts as that.
    """

    def retention(self, problem: Problem, allocations: NDArray[np.int8]) -> NDArray[np.float64]:
        """`(n,)` float64 share of the FP32 metric that is kept, 0 or above; above 1 is allowed.

        NaN or a number below 0 is a failed candidate (`not_finite`); so is one for which this raises
        (`raised:<exception class>`), found by asking one by one.

        Args:
            problem: the model: `problem.signal(name)`, `problem.loss`, `problem.cost.table`, …; read-only.
            allocations: `(n, units)` menu indices, each allowed; n may be 0.
        """
        ...
