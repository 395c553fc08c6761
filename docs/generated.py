"""Pages of the site that are made from the program itself: every key of a campaign's and a sweep's file, every command.

`conf.py` puts them where a page says `<!-- generated: NAME -->`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from evoquant.campaign.config import CampaignConfig
from evoquant.campaign.schema import config_schema, sweep_schema

Schema = Mapping[str, Any]
REFERENCE = "#/$defs/"
ANYTHING = "JsonValue"
LIMITS = (("minimum", "at least {}"), ("exclusiveMinimum", "above {}"), ("maximum", "at most {}"))
LIMITS += (("exclusiveMaximum", "below {}"),)
SIZES = (("minItems", "at least {} of them"), ("maxItems", "at most {} of them"), ("minProperties", "at least {}"))
SIZES += (("maxProperties", "at most {}"), ("minLength", "at least {} characters"), ("maxLength", "at most {}"))
BAR = "\\|"
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def yaml_reference() -> str:
    """Every key of a campaign's file in Markdown: its values, default, limits and meaning."""
    schema = config_schema()
    parts, classes = schema["$defs"], {made.__name__: made for made in _models(BaseModel)}
    pages = ["## All keys", _table("CampaignConfig", schema, classes)]
    seen: set[str] = set()
    for key, value in schema["properties"].items():
        found = [name for name in _within(value, parts) if name not in seen]
        seen.update(found)
        if found:
            pages.append(f"## `{key}`")
        for name in found:
            pages += [f"(yaml-{name.lower()})=", f"### {_title(name, parts[name])}", _table(name, parts[name], classes)]
    return "\n\n".join(pages) + "\n"


def sweep_reference() -> str:
    """Every key of a sweep's file; a campaign's stand on their own page."""
    schema, classes = sweep_schema(), {made.__name__: made for made in _models(BaseModel)}
    part = "SweepExecutorConfig"
    tables = [_table("SweepConfig", schema, classes), _table(part, schema["$defs"][part], classes)]
    return f"\n\n(yaml-{part.lower()})=\n## `executor`\n\n".join(tables) + "\n"


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for made in base.__subclasses__():
        if made.__module__.startswith("evoquant."):
            yield made
        yield from _models(made)


def _within(value: Any, parts: Schema) -> list[str]:
    """The parts that a value may be made of, in reading order, deeper ones after it."""
    found: dict[str, None] = {}
    for name in _references(value):
        found[name] = None
        found |= dict.fromkeys(_within(parts[name]["properties"], parts))
    return list(found)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value and not value["$ref"].endswith(ANYTHING):
            yield value["$ref"].removeprefix(REFERENCE)
        for key, inner in value.items():
            if key != "default":
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _title(name: str, part: Schema) -> str:
    kind = part["properties"].get("kind", {})
    if "const" in kind:
        return f"`kind: {kind['const']}`"
    return "`kind: module:Class`" if "pattern" in kind else str(part["description"]).split(".")[0]


def _table(name: str, part: Schema, classes: Mapping[str, type[BaseModel]]) -> str:
    fields = (CampaignConfig if name == "CampaignConfig" else classes[name]).model_fields
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key, value in part["properties"].items():
        field = fields[key]
        shown = "**required**" if field.is_required() else _default(field.get_default(call_default_factory=True))
        if name in ("CampaignConfig", "SweepConfig") and key == "name":
            shown = "the file's name"
        rows.append(f"| `{key}` | {value_text(value)} | {shown} | {_cell(value.get('description', ''))} |")
    return "\n".join(rows)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return f"`{value.kind}`" if hasattr(value, "kind") else "its own defaults"
    if value is None:
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", BAR).replace("<", "&lt;")


def value_text(value: Schema) -> str:
    """What may stand at a key, with its limits, as the cell of a table."""
    if "$ref" in value:
        name = value["$ref"].removeprefix(REFERENCE)
        if name == "CampaignConfig":
            return "[a campaign's keys](yaml.md)"
        return "anything" if name == ANYTHING else f"[{_label(name)}](#yaml-{name.lower()})"
    forms = value.get("anyOf") or value.get("oneOf")
    if forms:
        kept = [value_text(form) for form in forms if form.get("type") != "null"]
        return ", ".join(kept[:-1]) + (" or " if kept[:-1] else "") + kept[-1]
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return "one of " + ", ".join(f"`{choice}`" for choice in value["enum"])
    return _plain(value)


def _plain(value: Schema) -> str:
    kind = value.get("type")
    if kind == "array":
        inner = value.get("prefixItems") or [value.get("items", {})]
        said = "list of: " + ", ".join(value_text(item) for item in inner)
        limits = SIZES if "prefixItems" not in value else ()
    elif kind == "object":
        inner = value.get("additionalProperties")
        said = "name → " + value_text(inner) if isinstance(inner, Mapping) else "keys and values"
        limits = SIZES
    else:
        said, limits = WORDS.get(str(kind), "anything"), (*LIMITS, *SIZES)
    bounds = [words.format(_number(value[name])) for name, words in limits if name in value]
    pattern = [f"as `{_cell(value['pattern'])}`"] if "pattern" in value else []
    return ", ".join([said, *bounds, *pattern])


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value < 2**40 else f"{value:g}"


def _label(name: str) -> str:
    kind = _parts()[name]["properties"].get("kind", {})
    if "pattern" in kind:
        return "module:Class"
    plain = name.removeprefix("Sweep").removesuffix("Config").removesuffix("Schema")
    return str(kind.get("const", plain.lower()))


@functools.cache
def _parts() -> dict[str, Any]:
    return dict(sweep_schema()["$defs"])


def command_reference() -> str:
    """Every command with its arguments and options, in Markdown."""
    import typer

    from evoquant.cli import app

    pages = []
    for path, command in _commands(typer.main.get_command(app), "evoquant"):
        context = command.context_class(command, info_name=path)
        usage = " ".join(command.collect_usage_pieces(context))
        pages += [f"## `{path}`", _cell(command.help or ""), f"```text\n{path} {usage}\n```"]
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [f"| `{name.replace('|', BAR)}` | {_cell(words)} |" for name, words in filter(None, records)]
        if rows:
            pages.append("\n".join(["| argument or option | meaning |", "| --- | --- |", *rows]))
    return "\n\n".join(pages) + "\n"


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None or command.callback is not None:
        yield path, command
    for name, part in (inner or {}).items():
        yield from _commands(part, f"{path} {name}")


PAGES = {"yaml": yaml_reference, "sweep": sweep_reference, "commands": command_reference}
