"""What the exporters of trees share: the tree resolved for one menu, and expressions as nested calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evoquant.export.source import own_menu
from evoquant.genomes.expression import IS_TYPE, OPERATOR, ROUNDS, STATE, Node, nested, signals_of, written_out
from evoquant.genomes.tree_simplify import simplify
from evoquant.genomes.tree_text import formula

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from evoquant.campaign.champion import Champion
    from evoquant.genomes.tree import Tree
    from evoquant.quantization.precision import Menu

LINE = 100
READ_AS = "where x / 0 is 1, √x is that of |x|, and all figures stay within ±1e100."
IN_ROUNDS = (
    "mean_bits and total_loss are those of the whole allocation: it begins with every layer at its widest and",
    f"is made anew until nothing changes, at most {ROUNDS} times.",
)
INTRODUCTION = "Each layer takes the width of the least cost, of equals the narrowest. The cost of a width is:"


@dataclass(frozen=True)
class TreePlan:
    """A tree for one menu, simplified.

    Attributes:
        menu: the widths to choose from.
        cost: the simplified expression as nested tuples.
        signals: the number signals that it reads, in order of appearance.
        types: the layer types that it asks about.
        operators: names of the operators in it.
        rounds: how often the allocation is made, at most; more than once where the tree reads its state.
        words: the formula, and how to read it.
    """

    menu: Menu
    cost: Node
    signals: tuple[str, ...]
    types: tuple[str, ...]
    operators: frozenset[str]
    rounds: int
    words: tuple[str, ...]


def tree_plan(champion: Champion, tree: Tree, menu: Menu | None) -> TreePlan:
    """The champion's tree for `menu`, by default the one it was evolved with."""
    expression = simplify(written_out(tree.expression))
    read = signals_of(expression)
    by_state = bool(set(STATE) & set(read))
    return TreePlan(
        menu=own_menu(champion) if menu is None else menu,
        cost=nested(expression),
        signals=tuple(name for name in read if not name.startswith(IS_TYPE)),
        types=tuple(name.removeprefix(IS_TYPE) for name in read if name.startswith(IS_TYPE)),
        operators=frozenset(token for token in expression if isinstance(token, str) and token in OPERATOR),
        rounds=ROUNDS if by_state else 1,
        words=(formula(expression), READ_AS, *(IN_ROUNDS if by_state else ())),
    )


def calls(node: Node, names: Mapping[str, str], leaf: Callable[[str], str], indent: int) -> str:
    """An expression as nested calls such as `add(loss, mul(0.1, bits))`, broken where a line grows long.

    Args:
        node: the expression.
        names: operator → function.
        leaf: a signal's text.
        indent: spaces before further lines.
    """
    line = _one_line(node, names, leaf)
    if not isinstance(node, tuple) or len(line) + indent <= LINE:
        return line
    deeper = " " * (indent + 4)
    parts = "".join(f"{deeper}{calls(child, names, leaf, indent + 4)},\n" for child in node[1:])
    return f"{names[node[0]]}(\n{parts}{' ' * indent})"


def _one_line(node: Node, names: Mapping[str, str], leaf: Callable[[str], str]) -> str:
    if isinstance(node, float):
        return repr(node)
    if isinstance(node, str):
        return leaf(node)
    return f"{names[node[0]]}({', '.join(_one_line(child, names, leaf) for child in node[1:])})"
