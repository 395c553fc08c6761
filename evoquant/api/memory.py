"""`evoquant.optimize`: a campaign on a model that a Python program holds, or on an ONNX file and data in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.api import campaigns
from evoquant.api.given import Given, given_model, measurable, name_of, sendable
from evoquant.api.loaded import read_result
from evoquant.api.parts import Parts, parts_of, rounder_of
from evoquant.api.result import Result, Temporary
from evoquant.api.same_call import require_same_call
from evoquant.campaign.config import CampaignConfig, config_from_dict
from evoquant.campaign.config_measured import MemoryTaskConfig
from evoquant.campaign.in_memory import lent, lent_executor
from evoquant.campaign.storage import RESOLVED
from evoquant.campaign.storage_url import Url, place_of
from evoquant.errors import CampaignError, InputError, Interrupted, quoted, shown_value, suggestion
from evoquant.files import is_file, pretty_json
from evoquant.models.base import REFERENCE, Failed, Request
from evoquant.models.code import code_digest, compiled_text
from evoquant.models.measurer import start_measurer
from evoquant.models.memory_data import data_digest, samples_digest, split_samples
from evoquant.models.own_rounding import rounded_by
from evoquant.models.torch_data import samples_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx
    import torch

    from evoquant.api.campaigns import Part
    from evoquant.campaign.observer import Observer
    from evoquant.execution.protocol import Executor
    from evoquant.genomes.base import Space
    from evoquant.models.base import MeasuredTask
    from evoquant.quantization.protocol import Rounding
    from evoquant.quantization.rounding import Rounder
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.protocol import CostMaker
    from evoquant.search.base import Search

__all__ = ["Result", "optimize"]

SOURCE = "evoquant.optimize"
SEARCHES: dict[str, dict[str, Any]] = {
    "direct": {"kind": "surrogate"},
    "rule": {"kind": "surrogate"},
    "tree": {"kind": "genetic", "population": 20},
}
GENERATIONS = 1000
EXECUTORS = ("local", "ray", "auto")


def optimize(
    model: torch.nn.Module | onnx.ModelProto | str | Path | bytes,
    calibration: Any,
    *,
    selection: Any = None,
    test: Any = None,
    metric: str | Callable[..., Any] | None = None,
    floor: float = 0.95,
    budget: float = 80,
    seed: int = 0,
    objective: Part[Objective] = None,
    menu: Sequence[str] | None = None,
    deploy_to: Sequence[str] = (),
    genome: str = "direct",
    start_from: Result | str | Path | None = None,
    run_dir: str | Path | None = None,
    name: str | None = None,
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] | None = None,
    block: int = 512,
    batch: int = 128,
    quantized_cache: str | int | None = None,
    executor: Executor | Callable[..., Executor] | str = "local",
    workers: int | None = None,
    cache: str | Path | None = None,
    observer: Observer | None = None,
    rounding: Rounding | str | None = None,
    search: Part[Search] = None,
    space: Part[Space] = None,
    cost: Part[CostMaker] = None,
    costs: Mapping[str, Part[CostMaker]] | None = None,
    at_most: Mapping[str, str | float] | str | Sequence[str] | None = None,
    minimise: str | None = None,
) -> Result:
    """Find a width for every layer of a model: the smallest that keeps `floor` of its metric.

    The same call gives the same journal, byte for byte. The model is copied and stays as it is.

    Args:
        model: a torch module; or an ONNX file's path or bytes, or an object of the onnx package.
        calibration: `(inputs, targets)`, inputs alone, a dict of inputs by name (with `targets`, where there are any),
            or an iterable of batches of these, such as a DataLoader. Several inputs are a tuple or a dict.
        selection, test: likewise; by default drawn from `calibration` (30% and 20%), which the result says. Half of
            `selection` chooses the champion, the other half is for the gate; `test` is reported once.
        metric: accuracy, r2, perplexity, agreement or cosine (with the FP32 outputs, without targets); or a function
            (outputs, targets) → one score a sample, perhaps with attributes `lower_is_better` and `retention`. By
            default the targets decide: whole numbers are classes, others values, none the FP32 outputs.
        floor: the share of the FP32 metric to keep, between 0 and 1.
        budget, seed: passes over the calibration split, signals included; of splits and search.
        objective, search, space, cost: instead of the floor, the search, `genome`, and bits: as in a config,
            `{"kind": "budget", "megabytes": 2}`, or objects and classes, as `evoquant.run` takes them.
        menu, deploy_to: precisions, by default INT2, INT4 and INT8 per channel, FP16 and FP32; what all targets take.
        genome: `direct` (a width for each layer), or `rule` or `tree` (a heuristic).
        start_from: an earlier result, or its run directory, of a model of the same layers: the search begins there.
        run_dir: where the run is written; a finished one is returned, an interrupted one goes on. None: temporary.
        name: of the run and the model in reports; by default the module's class, or the file's name.
        tie_groups, types: group → layers that share a width; layer → type, over what is found.
        block, batch, quantized_cache: samples measured together, and a forward pass; quantized weights kept ("256MB").
        executor, workers: `local`; `ray`, whose workers import the model's classes; `auto`; or your own. Results stay.
        cache, observer: a folder to keep outcomes in; who hears of every generation.
        rounding: weights to codes, a function or its name; see `evoquant.quantization.protocol`.
        costs, at_most, minimise: further costs by name, each as `cost`; the most of each, or of `bytes`, such as
            `{"bytes": "20MB", "latency": "3ms"}` or `"20MB"`; what is least then, by default `cost`, else bits.

    Raises:
        InputError: an argument is wrong, or `run_dir` holds a run of another call; the message names which.
        MissingExtraError: PyTorch, or onnxruntime for an ONNX file, is not installed.
        Interrupted, CampaignError: by the user, the same call with the same `run_dir` goes on; the campaign failed.
    """
    sizes, kept = {"seed": seed, "block": block, "batch": batch}, {"quantized_cache": quantized_cache}
    _check(floor, budget, genome, executor, **sizes, workers=workers)
    parts = _parts(floor, at_most, minimise, costs, objective=objective, genome=space, search=search, cost=cost)
    with lent_executor(executor), parts.lent(), measurable(model):
        rounder = None if rounding is None else rounder_of(rounding)
        named: dict[str, Any] = {"name": name_of(model, name), "tie_groups": tie_groups, "types": types, **sizes}
        given = given_model(model, *split_samples(calibration, selection, test, seed), metric, **named)
        data = {"name": named["name"], "seed": seed, "task": _task_data(given, metric, sizes | kept, rounder)}
        data |= {**_searched(genome, parts), **_settings(budget, executor, workers, menu, deploy_to)}
        task = _sent(rounded_by(given.task, rounder), metric, executor)
        return _run(_config(data, task, start_from), task, run_dir, cache, observer)


def _sent(task: MeasuredTask, metric: Any, executor: Any) -> MeasuredTask:
    """The task in a form that another process can have, where one will."""
    return sendable(task, metric) if executor != "local" else task


def _parts(
    floor: float,
    at_most: Mapping[str, str | float] | str | Sequence[str] | None,
    minimise: str | None,
    costs: Mapping[str, Part[CostMaker]] | None,
    **given: Any,
) -> Parts:
    """What the campaign is made of; the floor, and limits beside it, are an objective.

    Raises:
        InputError: an objective and limits.
    """
    if given["objective"] is None:
        given["objective"] = {"kind": "feasible_first", "floor": floor}
        if at_most or minimise:
            asked = at_most if isinstance(at_most, Mapping) else _amounts(at_most or ())
            limits = {"at_most": dict(asked), "minimise": minimise}
            given["objective"] = {"kind": "limits", "retention": floor, **limits}
    elif at_most or minimise:
        raise InputError("objective: at_most and minimise make one, with the floor; leave it out, or them.")
    return parts_of(**given, **{f"costs.{name}": cost for name, cost in (costs or {}).items()})


def _amounts(texts: str | Sequence[str]) -> dict[str, str]:
    """Name of a cost → amount, of texts such as `20MB` and `latency=3ms`."""
    from evoquant.campaign.pick import asked_amounts

    return {name: amount.text for name, amount in asked_amounts(texts).items()}


def _searched(genome: str, parts: Parts) -> dict[str, Any]:
    """Over which genomes, and how."""
    search = SEARCHES["tree" if "genome" in parts.entries else genome]  # that knows nothing of its genomes
    return {"genome": {"kind": genome}, "search": dict(search), **parts.entries}


def _settings(
    budget: float, executor: Any, workers: int | None, menu: Sequence[str] | None, deploy_to: Sequence[str]
) -> dict[str, Any]:
    """What is said in the config as it is given."""
    kind = executor if isinstance(executor, str) else "local"  # what goes on where the object is not
    plain: dict[str, Any] = {"stop": {"passes": float(budget), "generations": GENERATIONS}}
    plain |= {"executor": {"kind": kind, "workers": workers}, "deploy_to": list(deploy_to)}
    return plain if menu is None else {**plain, "menu": [menu] if isinstance(menu, str) else list(menu)}


def _config(data: dict[str, Any], task: MeasuredTask, start_from: Result | str | Path | None) -> CampaignConfig:
    """The config of a run; with an earlier result its search begins with that one's allocations."""
    config = config_from_dict(data, SOURCE)
    if start_from is None:
        return config
    from evoquant.api.warm_start import start_genomes

    if {"genome", "search"} & set(config.own_parts()):
        raise InputError("start_from: begins a built-in search of built-in genomes; leave search= and space= out.")
    earlier = start_from.path if isinstance(start_from, Result) else place_of(start_from)
    data["search"]["start"] = start_genomes(earlier, task, config.resolved_menu, config.genome.kind)
    return config_from_dict(data, SOURCE)


def _run(
    config: CampaignConfig,
    task: MeasuredTask,
    run_dir: str | Path | None,
    cache: str | Path | None,
    observer: Observer | None,
) -> Result:
    """Begin, go on, or read what is finished."""
    source = config.task
    assert isinstance(source, MemoryTaskConfig)
    kept = Temporary() if run_dir is None else None
    place = kept.path / f"{config.name}-{config.seed}" if kept is not None else place_of(run_dir or "")
    outcomes = Path(cache) if cache is not None else None if isinstance(place, Url) else place / "cache"
    text = (
        "# Written by evoquant.optimize: network and data are in the memory of a Python program; the same call with\n"
        "# run_dir= goes on. JSON is YAML.\n" + pretty_json(config.to_dict())
    )
    with lent(source, task):
        try:
            if is_file(place / RESOLVED):
                require_same_call(place, config)
                where = config.executor
                campaigns.resume(
                    place,
                    executor=where.kind,
                    workers=where.workers,
                    allow_code=config.code(),
                    cache=outcomes,
                    observer=observer,
                )
            else:
                campaigns.begin(config, text, place, SOURCE, cache=outcomes, observer=observer)
        except CampaignError:
            _check_reference(task)
            raise
        except InputError as error:
            told, passes, rest = str(error).partition("stop.passes: ")
            if not passes:
                raise
            raise InputError(f"{told}budget: {rest.partition('; raise')[0]}; raise it.") from None
        except Interrupted as error:
            done = str(error).partition(";")[0]
            how = (
                "give run_dir= to be able to go on"
                if run_dir is None
                else f"the same call with run_dir={place} goes on"
            )
            raise Interrupted(f"{done}; {how}") from None
        return replace(read_result(place, task, source, kept), _allowed=tuple(config.code()))


def _check_reference(task: MeasuredTask) -> None:
    """Say so where a campaign failed because the FP32 model itself cannot be measured.

    Raises:
        InputError: its outputs are not finite.
    """
    blocks = task.blocks("calibration")
    requests = [Request((REFERENCE,) * len(task.layers), "calibration", block.index) for block in blocks]
    if any(isinstance(outcome, Failed) for outcome in start_measurer(task.payload())(requests)):
        raise InputError("model: the FP32 outputs on the calibration data are not finite; mend the model or the data.")


def _check(floor: Any, budget: Any, genome: Any, executor: Any, **counts: Any) -> None:
    """The plain arguments.

    Raises:
        InputError: one is wrong.
    """
    if not _is_number(floor) or not 0 < floor < 1:
        hint = f"; for {floor}% write {floor / 100:g}" if _is_number(floor) and 1 < floor <= 100 else ""
        raise InputError(
            f"floor: is {shown_value(floor)}; it is the share of the FP32 metric to keep, between 0 and 1{hint}."
        )
    if not _is_number(budget) or budget <= 0:
        raise InputError(f"budget: is {shown_value(budget)}; it is passes over the calibration data, such as 80.")
    for name, value in counts.items():
        least = 0 if name == "seed" else 1
        if name == "workers" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 2**32:
            raise InputError(f"{name}: is {shown_value(value)}; it is a whole number of at least {least}.")
    if genome not in SEARCHES:
        raise InputError(f"genome: unknown kind {quoted(genome)}.{suggestion(str(genome), SEARCHES)}")
    if executor is None or (isinstance(executor, str) and executor not in EXECUTORS and ":" not in executor):
        raise InputError(
            f"executor: is {shown_value(executor)}; it is {', '.join(EXECUTORS)}, module:Class, or an object."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _task_data(given: Given, metric: Any, sizes: Mapping[str, Any], rounder: Rounder | None) -> dict[str, Any]:
    """The task as the run's config names it."""
    code = None
    if callable(metric):
        seen = f"{code_digest([metric])} {compiled_text(metric)}"
        code = hashlib.sha256(seen.encode()).hexdigest()
    return {
        "kind": "memory",
        "runtime": given.runtime,
        "model": given.task.model_digest,
        "data": data_digest(given.splits),
        "whole": samples_digest(given.splits, given.drawn),
        "metric": given.task.metric.name,
        "code": code,
        "samples": {split: samples_of(arrays) for split, arrays in given.splits.items()},
        "drawn": list(given.drawn),
        "rounding": None if rounder is None else rounder.name,
        "rounding_code": None if rounder is None else rounder.digest,
        **sizes,
    }
