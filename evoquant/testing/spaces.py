"""Conformance suite for genome spaces: what every space promises, whatever its genomes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.genomes.base import digest_of, tidy
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.base import Space
    from evoquant.scoring.problem import Problem


def check_space(space: Space, problem: Problem, *, n: int = 64, seed: int = 0) -> None:
    """Put `n` random genomes of `space` through all that the protocol promises.

    Args:
        space: the space.
        problem: a model that the space's genomes can allocate.
        n: how many random genomes.
        seed: of their random stream.

    Raises:
        AssertionError: a promise is broken; the message names it.
    """
    genes = space.sample(generator_for(seed, 0, "conformance"), n)
    _check_sample(space, genes, n, seed)
    _check_canonical(space, genes, problem)
    _check_round_trip(space, genes)
    _check_allocations(space, genes, problem)
    _check_dormant(space, genes, problem)
    _check_empty(space, problem)


def _require(holds: object, promise: str) -> None:
    if not holds:
        raise AssertionError(promise)


def _check_sample(space: Space, genes: NDArray[np.float64], n: int, seed: int) -> None:
    _require(genes.shape == (n, len(space.genes)), f"sample: shape {genes.shape}, not (n, genes)")
    _require(genes.dtype == np.float64, f"sample: {genes.dtype}, not float64")
    low = np.array([gene.low for gene in space.genes])
    high = np.array([gene.high for gene in space.genes])
    _require(((genes >= low) & (genes <= high)).all(), "sample: a gene lies outside its limits")
    for column, gene in zip(genes.T, space.genes, strict=True):
        whole = gene.kind in ("flag", "option", "width")
        _require(not whole or (column == np.rint(column)).all(), f"sample: gene {gene.name!r} is no whole number")
    _require(np.array_equal(tidy(space.genes, genes), genes), "sample: rows are not tidy")
    again = space.sample(generator_for(seed, 0, "conformance"), n)
    _require(np.array_equal(again, genes), "sample: depends on more than its generator")


def _check_canonical(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    before = genes.copy()
    canonical = space.canonical(genes)
    _require(np.array_equal(genes, before), "canonical: changes its argument")
    _require(canonical.shape == genes.shape, "canonical: changes the shape")
    _require(np.array_equal(space.canonical(canonical), canonical), "canonical: not idempotent")
    same = np.array_equal(space.allocate(canonical, problem), space.allocate(genes, problem))
    _require(same, "canonical: changes an allocation")
    _require(np.array_equal(space.parts(canonical), space.parts(genes)), "canonical: changes the parts")
    digests = [digest_of(space.decode(row)) for row in canonical]
    for i, row in enumerate(canonical):
        equal = (canonical == row).all(axis=1)
        told = np.array([digest == digests[i] for digest in digests])
        _require(np.array_equal(equal, told), "canonical: rows are equal and genomes are not, or the other way round")


def _check_round_trip(space: Space, genes: NDArray[np.float64]) -> None:
    for row in space.canonical(genes):
        genome = space.decode(row)
        _require(np.array_equal(space.encode(genome), row), f"encode(decode(row)) is another row for {genome.text!r}")
        _require(space.decode(space.encode(genome)) == genome, f"decode(encode(genome)) differs for {genome.text!r}")
        _require(int(space.parts(row[None])[0]) == genome.parts, f"parts: disagree for {genome.text!r}")


def _check_allocations(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    units = len(problem.units)
    allocations = space.allocate(genes, problem)
    _require(allocations.shape == (len(genes), units), f"allocate: shape {allocations.shape}, not (n, units)")
    _require(allocations.dtype == np.int8, f"allocate: {allocations.dtype}, not int8")
    inside = ((allocations >= 0) & (allocations < len(problem.menu))).all()
    _require(inside, "allocate: an index outside the menu")
    _require(problem.allowed[np.arange(units), allocations].all(), "allocate: a width that is not allowed")
    for row, allocation in zip(genes, allocations, strict=True):
        genome = space.decode(row)
        alone = genome.allocate(problem)
        _require(np.array_equal(alone, allocation), f"allocate: the genome alone differs for {genome.text!r}")
    halves = [space.allocate(part, problem) for part in np.array_split(genes, 2)]
    _require(np.array_equal(np.concatenate(halves), allocations), "allocate: depends on the other rows")


def _check_dormant(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    dormant = space.dormant(genes)
    _require(dormant.shape == genes.shape and dormant.dtype == bool, "dormant: no mask of the genes' shape")
    for end in ("low", "high"):
        limit = np.array([getattr(gene, end) for gene in space.genes])
        moved = np.where(dormant, limit, genes)
        same = np.array_equal(space.allocate(moved, problem), space.allocate(genes, problem))
        _require(same, "dormant: a gene said to be dormant changes an allocation")
        same = np.array_equal(space.canonical(moved), space.canonical(genes))
        _require(same, "dormant: a gene said to be dormant changes the canonical row")


def _check_empty(space: Space, problem: Problem) -> None:
    nothing = np.empty((0, len(space.genes)))
    _require(space.allocate(nothing, problem).shape == (0, len(problem.units)), "allocate: an empty population")
    _require(space.canonical(nothing).shape == nothing.shape, "canonical: an empty population")
    _require(space.parts(nothing).shape == (0,), "parts: an empty population")
