"""Results read back from run directories, whatever they were started by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.api.result import Result, Temporary, allocation_of
from evoquant.campaign.apply import load_any_champion
from evoquant.campaign.build import require_allowed
from evoquant.campaign.config_measured import MemoryTaskConfig
from evoquant.campaign.finished import gated, resolved_config
from evoquant.campaign.storage import RunDir
from evoquant.campaign.storage_url import is_run, place_of
from evoquant.errors import InputError, quoted
from evoquant.report.data import load_run
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from evoquant.campaign.champion import Champion
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

AGAIN = "call evoquant.optimize again, with the same arguments and run_dir="


def load(path: str | Path, *, allow_code: Sequence[str] = ()) -> Result | Champion:
    """What a finished run has found: a `Result`, as `optimize` returns it; of a champion's file the `Champion`.

    A network that a config names is made anew when it is needed; one that was in the memory of a program has to be
    given to `apply`, and `optimize(..., run_dir=path)` exports it. To go on with an unfinished run: `evoquant.resume`.

    Args:
        path: a run directory, or a champion's JSON or YAML file.
        allow_code: what a run directory's config may import, `module:attribute` each.

    Raises:
        InputError: there is none, it is not finished or damaged, or code would have to be allowed.
    """
    place = place_of(path)
    if not is_run(place):
        return load_any_champion(place)
    config = resolved_config(RunDir.open(place, hold=False))
    require_allowed(config, allow_code, place)
    found = read_result(place, None, config.task)
    return replace(found, _allowed=tuple(allow_code))


def read_result(
    path: Path, task: MeasuredTask | None, source: TaskConfig | None, kept: Temporary | None = None
) -> Result:
    """The result of a finished run directory.

    Args:
        path: of the run.
        task: the network that it is about, where it is at hand.
        source: as the run's config names it; None for profiles.
        kept: what the directory lives in.

    Raises:
        InputError: it is not finished, or damaged.
    """
    run = load_run(path)
    if run.champion is None:
        raise InputError(f"{path}: the run is not finished; go on with evoquant.resume, or: evoquant resume {path}")
    found = gated(path)
    menu = run.config.resolved_menu
    if found is None:
        return Result(path, run.champion, run.champion, None, None, None, {}, (), None, None, menu, kept)
    recommended, profile, menu = found
    memory = source if isinstance(source, MemoryTaskConfig) else None
    samples = {name: int(figures["samples"]) for name, figures in run.champion.scores.items() if "samples" in figures}
    return Result(
        path,
        run.champion,
        recommended,
        run.gate,
        allocation_of(recommended, profile, menu),
        profile,
        samples if memory is None else memory.samples,
        () if memory is None else tuple(memory.drawn),
        task,
        source,
        menu,
        kept,
    )


def applied_to(
    model: Any,
    champion: Champion,
    profile: ModelProfile | None,
    menu: Menu,
    source: TaskConfig | None,
    task: MeasuredTask | None,
) -> torch.nn.Module:
    """See `Result.apply`.

    Raises:
        InputError: there is no module that could be applied to, or it has other layers.
    """
    if profile is None or source is None:
        raise InputError("apply: a search on profiles has no network of its own; .allocate(profile) gives its widths.")
    if source.kind == "onnx" or getattr(source, "runtime", None) == "onnx":
        raise InputError("apply: the model is an ONNX file; write the quantized one with .export('onnx', path).")
    from evoquant.models.own_rounding import require_same_rounding, rounder_named
    from evoquant.models.torch_memory import applied, layers_by_name
    from evoquant.models.torch_task import TorchTask

    problem = compile_problem(profile, menu)
    widths = problem.unfold(champion.genome.allocate(problem))
    if isinstance(task, TorchTask):
        return applied(task.network if model is None else model, task.found, widths, task.rounder)
    if model is None:
        raise InputError(f"apply: the network was in the memory of a program; give it: .apply(model), or {AGAIN}.")
    rounder = None
    if source.rounding is not None:
        if source.kind == "memory":
            raise InputError(f"apply: the rounding {quoted(source.rounding)} was in the memory of a program; {AGAIN}.")
        rounder = rounder_named(source.rounding)
        require_same_rounding(rounder, profile, "apply")
    return applied(model, layers_by_name(model, profile, widths), widths, rounder)
