"""The model as a strip of layers, for the page: widths as colours, with size and sensitivity along it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.figures import GRID, Figure, label, layout, numbers
from evoquant.report.palette import QUIET, series_colour, width_colour
from evoquant.report.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.report.series import LayerStrip

MOST_BARS = 400  # more layers are drawn in groups of neighbours
MOST_NAMED = 32  # of so many layers the names stand below
MOST_ROWS = 1000
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))
ROWS_Y = ((0.72, 1.0), (0.36, 0.64), (0.0, 0.28))  # widths, size, sensitivity; the last two share the rest


def layers_figure(strip: LayerStrip) -> Figure:
    """The layers in order of execution; of very many, groups of neighbours stand for one bar each."""
    groups = _groups(len(strip))
    x = list(range(len(groups)))
    hovers = [_hover(strip, group) for group in groups]
    traces = _widths(strip, groups, x, hovers)
    sizes = [float(strip.size_bytes[group].sum()) for group in groups]
    unit, factor = next(((name, size) for name, size in UNITS if max(sizes) >= size), UNITS[-1])
    sizes = [size / factor for size in sizes]
    traces.append(_bars(x, sizes, "y2", "size", QUIET, hovers))
    if strip.sensitivity is not None:
        most = [float(strip.sensitivity[group].max()) for group in groups]
        traces.append(_bars(x, most, "y3", "sensitivity", series_colour(0), hovers))
    return Figure(
        "layers",
        "Bar chart",
        "The model, layer by layer",
        _finding(strip),
        {"data": traces, "layout": _layout(strip, groups, unit)},
        _notes(strip, groups),
        (),
        (_widths_table(strip), _table(strip)),
    )


def _groups(layers: int) -> list[slice]:
    """Neighbours that share a bar: one layer each where there are not too many."""
    edges = np.linspace(0, layers, min(layers, MOST_BARS) + 1).round().astype(int).tolist()
    return [slice(first, last) for first, last in itertools.pairwise(edges)]


def _widths(strip: LayerStrip, groups: list[slice], x: list[int], hovers: list[str]) -> list[dict[str, Any]]:
    """For each width a trace: of a layer a bar as high as its width, of a group each width's share of the weights."""
    traces = []
    names = np.array(strip.width)
    single = len(groups) == len(strip)
    for name, bits in _menu(strip):
        shares = []
        for group in groups:
            weights = strip.parameters[group].astype(np.float64)
            weights = weights if weights.sum() > 0 else np.ones(len(weights))
            shares.append(float(weights[names[group] == name].sum() / weights.sum()))
        kept = [i for i, share in enumerate(shares) if share > 0]
        traces.append(
            {
                "type": "bar",
                "name": label(name, 24),
                "x": [x[i] for i in kept],
                "y": [_height(bits)] * len(kept) if single else numbers(shares[i] for i in kept),
                "marker": {"color": width_colour(bits), "line": {"width": 0}},
                "customdata": [hovers[i] for i in kept],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
    return traces


def _height(bits: float) -> float:
    """Of a layer's bar: a step for each doubling of the bits, so that the order survives without colours."""
    return round(float(np.log2(max(bits, 1.0) + 1.0)), 4)


def _menu(strip: LayerStrip) -> list[tuple[str, int]]:
    """The widths that occur, with their code bits, from narrow to wide."""
    bits = dict(zip(strip.width, strip.code_bits.tolist(), strict=True))
    return sorted(bits.items(), key=lambda item: (item[1], item[0]))


def _bars(x: list[int], y: list[float], axis: str, name: str, colour: str, hovers: list[str]) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "showlegend": False,
        "x": x,
        "y": numbers(y),
        "yaxis": axis,
        "marker": {"color": colour, "line": {"width": 0}},
        "customdata": hovers,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _layout(strip: LayerStrip, groups: list[slice], unit: str) -> dict[str, Any]:
    three = strip.sensitivity is not None
    rows: tuple[tuple[float, float], ...] = ROWS_Y if three else ((0.6, 1.0), (0.0, 0.5))
    plot = layout("layer, in order of execution", "", height=460 if three else 340, barmode="stack", bargap=0.0)
    axis = plot["yaxis"] | {"title": {"text": "", "standoff": 4}}
    plot["yaxis"] = axis | {"domain": rows[0], "title": {"text": "width"}}
    if len(groups) == len(strip):
        codes = {int(bits) for bits in strip.code_bits}
        plot["yaxis"] |= {
            "range": [0, 1.05 * max(map(_height, codes))],
            "tickvals": [_height(bits) for bits in sorted(codes)],
            "ticktext": [f"{bits} bits" for bits in sorted(codes)],
        }
    else:
        plot["yaxis"] |= {"range": [0, 1], "tickformat": ".0%", "nticks": 3}
    plot["yaxis2"] = axis | {"domain": rows[1], "title": {"text": f"size, {unit}"}, "rangemode": "tozero", "nticks": 4}
    if three:
        plot["yaxis3"] = axis | {
            "domain": rows[2],
            "title": {"text": "sensitivity"},
            "rangemode": "tozero",
            "nticks": 4,
            "gridcolor": GRID,
        }
    plot["xaxis"] |= {"anchor": "y3" if three else "y2", "showgrid": False, "range": [-0.5, len(groups) - 0.5]}
    if len(strip) <= MOST_NAMED:
        plot["xaxis"] |= {
            "tickvals": list(range(len(strip))),
            "ticktext": [label(name, 18) for name in strip.name],
            "tickangle": -60,
        }
        plot["height"] += 60
        plot["bargap"] = 0.06
    elif len(groups) < len(strip):
        places = np.unique(np.linspace(0, len(groups) - 1, 9).round().astype(int)).tolist()
        plot["xaxis"] |= {"tickvals": places, "ticktext": [f"{groups[i].start:,}" for i in places]}
    return plot


def _hover(strip: LayerStrip, group: slice) -> str:
    """What one sees of a layer, or of a group of neighbours."""
    count = group.stop - group.start
    if count > 1:
        size = float(strip.size_bytes[group].sum()) / 1e6
        return (
            f"layers {group.start:,} to {group.stop - 1:,}: {label(strip.name[group.start], 40)} to "
            f"{label(strip.name[group.stop - 1], 40)}<br>"
            f"{int(strip.parameters[group].sum()):,} parameters, {size:.4g} MB"
        )
    i = group.start
    lines = [
        f"<b>{label(strip.name[i], 60)}</b> ({label(strip.type[i], 24)})",
        f"{label(strip.width[i], 24)}, {strip.effective_bits[i]:.4g} bits per weight",
        f"{int(strip.parameters[i]):,} parameters, {strip.size_bytes[i] / 1e6:.4g} MB ({strip.share[i]:.2%})",
    ]
    if strip.sensitivity is not None:
        lines.append(f"{_name(strip)} {strip.sensitivity[i]:.4g}")
    if strip.loss is not None and np.isfinite(strip.loss[i]):
        lines.append(f"{_loss_words(strip)} {strip.loss[i]:.4g}")
    return "<br>".join(lines)


def _name(strip: LayerStrip) -> str:
    return label((strip.sensitivity_name or "").replace("_", " ").replace("fisher", "Fisher"))


def _loss_words(strip: LayerStrip) -> str:
    return {
        "loss": "loss of retention at its width",
        "expected_loss": "expected loss of retention at its width",
        "divergence": "divergence at its width",
        "fisher": "Fisher cost at its width",
    }.get(strip.loss_name or "", "loss at its width")


def _shares(strip: LayerStrip) -> list[tuple[str, int, int, float, float]]:
    """Width, layers, weights, share of weights and megabytes, from narrow to wide."""
    names = np.array(strip.width)
    total = max(int(strip.parameters.sum()), 1)
    found = []
    for name, _ in _menu(strip):
        mask: NDArray[np.bool_] = names == name
        weights = int(strip.parameters[mask].sum())
        found.append((name, int(mask.sum()), weights, weights / total, float(strip.size_bytes[mask].sum()) / 1e6))
    return found


def share_words(share: float) -> str:
    """A share in percent; little is not none, nearly all is not all."""
    if 0 < share < 0.0005:
        return "under 0.1%"
    return "over 99.9%" if 0.9995 < share < 1 else f"{share:.1%}"


def _finding(strip: LayerStrip) -> str:
    parts = [
        f"{layers:,} at {name} ({share_words(share)} of the weights)" for name, layers, _, share, _ in _shares(strip)
    ]
    said = f"The {len(strip):,} layers of {strip.model}: {', '.join(parts)}."
    if strip.sensitivity is not None and len(strip):
        worst = int(np.argmax(strip.sensitivity))
        said += f" The most sensitive ({_name(strip)}) is {strip.name[worst]}, at {strip.width[worst]}."
    largest = int(np.argmax(strip.size_bytes))
    return f"{said} The largest is {strip.name[largest]}, {strip.share[largest]:.1%} of the size."


def _notes(strip: LayerStrip, groups: list[slice]) -> tuple[str, ...]:
    notes = [f"Model: {strip.model}. Sizes count weights and their scales."]
    if strip.sensitivity is not None:
        notes.append(f"Sensitivity: {_name(strip)}.")
    else:
        notes.append("The profile has no signal of sensitivity.")
    if len(groups) < len(strip):
        notes.append(
            f"{len(strip):,} layers in {len(groups)} bars of neighbours: colours by their share of the weights, sizes "
            f"added up, of sensitivities the largest."
        )
    return tuple(notes)


def _widths_table(strip: LayerStrip) -> Table:
    rows = [
        (name, f"{layers:,}", f"{weights:,}", f"{share:.2%}", f"{size:.4g}")
        for name, layers, weights, share, size in _shares(strip)
    ]
    columns = ("Width", "Layers", "Weights", "Share of weights", "MB")
    return Table("What the widths take", columns, rows, (), frozenset(range(1, 5)))


def _table(strip: LayerStrip) -> Table:
    rows = []
    for i in range(min(len(strip), MOST_ROWS)):
        cells = [
            str(i),
            strip.name[i],
            strip.type[i],
            strip.width[i],
            f"{strip.effective_bits[i]:.4g}",
            f"{int(strip.parameters[i]):,}",
            f"{strip.size_bytes[i] / 1e6:.4g}",
            f"{strip.share[i]:.2%}",
        ]
        if strip.sensitivity is not None:
            cells.append(f"{strip.sensitivity[i]:.4g}")
        if strip.loss is not None:
            cells.append(f"{strip.loss[i]:.4g}" if np.isfinite(strip.loss[i]) else "")
        rows.append(tuple(cells))
    columns: tuple[str, ...] = ("", "Layer", "Type", "Width", "Bits/weight", "Parameters", "MB", "Share")
    columns += (
        (f"Sensitivity ({(strip.sensitivity_name or '').replace('_', ' ')})",) if strip.sensitivity is not None else ()
    )
    columns += (_loss_words(strip).capitalize(),) if strip.loss is not None else ()
    notes = (f"The first {MOST_ROWS:,} of {len(strip):,} layers.",) if len(rows) < len(strip) else ()
    return Table("Every layer", columns, rows, notes, frozenset({0, *range(4, len(columns))}))
