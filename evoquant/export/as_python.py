"""Python: a module without dependencies that gives every layer of a profile its width, also a script.

Only the constants and the docstring differ from rule to rule; the code below them is the same for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.export.source import Plan, one_line, plan_of, provenance_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def render(champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
    """A module for Python 3.9 or newer that allocates exactly as the champion does.

    Raises:
        InputError: the champion's genome is no rule, or the menu lacks a width of it.
    """
    plan = plan_of(champion, "python", menu)
    return _docstring(plan, champion) + _constants(plan) + _CODE


def _docstring(plan: Plan, champion: Champion) -> str:
    def block(lines: Iterable[str]) -> str:
        return "".join(f"    {_escaped(line)}\n" for line in lines)

    words = [one_line(line) for line in plan.words()]
    provenance = provenance_lines(champion) or ["not recorded"]
    return (
        '"""A quantization heuristic evolved by evoquant.\n'
        "\nEach layer takes the width of the first that holds:\n\n"
        f"{block(words)}\nWhere it comes from:\n\n{block(provenance)}{_USAGE}"
    )


def _constants(plan: Plan) -> str:
    groups = {p.name: p.group_size for p in plan.menu if p.granularity == "group"}
    rungs = [f"    ({_tuple(r.names)}, {r.above!r}, {_literal(r.width)}),\n" for r in plan.rungs]
    sizes = ", ".join(f"{_literal(name)}: {size}" for name, size in groups.items())
    return "\n".join(
        [
            f"MENU = {_tuple(plan.menu.names)}  # narrowest first",
            f"GROUP_SIZES = {{{sizes}}}  # weights that share a scale; they must divide a channel",
            f"PROTECTED = {_tuple(plan.protected)}",
            f"PROTECTED_WIDTH = {_literal(plan.protected_width)}",
            f"EDGES = {plan.edges!r}",
            f"EDGE_WIDTH = {_literal(plan.edge_width)}",
            "# Names of the signal (the first that the layers know counts), threshold, width.",
            f"RUNGS = (\n{''.join(rungs)})" if rungs else "RUNGS = ()",
            f"OTHERWISE = {_literal(plan.otherwise)}",
            "",
        ]
    )


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(_literal(name) for name in names)}{',' if len(names) == 1 else ''})"


def _literal(text: str | None) -> str:
    return "None" if text is None else f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Text for between double quotes, single or triple: backslashes, quotes and whatever is not printable escaped."""
    return one_line(text.replace("\\", "\\\\").replace('"', '\\"'))


_USAGE = """
Use it:

    from champion import allocate
    allocate(layers)                   one width name for each layer
    python champion.py profile.json    prints {"layer": "width", ...}

`layers` is the `layers` list of a profile's JSON: dictionaries with `name`, `type`, `shape` and the signals that the
rule reads, such as `gradient_sensitivity` or `loss` ({"INT8": 0.01, ...}). `position`, from 0 (first) to 1 (last),
is derived from the order where it is missing; `tie_group` and `allowed` are respected. Python 3.9 or newer, no
dependencies.
\"\"\"

from __future__ import annotations

import json
import math
import sys

"""

_CODE = '''

def allocate(layers):
    """Return the name of the width of each layer, in order.

    Layers of one tie group share a width; a width that a layer does not allow becomes the next wider one that it
    allows, or else the widest. Raises ValueError where a signal is missing or a layer allows nothing.
    """
    units = {}
    for index, layer in enumerate(layers):
        group = layer.get("tie_group")
        units.setdefault(("layer", index) if group is None else ("tie", group), []).append(index)
    rungs = [(_known(layers, names), above, width) for names, above, width in RUNGS]
    widths = [OTHERWISE] * len(layers)
    for members in units.values():
        unit = [layers[index] for index in members]
        positions = [_position(layers, index) for index in members]
        position = positions[0] if len(positions) == 1 else math.fsum(positions) / len(positions)
        width = _repair(_width(unit, position, rungs), unit)
        for index in members:
            widths[index] = width
    return widths


def _width(unit, position, rungs):
    if PROTECTED_WIDTH is not None and _type(unit) in PROTECTED:
        return PROTECTED_WIDTH
    if EDGE_WIDTH is not None and (position < EDGES or position > 1.0 - EDGES):
        return EDGE_WIDTH
    for signal, above, width in rungs:
        if _value(signal, unit) > above:
            return width
    return OTHERWISE


def _position(layers, index):
    if "position" in layers[index]:
        return layers[index]["position"]
    return index / (len(layers) - 1) if len(layers) > 1 else 0.5


def _type(unit):
    return unit[0]["type"] if len(unit) == 1 else max(unit, key=_parameters)["type"]


def _parameters(layer):
    return math.prod(layer["shape"]) if "shape" in layer else layer["parameters"]


def _known(layers, names):
    for name in names:
        kind, colon, width = name.partition(":")
        if not colon or all(width in layer.get(kind, ()) for layer in layers):
            return name
    raise ValueError("the heuristic reads " + " or ".join(names) + ", which some layer lacks")


def _value(signal, unit):
    """A signal of layers that share a width: one layer's own, or merged."""
    kind, colon, width = signal.partition(":")
    if colon:
        values = [float(layer[kind][width]) for layer in unit]
    elif kind == "parameters":
        values = [float(_parameters(layer)) for layer in unit]
    else:
        values = [float(layer.get(kind, 0.0)) for layer in unit]
    if len(values) == 1:
        return values[0]
    if kind == "loss":
        return 1.0 - math.prod(1.0 - value for value in values)
    if kind in ("parameters", "fisher", "weight_error"):
        return math.fsum(values)
    if kind.endswith("_range"):
        return max(values)
    sizes = [_parameters(layer) for layer in unit]
    return math.fsum(value * size for value, size in zip(values, sizes)) / sum(sizes)


def _repair(width, unit):
    allowed = [i for i, name in enumerate(MENU) if all(_allows(layer, name) for layer in unit)]
    if not allowed:
        raise ValueError("nothing of the menu is allowed for " + ", ".join(repr(layer.get("name")) for layer in unit))
    wanted = MENU.index(width)
    return MENU[min((i for i in allowed if i >= wanted), default=allowed[-1])]


def _allows(layer, name):
    listed = layer.get("allowed")
    if listed is not None and name not in listed:
        return False
    if name not in GROUP_SIZES or "shape" not in layer:
        return True
    axis = layer.get("channel_axis", 0)
    channels = 1 if axis is None else layer["shape"][axis]
    return math.prod(layer["shape"]) // channels % GROUP_SIZES[name] == 0


def main(arguments):
    """Print a profile's allocation as JSON; return the exit code."""
    if len(arguments) != 1:
        print("usage: champion.py PROFILE.json", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as stream:
            profile = json.load(stream)
        layers = profile["layers"] if isinstance(profile, dict) else profile
        widths = allocate(layers)
        named = {layer["name"]: width for layer, width in zip(layers, widths)}
    except KeyError as error:
        print(f"{arguments[0]}: the key {error} is missing", file=sys.stderr)
        return 2
    except (OSError, ValueError, TypeError, AttributeError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(named, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''
