"""Choosing from a run's archive without searching again: the best entry within limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evoquant.campaign.archive import choosing_split, read_archive
from evoquant.campaign.champion import Champion, written_genome
from evoquant.campaign.config_search import Nsga2Config
from evoquant.campaign.finished import resolved_config
from evoquant.campaign.storage import ARCHIVE
from evoquant.errors import InputError, RunDirError, quoted, sentence, shown_value, suggestion
from evoquant.scoring.cost import BIT_UNITS
from evoquant.scoring.limits import EFFECTIVE_BITS
from evoquant.scoring.quantity import Amount, amount_text, parse_amount

if TYPE_CHECKING:
    from evoquant.campaign.storage import RunDir

TINY = 1e-300  # what misses a limit by less than can be said


@dataclass(frozen=True)
class Limits:
    """What a user asks of an entry; None asks nothing, and every model has to keep what costs may be.

    Attributes:
        parts: at most so many parts.
        bits: at most so many effective bits per weight (mean over the models).
        retention: at least this retention (mean over the models).
        at_most: name of a cost, `bytes` or `effective_bits` → the most of it.
    """

    parts: int | None = None
    bits: float | None = None
    retention: float | None = None
    at_most: Mapping[str, Amount] = field(default_factory=dict)

    def accept(self, parts: int, scores: Mapping[str, Any]) -> bool:
        """Whether an entry keeps all of them."""
        return self.excess(parts, scores) <= 0.0

    def excess(self, parts: int, scores: Mapping[str, Any]) -> float:
        """By what share of a limit an entry misses the one that it misses most; 0 where it keeps all.

        Raises:
            InputError: the archive does not say what something costs; the message names what it says.
        """
        found = [0.0]
        if self.parts is not None and parts > self.parts:
            found.append(parts / max(self.parts, 1) - 1.0)
        if self.bits is not None and scores["effective_bits"] > self.bits:
            found.append(scores["effective_bits"] / max(self.bits, TINY) - 1.0)
        if self.retention is not None and scores["retention"] < self.retention:
            found.append(1.0 - scores["retention"] / self.retention)
        for name, amount in self.at_most.items():
            value, most = amounts_in(scores, name, amount)
            if value > most:
                found.append(value / most - 1.0)
        return max(*found, TINY if len(found) > 1 else 0.0)

    @property
    def text(self) -> str:
        """For messages: `at most 3 parts, at least 97% retention`."""
        said = [
            "" if self.parts is None else f"at most {self.parts} parts",
            "" if self.bits is None else f"at most {self.bits:g} bits per weight",
            "" if self.retention is None else f"at least {self.retention:.4g} retention",
            *(f"at most {amount.text} of {name}" for name, amount in self.at_most.items()),
        ]
        return ", ".join(word for word in said if word) or "no limit"


def amounts_in(scores: Mapping[str, Any], name: str, amount: Amount) -> tuple[float, float]:
    """What an entry has of a cost, and the most that it may have, in one unit.

    `bytes` are those that the campaign counts under this name, else what its weights and scales take, as reports have
    it: an eighth of the bits.

    Raises:
        InputError: the archive does not say what it costs, or the amount is none of what is counted.
    """
    if name == EFFECTIVE_BITS:
        return float(scores["effective_bits"]), float(amount.of(""))
    costs = scores.get("costs", {})
    if name in costs:
        return float(costs[name]["most"]), float(amount.of(str(costs[name]["unit"])))
    if name == "bytes" and "bits" in costs:
        return float(costs["bits"]["most"]), float(amount.of("bytes")) * 8 * BIT_UNITS
    if not costs:
        raise InputError(
            "this archive is of an older evoquant and does not say what its entries cost: choose by --bits"
        )
    known = [*costs, EFFECTIVE_BITS] if "bytes" in costs else [*costs, "bytes", EFFECTIVE_BITS]
    raise InputError(f"nothing was counted as {quoted(name)}.{suggestion(name, known)}")


def asked_amounts(given: str | Mapping[str, str | float] | Sequence[str]) -> dict[str, Amount]:
    """Name of a cost → the most of it, of texts such as `20MB` (bytes) and `latency=3ms`, or a mapping that says so.

    Raises:
        InputError: one says no amount, or a cost stands twice.
    """
    found: dict[str, Amount] = {}
    if isinstance(given, Mapping):
        given = [f"{name}={most}" for name, most in given.items()]
    if not isinstance(given, Sequence) or not all(isinstance(text, str) for text in given):
        raise InputError(
            f'at_most: is {shown_value(given)}; write a text, such as "20MB" or "latency=3ms", several, or a mapping.'
        )
    for text in [given] if isinstance(given, str) else given:
        name, equals, most = text.rpartition("=")
        try:
            amount = parse_amount(most)
        except InputError as error:
            raise InputError(f"--at-most {text}: {sentence(error)}") from None
        if not equals and amount.dimension != "size":
            raise InputError(f"--at-most {text}: is no size; say of what it is the most, such as latency={most}.")
        name = name.strip() if equals else "bytes"
        if name in found:
            raise InputError(f"--at-most: {name} stands twice; give one of the two.")
        found[name] = amount
    return found


def pick_from(run: RunDir, champion: Champion, limits: Limits) -> Champion:
    """The best entry of a run's archive within limits, as a champion; of equals the one with fewer parts.

    The fittest; where costs are limited the one that keeps most, or with a limit on retention too the one of least
    cost.

    Raises:
        RunDirError: the run has no archive, or nothing in it keeps the limits; the message says what would.
    """
    archive = read_archive(run)
    if archive is None:
        search = resolved_config(run).search
        if isinstance(search, Nsga2Config):
            raise RunDirError(
                f"{run.path}: its front is empty: nothing that was found keeps a retention of {search.floor:g} "
                f"(search.floor); search longer, or lower it. The champion is in champion.json."
            )
        raise RunDirError(
            f"{run.path}: this search kept no archive to pick from; map_elites (by complexity), nsga2 (a Pareto "
            f"front), pymoo's fronts and pyribs do. The champion is in champion.json."
        )
    split = choosing_split(archive)
    entries: Sequence[dict[str, Any]] = archive["entries"]
    try:
        misses = [limits.excess(entry["parts"], entry["scores"][split]) for entry in entries]
    except InputError as error:
        raise RunDirError(f"{run.path}: --at-most: {sentence(error)}") from None
    fit = [entry for entry, miss in zip(entries, misses, strict=True) if miss <= 0.0]
    if not fit:
        parts = min(entry["parts"] for entry in entries)
        bits = min(entry["scores"][split]["effective_bits"] for entry in entries)
        retention = max(entry["scores"][split]["retention"] for entry in entries)
        raise RunDirError(
            f"{run.path}: none of the {len(entries)} entries keeps {limits.text}; there are parts from {parts}, bits "
            f"per weight from {bits:.3f}, retention up to {retention:.2%}."
            + _nearest(entries[misses.index(min(misses))]["scores"][split], limits)
        )

    def order(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        scores = entry["scores"][split]
        first: tuple[Any, ...] = (-scores["fitness"],)
        if limits.at_most:
            best = (-scores["retention"], -scores["compression"])
            first = best if limits.retention is None else best[::-1]
        return (*first, entry["parts"], entry["digest"])

    best = min(fit, key=order)
    kept = ("campaign", "config_hash", "seed", "menu", "objective", "own", "inputs", "evoquant")
    provenance = {key: champion.provenance[key] for key in kept if key in champion.provenance}
    genome = written_genome(best["genome"], best["text"], provenance, str(run.path / ARCHIVE))
    provenance |= {"picked": limits.text}
    if doubt := _doubt(champion, split, best, fit, limits):
        provenance["warnings"] = [doubt]
    return Champion(genome, best["scores"], provenance)


def _doubt(
    champion: Champion, split: str, best: Mapping[str, Any], fit: Sequence[Mapping[str, Any]], limits: Limits
) -> str:
    """Of a measured network: what retention does not tell apart of those that keep limits on costs; else nothing.

    Entries have no standard error of their own; the champion's is that of as many samples of the same split.
    """
    error = champion.scores.get(split, {}).get("standard_error")
    if not limits.at_most or not isinstance(error, float) or not error > 0:
        return ""
    kept = best["scores"][split]["retention"]
    said = []
    if limits.retention is None:
        alike = [
            one["scores"][split] for one in fit if one is not best and kept - one["scores"][split]["retention"] < error
        ]
        if alike:
            most = max(scores["compression"] for scores in alike)
            count, at = (
                ("another entry keeps", "at") if len(alike) == 1 else (f"{len(alike)} other entries keep", "at up to")
            )
            said.append(f"{count} the limits, and as much retention within that error, {at} {most:.3f}x compression")
    elif kept - limits.retention < error:
        said.append(f"the {kept:.2%} of this one may be below the limit")
    return f"retention on {split} has a standard error of {error:.2%}: {'; '.join(said)}" if said else ""


def _nearest(scores: Mapping[str, Any], limits: Limits) -> str:
    """The entry that misses least, in words, where costs are limited."""
    if not limits.at_most:
        return ""
    said = [f"{name} {_said(scores, name)}" for name in limits.at_most]
    return f" Nearest: {', '.join(said)}, retention {scores['retention']:.2%}."


def _said(scores: Mapping[str, Any], name: str) -> str:
    if name == EFFECTIVE_BITS:
        return f"{scores['effective_bits']:.3f}"
    costs = scores["costs"]
    if name in costs:
        return str(costs[name]["text"])
    return amount_text(costs["bits"]["most"] / (8 * BIT_UNITS), "bytes")
