"""How a run was run, for the page: seeds, budget, config, environment, and the commands that repeat it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from evoquant.campaign.config import load_config
from evoquant.campaign.storage import CONFIG, ENVIRONMENT, RESOLVED, TIMINGS, RunDir
from evoquant.errors import InputError, RunDirError
from evoquant.files import pretty_json
from evoquant.report.page_html import Safe, code_block, definitions, details, element, joined

if TYPE_CHECKING:
    from evoquant.report.data import RunData


def folder_name(run: RunData) -> str:
    """The run directory's own name: whoever reads the page has it elsewhere."""
    return run.path.resolve().name or "run"


def run_html(run: RunData) -> Safe:
    """Seeds, what was spent, where it ran, the config as resolved."""
    environment = _environment(run)
    parts = [definitions([*_spent(run), *_times(run)], "facts")]
    if environment:
        parts += [element("h3", "Environment"), definitions(environment, "facts")]
    resolved = pretty_json(run.config.to_dict())
    parts += [
        element("h3", "Config"),
        element("p", f"Every default filled in; sha256 of what can change a result: {run.config_hash}."),
        details("The config as resolved", code_block(resolved, "the resolved config"), brief=len(resolved) < 4000),
    ]
    return joined(parts)


def _spent(run: RunData) -> list[tuple[str, str]]:
    last = run.journal[-1]
    rows = [("Seed", str(run.config.seed))]
    if run.config.task is not None:
        rows.append(("Seed of the network", str(getattr(run.config.task, "seed", ""))))
    rows += [
        ("Generations", f"{len(run.journal):,}"),
        ("Candidates asked", f"{last['evaluations']['asked']:,}, {last['evaluations']['distinct']:,} distinct"),
    ]
    known = run.champion.provenance if run.champion is not None else {}
    if isinstance(known.get("stopped"), str):
        rows.append(("Ended by", known["stopped"]))
    if "budget" in known:
        budget = known["budget"]
        rows.append(
            (
                "Passes over the calibration split",
                f"{budget['search_passes']:g} by the search, {budget['signal_passes']:g} for signals",
            )
        )
        apart = {**known.get("finalist_passes", {}), **({"gate": run.gate["passes"]} if run.gate else {})}
        rows.append(("Passes afterwards", ", ".join(f"{passes:g} over {split}" for split, passes in apart.items())))
    elif "passes" in last:
        rows.append(("Passes over the calibration split", f"{last['passes']:g}"))
    return [row for row in rows if row[1]]


def _times(run: RunData) -> list[tuple[str, str]]:
    """Wall time, which is the machine's and not the result's; nothing where the file is missing or damaged."""
    directory = RunDir.open(run.path, hold=False)
    if not directory.has(TIMINGS):
        return []
    seconds, executors = 0.0, {}
    try:
        for line in directory.text(TIMINGS).splitlines():
            row = json.loads(line)
            seconds += float(row.get("seconds", 0.0))
            if "executor" in row:
                executors[f"{row['executor']}, {row.get('workers')} workers"] = True
    except (InputError, ValueError, TypeError, AttributeError, RecursionError):
        return []
    return [("Time of the generations", f"{seconds:,.1f} s"), ("Executor", "; ".join(executors))]


def _environment(run: RunData) -> list[tuple[str, str]]:
    directory = RunDir.open(run.path, hold=False)
    if not directory.has(ENVIRONMENT):
        return []
    try:
        found = directory.read(ENVIRONMENT)
    except RunDirError:
        return []
    if not isinstance(found, dict):
        return []
    rows = []
    for key, value in found.items():
        if key == "inputs":
            continue
        shown = ", ".join(f"{name} {version}" for name, version in value.items()) if isinstance(value, dict) else value
        rows.append((str(key).replace("_", " "), str(shown)))
    return rows


def reproduce_html(run: RunData) -> Safe:
    """The commands that repeat the run, checked against its hash, and what to do with the result."""
    if getattr(run.config.task, "kind", None) == "memory":
        return _in_memory_html(run)
    name = shlex.quote(folder_name(run))
    again = shlex.quote(f"{folder_name(run)}-again")
    version = _version(run)
    install = f"pip install evoquant=={version}" if version else "pip install evoquant"
    source, notes = f"{name}/{CONFIG}", []
    overrides = overrides_of(run)
    if overrides is None:
        source = shlex.quote(f"{run.config.name}.yaml")
        notes.append(
            f"The config as given does not lead to this run's any more (its paths are relative to where it was): save "
            f"`config` of {RESOLVED}, which stands above, as {run.config.name}.yaml; JSON is YAML."
        )
        overrides = []
    sets = "".join(f" --set {shlex.quote(override)}" for override in overrides)
    allowed = "".join(f" --allow-code {shlex.quote(code)}" for code in run.config.code())
    lines = [
        install,
        f"evoquant run {source}{sets} --out {again}",
        f"cmp {name}/journal.jsonl {again}/journal.jsonl",
        f"evoquant report {again} --html page.html{allowed}",
    ]
    if run.champion is None:
        lines.append(f"evoquant resume {name}{allowed}")
    else:
        target = next(iter(run.config.deploy_to or ()), "recipe") if run.config.task is not None else "python"
        lines.append(f"evoquant export {name} --to {shlex.quote(target)}{allowed}")
    notes.append("Within one environment the second journal is the first, byte for byte; `cmp` then says nothing.")
    return joined([code_block("\n".join(lines), "commands to reproduce"), *(element("p", note) for note in notes)])


def _in_memory_html(run: RunData) -> Safe:
    """What repeats a run whose network and data no file holds."""
    config = run.config
    call = f"evoquant.optimize(model, calibration, ..., seed={config.seed}, run_dir={folder_name(run) + '-again'!r})"
    notes = [
        "Network and data were in the memory of a Python program: the same call there, with the arguments that the "
        "config above shows, repeats the run; the config holds the sha256 of both.",
        f"The same call with run_dir={folder_name(run)!r} goes on where it was interrupted, and its result exports.",
    ]
    return joined([code_block(f"import evoquant\n{call}", "how to reproduce"), *(element("p", n) for n in notes)])


def _version(run: RunData) -> str:
    known = run.champion.provenance.get("evoquant") if run.champion is not None else None
    return known if isinstance(known, str) and known.replace(".", "").isalnum() else ""


def overrides_of(run: RunData) -> list[str] | None:
    """`key.path=value` texts that make the run's config of its config.yaml; None where there are none that do."""
    try:
        given, _ = load_config(run.path / CONFIG)
    except InputError:
        return None
    wanted = run.config.to_dict()
    overrides = [f"{key}={json.dumps(value)}" for key, value in _differences(given.to_dict(), wanted)]
    try:
        made, _ = load_config(run.path / CONFIG, overrides)
    except InputError:
        return None
    return overrides if made.hash() == run.config_hash else None


UNTOLD = ("out", "cache", "executor", "files")  # cannot change a result, or is filled in


def _differences(given: dict[str, Any], wanted: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in wanted.items():
        if (not path and key in UNTOLD) or given.get(key) == value:
            continue
        before = given.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and value:
            found += _differences(before, value, f"{path}{key}.")
        else:
            found.append((f"{path}{key}", value))
    return found
