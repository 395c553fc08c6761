"""YAML: the champion file's data, with the heuristic in words above it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from evoquant.export.source import one_line

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def render(champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
    """The champion file's data as YAML; plain, so that any YAML reader's safe mode loads it."""
    # Through JSON: what is not JSON is refused as for champion.json, and shared lists do not become YAML aliases.
    data = json.loads(champion.to_json())
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    if not body.replace("\n", "").isprintable():  # direction marks and the like, which nobody would see
        body = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=120)
    return (
        "# A quantization heuristic evolved by evoquant. Each layer takes the first that holds:\n"
        f"#   {one_line(champion.genome.text)}\n"
        "# See what it gives to a model: evoquant apply THIS_FILE PROFILE\n"
        f"{body}"
    )
