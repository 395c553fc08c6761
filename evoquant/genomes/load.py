"""Rebuild any genome from plain data, by table look-up: nothing in a file runs code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.errors import GenomeError, quoted, suggestion
from evoquant.genomes.rule import rule_from_dict
from evoquant.genomes.strategies import strategy

if TYPE_CHECKING:
    from evoquant.genomes.base import Genome

KINDS = ("rule", "tree", "direct", "strategy")


def genome_from_dict(data: Any, source: str) -> Genome:
    """The genome that `to_dict` gave.

    Raises:
        GenomeError: not a genome; the message begins with `source`.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise GenomeError(f"{source}: a genome is an object with a `kind`: {', '.join(KINDS)}.")
    kind = data["kind"]
    if kind == "rule":
        return rule_from_dict(data, source)
    if kind == "tree":
        from evoquant.genomes.tree import tree_from_dict

        return tree_from_dict(data, source)
    if kind == "direct":
        from evoquant.genomes.direct import direct_from_dict

        return direct_from_dict(data, source)
    if kind == "strategy":
        if set(data) != {"kind", "name"} or not isinstance(data["name"], str):
            raise GenomeError(f"{source}: a strategy has a `name` and nothing else.")
        try:
            return strategy(data["name"])
        except GenomeError as error:
            raise GenomeError(f"{source}: name: {error}") from None
    raise GenomeError(f"{source}: kind: unknown genome kind {quoted(kind, 60)}.{suggestion(kind, KINDS)}")
