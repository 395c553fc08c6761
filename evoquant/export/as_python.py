"""Python: a module without dependencies that gives every layer of a profile its width, also a script.

Only the constants and the docstring differ from rule to rule; the code below them is the same for all. Trees are
written by `tree_python`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.export import tree_python
from evoquant.export.python_text import SHARED_CODE, docstring, literal, menu_constants, tuple_of
from evoquant.export.source import Plan, plan_of
from evoquant.genomes.tree import Tree
from evoquant.scoring.problem import NO_SAVING

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def render(champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
    """A module for Python 3.9 or newer that allocates exactly as the champion does.

    Raises:
        InputError: the champion's genome is neither rule nor tree, or the menu lacks a width of it.
    """
    if isinstance(champion.genome, Tree):
        return tree_python.render(champion, champion.genome, menu)
    plan = plan_of(champion, "python", menu)
    introduction = "Each layer takes the width of the first that holds:"
    return docstring(champion, introduction, plan.words()) + _constants(plan) + _CODE + SHARED_CODE


def _constants(plan: Plan) -> str:
    rungs = [f"    ({tuple_of(r.names)}, {r.above!r}, {literal(r.width)}),\n" for r in plan.rungs]
    return "\n".join(
        [
            *menu_constants(plan.menu),
            f"PROTECTED = {tuple_of(plan.protected)}",
            f"PROTECTED_WIDTH = {literal(plan.protected_width)}",
            f"EDGES = {plan.edges!r}",
            f"EDGE_WIDTH = {literal(plan.edge_width)}",
            "# Names of the signal (the first that the layers know counts), threshold, width.",
            f"RUNGS = (\n{''.join(rungs)})" if rungs else "RUNGS = ()",
            f"OTHERWISE = {literal(plan.otherwise)}",
            f"NO_SAVING = {NO_SAVING!r}  # the price of a width that costs no less than the next wider one",
            "",
        ]
    )


_CODE = '''

def allocate(layers):
    """Return the name of the width of each layer, in order.

    Layers of one tie group share a width; a width that a layer does not allow becomes the next wider one that it
    allows, or else the widest. Raises ValueError where a signal is missing or a layer allows nothing.
    """
    rungs = [(_known(layers, names), above, width) for names, above, width in RUNGS]
    priced = any(_is_price(signal) for signal, above, width in rungs)
    weights = sum(_parameters(layer) for layer in layers) if priced else None
    widths = [OTHERWISE] * len(layers)
    for members in _units(layers):
        unit = [layers[index] for index in members]
        width = _repair(_width(unit, _mean_position(layers, members), rungs, weights), unit)
        for index in members:
            widths[index] = width
    return widths


def _width(unit, position, rungs, weights):
    if PROTECTED_WIDTH is not None and _type(unit) in PROTECTED:
        return PROTECTED_WIDTH
    if EDGE_WIDTH is not None and (position < EDGES or position > 1.0 - EDGES):
        return EDGE_WIDTH
    for signal, above, width in rungs:
        value = _price(signal, unit, weights) if _is_price(signal) else _value(signal, unit)
        if value > above:
            return width
    return OTHERWISE


def _is_price(signal):
    return "_per_bit:" in signal


def _price(signal, unit, weights):
    """Rise of -log(1 - s), or of a cost, for each bit per weight that a model of so many weights saves by a step."""
    kind = signal.partition("_per_bit:")[0]
    narrow, wide = _step(signal)
    saved = sum(_bits(layer, wide) - _bits(layer, narrow) for layer in unit)
    if saved <= 0:
        return NO_SAVING
    if kind == "loss":
        rise = (_loss(unit, narrow) - _loss(unit, wide)) / 2**40
    else:
        rise = _value(kind + ":" + narrow, unit) - _value(kind + ":" + wide, unit)
    return rise / (saved / weights)


def _step(signal):
    """The width that a price names, and the next wider one."""
    index = MENU.index(signal.partition(":")[2])
    return MENU[index : index + 2]


def _known(layers, names):
    """The first of a signal's names that all layers know; a price is made of two widths' figures."""
    read = [_parts(name) for name in names]
    for name, parts in zip(names, read):
        if all(_has(layer, part) for part in parts for layer in layers):
            return name
    wanted = " or ".join(" and ".join(parts) for parts in read)
    raise ValueError("the heuristic reads " + wanted + ", which some layer lacks")


def _parts(name):
    if not _is_price(name):
        return [name]
    return [name.partition("_per_bit:")[0] + ":" + width for width in _step(name)]


def _has(layer, signal):
    kind, colon, width = signal.partition(":")
    return not colon or width in layer.get(kind, ())


def _repair(width, unit):
    allowed = [i for i, name in enumerate(MENU) if all(_allows(layer, name) for layer in unit)]
    if not allowed:
        raise ValueError("nothing of the menu is allowed for " + ", ".join(repr(layer.get("name")) for layer in unit))
    wanted = MENU.index(width)
    return MENU[min((i for i in allowed if i >= wanted), default=allowed[-1])]
'''
