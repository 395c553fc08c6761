"""What all parts of the campaign's configuration share."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationInfo, field_validator

from evoquant.errors import shown_value

CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Closed(BaseModel):
    """Unknown keys are refused, and numbers that are none: NaN, infinity, `true`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("should not be true or false; give a value")  # which Python would take for 1 or 0
        return value


def tag(default: str, known: tuple[str, ...]) -> Discriminator:
    """Choose a part's class by its `kind`; `module:Class` is anyone's own."""

    def choose(value: Any) -> str:
        kind = value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)
        return "code" if isinstance(kind, str) and kind not in known and CODE.fullmatch(kind) else _text(kind)

    return Discriminator(choose)


def _text(kind: Any) -> str:
    return kind if isinstance(kind, str) else shown_value(kind)
