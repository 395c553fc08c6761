"""A sweep's YAML file: one campaign and what varies in it, as a product of lists.

    name: searches
    base: evolve.yaml                      # a campaign's file, or its keys here
    over:
      search: [{kind: genetic}, {kind: random}]
      stop.evaluations: [100, 400]         # dotted keys as for --set
      seed: 0-19

load_sweep(path) → Sweep: every campaign of it as a checked config, under a name of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from evoquant.campaign.config import MAX_CONFIG_BYTES, CampaignConfig, config_from_dict
from evoquant.campaign.config_base import Closed
from evoquant.campaign.config_executor import ExecutorConfig
from evoquant.campaign.config_files import resolve_paths, with_files, with_table_digests, without_places
from evoquant.campaign.config_replay import ReplayConfig
from evoquant.campaign.located import digests
from evoquant.campaign.sweep_cells import Combination, combinations, expanded_axes, valid_key
from evoquant.campaign.yaml_file import override, parse_yaml, set_key
from evoquant.errors import ConfigError, InputError, describe_validation, quoted
from evoquant.files import canonical_json, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "MAX_CAMPAIGNS",
    "Cell",
    "Sweep",
    "SweepConfig",
    "SweepExecutorConfig",
    "is_sweep_file",
    "load_sweep",
    "sweep_from_dict",
]

MAX_CAMPAIGNS = 10_000
TURN_S = 20.0
OF_A_CAMPAIGN = ("batch", "limit_s")  # of an executor; the rest is the sweep's
OF_THE_SWEEP = ("name", "out", "cache", "executor")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Values = Annotated[list[JsonValue], Field(min_length=1)] | str
Axes = dict[str, Values]


class SweepExecutorConfig(ExecutorConfig):
    """Where the campaigns run; cannot change a result."""

    kind: str = "ray"

    @model_validator(mode="after")
    def _of_a_sweep(self) -> SweepExecutorConfig:
        if self.kind == "auto":
            raise ValueError("kind: a sweep runs on ray, or in turn with local; name one instead of auto")
        for key in OF_A_CAMPAIGN:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is of each campaign; set it under base: executor")
        return self


class SweepConfig(Closed):
    """Many campaigns."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    base: str | dict[str, JsonValue]
    over: Axes = Field(default={})
    include: list[Axes] = Field(default=[])
    exclude: list[Annotated[dict[str, JsonValue], Field(min_length=1)]] = Field(default=[])
    executor: SweepExecutorConfig = SweepExecutorConfig()
    turn_s: Annotated[float, Field(gt=0)] = TURN_S
    cache: str | None = None

    @field_validator("over", "exclude", "include")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        for block in value if isinstance(value, list) else [value]:
            for key in block:
                valid_key(key)
        return value


@dataclass(frozen=True)
class Cell:
    """One campaign of a sweep.

    Attributes:
        name: of its run directory, below the sweep's.
        combination: name of what it is apart from its seeds; the campaigns of one differ in their seeds alone.
        values: what the sweep set, by dotted key.
        data: the campaign as plain data, complete.
        config: the same, checked.
    """

    name: str
    combination: str
    values: Mapping[str, Any]
    data: Mapping[str, Any]
    config: CampaignConfig

    @property
    def text(self) -> str:
        """A YAML file that is this campaign alone."""
        import yaml

        return str(yaml.safe_dump(dict(self.data), sort_keys=False, allow_unicode=True, width=110))


@dataclass(frozen=True)
class Sweep:
    """A sweep, every campaign of which has been checked.

    Attributes:
        config: as given, with the base as a mapping in which paths are absolute.
        cells: its campaigns, in the order of the product: the last key of `over` changes fastest.
        axes: the keys that vary, seeds left out, in order.
        folder: what paths in it are relative to.
    """

    config: SweepConfig
    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    folder: Path

    def code(self) -> list[str]:
        """Every `module:attribute` that a campaign of it names."""
        return sorted({name for cell in self.cells for name in cell.config.code()})

    def record(self) -> dict[str, Any]:
        """What makes the same campaigns again: plain data, without where they run."""
        plain = self.config.model_dump(mode="json", exclude={"executor"})
        if files := {path: digest for cell in self.cells for path, digest in digests(cell.config).items()}:
            plain["base"]["files"] = files  # of all campaigns, which begin with the same ones wherever these lie then
        if self.config.cache is not None:
            plain["cache"] = str(Path(self.config.cache).expanduser().absolute())
        return plain


def is_sweep_file(path: Path) -> bool:
    """Whether a YAML file is meant as a sweep: it has a `base`, which no campaign has.

    Raises:
        ConfigError: it cannot be read, or is no YAML.
    """
    data = parse_yaml(read_text(path, limit=MAX_CONFIG_BYTES, error=ConfigError), str(path))
    return isinstance(data, dict) and "base" in data


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep's file, and check every campaign of it.

    Args:
        path: the file.
        overrides: `key.path=value`, changes to the base.

    Raises:
        ConfigError: naming the file, the campaign, the key, the fault and the remedy.
    """
    data = parse_yaml(read_text(path, limit=MAX_CONFIG_BYTES, error=ConfigError), str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a sweep is a YAML mapping with `base` and `over`.")
    if "base" not in data and "search" in data:
        raise ConfigError(f"{path}: this is one campaign, not a sweep; run it with: evoquant run {path}")
    data.setdefault("name", path.stem)
    return sweep_from_dict(data, str(path), path.parent, overrides)


def sweep_from_dict(
    data: Any, source: str, folder: Path, overrides: Sequence[str] = (), recorded: bool = False
) -> Sweep:
    """A sweep from plain data.

    Args:
        data: as in the file.
        source: what messages begin with.
        folder: what the paths in it are relative to.
        overrides: as of `load_sweep`.
        recorded: it is the record of one that has begun.

    Raises:
        ConfigError: as `load_sweep`.
    """
    try:
        config = SweepConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(describe_validation(error, source, SweepConfig.model_fields)) from None
    base, base_source = _base(config, source, folder, overrides)
    try:
        over, include = expanded_axes(config.over), [expanded_axes(block) for block in config.include]
        found = combinations(config.name, over, include, config.exclude, MAX_CAMPAIGNS)
    except InputError as error:
        raise ConfigError(f"{source}: {error}") from None
    cells = tuple(_cell(one, base, f"{source}: campaign {one.name}", folder, recorded) for one in found)
    _require_distinct(cells, source)
    axes = dict.fromkeys(key for one in found for key in one.varied)
    resolved = config.model_copy(update={"base": base, "over": over, "include": include})
    if not cells:
        raise ConfigError(f"{base_source}: there is no campaign in this sweep.")
    return Sweep(resolved, cells, tuple(axes), folder.resolve())


def _base(config: SweepConfig, source: str, folder: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The campaign that varies, as plain data with absolute paths."""
    if isinstance(config.base, str):
        path = folder / config.base
        source = f"{source}: base: {path}"
        try:
            text = read_text(path, limit=MAX_CONFIG_BYTES, error=ConfigError)
        except ConfigError as error:
            raise ConfigError(f"{source.removesuffix(str(path))}{error}") from None
        data = parse_yaml(text, str(path))
        folder = path.parent
    else:
        data = _copied(config.base)
        source = f"{source}: base"
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: a campaign is a YAML mapping such as `search: {{kind: genetic}}`.")
    varied = {key for block in (config.over, *config.include) for key in block}
    for change in overrides:
        if (key := change.partition("=")[0]) in varied:
            raise ConfigError(f"--set {change}: {key} varies in this sweep; change it in the file.")
        if key.partition(".")[0] in OF_THE_SWEEP and key not in [f"executor.{name}" for name in OF_A_CAMPAIGN]:
            raise ConfigError(
                f"--set {change}: is of the whole sweep and not of its campaigns; change it in the file, or by --out, "
                f"--executor, --workers or --address."
            )
        override(data, change)
    data["name"] = config.name
    data.pop("out", None)
    resolve_paths(data, folder)
    if not any(key.startswith("cost") for key in varied):
        with_table_digests(data)
    return data, source


def _cell(one: Combination, base: Mapping[str, Any], source: str, folder: Path, recorded: bool) -> Cell:
    data: dict[str, Any] = _copied(base)
    for key, value in sorted(one.values.items(), key=lambda item: item[0].count(".")):  # a whole before its parts
        set_key(data, key, _copied(value), source)
    data["name"] = one.combination
    _run_here(data)
    resolve_paths(data, folder)
    with_files(data, recorded)
    config = config_from_dict(data, source)
    if isinstance(config.search, ReplayConfig):
        raise ConfigError(f"{source}: a replay searches nothing, and every seed gives the same; leave it out.")
    return Cell(one.name, one.combination, one.values, data, config)


def _run_here(data: dict[str, Any]) -> None:
    """Each campaign is evaluated by the worker that runs it: of its executor the limits stay."""
    given = data.get("executor")
    kept = {key: given[key] for key in OF_A_CAMPAIGN if key in given} if isinstance(given, dict) else {}
    data["executor"] = {"kind": "local", **kept}
    data.pop("cache", None)


def _require_distinct(cells: Iterable[Cell], source: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        plain = {key: value for key, value in cell.config.to_dict().items() if key not in ("name", "executor")}
        if isinstance(plain["task"], dict):
            plain["task"].pop("quantized_cache", None)
        other = seen.setdefault(canonical_json(without_places(plain)), cell)
        if other is not cell:
            raise ConfigError(
                f"{source}: {quoted(cell.name)} and {quoted(other.name)} are the same campaign, which would count "
                f"twice; leave one out."
            )


def _copied(value: Any) -> Any:
    """Plain data whose mappings and lists may be changed."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
