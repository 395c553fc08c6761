"""What all parts of the campaign's configuration share."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator

CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Closed(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def tag(default: str, known: tuple[str, ...]) -> Discriminator:
    """Choose a part's class by its `kind`; `module:Class` is anyone's own."""

    def choose(value: Any) -> str:
        kind = value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)
        return "code" if isinstance(kind, str) and kind not in known and CODE.fullmatch(kind) else str(kind)

    return Discriminator(choose)
