"""What all parts of the campaign's configuration share."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationInfo, field_validator

from evoquant.errors import shown_value

CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
LARGEST_SIZE = 2**50


class Closed(BaseModel):
    """Unknown keys are refused, and numbers that are none: NaN, infinity, `true`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("should not be true or false; give a value")  # which Python would take for 1 or 0
        return value


def size_in_bytes(value: str | int) -> int | None:
    """The bytes of a size such as 4GB, 512MiB or 1000000; None where it is none, or more than `LARGEST_SIZE`."""
    found = _SIZE.fullmatch(str(value).strip())
    size = None if found is None else int(float(found[1]) * _UNITS[found[2] or ""])
    return size if size is not None and size <= LARGEST_SIZE else None


def tag(default: str, known: tuple[str, ...]) -> Discriminator:
    """Choose a part's class by its `kind`; `module:Class` is anyone's own."""

    def choose(value: Any) -> str:
        kind = value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)
        return "code" if isinstance(kind, str) and kind not in known and CODE.fullmatch(kind) else _text(kind)

    return Discriminator(choose)


def _text(kind: Any) -> str:
    return kind if isinstance(kind, str) else shown_value(kind)
