"""Text that all exported Rust programs share: the header, the widths, reading columns, the main function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.errors import InputError
from evoquant.export.source import one_line, provenance_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evoquant.campaign.champion import Champion


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


def layer_info(fields: Mapping[str, str]) -> str:
    """The structure of what the heuristic reads: field → type, which may follow a comment; `allowed` is added."""
    lines = "".join(f"    {_documented(field, kind)},\n" for field, kind in fields.items())
    return f"""/// What the heuristic reads of a layer.
#[derive(Clone, Debug)]
pub struct LayerInfo {{
    pub name: String,
{lines}    /// The widths that the layer may take; None allows all.
    pub allowed: Option<Vec<Precision>>,
}}
"""


_COMMENTS = {"layer_type": "`Linear`, `LayerNorm`, ...", "position": "Relative position, 0 (first) to 1 (last)."}


def _documented(field: str, kind: str) -> str:
    comment = _COMMENTS.get(field)
    return f"{f'/// {comment}{chr(10)}    ' if comment else ''}pub {field}: {kind}"


def reading(columns: Mapping[str, Sequence[str]], values: Mapping[str, str]) -> str:
    """The function that reads layers.

    Args:
        columns: variable → the names that its column may have; `name` is added.
        values: field → expression; `cell(variable)` is a column's text, `number(…)?` parses.
    """
    named = {"name": ("name",), **columns}
    found = "".join(
        f"    let {variable} = column(&header, &[{', '.join(literal(name) for name in names)}])?;\n"
        for variable, names in named.items()
    )
    made = "".join(
        f"            {field}: {value},\n" for field, value in {"name": "cell(name).to_string()", **values}.items()
    )
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
