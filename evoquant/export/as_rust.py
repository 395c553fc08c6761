"""Rust: the rule as a program of one file in the style of the published algorithm, standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.errors import InputError
from evoquant.export.source import Plan, one_line, plan_of, provenance_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def render(champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
    """A Rust source file, edition 2021, that allocates exactly as the champion does on units without tie groups.

    Raises:
        InputError: the champion's genome is no rule, or the menu lacks a width of it.
    """
    plan = plan_of(champion, "rust", menu)
    fields = _fields(plan)
    sections = [
        _header(plan, champion, fields),
        _precision(plan.menu.names),
        _layer_info(plan, fields),
        _heuristic(plan),
        _ALLOCATE,
        _reading(plan, fields),
        _MAIN,
    ]
    return "\n".join(section.strip("\n") + "\n" for section in sections)


def _fields(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Field of `LayerInfo` → the names that its column may have, for each signal that the rule reads."""
    return {_field(rung.signal): rung.names for rung in plan.rungs}


def _field(signal: str) -> str:
    return signal.replace(":", "_").replace("-", "_").lower()


def _variant(precision: str) -> str:
    """`INT4-channel` → `Int4Channel`."""
    return "".join(part.capitalize() for part in precision.split("-"))


def _literal(text: str) -> str:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InputError(f"the layer type {text!r} is not Unicode text; Rust cannot hold it.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in escaped) + '"'


def _header(plan: Plan, champion: Champion, fields: dict[str, tuple[str, ...]]) -> str:
    def block(lines: Iterable[str]) -> str:
        return "".join(f"//!     {one_line(line)}\n" for line in lines)

    columns = ["name", *(["type"] if plan.protected else []), *(["position"] if plan.edge_width is not None else [])]
    columns += [" or ".join(names) for names in fields.values()]
    return (
        "//! A quantization heuristic evolved by evoquant.\n"
        "//!\n//! Each layer takes the width of the first that holds:\n//!\n"
        f"{block(plan.words())}"
        "//!\n//! Where it comes from:\n//!\n"
        f"{block(provenance_lines(champion) or ['not recorded'])}"
        "//!\n//! Use `allocate` in your own code, or the program:\n//!\n"
        "//!     rustc -O champion.rs && ./champion < layers.tsv\n//!\n"
        "//! Its input is tab-separated text. The first line names the columns, of which it reads\n"
        f"{block(columns)}"
        "//! and `allowed` (comma-separated widths, empty for all; the column may be missing); others are ignored.\n"
        "//! Every further line is a layer. It prints a line for each: name, tab, width.\n//!\n"
        "//! Layers that must share a width are given as one, merged.\n"
    )


def _precision(names: tuple[str, ...]) -> str:
    variants = "".join(f"    {_variant(name)},\n" for name in names)
    parse = "".join(f"            {_literal(name)} => Some(Precision::{_variant(name)}),\n" for name in names)
    show = "".join(f"            Precision::{_variant(name)} => {_literal(name)},\n" for name in names)
    return f"""use std::io::Read;

/// The widths, narrowest first: their order is the order of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {{
{variants}}}

impl Precision {{
    /// The width of that name.
    pub fn parse(name: &str) -> Option<Precision> {{
        match name {{
{parse}            _ => None,
        }}
    }}

    /// The width's name.
    pub fn name(self) -> &'static str {{
        match self {{
{show}        }}
    }}
}}
"""


def _layer_info(plan: Plan, fields: dict[str, tuple[str, ...]]) -> str:
    lines = ["    pub name: String,\n"]
    if plan.protected_width is not None:
        lines.append("    /// `Linear`, `LayerNorm`, ...\n    pub layer_type: String,\n")
    if plan.edge_width is not None:
        lines.append("    /// Relative position, 0 (first) to 1 (last).\n    pub position: f64,\n")
    lines += [f"    pub {field}: f64,\n" for field in fields]
    lines.append("    /// The widths that the layer may take; None allows all.\n")
    lines.append("    pub allowed: Option<Vec<Precision>>,\n")
    return (
        "/// What the heuristic reads of a layer.\n#[derive(Clone, Debug)]\n"
        f"pub struct LayerInfo {{\n{''.join(lines)}}}\n"
    )


def _heuristic(plan: Plan) -> str:
    steps = []
    if plan.protected_width is not None:
        types = " | ".join(_literal(kind) for kind in plan.protected)
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
        f"{''.join(steps)}    Precision::{_variant(plan.otherwise)}\n}}\n"
    )


def _step(comment: str, condition: str, width: str) -> str:
    heading = f"    // {comment}\n" if comment else ""
    return f"{heading}    if {condition} {{\n        return Precision::{_variant(width)};\n    }}\n"


def _reading(plan: Plan, fields: dict[str, tuple[str, ...]]) -> str:
    """The function that reads the columns this rule needs."""
    find: list[tuple[str, tuple[str, ...], str]] = [("name", ("name",), "cell(name).to_string()")]
    if plan.protected_width is not None:
        find.append(("layer_type", ("type",), "cell(layer_type).to_string()"))
    if plan.edge_width is not None:
        find.append(("position", ("position",), "number(cell(position))?"))
    find += [(field, names, f"number(cell({field}))?") for field, names in fields.items()]
    columns = "".join(
        f"    let {field} = column(&header, &[{', '.join(_literal(name) for name in names)}])?;\n"
        for field, names, _ in find
    )
    made = "".join(f"            {field}: {value},\n" for field, _, value in find)
    return f"""/// Layers from tab-separated text whose first line names the columns.
pub fn read_layers(text: &str) -> Result<Vec<LayerInfo>, String> {{
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or("").split('\\t').collect();
{columns}    let allowed = column(&header, &["allowed"]).ok();
    let mut layers = Vec::new();
    for line in lines {{
        let cells: Vec<&str> = line.split('\\t').collect();
        let cell = |index: usize| cells.get(index).copied().unwrap_or("");
        layers.push(LayerInfo {{
{made}            allowed: allowed.and_then(|index| widths(cell(index))),
        }});
    }}
    Ok(layers)
}}

fn column(header: &[&str], names: &[&str]) -> Result<usize, String> {{
    names
        .iter()
        .find_map(|name| header.iter().position(|column| column == name))
        .ok_or_else(|| format!("the first line names no column {{}}", names.join(" or ")))
}}
{_NUMBER if any("number(" in value for _, _, value in find) else ""}"""


_NUMBER = """
fn number(cell: &str) -> Result<f64, String> {
    cell.parse().map_err(|_| format!("{cell:?} is not a number"))
}
"""

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

_MAIN = """
/// A comma-separated list of widths; those that are not on the menu do not count. Empty: all.
fn widths(cell: &str) -> Option<Vec<Precision>> {
    if cell.is_empty() {
        return None;
    }
    Some(cell.split(',').filter_map(|name| Precision::parse(name.trim())).collect())
}

fn run() -> Result<(), String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
    let layers = read_layers(&text)?;
    for (layer, width) in layers.iter().zip(allocate(&layers)?) {
        println!("{}\\t{}", layer.name, width.name());
    }
    Ok(())
}

fn main() {
    if let Err(message) = run() {
        eprintln!("{message}");
        std::process::exit(2);
    }
}
"""
