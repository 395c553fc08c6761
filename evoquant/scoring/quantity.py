"""Amounts as people write them, `20MB`, `3 ms`, `4`, and what they are in the unit of a cost table.

Used wherever a limit is given: `objective.at_most` in a config, `optimize(at_most=…)`, `evoquant pick --at-most`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from evoquant.errors import InputError, quoted, shown_value, suggestion
from evoquant.scoring.cost import BIT_UNITS

DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZES = {f"{prefix}B": factor for prefix, factor in DECIMAL.items()}
SIZES |= {"KB": 10**3, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
TIMES = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9}  # the micro sign
UNITS: dict[str, tuple[str, int]] = {
    **{name: ("", factor) for name, factor in DECIMAL.items()},
    **{name: ("size", factor) for name, factor in SIZES.items()},
    **{name: ("time", factor) for name, factor in TIMES.items()},
}
TABLE_UNITS = {"bits": BIT_UNITS}  # a unit of which a table counts parts
DIMENSIONS = {
    "bits": ("size", 8 * BIT_UNITS),
    "bytes": ("size", 1),
    "nanoseconds": ("time", 1),
}
"""Name of a cost → what it is an amount of, and its table's units in a byte or a nanosecond."""
_NUMBER = re.compile(r"\s*(\d{1,30}(?:\.\d{0,30})?(?:[eE][+-]?\d{1,2})?)\s*([A-Za-zµμ]*)\s*")


@dataclass(frozen=True)
class Amount:
    """So much of something.

    Attributes:
        text: as it was written.
        value: exactly, in bytes, nanoseconds, or whatever is counted.
        dimension: `size`, `time`, or '' for a plain number.
    """

    text: str
    value: Fraction
    dimension: str = ""

    def of(self, unit: str) -> Fraction:
        """The amount in units of a cost table.

        Args:
            unit: `Cost.name`.

        Raises:
            InputError: the table counts something else.
        """
        if not self.dimension:
            return self.value * TABLE_UNITS.get(unit, 1)
        dimension, factor = DIMENSIONS.get(unit, ("", 1))
        if dimension != self.dimension:
            counted = f"counts {unit}" if unit else "is a plain number"
            raise InputError(f"{self.text} is a {self.dimension}, and this {counted}; give a plain number of that")
        return self.value * factor


def parse_amount(given: object) -> Amount:
    """The amount that a number or a text says.

    Raises:
        InputError: it says none, or none above 0.
    """
    example = "write a number, perhaps with a unit: 20MB, 512KiB, 3ms, 1.5G, 4"
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        raise InputError(f"{shown_value(given)} is no amount; {example}")
    text = given if isinstance(given, str) else repr(given)
    found = _NUMBER.fullmatch(text.replace("μ", "µ"))  # the Greek letter, which keyboards have, too
    if found is None:
        raise InputError(f"{quoted(text)} is no amount; {example}")
    number, unit = found.groups()
    if unit not in UNITS:
        alike = [name for name in UNITS if name.lower() == unit.lower()]
        hint = f" Did you mean {alike[0]!r}?" if alike else suggestion(unit, [name for name in UNITS if name])
        raise InputError(f"{quoted(text)}: no unit is called {quoted(unit)}.{hint}")
    dimension, factor = UNITS[unit]
    value = Fraction(number) * factor
    if not value > 0:
        raise InputError(f"{quoted(text)}: an amount that something may have at most is above 0")
    return Amount(text.strip(), value, dimension)


def amount_scale(value: float, unit: str) -> tuple[float, str]:
    """By what an axis of such amounts is divided, and its unit: `(1e6, 'MB')`.

    Args:
        value: one of them, in the table's unit.
        unit: `Cost.name`.
    """
    if unit not in DIMENSIONS:
        return float(TABLE_UNITS.get(unit, 1)), unit
    dimension, factor = DIMENSIONS[unit]
    names = ("GB", "MB", "kB", "B") if dimension == "size" else ("s", "ms", "µs", "ns")
    known = SIZES if dimension == "size" else TIMES
    name = next((name for name in names if value / factor >= known[name]), names[-1])
    return float(factor * known[name]), name


def amount_text(value: float, unit: str) -> str:
    """So many units of a cost table, for people: `18.3 MB`, `2.4 ms`, `1,234 joules`.

    Args:
        value: in the table's unit.
        unit: `Cost.name`, or '' for bits per weight.
    """
    if not unit:
        return f"{value:.5g} bits per weight"
    factor, name = amount_scale(value, unit)
    if unit in DIMENSIONS:
        return f"{value / factor:.5g} {name}"
    plain = value / factor
    return f"{plain:,.0f} {unit}" if plain >= 1000 else f"{plain:.5g} {unit}"
