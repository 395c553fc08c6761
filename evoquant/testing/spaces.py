"""Conformance of genome spaces: what every space promises, whatever its genomes are.

check_space(MySpace(problem))                 on the published test model
check_space(MySpace(problem), problem)        on another
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import GenomeError
from evoquant.genomes.base import Fused, digest_of, tidy
from evoquant.genomes.load import KINDS, genome_from_dict
from evoquant.rng import generator_for
from evoquant.scoring.separable import cost_sums, loss_sums
from evoquant.testing.clauses import no_global_randomness, require, run_checks
from evoquant.testing.examples import example_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space
    from evoquant.scoring.problem import Problem


def check_space(space: Space, problem: Problem | None = None, *, n: int = 64, seed: int = 0) -> None:
    """Put `n` random genomes of `space`, and the space itself, through all that the protocols promise.

    Args:
        space: the space.
        problem: a model that the space's genomes can allocate; by default the published test model.
        n: how many random genomes.
        seed: of their random stream.

    Raises:
        ConformanceError: a promise is broken; the message names it.
    """
    problem = example_problem() if problem is None else problem
    run_checks((_check_sample,), space, n, seed)
    genes = space.sample(generator_for(seed, 0, "conformance"), n)
    checks = (
        _check_canonical,
        _check_round_trip,
        _check_rebuilding,
        _check_allocations,
        _check_dormant,
        _check_operators,
        _check_sums,
        _check_travel,
        _check_empty,
    )
    run_checks(checks, space, genes, problem)


def check_genome(genome: Genome, problem: Problem | None = None) -> None:
    """Put one genome through what the protocol promises: plain data, one line, an allocation that is allowed.

    Raises:
        ConformanceError: a promise is broken; the message names it.
    """
    problem = example_problem() if problem is None else problem
    require(isinstance(genome.text, str) and len(genome.text.splitlines()) == 1, f"text: {genome.text!r} is no line")
    require(isinstance(genome.parts, int) and genome.parts >= 0, f"parts: {genome.parts!r} is no whole number")
    data = genome.to_dict()
    try:
        text = json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        require(False, f"to_dict: no plain data for {genome.text!r}: {error}")
    require(json.loads(text) == data, f"to_dict: {genome.text!r} comes back from JSON as something else")
    require(isinstance(data.get("kind"), str), f"to_dict: no kind, by which a reader knows it, for {genome.text!r}")
    require(hash(genome) == hash(copy.deepcopy(genome)), f"equal genomes have unlike hashes: {genome.text!r}")
    require(genome == copy.deepcopy(genome), f"a copy is not equal: {genome.text!r}")
    allocation = genome.allocate(problem)
    units = len(problem.units)
    require(allocation.shape == (units,), f"allocate: shape {allocation.shape}, not (units,), for {genome.text!r}")
    require(allocation.dtype == np.int8, f"allocate: {allocation.dtype}, not int8, for {genome.text!r}")
    inside = ((allocation >= 0) & (allocation < len(problem.menu))).all()
    require(inside, f"allocate: an index outside the menu for {genome.text!r}")
    allowed = problem.allowed[np.arange(units), allocation].all()
    require(allowed, f"allocate: a width that is not allowed for {genome.text!r}")


def _check_sample(space: Space, n: int, seed: int) -> None:
    """Random genomes: `(n, genes)`, within their limits, tidy, of their generator alone."""
    require(isinstance(space.kind, str) and space.kind, f"kind is {space.kind!r}, expected a word")
    names = [gene.name for gene in space.genes]
    require(len(set(names)) == len(names), "genes: two have one name")
    require(all(gene.low <= gene.high for gene in space.genes), "genes: limits where low is above high")
    with no_global_randomness("sample"):
        genes = space.sample(generator_for(seed, 0, "conformance"), n)
    _check_rows("sample", space, genes, n)
    again = space.sample(generator_for(seed, 0, "conformance"), n)
    require(np.array_equal(again, genes), "sample: depends on more than its generator")


def _check_canonical(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """Equal heuristics have equal rows, and only they."""
    before = genes.copy()
    canonical = space.canonical(genes)
    require(np.array_equal(genes, before), "canonical: changes its argument")
    require(canonical.shape == genes.shape, "canonical: changes the shape")
    require(np.array_equal(space.canonical(canonical), canonical), "canonical: not idempotent")
    same = np.array_equal(space.allocate(canonical, problem), space.allocate(genes, problem))
    require(same, "canonical: changes an allocation")
    require(np.array_equal(space.parts(canonical), space.parts(genes)), "canonical: changes the parts")
    digests = [digest_of(space.decode(row)) for row in canonical]
    for i, row in enumerate(canonical):
        equal = (canonical == row).all(axis=1)
        told = np.array([digest == digests[i] for digest in digests])
        require(np.array_equal(equal, told), "canonical: rows are equal and genomes are not, or the other way round")


def _check_round_trip(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """A row and its genome say the same, and a genome is plain data."""
    for row in space.canonical(genes):
        genome = space.decode(row)
        check_genome(genome, problem)
        require(np.array_equal(space.encode(genome), row), f"encode(decode(row)) is another row for {genome.text!r}")
        require(space.decode(space.encode(genome)) == genome, f"decode(encode(genome)) differs for {genome.text!r}")
        require(int(space.parts(row[None])[0]) == genome.parts, f"parts: disagree for {genome.text!r}")
    try:
        space.encode(_Stranger())
    except GenomeError:
        return
    require(False, "encode: a genome of another space should raise GenomeError")


def _check_rebuilding(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """A genome is rebuilt from its data alone, as a champion's file is read without its campaign."""
    for row in space.canonical(genes)[:8]:
        genome = space.decode(row)
        data = json.loads(json.dumps(genome.to_dict()))
        if data["kind"] in KINDS:
            again = genome_from_dict(data, "conformance")
        else:
            require(data["kind"] == space.kind, f"to_dict: kind {data['kind']!r}, and the space's is {space.kind!r}")
            rebuild: Any = getattr(type(space), "genome_from_dict", None)
            require(callable(rebuild), "genome_from_dict: a space whose genomes are its own has such a class method")
            again = rebuild(data)
            try:
                rebuild({"kind": space.kind, "strange": [1, 2]})
            except GenomeError:
                pass
            else:
                require(False, "genome_from_dict: data of no genome should raise GenomeError")
        require(again == genome, f"a genome that is rebuilt from to_dict differs for {genome.text!r}")


class _Stranger:
    """A genome that no space knows."""

    parts = 0
    text = "a stranger"

    def allocate(self, problem: Problem) -> NDArray[np.int8]:
        raise GenomeError("a stranger allocates nothing.")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "a stranger"}


def _check_allocations(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """Allocations: allowed widths, the genome's own, whatever rows stand beside."""
    before = genes.copy()
    units = len(problem.units)
    allocations = space.allocate(genes, problem)
    require(allocations.shape == (len(genes), units), f"allocate: shape {allocations.shape}, not (n, units)")
    require(allocations.dtype == np.int8, f"allocate: {allocations.dtype}, not int8")
    inside = ((allocations >= 0) & (allocations < len(problem.menu))).all()
    require(inside, "allocate: an index outside the menu")
    require(problem.allowed[np.arange(units), allocations].all(), "allocate: a width that is not allowed")
    for row, allocation in zip(genes, allocations, strict=True):
        genome = space.decode(row)
        alone = genome.allocate(problem)
        require(np.array_equal(alone, allocation), f"allocate: the genome alone differs for {genome.text!r}")
    halves = [space.allocate(part, problem) for part in np.array_split(genes, 2)]
    require(np.array_equal(np.concatenate(halves), allocations), "allocate: depends on the other rows")
    require(np.array_equal(genes, before), "allocate: changes its argument")


def _check_dormant(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """A gene that is said to have no effect has none."""
    dormant = space.dormant(genes)
    require(dormant.shape == genes.shape and dormant.dtype == bool, "dormant: no mask of the genes' shape")
    for end in ("low", "high"):
        limit = np.array([getattr(gene, end) for gene in space.genes])
        moved = np.where(dormant, limit, genes)
        same = np.array_equal(space.allocate(moved, problem), space.allocate(genes, problem))
        require(same, "dormant: a gene said to be dormant changes an allocation")
        same = np.array_equal(space.canonical(moved), space.canonical(genes))
        require(same, "dormant: a gene said to be dormant changes the canonical row")


def _check_operators(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """Children are genomes: within the limits, of their generator alone; parents stay as they are."""
    others = genes[::-1].copy()
    before = genes.copy()
    operators: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
        "cross": lambda rng: space.cross(genes, others, rng),
        "mutate": lambda rng: space.mutate(genes, 0.3, rng),
        "tune": lambda rng: space.tune(genes, rng),
    }
    for name, operator in operators.items():
        with no_global_randomness(name):
            children = operator(generator_for(1, 0, "conformance"))
        require(np.array_equal(genes, before) and np.array_equal(others, before[::-1]), f"{name}: changes its argument")
        _check_rows(name, space, children, len(genes))
        again = operator(generator_for(1, 0, "conformance"))
        require(np.array_equal(again, children), f"{name}: depends on more than its generator and its parents")
        shape = space.allocate(children, problem).shape
        require(shape == (len(genes), len(problem.units)), f"{name}: children that cannot allocate")
    same = space.mutate(space.canonical(genes), 0.0, generator_for(1, 0, "conformance"))
    require(np.array_equal(space.canonical(same), space.canonical(genes)), "mutate: changes something at rate 0")


def _check_sums(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """A space that sums losses and costs itself sums exactly those of its allocations."""
    if not isinstance(space, Fused) or problem.loss is None:
        return
    allocations = space.allocate(genes, problem)
    losses, costs = space.sums(genes, problem)
    require(np.array_equal(losses, loss_sums(problem, allocations)), "sums: other losses than those of allocate")
    require(np.array_equal(costs, cost_sums(problem, allocations)), "sums: other costs than those of allocate")


def _check_travel(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """A space can be copied to another process, and allocates the same there."""
    try:
        copied = copy.deepcopy(space)
    except Exception as error:
        require(False, f"the space cannot be copied to a worker: {error}")
    same = np.array_equal(copied.allocate(genes, problem), space.allocate(genes, problem))
    require(same, "a copy of the space, as a worker gets one, allocates differently")


def _check_empty(space: Space, genes: NDArray[np.float64], problem: Problem) -> None:
    """A population may be empty."""
    nothing = np.empty((0, len(space.genes)))
    require(space.allocate(nothing, problem).shape == (0, len(problem.units)), "allocate: an empty population")
    require(space.canonical(nothing).shape == nothing.shape, "canonical: an empty population")
    require(space.parts(nothing).shape == (0,), "parts: an empty population")


def _check_rows(name: str, space: Space, genes: NDArray[np.float64], n: int) -> None:
    require(genes.shape == (n, len(space.genes)), f"{name}: shape {genes.shape}, not (n, genes)")
    require(genes.dtype == np.float64, f"{name}: {genes.dtype}, not float64")
    low = np.array([gene.low for gene in space.genes])
    high = np.array([gene.high for gene in space.genes])
    require(((genes >= low) & (genes <= high)).all(), f"{name}: a gene lies outside its limits")
    for column, gene in zip(genes.T, space.genes, strict=True):
        whole = gene.kind in ("flag", "option", "width")
        require(not whole or (column == np.rint(column)).all(), f"{name}: gene {gene.name!r} is no whole number")
    require(np.array_equal(tidy(space.genes, genes), genes), f"{name}: rows are not tidy")
