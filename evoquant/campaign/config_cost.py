"""The `cost` part of the campaign's configuration: what is counted of an allocation."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from evoquant.campaign.config_base import Closed, tag
from evoquant.campaign.config_own import CodeConfig, HeldConfig
from evoquant.errors import InputError, quoted
from evoquant.files import read_bytes
from evoquant.scoring.cost_file import LARGEST_TABLE
from evoquant.scoring.packed_bytes import packing_named


class BitsCostConfig(Closed):
    """Bits of weights and scales: what is counted where a campaign names no cost."""

    kind: Literal["bits"] = "bits"


class BytesCostConfig(Closed):
    """Bytes of a file: codes packed, scales, zero points, alignment, and what stays as it is."""

    kind: Literal["bytes"]
    target: str | None = None

    @field_validator("target")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        try:
            packing_named(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value

    @model_serializer(mode="wrap")
    def _plain(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = made(self)
        if self.target is None:
            plain.pop("target", None)
        return plain


class BitOperationsCostConfig(Closed):
    """Multiplications times bits of the weight times bits of the input; profiles have to say `macs`."""

    kind: Literal["bit_operations"]


class TableCostConfig(Closed):
    """A table from a file: measured by `evoquant cost --latency`, or by the user on a device of their own.

    The path is relative to the config file. `sha256` is the file's; it is filled in where it is left out and stands in
    resolved configs. It is part of their hash, where the file lies is not, and a file that has become another one is
    refused. A run directory keeps a copy, which is read instead; see `evoquant.campaign.kept_tables`.
    """

    kind: Literal["table"]
    file: Annotated[str, Field(min_length=1, max_length=4096)]
    unit: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z _-]{0,39}$")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    _kept: Path | None = PrivateAttr(default=None)

    @property
    def place(self) -> Path:
        """What is read: the run directory's copy, or the file."""
        return self._kept or Path(self.file)

    def kept_at(self, place: Path) -> TableCostConfig:
        """The same, read from a copy."""
        found = self.model_copy()
        found._kept = place
        return found

    @field_validator("unit")
    @classmethod
    def _not_ours(cls, value: str | None) -> str | None:
        if value == "bits":
            raise ValueError("bits are evoquant's own count; name what the table counts, such as ns, ms or joules")
        return value

    @model_validator(mode="before")
    @classmethod
    def _with_digest(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("sha256") is None and isinstance(data.get("file"), str):
            try:
                return data | {"sha256": table_digest(Path(data["file"]))}
            except InputError as error:
                raise ValueError(str(error).removesuffix(".")) from None
        return data

    @model_serializer(mode="wrap")
    def _plain(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = made(self)
        if self.unit is None:
            plain.pop("unit", None)
        return plain


def table_digest(path: Path) -> str:
    """sha256 of a table's file.

    Raises:
        InputError: it cannot be read, or is too large for one.
    """
    return hashlib.sha256(read_bytes(path, limit=LARGEST_TABLE)).hexdigest()


BUILT_IN = ("bits", "bytes", "bit_operations", "table")
CostConfig = Annotated[
    Annotated[BitsCostConfig, Tag("bits")]
    | Annotated[BytesCostConfig, Tag("bytes")]
    | Annotated[BitOperationsCostConfig, Tag("bit_operations")]
    | Annotated[TableCostConfig, Tag("table")]
    | Annotated[CodeConfig, Tag("code")]
    | Annotated[HeldConfig, Tag("memory")],
    tag("bits", BUILT_IN),
]
"""One cost of a campaign; `build_scoring.maker_of` makes its tables."""
AnyCostConfig = BitsCostConfig | BytesCostConfig | BitOperationsCostConfig | TableCostConfig | CodeConfig | HeldConfig

RESERVED = ("bits", "effective_bits", "cost", "retention", "compression", "fitness", "loss")
"""Names that say something already."""


def checked_names(costs: dict[str, Any]) -> dict[str, Any]:
    """Costs by name, if the names can stand beside evoquant's own.

    Raises:
        ValueError: one cannot.
    """
    for name in costs:
        if name in RESERVED:
            raise ValueError(f"{name!r} says something already; call this cost something else, such as latency")
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name) is None:
            raise ValueError(f"{quoted(name)} is no name; write letters, digits, _ and -, a letter first, 40 at most")
    return costs
