"""The compiled interpreter of tree populations: the same bits as `tree_numpy`, without an array for every node.

Imported only for populations that are worth a compiler's start. The tree of one row is walked once from its last node
to its first, each node for all units and widths at once, so that the loops inside run over numbers alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from evoquant.genomes.expression import LARGEST, OPERATORS, ROUNDS
from evoquant.scoring.cost import BIT_UNITS
from evoquant.scoring.problem import LOSS_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable

_CODE = {operator.name: code for code, operator in enumerate(OPERATORS, start=1)}
ADD, SUB, MUL, DIV = (_CODE[name] for name in ("add", "sub", "mul", "div"))
MIN, MAX, GREATER, AND, OR = (_CODE[name] for name in ("min", "max", "greater", "and", "or"))
NEG, SQRT, SQUARE, NOT = (_CODE[name] for name in ("neg", "sqrt", "square", "not"))
WHERE = _CODE["where"]
CONSTANT = len(OPERATORS) + 1


def compiled(function: Callable[..., Any]) -> Any:
    """Machine code of `function`, kept beside the source or in the user's cache folder where there is room.

    Division is that of IEEE 754, and there is no fast-math: every language gives the same bits.
    """
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # nowhere to keep the machine code: a read-only installation and no home
        return numba.njit(error_model="numpy")(function)


@compiled
def _clip(x):  # type: ignore[no-untyped-def]
    x = LARGEST if x > LARGEST else x
    return -LARGEST if x < -LARGEST else x


@compiled
def _unary(code, a):  # type: ignore[no-untyped-def]
    if code == NEG:
        for i in range(a.size):
            a[i] = -a[i]
    elif code == SQRT:
        for i in range(a.size):
            a[i] = np.sqrt(abs(a[i]))
    elif code == SQUARE:
        for i in range(a.size):
            a[i] = _clip(a[i] * a[i])
    else:
        for i in range(a.size):
            a[i] = 1.0 - a[i]


@compiled
def _arithmetic(code, a, b):  # type: ignore[no-untyped-def]
    """The result replaces b."""
    if code == ADD:
        for i in range(b.size):
            b[i] = _clip(a[i] + b[i])
    elif code == SUB:
        for i in range(b.size):
            b[i] = _clip(a[i] - b[i])
    elif code == MUL:
        for i in range(b.size):
            b[i] = _clip(a[i] * b[i])
    else:
        for i in range(b.size):
            quotient = _clip(a[i] / b[i])
            b[i] = 1.0 if b[i] == 0.0 else quotient


@compiled
def _binary(code, a, b):  # type: ignore[no-untyped-def]
    """The result replaces b. Flags are 0 and 1."""
    if code <= DIV:
        _arithmetic(code, a, b)
    elif code in (MIN, AND):
        for i in range(b.size):
            b[i] = min(a[i], b[i])
    elif code in (MAX, OR):
        for i in range(b.size):
            b[i] = max(a[i], b[i])
    else:
        assert code == GREATER
        for i in range(b.size):
            b[i] = 1.0 if a[i] > b[i] else 0.0


@compiled
def cost(codes, constants, length, table, state_of, state, stack):  # type: ignore[no-untyped-def]
    """Put the costs of one tree, `(units · P,)`, into `stack[0]`; arguments as in `allocate`, of one row.

    The `(max_nodes + 1, units · P)` stack grows from the last node to the first, so that arguments lie in order.
    """
    top = -1
    for node in range(length - 1, -1, -1):
        code = codes[node]
        if code > CONSTANT and state_of[code - CONSTANT - 1] == len(state):
            top += 1
            for i in range(stack.shape[1]):
                share = _clip(table[code - CONSTANT - 1, i] / state[0])
                stack[top, i] = 1.0 if state[0] == 0.0 else share
        elif code > CONSTANT and state_of[code - CONSTANT - 1] >= 0:
            top += 1
            for i in range(stack.shape[1]):
                stack[top, i] = state[state_of[code - CONSTANT - 1]]
        elif code > CONSTANT:
            top += 1
            for i in range(stack.shape[1]):
                stack[top, i] = table[code - CONSTANT - 1, i]
        elif code == CONSTANT:
            top += 1
            for i in range(stack.shape[1]):
                stack[top, i] = constants[node]
        elif code == WHERE:
            flag, yes, no = stack[top], stack[top - 1], stack[top - 2]
            for i in range(no.size):
                no[i] = yes[i] if flag[i] > 0.0 else no[i]
            top -= 2
        elif code in (NEG, SQRT, SQUARE, NOT):
            _unary(code, stack[top])
        else:
            _binary(code, stack[top], stack[top - 1])
            top -= 1


@compiled
def _cheapest(costs, allowed, result):  # type: ignore[no-untyped-def]
    """Fill `result`, `(units,)` int8, from `(units · P,)` costs; return whether anything in it changed."""
    units, widths = allowed.shape
    changed = False
    for unit in range(units):
        best, least = -1, np.inf
        for width in range(widths):
            value = costs[unit * widths + width]
            if allowed[unit, width] and value < least:
                best, least = width, value
        changed = changed or result[unit] != best
        result[unit] = best
    return changed


@compiled
def _begin(allowed, result):  # type: ignore[no-untyped-def]
    """Every unit at its widest allowed width."""
    for unit in range(allowed.shape[0]):
        for width in range(allowed.shape[1]):
            if allowed[unit, width]:
                result[unit] = width


@compiled
def _measure(bits, loss, weights, allocation, state):  # type: ignore[no-untyped-def]
    """Put mean_bits and total_loss of an allocation into `state`; see `tree_numpy.state_of`."""
    total_bits, total_loss = 0, 0
    for unit in range(allocation.size):
        total_bits += bits[unit, allocation[unit]]
        total_loss += loss[unit, allocation[unit]]
    state[0] = float(total_bits) / BIT_UNITS / weights
    state[1] = float(total_loss) / LOSS_UNITS


@compiled
def allocate(codes, constants, lengths, table, state_of, bits, loss, weights, allowed, result):  # type: ignore[no-untyped-def]
    """Fill `result`, `(n, units)` int8, with the allowed width of least cost, of equals the narrowest.

    Args:
        codes, constants: `(n, max_nodes)` int64 and float64.
        lengths: `(n,)` nodes of each row, at least 1.
        table: `(leaves, units · P)` values of the leaves whose codes follow the constant's.
        state_of: `(leaves,)` the place in the state of leaves that tell of the allocation itself, −1 for others; one
            beyond its end for a leaf that is divided by the first.
        bits, loss: `(units, P)` int64, the integer tables that the state is summed from.
        weights: of the model, float64.
        allowed: `(units, P)` bool, one or more in each row.
        result: is overwritten.
    """
    stack = np.empty((codes.shape[1] + 1, allowed.size))
    state = np.zeros(2)
    for row in range(codes.shape[0]):
        rounds = 1
        for node in range(lengths[row]):
            if codes[row, node] > CONSTANT and state_of[codes[row, node] - CONSTANT - 1] >= 0:
                rounds = ROUNDS
        _begin(allowed, result[row])
        for _ in range(rounds):
            if rounds > 1:
                _measure(bits, loss, weights, result[row], state)
            cost(codes[row], constants[row], lengths[row], table, state_of, state, stack)
            if not _cheapest(stack[0], allowed, result[row]):
                break
