"""From a champion to files that a stack loads: its recipe, and the recipe in the form of each consumer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evoquant.errors import InputError
from evoquant.export.recipe import Recipe, build_recipe, write_recipe
from evoquant.files import write_atomic
from evoquant.models.deployable import Deployable, deployable
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

Write: TypeAlias = Callable[[Recipe, Deployable, Path], list[Path]]
"""Writes a recipe for one consumer to a path; the files that there are then, the main one first."""


def recipe_of(champion: Champion, profile: ModelProfile, menu: Menu, task: MeasuredTask) -> tuple[Recipe, Deployable]:
    """The recipe of a champion, applied to the network that it was searched for; and that network, ready to export.

    Args:
        champion: as the gate lets it pass.
        profile: of the network.
        menu: the campaign's precisions.
        task: the network.

    Raises:
        InputError: the network is another one now.
    """
    problem = compile_problem(profile, menu)
    check_network(task, str(profile.provenance.get("model", task.model_digest)), profile.name)
    widths = problem.unfold(champion.genome.allocate(problem))
    ready = deployable(task)
    return build_recipe(profile, widths, ready.weight, task.model_digest, champion.scores, champion.provenance), ready


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
