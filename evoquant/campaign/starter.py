"""The campaign file that a newcomer starts from: every key with what it means, its default and what else it takes.

A comment ends in `; default` where the value is the default, else in `; default: VALUE`, then in `; or: VALUE | VALUE`,
which stands on a line of its own where it is long.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from pydantic_core import PydanticUndefined

from evoquant.campaign.config import (
    CampaignConfig,
    CliffConfig,
    ExecutorConfig,
    ModelsConfig,
    StopConfig,
    config_from_dict,
)
from evoquant.campaign.config_genome import DirectSpaceConfig, RuleSpaceConfig
from evoquant.campaign.config_measured import ExampleTaskConfig, OnnxTaskConfig, RacingConfig, TorchTaskConfig
from evoquant.campaign.config_search import GeneticConfig, SurrogateConfig
from evoquant.campaign.config_words import words_of
from evoquant.campaign.yaml_file import parse_yaml
from evoquant.models.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from evoquant.campaign.config_measured import TaskConfig

NOMINAL = ["INT2", "INT4", "INT8", "FP16", "FP32"]
PER_CHANNEL = ["INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"]
PASSES = 80
WIDEST = 110  # columns of a comment
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Key:
    """A key of a part, the value that it starts with, and others that it takes, as YAML."""

    name: str
    value: Any
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A mapping of the file, or some keys of its top.

    Attributes:
        made_by: the class that checks it.
        keys: in it.
        name: where it stands; None at the top.
        others: what may stand there instead, as YAML.
    """

    made_by: type[BaseModel]
    keys: tuple[Key, ...]
    name: str | None = None
    others: tuple[str, ...] = ()


def starter(file: Path, task: TaskConfig | None = None) -> str:
    """The text of a campaign file that runs as it is.

    Args:
        file: where it will lie: it names the run, and an ONNX model's paths are relative to it.
        task: the network; None for profiles of models, here those of the seed suite.

    Raises:
        ConfigError: the file would not be accepted.
    """
    name = file.stem if _NAME.fullmatch(file.stem) else "mine"
    parts = _on_profiles(name) if task is None else _on_network(name, task, file)
    head = (
        "# A campaign of evoquant: which layers go to which width, and the heuristic behind it.\n"
        "#\n"
        f"# Run it:  evoquant run {_printable(file.name)}\n"
        "# Each comment says what a key means, its default, and what else may stand there. A key may be left out.\n"
        "# From the command line:  --set search.population=40\n"
    )
    text = head + "".join(map(_part_text, parts))
    config_from_dict(parse_yaml(text, str(file)), str(file))
    return text


def _on_profiles(name: str) -> list[Part]:
    models = (
        Key("train", ["seed/train"], ("[family/cnn/0..11]", "[seed/train, family/transformer/0..3]")),
        Key("valid", ["seed/valid"], ("[family/encoder_decoder/0..3]", "[]")),
        Key("test", ["seed/test"], ("[]",)),
    )
    rules = (Key("kind", "rule"), Key("rungs", 3, ("0", "5")))
    return [
        _top(Key("name", name), Key("seed", 0, ("1", "42"))),
        Part(ModelsConfig, models, "models"),
        _top(Key("menu", NOMINAL, ("[INT4, INT8, FP16]", "[INT4-g128, INT8-channel, FP16, FP32]"))),
        _cost(),
        _objective("{kind: budget, effective_bits: 6}", "{kind: limits, at_most: {bytes: 5MB}}"),
        _top(Key("aggregate", "mean", ("min", "geometric")), Key("relative_to_optimum", False, ("true",))),
        Part(RuleSpaceConfig, rules, "genome", ("{kind: tree}", "{kind: tree, max_nodes: 15}")),
        _genetic(),
        _stop(Key("generations", 120, ("20", "500")), Key("evaluations", None, ("20000",))),
        *_last(),
    ]


def _on_network(name: str, task: TaskConfig, file: Path) -> list[Part]:
    one = (Key("kind", "direct"),)
    steps = (Key("kind", "surrogate"), Key("batch", 2, ("1", "8")), Key("start", [], ("[all_fp16, uniform_int8]",)))
    return [
        _top(Key("name", name), Key("seed", 0, ("1", "42"))),
        _task(task, file),
        _top(
            Key("menu", PER_CHANNEL, ("[INT4-channel, INT8-channel, FP16]", "[INT4-g128, INT8-channel, FP16, FP32]")),
            Key("signals", None, ("[loss, fisher]", "[divergence]")),
            Key("deploy_to", [], ("[onnx]", "[openvino, onnx]")),
        ),
        Part(RacingConfig, (Key("enabled", True, ("false",)), Key("confidence", 0.99, ("0.95",))), "racing"),
        _cost("{kind: bytes, target: openvino}", "{kind: bit_operations}"),
        _objective("{kind: budget, megabytes: 20}", "{kind: limits, at_most: {bytes: 20MB}}"),
        Part(DirectSpaceConfig, one, "genome", ("{kind: rule, rungs: 2}", "{kind: tree}")),
        Part(SurrogateConfig, steps, "search", ("{kind: genetic, population: 40}", "{kind: nsga2}", "{kind: random}")),
        _stop(Key("passes", PASSES, ("20", "400", "null")), Key("generations", 1000, ("50",))),
        *_last(Key("limit_s", None, ("60",))),
    ]


def _top(*keys: Key) -> Part:
    return Part(CampaignConfig, keys)


def _cost(*others: str) -> Part:
    return _top(Key("cost", None, ("{kind: bytes}", *others)))


def _objective(*others: str) -> Part:
    keys = (Key("kind", "cliff"), Key("threshold", 0.95, ("0.9", "0.99")))
    return Part(CliffConfig, keys, "objective", ("{kind: feasible_first, floor: 0.98}", *others))


def _task(task: TaskConfig, file: Path) -> Part:
    sizes = (Key("seed", task.seed, ("1",)), Key("block", None, ("256",)), Key("batch", None, ("64",)))
    if isinstance(task, ExampleTaskConfig):
        others = tuple(name for name in TASKS if name != task.kind)
        return Part(ExampleTaskConfig, (Key("kind", task.kind, others), *sizes), "task")
    if isinstance(task, TorchTaskConfig):
        return Part(TorchTaskConfig, (Key("kind", "torch"), Key("factory", task.factory), *sizes), "task")
    assert isinstance(task, OnnxTaskConfig)
    paths = [Key(name, os.path.relpath(getattr(task, name), file.parent), ()) for name in ("model", "data")]
    metric = Key("metric", task.metric, ("agreement",))
    return Part(OnnxTaskConfig, (Key("kind", "onnx"), *paths, metric, *sizes), "task")


def _genetic() -> Part:
    keys = (
        Key("kind", "genetic"),
        Key("population", 100, ("40", "1000")),
        Key("elites", 4, ("1", "10")),
        Key("tournament", 3, ("2", "5")),
        Key("crossover_rate", 0.7, ("0.5",)),
        Key("mutation_rate", 0.1, ("0.05",)),
        Key("immigrant_rate", 0.05, ("0",)),
        Key("tune_rate", 0.0, ("0.2",)),
        Key("parsimony", 0.0, ("0.001",)),
        Key("start", [], ("[all_fp16]", "[uniform_int8, wider_fp16_zone]")),
    )
    return Part(
        GeneticConfig, keys, "search", ("{kind: nsga2}", "{kind: map_elites}", "{kind: islands}", "{kind: random}")
    )


def _stop(*keys: Key) -> Part:
    common = (Key("stagnation", None, ("30",)), Key("target", None, ("3.9",)), Key("wall_time_s", None, ("600",)))
    return Part(StopConfig, (*keys, *common), "stop")


def _last(*keys: Key) -> list[Part]:
    places = (
        Key("kind", "auto", ("local", "ray")),
        Key("workers", None, ("2",)),
        Key("address", None, ("auto",)),
        *keys,
    )
    return [
        _top(Key("finalists", 32, ("1", "100"))),
        Part(ExecutorConfig, places, "executor"),
        _top(Key("trackers", [], ("[{kind: tensorboard}]", "[{kind: mlflow}]"))),
    ]


def _part_text(part: Part) -> str:
    lines = [""]
    indent = ""
    if part.name is not None:
        lines += [*_comment(words_of("CampaignConfig", part.name), None, part.others), f"{part.name}:"]
        indent = "  "
    for key in part.keys:
        said = _comment(words_of(part.made_by.__name__, key.name), _default(part.made_by, key), key.others)
        lines += [f"{indent}{line}" for line in (*said, f"{key.name}: {_flow(key.value)}")]
    return "\n".join(lines) + "\n"


def _comment(words: str, default: str | None, others: Sequence[str]) -> list[str]:
    """One line, or two where it would be long."""
    said = f"# {words}" if default is None else f"# {words}; {default}"
    if not others:
        return [said]
    more = f"or: {' | '.join(others)}"
    return [f"{said}; {more}"] if len(said) + len(more) < WIDEST else [f"{said};", f"#   {more}"]


def _default(made_by: type[BaseModel], key: Key) -> str | None:
    """What to say of the default of a key; None where it has none."""
    default = made_by.model_fields[key.name].get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return None
    if key.name == "menu":  # what null stands for
        default = key.value
    return "default" if default == key.value else f"default: {_flow(default)}"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump([value], default_flow_style=True, width=10**9, allow_unicode=True)
    return text.strip()[1:-1]


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
