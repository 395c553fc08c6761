"""Precisions and menus: which number formats a campaign may give to a layer, and what they cost.

A precision's name says all of it: `INT4` is *nominal* (exactly 4 bits, no scales: the seed
suite), `INT4-channel` has one FP16 scale per output channel, `INT4-tensor` one per tensor,
`INT4-g128` one per group of 128 inputs of a channel. `FP16` and `FP32` have no scales.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evoquant.errors import PrecisionError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Granularity = Literal["nominal", "none", "tensor", "channel", "group"]

SCALE_BITS = 16
_NAME = re.compile(r"(INT[2-8]|FP16|FP32)(?:-(tensor|channel|g[1-9][0-9]{0,5}))?")
EXAMPLES = "INT4, INT4-channel, INT4-tensor, INT4-g128, FP16, FP32"


@dataclass(frozen=True)
class Precision:
    """A number format with its granularity; symmetric, with FP16 scales.

    Attributes:
        name: canonical, unique: `INT4-channel`.
        format: the codes alone: `INT4`.
        code_bits: bits of one code, 2 to 32.
        granularity: `nominal` for integers without scales, `none` for floats.
        group_size: weights that share a scale, for `group`; else 0.
    """

    name: str
    format: str
    code_bits: int
    granularity: Granularity
    group_size: int = 0

    @classmethod
    def parse(cls, name: str) -> Precision:
        """The precision of that name.

        Raises:
            PrecisionError: no such name.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise PrecisionError(f"unknown precision {name!r}; precisions are written like {EXAMPLES}.")
        number_format, slices = match.groups()
        integer = number_format.startswith("INT")
        bits = int(number_format.removeprefix("INT").removeprefix("FP"))
        if not integer and slices:
            raise PrecisionError(f"precision {name!r}: {number_format} has no scales; write {number_format!r}.")
        if not integer:
            return cls(name, number_format, bits, "none")
        if slices is None:
            return cls(name, number_format, bits, "nominal")
        if slices.startswith("g"):
            return cls(name, number_format, bits, "group", int(slices[1:]))
        return cls(name, number_format, bits, "tensor" if slices == "tensor" else "channel")

    @property
    def is_integer(self) -> bool:
        """Whether the codes are integers."""
        return self.format.startswith("INT")

    @property
    def largest_code(self) -> int:
        """2^(b−1) − 1: codes run from minus this to this."""
        return int(2 ** (self.code_bits - 1)) - 1

    def fits(self, shape: tuple[int, ...], channel_axis: int | None) -> bool:
        """Whether the weights of a tensor divide into this precision's groups."""
        return self.granularity != "group" or _per_channel(shape, channel_axis) % self.group_size == 0

    def slices(self, shape: tuple[int, ...], channel_axis: int | None) -> int:
        """How many scales a tensor of `shape` needs; a tensor without a channel axis is one channel."""
        if self.granularity in ("nominal", "none"):
            return 0
        channels = 1 if channel_axis is None else shape[channel_axis]
        if self.granularity == "tensor":
            return 1
        if self.granularity == "channel":
            return channels
        return channels * -(-_per_channel(shape, channel_axis) // self.group_size)

    def bits(self, shape: tuple[int, ...], channel_axis: int | None) -> int:
        """Exact bits of a tensor of `shape`: weights · code bits + scales · scale bits."""
        return math.prod(shape) * self.code_bits + self.slices(shape, channel_axis) * SCALE_BITS

    def effective_bits(self, shape: tuple[int, ...], channel_axis: int | None) -> float:
        """Bits per weight, scales counted: INT4 per group of 128 is 4.125."""
        return self.bits(shape, channel_axis) / math.prod(shape)


def _per_channel(shape: tuple[int, ...], channel_axis: int | None) -> int:
    return math.prod(shape) // (1 if channel_axis is None else shape[channel_axis])


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
