"""Random trees, crossover and mutation with DEAP, on populations as arrays.

Koza, Genetic Programming, 1992 (growing, subtree crossover, mutation); Poli, Langdon & McPhee, A Field Guide to
Genetic Programming, 2008, chapters 2 and 5 (point mutation, shrinking, insertion).

DEAP draws from the `random` module; around each batch it is seeded from the caller's generator, and afterwards its
state is as it was.
"""

from __future__ import annotations

import contextlib
import functools
import random
from typing import TYPE_CHECKING, Any

import numpy as np
from deap import gp

from evoquant.genomes.base import LOG_SIGMA, tidy
from evoquant.genomes.expression import IS_TYPE, OPERATORS, Token
from evoquant.genomes.tree import CONSTANT, LARGEST_CONSTANT, SMALLEST_CONSTANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from evoquant.genomes.tree import TreeSpace

SHALLOWEST, DEEPEST = 1, 5  # levels of random trees
DEEPEST_BRANCH = 2  # levels of a subtree that mutation grows
TRIES = 5  # before a child that breaks the limits is given up for its first parent
SIGNALS_PER_CONSTANT = 3  # among the leaves that are drawn


class _Type(type):
    """A type for DEAP whose hash is its name's length.

    DEAP chooses among a set of types; hashes made of addresses would order it differently in every process.
    """

    def __hash__(cls) -> int:
        return len(cls.__name__)


class _Number(metaclass=_Type):
    pass


class _Flag(metaclass=_Type):
    pass


_TYPES = {"number": _Number, "flag": _Flag}


@functools.lru_cache(maxsize=32)
def primitives(types: tuple[str, ...], signals: tuple[str, ...], operators: tuple[str, ...]) -> Any:
    """DEAP's set of operators and leaves; without layer types there are no flags.

    Terminals and primitives carry the name of their token; a constant yet to be drawn is `constant 0`, ….
    """
    made = gp.PrimitiveSetTyped("cost", [], _Number)
    for operator in OPERATORS:
        if operator.name in operators and (types or "flag" not in (*operator.args, operator.result)):
            made.addPrimitive(len, [_TYPES[kind] for kind in operator.args], _TYPES[operator.result], operator.name)
    for name in signals:
        made.addTerminal(name, _Number, name)
    for i in range(max(1, len(signals) // SIGNALS_PER_CONSTANT)):
        made.addTerminal(None, _Number, f"constant {i}")
    for kind in types:
        made.addTerminal(kind, _Flag, IS_TYPE + kind)
    return made


@contextlib.contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """The `random` module seeded from `rng`; its state is restored afterwards."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)


class TreeOperators:
    """The operators of one space."""

    def __init__(self, space: TreeSpace, primitives: Any) -> None:
        self._space = space
        self._primitives = primitives
        self._nodes: dict[Token, Any] = {
            node.name: node
            for table in (primitives.primitives, primitives.terminals)
            for nodes in table.values()
            for node in nodes
        }
        self._codes = {token: code for code, token in enumerate(space.tokens) if isinstance(token, str)}

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """`(n, genes)` random trees, half-and-half."""
        deepest = min(DEEPEST, self._space.max_depth)
        with seeded(rng):
            trees = [self._random(min(SHALLOWEST, deepest), deepest) for _ in range(n)]
        return self._rows(trees, rng)

    def cross(
        self, first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """`(n, genes)`: one-point crossover; the child that grew from the first parent."""
        mothers, fathers = self._trees(first), self._trees(second)
        with seeded(rng):
            children = [
                self._within_limits(mother, functools.partial(_graft, father))
                for mother, father in zip(mothers, fathers, strict=True)
            ]
        return self._rows(children, rng)

    def mutate(
        self, genes: NDArray[np.float64], chosen: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """`(n, genes)` with the rows of the `(n,)` mask changed by one operator each."""
        result = self._space.canonical(genes)
        (rows,) = np.nonzero(chosen)
        with seeded(rng):
            trees = [self._within_limits(tree, self._mutate_one) for tree in self._trees(result[rows])]
        result[rows] = self._rows(trees, rng)
        return result

    def _mutate_one(self, tree: Any) -> Any:
        operator = random.choice((self._branch, self._branch, self._replace, self._shrink, self._insert, self._number))
        return operator(tree)

    def _branch(self, tree: Any) -> Any:
        grow = functools.partial(gp.genGrow, min_=0, max_=DEEPEST_BRANCH)
        return gp.mutUniform(tree, grow, self._primitives)[0]

    def _replace(self, tree: Any) -> Any:
        return gp.mutNodeReplacement(tree, self._primitives)[0]

    def _shrink(self, tree: Any) -> Any:
        return gp.mutShrink(tree)[0]

    def _insert(self, tree: Any) -> Any:
        return gp.mutInsert(tree, self._primitives)[0]

    def _number(self, tree: Any) -> Any:
        """One constant takes a step on the log scale."""
        places = [i for i, node in enumerate(tree) if isinstance(node.value if node.arity == 0 else None, float)]
        if places:
            place = random.choice(places)
            tree[place] = _constant(tree[place].value * float(np.exp(random.gauss(0.0, LOG_SIGMA))))
        return tree

    def _within_limits(self, parent: Any, change: Callable[[Any], Any]) -> Any:
        """A changed copy of `parent`, or `parent` itself where none within the limits is found."""
        for _ in range(TRIES):
            child = change(gp.PrimitiveTree(parent))
            if self._fits(child) and child != parent:
                return child
        return parent

    def _fits(self, tree: Any) -> bool:
        return len(tree) <= self._space.max_nodes and tree.height <= self._space.max_depth

    def _random(self, shallowest: int, deepest: int) -> Any:
        for _ in range(TRIES):
            tree = gp.PrimitiveTree(gp.genHalfAndHalf(self._primitives, shallowest, deepest))
            if self._fits(tree):
                return tree
        return self._random(0, deepest - 1)

    def _trees(self, genes: NDArray[np.float64]) -> list[Any]:
        """DEAP's trees of `(n, genes)` rows."""
        space = self._space
        return [
            gp.PrimitiveTree(
                [self._nodes[token] if isinstance(token, str) else _constant(token) for token in space.expression(row)]
            )
            for row in space.canonical(genes)
        ]

    def _rows(self, trees: list[Any], rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, genes)` rows of DEAP's trees; constants that have no value yet are drawn, log-uniformly."""
        space = self._space
        codes = np.zeros((len(trees), space.max_nodes))
        constants = np.full(codes.shape, SMALLEST_CONSTANT)
        low, high = np.log(SMALLEST_CONSTANT), np.log(LARGEST_CONSTANT)
        for i, tree in enumerate(trees):
            for j, node in enumerate(tree):
                code = self._codes.get(node.name, CONSTANT)
                codes[i, j] = code
                if code == CONSTANT:
                    constants[i, j] = node.value if isinstance(node.value, float) else np.exp(rng.uniform(low, high))
        constants = tidy(space.genes[space.max_nodes :], constants)
        return np.concatenate([codes, constants], axis=1)


def _graft(father: Any, mother: Any) -> Any:
    return gp.cxOnePoint(mother, gp.PrimitiveTree(father))[0]


def _constant(value: float) -> Any:
    return gp.Terminal(value, False, _Number)
