"""Rebuild any genome from plain data, by table look-up: nothing in a file runs code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.errors import GenomeError, quoted, raised_by, suggestion
from evoquant.genomes.rule import rule_from_dict
from evoquant.genomes.strategies import strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome
    from evoquant.scoring.problem import Problem

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


@dataclass(frozen=True)
class OwnGenome:
    """A genome of a space from outside, as it is written down: to be looked at; to be used once the space is known.

    Attributes:
        kind: of genome.
        space: that it is of: `module:Class`, or a class's name.
        text: one line.
        data: its JSON text.
        held: whether the space was in the memory of a Python program.
    """

    kind: str
    space: str
    text: str
    data: str
    held: bool

    @property
    def parts(self) -> int:
        """How complicated it is.

        Raises:
            GenomeError: its space is not known here.
        """
        return self._whole().parts

    def allocate(self, problem: Problem) -> NDArray[np.int8]:
        """`(units,)` menu indices.

        Raises:
            GenomeError: its space is not known here, or it cannot be applied to this model.
        """
        return self._whole().allocate(problem)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it was written."""
        plain: dict[str, Any] = json.loads(self.data)
        return plain

    def _whole(self) -> Genome:
        if self.kind in _OWN:
            return genome_from_dict(self.to_dict(), "genome")
        if self.held:
            raise GenomeError(
                f"the genome is of {quoted(self.space)}, which was in the memory of a Python program; make the same "
                f"call there again: it goes on, and its result applies and exports."
            )
        raise GenomeError(
            f"the genome is of {quoted(self.space)}, code from outside of evoquant; to run it, repeat it: "
            f"--allow-code {quoted(self.space)[1:-1]}"
        )


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
