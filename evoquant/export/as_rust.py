"""Rust: a program of one file in the style of the published algorithm, standard library only.

Trees are written by `tree_rust`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.export import tree_rust
from evoquant.export.rust_text import (
    INTEGER_LOSS,
    MAIN,
    TIED,
    TIED_LOSSES,
    Reads,
    header,
    layer_info,
    literal,
    precision,
    reading,
    variant,
)
from evoquant.export.source import Plan, PlannedRung, plan_of
from evoquant.genomes.tree import Tree
from evoquant.scoring.problem import NO_SAVING

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def render(champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
    """A Rust source file, edition 2021, that allocates exactly as the champion does on units without tie groups.

    Raises:
        InputError: the champion's genome is neither rule nor tree, or the menu lacks a width of it.
    """
    if isinstance(champion.genome, Tree):
        return tree_rust.render(champion, champion.genome, menu)
    plan = plan_of(champion, "rust", menu)
    reads = _reads(plan)
    prices = {rung.price for rung in plan.rungs if rung.price}
    introduction = "Each layer takes the width of the first that holds:"
    sections = [
        header(champion, introduction, plan.words(), reads.listed, TIED_LOSSES if plan.priced else TIED),
        precision(plan.menu.names),
        layer_info(reads),
        _heuristic(plan),
        *([_LOSS_PER_BIT, INTEGER_LOSS] if "loss" in prices else []),
        *([_COST_PER_BIT] if prices - {"loss"} else []),
        _ALLOCATE_PRICED if plan.priced else _ALLOCATE,
        _REPAIR,
        reading(reads),
        MAIN,
    ]
    return "\n".join(section.strip("\n") + "\n" for section in sections)


def _reads(plan: Plan) -> Reads:
    reads = Reads()
    if plan.protected_width is not None:
        reads.add("layer_type", ("type",), "String")
    if plan.edge_width is not None:
        reads.add("position", ("position",))
    if plan.priced:
        reads.add("parameters", ("parameters",))
    for rung in plan.rungs:
        if rung.step is None:
            reads.add(_field(rung.signal), rung.names)
            continue
        for width in rung.step:
            bits = _field(f"bits:{width.name}")
            reads.add(_field(f"{rung.price}:{width.name}"), (f"{rung.price}:{width.name}",))
            reads.fields[bits] = "f64"
            reads.values[bits] = reads.bits(width, bits)
    return reads


def _field(signal: str) -> str:
    return signal.replace(":", "_").replace("-", "_").lower()


def _heuristic(plan: Plan) -> str:
    steps = []
    if plan.protected_width is not None:
        types = " | ".join(literal(kind) for kind in plan.protected)
        steps.append(_step("Protected types", f"matches!(layer.layer_type.as_str(), {types})", plan.protected_width))
    if plan.edge_width is not None:
        condition = f"layer.position < {plan.edges!r} || layer.position > 1.0 - {plan.edges!r}"
        steps.append(_step("Edges", condition, plan.edge_width))
    for number, rung in enumerate(plan.rungs):
        comment = "Sensitivity ladder" if number == 0 else ""
        steps.append(_step(comment, f"{_value(rung)} > {rung.above!r}", rung.width))
    argument = "layer" if steps else "_layer"
    weights = ", weights: f64" if plan.priced else ""
    return (
        "/// The heuristic itself, before what a layer allows.\n"
        f"pub fn heuristic({argument}: &LayerInfo{weights}) -> Precision {{\n"
        f"{''.join(steps)}    Precision::{variant(plan.otherwise)}\n}}\n"
    )


def _value(rung: PlannedRung) -> str:
    if rung.step is None:
        return f"layer.{_field(rung.signal)}"
    cost, bits = ([f"layer.{_field(f'{kind}:{width.name}')}" for width in rung.step] for kind in (rung.price, "bits"))
    function = "loss_per_bit" if rung.price == "loss" else "cost_per_bit"
    return f"{function}({', '.join(cost)}, {bits[1]} - {bits[0]}, weights)"


def _step(comment: str, condition: str, width: str) -> str:
    heading = f"    // {comment}\n" if comment else ""
    return f"{heading}    if {condition} {{\n        return Precision::{variant(width)};\n    }}\n"


_ALLOCATE = """/// A width for each layer, in order.
pub fn allocate(layers: &[LayerInfo]) -> Result<Vec<Precision>, String> {
    layers.iter().map(|layer| repair(heuristic(layer), layer)).collect()
}
"""

_ALLOCATE_PRICED = """/// A width for each layer of a whole model, in order.
pub fn allocate(layers: &[LayerInfo]) -> Result<Vec<Precision>, String> {
    let weights: f64 = layers.iter().map(|layer| layer.parameters).sum();
    layers.iter().map(|layer| repair(heuristic(layer, weights), layer)).collect()
}
"""

_LOSS_PER_BIT = f"""/// Rise of -ln(1 - s) for each bit per weight that a model of so many weights saves.
fn loss_per_bit(narrow: f64, wide: f64, saved: f64, weights: f64) -> f64 {{
    if saved <= 0.0 {{
        return {NO_SAVING!r};
    }}
    (integer_loss(narrow) - integer_loss(wide)) as f64 / LOSS_UNITS / (saved / weights)
}}
"""

_COST_PER_BIT = f"""/// Rise of a cost for each bit per weight that a model of so many weights saves.
fn cost_per_bit(narrow: f64, wide: f64, saved: f64, weights: f64) -> f64 {{
    if saved <= 0.0 {{
        return {NO_SAVING!r};
    }}
    (narrow - wide) / (saved / weights)
}}
"""

_REPAIR = """/// A width that the layer does not allow becomes the next wider one that it allows, or else the widest.
fn repair(wanted: Precision, layer: &LayerInfo) -> Result<Precision, String> {
    let Some(allowed) = &layer.allowed else {
        return Ok(wanted);
    };
    let wider = allowed.iter().filter(|width| **width >= wanted).min();
    wider
        .or(allowed.iter().max())
        .copied()
        .ok_or_else(|| format!("{}: nothing of the menu is allowed", layer.name))
}
"""
