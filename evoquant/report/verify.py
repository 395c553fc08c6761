"""Tables of deployed models: what was promised, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNKNOWN = ""


def verification_table(data: Mapping[str, Any]) -> Table:
    """Promised, actual and verdict of one verification; faults and notes below.

    Args:
        data: of `Verification.to_dict`.
    """
    loaded = bool(data["loaded"])
    rows: list[tuple[str, ...]] = [("loads and runs", "yes", "yes" if loaded else "no", _verdict(loaded))]
    if loaded:
        rows += [*_size_rows(data), *_output_rows(data), *_retention_rows(data)]
        if data["rounding"] is not None:
            nodes = len(data["rounding"])
            verdict = "known and tolerated" if nodes and data["rounds"] else _verdict(not nodes)
            rows.append(("roundings of activations", "0", str(nodes), verdict))
        rows += [*_token_rows(data), *_latency_rows(data)]
    outcome = _outcome(data)
    consumer = f"{data['consumer']} {data['version']}".strip()
    notes = [*(f"FAULT: {fault}" for fault in data["faults"]), *data["notes"]]
    title = f"{data['model']} for {data['target']}, run by {consumer} in a fresh process: {outcome}"
    return Table(title, ("", "Promised", "Actual", "Verdict"), rows, tuple(notes), frozenset((1, 2)))


def _size_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    size = data["bytes"]
    fits = size["stored"] <= size["most"]
    first = ("bytes of tensors", f"{size['promised']:,.0f}", f"{size['stored']:,}")
    own = [(*first, _verdict(fits))]
    if size["due"] is not None:
        own = [
            (*first, ""),
            ("bytes that this form takes", f"{size['due']:,.0f}", f"{size['stored']:,}", _verdict(fits)),
        ]
    return [
        *own,
        ("effective bits of the layers", f"{data['promised_bits']:.4f}", f"{data['actual_bits']:.4f}", ""),
        ("bytes of files (FP32, deployed)", f"{size['fp32_on_disk']:,}", f"{size['on_disk']:,}", ""),
    ]


def _output_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    outputs = data["outputs"]
    limit = f"at most {outputs['tolerance']:.0e}"
    rows: list[tuple[str, ...]] = []
    for label, key in (("largest output difference", "difference"), ("the same of the FP32 model", "fp32_difference")):
        value = outputs[key]
        holds = value is not None and value <= outputs["tolerance"]
        rows.append((label, limit, "not comparable" if value is None else f"{value:.1e}", _verdict(holds)))
    return rows


def _retention_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    kept = data["retention"]
    tolerance = kept["tolerance"]
    ours, theirs = kept["actual"], kept["simulated"]
    known = ours is not None and theirs is not None
    holds = abs(ours - theirs) <= tolerance if known else ours == theirs
    label = f"retention, {kept['samples']} samples of {data['split']}"
    rows: list[tuple[str, ...]] = [(label, _share(theirs), _share(ours), _verdict(holds))]
    if kept["promised"] is not None:
        of = "" if kept["promised_samples"] is None else f", {kept['promised_samples']} samples"
        promised = _with_interval(kept["promised"], kept["promised_interval"])
        actual = _with_interval(ours, kept["actual_interval"])
        rows.append((f"retention of the recipe on {data['split']}{of}", promised, actual, ""))
    return rows


def _token_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    tokens = data["tokens"]
    if tokens is None:
        return []
    return [
        (f"tokens generated after {tokens['prompt']}, as measured", str(len(tokens["measured"])), _alike(tokens), "")
    ]


def _alike(tokens: Mapping[str, Any]) -> str:
    made, alike = len(tokens["deployed"]), tokens["alike"]
    return f"{made}, all alike" if alike == made else f"{made}, the first {alike} alike"


def _latency_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    latency = data["latency"]
    if latency is None:
        return []
    fp32, deployed = (_quartiles(latency[key], 3) for key in ("fp32", "deployed"))
    ratio = _quartiles(latency["ratio"], 2)
    return [
        (f"ms for a batch of {data['batch']}, one thread (FP32, deployed)", fp32, deployed, ""),
        (f"its ratio, {latency['repeats']} pairs", "", ratio, ""),
    ]


def export_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each verification of several.

    Args:
        rows: each of `Verification.to_dict`, with `task` where several tasks are deployed.

    Stored bits are those of the layers, per weight. Retention is promised on the whole split, and measured and
    deployed on the same samples of it.
    """
    cells = []
    notes = []
    for row in rows:
        size, outputs, kept = row["bytes"], row["outputs"], row["retention"]
        name = str(row.get("task", row["model"]))
        apart = outputs["difference"]
        cells.append(
            (
                name,
                row["target"],
                "yes" if row["loaded"] else "NO",
                f"{size['promised']:,.0f}",
                UNKNOWN if size["stored"] is None else f"{size['stored']:,}",
                UNKNOWN if row["actual_bits"] is None else f"{row['actual_bits']:.2f}",
                _activations(row["rounding"]),
                UNKNOWN if apart is None else f"{apart:.1e}",
                _with_interval(kept["promised"], kept["promised_interval"]),
                _share(kept["simulated"]),
                _with_interval(kept["actual"], kept["actual_interval"]),
                UNKNOWN if row["tokens"] is None else _alike(row["tokens"]),
                UNKNOWN if row["latency"] is None else _quartiles(row["latency"]["ratio"], 2),
                _outcome(row),
            )
        )
        notes += [f"FAULT: {name}, {row['target']}: {fault}" for fault in row["faults"]]
    sizes = ("Task", "Target", "Loaded", "Promised bytes", "Actual", "Stored bits", "Activations", "Output difference")
    columns = (*sizes, "Promised retention", "Measured", "Deployed", "Tokens", "Latency / FP32", "Verdict")
    right = frozenset((3, 4, 5, *range(7, 13)))
    return Table("Deployed models against their recipes", columns, cells, tuple(notes), right)


def written_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each export to a stack that cannot run here.

    Args:
        rows: `task`, `target`, and `written`: file → bytes.
    """
    cells: list[tuple[str, ...]] = []
    for row in rows:
        files = ", ".join(f"{name} ({size:,} bytes)" for name, size in row["written"].items())
        cells.append((str(row["task"]), str(row["target"]), files, "not run"))
    return Table("Written for stacks that cannot run here", ("Task", "Target", "Files", "Verdict"), cells)


def _activations(rounding: Sequence[str] | None) -> str:
    return UNKNOWN if rounding is None else "rounded" if rounding else "as measured"


def _outcome(data: Mapping[str, Any]) -> str:
    """Of a verification; a form that holds no fewer bytes is said to."""
    if not data["passed"]:
        return "NOT AS PROMISED"
    size = data["bytes"]
    return "as promised" if size["due"] is None or size["due"] <= size["promised"] else "as promised, but for its size"


def _verdict(holds: bool) -> str:
    return "holds" if holds else "DOES NOT HOLD"


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2%}"


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return _share(value)
    return f"{value:.2%} ({interval[0]:.2%} to {interval[1]:.2%})"


def _quartiles(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"
