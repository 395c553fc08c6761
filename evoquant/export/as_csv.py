"""CSV: one model's allocation, a line for each layer."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from evoquant.campaign.apply import allocation_rows, profile_menu
from evoquant.errors import InputError

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

COLUMNS = ("layer", "precision", "parameters", "bits")


def render(champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
    """`layer,precision,parameters,bits` with scales counted in the bits.

    Raises:
        InputError: no profile was given, or the champion cannot be applied to it.
    """
    if profile is None:
        raise InputError("csv is one model's allocation: name the model with --profile PROFILE.")
    rows = allocation_rows(champion.genome, profile, menu or profile_menu(profile))
    stream = io.StringIO()
    if any("\r" in row["layer"] for row in rows):  # left unquoted by the minimal style, and then no reader takes it
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    else:
        writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([row[column] for column in COLUMNS])
    return stream.getvalue()
