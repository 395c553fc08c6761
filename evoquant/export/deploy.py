"""From a finished run to files that a stack loads: its recipe, and the recipe in the form of each consumer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evoquant.campaign.build_measured import make_task
from evoquant.campaign.gate_file import gated
from evoquant.campaign.storage import PROFILE, RunDir
from evoquant.errors import InputError
from evoquant.export.recipe import Recipe, build_recipe, write_recipe
from evoquant.files import write_atomic
from evoquant.models.deployable import Deployable, deployable
from evoquant.profiles.model import load_profile
from evoquant.report.data import load_run
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from evoquant.models.base import MeasuredTask

Write: TypeAlias = Callable[[Recipe, Deployable, Path], list[Path]]
"""Writes a recipe for one consumer to a path; the files that there are then, the main one first."""


def recipe_of(run_dir: Path, cache: Path, *, ungated: bool = False) -> tuple[Recipe, Deployable]:
    """The recipe of a finished campaign on a real network, as its gate lets it pass, and the network.

    Args:
        run_dir: of the campaign.
        cache: where trained example networks lie.
        ungated: take the champion whatever the gate says.

    Raises:
        InputError: the run is not finished, or was none on a real network; the network is another one now.
        RunDirError: there is no gate.json, and `ungated` is not given.
    """
    data = load_run(run_dir)
    if data.champion is None:
        raise InputError(f"{run_dir}: the run is not finished; continue with: evoquant resume {run_dir}")
    if data.config.task is None:
        raise InputError(
            f"{run_dir}: a search on profiles has no weights to quantize; export its heuristic (json, yaml, python, "
            f"rust) or a table (csv)."
        )
    profile = load_profile(run_dir / PROFILE)
    champion = gated(RunDir.open(run_dir, hold=False), data.champion, profile.name, ungated=ungated)
    problem = compile_problem(profile, data.config.resolved_menu)
    task = make_task(data.config.task, cache)
    check_network(task, str(profile.provenance.get("model", task.model_digest)), str(run_dir))
    widths = problem.unfold(champion.genome.allocate(problem))
    ready = deployable(task)
    recipe = build_recipe(profile, widths, ready.weight, task.model_digest, champion.scores, champion.provenance)
    return recipe, ready


def check_network(task: MeasuredTask, digest: str, source: str) -> None:
    """Whether a task's network is the one of that digest.

    Raises:
        InputError: it is another; the message begins with `source`.
    """
    if task.model_digest != digest:
        raise InputError(
            f"{source}: is about another network than task {task.name!r} is now (weights or architecture differ); "
            f"train or load the one that was searched."
        )


def _recipe(recipe: Recipe, _: Deployable, path: Path) -> list[Path]:
    return [path, write_recipe(recipe, path)]


def _onnx(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    from evoquant.export.as_onnx import onnx_model

    write_atomic(path, onnx_model(ready.graph(), recipe).SerializeToString(deterministic=True))
    return [path]


WRITERS: dict[str, Write] = {"recipe": _recipe, "onnx": _onnx}
"""Target → what writes it; names are those of `evoquant.profiles.targets.TARGETS`, and `recipe` itself."""
