"""Text that all exported Rust programs share: the header, the widths, reading columns, the main function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evoquant.errors import InputError
from evoquant.export.source import has_scales, one_line, provenance_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evoquant.campaign.champion import Champion
    from evoquant.quantization.precision import Precision

TIED = "Layers that must share a width are given as one, merged."
TIED_LOSSES = (
    "Layers that must share a width are given as one, merged: their losses s as 1 - (1 - s1)(1 - s2)...,\n"
    "//! parameters, bits, divergences, Fisher and Hessian costs and squared errors as sums. Rust 1.77 or newer."
)


@dataclass(frozen=True)
class Reads:
    """What a program reads of each layer; `name` and `allowed` are always read.

    Attributes:
        columns: variable → the names that its column may have.
        fields: field of `LayerInfo` → its type.
        values: field → expression; `cell(variable)` is a column's text, `number(…)?` parses.
    """

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, names: Sequence[str], kind: str = "f64") -> None:
        """A field with a column of its own."""
        self.columns[name] = tuple(names)
        self.fields[name] = kind
        self.values[name] = f"cell({name}).to_string()" if kind == "String" else f"number(cell({name}))?"

    def bits(self, width: Precision, variable: str) -> str:
        """Expression for the bits of a layer at a width; only widths with scales need a column, of that variable."""
        if has_scales(width):
            self.columns[variable] = (f"bits:{width.name}",)
            return f"number(cell({variable}))?"
        self.columns["parameters"] = ("parameters",)
        return f"{width.code_bits}.0 * number(cell(parameters))?"

    @property
    def listed(self) -> list[str]:
        """The columns as the header lists them."""
        return ["name", *(" or ".join(names) for names in self.columns.values())]


def variant(precision: str) -> str:
    """Name of a width's variant: `INT4-channel` → `Int4Channel`."""
    return "".join(part.capitalize() for part in precision.split("-"))


def literal(text: str) -> str:
    """A string as source.

    Raises:
        InputError: it is no Unicode text.
    """
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InputError(f"the layer type {text!r} is not Unicode text; Rust cannot hold it.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in escaped) + '"'


def header(champion: Champion, introduction: str, words: Iterable[str], columns: Iterable[str], tied: str) -> str:
    """The comment at the top.

    Args:
        champion: gives scores and provenance.
        introduction: of `words`, one line.
        words: the heuristic, line by line.
        columns: of the program's input.
        tied: how layers that share a width are merged, a line or more.
    """

    def block(lines: Iterable[str]) -> str:
        return "".join(f"//!     {one_line(line)}\n" for line in lines)

    return (
        "//! A quantization heuristic evolved by evoquant.\n"
        f"//!\n//! {introduction}\n//!\n"
        f"{block(words)}"
        "//!\n//! Where it comes from:\n//!\n"
        f"{block(provenance_lines(champion) or ['not recorded'])}"
        "//!\n//! Use `allocate` in your own code, or the program:\n//!\n"
        "//!     rustc -O champion.rs && ./champion < layers.tsv\n//!\n"
        "//! Its input is tab-separated text. The first line names the columns, of which it reads\n"
        f"{block(columns)}"
        "//! and `allowed` (comma-separated widths, empty for all; the column may be missing); others are ignored.\n"
        "//! Every further line is a layer. It prints a line for each: name, tab, width.\n//!\n"
        f"//! {tied}\n"
    )


def precision(names: Sequence[str]) -> str:
    """The enumeration of the widths, with their names."""
    variants = "".join(f"    {variant(name)},\n" for name in names)
    parse = "".join(f"            {literal(name)} => Some(Precision::{variant(name)}),\n" for name in names)
    show = "".join(f"            Precision::{variant(name)} => {literal(name)},\n" for name in names)
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


def layer_info(reads: Reads) -> str:
    """The structure of what the heuristic reads."""
    lines = "".join(f"    {_documented(name, kind)},\n" for name, kind in reads.fields.items())
    return f"""/// What the heuristic reads of a layer.
#[derive(Clone, Debug)]
pub struct LayerInfo {{
    pub name: String,
{lines}    /// The widths that the layer may take; None allows all.
    pub allowed: Option<Vec<Precision>>,
}}
"""


_COMMENTS = {
    "layer_type": "`Linear`, `LayerNorm`, ...",
    "position": "Relative position, 0 (first) to 1 (last).",
    "bits": "Bits of weights and scales.",
}


def _documented(name: str, kind: str) -> str:
    comment = _COMMENTS.get("bits" if name.startswith("bits") else name)
    return f"{f'/// {comment}{chr(10)}    ' if comment else ''}pub {name}: {kind}"


def reading(reads: Reads) -> str:
    """The function that reads layers."""
    named = {"name": ("name",), **reads.columns}
    found = "".join(
        f"    let {variable} = column(&header, &[{', '.join(literal(name) for name in names)}])?;\n"
        for variable, names in named.items()
    )
    values = {"name": "cell(name).to_string()", **reads.values}
    made = "".join(f"            {name}: {value},\n" for name, value in values.items())
    return f"""/// Layers from tab-separated text whose first line names the columns.
pub fn read_layers(text: &str) -> Result<Vec<LayerInfo>, String> {{
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or("").split('\\t').collect();
{found}    let allowed = column(&header, &["allowed"]).ok();
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
{NUMBER if any("number(" in value for value in values.values()) else ""}"""


NUMBER = """
fn number(cell: &str) -> Result<f64, String> {
    cell.parse().map_err(|_| format!("{cell:?} is not a number"))
}
"""

INTEGER_LOSS = """const LOSS_UNITS: f64 = (1u64 << 40) as f64;

/// -ln(1 - s) in units of 2^-40, so that no order of summing matters.
fn integer_loss(s: f64) -> i64 {
    let largest = 1.0 - 1.0 / (1u64 << 30) as f64;
    (-(-s.min(largest)).ln_1p() * LOSS_UNITS).round_ties_even() as i64
}
"""

MAIN = """
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
