"""Tree expressions: the operators and signals there are, their types, and what makes an expression well-formed.

An expression is a tuple in prefix order: operator and signal names are strings, constants are floats.
`("add", "loss", "mul", 0.0062, "bits")` is loss + 0.0062 · bits.

Arithmetic is saturating, so that no NaN and no infinity can arise: constants and signals lie within ±10^100, every
result is clipped to that, and x / 0 is 1 for any x (protected division; Koza, Genetic Programming, 1992, §6.1). Only
correctly rounded operations occur, so every language gives the same bits.

Three signals tell of the allocation itself: `mean_bits`, the effective bits per weight that the model has so far,
`total_loss`, its summed loss, and `size_share`, short for size / mean_bits: what a unit would take at this width as a
share of what the whole model takes. A tree that reads one is applied in rounds, from every unit at its widest, each
round with the signals of the allocation before it, until nothing changes (at most `ROUNDS`): a fixed point. So a
formula can weigh a unit's bits against the size that the model really comes to, as a Lagrange multiplier does (Shoham
& Gersho, IEEE Trans. ASSP 36(9), 1988, adapt theirs by such iteration too).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evoquant.errors import GenomeError, suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

Token: TypeAlias = str | float
Type = Literal["number", "flag"]
Node: TypeAlias = str | float | tuple[Any, ...]  # (operator, node, …)

LARGEST = 1e100
MAX_NODES, MAX_DEPTH = 1000, 60

_NN: tuple[Type, ...] = ("number", "number")
_FF: tuple[Type, ...] = ("flag", "flag")


@dataclass(frozen=True)
class Operator:
    """A function of one to three arguments.

    Attributes:
        name: in expressions.
        args: types of the arguments.
        result: type of the value.
    """

    name: str
    args: tuple[Type, ...]
    result: Type


# The position of an operator is its code in populations: append only.
OPERATORS = (
    Operator("add", _NN, "number"),
    Operator("sub", _NN, "number"),
    Operator("mul", _NN, "number"),
    Operator("div", _NN, "number"),
    Operator("min", _NN, "number"),
    Operator("max", _NN, "number"),
    Operator("neg", ("number",), "number"),
    Operator("sqrt", ("number",), "number"),  # of |x|
    Operator("square", ("number",), "number"),
    Operator("greater", _NN, "flag"),
    Operator("and", _FF, "flag"),
    Operator("or", _FF, "flag"),
    Operator("not", ("flag",), "flag"),
    Operator("where", ("flag", "number", "number"), "number"),
)
OPERATOR = {operator.name: operator for operator in OPERATORS}

# One value for each unit and width, for each unit, for the model, for each width.
PER_WIDTH = ("loss", "bits", "fisher", "weight_error", "divergence", "hessian", "expected_loss")
PER_UNIT = (
    "share",
    "position",
    "gradient_sensitivity",
    "weight_mean",
    "weight_std",
    "weight_range",
    "activation_range",
)
PER_MODEL = ("units", "model_loss")
NUMBER_SIGNALS = (*PER_WIDTH, *PER_UNIT, *PER_MODEL)
# Of the allocation so far.
STATE = ("mean_bits", "total_loss")
SIZE_SHARE = "size_share"
ALL_SIGNALS = (*NUMBER_SIGNALS, "size", *STATE, SIZE_SHARE)
ROUNDS = 16
IS_TYPE = "is_"

_ARTICLE = {"number": "a number", "flag": "a flag"}


def arguments(token: Token) -> tuple[Type, ...]:
    """Types of the arguments that a token takes; none for signals and constants."""
    operator = OPERATOR.get(token) if isinstance(token, str) else None
    return operator.args if operator else ()


def type_of(token: Token) -> Type:
    """Type of a token's value.

    Raises:
        GenomeError: no operator and no signal has that name.
    """
    if not isinstance(token, str):
        return "number"
    if token in OPERATOR:
        return OPERATOR[token].result
    if token.startswith(IS_TYPE) and len(token) > len(IS_TYPE):
        return "flag"
    if token in ALL_SIGNALS:
        return "number"
    known = [*OPERATOR, *ALL_SIGNALS]
    raise GenomeError(f"unknown operator or signal {token!r}.{suggestion(token, known)}")


def check_expression(expression: Sequence[Token]) -> None:
    """Check that an expression is one complete, well-typed tree within the limits, whose value is a number.

    Raises:
        GenomeError: it is not; the message names the position.
    """
    if not expression:
        raise GenomeError("expression: is empty; the smallest tree is one signal, such as ['loss'].")
    if len(expression) > MAX_NODES:
        raise GenomeError(f"expression: has {len(expression)} nodes; at most {MAX_NODES} are allowed.")
    wanted: list[tuple[Type, int, str]] = [("number", 0, "the tree")]  # type, depth, for whom
    for place, token in enumerate(expression):
        if not wanted:
            raise GenomeError(f"expression[{place}]: the tree is complete before {token!r}; take the rest away.")
        expected, depth, user = wanted.pop()
        try:
            found = type_of(token)
        except GenomeError as error:
            raise GenomeError(f"expression[{place}]: {error}") from None
        if found != expected:
            raise GenomeError(
                f"expression[{place}]: {user} takes {_ARTICLE[expected]} here, and {token!r} is {_ARTICLE[found]}."
            )
        if not isinstance(token, str) and not abs(token) <= LARGEST:
            raise GenomeError(f"expression[{place}]: {token!r} is not within ±{LARGEST:g}.")
        if depth > MAX_DEPTH:
            raise GenomeError(f"expression[{place}]: lies deeper than {MAX_DEPTH} levels; write a flatter tree.")
        wanted.extend((kind, depth + 1, repr(token)) for kind in reversed(arguments(token)))
    if wanted:
        raise GenomeError(f"expression: ends where {wanted[-1][2]} still takes {_ARTICLE[wanted[-1][0]]}; complete it.")


def signals_of(expression: Sequence[Token]) -> list[str]:
    """The signals that an expression reads, type flags included, each once, in order of appearance."""
    return list(dict.fromkeys(t for t in expression if isinstance(t, str) and t not in OPERATOR))


def reads_state(expression: Sequence[Token]) -> bool:
    """Whether the tree weighs the allocation that it leads to, and so is applied in rounds."""
    return any(token in STATE or token == SIZE_SHARE for token in expression)


def written_out(expression: Sequence[Token]) -> tuple[Token, ...]:
    """The expression with size / mean_bits in the place of `size_share`."""
    written: list[Token] = []
    for token in expression:
        written.extend(("div", "size", "mean_bits") if token == SIZE_SHARE else (token,))
    return tuple(written)


def depth_of(expression: Sequence[Token]) -> int:
    """Levels below the root: 0 for a single node."""
    deepest, depths = 0, [0]
    for token in expression:
        depth = depths.pop()
        deepest = max(deepest, depth)
        depths.extend([depth + 1] * len(arguments(token)))
    return deepest


def nested(expression: Sequence[Token]) -> Node:
    """The expression as nested tuples: (operator, argument, …)."""
    stack: list[Node] = []
    for token in reversed(expression):
        if isinstance(token, str) and token in OPERATOR:
            stack.append((token, *(stack.pop() for _ in OPERATOR[token].args)))
        else:
            stack.append(token)
    return stack[0]


def flat(node: Node) -> tuple[Token, ...]:
    """The expression of nested tuples, in prefix order."""
    if not isinstance(node, tuple):
        return (node,)
    return (node[0], *(token for child in node[1:] for token in flat(child)))
