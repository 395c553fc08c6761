"""Populations of trees on one model, compiled: the tables that the kernel reads, rounds, and rows shared out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.genomes.expression import ROUNDS
from evoquant.genomes.tree_numpy import state_of, widest
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.threads import in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.tree import TreeSpace
    from evoquant.scoring.problem import Problem

THREADS_FROM = 1 << 18  # rows · units: of fewer, all are done in about the time that threads take to start
CHUNK = 2048  # rows whose trees share what they have in common, at most
MOST_NODES = 1 << 20  # of a chunk, as the kernel numbers them


@dataclass(frozen=True)
class _Tables:
    """What `tree_kernel.evaluate` reads of a space and a problem: plain arrays in C order, as it is compiled for."""

    arity: NDArray[np.int64]
    state_of: NDArray[np.int64]
    leaves: NDArray[np.float64]
    spread: NDArray[np.int64]
    barrier: NDArray[np.float64]
    loss: NDArray[np.int64]
    cost: NDArray[np.int64]


def allocations(space: TreeSpace, genes: NDArray[np.float64], problem: Problem) -> NDArray[np.int8]:
    """`(n, units)` menu indices, each allowed.

    Raises:
        ProfileError: the profile lacks a signal that a tree reads.
    """
    result = np.empty((len(genes), len(problem.units)), dtype=np.int8)
    _score(space, genes, problem, np.empty((len(genes), 0), dtype=np.int64), result)
    return result


def sums(space: TreeSpace, genes: NDArray[np.float64], problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`(n,)` summed losses and `(n,)` total costs, the constant part included, of the same allocations.

    Raises:
        ProfileError: the profile lacks a loss, or a signal that a tree reads.
    """
    problem.separable_loss()
    result = np.empty((len(genes), 2), dtype=np.int64)
    _score(space, genes, problem, result, np.empty((len(genes), 0), dtype=np.int8))
    return result[:, 0].copy(), result[:, 1] + problem.cost.constant


def _score(
    space: TreeSpace,
    genes: NDArray[np.float64],
    problem: Problem,
    totals: NDArray[np.int64],
    chosen: NDArray[np.int8],
) -> None:
    """Fill the columns that `totals`, `(n, 2 or 0)`, and `chosen`, `(n, units or 0)`, have."""
    from evoquant.genomes import tree_kernel

    genes = np.require(genes, dtype=np.float64, requirements=["C", "W"])
    read = np.zeros(len(space.tokens), dtype=np.bool_)
    lengths, told = tree_kernel.survey(genes, space.arity, space.state_of, read)
    leaves, spread = space.leaves(read, problem)
    cost = problem.cost.table.T.copy()
    tables = _Tables(
        space.arity,
        space.state_of,
        leaves,
        spread,
        np.where(problem.allowed.T, 0.0, np.inf).copy(),
        cost if problem.loss is None else problem.loss.T.copy(),  # read only where there are losses
        cost,
    )
    chunk = max(1, min(CHUNK, (MOST_NODES - len(leaves)) // (2 * space.max_nodes)))

    def score(part: slice) -> None:
        for start in range(part.start, min(part.stop, len(genes)), chunk):
            rows = slice(start, min(start + chunk, part.stop, len(genes)))
            _settle(tables, problem, genes[rows], lengths[rows], told[rows], totals[rows], chosen[rows])

    in_threads(score, len(genes), many=len(genes) * len(problem.units) >= THREADS_FROM)


def _settle(
    tables: _Tables,
    problem: Problem,
    genes: NDArray[np.float64],
    lengths: NDArray[np.int64],
    told: NDArray[np.bool_],
    totals: NDArray[np.int64],
    chosen: NDArray[np.int8],
) -> None:
    """Trees that read the state of the allocation go round after round, together, until it stays as it is."""
    from evoquant.genomes import tree_kernel

    def evaluate(rows: NDArray[np.int64], sums: NDArray[np.int64], allocations: NDArray[np.int8]) -> None:
        tree_kernel.evaluate(
            genes, rows, lengths, tables.arity, tables.state_of, state, tables.leaves, tables.spread, tables.barrier,
            tables.loss, tables.cost, sums, allocations
        )  # fmt: skip

    (rows,) = np.nonzero(told)
    state = np.zeros((len(genes), 2))
    if not len(rows):
        evaluate(np.arange(len(genes)), totals, chosen)
        return
    first = state_of(problem, widest(problem))
    state[:] = first["mean_bits"], first.get("total_loss", 0.0)
    everything = np.empty((len(genes), 2), dtype=np.int64)
    evaluate(np.arange(len(genes)), everything, chosen)
    for _ in range(ROUNDS - 1):
        # Equal states lead to equal allocations.
        after = (
            everything[rows][:, ::-1] / np.array([problem.bit, LOSS_UNITS]) / np.array([float(problem.weights), 1.0])
        )
        moved = (after != state[rows]).any(axis=1)
        rows = rows[moved]
        if not len(rows):
            break
        state[rows] = after[moved]
        some, others = np.empty((len(rows), 2), dtype=np.int64), np.empty((len(rows), chosen.shape[1]), dtype=np.int8)
        evaluate(rows, some, others)
        everything[rows], chosen[rows] = some, others
    if totals.size:
        totals[:] = everything
