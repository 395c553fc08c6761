"""Where a search begins that has an earlier result to begin with: its allocations, on a model of the same layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build_measured import bare_profile
from evoquant.campaign.champion import load_champion
from evoquant.campaign.finished import gated, resolved_config
from evoquant.campaign.storage import CHAMPION, RunDir
from evoquant.errors import InputError, PrecisionError, quoted
from evoquant.report.data import load_run
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.problem import Problem

MOST = 6
NAMED = 5


def start_genomes(earlier: Path, task: MeasuredTask, menu: Menu, kind: str) -> list[dict[str, Any]]:
    """Genomes for `search.start`: the champion, what its gate recommends, and the best of the journal, `MOST` in all.

    Args:
        earlier: a finished run on a network.
        task: the model to begin on; its weights may be others.
        menu: the new search's.
        kind: of its genomes.

    Raises:
        InputError: no such run; its layers are others, which the message names; or a width is not on the menu.
    """
    directory = RunDir.open(earlier, hold=False)
    config = resolved_config(directory)
    found = gated(earlier)
    if found is None:
        raise InputError(f"start_from: {earlier}: is a run on profiles; name one on a network.")
    recommended, profile, old_menu = found
    champion = load_champion(directory.path / CHAMPION)
    now = bare_profile(task, menu)
    require_same_layers(profile, now, f"start_from: {earlier}")
    if kind in ("rule", "tree") and config.genome.kind == kind:
        return [champion.genome.to_dict()]
    if kind != "direct":
        raise InputError(
            f"start_from: {earlier}: its genomes are of kind {config.genome.kind}, and a search of {kind} genomes does "
            f"not begin with those; leave genome= out."
        )
    old, new = compile_problem(profile, old_menu), compile_problem(now, menu)
    rows = [champion.genome.allocate(old), recommended.genome.allocate(old)]
    if config.genome.kind == "direct":
        rows += _best(earlier, len(old.units))
    made: dict[tuple[tuple[str, str], ...], None] = {}
    for row in rows:
        made.setdefault(_moved(row, old, new, earlier), None)
        if len(made) == MOST:
            break
    return [{"kind": "direct", "model": new.name, "widths": dict(widths)} for widths in made]


def require_same_layers(then: ModelProfile, now: ModelProfile, source: str) -> None:
    """Whether two models have the same layers, whatever their weights.

    Raises:
        InputError: they have not; the message begins with `source` and names the layers.
    """
    before = {layer.name: tuple(layer.shape) for layer in then.layers}
    after = {layer.name: tuple(layer.shape) for layer in now.layers}
    faults = [f"{quoted(name)} is gone" for name in before if name not in after]
    faults += [f"{quoted(name)} is new" for name in after if name not in before]
    faults += [
        f"{quoted(name)} is {after[name]}, was {shape}"
        for name, shape in before.items()
        if name in after and after[name] != shape
    ]
    if faults:
        more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise InputError(
            f"{source}: is about a model with other layers: {'; '.join(faults[:NAMED])}{more}; leave start_from= out."
        )


def _best(earlier: Path, units: int) -> list[NDArray[np.int8]]:
    """The fittest allocations of a journal of direct genomes, best first; earlier ones first among equals."""
    rated: list[tuple[float, NDArray[np.int8]]] = []
    for record in load_run(earlier).journal:
        population = record["population"]
        for fitness, row in zip(population.get("fitness", ()), population.get("genes", ()), strict=False):
            if fitness is not None and len(row) == units:
                rated.append((float(fitness), np.array(row, dtype=np.int8)))
    rated.sort(key=lambda one: -one[0])
    return [row for _, row in rated[: 20 * MOST]]


def _moved(row: NDArray[np.int8], old: Problem, new: Problem, earlier: Path) -> tuple[tuple[str, str], ...]:
    """The same widths as (unit, width) of the new model; of layers tied there the widest."""
    widths = dict(zip(old.layers, old.unfold(row), strict=True))
    indices = [0] * len(new.units)
    for layer, unit in zip(new.layers, new.unit_of_layer.tolist(), strict=True):
        try:
            indices[unit] = max(indices[unit], new.menu.resolve(widths[layer]))
        except PrecisionError:
            raise InputError(
                f"start_from: {earlier}: gives {quoted(layer)} {widths[layer]}, which is not on this menu "
                f"({', '.join(new.menu.names)}); give the earlier menu=, or leave start_from= out."
            ) from None
    return tuple((unit, new.menu.names[index]) for unit, index in zip(new.units, indices, strict=True))
