"""Precisions and menus: which number formats a campaign may give to a layer, and what they cost.

A precision's name says all of it. `INT4` is *nominal* (exactly 4 bits, no scales: the seed suite); `INT4-channel` has
one FP16 scale per output channel, `INT4-tensor` one per tensor, `INT4-g128` one per group of 128 inputs of a channel.
Integers may go on with, in this order: `-asym` (a zero point per slice), `-mse` (the range of least squared error
instead of the whole one) and `-a8` (the layer's inputs are INT8, too: W8A8, W4A8). `FP8` is E4M3 and `NF4` the
NormalFloat of QLoRA, with scales like the integers'; `FP16`, `BF16` and `FP32` have none.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evoquant.errors import LONGEST_VALUE, PrecisionError, quoted, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Granularity = Literal["nominal", "none", "tensor", "channel", "group"]

SCALE_BITS = 16
LARGEST_E4M3 = 448
ACTIVATION_BITS = 8
EXAMPLES = "INT4, INT4-channel, INT4-g128, INT4-g32-asym, INT3-channel-mse, INT8-channel-a8, NF4-g64, FP8-channel, FP16"

_NAME = re.compile(
    r"(INT[2-8]|NF4|FP8|FP16|BF16|FP32)(?:-(tensor|channel|g[1-9][0-9]{0,5}))?((?:-asym)?(?:-mse)?(?:-a8)?)"
)
_SUFFIXES = ("asym", "mse", "a8")
_FLOATS = ("FP16", "BF16", "FP32")


@dataclass(frozen=True)
class Precision:
    """A number format with its granularity and the kind of its range; scales are FP16.

    Attributes:
        name: canonical, unique: `INT4-channel`.
        format: the codes alone: `INT4`.
        code_bits: bits of one code, 2 to 32.
        granularity: `nominal` for integers without scales, `none` for floats.
        group_size: weights that share a scale, for `group`; else 0.
        asymmetric: each slice has a zero point of `code_bits` bits beside its scale.
        clipped: the range of a slice is the one of least squared error, not the whole one.
        activation_bits: bits of the layer's dynamically quantized inputs; None where they stay as they are.
    """

    name: str
    format: str
    code_bits: int
    granularity: Granularity
    group_size: int = 0
    asymmetric: bool = False
    clipped: bool = False
    activation_bits: int | None = None

    @classmethod
    def parse(cls, name: str) -> Precision:
        """The precision of that name.

        Raises:
            PrecisionError: no such name.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise PrecisionError(f"unknown precision {quoted(name, LONGEST_VALUE)}; {_remedy(name[:LONGEST_VALUE])}")
        number_format, slices, ending = match.groups()
        suffixes = ending.split("-")[1:]
        fault = _fault(number_format, slices, suffixes)
        if fault:
            raise PrecisionError(f"precision {name!r}: {fault}")
        bits = int(number_format.lstrip("INTBFP"))
        if slices is None:
            return cls(name, number_format, bits, "none" if number_format in _FLOATS else "nominal")
        return cls(
            name,
            number_format,
            bits,
            "group" if slices[0] == "g" else "tensor" if slices == "tensor" else "channel",
            int(slices[1:]) if slices[0] == "g" else 0,
            asymmetric="asym" in suffixes,
            clipped="mse" in suffixes,
            activation_bits=ACTIVATION_BITS if "a8" in suffixes else None,
        )

    @property
    def is_integer(self) -> bool:
        """Whether the codes are integers."""
        return self.format.startswith("INT")

    @property
    def has_scales(self) -> bool:
        """Whether weights are codes times scales: neither a nominal precision nor a plain float."""
        return self.granularity not in ("nominal", "none")

    @property
    def largest_code(self) -> int:
        """What the end of a slice's range becomes: the range's size over this is the scale.

        2^(b−1) − 1 for symmetric integers, whose codes run from minus this to this; 2^b − 1 for asymmetric ones, whose
        codes begin at 0; 448 for FP8 (E4M3) and 1 for NF4.
        """
        if self.format == "FP8":
            return LARGEST_E4M3
        if self.format == "NF4":
            return 1
        return (1 << self.code_bits) - 1 if self.asymmetric else (1 << self.code_bits - 1) - 1

    @property
    def slice_bits(self) -> int:
        """What each slice stores beside its codes: the scale, and the zero point where there is one."""
        return SCALE_BITS + (self.code_bits if self.asymmetric else 0)

    def fits(self, shape: tuple[int, ...], channel_axis: int | None) -> bool:
        """Whether the weights of a tensor divide into this precision's groups."""
        return self.granularity != "group" or _per_channel(shape, channel_axis) % self.group_size == 0

    def slices(self, shape: tuple[int, ...], channel_axis: int | None) -> int:
        """How many scales a tensor of `shape` needs; a tensor without a channel axis is one channel."""
        if not self.has_scales:
            return 0
        channels = 1 if channel_axis is None else shape[channel_axis]
        if self.granularity == "tensor":
            return 1
        if self.granularity == "channel":
            return channels
        return channels * -(-_per_channel(shape, channel_axis) // self.group_size)

    def bits(self, shape: tuple[int, ...], channel_axis: int | None) -> int:
        """Exact bits of a tensor of `shape`: weights · code bits + slices · (scale bits + zero point bits)."""
        return math.prod(shape) * self.code_bits + self.slices(shape, channel_axis) * self.slice_bits

    def effective_bits(self, shape: tuple[int, ...], channel_axis: int | None) -> float:
        """Bits per weight, scales and zero points counted: INT4 per group of 128 is 4.125, asymmetric 4.15625."""
        return self.bits(shape, channel_axis) / math.prod(shape)


def _per_channel(shape: tuple[int, ...], channel_axis: int | None) -> int:
    return math.prod(shape) // (1 if channel_axis is None else shape[channel_axis])


def _fault(number_format: str, slices: str | None, suffixes: list[str]) -> str | None:
    """What is wrong with a name that is written in the right order, or None."""
    if number_format in _FLOATS and (slices or suffixes):
        return f"{number_format} has no scales; write {number_format!r}."
    if suffixes and not number_format.startswith("INT"):
        return f"-{suffixes[0]} is for INT2 to INT8; write '{number_format}-{slices or 'channel'}'."
    if slices is None and (suffixes or number_format in ("FP8", "NF4")):
        meant = "-".join([number_format, "channel", *suffixes])
        return f"its granularity is missing; write {meant!r} (or -tensor, or -g128, in place of -channel)."
    return None


def _remedy(name: str) -> str:
    """What to write in place of a name that is none."""
    head, *parts = name.split("-")
    order = sorted(dict.fromkeys(parts), key=lambda part: _SUFFIXES.index(part) if part in _SUFFIXES else -1)
    meant = "-".join([head, *order])
    if meant != name and _NAME.fullmatch(meant):
        return f"write {meant!r}: granularity, then -asym, -mse, -a8, each once."
    return f"precisions are written like {EXAMPLES}."


@dataclass(frozen=True)
class Menu:
    """The precisions a campaign may use, narrowest first: ordered by code bits, then name."""

    precisions: tuple[Precision, ...]

    @classmethod
    def parse(cls, names: Iterable[str]) -> Menu:
        """The menu of those names, in the menu's own order.

        Raises:
            PrecisionError: unknown name, a name that stands twice, fewer than one or more than 64 names.
        """
        precisions = [Precision.parse(name) for name in names]
        if not 1 <= len(precisions) <= 64:
            raise PrecisionError(f"a menu has 1 to 64 precisions, not {len(precisions)}.")
        if len({p.name for p in precisions}) < len(precisions):
            raise PrecisionError(f"a menu names each precision once; got {', '.join(p.name for p in precisions)}.")
        return cls(tuple(sorted(precisions, key=lambda p: (p.code_bits, p.name))))

    def __len__(self) -> int:
        return len(self.precisions)

    def __iter__(self) -> Iterator[Precision]:
        return iter(self.precisions)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, narrowest first."""
        return tuple(p.name for p in self.precisions)

    def resolve(self, name: str) -> int:
        """Index of the precision meant by `name`: its own name, or a format that the menu has once.

        This lets a rule written with `INT8` run on a menu that holds `INT8-channel`.

        Raises:
            PrecisionError: nothing, or more than one precision, is meant.
        """
        if name in self.names:
            return self.names.index(name)
        bare = Precision.parse(name).format
        found = [i for i, p in enumerate(self.precisions) if p.format == bare]
        if len(found) != 1:
            fault = "has no" if not found else "has more than one"
            raise PrecisionError(f"the menu {', '.join(self.names)} {fault} {bare}.{suggestion(name, self.names)}")
        return found[0]


SEED_MENU = Menu.parse(("INT2", "INT4", "INT8", "FP16", "FP32"))
