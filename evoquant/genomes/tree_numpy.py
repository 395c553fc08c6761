"""The reference interpreter of tree expressions, with NumPy, and the signals that they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from evoquant.errors import ProfileError
from evoquant.genomes.expression import IS_TYPE, LARGEST, OPERATOR, PER_UNIT, ROUNDS, SIZE_SHARE, STATE, reads_state
from evoquant.scoring.problem import LOSS_UNITS, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.expression import Token

    Values = NDArray[Any]

_QUIET: dict[str, Any] = {"over": "ignore", "divide": "ignore", "invalid": "ignore", "under": "ignore"}
_COMPILED: WeakKeyDictionary[Problem, dict[str, Values]] = WeakKeyDictionary()


def signal_values(problem: Problem, name: str) -> Values:
    """A signal's values within ±10^100, `(units, P)`, `(units, 1)` or `(1, P)`; flags are bool. Kept with the problem.

    Raises:
        ProfileError: the profile lacks it; the message names both.
    """
    known = _COMPILED.setdefault(problem, {})
    if name not in known:
        values = _compile(problem, name)
        if values.dtype != bool:
            values = np.clip(values, -LARGEST, LARGEST)
        values.setflags(write=False)
        known[name] = values
    return known[name]


def has_signal(problem: Problem, name: str) -> bool:
    """Whether the profile has what a signal needs, for every width of the menu."""
    try:
        signal_values(problem, name)
    except ProfileError:
        return False
    return True


def _compile(problem: Problem, name: str) -> Values:
    if name.startswith(IS_TYPE):
        return np.asarray(problem.types == name.removeprefix(IS_TYPE))[:, None]
    if name == "total_loss":
        _loss(problem, name)
    if name in STATE:  # differ from allocation to allocation; here only to say that the profile has what they need
        return np.full((1, 1), float(state_of(problem, widest(problem))[name]))
    if name == "loss":
        return _loss(problem, name) / LOSS_UNITS
    if name == "model_loss":
        return np.asarray(_loss(problem, name).sum(axis=0, keepdims=True)) / LOSS_UNITS
    if name == "bits":
        return np.asarray(problem.cost.table / problem.bit / problem.signal("parameters")[:, None])
    if name in ("size", SIZE_SHARE):
        return np.asarray(problem.cost.table / problem.bit / problem.weights)
    if name == "share":
        return problem.signal("parameters")[:, None] / problem.weights
    if name == "units":
        return np.full((1, 1), float(len(problem.units)))
    if name == "position":
        return problem.position[:, None]
    if name in PER_UNIT:
        return problem.signal(name)[:, None]
    return np.stack([problem.signal(f"{name}:{width}") for width in problem.menu.names], axis=1)


def _loss(problem: Problem, name: str) -> NDArray[np.int64]:
    if problem.loss is None:
        missing = [width for width in problem.menu.names if width not in problem.widths["loss"]]
        raise ProfileError(
            f"profile {problem.name!r} has no loss for {', '.join(missing)} on every layer, which the signal {name!r} "
            f"reads; add it to the profile, take the width off the menu, or leave the signal out."
        )
    return problem.loss


def settled(expression: Sequence[Token], problem: Problem) -> NDArray[np.int8]:
    """`(units,)` the width of least cost; where the tree reads the allocation's own state, after rounds.

    Raises:
        ProfileError: the profile lacks a signal that the expression reads.
    """
    if not reads_state(expression):
        return cheapest(costs(expression, problem), problem.allowed)
    if "total_loss" in expression:
        _loss(problem, "total_loss")
    allocation = widest(problem)
    for _ in range(ROUNDS):
        before = allocation
        allocation = cheapest(costs(expression, problem, state_of(problem, before)), problem.allowed)
        if np.array_equal(allocation, before):
            break
    return allocation


def widest(problem: Problem) -> NDArray[np.int8]:
    """`(units,)` the widest allowed width of each unit, where the rounds begin."""
    return np.asarray(len(problem.menu) - 1 - problem.allowed[:, ::-1].argmax(axis=1), dtype=np.int8)


def state_of(problem: Problem, allocation: NDArray[np.int8]) -> dict[str, np.float64]:
    """`mean_bits` and, where there are losses, `total_loss` of a `(units,)` allocation.

    Sums are exact integers before they are divided.
    """
    rows = np.arange(len(allocation))
    bits = problem.cost.table[rows, allocation].sum(dtype=np.int64)
    state = {"mean_bits": np.float64(bits) / problem.bit / np.float64(problem.weights)}
    if problem.loss is not None:
        state["total_loss"] = np.float64(problem.loss[rows, allocation].sum(dtype=np.int64)) / LOSS_UNITS
    return state


def costs(
    expression: Sequence[Token], problem: Problem, state: Mapping[str, np.float64] | None = None
) -> NDArray[np.float64]:
    """`(units, P)` costs, finite, of giving each unit each width; `state` where the expression reads it.

    Raises:
        ProfileError: the profile lacks a signal that the expression reads.
    """
    stack: list[Any] = []
    with np.errstate(**_QUIET):
        for token in reversed(expression):
            if not isinstance(token, str):
                stack.append(np.float64(token))
            elif token in OPERATOR:
                stack.append(_APPLY[token](*(stack.pop() for _ in OPERATOR[token].args)))
            elif token in STATE:
                assert state is not None
                stack.append(state[token])
            elif token == SIZE_SHARE:
                assert state is not None
                stack.append(_APPLY["div"](signal_values(problem, "size"), state["mean_bits"]))
            else:
                stack.append(signal_values(problem, token))
    return np.broadcast_to(stack[0], (len(problem.units), len(problem.menu)))


def fold(name: str, *args: float) -> float | bool:
    """The value of the operator `name` on numbers within ±10^100."""
    with np.errstate(**_QUIET):
        value: float | bool = _APPLY[name](*(np.float64(arg) for arg in args)).item()
    return value


def cheapest(table: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.int8]:
    """`(units,)` index of the allowed width with the least cost in `(units, P)`; of equals the narrowest."""
    return np.asarray(np.where(allowed, table, np.inf).argmin(axis=1), dtype=np.int8)


def _clip(values: Values) -> Values:
    return np.minimum(np.maximum(values, -LARGEST), LARGEST)


def _div(a: Values, b: Values) -> Values:
    return np.where(b == 0.0, 1.0, _clip(a / b))


_APPLY: dict[str, Callable[..., Values]] = {
    "add": lambda a, b: _clip(a + b),
    "sub": lambda a, b: _clip(a - b),
    "mul": lambda a, b: _clip(a * b),
    "div": _div,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "sqrt": lambda a: np.sqrt(np.abs(a)),
    "square": lambda a: _clip(a * a),
    "greater": np.greater,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
}
