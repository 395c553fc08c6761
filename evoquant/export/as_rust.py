"""Rust: a program of one file in the style of the published algorithm, standard library only.

Trees are written by `tree_rust`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.export import tree_rust
from evoquant.export.rust_text import MAIN, header, layer_info, literal, precision, reading, variant
from evoquant.export.source import Plan, plan_of
from evoquant.genomes.tree import Tree

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
    columns, fields, values = _fields(plan)
    introduction = "Each layer takes the width of the first that holds:"
    listed = ["name", *(" or ".join(names) for names in columns.values())]
    sections = [
        header(
            champion, introduction, plan.words(), listed, "Layers that must share a width are given as one, merged."
        ),
        precision(plan.menu.names),
        layer_info(fields),
        _heuristic(plan),
        _ALLOCATE,
        reading(columns, values),
        MAIN,
    ]
    return "\n".join(section.strip("\n") + "\n" for section in sections)


def _fields(plan: Plan) -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, str]]:
    """What the rule reads: field → the names that its column may have, its type, and how it is read."""
    columns: dict[str, tuple[str, ...]] = {}
    if plan.protected_width is not None:
        columns["layer_type"] = ("type",)
    if plan.edge_width is not None:
        columns["position"] = ("position",)
    columns |= {_field(rung.signal): rung.names for rung in plan.rungs}
    fields = {field: "String" if field == "layer_type" else "f64" for field in columns}
    values = {f: f"cell({f}).to_string()" if f == "layer_type" else f"number(cell({f}))?" for f in columns}
    return columns, fields, values


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
        steps.append(
            _step(
                "Sensitivity ladder" if number == 0 else "", f"layer.{_field(rung.signal)} > {rung.above!r}", rung.width
            )
        )
    argument = "layer" if steps else "_layer"
    return (
        "/// The heuristic itself, before what a layer allows.\n"
        f"pub fn heuristic({argument}: &LayerInfo) -> Precision {{\n"
        f"{''.join(steps)}    Precision::{variant(plan.otherwise)}\n}}\n"
    )


def _step(comment: str, condition: str, width: str) -> str:
    heading = f"    // {comment}\n" if comment else ""
    return f"{heading}    if {condition} {{\n        return Precision::{variant(width)};\n    }}\n"


_ALLOCATE = """/// A width for each layer, in order.
pub fn allocate(layers: &[LayerInfo]) -> Result<Vec<Precision>, String> {
    layers.iter().map(|layer| repair(heuristic(layer), layer)).collect()
}

/// A width that the layer does not allow becomes the next wider one that it allows, or else the widest.
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
