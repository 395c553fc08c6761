"""Rust for trees: a program of one file, standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.export.rust_text import (
    INTEGER_LOSS,
    MAIN,
    TIED_LOSSES,
    Reads,
    header,
    layer_info,
    literal,
    precision,
    reading,
    variant,
)
from evoquant.export.source import has_scales
from evoquant.export.tree_source import INTRODUCTION, LINE, TreePlan, calls, tree_plan
from evoquant.genomes.expression import IS_TYPE, OPERATOR, PER_UNIT, STATE
from evoquant.profiles.model import PER_WIDTH

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.genomes.tree import Tree
    from evoquant.quantization.precision import Menu

_NAMES = {name: name for name in OPERATOR} | {"where": "choose"}


def render(champion: Champion, tree: Tree, menu: Menu | None) -> str:
    """A Rust source file, edition 2021, that allocates exactly as the tree does on units without tie groups."""
    plan = tree_plan(champion, tree, menu)
    reads = _reads(plan)
    sections = [
        header(champion, INTRODUCTION, plan.words, reads.listed, TIED_LOSSES),
        precision(plan.menu.names),
        layer_info(reads),
        _cost(plan),
        _functions(plan),
        _allocate(plan),
        reading(reads),
        MAIN,
    ]
    return "\n".join(section.strip("\n") + "\n" for section in sections if section)


def _reads(plan: TreePlan) -> Reads:
    reads = Reads()
    if plan.types:
        reads.add("layer_type", ("type",), "String")
    scaled = bool({"bits", "size", "mean_bits"} & set(plan.signals)) and _scaled(plan.menu)
    if scaled or {"share", "size", "mean_bits"} & set(plan.signals):
        reads.add("parameters", ("parameters",))
    for name in PER_UNIT:
        if name in plan.signals and name != "share":
            reads.add(name, (name,))
    kinds = ["loss" if name in ("model_loss", "total_loss") else name for name in plan.signals]
    for kind in dict.fromkeys(kinds):
        if kind in PER_WIDTH:
            variables = {f"{kind}_{i}": (f"{kind}:{width}",) for i, width in enumerate(plan.menu.names)}
            reads.columns.update(variables)
            _add_widths(reads, kind, [f"number(cell({variable}))?" for variable in variables])
    if scaled:
        _add_widths(reads, "bits", [reads.bits(width, f"bits_{i}") for i, width in enumerate(plan.menu)])
    return reads


def _add_widths(reads: Reads, name: str, figures: list[str]) -> None:
    reads.fields[name] = f"[f64; {len(figures)}]"
    reads.values[name] = _listed("[]", figures, 12)


def _listed(brackets: str, parts: list[str], indent: int) -> str:
    """Comma-separated parts in brackets, a line for each where one would be long."""
    line = ", ".join(parts)
    if len(line) + indent > LINE - 20:
        deeper = " " * (indent + 4)
        line = "\n" + "".join(f"{deeper}{part},\n" for part in parts) + " " * indent
    return brackets[0] + line + brackets[1]


def _scaled(menu: Menu) -> bool:
    return any(has_scales(width) for width in menu)


def _cost(plan: TreePlan) -> str:
    def leaf(name: str) -> str:
        return f"kind == {literal(name.removeprefix(IS_TYPE))}" if name.startswith(IS_TYPE) else name

    arguments = [*(["kind: &str"] if plan.types else []), *(f"{name}: f64" for name in plan.signals)]
    return (
        f"/// The cost of giving a layer{' of type `kind`' if plan.types else ''} a width.\n"
        f"pub fn cost({', '.join(arguments)}) -> f64 {{\n    {calls(plan.cost, _NAMES, leaf, 4)}\n}}\n"
    )


def _functions(plan: TreePlan) -> str:
    """The operators that the tree has, and the clipping that they or the signals need."""
    used = [_OPERATORS[name] for name in OPERATOR if name in plan.operators]
    clipped = plan.signals or any("clip(" in text for text in used)
    return "\n".join([*([_CLIP] if clipped else []), *used])


def _allocate(plan: TreePlan) -> str:
    menu, signals = plan.menu, plan.signals
    count = len(menu)
    widths = ", ".join(f"Precision::{variant(name)}" for name in menu.names)
    constants = f"/// The menu, narrowest first.\nconst WIDTHS: [Precision; {count}] = [{widths}];\n"
    if {"bits", "size", "mean_bits"} & set(signals) and not _scaled(menu):
        constants += f"const BITS: [f64; {count}] = [{', '.join(f'{width.code_bits}.0' for width in menu)}];\n"
    before = []
    if {"share", "size", "mean_bits"} & set(signals):
        before.append("let total: f64 = layers.iter().map(|layer| layer.parameters).sum();")
    if "units" in signals:
        before.append("let units = layers.len() as f64;")
    if "model_loss" in signals:
        before += [
            f"let mut model_loss = [0i64; {count}];",
            "for layer in layers {",
            "    for (sum, s) in model_loss.iter_mut().zip(layer.loss) {",
            "        *sum += integer_loss(s);",
            "    }",
            "}",
        ]
    arguments = [*(["&layer.layer_type"] if plan.types else []), *(f"clip({_value(plan, name)})" for name in signals)]
    state = [name for name in STATE if name in signals]
    made = _ALLOCATE.format(
        before="".join(f"    {line}\n" for line in before),
        state="".join(f", {name}: f64" for name in state),
        arguments=_listed("()", arguments, 16),
        choose=_rounds(plan, state)
        if state
        else "    layers.iter().map(|layer| Ok(WIDTHS[cheapest(layer)?])).collect()",
    )
    needs_loss = INTEGER_LOSS if {"loss", "model_loss", "total_loss"} & set(signals) else ""
    return "\n".join([constants, made, needs_loss])


def _rounds(plan: TreePlan, state: list[str]) -> str:
    """The body of `allocate` where the tree reads the state of the allocation."""
    term = {
        "mean_bits": (_total_bits(plan), "f64", "/ total"),
        "total_loss": ("integer_loss(layer.loss[w])", "i64", ""),
    }
    lines = []
    for name in state:
        each, kind, after = term[name]
        each = f"layers.iter().zip(&chosen).map(|(layer, &w)| {each}).sum::<{kind}>()"
        lines.append(f"        let {name} = {each} {after or 'as f64 / LOSS_UNITS'};\n")
    return _ROUNDS.format(rounds=plan.rounds, measures="".join(lines), state=", ".join(["layer", *state]))


def _total_bits(plan: TreePlan) -> str:
    return "layer.bits[w]" if _scaled(plan.menu) else "BITS[w] * layer.parameters"


def _value(plan: TreePlan, name: str) -> str:
    """A signal's value, of `layer` at the width of index `w`."""
    if name == "loss":
        return "integer_loss(layer.loss[w]) as f64 / LOSS_UNITS"
    if name == "model_loss":
        return "model_loss[w] as f64 / LOSS_UNITS"
    if name == "bits":
        return "layer.bits[w] / layer.parameters" if _scaled(plan.menu) else "BITS[w]"
    if name == "size":
        return f"{_total_bits(plan)} / total"
    if name == "share":
        return "layer.parameters / total"
    if name == "units" or name in STATE:
        return name
    return f"layer.{name}" if name in PER_UNIT else f"layer.{name}[w]"


_ALLOCATE = """/// A width for each layer, in order: the allowed one of the least cost, of equals the narrowest.
pub fn allocate(layers: &[LayerInfo]) -> Result<Vec<Precision>, String> {{
{before}    let cheapest = |layer: &LayerInfo{state}| {{
        let mut best = None;
        let mut least = f64::INFINITY;
        for w in 0..WIDTHS.len() {{
            if allows(layer, WIDTHS[w]) {{
                let value = cost{arguments};
                if value < least {{
                    best = Some(w);
                    least = value;
                }}
            }}
        }}
        best.ok_or_else(|| format!("{{}}: nothing of the menu is allowed", layer.name))
    }};
{choose}
}}

fn allows(layer: &LayerInfo, width: Precision) -> bool {{
    match &layer.allowed {{
        Some(allowed) => allowed.contains(&width),
        None => true,
    }}
}}
"""

_ROUNDS = """    let mut chosen = Vec::new();
    for layer in layers {{
        let widest = (0..WIDTHS.len()).rev().find(|w| allows(layer, WIDTHS[*w]));
        chosen.push(widest.ok_or_else(|| format!("{{}}: nothing of the menu is allowed", layer.name))?);
    }}
    for _ in 0..{rounds} {{
{measures}        let next = layers.iter().map(|layer| cheapest({state})).collect::<Result<Vec<usize>, String>>()?;
        if next == chosen {{
            break;
        }}
        chosen = next;
    }}
    Ok(chosen.into_iter().map(|w| WIDTHS[w]).collect())"""

_CLIP = """fn clip(x: f64) -> f64 {
    x.clamp(-1e100, 1e100)
}
"""

_OPERATORS = {
    name: f"fn {_NAMES[name]}({signature} {{\n    {body}\n}}\n"
    for name, signature, body in (
        ("add", "a: f64, b: f64) -> f64", "clip(a + b)"),
        ("sub", "a: f64, b: f64) -> f64", "clip(a - b)"),
        ("mul", "a: f64, b: f64) -> f64", "clip(a * b)"),
        ("div", "a: f64, b: f64) -> f64", "if b == 0.0 { 1.0 } else { clip(a / b) }"),
        ("min", "a: f64, b: f64) -> f64", "a.min(b)"),
        ("max", "a: f64, b: f64) -> f64", "a.max(b)"),
        ("neg", "a: f64) -> f64", "-a"),
        ("sqrt", "a: f64) -> f64", "a.abs().sqrt()"),
        ("square", "a: f64) -> f64", "clip(a * a)"),
        ("greater", "a: f64, b: f64) -> bool", "a > b"),
        ("and", "a: bool, b: bool) -> bool", "a && b"),
        ("or", "a: bool, b: bool) -> bool", "a || b"),
        ("not", "a: bool) -> bool", "!a"),
        ("where", "condition: bool, a: f64, b: f64) -> f64", "if condition { a } else { b }"),
    )
}
