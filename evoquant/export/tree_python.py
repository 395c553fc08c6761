"""Python for trees: a module without dependencies, laid out as `as_python` lays out those of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.export.python_text import SHARED_CODE, docstring, literal, menu_constants, tuple_of
from evoquant.export.tree_source import INTRODUCTION, TreePlan, calls, tree_plan
from evoquant.genomes.expression import IS_TYPE, OPERATOR, STATE
from evoquant.profiles.model import PER_WIDTH

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.genomes.tree import Tree
    from evoquant.quantization.precision import Menu

_NAMES = {name: f"_{name}" for name in OPERATOR} | {"min": "min", "max": "max"}


def render(champion: Champion, tree: Tree, menu: Menu | None) -> str:
    """A module for Python 3.9 or newer that allocates exactly as the tree does."""
    plan = tree_plan(champion, tree, menu)
    return docstring(champion, INTRODUCTION, plan.words) + _constants(plan) + _cost(plan) + _CODE + SHARED_CODE


def _constants(plan: TreePlan) -> str:
    return "\n".join(
        [
            *menu_constants(plan.menu),
            f"ROUNDS = {plan.rounds}",
            f"STATE = {tuple_of(STATE)}  # of the allocation as a whole, in its last round",
            f"SUMMED = {tuple_of([kind for kind in PER_WIDTH if kind != 'loss'])}  # with a figure for each width",
            f"SIGNALS = {tuple_of(plan.signals)}  # in the order of the arguments of `cost`",
            "",
        ]
    )


def _cost(plan: TreePlan) -> str:
    def leaf(name: str) -> str:
        return f"kind == {literal(name.removeprefix(IS_TYPE))}" if name.startswith(IS_TYPE) else name

    arguments = ", ".join(["kind", *plan.signals])
    return (
        f'\n\ndef cost({arguments}):\n    """Return the cost of giving a layer of type `kind` a width."""\n'
        f"    return {calls(plan.cost, _NAMES, leaf, 4)}\n"
    )


_CODE = '''

def allocate(layers):
    """Return the name of the width of each layer, in order.

    Layers of one tie group share a width; each takes a width that it allows. Raises ValueError where a signal is
    missing or a layer allows nothing.
    """
    _check(layers)
    units = _units(layers)
    model = {"units": len(units), "parameters": sum(_parameters(layer) for layer in layers)}
    if "model_loss" in SIGNALS:
        model["model_loss"] = {width: _loss(layers, width) / 2**40 for width in MENU}
    choices = [_choices(layers, members, model) for members in units]
    chosen = [some[-1] for some in choices]
    for _ in range(ROUNDS):
        state = {
            "mean_bits": sum(choice["bits"] for choice in chosen) / max(model["parameters"], 1),
            "total_loss": sum(choice["loss"] for choice in chosen) / 2**40,
        }
        before, chosen = chosen, [min(some, key=lambda choice: _cost(choice, state)) for some in choices]
        if chosen == before:
            break
    widths = [None] * len(layers)
    for members, choice in zip(units, chosen):
        for index in members:
            widths[index] = choice["width"]
    return widths


def _choices(layers, members, model):
    """What each width that a unit may take means for it, narrowest first."""
    unit = [layers[index] for index in members]
    fixed = {"type": _type(unit), "position": _mean_position(layers, members)}
    found = []
    for width in MENU:
        if all(_allows(layer, width) for layer in unit):
            choice = dict(fixed, width=width, loss=0, bits=sum(_bits(layer, width) for layer in unit))
            if "loss" in SIGNALS or "total_loss" in SIGNALS:
                choice["loss"] = _loss(unit, width)
            choice["values"] = {name: _read(name, unit, choice, model) for name in SIGNALS if name not in STATE}
            found.append(choice)
    if not found:
        raise ValueError("nothing of the menu is allowed for " + ", ".join(repr(layer.get("name")) for layer in unit))
    return found


def _cost(choice, state):
    values = (state[name] if name in STATE else choice["values"][name] for name in SIGNALS)
    return cost(choice["type"], *[_clip(value) for value in values])


def _check(layers):
    for signal in SIGNALS:
        kind = "loss" if signal in ("model_loss", "total_loss") else signal
        if kind == "loss" or kind in SUMMED:
            for width in MENU:
                if any(width not in layer.get(kind, ()) for layer in layers):
                    raise ValueError("the heuristic reads " + kind + ":" + width + ", which some layer lacks")


def _read(signal, unit, choice, model):
    """The value of a signal for layers that share a width."""
    width = choice["width"]
    if signal == "loss":
        return choice["loss"] / 2**40
    if signal == "model_loss":
        return model["model_loss"][width]
    if signal == "bits":
        return choice["bits"] / _value("parameters", unit)
    if signal == "size":
        return choice["bits"] / model["parameters"]
    if signal == "share":
        return _value("parameters", unit) / model["parameters"]
    if signal == "units":
        return model["units"]
    if signal == "position":
        return choice["position"]
    if signal in SUMMED:
        return _value(signal + ":" + width, unit)
    return _value(signal, unit)


def _clip(value):
    return min(max(float(value), -1e100), 1e100)


def _add(a, b):
    return _clip(a + b)


def _sub(a, b):
    return _clip(a - b)


def _mul(a, b):
    return _clip(a * b)


def _div(a, b):
    return 1.0 if b == 0.0 else _clip(a / b)


def _neg(a):
    return -a


def _sqrt(a):
    return math.sqrt(abs(a))


def _square(a):
    return _clip(a * a)


def _greater(a, b):
    return a > b


def _and(a, b):
    return a and b


def _or(a, b):
    return a or b


def _not(a):
    return not a


def _where(condition, a, b):
    return a if condition else b
'''
