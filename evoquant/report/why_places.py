"""Where the widths are: the same widths at other places, and the layers at the cliff that decide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.why_subject import digest_of_widths, figures, number
from evoquant.rng import generator_for
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.separable import all_cost_sums, loss_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.report.why_subject import Model, Subject
    from evoquant.scoring.objective import Scores
    from evoquant.scoring.problem import Problem

DRAWS = 200
NEIGHBOURS = 8  # of each layer in the order of size, with whom it may swap
LIKE_SIZE = 2.0  # the most by which one of them is larger
SHOWN = 8
FREE = 1e-6  # nats: a ten-thousandth of a point, which no measurement tells from nothing
ALL, TYPES, SIZES, PAIRS = (
    "shuffled among all",
    "within each type",
    "within like sizes",
    "in pairs of like size",
)
QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def swap_data(subject: Subject) -> list[dict[str, Any]]:
    """A row for each way of moving the champion's widths: how many of the draws move any, and how these do.

    Widths are shuffled among all units, among those of like size, of one type, and swapped between pairs of like size.
    What a unit may not take becomes what `problem.repair` makes of it.
    """
    model = subject.model
    problem, own = model.problem, subject.allocation
    base = float(model.scores(own[None]).per_model[0, 0])
    size = np.floor(np.log2(np.maximum(problem.scalars["parameters"], 1.0))).astype(np.int64)
    kinds = np.unique(problem.types, return_inverse=True)[1].reshape(-1)
    groups = (
        (ALL, np.zeros(len(own), dtype=np.int64)),
        (TYPES, kinds),
        (SIZES, size),
    )
    rows = []
    for what, group in groups:
        rng = generator_for(subject.seed, 0, f"why {what}")
        drawn = problem.repair(_shuffled(own, group, rng))
        moved = (drawn != own).any(axis=1)
        rows.append(_spread(what, DRAWS, model.scores(drawn[moved]) if moved.any() else None, base))
    losses, costs = _pair_sums(model, own)
    scores = model.scores_of(losses, costs) if len(losses) else None
    rows.append(_spread(PAIRS, len(losses), scores, base))
    return rows


def _shuffled(own: NDArray[np.int8], group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int8]:
    """`(DRAWS, units)` the widths, permuted among the units of each group."""
    rank = np.unique(group, return_inverse=True)[1].reshape(-1)
    result = np.empty((DRAWS, len(own)), dtype=np.int8)
    lottery = np.argsort(rank + rng.random(result.shape), axis=1)  # by group, within it by lot
    result[:, np.argsort(rank, kind="stable")] = own[lottery]
    return result


def _pair_sums(model: Model, own: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`(pairs,)` loss sums, and cost sums, after each swap between units of like size and unlike width."""
    problem = model.problem
    parameters = problem.scalars["parameters"]
    order = np.argsort(parameters, kind="stable")
    pairs = []
    for apart in range(1, min(NEIGHBOURS, len(own) - 1) + 1):
        first, second = order[:-apart], order[apart:]
        kept = (own[first] != own[second]) & (parameters[second] <= LIKE_SIZE * parameters[first])
        pairs.append(np.stack([first[kept], second[kept]]))
    if not pairs:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    first, second = np.concatenate(pairs, axis=1)
    to_first, to_second = own[second].copy(), own[first].copy()
    if not problem.all_allowed:
        to_first, to_second = (
            _repaired(problem, units, widths) for units, widths in ((first, to_first), (second, to_second))
        )
    losses, costs = (
        total
        + table[first, to_first]
        - table[first, own[first]]
        + table[second, to_second]
        - table[second, own[second]]
        for total, table in _tables(model, own)
    )
    return losses, costs


def _repaired(problem: Problem, units: NDArray[np.intp], widths: NDArray[np.int8]) -> NDArray[np.int8]:
    """`(n,)` the width that each unit takes where it is asked to take this one."""
    every = np.stack([problem.repair_one(np.full(len(problem.units), w, np.int8)) for w in range(len(problem.menu))])
    taken: NDArray[np.int8] = every[widths, units]
    return taken


def _tables(model: Model, own: NDArray[np.int8]) -> tuple[tuple[Any, NDArray[np.int64]], ...]:
    """The champion's summed loss and cost, each with its table; of several costs all, as a last axis."""
    table = model.table
    costs = table.cost.table
    if table.costs:
        costs = np.stack([costs, *(cost.table for cost in table.costs.values())], axis=2)
    return (
        (loss_sums(table, own[None])[0], table.separable_loss()),
        (all_cost_sums(table, own[None])[0], costs),
    )


def _spread(what: str, drawn: int, scores: Scores | None, base: float) -> dict[str, Any]:
    """Quartiles of what moved, and the share of it that is at least as fit as the champion."""
    row: dict[str, Any] = {"what": what, "drawn": drawn, "moved": 0 if scores is None else len(scores.fitness)}
    if scores is None:
        return row
    fitness = scores.per_model[:, 0]
    scored = fitness[np.isfinite(fitness)]  # an objective of one's own may refuse some
    row["fitness"] = np.quantile(scored, QUARTILES).tolist() if len(scored) else [None] * len(QUARTILES)
    row["retention"] = [number(v) for v in np.quantile(scores.retention[:, 0], QUARTILES).tolist()]
    row["compression"] = number(float(np.median(scores.compression[:, 0])))
    row["as_good"] = float((fitness >= base).mean())
    return row


def cliff_data(subject: Subject) -> dict[str, Any]:
    """Plain data: the margin to the floor, every unit one width narrower and one wider, and who holds the loss."""
    model = subject.model
    own = subject.allocation
    narrower, wider = (_steps(model.problem, own, up=up) for up in (False, True))
    scores = model.scores(own[None])
    retention = float(scores.retention[0, 0])
    data: dict[str, Any] = {"margin": _margin(model, own, narrower, retention, subject.floor)}
    data["narrower"] = _narrower(subject, own, narrower, float(scores.per_model[0, 0]))
    data["wider"] = _wider(subject, own, wider, float(scores.per_model[0, 0]))
    data["holders"] = _holders(model, own)
    return data


def _steps(problem: Problem, own: NDArray[np.int8], *, up: bool) -> NDArray[np.int8]:
    """`(units,)` the next allowed width on that side, the unit's own where there is none."""
    widths = np.arange(problem.allowed.shape[1])
    if up:
        options = problem.allowed & (widths > own[:, None])
        found = options.argmax(axis=1)
    else:
        options = problem.allowed & (widths < own[:, None])
        found = len(widths) - 1 - options[:, ::-1].argmax(axis=1)
    return np.where(options.any(axis=1), found, own).astype(np.int8)


def _step_scores(
    model: Model, own: NDArray[np.int8], to: NDArray[np.int8]
) -> tuple[NDArray[np.intp], Scores, NDArray[np.float64]]:
    """The units that can step, the scores with each alone stepped, and the nats that each step adds."""
    units = np.flatnonzero(to != own)
    (loss, losses), (cost, costs) = _tables(model, own)
    rise = losses[units, to[units]] - losses[units, own[units]]
    scores = model.scores_of(loss + rise, cost + costs[units, to[units]] - costs[units, own[units]])
    return units, scores, rise / LOSS_UNITS


def _margin(
    model: Model, own: NDArray[np.int8], narrower: NDArray[np.int8], retention: float, floor: float | None
) -> dict[str, Any]:
    """Nats between the champion and the floor, and how many of the least steps down these would pay for."""
    data: dict[str, Any] = {"retention": number(retention)}
    if floor is None:
        return data
    data["floor"] = floor
    if retention <= 0.0:
        return data
    nats = math.log(retention / floor)
    data["nats"] = nats
    units, _, rise = _step_scores(model, own, narrower)
    costly = np.flatnonzero(rise > FREE)
    data["free"] = len(rise) - len(costly)
    if len(costly):
        least = costly[np.argmin(rise[costly])]
        data["least"] = {"layer": model.problem.units[units[least]], "nats": float(rise[least])}
        data["times"] = max(nats, 0.0) / float(rise[least])
    return data


def _row(
    subject: Subject,
    own: NDArray[np.int8],
    to: NDArray[np.int8],
    unit: int,
    place: int,
    of: tuple[Scores, Any],
    base: float,
) -> dict[str, Any]:
    problem, (scores, rise) = subject.model.problem, of
    names = problem.menu.names
    row = {
        "layer": problem.units[unit],
        "type": str(problem.types[unit]),
        "width": names[own[unit]],
        "to": names[to[unit]],
        "nats": float(rise[place]),
        **figures(scores, place),
        "change": number(float(scores.per_model[place, 0]) - base),
    }
    if subject.measured:
        stepped = own.copy()
        stepped[unit] = to[unit]
        found = subject.measured.get(digest_of_widths(problem, stepped))
        if found is not None and found["full"]:
            row["measured"] = found["retention"]
    return row


def _rows(
    subject: Subject, own: NDArray[np.int8], to: NDArray[np.int8], stepped: Any, order: Sequence[int], base: float
) -> list[dict[str, Any]]:
    units, scores, rise = stepped
    return [_row(subject, own, to, int(units[i]), i, (scores, rise), base) for i in order[:SHOWN]]


def _narrower(subject: Subject, own: NDArray[np.int8], to: NDArray[np.int8], base: float) -> dict[str, Any]:
    """Units one width narrower: the best of those that stay above the floor, and those that fall the furthest."""
    units, scores, rise = stepped = _step_scores(subject.model, own, to)
    change = scores.per_model[:, 0] - base
    stays = np.ones(len(units), dtype=bool) if subject.floor is None else scores.retention[:, 0] >= subject.floor
    slack = [i for i in np.argsort(-change, kind="stable").tolist() if stays[i]]
    falls = [i for i in np.argsort(-rise, kind="stable").tolist() if not stays[i]]
    return {
        "of": len(units),
        "gain": int((stays & (change > 0)).sum()),
        "stays": {"count": len(slack), "rows": _rows(subject, own, to, stepped, slack, base)},
        "falls": {"count": len(falls), "rows": _rows(subject, own, to, stepped, falls, base)},
    }


def _wider(subject: Subject, own: NDArray[np.int8], to: NDArray[np.int8], base: float) -> dict[str, Any]:
    """Units one width wider, those that win back the most retention first."""
    units, scores, rise = stepped = _step_scores(subject.model, own, to)
    order = np.argsort(rise, kind="stable").tolist()
    gain = int((scores.per_model[:, 0] > base).sum())
    return {"of": len(units), "gain": gain, "rows": _rows(subject, own, to, stepped, order, base)}


def _holders(model: Model, own: NDArray[np.int8]) -> dict[str, Any]:
    """The units with the largest losses, and their share of all positive ones."""
    problem = model.problem
    loss = model.table.separable_loss()[np.arange(len(own)), own] / LOSS_UNITS
    total = float(np.maximum(loss, 0.0).sum())
    order = [i for i in np.argsort(-loss, kind="stable")[:SHOWN].tolist() if loss[i] > 0]
    rows = [
        {
            "layer": problem.units[i],
            "type": str(problem.types[i]),
            "width": problem.menu.names[own[i]],
            "nats": float(loss[i]),
            "share": float(loss[i]) / total,
            "weights": float(problem.scalars["parameters"][i]) / problem.weights,
        }
        for i in order
    ]
    half = int(np.searchsorted(np.cumsum(np.sort(np.maximum(loss, 0.0))[::-1]), total / 2)) + 1 if total > 0 else 0
    return {"units": len(own), "nats": total, "half": half, "rows": rows}
