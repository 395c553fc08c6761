"""JSON: the champion file itself, which `evoquant apply` and `load_champion` read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def render(champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
    """The champion file's text."""
    return champion.to_json()
