"""Trees: a typed expression that is the cost of giving a unit a width; each unit takes the width with the least cost.

Populations are arrays like those of every other space: a row is `max_nodes` codes in prefix order (0 beyond the end),
then `max_nodes` constants, which are read where the code is the constant's. Strongly typed genetic programming:
Montana, Evolutionary Computation 3(2), 1995.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import GenomeError, describe_validation, suggestion
from evoquant.genomes.base import TUNE_SIGMA, Gene, tidy
from evoquant.genomes.expression import (
    ALL_SIGNALS,
    IS_TYPE,
    OPERATOR,
    OPERATORS,
    SIZE_SHARE,
    STATE,
    Token,
    arguments,
    check_expression,
    depth_of,
)
from evoquant.genomes.tree_numpy import settled, signal_values
from evoquant.scoring.separable import cost_sums, loss_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.quantization.precision import Menu
    from evoquant.scoring.problem import Problem

SMALLEST_CONSTANT, LARGEST_CONSTANT = 1e-6, 1e3
CONSTANT = len(OPERATORS) + 1  # its code: operators come before it, signals and type flags after
COMPILED_FROM = 50  # rows: of fewer, four models are done before numba could be imported
KERNEL_FROM = 8  # rows, once it is
LEAP_RATE = 0.1  # share of tuned trees whose constants take a large step
LEAP_SIGMA = 1.5  # e^1.5 ≈ 4.5: a leap can take a constant to another order of magnitude
NUDGE = 1.1  # the least factor that always changes a figure of two digits


@dataclass(frozen=True)
class Tree:
    """A tree genome.

    Attributes:
        expression: in prefix order: operator and signal names, and constants; see `evoquant.genomes.expression`.
    """

    expression: tuple[Token, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", tuple(t if isinstance(t, str) else float(t) for t in self.expression))
        check_expression(self.expression)

    @property
    def parts(self) -> int:
        """Nodes."""
        return len(self.expression)

    @property
    def text(self) -> str:
        """The simplified formula in one line."""
        from evoquant.genomes.tree_text import formula

        return formula(self.expression)

    def allocate(self, problem: Problem) -> NDArray[np.int8]:
        """`(units,)` menu indices: the allowed width with the least cost, of equals the narrowest.

        Raises:
            ProfileError: the profile lacks a signal that the tree reads.
        """
        return settled(self.expression, problem)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `tree_from_dict` rebuilds the tree."""
        return {"kind": "tree", "expression": list(self.expression)}


def tree_from_dict(data: Any, source: str) -> Tree:
    """Rebuild a tree from plain data, by table look-up.

    Raises:
        GenomeError: not a tree; the message begins with `source` and names the position.
    """
    from pydantic import ValidationError

    from evoquant.genomes.schema import TreeSchema

    try:
        return TreeSchema.model_validate(data).to_tree()
    except ValidationError as error:
        raise GenomeError(describe_validation(error, source, TreeSchema.model_fields)) from None
    except GenomeError as error:
        raise GenomeError(f"{source}: {error}") from None


def _check_operators(names: Sequence[str], types: Sequence[str]) -> None:
    """Check that trees can grow: for every type of argument there is an operator that gives it."""
    usable = [
        operator
        for operator in map(OPERATOR.__getitem__, names)
        if types or "flag" not in (*operator.args, operator.result)
    ]
    for kind in ("number", "flag"):
        giving = [name for name, operator in OPERATOR.items() if operator.result == kind]
        needed = kind == "number" or any(kind in operator.args for operator in usable)
        if needed and not any(operator.result == kind for operator in usable):
            without = "" if types else " (without layer types there are no flags)"
            raise GenomeError(
                f"genome.operators: {', '.join(names)} leaves trees without an operator that gives a {kind}{without}; "
                f"add one of {', '.join(giving)}."
            )


class TreeSpace:
    """Trees over given signals and layer types, of at most so many nodes and levels, as arrays.

    A row without a complete tree, such as zeros alone, counts as a single constant, which gives every unit its
    narrowest width.
    """

    kind = "tree"
    dear = True  # scoring one takes longer than looking up whether the last generation held it

    def __init__(
        self,
        menu: Menu,
        types: Sequence[str],
        signals: Sequence[str],
        *,
        operators: Sequence[str] | None = None,
        max_nodes: int = 31,
        max_depth: int = 8,
    ) -> None:
        if not signals:
            raise GenomeError("genome.signals: is empty; trees need at least one signal, such as loss.")
        for name in signals:
            if name not in ALL_SIGNALS:
                raise GenomeError(f"genome.signals: trees have no signal {name!r}.{suggestion(name, ALL_SIGNALS)}")
        self.menu = menu
        self.types = tuple(dict.fromkeys(types))
        self.signals = tuple(dict.fromkeys(signals))
        self.operators = tuple(OPERATOR) if operators is None else tuple(dict.fromkeys(operators))
        _check_operators(self.operators, self.types)
        self.max_nodes = max_nodes
        self.max_depth = max_depth
        self.tokens: tuple[Token, ...] = (
            "",
            *(operator.name for operator in OPERATORS),
            SMALLEST_CONSTANT,
            *self.signals,
            *(IS_TYPE + kind for kind in self.types),
        )
        last = len(self.tokens) - 1
        self.genes = (
            *(Gene(f"node {i}", "option", 0, last, i) for i in range(max_nodes)),
            *(Gene(f"constant {i}", "log", SMALLEST_CONSTANT, LARGEST_CONSTANT, i) for i in range(max_nodes)),
        )
        self._low = np.array([gene.low for gene in self.genes])
        told: tuple[Token, ...] = (*STATE, SIZE_SHARE)
        # For each code its place in the state, 2 for the leaf that is divided by the first, −1 for all others.
        self.state_of = np.array([told.index(t) if t in told else -1 for t in self.tokens], dtype=np.int64)
        self._codes = {token: code for code, token in enumerate(self.tokens) if isinstance(token, str)}
        # The end takes more arguments than there is room for, so that no row is complete with it.
        self.arity = np.array([max_nodes + 1, *(len(arguments(token)) for token in self.tokens[1:])], dtype=np.int64)

    def lengths(self, genes: NDArray[np.float64]) -> NDArray[np.intp]:
        """`(n,)` nodes of each row's tree; 0 where a row holds no complete one."""
        wanted = 1 + np.cumsum(self.arity[genes[:, : self.max_nodes].astype(np.intp)] - 1, axis=1)
        complete = wanted == 0
        found: NDArray[np.intp] = np.where(complete.any(axis=1), complete.argmax(axis=1) + 1, 0)
        return found

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """`(n, genes)` random trees, one to five levels deep, half of them grown full."""
        rows: NDArray[np.float64] = self._operators.sample(rng, n)
        return rows

    def cross(
        self, first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """`(n, genes)` children: the first parent with one subtree from the second."""
        rows: NDArray[np.float64] = self._operators.cross(first, second, rng)
        return rows

    def mutate(self, genes: NDArray[np.float64], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, genes)`: a tree of k nodes is changed, by one operator, with probability 1 − (1 − rate)^k."""
        nodes = np.maximum(self.lengths(genes), 1)
        chosen = rng.random(len(genes)) < 1.0 - (1.0 - rate) ** nodes
        rows: NDArray[np.float64] = self._operators.mutate(genes, chosen, rng)
        return rows

    def tune(self, genes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, genes)` with each constant changed, a little, with probability ½, and at least one where there is one.

        A tenth of the trees take a large step instead.
        """
        rows = self.canonical(genes)
        used = rows[:, : self.max_nodes] == CONSTANT
        constants = rows[:, self.max_nodes :]
        lottery = np.where(used, rng.random(used.shape), -1.0)
        chosen = lottery == lottery.max(axis=1, keepdims=True)
        sigma = np.where(rng.random((len(rows), 1)) < LEAP_RATE, LEAP_SIGMA, TUNE_SIGMA)
        moved = self._tidy(constants * np.exp(sigma * rng.normal(0.0, 1.0, used.shape)))
        tuned = np.where(used & (chosen | (rng.random(used.shape) < 0.5)), moved, constants)
        up = (rng.random((len(rows), 1)) < 0.5) & (constants < LARGEST_CONSTANT) | (constants == SMALLEST_CONSTANT)
        nudged = self._tidy(np.where(up, constants * NUDGE, constants / NUDGE))
        stuck = (tuned == constants).all(axis=1, keepdims=True)
        rows[:, self.max_nodes :] = np.where(used & chosen & stuck, nudged, tuned)
        return rows

    def dormant(self, genes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """`(n, genes)`: what lies beyond a tree's end, and the constants of all nodes that are none."""
        length = self.lengths(genes)[:, None]
        beyond = (np.arange(self.max_nodes) >= length) & (length > 0)
        return np.concatenate([beyond, beyond | (genes[:, : self.max_nodes] != CONSTANT)], axis=1)

    def canonical(self, genes: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(n, genes)`: dormant codes 0, dormant constants at their lowest."""
        rows = np.where(self.dormant(genes), self._low, genes)
        empty = self.lengths(rows) == 0
        rows[empty, 0] = CONSTANT
        rows[empty, 1 : self.max_nodes] = 0.0
        rows[empty, self.max_nodes :] = SMALLEST_CONSTANT
        return rows

    def parts(self, genes: NDArray[np.float64]) -> NDArray[np.int64]:
        """`(n,)` nodes."""
        return np.maximum(self.lengths(genes), 1).astype(np.int64)

    def allocate(self, genes: NDArray[np.float64], problem: Problem) -> NDArray[np.int8]:
        """`(n, units)` menu indices, each allowed.

        Raises:
            ProfileError: the profile lacks a signal that a tree reads.
        """
        if self._few(len(genes)):
            result = np.empty((len(genes), len(problem.units)), dtype=np.int8)
            for i, row in enumerate(self.canonical(genes)):
                result[i] = settled(self.expression(row), problem)
            return result
        from evoquant.genomes import tree_compiled

        return tree_compiled.allocations(self, genes, problem)

    def sums(self, genes: NDArray[np.float64], problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`(n,)` summed integer losses and `(n,)` total costs of the allocations, the constant part included.

        Raises:
            ProfileError: the profile lacks a loss, or a signal that a tree reads.
        """
        if self._few(len(genes)):
            allocations = self.allocate(genes, problem)
            return loss_sums(problem, allocations), cost_sums(problem, allocations)
        from evoquant.genomes import tree_compiled

        return tree_compiled.sums(self, genes, problem)

    @staticmethod
    def _few(rows: int) -> bool:
        return rows < (KERNEL_FROM if "evoquant.genomes.tree_kernel" in sys.modules else COMPILED_FROM)

    def leaves(self, read: NDArray[np.bool_], problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Values of the signals and flags that a population reads, for the kernel.

        Args:
            read: `(codes,)` which codes occur.
            problem: the model.

        Returns:
            `(leaves + 1, P, units)` values: what is not read is 0, and so is the last, the cost of all that cost the
            same at every width; and for each its spread: 0 a number, 1 differs per unit, 2 also per width.
        """
        tokens = self.tokens[CONSTANT + 1 :]
        table = np.zeros((len(tokens) + 1, len(problem.menu), len(problem.units)))
        spread = np.full(len(table), 2, dtype=np.int64)
        for leaf in np.flatnonzero(read[CONSTANT + 1 :]).tolist():
            values = signal_values(problem, str(tokens[leaf]))
            table[leaf] = values.T
            spread[leaf] = 2 if values.shape[1] > 1 else int(values.shape[0] > 1)
        return table, spread

    def expression(self, row: NDArray[np.float64]) -> tuple[Token, ...]:
        """The expression of one canonical row."""
        codes = row[: self.max_nodes].astype(np.intp).tolist()
        constants = row[self.max_nodes :].tolist()
        length = codes.index(0) if 0 in codes else len(codes)
        return tuple(constants[i] if code == CONSTANT else self.tokens[code] for i, code in enumerate(codes[:length]))

    def encode(self, genome: Any) -> NDArray[np.float64]:
        """`(genes,)` row of a tree, dormant genes at their lowest.

        Raises:
            GenomeError: not a tree, too large, or with a signal, layer type or constant that this space lacks.
        """
        if not isinstance(genome, Tree):
            raise GenomeError(f"{genome!r} is no tree and cannot start a search over trees.")
        if genome.parts > self.max_nodes:
            raise GenomeError(f"tree {genome.text!r} has {genome.parts} nodes; max_nodes allows {self.max_nodes}.")
        if (depth := depth_of(genome.expression)) > self.max_depth:
            raise GenomeError(f"tree {genome.text!r} is {depth} levels deep; max_depth allows {self.max_depth}.")
        row = self._low.copy()
        for i, token in enumerate(genome.expression):
            row[i] = self._code(token)
            if not isinstance(token, str):
                row[self.max_nodes + i] = token
        return row

    def _code(self, token: Token) -> int:
        if isinstance(token, str):
            if token not in self._codes:
                raise GenomeError(
                    f"the search has no signal {token!r}; add it to genome.signals or its layer type to genome.types."
                    f"{suggestion(token, self._codes)}"
                )
            return self._codes[token]
        if not SMALLEST_CONSTANT <= token <= LARGEST_CONSTANT:
            raise GenomeError(
                f"the search holds constants from {SMALLEST_CONSTANT:g} to {LARGEST_CONSTANT:g}, and {token!r} is "
                f"none; write the tree with one of these."
            )
        return CONSTANT

    def decode(self, row: NDArray[np.float64]) -> Tree:
        """The tree of one row."""
        return Tree(self.expression(self.canonical(row[None])[0]))

    def _tidy(self, constants: NDArray[np.float64]) -> NDArray[np.float64]:
        return tidy(self.genes[self.max_nodes :], constants)

    @property
    def _operators(self) -> Any:
        from evoquant.genomes.tree_operators import TreeOperators, primitives

        return TreeOperators(self, primitives(self.types, self.signals, self.operators))
