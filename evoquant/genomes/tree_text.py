"""A tree as a formula in one line: `loss + 0.0062·bits·share`.

Read a·b·c from the left. √ is of the absolute value, x/0 is 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.genomes.expression import IS_TYPE, Node, nested
from evoquant.genomes.tree_simplify import simplify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.genomes.expression import Token

# How tightly an operator binds; an argument that binds less tightly is put in parentheses.
_CHOICE, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _POWER, _LEAF = range(10)
# operator → (what stands between, binding, least binding of the right argument)
_INFIX = {
    "or": (" or ", _OR, _AND),
    "and": (" and ", _AND, _NOT),
    "greater": (" > ", _COMPARE, _SUM),
    "add": (" + ", _SUM, _PRODUCT),
    "sub": (" − ", _SUM, _PRODUCT),
    "mul": ("·", _PRODUCT, _SIGN),
    "div": ("/", _PRODUCT, _SIGN),
}


def formula(expression: Sequence[Token]) -> str:
    """The simplified expression in infix notation, with no more parentheses than needed; numbers to 4 digits."""
    return infix(nested(simplify(expression)))


def infix(node: Node) -> str:
    """Any part of an expression as it stands, not simplified: a part alone may decide nothing."""
    return _write(node)[0]


def _write(node: Node) -> tuple[str, int]:
    """Text of a node, and how tightly its outermost operator binds."""
    if isinstance(node, float):
        return f"{node:.4g}".replace("-", "−"), _LEAF if node >= 0 else _SIGN
    if isinstance(node, str):
        return (node if node.removeprefix(IS_TYPE).isidentifier() else repr(node)), _LEAF
    name, args = node[0], node[1:]
    if name in _INFIX:
        sign, binding, right = _INFIX[name]
        left = _SUM if name == "greater" else binding
        return f"{_in(args[0], left)}{sign}{_in(args[1], right)}", binding
    if name == "where":
        return f"{_in(args[1], _OR)} if {_in(args[0], _OR)} else {_in(args[2], _CHOICE)}", _CHOICE
    if name == "not":
        return f"not {_in(args[0], _NOT)}", _NOT
    if name == "neg":
        return f"−{_in(args[0], _SIGN)}", _SIGN
    if name == "square":
        return f"{_in(args[0], _LEAF)}²", _POWER
    if name == "sqrt":
        return f"√{_in(args[0], _LEAF)}", _POWER
    return f"{name}({', '.join(_write(arg)[0] for arg in args)})", _LEAF


def _in(node: Node, least: int) -> str:
    text, binding = _write(node)
    return text if binding >= least else f"({text})"
