"""What the page says first: the champion in words, what it keeps, what it costs, how sure that is, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.config import ModelsConfig, ReplayConfig
from evoquant.report.counted import counted_of
from evoquant.report.figures import met_words
from evoquant.report.gate import alike_notes
from evoquant.report.limits import limit_words
from evoquant.report.page_html import Safe, definitions, element, joined, paragraphs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.report.counted import Counted
    from evoquant.report.data import RunData
    from evoquant.report.series import GateRow, Goal, RunSeries, Size

LONG = 400  # characters of a heuristic that the verdict quotes in full


def headline(run: RunData) -> str:
    """The page's title in a line."""
    figures = headline_figures(run)
    state = "" if run.champion is not None else ", not finished"
    if figures is None:
        return f"{run.config.name}{state}"
    return (
        f"{run.config.name}: {figures['retention']:.2%} retention at {figures['compression']:.2f}x compression{state}"
    )


def headline_figures(run: RunData) -> Mapping[str, Any] | None:
    """The figures that count most: of the test split or models, else of the last split; of the best so far, else."""
    if run.champion is not None and run.champion.scores:
        return run.champion.scores[headline_split(run)]
    best = run.journal[-1]["champion"]
    if best is None:
        return None
    place = best.get("on", 0)
    return {
        "fitness": best["fitness"],
        "retention": best["retention"][place],
        "compression": best["compression"][place],
    }


def headline_split(run: RunData) -> str:
    """`test`, or what comes nearest to it."""
    assert run.champion is not None
    return "test" if "test" in run.champion.scores else list(run.champion.scores)[-1]


def verdict_html(run: RunData, series: RunSeries) -> Safe:
    """The first section's content."""
    parts: list[Safe] = []
    if run.champion is None:
        parts.append(_unfinished(run))
    figures = headline_figures(run)
    best = run.champion.genome.text if run.champion is not None else (run.journal[-1]["champion"] or {}).get("text")
    if figures is None or best is None:
        return joined([*parts, element("p", "No candidate has succeeded yet; there is nothing to recommend.")])
    quoted = best if len(best) <= LONG else f"{best[: LONG - 1]}…"
    who = "Champion" if run.champion is not None else "Best so far"
    parts.append(element("p", f"{who}: ", element("code", quoted), class_="champion"))
    parts.append(_judgement(run, series.goal, figures))
    parts.append(definitions(_cards(run, figures, series.size, _searched(series)), "cards"))
    parts.append(paragraphs(_how_sure(run, figures)))
    if run.champion is not None:
        warnings = [*run.champion.provenance.get("warnings", ()), *(run.gate["warnings"] if run.gate else ())]
        parts.append(paragraphs((f"Warning: {text}" for text in dict.fromkeys(warnings)), "warning"))
    if series.gate:
        counted = counted_of({} if run.champion is None else run.champion.scores)
        parts.append(_gate(series.gate, run.gate or {}, counted))
    return joined(parts)


def _unfinished(run: RunData) -> Safe:
    stop = run.config.stop
    limits = [f"{len(run.journal):,} of at most {stop.generations:,} generations"]
    spent = run.journal[-1]
    if stop.evaluations is not None:
        limits.append(f"{spent['evaluations']['asked']:,} of {stop.evaluations:,} candidates")
    if stop.passes is not None and "passes" in spent:
        limits.append(f"{spent['passes']:g} of {stop.passes:g} passes")
    text = (
        f"This run is not finished: {', '.join(limits)}. What follows is the best so far, on the data of the search; "
    )
    text += "nothing has been chosen or tested on other data yet."
    return element("p", text, class_="warning")


def _where(run: RunData) -> str:
    """What the headline's figures were obtained on."""
    config = run.config
    if run.champion is None or not run.champion.scores:
        return "the calibration split" if config.task is not None else "the models of the search"
    split = headline_split(run)
    if config.task is not None:
        samples = run.champion.scores[split].get("samples")
        return f"the {split} split" + (f" ({samples:,} samples)" if samples else "")
    if isinstance(config.search, ReplayConfig):
        return f"the {split} model"
    names = (config.models or ModelsConfig()).model_dump().get(split, [])
    return f"the {split} model {names[0]}" if len(names) == 1 else f"{len(names)} {split} models"


def _judgement(run: RunData, goal: Goal, figures: Mapping[str, Any]) -> Safe:
    """One sentence: whether it does what was asked for."""
    per_model = figures.get("per_model", {}).get("retention", ())
    keeps = f"On {_where(run)} it keeps {figures['retention']:.2%} of what FP32 achieves"
    if per_model:
        keeps += f" on average ({min(per_model):.2%} to {max(per_model):.2%})"
    counted = f"less in {figures['cost']['name']}" if "cost" in figures else "smaller"
    keeps += f", {figures['compression']:.2f} times {counted}."
    kept: bool | None = None
    asked = ""
    if goal.floor is not None:
        worst = min(per_model) if per_model else figures["retention"]
        kept = worst >= goal.floor
        if per_model and not kept:
            above = sum(value >= goal.floor for value in per_model)
            asked = f"On {above} of {len(per_model)} models it {met_words(goal, True)}, on the others it does not."
        else:
            asked = f"It {met_words(goal, kept)}."
        if "probability" in figures:
            asked += (
                f" The chance that it does so on more data like these: {probability_words(figures['probability'])}."
            )
    elif goal.effective_bits is not None and "effective_bits" in figures:
        bits = 32.0 * figures["cost"]["value"] / figures["cost"]["reference"] if "cost" in figures else None
        kept = (bits or figures["effective_bits"]) <= goal.effective_bits * (1 + 1e-9)
        asked = f"It {met_words(goal, kept)}."
    if "limits" in figures:
        kept = all(row["margin"] >= 0 for row in figures["limits"])
        rows = "; ".join(f"{row['name']} {limit_words(row)}" for row in figures["limits"])
        whose = " (of the model that is worst off)" if per_model else ""
        asked += f" {'All limits are kept' if kept else 'NOT ALL LIMITS ARE KEPT'}{whose}: {rows}."
    signals = figures.get("signals", ())
    asked += "".join(f" {row['name']}: {row['text']}." for row in signals if row["present"])
    untold = paragraphs((f"{row['name']}: {row['text']}." for row in signals if not row["present"]), "warning")
    mark = {True: "good", False: "warning", None: "lead"}[kept]
    answer = element("p", asked.strip(), class_=mark) if asked else Safe("")
    return joined([element("p", keeps, class_="lead"), answer, untold])


def _cards(run: RunData, figures: Mapping[str, Any], size: Size | None, size_of_what: str) -> list[tuple[str, ...]]:
    interval = figures.get("interval")
    bounds = (f"95% interval {interval[0]:.2%} to {interval[1]:.2%}",) if interval else ()
    several = figures.get("per_model", {}).get("retention", ())
    spread = (f"mean of {len(several)} models, {min(several):.2%} to {max(several):.2%}",) if several else ()
    cards: list[tuple[str, ...]] = [
        ("Retention", f"{figures['retention']:.2%}", *bounds, *spread),
        ("Compression", f"{figures['compression']:.3f}x"),
    ]
    if "effective_bits" in figures:
        cards.append(("Bits per weight", f"{figures['effective_bits']:.3f}", "FP32: 32"))
    if size is not None:
        of_both = f"; {bytes_words(size.other)} beside them in both" if size.other else ""
        name = "Weights and scales" if run.config.task is not None else f"Weights of {size_of_what}"
        cards.append((name, bytes_words(size.champion), f"FP32: {bytes_words(size.fp32)}{of_both}"))
    for name, cost in figures.get("costs", {}).items():
        if name != "bits":
            cards.append((f"{name} ({cost['unit']})", cost["text"]))
    if "share_of_optimum" in figures:
        cards.append(("Of the certified optimum", f"{figures['share_of_optimum']:.2%}", "of the same estimate"))
    cards.append(("Fitness", f"{figures['fitness']:.4f}"))
    if "metric" in figures:
        metric = figures["metric"]
        cards.append((f"Metric ({metric['name']})", f"{metric['quantized']:.4f}", f"FP32: {metric['fp32']:.4f}"))
    return cards


def _searched(series: RunSeries) -> str:
    return series.strip.model if series.strip is not None else "the searched model"


def probability_words(value: float) -> str:
    """A chance that was found by resampling is never certain."""
    return "above 99.9%" if value > 0.999 else "below 0.1%" if value < 0.001 else f"{value:.1%}"


def bytes_words(count: float) -> str:
    """Bytes in the unit of 1000 that gives a readable number."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count:.0f} bytes"


def _how_sure(run: RunData, figures: Mapping[str, Any]) -> list[str]:
    said = []
    if run.config.task is None:
        said.append(
            "Retention is the separable estimate, computed from the profile without error; nothing was measured on a "
            "network, so there is no interval, and how far the estimate is off is not known here."
        )
    elif "interval" in figures:
        said.append(
            f"Retention was measured by forward passes on {_where(run)}; the interval says how far other samples of "
            f"the same kind may be from it, not other kinds of data."
        )
    said.append(
        f"This is one run with seed {run.config.seed}; another seed may end elsewhere: compare several "
        f"with evoquant compare."
    )
    return said


def _gate(rows: Sequence[GateRow], gate: Mapping[str, Any], counted: Counted | None) -> Safe:
    """The comparison in a sentence, and the recommendation."""
    count = {verdict: [r.name for r in rows if r.verdict == verdict] for verdict in ("ahead", "tie", "behind")}
    said = (
        f"The gate compared it with {sum(map(len, count.values()))} rivals on {gate['samples']:,} samples that nobody "
        f"has chosen by. It beats {len(count['ahead'])}"
    )
    if count["tie"]:
        said += f", cannot be told from {', '.join(count['tie'])}"
    if count["behind"]:
        said += f", IS BEATEN BY {', '.join(count['behind'])}"
    chosen = gate["recommended"]["name"]
    own = chosen == rows[0].name
    why = "" if own else ": on a tie the simpler is taken"
    if not own and chosen in count["behind"]:
        why = ": it does better"
    recommended = element(
        "p", "Recommended for deployment: ", element("strong", chosen), f"{why}.", class_="good" if own else "info"
    )
    return joined([element("p", f"{said}."), paragraphs(alike_notes(gate, counted), "warning"), recommended])
