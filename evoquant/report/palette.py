"""Colours of all figures: a width is the same colour everywhere, told apart by colour-blind people and in grey."""

from __future__ import annotations

# From narrow to wide, after matplotlib's "plasma" (Smith & van der Walt 2015): lightness falls with the bits, so the
# order survives a black-and-white printer.
_BY_BITS = (
    (2, "#f7d13d"),
    (3, "#fcb14b"),
    (4, "#f58860"),
    (6, "#dc5c79"),
    (8, "#b12a90"),
    (16, "#6a00a8"),
    (32, "#2c0594"),
)

# Okabe & Ito 2008, without the yellow, which is too light for a line on white.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")

CLIFF = "#b3261e"  # the retention below which fitness falls
CHAMPION = "#d55e00"
FRONT = "#000000"
QUIET = "#8a8a8a"  # the population, grids, what is only context


def width_colour(code_bits: float) -> str:
    """The colour of a width by its code bits (4 for INT4 at whatever granularity), `#rrggbb`."""
    for bits, colour in _BY_BITS:
        if code_bits <= bits:
            return colour
    return _BY_BITS[-1][1]


def series_colour(number: int) -> str:
    """The colour of the n-th line of a figure, from 0; they repeat after the last."""
    return SERIES[number % len(SERIES)]
