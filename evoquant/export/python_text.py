"""Text that all exported Python modules share: docstrings and literals that nothing breaks out of, and plain code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.export.source import has_scales, one_line, provenance_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evoquant.campaign.champion import Champion
    from evoquant.quantization.precision import Menu


def docstring(champion: Champion, introduction: str, words: Sequence[str]) -> str:
    """The module's docstring and imports.

    Args:
        champion: gives scores and provenance.
        introduction: of `words`, one line.
        words: the heuristic, line by line.
    """

    def block(lines: Iterable[str]) -> str:
        return "".join(f"    {escaped(line)}\n" for line in lines)

    provenance = provenance_lines(champion) or ["not recorded"]
    return (
        '"""A quantization heuristic evolved by evoquant.\n'
        f"\n{introduction}\n\n"
        f"{block(one_line(word) for word in words)}\nWhere it comes from:\n\n{block(provenance)}"
        f"{_USAGE}"
    )


def menu_constants(menu: Menu) -> list[str]:
    """Lines that define the menu."""
    bits = ", ".join(f"{literal(p.name)}: {p.code_bits}" for p in menu)
    scaled = ", ".join(f"{literal(p.name)}: {literal(p.granularity)}" for p in menu if has_scales(p))
    groups = ", ".join(f"{literal(p.name)}: {p.group_size}" for p in menu if p.granularity == "group")
    return [
        f"MENU = {tuple_of(menu.names)}  # narrowest first",
        f"CODE_BITS = {{{bits}}}",
        f"SCALED_BY = {{{scaled}}}  # widths with a scale of 16 bits for each of these",
        f"GROUP_SIZES = {{{groups}}}  # weights that share a scale; they must divide a channel",
    ]


def tuple_of(names: Sequence[str]) -> str:
    """A tuple of strings as source."""
    return f"({', '.join(literal(name) for name in names)}{',' if len(names) == 1 else ''})"


def literal(text: str | None) -> str:
    """A string or None as source."""
    return "None" if text is None else f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """Text for between double quotes, single or triple: backslashes, quotes and whatever is not printable escaped."""
    return one_line(text.replace("\\", "\\\\").replace('"', '\\"'))


_USAGE = """
Use it:

    from champion import allocate
    allocate(layers)                   one width name for each layer
    python champion.py profile.json    prints {"layer": "width", ...}

`layers` is the `layers` list of a profile's JSON: dictionaries with `name`, `type`, `shape` and the signals that the
heuristic reads, such as `gradient_sensitivity` or `loss` ({"INT8": 0.01, ...}). `position`, from 0 (first) to 1
(last), is derived from the order where it is missing; `tie_group` and `allowed` are respected. Python 3.9 or newer, no
dependencies.
\"\"\"

from __future__ import annotations

import json
import math
import sys

"""

# Units, merged signals, losses and bits, what a layer allows, the script.
SHARED_CODE = '''

def _units(layers):
    """Indices of the members of each unit: layers of one tie group share a width."""
    units = {}
    for index, layer in enumerate(layers):
        group = layer.get("tie_group")
        units.setdefault(("layer", index) if group is None else ("tie", group), []).append(index)
    return list(units.values())


def _mean_position(layers, members):
    positions = [_position(layers, index) for index in members]
    return positions[0] if len(positions) == 1 else math.fsum(positions) / len(positions)


def _position(layers, index):
    if "position" in layers[index]:
        return layers[index]["position"]
    return index / (len(layers) - 1) if len(layers) > 1 else 0.5


def _type(unit):
    return unit[0]["type"] if len(unit) == 1 else max(unit, key=_parameters)["type"]


def _parameters(layer):
    return math.prod(layer["shape"]) if "shape" in layer else layer["parameters"]


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
    if kind in ("parameters", "divergence", "fisher", "hessian", "weight_error", "expected_loss"):
        return math.fsum(values)
    if kind.endswith("_range"):
        return max(values)
    sizes = [_parameters(layer) for layer in unit]
    return math.fsum(value * size for value, size in zip(values, sizes)) / sum(sizes)


def _loss(layers, width):
    """-log(1 - s) in units of 2^-40, so that no order of summing matters."""
    losses = (min(float(layer["loss"][width]), 1.0 - 2.0**-30) for layer in layers)
    return sum(round(-math.log1p(-loss) * 2**40) for loss in losses)


def _bits(layer, width):
    """Bits of a layer's weights and scales."""
    size = _parameters(layer)
    bits = size * CODE_BITS[width]
    if width not in SCALED_BY:
        return bits
    axis = layer.get("channel_axis", 0)
    channels = 1 if axis is None or "shape" not in layer else layer["shape"][axis]
    if SCALED_BY[width] == "tensor":
        scales = 1
    elif SCALED_BY[width] == "channel":
        scales = channels
    else:
        scales = channels * -(-(size // channels) // GROUP_SIZES[width])
    return bits + scales * 16


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
