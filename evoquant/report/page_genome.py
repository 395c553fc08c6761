"""The champion's rule, formula or table in words, for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.genomes.direct import Direct
from evoquant.genomes.expression import Node, nested
from evoquant.genomes.rule import Rule
from evoquant.genomes.tree import Tree
from evoquant.genomes.tree_simplify import simplify
from evoquant.genomes.tree_text import infix
from evoquant.report.page_html import Safe, element, joined, paragraphs

if TYPE_CHECKING:
    from evoquant.genomes.base import Genome

SIMPLE = 40  # nodes of a formula that is drawn as a tree, too


def genome_title(genome: Genome) -> str:
    """What kind of heuristic it is, as a heading."""
    return {"rule": "The rule", "tree": "The formula", "direct": "The allocation"}.get(
        genome.to_dict().get("kind", ""), "The heuristic"
    )


def genome_html(genome: Genome) -> Safe:
    """The heuristic so that one can follow it by hand."""
    if isinstance(genome, Rule):
        return _rule(genome)
    if isinstance(genome, Tree):
        return _tree(genome)
    if isinstance(genome, Direct):
        return _direct(genome)
    return element("p", element("code", genome.text))


def _rule(rule: Rule) -> Safe:
    """A list in the order in which a layer is looked at."""
    steps: list[Safe] = []
    if rule.protected_width is not None:
        types = " or ".join(sorted(rule.protected))
        steps.append(joined([f"Is it a layer of type {types}? It takes ", _width(rule.protected_width), "."]))
    if rule.edge_width is not None:
        test = (
            f"Does it lie in the first or the last {rule.edges:.4g} of the model (positions go from 0 to 1)? It takes "
        )
        steps.append(joined([test, _width(rule.edge_width), "."]))
    for rung in rule.rungs:
        test = f"Is its {signal_words(rung.signal)} above {rung.above:g}? It takes "
        steps.append(joined([test, _width(rung.width), "."]))
    last = "Everything else takes " if steps else "Every layer takes "
    steps.append(joined([last, _width(rule.otherwise), "."]))
    line = element("p", element("code", rule.text))
    if len(steps) == 1:
        return joined([line, element("p", steps[0])])
    intro = element("p", "For every layer, the first that holds decides:")
    return joined([line, intro, element("ol", *(element("li", step) for step in steps))])


def signal_words(signal: str) -> str:
    """`loss:INT8` as `loss at INT8`; underscores as blanks."""
    name, colon, width = signal.partition(":")
    words = {"loss": "loss of retention", "fisher": "Fisher cost"}.get(name, name.replace("_", " "))
    return f"{words} at {width}" if colon else words


def _width(name: str) -> Safe:
    return element("strong", name)


def _tree(tree: Tree) -> Safe:
    node = nested(simplify(tree.expression))
    parts: list[Safe] = [
        element("p", "Every layer takes the width for which this is least; of equals the narrowest:"),
        element("p", element("code", tree.text)),
        element("p", "Read a·b·c from the left; √ is of the absolute value, x/0 is 1.", class_="note"),
    ]
    if _count(node) <= SIMPLE:
        parts += [
            element("h3", "As a tree"),
            element("ul", _branch(node), class_="tree", aria_label=f"expression tree of {infix(node)}"),
        ]
    return joined(parts)


def _branch(node: Node) -> Safe:
    if isinstance(node, tuple):
        return element("li", element("span", node[0]), element("ul", *(_branch(child) for child in node[1:])))
    return element("li", element("span", infix(node)))


def _count(node: Node) -> int:
    return 1 + sum(map(_count, node[1:])) if isinstance(node, tuple) else 1


def _direct(genome: Direct) -> Safe:
    return paragraphs(
        [
            f"One width for each unit of one model. {genome.text}.",
            "It is no heuristic: it cannot be applied to another model. Every layer's width stands in the table of the "
            "figure above.",
        ]
    )
