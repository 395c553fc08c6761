"""What `evoquant apply` shows: the width that a heuristic gives to each layer, and what the model comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bounds.optimum import certify
from evoquant.campaign.apply import allocation_rows, load_any_profile, load_genome, profile_menu
from evoquant.errors import PrecisionError
from evoquant.quantization.precision import Menu
from evoquant.report.table import Table
from evoquant.scoring.objective import Cliff, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evoquant.genomes.base import Genome
    from evoquant.profiles.model import ModelProfile

__all__ = ["allocate", "allocation_rows", "allocation_table", "allocation_totals", "load_any_profile", "load_genome"]


def allocate(genome: Genome, profile: ModelProfile, menu: Iterable[str] | None = None) -> dict[str, Any]:
    """Plain data: `model`, `heuristic`, `menu`, `layers` (one row each) and `totals`.

    Args:
        genome: the heuristic.
        profile: the model.
        menu: names of precisions; by default those that the profile knows.

    Raises:
        InputError: the genome cannot be applied to this model, or not with this menu.
    """
    precisions = profile_menu(profile) if menu is None else Menu.parse(name.strip() for name in menu)
    try:
        return {
            "model": profile.name,
            "heuristic": genome.text,
            "menu": list(precisions.names),
            "layers": allocation_rows(genome, profile, precisions),
            "totals": allocation_totals(genome, profile, precisions),
        }
    except PrecisionError as error:
        raise PrecisionError(
            f"the heuristic cannot be applied to {profile.name!r}: {error} Name a menu that has what it gives."
        ) from None


def allocation_totals(genome: Genome, profile: ModelProfile, menu: Menu) -> dict[str, Any]:
    """`parameters`, `compression`, `effective_bits`; with losses also `retention`, `fitness`, `share_of_optimum`.

    Retention is the separable estimate, fitness that of the published cliff, the optimum certified.

    Raises:
        InputError: the genome cannot be applied to this model, or not with this menu.
    """
    problem = compile_problem(profile, menu)
    allocation = genome.allocate(problem)[None]
    known = problem.loss is not None
    retention = retention_of(loss_sums(problem, allocation)) if known else np.full(1, np.nan)
    scores = score(Cliff(), (problem,), retention[:, None], cost_sums(problem, allocation)[:, None])
    totals: dict[str, Any] = {
        "parameters": problem.weights,
        "compression": float(scores.compression[0, 0]),
        "effective_bits": float(scores.effective_bits[0, 0]),
    }
    if known:
        totals["retention"] = float(scores.retention[0, 0])
        totals["fitness"] = float(scores.fitness[0])
        totals["share_of_optimum"] = float(scores.fitness[0]) / certify(problem, Cliff()).upper_bound
    return totals


def allocation_table(allocation: Mapping[str, Any]) -> Table:
    """The data of `allocate` as a table, the totals below it."""
    rows: list[tuple[str, ...]] = [
        (row["layer"], row["type"], f"{row['parameters']:,}", row["precision"], f"{row['bits']:,}")
        for row in allocation["layers"]
    ]
    totals = allocation["totals"]
    notes = [f"compression {totals['compression']:.4f}x, {totals['effective_bits']:.3f} bits per weight"]
    if "retention" in totals:
        notes.append(f"separable retention {totals['retention']:.4%}, fitness {totals['fitness']:.6f} (cliff at 95%)")
        notes.append(f"{totals['share_of_optimum']:.2%} of the certified optimum of this model")
    else:
        notes.append("The profile has no losses for this menu, so retention is not known.")
    columns = ("Layer", "Type", "Parameters", "Precision", "Bits")
    title = f"{allocation['model']}: {allocation['heuristic']}"
    return Table(title, columns, rows, tuple(notes), frozenset({2, 4}))
