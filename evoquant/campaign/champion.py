"""Champion: the genome that a campaign ends with, with its scores and provenance, and its JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.errors import GenomeError, InputError, other_version, quoted, suggestion
from evoquant.files import pretty_json, read_json
from evoquant.genomes.load import OwnGenome, genome_from_dict, is_known

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from evoquant.genomes.base import Genome

SCHEMA = "evoquant.champion"
VERSION = 1
_KEYS = {"schema", "version", "genome", "text", "scores", "provenance"}


@dataclass(frozen=True)
class Champion:
    """The best genome of a campaign.

    Attributes:
        genome: the heuristic.
        scores: split (`train`, `valid`, `test`, `calibration`, `selection`) → figures (`fitness`, `retention`,
            `compression`, `effective_bits`, …), as plain data.
        provenance: plain data: campaign name, config hash, seed, versions, evaluations, menu, ancestry.
    """

    genome: Genome
    scores: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any]

    def to_json(self) -> str:
        """The file's text."""
        return pretty_json(
            {
                "schema": SCHEMA,
                "version": VERSION,
                "genome": self.genome.to_dict(),
                "text": self.genome.text,
                "scores": {split: dict(figures) for split, figures in self.scores.items()},
                "provenance": dict(self.provenance),
            }
        )


def load_champion(path: Path) -> Champion:
    """Read a champion file; `text` is ignored, it is written for people.

    Raises:
        GenomeError: the file cannot be read or is no champion; the message names file and key.
    """
    return champion_from_dict(read_json(path, error=GenomeError), str(path))


def is_champion(path: Path) -> bool:
    """Whether a file is meant as a champion: JSON that says so."""
    try:
        data = read_json(path)
    except InputError:
        return False
    return isinstance(data, dict) and data.get("schema") == SCHEMA


def champion_from_dict(data: Any, source: str) -> Champion:
    """A champion from its JSON form as plain data.

    Raises:
        GenomeError: it is none; the message begins with `source` and names the key.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise GenomeError(f"{source}: not a champion file: `schema` should be {SCHEMA!r}.")
    version = data.get("version")
    if version != VERSION or isinstance(version, bool):
        raise GenomeError(f"{source}: version: {other_version(version, VERSION)}")
    if unknown := sorted(set(data) - _KEYS):
        raise GenomeError(f"{source}: {quoted(unknown[0])}: unknown key.{suggestion(unknown[0], _KEYS)}")
    genome = written_genome(data.get("genome"), data.get("text"), data.get("provenance"), f"{source}: genome")
    for key in ("scores", "provenance"):
        if not isinstance(data.get(key), dict):
            raise GenomeError(f"{source}: {key}: should be an object.")
    for split, figures in data["scores"].items():
        if not isinstance(figures, dict):
            raise GenomeError(f"{source}: scores.{split}: should be an object.")
    return Champion(genome, data["scores"], data["provenance"])


def written_genome(genome: Any, text: Any, provenance: Any, source: str) -> Genome:
    """A genome as a file has it; of a space from outside that nobody has named here only what is written of it.

    Args:
        genome: from its `to_dict`.
        text: its line.
        provenance: which says of what space it is, where that is from outside.
        source: messages begin with it.

    Raises:
        GenomeError: it is none.
    """
    own = provenance.get("own") if isinstance(provenance, dict) else None
    space = own.get("genome") if isinstance(own, dict) else None
    kind = genome.get("kind") if isinstance(genome, dict) else None
    if isinstance(space, dict) and isinstance(kind, str) and isinstance(text, str) and not is_known(kind):
        held = space.get("kind") == "memory"
        name = space.get("what" if held else "kind")
        if isinstance(name, str):
            return OwnGenome(kind, name, text, json.dumps(genome, allow_nan=False), held)
    return genome_from_dict(genome, source)
