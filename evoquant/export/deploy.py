"""From a champion to files that a stack loads: its recipe, and the recipe in the form of each consumer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evoquant.campaign.build_measured import make_task
from evoquant.campaign.finished import gated, resolved_config
from evoquant.campaign.storage import PROFILE, RunDir
from evoquant.errors import InputError, MissingExtraError, suggestion
from evoquant.export.recipe import SUFFIX, Recipe, build_recipe, read_recipe, write_recipe
from evoquant.models.deployable import Deployable, deployable
from evoquant.models.onnx_measurer import require_onnx
from evoquant.profiles.model import load_profile
from evoquant.profiles.targets import TARGETS, target_named
from evoquant.scoring.problem import compile_problem
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.export.lint import Finding
    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.statistics import Metric

Write: TypeAlias = Callable[[Recipe, Deployable, Path], list[Path]]
"""Writes a recipe for one consumer to a path; the files that there are then, the main one first."""


def recipe(
    path: str | Path, source: TaskConfig | None = None, *, ungated: bool = False, cache: str | Path | None = None
) -> tuple[Recipe, Deployable, Metric]:
    """A recipe with its numbers, the network that it is for, and what that is scored by.

    Args:
        path: a finished run directory on a real network, or a recipe's .json file.
        source: the network; needed for a recipe's file, a run directory names its own.
        ungated: of a run the champion, whatever its gate says.
        cache: folder for trained networks.

    Raises:
        InputError: there is no recipe in it, or the network is another one.
        RunDirError: the run has no gate.json, and `ungated` is not given.
    """
    place = Path(path)
    if place.is_dir():
        found = gated(place, ungated=ungated)
        if found is None:
            raise InputError(
                f"{path}: a search on profiles has no weights to quantize; export its heuristic (json, yaml, python, "
                f"rust) or a table (csv)."
            )
        config = resolved_config(RunDir.open(place, hold=False))
        assert config.task is not None
        own = cache_folder(config.cache if cache is None else str(cache), place)
        task = make_task(source or config.task, own)
        return *recipe_of(*found, task), task.metric
    given = read_recipe(place)
    if source is None:
        raise InputError(
            f"{path}: a recipe does not hold its network; name it: --task NAME, or --onnx MODEL --data FILE."
        )
    task = make_task(source, cache_folder(None if cache is None else str(cache), Path()))
    check_network(task, given.model_digest, str(path))
    return given, deployable(task), task.metric


def deploy(
    path: str | Path,
    target: str,
    out: str | Path,
    source: TaskConfig | None = None,
    *,
    ungated: bool = False,
    cache: str | Path | None = None,
) -> tuple[list[Path], list[Finding]]:
    """Write a run's or a recipe's allocation in the form that a stack loads: the files, and the linter's warnings.

    Args:
        path, source, ungated, cache: as for `recipe`.
        target: a key of `evoquant.export.deploy.WRITERS`.
        out: the main file.

    Raises:
        InputError: as for `recipe`; or the target cannot take the recipe as it is.
        MissingExtraError: the target's packages are not installed.
    """
    from evoquant.export.lint import lint, refuse

    write = writer_of(target)
    given, ready, _ = recipe(path, source, ungated=ungated, cache=cache)
    findings = [] if target == "recipe" else lint(given, target)
    refuse(findings, f"{path}: for {target}")
    return write(given, ready, Path(out)), findings


def verify(
    path: str | Path,
    target: str,
    source: TaskConfig | None = None,
    *,
    ungated: bool = False,
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Deploy a run's or a recipe's allocation, run it in a fresh process, and compare it with what was promised.

    Raises:
        InputError: as for `deploy`.
    """
    from evoquant.export.lint import lint, refuse
    from evoquant.export.verify import verify_recipe

    write = writer_of(target)
    given, ready, metric = recipe(path, source, ungated=ungated, cache=cache)
    refuse(lint(given, target), f"{path}: for {target}")
    return verify_recipe(given, ready, target, write, metric).to_dict()


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
    from evoquant.export.as_onnx import onnx_model, write_onnx

    return write_onnx(onnx_model(ready.graph(), recipe), path)


def _matmulnbits(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    from evoquant.export.as_matmulnbits import matmulnbits_model
    from evoquant.export.as_onnx import write_onnx

    return write_onnx(matmulnbits_model(ready.graph(), recipe), path)


def _openvino(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    require_onnx("an export to OpenVINO")
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("an export to OpenVINO", "openvino", "openvino") from None
    del openvino
    from evoquant.export.as_openvino import openvino_files

    return openvino_files(recipe, ready, path)


WRITERS: dict[str, Write] = {
    "recipe": _recipe,
    "onnx": _onnx,
    "onnx-matmulnbits": _matmulnbits,
    "openvino": _openvino,
}
"""Target → what writes it; names are those of `evoquant.profiles.targets.TARGETS`, and `recipe` itself."""


def writer_of(target: str) -> Write:
    """What writes recipes for a target.

    Raises:
        InputError: nothing does, or no such target.
    """
    if target in WRITERS:
        return WRITERS[target]
    if target in TARGETS:
        raise InputError(f"{target}: recipes can be checked for it (evoquant lint), but it has no exporter yet.")
    raise InputError(f"unknown export target {target!r}.{suggestion(target, (*WRITERS, *TARGETS))}")


def lint_file(path: str | Path, target: str, *, ungated: bool = False) -> list[Finding]:
    """What a target says of a recipe's file, or of a finished run on a real network.

    Raises:
        InputError: no such target, or there is no recipe in it.
    """
    from evoquant.export.lint import lint

    target_named(target)
    place = Path(path)
    if place.is_dir():
        return lint(recipe(place, ungated=ungated)[0], target, load_profile(place / PROFILE))
    return lint(read_recipe(place, tensors=place.with_suffix(SUFFIX).is_file()), target)
