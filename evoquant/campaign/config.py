"""The campaign's YAML file: every key, its default and its limits, checked at the boundary.

load_config(path, overrides) → CampaignConfig      (errors name the file, the key, the fault, the remedy)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from evoquant.campaign.config_base import Closed, tag
from evoquant.campaign.config_cost import BitsCostConfig, CostConfig, checked_names
from evoquant.campaign.config_executor import ExecutorConfig
from evoquant.campaign.config_files import resolve_paths, with_files, without_places
from evoquant.campaign.config_genome import GenomeConfig, RuleSpaceConfig
from evoquant.campaign.config_measured import RacingConfig, TaskConfig, known_signals, task_code
from evoquant.campaign.config_objective import (
    BudgetConfig,
    CertifiedConfig,
    CliffConfig,
    FeasibleFirstConfig,
    LimitsConfig,
    ObjectiveConfig,
)
from evoquant.campaign.config_outside import SEARCH_KINDS, AnySearch, OutsideConfig
from evoquant.campaign.config_own import (
    OWN,
    PARTS,
    CodeConfig,
    HeldConfig,
    OwnPart,
    own_code,
)
from evoquant.campaign.config_replay import CandidateConfig, ReplayConfig
from evoquant.campaign.config_search import GeneticConfig
from evoquant.campaign.config_trackers import Trackers
from evoquant.campaign.yaml_file import override, parse_yaml
from evoquant.errors import (
    ConfigError,
    InputError,
    PrecisionError,
    ProfileError,
    describe_validation,
    quoted,
    suggestion,
)
from evoquant.files import canonical_hash, read_text
from evoquant.profiles.builtin import expand_names
from evoquant.quantization.precision import Menu

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_CONFIG_BYTES",
    "MAX_MODELS",
    "NOT_HASHED",
    "BudgetConfig",
    "CampaignConfig",
    "CandidateConfig",
    "CliffConfig",
    "CodeConfig",
    "ExecutorConfig",
    "FeasibleFirstConfig",
    "HeldConfig",
    "ModelsConfig",
    "ReplayConfig",
    "StopConfig",
    "config_from_dict",
    "load_config",
    "resolve_paths",
]

MAX_CONFIG_BYTES = 2**20

# What cannot change a result stays out of the config's hash.
NOT_HASHED = ("executor", "cache", "out", "trackers")
NOT_HASHED_OF_TASK = ("whole", "quantized_cache")  # `data` says the first already, and more

Positive = Annotated[int, Field(ge=1, le=10_000_000)]
Retention = Annotated[float, Field(gt=0, lt=1)]
MAX_MODELS = 256


class ModelsConfig(Closed):
    """Profiles by built-in name or path (relative to the config file), by split.

    A range such as `family/cnn/0..11` stands for twelve models and is listed as such.
    """

    train: Annotated[list[str], Field(min_length=1)] = Field(default=["seed/train"])
    valid: list[str] = Field(default=["seed/valid"])
    test: list[str] = Field(default=["seed/test"])

    @field_validator("train", "valid", "test")
    @classmethod
    def _expanded(cls, names: list[str]) -> list[str]:
        try:
            return expand_names(names, MAX_MODELS)
        except ProfileError as error:
            raise ValueError(str(error).removesuffix(".")) from None


class StopConfig(Closed):
    """When to end: whichever comes first. Wall time ends after a whole generation; resume goes on."""

    generations: Positive = 120
    stagnation: Positive | None = None
    target: float | None = None
    evaluations: Annotated[int, Field(ge=1)] | None = None
    passes: Annotated[float, Field(gt=0)] | None = None
    wall_time_s: Annotated[float, Field(gt=0)] | None = None


SearchConfig = Annotated[
    AnySearch
    | Annotated[ReplayConfig, Tag("replay")]
    | Annotated[CodeConfig, Tag("code")]
    | Annotated[HeldConfig, Tag("memory")],
    tag("genetic", (*SEARCH_KINDS, "replay")),
]


class CampaignConfig(Closed):
    """A whole campaign."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    models: ModelsConfig | None = None
    task: TaskConfig | None = None
    signals: list[str] | None = None
    racing: RacingConfig | None = None
    menu: list[str] | None = None
    deploy_to: list[str] = Field(default=[])
    objective: ObjectiveConfig = CliffConfig()
    aggregate: Literal["mean", "min", "geometric"] = "mean"
    relative_to_optimum: bool = False
    cost: CostConfig | None = None
    costs: Annotated[dict[str, CostConfig], Field(max_length=32)] = Field(default={})
    estimator: OwnPart | None = None
    genome: GenomeConfig = RuleSpaceConfig()
    search: SearchConfig = GeneticConfig()
    stop: StopConfig = StopConfig()
    finalists: Annotated[int, Field(ge=1, le=1000)] = 32
    finalists_by_form: bool = False
    report_test_by_generation: bool = False
    executor: ExecutorConfig = ExecutorConfig()
    cache: str | None = None
    out: str | None = None
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(default={})
    trackers: Trackers = Field(default=[])

    @field_validator("menu")
    @classmethod
    def _known_menu(cls, value: list[str] | None) -> list[str] | None:
        try:
            return None if value is None else list(Menu.parse(value).names)
        except PrecisionError as error:
            raise ValueError(str(error)) from None

    @field_validator("deploy_to")
    @classmethod
    def _known_targets(cls, value: list[str]) -> list[str]:
        if value:
            from evoquant.profiles.targets import target_named
        for name in value:
            try:
                target_named(name)
            except InputError as error:
                raise ValueError(str(error)) from None
            if value.count(name) > 1:
                raise ValueError(f"names {name!r} more than once; name each target once")
        return value

    _known_signals = field_validator("signals")(known_signals)
    _named_costs = field_validator("costs")(checked_names)

    @field_validator("cost")
    @classmethod
    def _bits_are_none(cls, value: CostConfig | None) -> CostConfig | None:
        return None if isinstance(value, BitsCostConfig) else value  # unknown to older configs, whose hashes stay

    @model_validator(mode="after")
    def _consistent(self) -> CampaignConfig:
        if self.task is not None and self.models is not None:
            raise ValueError("a campaign has either `task` (a real network) or `models` (profiles)")
        if isinstance(self.search, ReplayConfig) and (self.task or self.models):
            raise ValueError("a replay names its models under search.data; leave `models` and `task` out")
        if self.deploy_to and isinstance(self.search, ReplayConfig):
            raise ValueError("deploy_to narrows what a search may choose; a replay chooses nothing, leave it out")
        nominal = [p.name for p in self.resolved_menu if p.granularity == "nominal"] if self.deploy_to else []
        if nominal:
            raise ValueError(
                f"deploy_to: {', '.join(nominal)} on the menu are nominal, without scales, which nothing can deploy; "
                f"set menu to precisions with scales, such as [{nominal[0]}-channel, FP16, FP32]"
            )
        if self.relative_to_optimum and (self.task or isinstance(self.search, ReplayConfig)):
            raise ValueError("relative_to_optimum is for campaigns on profiles (`models`)")
        self._own_parts()
        if self.stop.passes is not None and self.task is None:
            raise ValueError("stop.passes is for measured tasks; use stop.evaluations")
        if getattr(self.search, "in_flight", None) is not None and self.task is None:
            raise ValueError(
                "search.in_flight is for measured tasks (`task`); a profile is scored in microseconds, and a "
                "generation of such keeps nobody waiting"
            )
        for key in ("signals", "racing"):
            if getattr(self, key) is not None and self.task is None:
                raise ValueError(f"{key} is for measured tasks (`task`); a profile holds its signals")
        if self.executor.limit_s is not None and self.task is None:
            raise ValueError("executor.limit_s is for measured tasks; a profile is scored in microseconds")
        return self

    def _own_parts(self) -> None:
        """What parts of one's own do not go with."""
        if self.relative_to_optimum and not isinstance(self.objective, CertifiedConfig):
            raise ValueError("relative_to_optimum needs a built-in objective: the optimum of your own is not certified")
        if self.relative_to_optimum and self.estimator is not None:
            raise ValueError("relative_to_optimum needs the separable estimator: of another nothing is certified")
        if self.estimator is not None and self.task is not None:
            raise ValueError("estimator is for campaigns on profiles (`models`); the retention of a task is measured")
        for key in ("cost", "costs", "estimator"):
            if getattr(self, key) and isinstance(self.search, ReplayConfig):
                raise ValueError(f"a replay repeats published figures, by their own {key}; leave {key} out")
        if isinstance(self.objective, LimitsConfig):
            if isinstance(self.search, ReplayConfig):
                raise ValueError("objective.kind: limits: a replay repeats published figures; take cliff")
            self.objective.check_names(self.costs, single=self.cost is not None)
        self._objectives()
        if isinstance(self.objective, BudgetConfig) and (self.objective.cost is None) != (self.cost is None):
            raise ValueError(
                "objective: effective_bits and megabytes count bits; where the campaign has its own `cost`, and only "
                "there, a budget is `cost`, in its unit"
            )

    def _objectives(self) -> None:
        """Whether everything is counted of which a front is looked for."""
        known = ["retention", "bits", *self.costs, *(["cost"] if self.cost is not None else [])]
        for name in getattr(self.search, "objectives", None) or ():
            if name not in known:
                raise ValueError(
                    f"search.objectives: nothing is counted under the name {quoted(name)}.{suggestion(name, known)} "
                    f"More costs are named under `costs`"
                )

    @property
    def resolved_menu(self) -> Menu:
        """The menu, or its default: nominal widths for profiles, per channel for real networks."""
        if self.menu is not None:
            return Menu.parse(self.menu)
        suffix = "" if self.task is None else "-channel"
        return Menu.parse([f"INT{bits}{suffix}" for bits in (2, 4, 8)] + ["FP16", "FP32"])

    def own_parts(self) -> dict[str, CodeConfig | HeldConfig]:
        """The parts that come from outside, by key; executors, which change no result, left out."""
        named = {key: getattr(self, key) for key in PARTS}
        named |= {f"costs.{name}": cost for name, cost in self.costs.items()}
        return {key: part for key, part in named.items() if isinstance(part, OWN)}

    def code(self) -> list[str]:
        """Every `module:attribute` that the config names."""
        own = own_code(*self.own_parts().values())
        if isinstance(self.search, OutsideConfig) and ":" in self.search.chosen[1]:
            own.add(self.search.chosen[1])
        return sorted(own | set(task_code(self.task)))

    @property
    def resolved_racing(self) -> RacingConfig:
        """Racing as configured; on by default."""
        return self.racing or RacingConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain data with every default filled in."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        plain["menu"] = list(self.resolved_menu.names)
        if not self.deploy_to:  # unknown to configs that deploy nowhere, whose hashes stay
            del plain["deploy_to"]
        for key in ("trackers", "cost", "costs", "estimator", "files"):
            if not plain[key]:
                del plain[key]
        if self.task is None:  # a campaign on profiles has neither
            del plain["signals"], plain["racing"]
        else:
            plain["racing"] = self.resolved_racing.model_dump(mode="json")
            unknown = ("rounding", "rounding_code", *NOT_HASHED_OF_TASK)  # to configs without one, whose hashes stay
            for key in unknown:
                if plain["task"].get(key, "") is None:
                    del plain["task"][key]
        return plain

    def hash(self) -> str:
        """sha256 of what can change a result."""
        kept = {key: value for key, value in self.to_dict().items() if key not in NOT_HASHED}
        if self.task is not None:
            kept["task"] = {key: value for key, value in kept["task"].items() if key not in NOT_HASHED_OF_TASK}
        return canonical_hash(without_places(kept))


def load_config(path: Path, overrides: Sequence[str] = ()) -> tuple[CampaignConfig, str]:
    """Read a YAML file and apply `key.path=value` overrides; also return the file's text.

    Raises:
        ConfigError: naming the file, the key, the fault and the remedy.
    """
    text = read_text(path, limit=MAX_CONFIG_BYTES, error=ConfigError)
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a campaign is a YAML mapping such as `search: {{kind: genetic}}`.")
    if "base" in data:
        raise ConfigError(f"{path}: this is a sweep, not one campaign; run it with: evoquant sweep {path}")
    for change in overrides:
        override(data, change)
    data.setdefault("name", path.stem)
    resolve_paths(data, path.parent)
    with_files(data)
    return config_from_dict(data, str(path)), text


def config_from_dict(data: Any, source: str) -> CampaignConfig:
    """A config from plain data.

    Raises:
        ConfigError: naming `source`, the key, the fault and the remedy.
    """
    try:
        return CampaignConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(describe_validation(error, source, _all_keys())) from None


def _all_keys() -> set[str]:
    keys: set[str] = set()
    stack: list[type[BaseModel]] = [Closed]
    while stack:
        model = stack.pop()
        keys.update(model.model_fields)
        stack.extend(model.__subclasses__())
    return keys
