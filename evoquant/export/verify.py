"""Verify a deployed model: written, loaded by its real consumer in a fresh process, compared with what was promised."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError
from evoquant.export.consumers import write_arrays
from evoquant.export.consumers.table import consumer_of, version_notes
from evoquant.export.recipe_schema import Figures
from evoquant.export.verification import (
    BYTES_SLACK,
    BYTES_TOLERANCE,
    OUTPUT_GOAL,
    Bytes,
    Kept,
    Latency,
    Outputs,
    Tokens,
    Verification,
)
from evoquant.export.verify_layers import Bench, Largest, layer_at_fault, only
from evoquant.models.base import REFERENCE, SCORE
from evoquant.rng import generator_for
from evoquant.scoring.chance import with_doubt
from evoquant.scoring.statistics import bootstrap_interval, paired_retention

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.export.consumers.launch import Answer, Consumer
    from evoquant.export.recipe import Recipe
    from evoquant.export.writers import Write
    from evoquant.models.base import Split
    from evoquant.models.deployable import Deployable
    from evoquant.scoring.statistics import Metric

SAMPLES, REPEATS = 2048, 15
PROMPT, TOKENS = 16, 32
"""Of a language model: tokens that are given, and that are generated."""

OUTPUT_BYTES = 2**30
"""Of all outputs of two models, which go through files."""

DEPLOYED, FULL = "deployed", "FP32"
_SCORED = ("deployed", "fp32", "simulated", "reference")


def verify_recipe(
    recipe: Recipe,
    ready: Deployable,
    target: str,
    write: Write,
    metric: Metric,
    *,
    split: Split = "test",
    samples: int = SAMPLES,
    repeats: int = REPEATS,
) -> Verification:
    """Write a recipe for a target, run it by the target's consumer in a fresh process, and compare.

    Args:
        recipe: with its numbers.
        ready: the network that it is for.
        target: a key of `evoquant.profiles.targets.TARGETS`.
        write: of `evoquant.export.writers.WRITERS`.
        metric: the task's.
        split: whose samples are run.
        samples: about how many: whole batches, at least one.
        repeats: timed passes; 0 for none.

    Raises:
        InputError: no such target, evoquant does not run its models, the recipe cannot be written for it, or there is
            no room.
        MissingExtraError: its packages are not installed.
    """
    consumer = consumer_of(target)
    spans = _spans(recipe, ready, split, samples, consumer.values)
    try:
        return _verified(recipe, ready, target, write, metric, split, spans, consumer, repeats)
    except OSError as error:  # a full disk, most likely
        raise InputError(f"verifying needs room in {tempfile.gettempdir()}: {error.strerror or error}.") from error


def _verified(
    recipe: Recipe,
    ready: Deployable,
    target: str,
    write: Write,
    metric: Metric,
    split: Split,
    spans: list[tuple[int, int]],
    consumer: Consumer,
    repeats: int,
) -> Verification:
    with tempfile.TemporaryDirectory(prefix="evoquant-verify-") as folder:
        names = tuple(ready.feeds(split, *spans[0]))
        inputs = Path(folder) / "inputs.npz"
        bench = Bench(recipe, ready, write, metric, consumer, split, spans, names, inputs, Path(folder))
        feeds = (ready.feeds(split, *span) for span in spans)
        write_arrays(inputs, ([feed[name] for name in names] for feed in feeds))
        files = {
            DEPLOYED: bench.written(recipe, "deployed"),
            FULL: bench.written(only(recipe, ready, set()), "fp32"),
        }
        models = {name: found[0] for name, found in files.items()}
        tokens = tuple(ready.generated(split, PROMPT, TOKENS, bench.widths))
        generate = (PROMPT, TOKENS) if tokens else None
        answer = bench.run(models, "run", len(spans), repeats if consumer.timed else 0, generate)
        return _judged(bench, target, files, answer, tokens)


def _judged(
    bench: Bench, target: str, files: Mapping[str, list[Path]], answer: Answer, measured: tuple[int, ...]
) -> Verification:
    """What the consumer's answer amounts to; `measured` are the tokens that the network as it is measured generates."""
    recipe, consumer = bench.recipe, bench.consumer
    on_disk = {name: sum(path.stat().st_size for path in found) for name, found in files.items()}
    promised = recipe.promise.bytes
    due = None if consumer.due is None else consumer.due(recipe, files[DEPLOYED][0])
    wanted = promised if due is None else due
    most = max(wanted * (1 + BYTES_TOLERANCE), wanted + BYTES_SLACK)
    size = Bytes(promised, most, due, None, on_disk[DEPLOYED], on_disk[FULL])
    scores = recipe.promise.scores.get(bench.split, Figures())
    kept = Kept(scores.retention, scores.interval, scores.samples)
    found = Verification(
        model=recipe.model,
        target=target,
        consumer=consumer.name,
        version=answer.version,
        loaded=not answer.fault,
        split=bench.split,
        batch=bench.spans[0][1] - bench.spans[0][0],
        promised_bits=recipe.promise.effective_bits,
        actual_bits=None,
        bytes=size,
        outputs=Outputs(),
        retention=kept,
        latency=None,
        tokens=None,
        rounding=None,
        rounds=consumer.rounds,
        defaults="",
        notes=version_notes(target),
        faults=(answer.fault,) if answer.fault else (),
    )
    if answer.fault or answer.facts is None or answer.seconds is None:
        return found
    stored, full = (consumer.stored(files[name][0]) for name in (DEPLOYED, FULL))
    weights = sum(layer.parameters for layer in recipe.layers)
    own = max(0, full - (32 * weights + recipe.constant_bits) // 8)  # what the graph holds at any width, such as masks
    size = replace(size, most=size.most + own)
    rounding = consumer.rounding(answer.facts[DEPLOYED], answer.facts[FULL])
    outputs, kept, faults = _compared(bench, kept, on_disk[FULL])
    faults = [*_size_faults(size, stored), *_rounding_faults(consumer, rounding), *faults]
    defaults = consumer.defaults(answer.facts[DEPLOYED])
    notes = [*found.notes, *_size_notes(size, stored)]
    if consumer.rounds:
        notes.append(
            f"{consumer.rounds}: outputs may differ by {consumer.outputs:.0%} of their range and retention by "
            f"{100 * consumer.retention:g} points."
        )
    if own > BYTES_SLACK:
        notes.append(
            f"{own} bytes are constants that the graph holds at any width, such as masks; no recipe counts them."
        )
    if defaults:
        notes.append(f"{consumer.name}'s defaults on this machine would round activations: {defaults}.")
    if rounding is None:
        notes.append(f"{consumer.name} cannot save the optimized graph, so whether it rounds activations is not known.")
    return replace(
        found,
        actual_bits=(8 * (stored - own) - recipe.constant_bits) / weights,
        bytes=replace(size, stored=stored),
        outputs=outputs,
        retention=kept,
        latency=_latency(answer.seconds) if answer.seconds else None,
        tokens=Tokens(PROMPT, tuple(answer.facts[DEPLOYED]["tokens"]), measured) if measured else None,
        rounding=rounding,
        defaults=defaults,
        notes=tuple(notes),
        faults=tuple(faults),
    )


def _rounding_faults(consumer: Consumer, rounding: tuple[str, ...] | None) -> list[str]:
    if not rounding or consumer.rounds:
        return []
    shown = ", ".join(rounding[:3]) + (f" and {len(rounding) - 3} more" if len(rounding) > 3 else "")
    return [f"{consumer.name} rounds activations, which the recipe leaves in floating point: {shown}."]


def _size_faults(size: Bytes, stored: int) -> list[str]:
    if stored <= size.most:
        return []
    wanted = f"{size.promised:.0f} were promised" if size.due is None else f"{size.due:.0f} are due in this form"
    return [f"{stored} bytes of tensors are stored, {wanted} (tolerance {BYTES_TOLERANCE:.0%})."]


def _size_notes(size: Bytes, stored: int) -> list[str]:
    """Fewer bytes than promised break no promise; they are said all the same."""
    if size.due is not None and size.due > size.promised:
        return [f"stored are {stored} bytes and not the promised {size.promised:.0f}: this form holds no fewer."]
    missing = size.promised - stored
    if missing <= max(size.promised * BYTES_TOLERANCE, BYTES_SLACK):
        return []
    return [f"{missing:.0f} bytes fewer than promised are stored: of weights that the graph does not use."]


def _compared(bench: Bench, kept: Kept, model_bytes: int) -> tuple[Outputs, Kept, list[str]]:
    """Outputs and retention against the network as it is measured, and what does not hold."""
    apart = {name: Largest(bench.consumer.outputs) for name in (DEPLOYED, FULL)}
    scores: dict[str, list[NDArray[np.generic]]] = {name: [] for name in _SCORED}
    ready = bench.ready
    full = (REFERENCE,) * len(bench.widths)
    unscored = ""
    with (
        np.load(bench.folder / "run" / f"{DEPLOYED}.npz", allow_pickle=False) as deployed,
        np.load(bench.folder / "run" / f"{FULL}.npz", allow_pickle=False) as fp32,
    ):
        for index, (start, stop) in enumerate(bench.spans):
            ours, theirs = ([file[f"{index}.{i}"] for i in range(len(ready.names))] for file in (deployed, fp32))
            simulated = bench.measured((start, stop), bench.widths)
            reference = bench.measured((start, stop), full)
            apart[DEPLOYED].add(ours, simulated)
            apart[FULL].add(theirs, reference)
            try:
                parts = _scores(bench, (start, stop), ours, theirs, simulated, reference)
                for name, part in zip(_SCORED, parts, strict=True):
                    scores[name].append(part)
            except InputError as error:
                unscored = unscored or str(error)
    outputs, faults = _output_faults(bench, apart, model_bytes)
    if unscored:
        return outputs, kept, [*faults, unscored]
    found = {name: np.concatenate(parts) for name, parts in scores.items()}
    kept = _retentions(bench.metric, found, kept, bench.consumer.retention)
    return outputs, kept, [*faults, *_retention_faults(kept)]


def _scores(
    bench: Bench, span: tuple[int, int], *outputs: Sequence[NDArray[np.generic]]
) -> Iterator[NDArray[np.generic]]:
    """Scores of one batch, in the order of `_SCORED`: each network against the FP32 one of its own runtime.

    Raises:
        InputError: outputs that are not finite, or of another shape than measured.
    """
    scored = bench.ready.scored
    _, fp32, _, reference = (one[scored] for one in outputs)
    for one, against in zip(outputs, (fp32, fp32, reference, reference), strict=True):
        if one[scored].shape != reference.shape:
            name = bench.ready.names[scored]
            raise InputError(f"output {name!r} has shape {one[scored].shape}, measured it has {reference.shape}.")
        yield bench.ready.outcome(bench.split, *span, list(one), against)[:, SCORE]


def _output_faults(bench: Bench, apart: Mapping[str, Largest], model_bytes: int) -> tuple[Outputs, list[str]]:
    ours, full = apart[DEPLOYED], apart[FULL]
    found = Outputs(ours.relative, full.relative, ours.tolerance, ours.relative <= OUTPUT_GOAL)
    faults = []
    if full.relative > full.tolerance:
        faults.append(f"the FP32 model's outputs {_said(full)}, so the graph is not the network that was measured.")
    if ours.relative > ours.tolerance:
        text = f"outputs {_said(ours)}"
        worst = None if faults else layer_at_fault(bench, model_bytes)
        if worst is not None and worst[1] > ours.tolerance:
            width = next(layer.precision for layer in bench.recipe.layers if layer.name == worst[0])
            text += f"; alone, layer {worst[0]!r} at {width} makes {worst[1]:.1e}"
            found = replace(found, layer=worst[0])
        elif worst is not None:
            text += "; no layer alone does"
        faults.append(f"{text}.")
    return found, faults


def _said(apart: Largest) -> str:
    if math.isinf(apart.relative):
        return "have another shape than the measured network's, or other values that are not finite"
    return (
        f"differ from the measured network's by {apart.relative:.1e} of their range (tolerance {apart.tolerance:.0e})"
    )


def _retentions(metric: Metric, scores: Mapping[str, NDArray[np.generic]], kept: Kept, tolerated: float) -> Kept:
    actual = paired_retention(scores["deployed"], scores["fp32"], metric)
    simulated = paired_retention(scores["simulated"], scores["reference"], metric)
    kept = replace(
        kept,
        simulated=_known(simulated.value),
        actual=_known(actual.value),
        samples=actual.samples,
        tolerance=_tolerance(scores["reference"], tolerated),
    )
    if kept.actual is None:
        return kept
    rng = generator_for(0, 0, "bootstrap verify")
    pair = with_doubt(scores["deployed"], scores["fp32"])
    return replace(kept, actual_interval=bootstrap_interval(*pair, rng, metric=metric))


def _tolerance(reference: NDArray[np.generic], tolerated: float) -> float:
    """Of retention: where a sample counts as 0 or 1, one sample's share of the FP32 network's and a half."""
    total = float(reference.sum())
    ones = total > 0 and bool(np.isin(reference, (0, 1)).all())
    return max(tolerated, 1.5 / total if ones else 0.0)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _retention_faults(kept: Kept) -> list[str]:
    actual, simulated = kept.actual, kept.simulated
    if actual == simulated:
        return []
    if actual is not None and simulated is not None and abs(actual - simulated) <= kept.tolerance:
        return []
    ours, theirs = ("none" if one is None else f"{one:.4f}" for one in (actual, simulated))
    return [
        f"retention on the same {kept.samples} samples is {ours} deployed and {theirs} as measured (tolerance "
        f"{kept.tolerance:.2g})."
    ]


def _latency(seconds: Mapping[str, Sequence[float]]) -> Latency:
    deployed, fp32 = np.array(seconds[DEPLOYED]), np.array(seconds[FULL])
    return Latency(_quartiles(deployed * 1e3), _quartiles(fp32 * 1e3), _quartiles(deployed / fp32), len(deployed))


def _quartiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, middle, high


def _spans(recipe: Recipe, ready: Deployable, split: Split, samples: int, values: int | None) -> list[tuple[int, int]]:
    """Batches of at most so many samples, one at least, whose outputs of two models fit `OUTPUT_BYTES`.

    All of a split that is not larger; of a larger one whole batches. Where outputs are fetched number by number, no
    more than `values` of them, in one batch.
    """
    count = ready.count(split)
    if not count:
        raise InputError("the split has no samples to verify on.")
    size = min(ready.batch, count)
    first = ready.outputs(split, 0, size, (REFERENCE,) * len(recipe.layers))
    most = max(1, OUTPUT_BYTES // max(1, 2 * sum(one.nbytes for one in first)))
    if values is not None:
        size = samples = min(size, samples, max(1, values * size // sum(one.size for one in first)))
    total = count if count <= samples else max(1, samples // size) * size
    spans = [(start, min(start + size, total)) for start in range(0, total, size)]
    return spans[:most]
