"""Exporters of somebody's own: made from their names, given what the gate lets pass, and their content written."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from evoquant.campaign.apply import load_any_champion, profile_menu
from evoquant.campaign.build import require_allowed
from evoquant.campaign.finished import gated, resolved_config
from evoquant.campaign.own import load_code
from evoquant.campaign.storage import RunDir
from evoquant.campaign.storage_url import is_run, place_of
from evoquant.errors import EvoquantError, InputError, quoted, raised_by, suggestion
from evoquant.export.deploy import recipe
from evoquant.export.lint import Finding, refuse
from evoquant.export.protocol import TAKES, Content, Exporter, Linting, Subject
from evoquant.files import write_atomic
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.export.recipe import Recipe
    from evoquant.profiles.model import ModelProfile

WHERE = "see evoquant.export.protocol.Exporter; evoquant.testing.check_exporter tries it"


def exporter_of(target: Exporter | type[Exporter] | str) -> tuple[Exporter, str]:
    """An exporter and what messages call it, from `module:Class`, a class or an object.

    Raises:
        InputError: it cannot be imported or made, or does not keep the protocol.
    """
    thing: Any = load_code(target) if isinstance(target, str) else target
    name = target if isinstance(target, str) else getattr(thing, "__qualname__", type(thing).__qualname__)
    if inspect.isclass(thing):
        try:
            thing = thing()
        except EvoquantError:
            raise
        except Exception as error:  # whatever it may raise
            raise InputError(f"{name}: making it raised {raised_by(error)}; it is made without arguments.") from error
    takes = getattr(thing, "takes", None)
    if not callable(getattr(thing, "export", None)):
        raise InputError(f"{name}: lacks export(subject), so it is no exporter; {WHERE}.")
    if takes not in TAKES:
        close = suggestion(takes, TAKES) if isinstance(takes, str) else ""
        raise InputError(f"{name}: `takes` is {takes!r}; it is {', '.join(TAKES)}.{close} {WHERE}.")
    return thing, name


def content_of(
    path: str | Path,
    target: Exporter | type[Exporter] | str,
    source: TaskConfig | None = None,
    *,
    profile: ModelProfile | None = None,
    ungated: bool = False,
    cache: str | Path | None = None,
    allow_code: Sequence[str] = (),
) -> tuple[Content, list[Finding]]:
    """What an exporter of somebody's own makes of a run, a champion or a recipe, and its warnings.

    Args:
        path: a finished run directory, a champion's file, or a recipe's.
        target: the exporter.
        source, ungated, cache, allow_code: as for `evoquant.export.deploy.recipe`.
        profile: of the one model, for an allocation of a run that measured none.

    Raises:
        InputError: it takes something else than there is, the gate does not let it pass, or the exporter raised.
    """
    made, name = exporter_of(target)
    place = place_of(path)
    findings: list[Finding] = []
    if made.takes == "recipe":
        subject = _of_recipe(place, source, ungated, cache, allow_code)
        if isinstance(made, Linting) and subject.recipe is not None:
            findings = lint_by(made, name, subject.recipe)
            refuse(findings, f"{path}: for {name}")
    else:
        if source is not None:
            raise InputError(f"{name} takes no network; leave --task and --onnx out.")
        subject = _of_champion(place, name, made.takes == "allocation", profile, ungated, allow_code)
    try:
        return made.export(subject), findings
    except EvoquantError:
        raise
    except Exception as error:  # whatever it may raise
        raise InputError(f"{name}: export raised {raised_by(error)}") from error


def lint_by(exporter: Exporter, name: str, found: Recipe) -> list[Finding]:
    """What an exporter of somebody's own says of a recipe; where it says nothing, that nobody knows.

    Raises:
        InputError: it raised, or gave no findings.
    """
    if not isinstance(exporter, Linting):
        return [Finding(None, "warning", f"evoquant knows nothing of {name}, which has no lint(recipe) to be asked by")]
    try:
        findings = list(exporter.lint(found))
    except EvoquantError:
        raise
    except Exception as error:  # whatever it may raise
        raise InputError(f"{name}: lint raised {raised_by(error)}") from error
    if not all(isinstance(finding, Finding) for finding in findings):
        raise InputError(f"{name}: lint gave something that is no evoquant.export.lint.Finding; {WHERE}.")
    return findings


def write_content(content: Content, name: str, out: Path) -> list[Path]:
    """Write an exporter's file, or the files of its folder; each is there whole or not at all.

    Raises:
        InputError: it is no content, a name leaves the folder, or a file cannot be written.
    """
    if isinstance(content, (str, bytes)):
        write_atomic(out, content)
        return [out]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{name}: export gave a {type(content).__name__}; give text, bytes, or file name → these.")
    for file, data in content.items():
        parts = PurePosixPath(file).parts if isinstance(file, str) else ()
        if not parts or parts[0] == "/" or ".." in parts or "\\" in file or not file.isprintable():
            raise InputError(f"{name}: {quoted(str(file))} is no name of a file within the folder.")
        if not isinstance(data, (str, bytes)):
            raise InputError(f"{name}: {quoted(file)} is a {type(data).__name__}; give text or bytes.")
    files = [out / file for file in content]
    for place, data in zip(files, content.values(), strict=True):
        write_atomic(place, data)
    return files


def _of_recipe(
    path: Path, source: TaskConfig | None, ungated: bool, cache: str | Path | None, allow_code: Sequence[str]
) -> Subject:
    given, ready, _ = recipe(path, source, ungated=ungated, cache=cache, allow_code=allow_code)
    widths = {layer.name: layer.precision for layer in given.layers}
    found = gated(path, ungated=ungated) if is_run(path) else None
    champion, profile, menu = found or (None, None, Menu.parse(set(widths.values())))
    return Subject(champion, menu, profile, widths, given, ready)


def _of_champion(
    path: Path, name: str, one_model: bool, profile: ModelProfile | None, ungated: bool, allow_code: Sequence[str]
) -> Subject:
    """The heuristic; or one model's widths, which of a real network the gate lets pass."""
    menu: Menu | None = None
    if is_run(path):
        config = resolved_config(RunDir.open(path, hold=False))
        require_allowed(config, allow_code, path)
        menu = config.resolved_menu
        found = gated(path, ungated=ungated) if one_model else None
        if found is not None and (profile is None or profile.digest == found[1].digest):
            return _allocated(*found)
    champion = load_any_champion(path)
    if not one_model:
        return Subject(champion, menu or SEED_MENU)
    if profile is None:
        raise InputError(f"{name} takes one model's allocation: name the model with --profile PROFILE.")
    return _allocated(champion, profile, menu or profile_menu(profile))


def _allocated(champion: Champion, profile: ModelProfile, menu: Menu) -> Subject:
    problem = compile_problem(profile, menu)
    widths: Iterable[str] = problem.unfold(champion.genome.allocate(problem))
    return Subject(champion, menu, profile, dict(zip(problem.layers, widths, strict=True)))
