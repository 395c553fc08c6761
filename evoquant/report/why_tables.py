"""The tables of `why_data`: knock-outs, moved widths, the layers at the cliff, the estimate beside measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.table import Table
from evoquant.report.why_parts import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ESTIMATES = {
    "loss": "losses measured one layer at a time",
    "divergence": "divergences measured one layer at a time, a nat taken for a nat of retention",
    "expected_loss": "losses expected from the Fisher costs",
    "fisher": "Fisher costs, a nat taken for a nat of retention",
}
_PARTS = {
    "rule": "each part of the rule taken away",
    "tree": "each part of the formula taken away",
    "groups": "groups of layers back at the widest",
}
HELD = ("Layer", "Type", "Width", "Nats", "Share of the loss", "Share of the weights")
SMALL = 0.001  # below it four decimals say little
FEW = 0.05  # the share of moved allocations that do as well, up to which places are said to matter


def why_tables(data: Mapping[str, Any]) -> list[Table]:
    """Tables of what `why_data` gave; what is left out is said below the last, or in a table without rows."""
    notes = tuple(data["notes"])
    if "champion" not in data:
        return [Table("Why", ("",), [], notes)]
    champion = data["champion"]
    basis = _basis(champion)
    tables = [
        _knockouts(data["knockouts"], champion, basis),
        _swaps(data["swaps"], champion),
        *_cliff(data["cliff"], champion),
    ]
    if "measured" in data:
        tables.append(_measured(data["measured"]))
    else:
        notes = (*notes, _no_measurements(champion))
    last = tables[-1]
    tables[-1] = Table(last.title, last.columns, last.rows, (*last.notes, *notes), last.numeric)
    return tables


def _no_measurements(champion: Mapping[str, Any]) -> str:
    if champion["network"]:
        return "The journal holds no measurements that the estimate could be held against."
    return "On profiles the separable estimate is all there is: nothing here was measured on a network."


def _basis(champion: Mapping[str, Any]) -> str:
    """What the figures are computed on, in a line."""
    text = f"On {champion['model']!r}"
    if champion["train_models"] > 1:
        text += f", the first of {champion['train_models']} train models"
    text += f", by the separable estimate ({_ESTIMATES[champion['estimate']]})."
    if not champion["network"]:
        return text
    text += " No forward pass was run for this"
    if champion["anchored"]:
        return f"{text}; the champion stands at its measured calibration retention, and changes are estimated from it."
    return f"{text}, and the champion itself stands at its estimate: the journal has it not measured in full."


def _knockouts(data: Mapping[str, Any], champion: Mapping[str, Any], basis: str) -> Table:
    rows = data["rows"]
    labels = list(dict.fromkeys(label for row in rows for label in row["others"]))
    measured = any("measured" in row for row in rows)
    shown = [row for row in rows if data["kind"] != "tree" or row["layers"] or row["verdict"] != NOTHING]
    cells = [
        (champion["text"] if len(champion["text"]) <= 60 else "the champion", *_figures(champion), "", "")
        + (("",) if measured else ())
        + ("",) * (len(labels) + 1)
    ]
    for row in shown:
        extra = (_percent(row.get("measured")),) if measured else ()
        others = tuple(_signed(row["others"].get(label, {}).get("change")) for label in labels)
        cells.append(
            (
                row["what"],
                *_figures(row),
                _signed(row["change"]),
                str(row["layers"]),
                *extra,
                *others,
                row["verdict"],
            )
        )
    columns: tuple[str, ...] = ("What", "Fitness", "Retention", "Compr.", "Change", "Layers changed")
    columns += ("Measured",) if measured else ()
    columns += (*(f"Change on {label}" for label in labels), "")
    notes = [basis]
    if data["of"] > len(rows):
        notes.append(f"The {len(rows)} that change most of {data['of']} are shown.")
    if "subtrees" in data:
        cut = data["subtrees"]
        notes.append(
            f"The formula has {cut['of']} parts; the {cut['tried']} nearest to its root were taken away, one at a "
            f"time, the {cut['of'] - cut['tried']} below them were not."
        )
    if data["nothing"] and data["kind"] == "tree":
        notes.append(f"Changes nothing and could go, one at a time: {_listed(data['nothing'])}.")
    if data.get("checked", 1) > 1 + len(labels):
        notes.append(f"What could go changes nothing on any of the {data['checked']} models it was tried on.")
    if data.get("together"):
        notes.append(f"Without all that could go at once it would be: {data['simplest']}")
    title = f"What each part is worth: {_PARTS[data['kind']]}"
    return Table(title, columns, cells, tuple(notes), frozenset(range(1, len(columns) - 1)))


def _listed(names: Sequence[str], most: int = 6) -> str:
    text = "; ".join(names[:most])
    return text if len(names) <= most else f"{text}; and {len(names) - most} more"


def _swaps(rows: Sequence[Mapping[str, Any]], champion: Mapping[str, Any]) -> Table:
    cells = []
    for row in rows:
        if not row["moved"]:
            cells.append((row["what"], str(row["drawn"]), "0", *("",) * 7, "nothing to move"))
            continue
        cells.append(
            (
                row["what"],
                str(row["drawn"]),
                str(row["moved"]),
                *(_fixed(value) for value in row["fitness"]),
                _percent(row["retention"][2]),
                f"{row['compression']:.3f}x",
                f"{row['as_good']:.1%}",
            )
        )
    columns = (
        "The champion's widths",
        "Drawn",
        "Moved any",
        "Worst fitness",
        "25%",
        "Median",
        "75%",
        "Best",
        "Median retention",
        "Median compr.",
        "As good",
    )
    notes = [f"The champion: fitness {_fixed(champion['fitness'])}, retention {_percent(champion['retention'])}."]
    whole = rows[0]
    if whole["moved"]:
        share = whole["as_good"]
        if share <= FEW:
            said = "it is where the widths are that makes this champion, not only how many there are of each"
        elif share < 0.5:
            said = "where the widths are matters, but much of it is how many there are of each"
        else:
            said = "how many there are of each width makes this champion; where they are matters little"
        notes.append(f"{share:.1%} of the shuffles among all do at least as well: {said}.")
    if whole["moved"] and not rows[1]["moved"]:
        notes.append("Layers of one type have one width: the types decide.")
    alike = rows[2]
    if alike["moved"]:
        said = "it matters" if alike["as_good"] <= 0.5 else "it matters little"
        notes.append(
            f"{alike['as_good']:.1%} of those within like sizes do: {said} which of two such layers has which."
        )
    return Table("The same widths at other places", columns, cells, tuple(notes), frozenset(range(1, 11)))


def _cliff(data: Mapping[str, Any], champion: Mapping[str, Any]) -> list[Table]:
    narrower, wider, holders = data["narrower"], data["wider"], data["holders"]
    stays, falls = narrower["stays"], narrower["falls"]
    floor = data["margin"].get("floor")
    rows = [
        *(_step(row, "stays" if floor is not None else "") for row in stays["rows"]),
        *(_step(row, "falls") for row in falls["rows"]),
    ]
    columns = ("Layer", "Type", "Width", "To", "Fitness", "Change", "Retention", "Nats", "Compr.", "Measured", "")
    numeric = frozenset(range(4, 10))
    notes = [*_margin(data["margin"])]
    if floor is not None:
        notes.append(
            f"Of {narrower['of']} layers that could be narrower {stays['count']} stay at {floor:.1%} or above, "
            f"{falls['count']} fall below; {narrower['gain']} would gain fitness alone."
        )
    else:
        notes.append(f"Of {narrower['of']} layers that could be narrower {narrower['gain']} would gain fitness alone.")
    if len(stays["rows"]) < stays["count"] or len(falls["rows"]) < falls["count"]:
        shown = [f"the best {len(stays['rows'])} that stay"] if stays["rows"] else []
        shown += [f"the {len(falls['rows'])} that fall furthest"] if falls["rows"] else []
        notes.append(f"Shown: {' and '.join(shown)}.")
    tables = [_kept(Table("One layer one width narrower", columns, rows, tuple(notes), numeric))]
    rows = [_step(row, "") for row in wider["rows"]]
    said = f"The {len(rows)} of {wider['of']} that win back the most; {wider['gain']} of all would gain fitness alone."
    notes = [said if rows else "All layers are at the widest already."]
    tables.append(_kept(Table("One layer one width wider", columns, rows, tuple(notes), numeric)))
    cells = [
        (
            row["layer"],
            row["type"],
            row["width"],
            f"{row['nats']:.5f}",
            f"{row['share']:.1%}",
            f"{row['weights']:.2%}",
        )
        for row in holders["rows"]
    ]
    said = f"{holders['half']} of {holders['units']} layers hold half of the loss ({holders['nats']:.5f} nats)."
    notes = [said if cells else "No layer loses anything by the estimate."]
    tables.append(Table("The layers that hold most of the loss", HELD, cells, tuple(notes), frozenset({3, 4, 5})))
    return tables


def _margin(margin: Mapping[str, Any]) -> list[str]:
    if "floor" not in margin:
        return ["The objective has no floor of retention, so nothing falls."]
    if "nats" not in margin:
        return [f"Nothing is left of the retention, and the floor is {margin['floor']:.1%}."]
    side = "above" if margin["nats"] >= 0 else "BELOW"
    points = 100.0 * abs(margin["retention"] - margin["floor"])
    text = f"The champion stands {abs(margin['nats']):.5f} nats ({points:.2f} points) {side} the floor of "
    text += f"{margin['floor']:.1%}"
    if margin["nats"] >= 0 and "least" in margin:
        text += f"; that would pay {margin['times']:,.1f} times for the least step down that costs any, "
        text += f"{margin['least']['layer']!r} ({margin['least']['nats']:.2e} nats)"
    if margin.get("free"):
        text += f"; {margin['free']} steps down cost nothing that counts"
    return [f"{text}."]


def _step(row: Mapping[str, Any], verdict: str) -> tuple[str, ...]:
    return (
        row["layer"],
        row["type"],
        row["width"],
        row["to"],
        _fixed(row["fitness"]),
        _signed(row["change"]),
        _percent(row["retention"]),
        f"{row['nats']:+.5f}",
        f"{row['compression']:.3f}x",
        _percent(row.get("measured")),
        verdict,
    )


def _measured(data: Mapping[str, Any]) -> Table:
    near = data.get("near")
    rows = [_agreement("all", data)]
    if near is not None:
        rows.append(_agreement(f"from {near['from']:.1%} measured up", near))
    cells = list(rows)
    columns = ("Allocations", "Number", "Rank correlation", "Clearly apart, misordered", "Estimate", "Measured", "±")
    if "retention" in data["champion"]:
        cells.append(_allocation("the champion", data["champion"]))
    cells.append(_allocation(f"furthest off: {_widths(data['worst'])}", data["worst"]))
    for key, word in (("promised", "above the floor by the estimate only"), ("denied", "above it when measured only")):
        if near is not None:
            cells += [_allocation(f"{word}: {_widths(row)}", row) for row in near[key]["rows"]]
    notes = [
        f"Estimate: {_ESTIMATES[data['estimate']]}; on average {100 * data['mean']:+.2f} points off, "
        f"{100 * data['mean_absolute']:.2f} whatever the sign, where a measurement itself is off by about "
        f"{100 * data['standard_error']:.2f} (median standard error). {data['cut_short']} of {data['allocations']} "
        f"measurements were cut short by racing."
    ]
    if near is not None:
        wrong = near["promised"]["count"], near["denied"]["count"]
        notes.append(
            f"The estimate puts {wrong[0]} allocations above the floor of {near['floor']:.1%} that were measured below "
            f"it, and {wrong[1]} below it that were measured above."
        )
    if "additivity" in data:
        known = data["additivity"]
        notes.append(
            f"The run itself found {known['misordered']:.1%} of all pairs of {known['allocations']} allocations "
            f"misordered (half is guessing)."
        )
    return Table("The estimate beside what was measured", columns, cells, tuple(notes), frozenset(range(1, 7)))


def _agreement(what: str, data: Mapping[str, Any]) -> tuple[str, ...]:
    correlation = data["spearman"]
    clear = data.get("clear_misordered")
    return (
        what,
        str(data["allocations"]),
        "" if correlation is None else f"{correlation:.3f}",
        "" if clear is None else f"{clear:.1%} of {data['clear_pairs']}",
        "",
        "",
        "",
    )


def _allocation(what: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    error = row["standard_error"]
    cut = "" if row["full"] else " (cut short)"
    return (
        what + cut,
        "",
        "",
        "",
        _percent(row["estimate"]),
        _percent(row["retention"]),
        "" if error is None else f"{100 * error:.2f}",
    )


def _widths(row: Mapping[str, Any]) -> str:
    return f"#{row['id']}, " + ", ".join(f"{count} × {name}" for name, count in row["widths"].items())


def _kept(table: Table) -> Table:
    """The table without columns that are empty in all rows."""
    kept = [i for i in range(len(table.columns)) if not table.rows or any(row[i] for row in table.rows)]
    numeric = frozenset(place for place, i in enumerate(kept) if i in table.numeric)
    rows = [tuple(row[i] for i in kept) for row in table.rows]
    return Table(table.title, tuple(table.columns[i] for i in kept), rows, table.notes, numeric)


def _figures(row: Mapping[str, Any]) -> tuple[str, str, str]:
    compression = row["compression"]
    return _fixed(row["fitness"]), _percent(row["retention"]), "" if compression is None else f"{compression:.3f}x"


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value == 0 or abs(value) >= SMALL else f"{value:.2e}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}" if value == 0 or abs(value) >= SMALL else f"{value:+.1e}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
