"""Rebuild any genome from plain data, by table look-up: nothing in a file runs code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.errors import GenomeError, quoted, raised_by, suggestion
from evoquant.genomes.rule import rule_from_dict
from evoquant.genomes.strategies import strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.genomes.base import Genome

KINDS = ("rule", "tree", "direct", "strategy")
_OWN: dict[str, tuple[Callable[[dict[str, Any]], Genome], str]] = {}


def know_genomes(kind: str, load: Callable[[dict[str, Any]], Genome], name: str) -> None:
    """Read genomes of a kind from outside, from now on; only of a space that the user has named.

    Args:
        kind: as their `to_dict` has it; none of ours.
        load: what rebuilds one.
        name: of the space, for messages.
    """
    assert kind not in KINDS
    _OWN[kind] = load, name


def is_known(kind: str) -> bool:
    """Whether genomes of this kind can be read here."""
    return kind in KINDS or kind in _OWN


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
    if kind in _OWN:
        return _own(data, source)
    raise GenomeError(f"{source}: kind: unknown genome kind {quoted(kind, 60)}.{suggestion(kind, KINDS)}")


def _own(data: dict[str, Any], source: str) -> Genome:
    load, name = _OWN[data["kind"]]
    try:
        return load(data)
    except GenomeError as error:
        raise GenomeError(f"{source}: {error}") from None
    except Exception as error:  # whatever it may raise
        raise GenomeError(f"{source}: {name} cannot read it: {raised_by(error)}.") from error
