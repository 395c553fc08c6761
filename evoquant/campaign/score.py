"""Measure and gate an allocation that came from elsewhere, as a campaign's champion is."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build_measured import bare_profile
from evoquant.campaign.champion import SCHEMA as CHAMPION_SCHEMA
from evoquant.campaign.champion import champion_from_dict
from evoquant.campaign.finals_measured import REPORTED, Judge, disagreements, measured_figures
from evoquant.campaign.gate import run_gate
from evoquant.campaign.imported import CONFIG, KINDS, QUANT_CFG, STATED, foreign_binary, foreign_folder, foreign_json
from evoquant.campaign.imported_layers import shown, sites
from evoquant.campaign.storage import CHAMPION
from evoquant.errors import InputError, PrecisionError, quoted, suggestion
from evoquant.files import is_folder, parse_json, read_text
from evoquant.genomes.direct import Direct
from evoquant.models.base import REFERENCE
from evoquant.quantization.precision import Menu, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.campaign.imported_layers import Foreign
    from evoquant.genomes.base import Genome
    from evoquant.models.base import MeasuredTask
    from evoquant.scoring.problem import Problem

MAX_BYTES = 2**26
MEASURED_MENU = ("INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32")
LAYER, WIDTH = "layer", ("width", "precision")


@dataclass(frozen=True)
class Unresolved:
    """A recipe of another tool, whose layers are not known before the network is: `resolved` makes widths of it."""

    recipe: Foreign


def read_allocation(path: Path) -> dict[str, str] | Genome | Unresolved:
    """Layer → width of a CSV file (columns `layer` and `width` or `precision`) or a JSON object, or a genome.

    A champion file, or a run directory, gives its genome. Recipes of other tools are known by what they hold, not by
    their names: see `evoquant.campaign.imported`.

    Raises:
        InputError: the file is none of these; the message names file and line.
    """
    if is_folder(path):
        if not (path / CHAMPION).exists():
            recipe = foreign_folder(path, MAX_BYTES)
            if recipe is not None:
                return Unresolved(recipe)
            raise InputError(f"{path}: no run, and no checkpoint with {CONFIG}, {QUANT_CFG} or {STATED}.")
        path = path / CHAMPION
    recipe = foreign_binary(path)
    if recipe is not None:
        return Unresolved(recipe)
    text = read_text(path, limit=MAX_BYTES, error=InputError)
    if path.suffix == ".csv":
        try:
            return _from_csv(text.removeprefix("\ufeff"), str(path))  # as spreadsheets begin a file
        except csv.Error as error:
            raise InputError(f"{path}: cannot be read as CSV: {error}.") from None
    data = parse_json(text, str(path), error=InputError)
    if isinstance(data, dict) and data.get("schema") == CHAMPION_SCHEMA:
        return champion_from_dict(data, str(path)).genome
    recipe = foreign_json(data, str(path))
    if recipe is not None:
        return Unresolved(recipe)
    if not isinstance(data, dict) or not data or not all(isinstance(width, str) for width in data.values()):
        raise InputError(
            f"{path}: should be a JSON object {{layer: width}}, a champion file, CSV of layer and width, or a recipe "
            f"of another tool: {KINDS}."
        )
    return data


def resolved(given: Unresolved, task: MeasuredTask) -> tuple[dict[str, str], tuple[str, ...]]:
    """Layer → width of another tool's recipe on a network, and where that is only near what the tool does.

    Raises:
        InputError: the recipe is for another network; the message names the layer.
    """
    found = given.recipe.resolve(sites(task, bare_profile(task, Menu.parse([REFERENCE]))))
    return found.widths, found.warnings


def _from_csv(text: str, source: str) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    names = [name.strip() for name in rows.fieldnames or ()]
    width = next((name for name in WIDTH if name in names), None)
    if LAYER not in names or width is None:
        raise InputError(f"{source}: line 1: has the columns {shown(names)}; give `layer` and `width`.")
    rows.fieldnames = names
    found: dict[str, str] = {}
    for row in rows:
        layer, value = row.get(LAYER), row.get(width)
        if not layer or not value:
            raise InputError(f"{source}: line {rows.line_num}: a line gives a layer and its width.")
        if layer in found:
            raise InputError(f"{source}: line {rows.line_num}: the layer {quoted(layer)} stands twice.")
        found[layer] = value.strip()
    return found


def menu_for(allocation: dict[str, str] | Genome, names: Sequence[str] | None) -> Menu:
    """The menu to compare on: as named, else the usual precisions and those of the allocation.

    Raises:
        PrecisionError: no such precision.
    """
    if names is not None:
        return Menu.parse(names)
    own: set[str] = set()
    if isinstance(allocation, dict):
        own = set(allocation.values())
    elif isinstance(allocation, Direct):
        own = {width for _, width in allocation.widths}
    for width in sorted(own):
        Precision.parse(width)  # raises for names that are none, with what is near
    return Menu.parse(sorted({*MEASURED_MENU, *own}))


def allocation_of(given: dict[str, str] | Genome, problem: Problem, source: str) -> NDArray[np.int8]:
    """`(units,)` menu indices of what `read_allocation` gave.

    Raises:
        InputError: a layer or width is unknown, missing or not allowed, or tied layers differ.
    """
    if not isinstance(given, dict):
        return given.allocate(problem)
    for layer in given:
        if layer not in problem.layers:
            raise InputError(
                f"{source}: {problem.name!r} has no layer {quoted(layer)}.{suggestion(layer[:200], problem.layers)}"
            )
    missing = [layer for layer in problem.layers if layer not in given]
    if missing:
        raise InputError(
            f"{source}: gives no width to {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''} "
            f"({len(missing)} of {len(problem.layers)} layers); name every layer, FP32 for what stays as it is."
        )
    widths = {layer: _index(layer, given[layer], problem, source) for layer in problem.layers}
    allocation = np.full(len(problem.units), -1, dtype=np.int8)
    first: dict[int, str] = {}
    for layer, unit in zip(problem.layers, problem.unit_of_layer.tolist(), strict=True):
        if allocation[unit] not in (-1, widths[layer]):
            other = first[unit]
            raise InputError(
                f"{source}: {other!r} has {given[other]} and {layer!r} {given[layer]}, but they are tied "
                f"({problem.units[unit]}) and share a width."
            )
        first.setdefault(unit, layer)
        allocation[unit] = widths[layer]
    for unit, width in enumerate(allocation.tolist()):
        if not problem.allowed[unit, width]:
            free = [n for n, allowed in zip(problem.menu.names, problem.allowed[unit], strict=True) if allowed]
            raise InputError(
                f"{source}: {first[unit]!r} cannot take {problem.menu.names[width]}, but {', '.join(free)}."
            )
    return allocation


def _index(layer: str, width: str, problem: Problem, source: str) -> int:
    try:
        return problem.menu.resolve(width)
    except PrecisionError:
        close = suggestion(width[:60], problem.menu.names)
        raise InputError(
            f"{source}: layer {layer!r}: {quoted(width, 60)} is not on the menu {', '.join(problem.menu.names)}.{close}"
        ) from None


def score_allocation(judge: Judge, allocation: NDArray[np.int8]) -> dict[str, Any]:
    """Figures on every split, the gate and warnings, as plain data.

    Raises:
        CampaignError: it cannot be measured.
    """
    scores: dict[str, Mapping[str, Any]] = {split: measured_figures(judge, allocation, split) for split in REPORTED}
    gate = run_gate(judge, allocation, "direct")
    names = judge.problem.unfold(allocation)
    return {
        "model": judge.problem.name,
        "allocation": dict(zip(judge.problem.layers, names, strict=True)),
        "scores": scores,
        "warnings": disagreements(scores),
        "gate": gate,
        "passes": {"calibration": 2, "selection": 2, "gate": gate["passes"], "test": 2},
    }
