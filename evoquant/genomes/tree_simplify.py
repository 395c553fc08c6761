"""Simplify a tree without changing an allocation, to the last bit.

A rewrite is applied only where it is exact in saturating float64 arithmetic (signed zeros apart, which no operator
tells apart), or where it shifts no unit's choice: a part of the cost that depends on no width, and is not added to one
that does. Reassociating sums or dropping addends could round differently, and is not done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.genomes.expression import OPERATOR, PER_WIDTH, SIZE_SHARE, Node, flat, nested
from evoquant.genomes.tree_numpy import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.genomes.expression import Token

TRUE, FALSE = ("true",), ("false",)  # flags that fold; none is left in the end, since nothing but flags reads them
DEPENDS_ON_WIDTH = frozenset((*PER_WIDTH, "size", SIZE_SHARE, "model_loss"))
_COMMUTATIVE = ("add", "mul", "min", "max", "and", "or")


def simplify(expression: Sequence[Token]) -> tuple[Token, ...]:
    """An expression that allocates every problem identically, with at most as many nodes.

    For showing and exporting; the search keeps trees as they are.
    """
    return flat(_argmin(_simple(nested(expression))))


def _argmin(node: Node) -> Node:
    """What decides the same, though it may be another cost: 0 where no width matters."""
    if not depends_on_width(node):
        return 0.0
    if isinstance(node, tuple) and node[0] == "where" and not depends_on_width(node[1]):
        return _where(node[1], _argmin(node[2]), _argmin(node[3]))
    return node


def depends_on_width(node: Node) -> bool:
    """Whether the value may differ between the widths of one unit."""
    if isinstance(node, tuple):
        return any(depends_on_width(child) for child in node[1:])
    return node in DEPENDS_ON_WIDTH


def _simple(node: Node) -> Node:
    if not isinstance(node, tuple):
        return node
    name, args = node[0], [_simple(child) for child in node[1:]]
    if name == "where":
        return _where(*args)
    if OPERATOR[name].args[0] == "flag":
        return _logic(name, args)
    if all(isinstance(arg, float) for arg in args):
        value = fold(name, *args)  # type: ignore[arg-type]
        return float(value) + 0.0 if OPERATOR[name].result == "number" else (TRUE if value else FALSE)
    if name in ("neg", "sqrt", "square"):
        return _ordered(_unary(name, args[0]))
    return _ordered(_binary(name, *args))


def _where(flag: Node, yes: Node, no: Node) -> Node:
    if yes == no or flag == TRUE:
        return yes
    if flag == FALSE:
        return no
    if isinstance(flag, tuple) and flag[0] == "not":
        return ("where", flag[1], no, yes)
    return ("where", flag, yes, no)


def _logic(name: str, args: list[Node]) -> Node:
    first = args[0]
    if name == "not":
        if first in (TRUE, FALSE):
            return FALSE if first == TRUE else TRUE
        return first[1] if isinstance(first, tuple) and first[0] == "not" else ("not", first)
    decides, neutral = (FALSE, TRUE) if name == "and" else (TRUE, FALSE)
    second = args[1]
    if decides in (first, second):
        return decides
    if first in (neutral, second):
        return second
    if second == neutral:
        return first
    return _ordered((name, first, second))


def _unary(name: str, arg: Node) -> Node:
    if name == "neg":
        if isinstance(arg, tuple) and arg[0] == "neg":
            inner: Node = arg[1]
            return inner
        if isinstance(arg, tuple) and arg[0] == "sub":
            return _binary("sub", arg[2], arg[1])
    elif isinstance(arg, tuple) and arg[0] == "neg":  # roots and squares do not see the sign
        return (name, arg[1])
    return (name, arg)


def _binary(name: str, a: Node, b: Node) -> Node:
    same = a == b
    if name == "greater":
        return FALSE if same else (name, a, b)
    if name in ("min", "max"):
        return a if same else (name, a, b)
    if name == "mul":
        if 0.0 in (a, b):
            return 0.0
        if a == 1.0:
            return b
        if same:
            return _unary("square", a)
        return a if b == 1.0 else (name, a, b)
    if name == "div":
        if same or b == 0.0:
            return 1.0
        return a if b == 1.0 else (name, a, b)
    if b == 0.0:
        return a
    if a == 0.0:
        return b if name == "add" else _unary("neg", b)
    if name == "sub" and same:
        return 0.0
    return _signs(name, a, b)


def _signs(name: str, a: Node, b: Node) -> Node:
    """a + −b = a − b and so on: negation is exact."""
    if name == "add" and isinstance(a, float) and a < 0.0:
        return _binary("sub", b, -a)
    if isinstance(b, float) and b < 0.0:
        return _binary("sub" if name == "add" else "add", a, -b)
    if isinstance(b, tuple) and b[0] == "neg":
        return _binary("sub" if name == "add" else "add", a, b[1])
    if name == "add" and isinstance(a, tuple) and a[0] == "neg":
        return _binary("sub", b, a[1])
    return (name, a, b)


def _ordered(node: Node) -> Node:
    """Arguments of commutative operators in the order in which people write them: 2·x·y, x + y + 2."""
    if not isinstance(node, tuple) or node[0] not in _COMMUTATIVE:
        return node
    name, a, b = node
    if _is(a, name) or _is(b, name):  # a·b·c needs no parentheses when read from the left
        swap = not _is(a, name)
    else:
        late = a if name == "add" else b
        swap = isinstance(late, float) and a != b
    return (name, b, a) if swap else node


def _is(node: Node, name: str) -> bool:
    return isinstance(node, tuple) and node[0] == name
