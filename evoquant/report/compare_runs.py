"""Run directories read back for a comparison: what each found for how much, in groups of one config."""

from __future__ import annotations

import hashlib
import os.path
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.config import NOT_HASHED, ModelsConfig, ReplayConfig
from evoquant.campaign.config_cost import TableCostConfig
from evoquant.campaign.config_files import without_places
from evoquant.campaign.config_measured import MemoryTaskConfig
from evoquant.campaign.storage import ARCHIVE, CHAMPION, ENVIRONMENT, JOURNAL, RunDir
from evoquant.errors import InputError, RunDirError, quoted, shown_value
from evoquant.files import canonical_json
from evoquant.report.compare_statistics import Curve
from evoquant.report.counted import counted_of
from evoquant.report.data import load_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from evoquant.campaign.config import CampaignConfig
    from evoquant.campaign.config_cost import AnyCostConfig

FIGURES = ("fitness", "share_of_optimum", "retention", "compression", "effective_bits")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,47}")
LONGEST_LABEL = 48
DIGEST = re.compile(
    r"[0-9a-f]{64}"
)  # of a model, data or code in a program's memory: tells apart, and tells nobody what
LARGEST = 1e100
NOT_GROUPED = (*NOT_HASHED, "seed", "name")


@dataclass(frozen=True, eq=False)
class Result:
    """What one run found.

    Attributes:
        path: the run directory.
        config: as resolved.
        curve: best fitness so far against what was spent, as journalled.
        spent: in all, signals included: evaluations asked, or passes over the calibration split.
        scores: the champion's, split → figure → value; none while the run is not finished.
        hypervolume: of the archive where the search keeps one: `value` and, of the exact front's, `share`.
        inputs: digests of what was read.
        version: of evoquant.
        objectives: what a hypervolume is over, where the search named it; else retention and bits per weight.
        margins: split → name of a limit → how far within it the champion is, a share of it.
        counted: name of what compression is of, where that is no bits; `cost` of the champion's figures is in its unit.
    """

    path: Path
    config: CampaignConfig
    curve: Curve
    spent: float
    scores: Mapping[str, Mapping[str, float]]
    hypervolume: Mapping[str, float]
    inputs: Mapping[str, str]
    version: str = ""
    counted: str = ""
    objectives: tuple[str, ...] = ()
    margins: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether there is a champion."""
        return bool(self.scores)

    @property
    def samples(self) -> tuple[str, str] | None:
        """Of a network in memory: digests of the samples as given, and of the splits drawn from them."""
        task = self.config.task
        return (task.whole, task.data) if isinstance(task, MemoryTaskConfig) and task.whole is not None else None

    @property
    def seeds(self) -> tuple[int, int]:
        """The campaign's, and that of its network's training and data."""
        return self.config.seed, 0 if self.config.task is None else self.config.task.seed

    @property
    def found(self) -> float:
        """The best fitness of the search, on what it searched; NaN where every candidate failed."""
        return float(self.curve.best[-1]) if len(self.curve.best) else float("nan")

    def score(self, split: str, figure: str) -> float:
        """The champion's figure on a split; NaN where it has none."""
        return self.scores.get(split, {}).get(figure, float("nan"))


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that are one thing to compare."""

    label: str
    results: tuple[Result, ...]

    @property
    def configs(self) -> int:
        """How many configs, apart from seeds: 1 unless the user grouped them."""
        return len({_key(result.config) for result in self.results})


def read_results(paths: Sequence[Path]) -> list[Result]:
    """Run directories, finished or not; nothing in them is changed.

    Raises:
        InputError: one is none, is damaged, is named twice, or has nothing to compare.
    """
    known: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in known:
            raise InputError(f"{path}: this run directory is named twice; name each once.")
        known[path.resolve()] = path
    return [_read(path) for path in paths]


def group_results(results: Sequence[Result], by: Sequence[str] = (), *, anyway: bool = False) -> list[Group]:
    """Groups in the order of their first run: the user's, then those of one config apart from its seeds.

    Args:
        results: of all runs.
        by: `NAME=GLOB`: a run whose path, or last part of it, matches goes into the group NAME.
        anyway: allow the same run several times.

    Raises:
        InputError: a `by` is wrong, or two directories hold one and the same run.
    """
    rules = [_rule(text) for text in by]
    used: set[str] = set()
    members: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        chosen = next((rule for rule in rules if _matches(result.path, rule[1])), None)
        used |= {"=".join(chosen)} if chosen else set()
        key = ("", chosen[0]) if chosen else (result.config.name, _key(result.config))
        members.setdefault(key, []).append(result)
    for name, glob in rules:
        if f"{name}={glob}" not in used:
            raise InputError(f"--by {name}={glob}: matches none of the runs that no --by before it took.")
    groups = [Group(label, tuple(runs)) for label, runs in zip(_labels(members), members.values(), strict=True)]
    if not anyway:
        for group in groups:
            _require_distinct(group)
    return groups


def require_comparable(results: Sequence[Result]) -> None:
    """Whether fitness means the same in all runs.

    Raises:
        InputError: the first that differs, in what.
    """
    for problem in incomparable(results):
        raise InputError(f"{problem}: their fitness means different things. Compare like with like, or pass --anyway.")


def incomparable(results: Sequence[Result]) -> Iterator[str]:
    """What makes fitness of a run mean another thing than that of those before it, one sentence each."""
    seen: dict[str, tuple[Result, Any]] = {}
    for result in results:
        for key, value in _meaning(result).items():
            if value in (None, []):  # a split that this run does not have
                continue
            other, theirs = seen.setdefault(key, (result, value))
            if value != theirs:
                yield f"{result.path}: {key} is {shown_value(value)}, and {shown_value(theirs)} in {other.path}"
                break


def differing(configs: Sequence[CampaignConfig]) -> list[str]:
    """Dotted keys in which configs differ, apart from seeds, names and what cannot change a result."""
    flat = [dict(_flat(_plain(config))) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    return [key for key in keys if len({canonical_json(one.get(key)) for one in flat}) > 1]


def _read(path: Path) -> Result:
    run = load_run(path)
    if isinstance(run.config.search, ReplayConfig):
        raise InputError(f"{path}: a replay searches nothing, so there is nothing to compare; see: evoquant report")
    if not run.journal:
        raise RunDirError(
            f"{path}: no generation is finished yet; nothing to compare. Continue with: evoquant resume {path}"
        )
    steps = []
    spent = 0.0
    for record in run.journal:
        amount = record["evaluations"]["asked"] if run.config.task is None else record.get("passes", 0.0)
        spent = _sane(amount, path / JOURNAL)
        if record["champion"] is not None:
            steps.append((spent, _sane(record["champion"]["fitness"], path / JOURNAL)))
    curve = np.array(steps, dtype=np.float64).reshape(-1, 2)
    if (np.diff(curve[:, 0]) < 0).any():
        raise RunDirError(f"{path / JOURNAL}: what is spent falls: it was changed; restore it, or start a new run.")
    champion = run.champion
    scores = {} if champion is None else champion.scores
    counted = counted_of(scores)
    area = (run.archive or {}).get("hypervolume") or {}
    return Result(
        path=path,
        config=run.config,
        curve=Curve(curve[:, 0], curve[:, 1]),
        spent=spent,
        scores={
            split: {figure: _sane(values[figure], path / CHAMPION) for figure in FIGURES if figure in values}
            | ({"cost": _sane(values["cost"]["value"], path / CHAMPION)} if "cost" in values else {})
            for split, values in scores.items()
        },
        hypervolume={key: _sane(area[key], path / ARCHIVE) for key in ("value", "share") if key in area},
        objectives=tuple(area.get("objectives", ())),
        margins={
            split: {row["name"]: _sane(row["margin"], path / CHAMPION) for row in values.get("limits", ())}
            for split, values in scores.items()
        },
        inputs=_inputs(path),
        version="" if champion is None else str(champion.provenance.get("evoquant", "")),
        counted="" if counted is None else counted.name,
    )


def _sane(value: float, source: Path) -> float:
    """A figure with which one can reckon: no run has such as are refused here."""
    if abs(value) > LARGEST:
        raise RunDirError(f"{source}: {shown_value(value)} is no figure of a run: it was changed; restore it.")
    return float(value)


def _inputs(path: Path) -> dict[str, str]:
    """Digests of what the run read; none where the file that names them is gone."""
    directory = RunDir.open(path, hold=False)
    data = directory.read(ENVIRONMENT) if directory.has(ENVIRONMENT) else {}
    inputs = data.get("inputs") if isinstance(data, dict) else None
    return {str(key): str(value) for key, value in inputs.items()} if isinstance(inputs, dict) else {}


def stated_meaning(config: CampaignConfig) -> dict[str, Any]:
    """What fitness depends on beside the allocation, so far as a config says it, as plain data without seeds."""
    meaning: dict[str, Any] = {
        "objective": config.objective.model_dump(mode="json"),
        "menu": list(config.resolved_menu.names),
        "cost": "bits" if config.cost is None or config.cost.kind == "bits" else _counting(config.cost),
        "costs": {name: _counting(cost) for name, cost in sorted(config.costs.items())} or None,
        "estimator": "evoquant's" if config.estimator is None else config.estimator.model_dump(mode="json"),
    }
    if config.task is not None:
        task = config.task.model_dump(mode="json", exclude={"seed"})
        if not isinstance(config.task, MemoryTaskConfig):
            return meaning | {"task": without_places({"files": dict(config.files), "task": task})["task"]}
        task["data"] = task.pop("whole", None) or task["data"]  # each run's seed draws its own splits from these
        digests = {"model": "the model's digest", "data": "the data's digest", "code": "the metric's digest"}
        return meaning | {"task": "memory"} | {digests.get(key, f"task.{key}"): task[key] for key in task}
    models = (config.models or ModelsConfig()).model_dump(mode="json")
    meaning |= {"task": "none (profiles)", "aggregate": config.aggregate}
    held = without_places({"files": dict(config.files), "models": models})["models"]
    return meaning | {f"models.{split}": names for split, names in held.items()}


def _counting(cost: AnyCostConfig) -> dict[str, Any]:
    """A cost as plain data; of a table what it holds, wherever it lies."""
    return cost.model_dump(mode="json", exclude={"file"} if isinstance(cost, TableCostConfig) else None)


def _meaning(result: Result) -> dict[str, Any]:
    """What fitness depends on beside the allocation, as plain data."""
    config = result.config
    if config.task is not None:
        names = [name for name in result.inputs if name != "profile"]
        digests = {f"the network behind {name!r} with seed {config.task.seed}": name for name in names}
    else:
        digests = {f"the profile {key!r}": key for key in result.inputs}
    return stated_meaning(config) | {key: result.inputs[name] for key, name in digests.items()}


def _plain(config: CampaignConfig) -> dict[str, Any]:
    plain = {key: value for key, value in config.to_dict().items() if key not in NOT_GROUPED}
    if isinstance(plain.get("task"), dict):
        drawn = {"seed", "data"} if "whole" in plain["task"] else {"seed"}
        left_out = {*drawn, "quantized_cache"}  # which changes no result
        plain["task"] = {key: value for key, value in plain["task"].items() if key not in left_out}
    return without_places(plain)


def _key(config: CampaignConfig) -> str:
    """Of the config without its seeds."""
    return hashlib.sha256(canonical_json([config.name, _plain(config)]).encode()).hexdigest()


def _flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _rule(text: str) -> tuple[str, str]:
    name, equals, glob = text.partition("=")
    if not equals or not glob or not LABEL.fullmatch(name):
        raise InputError(
            f"--by {quoted(text)}: write it as NAME=GLOB, such as --by 'new=runs/new-*'; a name is at most "
            f"{LONGEST_LABEL} letters, digits, spaces and . _ + -"
        )
    return name, glob


def _matches(path: Path, glob: str) -> bool:
    return fnmatchcase(str(path), glob) or fnmatchcase(path.name, glob)


def _labels(members: Mapping[tuple[str, str], Sequence[Result]]) -> list[str]:
    """A label each: the config's name and, where several groups share it, in what they differ."""
    alike: dict[str, list[CampaignConfig]] = {}
    for (name, _), runs in members.items():
        if name:
            alike.setdefault(name, []).append(runs[0].config)
    labels: list[str] = []
    for (name, key), runs in members.items():
        label = name or key
        if len(alike.get(name, ())) > 1:
            label = f"{name}, {_told_apart(runs, differing(alike[name]))}"[:LONGEST_LABEL]
        number = 1
        while (label if number == 1 else f"{label} #{number}") in labels:
            number += 1
        labels.append(label if number == 1 else f"{label} #{number}")
    return labels


def _told_apart(runs: Sequence[Result], keys: Sequence[str]) -> str:
    """What a group's config says under keys in which groups differ; where only digests do, its run directory's name."""
    flat = dict(_flat(_plain(runs[0].config)))
    told = [
        f"{path.rpartition('.')[2]} {shown_value(flat.get(path), 16)}"
        for path in keys
        if not DIGEST.fullmatch(str(flat.get(path)))
        and (path in flat or not any(one.startswith(f"{path}.") for one in flat))
    ]
    if told:
        return ", ".join(told[:2])
    names = [result.path.resolve().name for result in runs]
    return os.path.commonprefix(names).rstrip("-_. ") or names[0]  # noqa: RUF071 of characters


def _require_distinct(group: Group) -> None:
    seen: dict[tuple[str, tuple[int, int]], Result] = {}
    for result in group.results:
        if getattr(result.config.search, "in_flight", None) is not None:
            continue  # another run of the same seed may come out differently
        other = seen.setdefault((_key(result.config), result.seeds), result)
        if other is not result:
            raise InputError(
                f"{result.path}: the same run as {other.path} (config and seeds), which would count twice; leave one "
                f"out, tell them apart with --by NAME=GLOB, or pass --anyway."
            )
