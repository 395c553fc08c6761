"""From a champion to files that a stack loads: its recipe, and the recipe in the form of each consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.build import allow_genomes, require_allowed
from evoquant.campaign.build_measured import bare_profile, make_task, opened_network
from evoquant.campaign.champion import is_champion, load_champion
from evoquant.campaign.config_measured import OnnxTaskConfig
from evoquant.campaign.finished import gated, resolved_config
from evoquant.campaign.signals import signals_read
from evoquant.campaign.storage import PROFILE, RunDir
from evoquant.campaign.storage_url import is_run, place_of
from evoquant.errors import InputError, quoted
from evoquant.export.consumers.table import CONSUMERS, consumer_of, version_notes
from evoquant.export.lint import Finding, against_profile, lint, refuse
from evoquant.export.recipe import SUFFIX, Recipe, build_recipe, read_recipe
from evoquant.export.writers import with_base, writer_of
from evoquant.files import is_file
from evoquant.models.deployable import Deployable, deployable
from evoquant.models.own_rounding import quantizer_of, require_same_rounding, rounded_by, rounder_named
from evoquant.profiles.model import load_profile
from evoquant.profiles.targets import target_named
from evoquant.quantization.precision import Menu
from evoquant.scoring.problem import compile_problem
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile
    from evoquant.scoring.statistics import Metric


def recipe(
    path: str | Path,
    source: TaskConfig | None = None,
    *,
    ungated: bool = False,
    cache: str | Path | None = None,
    allow_code: Sequence[str] = (),
) -> tuple[Recipe, Deployable, Metric]:
    """A recipe with its numbers, the network that it is for, and what that is scored by.

    Args:
        path: a finished run directory on a real network, or the .json file of a recipe or a champion, such as `pick`
            writes. No gate has seen the latter, and the recipe's provenance says so.
        source: the network; needed for a file, a run directory names its own.
        ungated: of a run the champion, whatever its gate says.
        cache: folder for trained networks.
        allow_code: what the config of a run directory may import.

    Raises:
        InputError: there is no recipe in it, the network is another one, or code would have to be allowed.
        RunDirError: the run has no gate.json, and `ungated` is not given.
    """
    place = place_of(path)
    if is_run(place):
        config = resolved_config(RunDir.open(place, hold=False))
        require_allowed(config, allow_code, place)
        found = gated(place, ungated=ungated)
        if found is None:
            raise InputError(
                f"{path}: a search on profiles has no weights to quantize; export its heuristic (json, yaml, python, "
                f"rust) or a table (csv)."
            )
        assert config.task is not None
        if source is not None:
            raise InputError(f"{path}: a run directory names its own network; leave the options for one out.")
        task = make_task(config.task, cache_folder(config.cache if cache is None else str(cache), place))
        return *recipe_of(*found, task, config.task), task.metric
    chosen = is_champion(place)
    if source is None:
        raise InputError(
            f"{path}: a {'champion' if chosen else 'recipe'} does not hold its network; name it: --task NAME, or "
            f"--onnx MODEL --data FILE."
        )
    if chosen:
        return _of_champion(place, source, cache, allow_code)
    given = read_recipe(place)
    task = make_task(source, cache_folder(None if cache is None else str(cache), Path()))
    task = _rounded(task, given, allow_code, str(path))
    check_network(task, given.model_digest, str(path), given.provenance.get("task"))
    profile = bare_profile(task, Menu.parse({layer.precision for layer in given.layers}))
    refuse(list(against_profile(given, profile)), str(path))
    if given.constant_bits != profile.constant_bits:
        raise InputError(
            f"{path}: counts {given.constant_bits} bits that no width applies to, {task.name!r} has "
            f"{profile.constant_bits}; export the recipe anew."
        )
    return given, deployable(task), task.metric


def _of_champion(
    path: Path, source: TaskConfig, cache: str | Path | None, allow_code: Sequence[str]
) -> tuple[Recipe, Deployable, Metric]:
    """The recipe of a champion's file on a network, of which the signals that it reads are measured.

    Raises:
        InputError: the file says no menu, or was searched on another network, or with somebody's own rounding.
    """
    allow_genomes(allow_code)
    champion = load_champion(path)
    names = champion.provenance.get("menu")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: provenance.menu: should list the precisions that it was chosen from.")
    menu, folder = Menu.parse(names), cache_folder(None if cache is None else str(cache), Path())
    task = make_task(source, folder)
    read = champion.provenance.get("inputs")
    inputs = read if isinstance(read, dict) else {}
    check_network(task, str(inputs.get(f"task {task.name}")), str(path))
    if "rounding" in inputs:
        raise InputError(
            f"{path}: was searched with somebody's own rounding ({inputs['rounding']}), which a champion's file does "
            f"not hold; export its run directory."
        )
    with opened_network(source, menu, signals_read(champion.genome), folder, task) as opened:
        profile = opened.profile
    ungated = replace(champion, provenance={**champion.provenance, "ungated": True})
    return *recipe_of(ungated, profile, menu, task, source), task.metric


def deploy(
    path: str | Path,
    target: str,
    out: str | Path,
    source: TaskConfig | None = None,
    *,
    ungated: bool = False,
    cache: str | Path | None = None,
    allow_code: Sequence[str] = (),
    base: str | Path | None = None,
) -> tuple[list[Path], list[Finding]]:
    """Write a run's or a recipe's allocation in the form that a stack loads: the files, and the linter's warnings.

    Args:
        path, source, ungated, cache, allow_code: as for `recipe`.
        target: a key of `evoquant.export.writers.WRITERS`.
        out: the main file, or the folder.
        base: for gguf, the same model's file as llama.cpp's converter makes it: vocabulary and settings are taken
            from it.

    Raises:
        InputError: as for `recipe`; or the target cannot take the recipe as it is.
        MissingExtraError: the target's packages are not installed.
    """
    write = writer_of(target) if base is None else with_base(target, Path(base))
    _spare(place_of(path), source, base, target, Path(out))
    given, ready, _ = recipe(path, source, ungated=ungated, cache=cache, allow_code=allow_code)
    findings = [] if target == "recipe" else lint(given, target)
    refuse(findings, f"{path}: for {target}")
    files = write(given, ready, Path(out))
    if target in CONSUMERS:
        findings += [Finding(None, "warning", note) for note in version_notes(target)]
    return files, findings


def verify(
    path: str | Path,
    target: str,
    source: TaskConfig | None = None,
    *,
    ungated: bool = False,
    cache: str | Path | None = None,
    allow_code: Sequence[str] = (),
    base: str | Path | None = None,
) -> dict[str, Any]:
    """Deploy a run's or a recipe's allocation, run it in a fresh process, and compare it with what was promised.

    Arguments are those of `deploy`.

    Raises:
        InputError: as for `deploy`.
    """
    from evoquant.export.verify import verify_recipe

    if ":" in target:
        raise InputError(f"{target}: evoquant does not know what runs what it writes, so it cannot verify it.")
    consumer_of(target)
    write = writer_of(target) if base is None else with_base(target, Path(base))
    given, ready, metric = recipe(path, source, ungated=ungated, cache=cache, allow_code=allow_code)
    refuse(lint(given, target), f"{path}: for {target}")
    return verify_recipe(given, ready, target, write, metric).to_dict()


def recipe_of(
    champion: Champion, profile: ModelProfile, menu: Menu, task: MeasuredTask, source: TaskConfig
) -> tuple[Recipe, Deployable]:
    """The recipe of a champion, applied to the network that it was searched for; and that network, ready to export.

    Args:
        champion: as the gate lets it pass.
        profile: of the network.
        menu: the campaign's precisions.
        task: the network.
        source: where it comes from, for the recipe's provenance.

    Raises:
        InputError: the network is another one now.
    """
    problem = compile_problem(profile, menu)
    check_network(task, str(profile.provenance.get("model", task.model_digest)), profile.name)
    widths = problem.unfold(champion.genome.allocate(problem))
    ready = deployable(task)
    provenance = {**champion.provenance, "task": source.model_dump(mode="json", exclude_none=True)}
    rounder = getattr(task, "rounder", None)
    require_same_rounding(rounder, profile, profile.name)
    made = build_recipe(profile, widths, ready.weight, task.model_digest, champion.scores, provenance, rounder)
    return made, ready


def _rounded(task: MeasuredTask, given: Recipe, allow_code: Sequence[str], source: str) -> MeasuredTask:
    """The task with its weights rounded as a recipe's were.

    Raises:
        InputError: by code that the user has not named, or that is another by now.
    """
    if given.rounding is None:
        return rounded_by(task, None)
    if ":" not in given.rounding:
        raise InputError(
            f"{source}: its codes are by {quoted(given.rounding)}, which was in the memory of a Python program; export "
            f"and verify there: the same call of evoquant.optimize, with run_dir=."
        )
    if given.rounding not in allow_code:
        raise InputError(
            f"{source}: its codes are by somebody's own rounding ({given.rounding}); to run it, repeat it: "
            f"--allow-code {given.rounding}"
        )
    made = rounded_by(task, rounder_named(given.rounding))
    if quantizer_of(made) != given.quantizer:
        raise InputError(f"{source}: {given.rounding} is other code now than when its codes were made; export it anew.")
    return made


def check_network(task: MeasuredTask, digest: str, source: str, made_for: Any = None) -> None:
    """Whether a task's network is the one of that digest.

    Args:
        task: the network.
        digest: of the one that is meant.
        source: what the message begins with.
        made_for: the task of the latter, as far as it is known.

    Raises:
        InputError: it is another; the message begins with `source`.
    """
    if task.model_digest != digest:
        raise InputError(
            f"{source}: is about another network than task {task.name!r} is now (weights or architecture differ); "
            f"train or load the one that was searched{f', {made_for}' if made_for else ''}; its seed counts, too."
        )


def lint_file(path: str | Path, target: str, *, ungated: bool = False, allow_code: Sequence[str] = ()) -> list[Finding]:
    """What a target says of a recipe's file, or of a finished run on a real network.

    Args:
        path, ungated, allow_code: as for `recipe`.
        target: a key of `evoquant.profiles.targets.TARGETS`, or one's own exporter, `module:Class`.

    Raises:
        InputError: no such target, or there is no recipe in it.
    """
    if ":" in target:
        from evoquant.export.own_exporter import exporter_of, lint_by

        made, name = exporter_of(target)
    else:
        target_named(target)
    place = place_of(path)
    if is_run(place):
        found, _, _ = recipe(place, ungated=ungated, allow_code=allow_code)
        return lint_by(made, name, found) if ":" in target else lint(found, target, load_profile(place / PROFILE))
    if is_champion(place):
        raise InputError(
            f"{path}: a champion says nothing of a network's layers; make a recipe of it: evoquant export {path} --to "
            f"recipe --task NAME -o recipe.json"
        )
    numbers = place.with_suffix(SUFFIX)
    given = read_recipe(place, tensors=is_file(numbers))
    findings = lint_by(made, name, given) if ":" in target else lint(given, target)
    if not is_file(numbers):
        findings.append(Finding(None, "warning", f"its numbers ({numbers.name}) are not here: nobody has seen them"))
    return findings


def _spare(path: Path, source: TaskConfig | None, base: str | Path | None, target: str, out: Path) -> None:
    """Refuse to write over what is read.

    Raises:
        InputError: it would.
    """
    read = {Path(base) for base in (base,) if base is not None}
    if not is_run(path):
        read |= {path, path.with_suffix(SUFFIX)}
    if isinstance(source, OnnxTaskConfig):
        read |= {Path(source.model), Path(source.data)}
    written = {out, out.with_suffix(SUFFIX)} if target == "recipe" else {out}
    for file in sorted(written):
        if file.resolve() in {one.resolve() for one in read}:
            raise InputError(f"{file}: is read for this export; write to another file.")
