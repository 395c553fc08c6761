"""What evoquant's searches are judged against: greedy flips, and the tree-structured Parzen estimator of Optuna."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import MissingExtraError
from evoquant.search.base import NO_PARENT, CandidateBatch, Turn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.direct import DirectSpace
    from evoquant.search.base import EvaluationBatch


class _Rival:
    """Turns, ids and batches; one allocation or more at a time."""

    def __init__(self, space: DirectSpace) -> None:
        self._space = space
        self._turn = Turn()
        self._next_id = 0

    def done(self) -> bool:
        """Never, unless a rival knows an end."""
        return False

    def _batch(self, allocations: NDArray[np.float64]) -> CandidateBatch:
        n = len(allocations)
        self._turn.asked(n)
        first, self._next_id = self._next_id, self._next_id + n
        parents = np.full((n, 2), NO_PARENT, dtype=np.int64)
        return CandidateBatch(first, parents, (type(self).__name__.lower(),) * n, genes=allocations)


class Flips(_Rival):
    """Automatic mixed precision by flips, all measured, from the widest allocation.

    First each unit alone at each narrower width; sorted by retention lost per bit saved, these become flips that are
    tried one after the other and kept while retention stays at or above the floor (after the AMP of Qualcomm's AIMET).
    """

    def __init__(self, space: DirectSpace, floor: float) -> None:
        super().__init__(space)
        self._floor = floor
        widest = np.full(len(space.genes), len(space.problem.menu) - 1, dtype=np.float64)
        self._current: NDArray[np.float64] = space.canonical(widest[None])[0]
        cells = [(unit, width) for unit in range(len(widest)) for width in range(len(space.problem.menu) - 1)]
        self._alone = cells
        self._flips: list[tuple[int, int]] | None = None
        self._asked: NDArray[np.float64] = np.empty((0, len(widest)))

    def done(self) -> bool:
        """Whether every flip has been tried."""
        return self._flips is not None and not self._flips

    def ask(self) -> CandidateBatch:
        """The start and all of its narrowings; then one flip after the other."""
        if self._flips is None:
            self._asked = np.stack([self._current, *(self._flipped(*cell) for cell in self._alone)])
        else:
            self._asked = self._flipped(*self._flips.pop(0))[None]
        return self._batch(self._asked)

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Sort the flips by what they cost, or keep the one that was tried."""
        self._turn.told(len(evaluations))
        retention = evaluations.retention[:, 0]
        if self._flips is None:
            price = _prices(retention, evaluations.effective_bits[:, 0])
            self._flips = [self._alone[i] for i in np.argsort(price, kind="stable").tolist()]
        elif retention[0] >= self._floor:
            self._current = self._asked[0]
        self._flips = [cell for cell in self._flips if cell[1] < self._current[cell[0]]]

    def _flipped(self, unit: int, width: int) -> NDArray[np.float64]:
        row = self._current.copy()
        row[unit] = width
        return row


class Steepest(_Rival):
    """From the widest allocation: measure every narrowing by one level, take the best, and again, above the floor.

    The best is the one that loses the least retention per bit saved.
    """

    def __init__(self, space: DirectSpace, floor: float) -> None:
        super().__init__(space)
        self._floor = floor
        widest = np.full((1, len(space.genes)), len(space.problem.menu) - 1, dtype=np.float64)
        self._current: NDArray[np.float64] = space.canonical(widest)[0]
        self._steps: NDArray[np.float64] = np.empty((0, widest.shape[1]))
        self._stuck = False

    def done(self) -> bool:
        """Whether no narrowing keeps the floor."""
        return self._stuck

    def ask(self) -> CandidateBatch:
        """The current allocation, known but for the first time, and its narrowings."""
        units = len(self._current)
        narrower = self._space.levels(self._current[None], up=False)[0]
        trials = np.tile(self._current, (units, 1))
        trials[np.arange(units), np.arange(units)] = narrower
        self._steps = trials[narrower != self._current]
        return self._batch(np.concatenate([self._current[None], self._steps]))

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Go on from the best narrowing that keeps the floor."""
        self._turn.told(len(evaluations))
        retention = evaluations.retention[:, 0]
        price = np.where(retention[1:] >= self._floor, _prices(retention, evaluations.effective_bits[:, 0]), np.inf)
        self._stuck = not np.isfinite(price).any()
        if not self._stuck:
            self._current = self._steps[int(price.argmin())]


class Tpe(_Rival):
    """Optuna's TPESampler, one categorical parameter a unit, beginning with the uniform allocations.

    Multivariate: the units are modelled together, which finds more here than Optuna's default, in a tenth of the time.

    Bergstra, Bardenet, Bengio & Kégl, Algorithms for hyper-parameter optimization, NIPS 2011.
    """

    def __init__(self, space: DirectSpace, seed: int) -> None:
        super().__init__(space)
        optuna = _optuna()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the option is experimental
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        for row in uniform_genes(space).astype(int).tolist():
            self._study.enqueue_trial(dict(zip((gene.name for gene in space.genes), row, strict=True)))
        self._trial: Any = None

    def ask(self) -> CandidateBatch:
        """One trial."""
        self._trial = self._study.ask()
        widths = range(len(self._space.problem.menu))
        row = [self._trial.suggest_categorical(gene.name, widths) for gene in self._space.genes]
        return self._batch(self._space.canonical(np.array([row], dtype=np.float64)))

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Its fitness."""
        self._turn.told(len(evaluations))
        self._study.tell(self._trial, float(evaluations.fitness[0]))


def uniform_genes(space: DirectSpace) -> NDArray[np.float64]:
    """`(P, units)` the uniform allocations, narrowest first."""
    widths = np.arange(len(space.problem.menu), dtype=np.float64)
    rows: NDArray[np.float64] = space.canonical(np.repeat(widths[:, None], len(space.genes), axis=1))
    return rows


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("the search tpe", "optuna", "bench") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _prices(retention: NDArray[np.float64], bits: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n − 1,)` retention lost per effective bit saved, each against the first."""
    return np.asarray((retention[0] - retention[1:]) / (bits[0] - bits[1:]), dtype=np.float64)
